// The C ABI between Rust and libtorch's collectives.
//
// Every function that can fail returns an error message (release it with shim_free) or null.
// No C++ exception crosses. Tensors are `at::Tensor*` as tch hands them out.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void shim_free(char* message);
const char* shim_libtorch_version();

char* shim_store_serve(const char* host, int64_t timeout_ms, void** store, uint16_t* port);
char* shim_store_connect(const char* host, uint16_t port, int64_t timeout_ms, void** store);
void shim_store_drop(void* store);

// `nccl_device` below 0 means Gloo. `make_nccl` is the function of the NCCL object, or null.
char* shim_group_new(void* store, const char* prefix, int rank, int size, const char* host,
                     int nccl_device, void* make_nccl, int64_t timeout_ms, void** group);
void shim_group_drop(void* group);
char* shim_group_all_reduce(void* group, void* tensor);
char* shim_group_broadcast(void* group, void* const* tensors, size_t count, int root);
char* shim_group_barrier(void* group);
char* shim_group_abort(void* group);

char* shim_reducer_new(void* const* parameters, size_t count, void* group, size_t first_bucket,
                       size_t bucket, bool gradient_as_view, void** reducer);
void shim_reducer_drop(void* reducer);
char* shim_reducer_prepare_forward(void* reducer);
char* shim_reducer_prepare_backward(void* reducer, void* loss);
// Nanoseconds from prepare_backward until the last gradient was computed.
char* shim_reducer_compute_nanos(void* reducer, int64_t* nanos);

char* shim_channels_last(void* tensor, void** result);
char* shim_zero_grads(void* const* parameters, size_t count);
void shim_autocast_enter(bool cuda, bool* previous, int* previous_type);
void shim_autocast_exit(bool cuda, bool previous, int previous_type);

char* shim_fused_adam(void* const* parameters, void* const* averages, void* const* squares,
                      void* const* steps, size_t count, double rate, double beta1, double beta2,
                      double weight_decay, double epsilon);

char* shim_open_library(const char* path, void** handle);
void* shim_symbol(void* handle, const char* name);

#ifdef __cplusplus
}
#endif
