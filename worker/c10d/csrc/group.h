// The process group handle.
#pragma once

#include "abi.h"
#include "guarded_backend.h"

#include <status.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <optional>

struct ShimGroup {
  c10::intrusive_ptr<c10d::ProcessGroup> inner;
  // The backend that `inner` dispatches to. Collectives started here go to it
  // directly, past the dispatcher.
  c10::intrusive_ptr<c10d::Backend> backend;
  shim::AbortFlag aborted;
  // Where an NCCL group's tensors live.
  std::optional<int32_t> device;
};

namespace shim {

// Like `guarded`, and distinguishes an abort by this process from other failures.
template <typename Body>
Status guarded_by(const AbortFlag& aborted, Body&& body) noexcept {
  Status result = guarded(std::forward<Body>(body));
  if (result.kind == kFailed && *aborted) {
    result.kind = kAborted;
  }
  return result;
}

} // namespace shim
