// A real GPU, as the check of one machine needs it: several ranks share it, and a test can break it
// for one process. Part of `libfakenccl.so` alone, which is preloaded beside the real CUDA runtime.
#include "../device.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

namespace {

// What would have answered without this library.
template <typename Function>
Function next(Function, const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

// A kernel that writes where nothing is: the error stays until the process ends, as that of a
// device-side assertion.
const char* const kBroken = R"(
.version 7.0
.target sm_80
.address_size 64
.visible .entry broken() {
  .reg .b64 %nowhere;
  mov.u64 %nowhere, 8;
  st.global.u64 [%nowhere], %nowhere;
  ret;
}
)";

void break_device() {
  void* const driver = ::dlopen("libcuda.so.1", RTLD_LAZY);
  using Load = int (*)(void** module, const void* image);
  using Find = int (*)(void** function, void* module, const char* name);
  using Launch = int (*)(
      void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared,
      void* stream, void** arguments, void** extra);
  const auto load = reinterpret_cast<Load>(::dlsym(driver, "cuModuleLoadData"));
  const auto find = reinterpret_cast<Find>(::dlsym(driver, "cuModuleGetFunction"));
  const auto launch = reinterpret_cast<Launch>(::dlsym(driver, "cuLaunchKernel"));
  if (load == nullptr || find == nullptr || launch == nullptr) {
    // The fake driver; the fake runtime breaks by itself.
    return;
  }
  void *module = nullptr, *function = nullptr;
  // The runtime makes its context that of this thread.
  const bool broken = cudaSetDevice(0) == cudaSuccess && load(&module, kBroken) == 0 &&
      find(&function, module, "broken") == 0 &&
      launch(function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr) == 0;
  if (!broken) {
    std::fputs("the GPU could not be broken\n", stderr);
  }
}

// Breaks the device of this process when a test says so.
void watch() {
  const std::string told = "fault." + std::to_string(::getpid());
  while (!fake::is_told(told)) {
    ::usleep(10000);
  }
  break_device();
}

} // namespace

// Of collectives, none is recorded.
bool fake::is_recording() {
  return false;
}

void fake::record() {}

// Ranks that share a GPU must not have the same: each has a UUID of its own. The first question of a
// worker about its device also starts the watch: before, it must be the only thread.
extern "C" cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int index) {
  const auto error = next(cudaGetDeviceProperties, "cudaGetDeviceProperties")(out, index);
  const char* const rank = std::getenv("FINETUNE_LOCAL_RANK");
  if (error == cudaSuccess && rank != nullptr) {
    out->uuid.bytes[15] = static_cast<char>(out->uuid.bytes[15] + std::atoi(rank));
  }
  static const bool watched = [] {
    std::thread(watch).detach();
    return true;
  }();
  (void)watched;
  return error;
}
