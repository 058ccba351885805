// The C interface between the Rust of this crate and libtorch.
//
// Rules that every function keeps:
//  * no C++ exception leaves it: failures come back as a Status;
//  * a Tensor pointer is borrowed for the call;
//  * `out` receives a new at::Tensor, owned by the caller as tch owns its tensors.
#pragma once

#include <status_abi.h>

#include <cstddef>
#include <cstdint>

namespace at {
class Tensor;
}

extern "C" {

struct AdamOptions {
  double beta1;
  double beta2;
  double epsilon;
  double weight_decay;
};

// One layer's float32 [C] tensors, and how it normalises.
struct NormLayer {
  at::Tensor* weight;
  at::Tensor* bias;
  at::Tensor* running_mean;
  at::Tensor* running_variance;
  // Zero: the running statistics normalise. Otherwise the batch's do, and move them.
  int32_t batch;
  double momentum;
  double epsilon;
};

struct AutocastState {
  int32_t enabled;
  int32_t dtype;
};

void kernels_keep_freed_memory();

Status kernels_zero_grads(at::Tensor** tensors, size_t count);
Status kernels_clear_grads(at::Tensor** tensors, size_t count);
Status kernels_move_grads(at::Tensor** tensors, at::Tensor** places, size_t count);
Status kernels_adam_step(
    at::Tensor** params, at::Tensor** exp_avgs, at::Tensor** exp_avg_sqs, at::Tensor** steps,
    size_t count, at::Tensor* learning_rate, const AdamOptions* options);

// Both on the CPU only. `residual` may be NULL.
Status kernels_batch_norm(
    at::Tensor* x, const NormLayer* layer, at::Tensor* residual, int32_t relu, at::Tensor** out);
Status kernels_batch_norm_relu_max_pool(at::Tensor* x, const NormLayer* layer, at::Tensor** out);
// What their loops were compiled for: baseline, avx2 or avx512.
const char* kernels_batch_norm_instruction_set();

// Device types are 0 (CPU) and 1 (CUDA).
Status kernels_autocast_enter(int32_t device_type, AutocastState* previous);
void kernels_autocast_leave(int32_t device_type, const AutocastState* previous);

} // extern "C"
