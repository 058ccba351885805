// What both backends add to libtorch's own: an abort that later calls see,
// and a lock that makes starting collectives safe from more than one thread.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace shim {

// Held while a collective starts. Gloo has one and NCCL, in a library of its own, another: all groups
// of a worker have the same backend.
inline std::timed_mutex& starting() {
  static std::timed_mutex lock;
  return lock;
}

using AbortFlag = std::shared_ptr<std::atomic<bool>>;

// Base is a c10d backend. When a collective starts, it writes its own counters and,
// in 2.11, a map of the process-wide flight recorder without a lock: two threads,
// even with a group each, corrupt them. So they share a lock, which is
// held while a collective starts, never while one is awaited.
template <typename Base>
class GuardedBackend : public Base {
 public:
  template <typename... Args>
  explicit GuardedBackend(AbortFlag aborted, Args&&... args)
      : Base(std::forward<Args>(args)...), aborted_(std::move(aborted)) {}

  c10::intrusive_ptr<c10d::Work> allreduce(
      std::vector<at::Tensor>& tensors, const c10d::AllreduceOptions& options) override {
    const auto lock = begin();
    return Base::allreduce(tensors, options);
  }

  c10::intrusive_ptr<c10d::Work> broadcast(
      std::vector<at::Tensor>& tensors, const c10d::BroadcastOptions& options) override {
    const auto lock = begin();
    return Base::broadcast(tensors, options);
  }

  c10::intrusive_ptr<c10d::Work> allgather(
      std::vector<std::vector<at::Tensor>>& outputs, std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& options) override {
    const auto lock = begin();
    return Base::allgather(outputs, inputs, options);
  }

 protected:
  AbortFlag aborted_;

 private:
  std::unique_lock<std::timed_mutex> begin() {
    std::unique_lock<std::timed_mutex> lock(starting());
    TORCH_CHECK(!*aborted_, "the process group was aborted");
    return lock;
  }
};

} // namespace shim
