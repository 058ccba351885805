// CUDA graphs. What would be recorded does nothing here, so a graph is the number of its nodes.
#include "device.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>

namespace {

// One stream is recorded at a time, and whatever any thread asks for meanwhile is recorded.
std::atomic<cudaStream_t> recorded{nullptr};
std::atomic<size_t> nodes{0};

struct Graph {
  size_t nodes;
};

// Whether a test lets CUDA refuse this recording.
bool is_refused() {
  static std::atomic<int> left{[] {
    const char* refused = std::getenv("FAKEGPU_REFUSED_RECORDINGS");
    return refused == nullptr ? 0 : std::atoi(refused);
  }()};
  return left > 0 && left-- > 0;
}

} // namespace

bool fake::is_recording() {
  return recorded != nullptr;
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  cudaStream_t none = nullptr;
  // The default stream cannot be recorded.
  const bool is_default = reinterpret_cast<size_t>(stream) <= 2;
  if (is_refused() || is_default || !recorded.compare_exchange_strong(none, stream)) {
    return cudaErrorStreamCaptureUnsupported;
  }
  nodes = 0;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  if (recorded.exchange(nullptr) != stream) {
    return cudaErrorStreamCaptureUnmatched;
  }
  *out = reinterpret_cast<cudaGraph_t>(new Graph{nodes});
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* out) {
  *out = stream != nullptr && stream == recorded ? cudaStreamCaptureStatusActive
                                                 : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream, cudaStreamCaptureStatus* out, unsigned long long* id, cudaGraph_t*,
    const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
  if (id != nullptr) {
    *id = 1;
  }
  return cudaStreamIsCapturing(stream, out);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) {
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* out) {
  *out = reinterpret_cast<Graph*>(graph)->nodes;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(
    cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  *out = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  fake::trace("launch", "graph");
  return fake::fault();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}

} // extern "C"

void fake::record() {
  ++nodes;
}
