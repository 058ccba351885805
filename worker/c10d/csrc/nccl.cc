// libc10d_nccl.so: NCCL process groups and calls of the CUDA runtime.
// Built against libtorch_cuda and loaded only where that could be loaded first.
#include "nccl_abi.h"

#include <status.h>

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <future>

namespace {

class AbortableNccl final : public shim::GuardedBackend<c10d::ProcessGroupNCCL> {
 public:
  using GuardedBackend::GuardedBackend;

  void abort() override {
    *aborted_ = ended_ = true;
    // A collective that another thread starts must not lose its communicator meanwhile
    // (pytorch/pytorch#149418). No further one starts. One that hangs ends with the abort alone.
    if (shim::starting().try_lock_for(std::chrono::milliseconds(500))) {
      shim::starting().unlock();
    }
    ProcessGroupNCCL::abort();
  }

  // A sound group is finalised: a peer may still read what this rank has sent. That waits for
  // the peers, so it has a bound.
  ~AbortableNccl() override {
    shim::swallowed([this] {
      if (ended_) {
        return;
      }
      if (*aborted_) {
        abort();
        return;
      }
      auto ended = std::async(std::launch::async, [this] { shim::swallowed([this] { shutdown(); }); });
      if (ended.wait_for(std::chrono::seconds(2)) != std::future_status::ready) {
        abort();
      }
    });
  }

 private:
  std::atomic<bool> ended_{false};
};

Status backend_new(
    const c10::intrusive_ptr<c10d::Store>& store, int32_t rank, int32_t world_size,
    int32_t device, int64_t timeout_ms, const shim::AbortFlag& aborted, c10d::Backend** out) {
  return shim::guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto backend =
        c10::make_intrusive<AbortableNccl>(aborted, store, rank, world_size, options);
    const at::Device where(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    c10::cuda::CUDAGuard guard(where);
    backend->setBoundDeviceId(where);
    backend->eagerConnectSingleDevice(where);
    *out = backend.release();
  });
}

Status device_count(int32_t* out) {
  return shim::guarded([&] {
    *out = 0;
    const cudaError_t found = cudaGetDeviceCount(out);
    // Without c10's macros: they ask for the devices themselves.
    if (found == cudaErrorInsufficientDriver) {
      int driver = 0;
      cudaDriverGetVersion(&driver);
      TORCH_CHECK(
          false, "its driver is for CUDA ", driver / 1000, ".", driver % 1000 / 10,
          ", and CUDA ", CUDART_VERSION / 1000, " needs driver ",
          CUDART_VERSION < 13000 ? 525 : 580, " or newer");
    }
    TORCH_CHECK(
        found == cudaSuccess || found == cudaErrorNoDevice, "CUDA says: ",
        cudaGetErrorString(found));
  });
}

Status device_info(int32_t index, DeviceInfo* out) {
  return shim::guarded([&] {
    cudaDeviceProp properties;
    C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    static_assert(sizeof(out->name) == sizeof(properties.name));
    std::memcpy(out->name, properties.name, sizeof(out->name));
    static_assert(sizeof(out->uuid) == sizeof(properties.uuid));
    std::memcpy(out->uuid, &properties.uuid, sizeof(out->uuid));
    out->capability_major = properties.major;
    out->capability_minor = properties.minor;
    out->total_memory = properties.totalGlobalMem;
  });
}

Status synchronize(int32_t index) {
  return shim::guarded([&] {
    c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(index));
    C10_CUDA_CHECK(cudaDeviceSynchronize());
  });
}

Status free_memory(int32_t index, uint64_t* out) {
  return shim::guarded([&] {
    c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(index));
    size_t available = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&available, &total));
    *out = available;
  });
}

Status copy_to_host(const at::Tensor& from, at::Tensor** out, void** event) {
  return shim::guarded([&] {
    c10::cuda::CUDAGuard guard(from.device());
    // The device writes to pinned memory on its own. libtorch reuses that memory only after it.
    const auto options = from.options().device(at::kCPU).pinned_memory(true);
    auto to = at::empty(from.sizes(), options, from.suggest_memory_format());
    to.copy_(from, /*non_blocking=*/true);
    cudaEvent_t recorded;
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&recorded, cudaEventDisableTiming));
    *event = recorded;
    C10_CUDA_CHECK(cudaEventRecord(recorded, c10::cuda::getCurrentCUDAStream()));
    *out = new at::Tensor(std::move(to));
  });
}

Status event_wait(void* event) {
  return shim::guarded([&] {
    const auto recorded = static_cast<cudaEvent_t>(event);
    cudaError_t found = cudaEventQuery(recorded);
    if (found == cudaErrorNotReady) {
      // It would be taken for the error of a later call.
      (void)cudaGetLastError();
      found = cudaEventSynchronize(recorded);
    }
    C10_CUDA_CHECK(found);
  });
}

void event_free(void* event) {
  (void)cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

} // namespace

extern "C" __attribute__((visibility("default"))) const shim::NcclTable* c10d_nccl_table() {
  static const shim::NcclTable table{
      backend_new,       device_count, device_info,     synchronize,
      free_memory,       copy_to_host, event_wait,      event_free,
      shim::graph_begin, shim::graph_end, shim::graph_replay, shim::graph_free};
  return &table;
}
