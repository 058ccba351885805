// The CUDA runtime on host memory: allocations, copies and devices. Only what libtorch calls is
// here.
#include "device.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

// Never destroyed: libtorch's threads outlive static destructors.
struct Device {
  std::mutex lock;
  std::map<const char*, size_t> memory;
  std::map<const char*, size_t> pinned;
  size_t used = 0;
};

Device& device() {
  static Device* const the = new Device;
  return *the;
}

using Lock = std::lock_guard<std::mutex>;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

cudaError_t answer(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) {
    last_error = error;
  }
  return error;
}

bool holds(const std::map<const char*, size_t>& blocks, const void* pointer) {
  const auto* address = static_cast<const char*>(pointer);
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin()) {
    return false;
  }
  const auto& [start, size] = *--after;
  return address < start + size;
}

std::atomic<bool> starved{false};

const char* direction(cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToDevice:
      return "to device";
    case cudaMemcpyDeviceToHost:
      return "to host";
    default:
      return "on device";
  }
}

cudaError_t copy(
    void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  fake::trace("copy", direction(kind));
  if (const auto error = fake::fault(); error != cudaSuccess) {
    return answer(error);
  }
  fake::wait(stream);
  std::memmove(to, from, size);
  return cudaSuccess;
}

// Whether the device reaches this memory by itself.
bool is_reached(const void* pointer) {
  Lock lock(device().lock);
  return holds(device().memory, pointer) || holds(device().pinned, pointer);
}

size_t number(const char* variable, size_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

size_t memory_size() {
  static const size_t size = number("FAKEGPU_MEMORY_MIB", 81920) << 20;
  return size;
}

// The names in CUDA_VISIBLE_DEVICES, an index or `GPU-` and the first hex digits of a UUID, as
// indices of this machine's GPUs. As in CUDA, the list ends at the first invalid one.
const std::vector<int>& visible() {
  static const std::vector<int> devices = [] {
    const int count = static_cast<int>(number("FAKEGPU_COUNT", 8));
    std::vector<int> found;
    const char* variable = std::getenv("CUDA_VISIBLE_DEVICES");
    std::string rest = variable == nullptr ? "0,1,2,3,4,5,6,7" : variable;
    while (!rest.empty()) {
      const auto comma = rest.find(',');
      const std::string name = rest.substr(0, comma);
      rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
      int index = -1;
      if (std::sscanf(name.c_str(), "GPU-%1d", &index) == 1) {
        index -= 1;
      } else if (std::sscanf(name.c_str(), "%d", &index) != 1) {
        break;
      }
      if (index < 0 || index >= count) {
        break;
      }
      found.push_back(index);
    }
    return found;
  }();
  return devices;
}

bool is_visible(int index) {
  return index >= 0 && static_cast<size_t>(index) < visible().size();
}

cudaError_t allocate(void** out, size_t size, size_t alignment) {
  if (::posix_memalign(out, alignment, size == 0 ? alignment : size) != 0) {
    return answer(cudaErrorMemoryAllocation);
  }
  // No kernel writes results, so they are what memory holds.
  std::memset(*out, 0, size);
  return cudaSuccess;
}

} // namespace

