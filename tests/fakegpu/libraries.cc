// cuBLAS, cuDNN, the driver, NVRTC and NVSHMEM, as far as libtorch asks them something: they say
// that all is well. Their headers are not in the wheels that a CPU needs, so a handle is a
// `void*` here, and a status is 0.
#include "device.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#define SAYS_YES(name) \
  int name() { return 0; }
#define LAUNCHES(name) \
  int name() { \
    fake::trace("launch", #name); \
    return 0; \
  }

namespace {

int handle(void** out) {
  *out = std::calloc(1, 1024);
  return 0;
}

int number(int* out, int value) {
  *out = value;
  return 0;
}

int no_bytes(size_t* out) {
  *out = 0;
  return 0;
}

} // namespace

extern "C" {

// cuBLAS.

int cublasCreate_v2(void** out) { return handle(out); }
int cublasGetPointerMode_v2(void*, int* out) { return number(out, 0); }
int cublasGetMathMode(void*, int* out) { return number(out, 0); }
size_t cublasLtGetVersion() { return 130100; }
int cublasLtMatmulDescCreate(void** out, int, int) { return handle(out); }
int cublasLtMatrixLayoutCreate(void** out, int, uint64_t, uint64_t, int64_t) { return handle(out); }
int cublasLtMatmulPreferenceCreate(void** out) { return handle(out); }
int cublasLtMatmulAlgoGetHeuristic(
    void*, void*, void*, void*, void*, void*, void*, int, void* results, int* found) {
  constexpr size_t size_of_a_result = 96;
  std::memset(results, 0, size_of_a_result);
  return number(found, 1);
}
SAYS_YES(cublasSetPointerMode_v2)
SAYS_YES(cublasSetMathMode)
SAYS_YES(cublasSetStream_v2)
SAYS_YES(cublasSetWorkspace_v2)
LAUNCHES(cublasSgemm_v2)
LAUNCHES(cublasGemmEx)
LAUNCHES(cublasLtMatmul)
SAYS_YES(cublasLtMatmulDescDestroy)
SAYS_YES(cublasLtMatmulDescSetAttribute)
SAYS_YES(cublasLtMatmulPreferenceDestroy)
SAYS_YES(cublasLtMatmulPreferenceSetAttribute)
SAYS_YES(cublasLtMatrixLayoutDestroy)
SAYS_YES(cublasLtMatrixLayoutSetAttribute)

// cuDNN: convolutions through its graphs, BatchNorm through functions of their own.

size_t cudnnGetVersion() { return 91900; }
size_t cudnnGetCudartVersion() { return 13000; }
const char* cudnnGetErrorString(int) { return "an error of the fake cuDNN"; }
void cudnnGetLastErrorString(char* out, size_t size) {
  if (size > 0) {
    *out = 0;
  }
}
int cudnnCreate(void** out) { return handle(out); }
int cudnnGetStream(void*, void** out) {
  *out = nullptr;
  return 0;
}
int cudnnCreateTensorDescriptor(void** out) { return handle(out); }
int cudnnCreateFilterDescriptor(void** out) { return handle(out); }
int cudnnCreateActivationDescriptor(void** out) { return handle(out); }
int cudnnBackendCreateDescriptor(int, void** out) { return handle(out); }
int cudnnBackendGetAttribute(void*, int name, int, int64_t, int64_t* count, void* out) {
  // What a plan is made of: one result of the heuristics, one engine, no workspace.
  enum { kResults = 202, kEngine = 300, kPlanWorkspace = 402, kEngineIndex = 1301 };
  const bool is_number = name == kPlanWorkspace || name == kEngineIndex;
  if (is_number && out != nullptr) {
    std::memset(out, 0, sizeof(int64_t));
  }
  if (count != nullptr) {
    *count = is_number || name == kResults || name == kEngine ? 1 : 0;
  }
  return 0;
}
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    void*, int, int, void*, void*, void*, void*, void*, size_t* out) {
  return no_bytes(out);
}
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    void*, int, int, void*, void*, void*, void*, void*, void*, void*, size_t* out) {
  return no_bytes(out);
}
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
    void*, int, int, void*, void*, size_t* out) {
  return no_bytes(out);
}
SAYS_YES(cudnnSetStream)
SAYS_YES(cudnnSetTensorNdDescriptor)
SAYS_YES(cudnnDestroyTensorDescriptor)
SAYS_YES(cudnnBackendSetAttribute)
SAYS_YES(cudnnBackendFinalize)
LAUNCHES(cudnnBackendExecute)
SAYS_YES(cudnnBackendDestroyDescriptor)
LAUNCHES(cudnnBatchNormalizationForwardTrainingEx)
LAUNCHES(cudnnBatchNormalizationForwardInference)
LAUNCHES(cudnnBatchNormalizationBackwardEx)

// The driver: context 0 of each device is there.

int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  *flags = 0;
  return number(active, 1);
}
int cuCtxGetCurrent(void** out) { return handle(out); }
int cuGetErrorString(int, const char** out) {
  *out = "an error of the fake driver";
  return 0;
}
SAYS_YES(cuCtxSetCurrent)

// Never called: libcaffe2_nvrtc.so and libtorch_nvshmem.so take their addresses.

SAYS_YES(cuDeviceGet)
SAYS_YES(cuDeviceGetAttribute)
SAYS_YES(cuDevicePrimaryCtxRetain)
SAYS_YES(cuFuncGetAttribute)
SAYS_YES(cuFuncSetAttribute)
SAYS_YES(cuFuncSetCacheConfig)
SAYS_YES(cuLaunchCooperativeKernel)
SAYS_YES(cuLaunchKernel)
SAYS_YES(cuLinkAddData_v2)
SAYS_YES(cuLinkComplete)
SAYS_YES(cuLinkCreate_v2)
SAYS_YES(cuModuleGetFunction)
SAYS_YES(cuModuleLoad)
SAYS_YES(cuModuleLoadData)
SAYS_YES(cuModuleLoadDataEx)
SAYS_YES(cuModuleUnload)
SAYS_YES(cuOccupancyMaxActiveBlocksPerMultiprocessor)
SAYS_YES(cuPointerGetAttribute)
SAYS_YES(cuTensorMapEncodeTiled)
SAYS_YES(nvrtcAddNameExpression)
SAYS_YES(nvrtcCompileProgram)
SAYS_YES(nvrtcCreateProgram)
SAYS_YES(nvrtcDestroyProgram)
SAYS_YES(nvrtcGetCUBIN)
SAYS_YES(nvrtcGetCUBINSize)
SAYS_YES(nvrtcGetErrorString)
SAYS_YES(nvrtcGetLoweredName)
SAYS_YES(nvrtcGetPTX)
SAYS_YES(nvrtcGetPTXSize)
SAYS_YES(nvrtcGetProgramLog)
SAYS_YES(nvrtcGetProgramLogSize)
SAYS_YES(nvrtcVersion)
SAYS_YES(nvshmem_init)
SAYS_YES(nvshmemi_get_mem_handle)
char nvshmemi_device_only_state[1 << 16];

} // extern "C"
