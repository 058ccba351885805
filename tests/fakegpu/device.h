// What the files of the fake GPU share.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <string>

namespace fake {

// Everything happens at once when it is asked for, but for functions of the host, which are
// collectives, and copies behind them: the host goes on meanwhile.

// Does this when the stream waits for nothing any more; what follows on the stream waits for it.
void follow(cudaStream_t stream, std::function<void()> work);

// Whether the stream waits for nothing.
bool is_idle(cudaStream_t stream);

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

// While there is one, its thread writes nothing.
struct Untraced {
  Untraced();
  ~Untraced();
};

} // namespace fake
