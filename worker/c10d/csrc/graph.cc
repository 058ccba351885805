// CUDA graphs, in libc10d_nccl.so.
#include "nccl_abi.h"

#include <status.h>

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cuda_runtime_api.h>

#include <memory>
#include <optional>

namespace {

struct Recording {
  at::cuda::CUDAGraph graph;
  // Where it is recorded: CUDA cannot record its default stream.
  std::optional<c10::cuda::CUDAStreamGuard> stream;
};

Recording& recording(void* graph) {
  return *static_cast<Recording*>(graph);
}

} // namespace

Status shim::graph_begin(int32_t index, void** out) {
  return shim::guarded([&] {
    const auto device = static_cast<c10::DeviceIndex>(index);
    c10::cuda::CUDAGuard guard(device);
    // What is recorded has memory of its own. What earlier work has left must not add to it.
    C10_CUDA_CHECK(cudaDeviceSynchronize());
    c10::cuda::CUDACachingAllocator::emptyCache();
    auto begun = std::make_unique<Recording>();
    begun->stream.emplace(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device));
    // Other threads may allocate meanwhile: the backward pass does, on its own.
    begun->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    *out = begun.release();
  });
}

Status shim::graph_end(void* graph) {
  const auto status = shim::guarded([&] { recording(graph).graph.capture_end(); });
  shim::swallowed([&] { recording(graph).stream.reset(); });
  return status;
}

Status shim::graph_replay(void* graph) {
  return shim::guarded([&] { recording(graph).graph.replay(); });
}

void shim::graph_free(void* graph) {
  shim::swallowed([&] { delete &recording(graph); });
}
