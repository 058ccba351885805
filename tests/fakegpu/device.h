// What the fake runtime and the fake NCCL share: work that the device has not done yet.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <memory>
#include <string>

namespace fake {

// Everything happens at once when it is asked for, but for collectives: they wait for other ranks,
// and the host goes on meanwhile.
struct Pending {
  std::atomic<bool> done{false};
};

// Lets whatever follows on the stream wait for this.
void enqueue(cudaStream_t stream, std::shared_ptr<Pending> work);

// Returns when the stream, or each stream, waits for nothing.
void wait(cudaStream_t stream);
void wait_for_device();

// What a fault has left behind: it stays until the process ends.
cudaError_t fault();

// From now on there is no memory left.
void starve();

// Whether what is asked for is recorded instead of done.
bool is_recording();

// A call that is recorded.
void record();

// Where ranks exchange data, and tests say what is to happen.
std::string folder();

// Whether a test has put a file of this name there.
bool is_told(const std::string& name);

// Writes a line to the trace of the process, if there is one: what was asked of the device.
void trace(const char* what, const char* name = "");

} // namespace fake
