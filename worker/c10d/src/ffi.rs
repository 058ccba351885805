//! The shim's C interface, as `csrc/abi.h` declares and documents it. It only
//! declares functions: the modules above own the handles and uphold the preconditions.

use std::ffi::{c_char, c_void};

use shim::Status;
use tch::Tensor;
use torch_sys::C_tensor;

pub(crate) const ABORTED: i32 = 2;
pub(crate) const RENDEZVOUS_TIMED_OUT: i32 = 3;

/// Declares types that exist only behind pointers.
macro_rules! opaque {
    ($($name:ident),+) => {$(
        #[repr(C)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )+};
}
opaque!(ShimStore, ShimGroup, ShimReducer);

#[repr(C)]
#[derive(Default)]
pub(crate) struct Timings {
    pub(crate) forward: i64,
    pub(crate) backward_compute: i64,
    pub(crate) allreduce_wait: i64,
}

#[repr(C)]
pub(crate) struct DeviceInfo {
    pub(crate) name: [u8; 256],
    pub(crate) uuid: [u8; 16],
    pub(crate) capability_major: i32,
    pub(crate) capability_minor: i32,
    pub(crate) total_memory: u64,
}

type Tensors = *const *mut C_tensor;

unsafe extern "C" {
    pub(crate) fn c10d_store_serve(
        host: *const c_char,
        port: u16,
        listen_fd: i32,
        timeout_ms: i64,
        out: *mut *mut ShimStore,
    ) -> Status;
    pub(crate) fn c10d_store_connect(
        host: *const c_char,
        port: u16,
        timeout_ms: i64,
        out: *mut *mut ShimStore,
    ) -> Status;
    pub(crate) fn c10d_store_interrupt(store: *mut ShimStore);
    pub(crate) fn c10d_store_free(store: *mut ShimStore);

    pub(crate) fn c10d_group_new_gloo(
        store: *mut ShimStore,
        prefix: *const c_char,
        rank: i32,
        world_size: i32,
        host: *const c_char,
        connect_ms: i64,
        timeout_ms: i64,
        out: *mut *mut ShimGroup,
    ) -> Status;
    pub(crate) fn c10d_group_new_nccl(
        store: *mut ShimStore,
        prefix: *const c_char,
        rank: i32,
        world_size: i32,
        device: i32,
        connect_ms: i64,
        timeout_ms: i64,
        out: *mut *mut ShimGroup,
    ) -> Status;
    pub(crate) fn c10d_group_all_reduce_sum(group: *mut ShimGroup, tensor: *mut C_tensor)
    -> Status;
    pub(crate) fn c10d_group_broadcast(
        group: *mut ShimGroup,
        tensors: Tensors,
        count: usize,
        root: i32,
    ) -> Status;
    pub(crate) fn c10d_group_check(group: *mut ShimGroup) -> Status;
    pub(crate) fn c10d_group_abort(group: *mut ShimGroup) -> Status;
    pub(crate) fn c10d_group_free(group: *mut ShimGroup);

    pub(crate) fn c10d_reducer_new(
        params: Tensors,
        count: usize,
        group: *mut ShimGroup,
        first_bucket_bytes: i64,
        bucket_bytes: i64,
        gradient_as_bucket_view: i32,
        out: *mut *mut ShimReducer,
    ) -> Status;
    pub(crate) fn c10d_reducer_prepare_for_forward(reducer: *mut ShimReducer) -> Status;
    pub(crate) fn c10d_reducer_prepare_for_backward(
        reducer: *mut ShimReducer,
        loss: *mut C_tensor,
    ) -> Status;
    pub(crate) fn c10d_reducer_timings(reducer: *mut ShimReducer, out: *mut Timings) -> Status;
    pub(crate) fn c10d_reducer_free(reducer: *mut ShimReducer);

    pub(crate) fn c10d_cuda_load_libtorch() -> Status;
    pub(crate) fn c10d_cuda_load_shim(path: *const c_char) -> Status;
    pub(crate) fn c10d_cuda_device_count(out: *mut i32) -> Status;
    pub(crate) fn c10d_cuda_device_info(index: i32, out: *mut DeviceInfo) -> Status;
    pub(crate) fn c10d_cuda_synchronize(index: i32) -> Status;
    pub(crate) fn c10d_cuda_free_memory(index: i32, out: *mut u64) -> Status;
    pub(crate) fn c10d_cuda_copy_to_host(
        from: *mut C_tensor,
        out: *mut *mut C_tensor,
        event: *mut *mut c_void,
    ) -> Status;
    pub(crate) fn c10d_cuda_event_wait(event: *mut c_void) -> Status;
    pub(crate) fn c10d_cuda_event_free(event: *mut c_void);
    pub(crate) fn c10d_cuda_graph_begin(index: i32, out: *mut *mut c_void) -> Status;
    pub(crate) fn c10d_cuda_graph_end(graph: *mut c_void) -> Status;
    pub(crate) fn c10d_cuda_graph_replay(graph: *mut c_void) -> Status;
    pub(crate) fn c10d_cuda_graph_free(graph: *mut c_void);
}

/// The tensors as the interface wants them; valid as long as `tensors` is borrowed.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors
        .iter()
        .map(|tensor| tensor.as_ptr().cast_mut())
        .collect()
}
