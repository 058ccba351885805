// The CUDA half of the shim, loaded only where a GPU is.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstdio>
#include <cstring>

extern "C" {

// Puts a fresh ProcessGroupNCCL into `*backend` (an intrusive_ptr<c10d::Backend>).
char* c10d_nccl_make(void* store, int rank, int size, int64_t timeout_ms, void* backend) {
  try {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto& made = *static_cast<c10::intrusive_ptr<c10d::Backend>*>(backend);
    made = c10::make_intrusive<c10d::ProcessGroupNCCL>(
        *static_cast<c10::intrusive_ptr<c10d::Store>*>(store), rank, size, options);
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}

int c10d_cuda_count() {
  try {
    return static_cast<int>(c10::cuda::device_count());
  } catch (...) {
    return 0;
  }
}

// `name` and `uuid` take 256 and 64 bytes.
char* c10d_cuda_info(int index, char* name, char* uuid, int* major, int* minor, uint64_t* memory) {
  try {
    cudaDeviceProp found;
    C10_CUDA_CHECK(cudaGetDeviceProperties(&found, index));
    const cudaDeviceProp* properties = &found;
    snprintf(name, 256, "%s", properties->name);
    const auto* b = reinterpret_cast<const unsigned char*>(properties->uuid.bytes);
    snprintf(uuid, 64,
             "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
    *major = properties->major;
    *minor = properties->minor;
    *memory = properties->totalGlobalMem;
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}

}  // extern "C"