extern "C" {

// Memory.

cudaError_t cudaMalloc(void** out, size_t size) {
  Lock lock(device().lock);
  *out = nullptr;
  if (starved || device().used + size > memory_size()) {
    return answer(cudaErrorMemoryAllocation);
  }
  const auto error = allocate(out, size, 512);
  if (error == cudaSuccess) {
    device().memory[static_cast<char*>(*out)] = size;
    device().used += size;
  }
  return error;
}

cudaError_t cudaFree(void* pointer) {
  fake::wait_for_device();
  Lock lock(device().lock);
  const auto found = device().memory.find(static_cast<char*>(pointer));
  if (found != device().memory.end()) {
    device().used -= found->second;
    device().memory.erase(found);
    std::free(pointer);
  }
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** out, size_t size, unsigned) {
  Lock lock(device().lock);
  const auto error = allocate(out, size, 4096);
  if (error == cudaSuccess) {
    device().pinned[static_cast<char*>(*out)] = size;
  }
  return error;
}

cudaError_t cudaFreeHost(void* pointer) {
  fake::wait_for_device();
  Lock lock(device().lock);
  device().pinned.erase(static_cast<char*>(pointer));
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* pointer) {
  Lock lock(device().lock);
  *out = {};
  out->type = holds(device().memory, pointer) ? cudaMemoryTypeDevice
      : holds(device().pinned, pointer)       ? cudaMemoryTypeHost
                                              : cudaMemoryTypeUnregistered;
  out->devicePointer = out->hostPointer = const_cast<void*>(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock(device().lock);
  *total = memory_size();
  *free = *total - device().used;
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  fake::trace("synchronize", "copy");
  return copy(to, from, size, kind, nullptr);
}

cudaError_t cudaMemcpyAsync(
    void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool follows = !fake::is_idle(stream) && is_reached(to) && is_reached(from);
  if (!follows || fake::fault() != cudaSuccess) {
    return copy(to, from, size, kind, stream);
  }
  fake::trace("copy", direction(kind));
  fake::follow(stream, [=] { std::memmove(to, from, size); });
  return cudaSuccess;
}

cudaError_t cudaMemset(void* to, int value, size_t size) {
  fake::trace("launch", "memset");
  std::memset(to, value, size);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
  fake::trace("launch", "memset");
  fake::wait(stream);
  std::memset(to, value, size);
  return cudaSuccess;
}

cudaError_t cudaGetSymbolAddress(void** out, const void*) {
  static char symbols[1 << 16];
  *out = symbols;
  return cudaSuccess;
}

// Devices.

cudaError_t cudaGetDeviceCount(int* out) {
  if (fake::is_told("resetting")) {
    return answer(cudaErrorDevicesUnavailable);
  }
  int driver, runtime;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver < runtime) {
    return answer(cudaErrorInsufficientDriver);
  }
  *out = static_cast<int>(visible().size());
  return answer(*out == 0 ? cudaErrorNoDevice : cudaSuccess);
}

cudaError_t cudaGetDevice(int* out) {
  *out = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  if (!is_visible(index)) {
    return answer(cudaErrorInvalidDevice);
  }
  current_device = index;
  return cudaSuccess;
}

// As an H100.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int index) {
  if (!is_visible(index)) {
    return answer(cudaErrorInvalidDevice);
  }
  *out = {};
  std::strcpy(out->name, "Fake GPU");
  // The first digit of the UUID is the index, counted from 1.
  out->uuid.bytes[0] = static_cast<char>((visible()[index] + 1) << 4);
  out->totalGlobalMem = memory_size();
  out->sharedMemPerBlock = 48 << 10;
  out->sharedMemPerBlockOptin = 227 << 10;
  out->sharedMemPerMultiprocessor = 228 << 10;
  out->regsPerBlock = out->regsPerMultiprocessor = 65536;
  out->warpSize = 32;
  out->maxThreadsPerBlock = out->maxThreadsDim[0] = out->maxThreadsDim[1] = 1024;
  out->maxThreadsDim[2] = 64;
  out->maxGridSize[0] = 2147483647;
  out->maxGridSize[1] = out->maxGridSize[2] = 65535;
  out->major = 9;
  out->multiProcessorCount = 132;
  out->maxThreadsPerMultiProcessor = 2048;
  out->maxBlocksPerMultiProcessor = 32;
  out->textureAlignment = 512;
  out->l2CacheSize = 50 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* out, cudaDeviceAttr attribute, int index) {
  cudaDeviceProp properties;
  if (const auto error = cudaGetDeviceProperties(&properties, index); error != cudaSuccess) {
    return error;
  }
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *out = properties.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *out = properties.minor;
      break;
    case cudaDevAttrMultiProcessorCount:
      *out = properties.multiProcessorCount;
      break;
    case cudaDevAttrWarpSize:
      *out = properties.warpSize;
      break;
    default:
      *out = 1024;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* out, int size, int index) {
  std::snprintf(out, static_cast<size_t>(size), "0000:%02x:00.0", visible()[index] + 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* out, int, int) {
  *out = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* out) {
  *out = static_cast<int>(number("FAKEGPU_DRIVER", 13000));
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* out) {
  *out = 13000;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(
    const char*, void** out, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* found) {
  *out = nullptr;
  if (found != nullptr) {
    *found = cudaDriverEntryPointSymbolNotFound;
  }
  return cudaSuccess;
}

// Errors.

} // extern "C"

void fake::starve() {
  starved = true;
}

cudaError_t fake::fault() {
  static std::atomic<bool> faulty{false};
  if (!faulty && fake::is_told("fault." + std::to_string(::getpid()))) {
    faulty = true;
  }
  return faulty ? cudaErrorIllegalAddress : cudaSuccess;
}

extern "C" {

cudaError_t cudaPeekAtLastError() {
  return last_error;
}

cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}

const char* cudaGetErrorName(cudaError_t) {
  return "cudaErrorFake";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorDevicesUnavailable:
      return "CUDA-capable device(s) is/are busy or unavailable";
    default:
      return "an error of the fake GPU";
  }
}

} // extern "C"
