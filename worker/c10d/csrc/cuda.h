// How the rest of the shim reaches NCCL and CUDA, which live in libc10d_nccl.so.
#pragma once

#include "guarded_backend.h"

#include <torch/csrc/distributed/c10d/Store.hpp>

namespace shim {

// Throws when libc10d_nccl.so is not loaded. Connects at once: blocks until every
// rank has joined.
c10::intrusive_ptr<c10d::Backend> nccl_backend(
    const c10::intrusive_ptr<c10d::Store>& store, int32_t rank, int32_t world_size,
    int32_t device, int64_t timeout_ms, const AbortFlag& aborted);

} // namespace shim
