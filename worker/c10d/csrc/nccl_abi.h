// The interface of libc10d_nccl.so for the shim that loads it. C++ types may cross here,
// exceptions may not: both sides are built from one tree against one libtorch.
#pragma once

#include "abi.h"
#include "guarded_backend.h"

#include <torch/csrc/distributed/c10d/Store.hpp>

namespace shim {

struct NcclTable {
  // `*out` has one reference, which the caller owns.
  Status (*backend_new)(
      const c10::intrusive_ptr<c10d::Store>& store, int32_t rank, int32_t world_size,
      int32_t device, int64_t timeout_ms, const AbortFlag& aborted, c10d::Backend** out);
  Status (*device_count)(int32_t* out);
  Status (*device_info)(int32_t index, DeviceInfo* out);
  Status (*synchronize)(int32_t index);
  Status (*free_memory)(int32_t index, uint64_t* out);
  // `*out` has one reference, which the caller owns. `*event` is freed with `event_free`.
  Status (*copy_to_host)(const at::Tensor& from, at::Tensor** out, void** event);
  Status (*event_wait)(void* event);
  void (*event_free)(void* event);
  Status (*graph_begin)(int32_t index, void** out);
  Status (*graph_end)(void* graph);
  Status (*graph_replay)(void* graph);
  void (*graph_free)(void* graph);
};

Status graph_begin(int32_t index, void** out);
Status graph_end(void* graph);
Status graph_replay(void* graph);
void graph_free(void* graph);

} // namespace shim

extern "C" const shim::NcclTable* c10d_nccl_table();
