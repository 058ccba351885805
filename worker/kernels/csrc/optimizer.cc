// Gradients set to zero in place, and the fused Adam, which tch does not offer.
#include "abi.h"

#include <status.h>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <vector>

namespace {

// The fused kernels walk all operands by data pointer: the order of the elements
// in memory must agree. Strides of dimensions of size 1 say nothing about it.
bool same_memory_order(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || !a.is_non_overlapping_and_dense() ||
      !b.is_non_overlapping_and_dense()) {
    return false;
  }
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) {
      return false;
    }
  }
  return true;
}

} // namespace

Status kernels_zero_grads(at::Tensor** tensors, size_t count) {
  return shim::guarded([&] {
    c10::NoGradGuard no_grad;
    std::vector<at::Tensor> grads;
    grads.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      if (const auto& grad = tensors[i]->grad(); grad.defined()) {
        grads.push_back(grad);
      }
    }
    if (!grads.empty()) {
      at::_foreach_zero_(grads);
    }
  });
}

Status kernels_clear_grads(at::Tensor** tensors, size_t count) {
  return shim::guarded([&] {
    for (size_t i = 0; i < count; ++i) {
      tensors[i]->mutable_grad().reset();
    }
  });
}

Status kernels_move_grads(at::Tensor** tensors, at::Tensor** places, size_t count) {
  return shim::guarded([&] {
    c10::NoGradGuard no_grad;
    std::vector<at::Tensor> from, to;
    for (size_t i = 0; i < count; ++i) {
      const auto& grad = tensors[i]->grad();
      TORCH_CHECK(grad.defined(), "parameter ", i, " has no gradient");
      from.push_back(grad);
      to.push_back(*places[i]);
    }
    if (!to.empty()) {
      at::_foreach_copy_(to, from);
    }
    for (size_t i = 0; i < count; ++i) {
      tensors[i]->mutable_grad() = *places[i];
    }
  });
}

Status kernels_adam_step(
    at::Tensor** params, at::Tensor** exp_avgs, at::Tensor** exp_avg_sqs, at::Tensor** steps,
    size_t count, at::Tensor* learning_rate, const AdamOptions* options) {
  return shim::guarded([&] {
    c10::NoGradGuard no_grad;
    std::vector<at::Tensor> p, g, m, v, t;
    for (size_t i = 0; i < count; ++i) {
      const auto& grad = params[i]->grad();
      if (!grad.defined()) {
        continue;
      }
      TORCH_CHECK(
          same_memory_order(*params[i], grad) && same_memory_order(*params[i], *exp_avgs[i]) &&
              same_memory_order(*params[i], *exp_avg_sqs[i]),
          "parameter ", i, " has sizes ", params[i]->sizes(), " and strides ",
          params[i]->strides(), ", but its gradient has strides ", grad.strides(),
          " and its moments ", exp_avgs[i]->strides(), " and ", exp_avg_sqs[i]->strides());
      TORCH_CHECK(
          steps[i]->numel() == 1 && steps[i]->scalar_type() == at::kFloat,
          "the step count of parameter ", i, " must be one float");
      p.push_back(*params[i]);
      g.push_back(grad);
      m.push_back(*exp_avgs[i]);
      v.push_back(*exp_avg_sqs[i]);
      t.push_back(*steps[i]);
    }
    if (p.empty()) {
      return;
    }
    at::_foreach_add_(t, 1);
    at::_fused_adam_(
        p, g, m, v, /*max_exp_avg_sqs=*/{}, t, *learning_rate, options->beta1, options->beta2,
        options->weight_decay, options->epsilon, /*amsgrad=*/false, /*maximize=*/false);
  });
}
