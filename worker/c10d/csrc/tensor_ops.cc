// The few tensor operations that tch does not offer.
#include "status.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
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

Status c10d_to_channels_last(at::Tensor* tensor, at::Tensor** out) {
  return shim::guarded([&] {
    TORCH_CHECK(tensor->dim() == 4, "channels_last needs 4 dimensions, got ", tensor->dim());
    auto result = tensor->contiguous(at::MemoryFormat::ChannelsLast);
    // Where height and width are 1, the plain layout counts as channels_last too and
    // keeps its strides; the gradient of a convolution gets these ones.
    const auto strides = c10::get_channels_last_strides_2d(result.sizes());
    if (result.strides() != at::IntArrayRef(strides)) {
      result = result.as_strided(result.sizes(), strides);
    }
    *out = new at::Tensor(std::move(result));
  });
}

Status c10d_zero_grads(at::Tensor** tensors, size_t count) {
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

Status c10d_adam_step(
    at::Tensor** params, at::Tensor** exp_avgs, at::Tensor** exp_avg_sqs, at::Tensor** steps,
    size_t count, const AdamOptions* options) {
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
        p, g, m, v, /*max_exp_avg_sqs=*/{}, t, options->learning_rate, options->beta1,
        options->beta2, options->weight_decay, options->epsilon, /*amsgrad=*/false,
        /*maximize=*/false);
  });
}

Status c10d_autocast_enter(int32_t device_type, AutocastState* previous) {
  return shim::guarded([&] {
    const auto device = static_cast<at::DeviceType>(device_type);
    previous->enabled = at::autocast::is_autocast_enabled(device) ? 1 : 0;
    previous->dtype = static_cast<int32_t>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

void c10d_autocast_leave(int32_t device_type, const AutocastState* previous) {
  shim::swallowed([&] {
    const auto device = static_cast<at::DeviceType>(device_type);
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(device, previous->enabled != 0);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(previous->dtype));
  });
}
