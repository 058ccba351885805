//! The C ABI of `csrc/shim.h`, which documents each function.

use std::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    pub(crate) fn shim_free(message: *mut c_char);
    pub(crate) fn shim_libtorch_version() -> *const c_char;

    pub(crate) fn shim_store_serve(
        host: *const c_char,
        timeout_ms: i64,
        store: *mut *mut c_void,
        port: *mut u16,
    ) -> *mut c_char;
    pub(crate) fn shim_store_connect(
        host: *const c_char,
        port: u16,
        timeout_ms: i64,
        store: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn shim_store_drop(store: *mut c_void);

    pub(crate) fn shim_group_new(
        store: *mut c_void,
        prefix: *const c_char,
        rank: c_int,
        size: c_int,
        host: *const c_char,
        nccl_device: c_int,
        make_nccl: *mut c_void,
        timeout_ms: i64,
        group: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn shim_group_drop(group: *mut c_void);
    pub(crate) fn shim_group_all_reduce(group: *mut c_void, tensor: *mut c_void) -> *mut c_char;
    pub(crate) fn shim_group_broadcast(
        group: *mut c_void,
        tensors: *const *mut c_void,
        count: usize,
        root: c_int,
    ) -> *mut c_char;
    pub(crate) fn shim_group_barrier(group: *mut c_void) -> *mut c_char;
    pub(crate) fn shim_group_abort(group: *mut c_void) -> *mut c_char;

    pub(crate) fn shim_reducer_new(
        parameters: *const *mut c_void,
        count: usize,
        group: *mut c_void,
        first_bucket: usize,
        bucket: usize,
        gradient_as_view: bool,
        reducer: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn shim_reducer_drop(reducer: *mut c_void);
    pub(crate) fn shim_reducer_prepare_forward(reducer: *mut c_void) -> *mut c_char;
    pub(crate) fn shim_reducer_prepare_backward(
        reducer: *mut c_void,
        loss: *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn shim_reducer_compute_nanos(reducer: *mut c_void, nanos: *mut i64) -> *mut c_char;

    pub(crate) fn shim_channels_last(tensor: *mut c_void, result: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn shim_zero_grads(parameters: *const *mut c_void, count: usize) -> *mut c_char;
    pub(crate) fn shim_autocast_enter(cuda: bool, previous: *mut bool, previous_type: *mut c_int);
    pub(crate) fn shim_autocast_exit(cuda: bool, previous: bool, previous_type: c_int);
    pub(crate) fn shim_fused_adam(
        parameters: *const *mut c_void,
        averages: *const *mut c_void,
        squares: *const *mut c_void,
        steps: *const *mut c_void,
        count: usize,
        rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
    ) -> *mut c_char;

    pub(crate) fn shim_open_library(path: *const c_char, handle: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn shim_symbol(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}
