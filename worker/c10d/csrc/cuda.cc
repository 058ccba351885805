// Loads libtorch_cuda and libc10d_nccl.so at run time. A binary that named them
// at link time could not start on a machine without CUDA.
#include "cuda.h"
#include "nccl_abi.h"

#include <status.h>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <string>

namespace {

// Set once, after the library is loaded; it is never unloaded.
std::atomic<const shim::NcclTable*> table{nullptr};

const shim::NcclTable& loaded() {
  const auto* found = table.load();
  TORCH_CHECK(found != nullptr, "CUDA is not loaded: call c10d::cuda::load first");
  return *found;
}

// The folder that libtorch_cpu was loaded from, with a slash, or an empty string.
std::string libtorch_folder() {
  Dl_info info;
  // By a class's type information, which only libtorch_cpu has: the address of a
  // function may be that of a stub in this binary.
  if (::dladdr(&typeid(c10d::TCPStore), &info) == 0 || info.dli_fname == nullptr) {
    return {};
  }
  const std::string file = info.dli_fname;
  const auto slash = file.rfind('/');
  return file.find("libtorch_cpu") == std::string::npos || slash == std::string::npos
      ? std::string()
      : file.substr(0, slash + 1);
}

std::string reason() {
  const char* message = ::dlerror();
  return message == nullptr ? "unknown reason" : message;
}

void rethrow(Status status) {
  if (status.kind != kOk) {
    const std::string message = status.message;
    std::free(status.message);
    TORCH_CHECK(false, message);
  }
}

} // namespace

c10::intrusive_ptr<c10d::Backend> shim::nccl_backend(
    const c10::intrusive_ptr<c10d::Store>& store, int32_t rank, int32_t world_size,
    int32_t device, int64_t timeout_ms, const AbortFlag& aborted) {
  c10d::Backend* backend = nullptr;
  rethrow(loaded().backend_new(store, rank, world_size, device, timeout_ms, aborted, &backend));
  return c10::intrusive_ptr<c10d::Backend>::reclaim(backend);
}

Status c10d_cuda_load_libtorch() {
  return shim::guarded([] {
    // The driver first: without it, mapping half a gigabyte would be useless.
    TORCH_CHECK(
        ::dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr,
        "no NVIDIA driver: ", reason());
    // Global, because libc10d_nccl.so resolves its symbols against it, and lazy,
    // because most of its kernels are never called.
    const std::string name = "libtorch_cuda.so";
    if (::dlopen((libtorch_folder() + name).c_str(), RTLD_LAZY | RTLD_GLOBAL) != nullptr) {
      return;
    }
    const std::string first = reason();
    TORCH_CHECK(::dlopen(name.c_str(), RTLD_LAZY | RTLD_GLOBAL) != nullptr, first);
  });
}

Status c10d_cuda_load_shim(const char* path) {
  return shim::guarded([&] {
    void* library = ::dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    TORCH_CHECK(library != nullptr, reason());
    void* symbol = ::dlsym(library, "c10d_nccl_table");
    TORCH_CHECK(symbol != nullptr, path, " is not this crate's NCCL library");
    table = reinterpret_cast<decltype(&c10d_nccl_table)>(symbol)();
  });
}

Status c10d_cuda_device_count(int32_t* out) {
  return shim::guarded([&] { rethrow(loaded().device_count(out)); });
}

Status c10d_cuda_device_info(int32_t index, DeviceInfo* out) {
  return shim::guarded([&] { rethrow(loaded().device_info(index, out)); });
}

Status c10d_cuda_synchronize(int32_t index) {
  return shim::guarded([&] { rethrow(loaded().synchronize(index)); });
}

Status c10d_cuda_free_memory(int32_t index, uint64_t* out) {
  return shim::guarded([&] { rethrow(loaded().free_memory(index, out)); });
}

Status c10d_cuda_copy_to_host(at::Tensor* from, at::Tensor** out, void** event) {
  return shim::guarded([&] { rethrow(loaded().copy_to_host(*from, out, event)); });
}

Status c10d_cuda_event_wait(void* event) {
  return shim::guarded([&] { rethrow(loaded().event_wait(event)); });
}

void c10d_cuda_event_free(void* event) {
  shim::swallowed([&] { loaded().event_free(event); });
}

Status c10d_cuda_graph_begin(int32_t index, void** out) {
  return shim::guarded([&] { rethrow(loaded().graph_begin(index, out)); });
}

Status c10d_cuda_graph_end(void* graph) {
  return shim::guarded([&] { rethrow(loaded().graph_end(graph)); });
}

Status c10d_cuda_graph_replay(void* graph) {
  return shim::guarded([&] { rethrow(loaded().graph_replay(graph)); });
}

void c10d_cuda_graph_free(void* graph) {
  shim::swallowed([&] { loaded().graph_free(graph); });
}
