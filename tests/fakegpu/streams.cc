// The CUDA runtime's streams, events and kernels. Kernels do nothing, so a stream is what it waits
// for.
#include "device.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

// Work that the device has not done yet.
struct Pending {
  std::atomic<bool> done{false};
};

using Work = std::vector<std::shared_ptr<Pending>>;
using Lock = std::lock_guard<std::mutex>;

// What is done later, by a thread of the stream.
struct Later {
  Work before;
  std::function<void()> work;
  std::shared_ptr<Pending> pending;
};

struct Stream {
  // What follows waits for all of this.
  Work work;
  // Not empty while there is a thread.
  std::deque<Later> later;
};

struct Event {
  Work work;
  bool recorded = false;
};

// Never destroyed: libtorch's threads outlive static destructors.
struct Streams {
  std::mutex lock;
  Stream by_default;
  std::set<Stream*> all{&by_default};
};

Streams& streams() {
  static Streams* const the = new Streams;
  return *the;
}

// The three default streams have the handles 0, 1 and 2.
Stream& stream_of(cudaStream_t handle) {
  const auto number = reinterpret_cast<uintptr_t>(handle);
  return number <= 2 ? streams().by_default : *reinterpret_cast<Stream*>(handle);
}

Event& event_of(cudaEvent_t handle) {
  return *reinterpret_cast<Event*>(handle);
}

bool is_done(Work& work) {
  Lock lock(streams().lock);
  while (!work.empty() && work.back()->done) {
    work.pop_back();
  }
  for (const auto& one : work) {
    if (!one->done) {
      return false;
    }
  }
  return true;
}

void wait(Work& work) {
  while (!is_done(work)) {
    ::usleep(200);
  }
}

// Until there is no more.
void perform(Stream& stream) {
  for (bool more = true; more;) {
    Later* next;
    {
      Lock lock(streams().lock);
      // The deque may grow meanwhile at its other end.
      next = &stream.later.front();
    }
    wait(next->before);
    next->work();
    next->pending->done = true;
    Lock lock(streams().lock);
    stream.later.pop_front();
    more = !stream.later.empty();
  }
}

// Whether the host can wait at all.
cudaError_t begin_to_wait(const char* what) {
  fake::trace("synchronize", what);
  if (fake::is_recording()) {
    return cudaErrorStreamCaptureUnsupported;
  }
  return fake::fault();
}

} // namespace

void fake::follow(cudaStream_t handle, std::function<void()> work) {
  auto& stream = stream_of(handle);
  auto pending = std::make_shared<Pending>();
  Lock lock(streams().lock);
  stream.later.push_back({std::exchange(stream.work, {pending}), std::move(work), pending});
  if (stream.later.size() == 1) {
    std::thread(perform, std::ref(stream)).detach();
  }
}

bool fake::is_idle(cudaStream_t stream) {
  return is_done(stream_of(stream).work);
}

void fake::wait(cudaStream_t stream) {
  ::wait(stream_of(stream).work);
}

void fake::wait_for_device() {
  std::set<Stream*> all;
  {
    Lock lock(streams().lock);
    all = streams().all;
  }
  for (auto* stream : all) {
    ::wait(stream->work);
  }
}

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned, int) {
  auto* stream = new Stream;
  Lock lock(streams().lock);
  streams().all.insert(stream);
  *out = reinterpret_cast<cudaStream_t>(stream);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const auto error = begin_to_wait("device");
  if (error == cudaSuccess) {
    fake::wait_for_device();
  }
  return error;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return is_done(stream_of(stream).work) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const auto error = begin_to_wait("stream");
  if (error == cudaSuccess) {
    wait(stream_of(stream).work);
  }
  return error;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Lock lock(streams().lock);
  const auto& awaited = event_of(event).work;
  auto& work = stream_of(stream).work;
  work.insert(work.end(), awaited.begin(), awaited.end());
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  if (const auto error = fake::fault(); error != cudaSuccess) {
    return error;
  }
  fake::follow(stream, [=] { function(argument); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  *out = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* out) {
  return cudaEventCreateWithFlags(out, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete &event_of(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  auto& work = stream_of(stream).work;
  is_done(work);
  Lock lock(streams().lock);
  event_of(event).work = work;
  event_of(event).recorded = true;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (const auto error = fake::fault(); error != cudaSuccess) {
    return error;
  }
  return is_done(event_of(event).work) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const auto error = begin_to_wait("event");
  if (error == cudaSuccess) {
    wait(event_of(event).work);
  }
  return error;
}

cudaError_t cudaEventElapsedTime(float* out, cudaEvent_t from, cudaEvent_t to) {
  if (!event_of(from).recorded || !event_of(to).recorded) {
    return cudaErrorInvalidResourceHandle;
  }
  *out = 1;
  return cudaEventQuery(to);
}

// Kernels. The compiler's own part of the runtime has no header for others.

// Mangled names by the address of the host's stub. Never destroyed: see above.
using Names = std::unordered_map<const void*, const char*>;

static Names& names() {
  static auto* const the = new Names;
  return *the;
}

static cudaError_t launched(const void* function) {
  const auto found = names().find(function);
  const char* const name = found == names().end() ? "unknown" : found->second;
  fake::trace("launch", name);
  static const char* const last = std::getenv("FAKEGPU_OUT_OF_MEMORY_AFTER");
  if (last != nullptr && std::strstr(name, last) != nullptr) {
    fake::starve();
  }
  return cudaSuccess;
}

// Libraries register while they are loaded, one after the other.
void __cudaRegisterFunction(
    void**, const void* function, char*, const char* name, int, void*, void*, void*, void*, int*) {
  names()[function] = name;
}

struct Launch {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
static thread_local Launch launch;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  launch = {grid, block, shared, stream};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(
    dim3* grid, dim3* block, size_t* shared, cudaStream_t* stream) {
  *grid = launch.grid;
  *block = launch.block;
  *shared = launch.shared;
  *stream = launch.stream;
  return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void* function, dim3, dim3, void**, size_t, cudaStream_t) {
  return launched(function);
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void**, size_t, cudaStream_t) {
  return launched(kernel);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void* function, void**) {
  return launched(function);
}

cudaError_t __cudaGetKernel(cudaKernel_t* out, const void* function) {
  *out = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar() {}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void*) {
  *out = {};
  out->maxThreadsPerBlock = 1024;
  out->numRegs = 32;
  out->binaryVersion = out->ptxVersion = 90;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* out, const void*, int, size_t, unsigned) {
  *out = 8;
  return cudaSuccess;
}

} // extern "C"
