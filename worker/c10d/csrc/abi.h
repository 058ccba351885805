// The C interface between the Rust of this crate and libtorch's c10d.
//
// Rules that every function keeps:
//  * no C++ exception leaves it: failures come back as a Status;
//  * a handle that it returns belongs to the caller, who frees it once, with the
//    function named after the type;
//  * a Tensor pointer is borrowed for the call; what must live longer takes its
//    own reference;
//  * strings are NUL-terminated and borrowed for the call.
#pragma once

#include <status_abi.h>

#include <cstddef>
#include <cstdint>

namespace at {
class Tensor;
}

extern "C" {

// Kinds of a Status beside those of status_abi.h.
enum GroupStatusKind : int32_t {
  // The group was aborted, or the store interrupted, by this process.
  kAborted = 2,
  // A key that a peer should have written to the store did not come in time.
  kRendezvousTimedOut = 3,
};

struct ShimStore;
struct ShimGroup;
struct ShimReducer;

struct Timings {
  // Nanoseconds; negative when the Reducer has not measured them.
  int64_t forward;
  int64_t backward_compute;
  int64_t allreduce_wait;
};

struct DeviceInfo {
  char name[256];
  uint8_t uuid[16];
  int32_t capability_major;
  int32_t capability_minor;
  uint64_t total_memory;
};

// Takes ownership of `listen_fd`, bound to `port`, also when it fails.
Status c10d_store_serve(
    const char* host, uint16_t port, int listen_fd, int64_t timeout_ms, ShimStore** out);
Status c10d_store_connect(const char* host, uint16_t port, int64_t timeout_ms, ShimStore** out);
void c10d_store_interrupt(ShimStore* store);
void c10d_store_free(ShimStore* store);

// `host` may be NULL. Blocks until every rank has joined, or connect_ms have passed.
Status c10d_group_new_gloo(
    ShimStore* store, const char* prefix, int32_t rank, int32_t world_size, const char* host,
    int64_t connect_ms, int64_t timeout_ms, ShimGroup** out);
Status c10d_group_new_nccl(
    ShimStore* store, const char* prefix, int32_t rank, int32_t world_size, int32_t device,
    int64_t connect_ms, int64_t timeout_ms, ShimGroup** out);
Status c10d_group_all_reduce_sum(ShimGroup* group, at::Tensor* tensor);
Status c10d_group_broadcast(ShimGroup* group, at::Tensor** tensors, size_t count, int32_t root);
Status c10d_group_check(ShimGroup* group);
Status c10d_group_abort(ShimGroup* group);
void c10d_group_free(ShimGroup* group);

Status c10d_reducer_new(
    at::Tensor** params, size_t count, ShimGroup* group, int64_t first_bucket_bytes,
    int64_t bucket_bytes, int32_t gradient_as_bucket_view, ShimReducer** out);
Status c10d_reducer_prepare_for_forward(ShimReducer* reducer);
Status c10d_reducer_prepare_for_backward(ShimReducer* reducer, at::Tensor* loss);
Status c10d_reducer_timings(ShimReducer* reducer, Timings* out);
void c10d_reducer_free(ShimReducer* reducer);

// Loads libtorch_cuda, from beside libtorch_cpu or the library path.
// kFailed says why that is not possible.
Status c10d_cuda_load_libtorch();
// Loads libc10d_nccl.so from `path`.
Status c10d_cuda_load_shim(const char* path);
Status c10d_cuda_device_count(int32_t* out);
Status c10d_cuda_device_info(int32_t index, DeviceInfo* out);
Status c10d_cuda_synchronize(int32_t index);
Status c10d_cuda_free_memory(int32_t index, uint64_t* out);
// Lets the device copy `from` behind the work that is queued now, and returns at once. The copy
// is complete after a wait for the event, which the caller frees, also when this fails and
// `*event` is not NULL.
Status c10d_cuda_copy_to_host(at::Tensor* from, at::Tensor** out, void** event);
Status c10d_cuda_event_wait(void* event);
void c10d_cuda_event_free(void* event);
// Between `begin` and `end`, what this thread asks of the GPU is recorded instead of done. After
// `begin` has succeeded, `end` is called, whatever happens, and then `free`.
Status c10d_cuda_graph_begin(int32_t index, void** out);
Status c10d_cuda_graph_end(void* graph);
Status c10d_cuda_graph_replay(void* graph);
void c10d_cuda_graph_free(void* graph);

} // extern "C"
