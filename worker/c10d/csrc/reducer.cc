// DDP's Reducer behind the C interface.
#include "group.h"

#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>

namespace {

// Gives access to the Reducer's own timer, which PyTorch exposes only to its logger.
class TimedReducer final : public c10d::Reducer {
 public:
  using Reducer::Reducer;

  int64_t measure(c10d::Timer::Event start, c10d::Timer::Event end) {
    // CpuTimer does not distinguish "not yet" from a time: check both ends first.
    if (!timer_ || !timer_->getTimestamp(start) || !timer_->getTimestamp(end)) {
      return -1;
    }
    return timer_->measureDifference(start, end).value_or(-1);
  }
};

} // namespace

struct ShimReducer {
  std::unique_ptr<TimedReducer> inner;
  shim::AbortFlag aborted;
};

Status c10d_reducer_new(
    at::Tensor** params, size_t count, ShimGroup* group, int64_t first_bucket_bytes,
    int64_t bucket_bytes, int32_t gradient_as_bucket_view, ShimReducer** out) {
  return shim::guarded_by(group->aborted, [&] {
    std::vector<at::Tensor> list;
    list.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      list.push_back(*params[i]);
    }
    c10d::verify_params_across_processes(group->inner, list, std::nullopt);
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
        list,
        {static_cast<size_t>(first_bucket_bytes), static_cast<size_t>(bucket_bytes)},
        std::vector<bool>(count, false)));
    // Gradients come in roughly the reverse of the order of the forward pass.
    std::reverse(buckets.begin(), buckets.end());
    auto reducer = std::make_unique<TimedReducer>(
        std::move(list), std::move(buckets), group->inner, std::vector<bool>(count, false),
        bucket_bytes,
        /*find_unused_parameters=*/false, gradient_as_bucket_view != 0,
        std::unordered_map<size_t, std::string>(), first_bucket_bytes,
        /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false, std::vector<int64_t>());
    if (group->device) {
      // The device divides each bucket, instead of each gradient on its own.
      reducer->register_builtin_comm_hook(c10d::BuiltinCommHookType::ALLREDUCE);
    }
    // Every step is timed: five clock readings (CPU) or events (CUDA) a step.
    reducer->set_ddp_runtime_logging_sample_rate(1);
    *out = new ShimReducer{std::move(reducer), group->aborted};
  });
}

Status c10d_reducer_prepare_for_forward(ShimReducer* reducer) {
  return shim::guarded_by(reducer->aborted, [&] {
    reducer->inner->prepare_for_forward();
    // Once, after the first backward: buckets in the order the gradients came in.
    reducer->inner->rebuild_buckets();
  });
}

Status c10d_reducer_prepare_for_backward(ShimReducer* reducer, at::Tensor* loss) {
  return shim::guarded_by(reducer->aborted, [&] { reducer->inner->prepare_for_backward({*loss}); });
}

Status c10d_reducer_timings(ShimReducer* reducer, Timings* out) {
  return shim::guarded([&] {
    using Event = c10d::Timer::Event;
    auto& inner = *reducer->inner;
    out->forward = inner.measure(Event::kForwardStart, Event::kBackwardComputeStart);
    out->backward_compute =
        inner.measure(Event::kBackwardComputeStart, Event::kBackwardComputeEnd);
    out->allreduce_wait = inner.measure(Event::kBackwardComputeEnd, Event::kBackwardCommEnd);
  });
}

void c10d_reducer_free(ShimReducer* reducer) {
  shim::swallowed([&] { delete reducer; });
}
