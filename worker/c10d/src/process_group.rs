//! Process groups over Gloo and NCCL.

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::Duration;

use tch::Tensor;

use crate::error::{Error, check};
use crate::store::{Store, c_string, millis};
use crate::{cuda, ffi};

/// What carries the collectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Over TCP, for CPU tensors.
    Gloo,
    /// For tensors on this GPU; [`cuda::load`] must have said yes.
    Nccl {
        /// The index among the visible GPUs.
        device: usize,
    },
}

/// One rank of a group. Clones are the same rank; any of them may [`ProcessGroup::abort`] from
/// another thread while a collective blocks.
#[derive(Debug, Clone)]
pub struct ProcessGroup {
    inner: Arc<Inner>,
    rank: usize,
    world_size: usize,
}

#[derive(Debug)]
struct Inner {
    raw: *mut c_void,
}

// SAFETY: the pointer owns references to c10d::ProcessGroup and its backend. Their reference
// counts are atomic, collectives are issued from one thread only by the `worker`, and the one
// call meant for another thread, abort, synchronises inside the backend.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: `raw` came from the shim and is released only here, with the last clone.
        unsafe { ffi::shim_group_drop(self.raw) }
    }
}

impl ProcessGroup {
    /// Meets the other ranks in `store`. `prefix` keeps the keys of this group apart from those
    /// of any other on the same store. `host` is the address that Gloo binds to and announces;
    /// without it the one this machine's name resolves to. `GLOO_SOCKET_IFNAME` goes first.
    ///
    /// # Errors
    /// When the ranks do not meet within `timeout`, or NCCL is asked for and not loaded.
    pub fn new(
        store: &Store,
        prefix: &str,
        rank: usize,
        world_size: usize,
        backend: Backend,
        host: Option<&str>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        const ACTION: &str = "form a process group";
        let prefix = c_string(ACTION, prefix)?;
        let host = host.map(|host| c_string(ACTION, host)).transpose()?;
        let (device, make) = match backend {
            Backend::Gloo => (-1, null_mut()),
            Backend::Nccl { device } => (device as i32, cuda::make_group()?),
        };
        let mut raw = null_mut();
        // SAFETY: `store` is alive, the strings live to the end of the call, and `make` is the
        // NCCL object's function of that signature whenever `device` is not negative.
        let answer = unsafe {
            ffi::shim_group_new(
                store.raw(),
                prefix.as_ptr(),
                rank as i32,
                world_size as i32,
                host.as_ref().map_or(null(), |host| host.as_ptr()),
                device,
                make,
                millis(timeout),
                &mut raw,
            )
        };
        check(ACTION, answer)?;
        Ok(Self {
            inner: Arc::new(Inner { raw }),
            rank,
            world_size,
        })
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Ranks in the group.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// Sums a dense tensor over the ranks, in place.
    ///
    /// # Errors
    /// When a peer is gone, the group was aborted, or the timeout passed.
    pub fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<(), Error> {
        // SAFETY: group and tensor are alive for the call, which returns when it is complete.
        check("all-reduce", unsafe {
            ffi::shim_group_all_reduce(self.inner.raw, tensor.as_mut_ptr().cast())
        })
    }

    /// Overwrites the tensors with those of rank `root`; any strides will do.
    ///
    /// # Errors
    /// As [`Self::all_reduce_sum`].
    pub fn broadcast(&self, tensors: &[Tensor], root: usize) -> Result<(), Error> {
        let pointers = pointers(tensors);
        // SAFETY: as in `all_reduce_sum`; `pointers` has as many entries as it says.
        check("broadcast", unsafe {
            ffi::shim_group_broadcast(
                self.inner.raw,
                pointers.as_ptr(),
                pointers.len(),
                root as i32,
            )
        })
    }

    /// Waits for all ranks.
    ///
    /// # Errors
    /// As [`Self::all_reduce_sum`].
    pub fn barrier(&self) -> Result<(), Error> {
        // SAFETY: the group is alive.
        check("barrier", unsafe {
            ffi::shim_group_barrier(self.inner.raw)
        })
    }

    /// Breaks what NCCL has in flight. Gloo notices broken connections by itself and otherwise
    /// waits for its timeout.
    ///
    /// # Errors
    /// When the backend refuses.
    pub fn abort(&self) -> Result<(), Error> {
        // SAFETY: the group is alive; abort may run beside a collective of another thread.
        check("abort", unsafe { ffi::shim_group_abort(self.inner.raw) })
    }

    pub(crate) fn raw(&self) -> *mut c_void {
        self.inner.raw
    }
}

/// The C++ tensors behind `tensors`, valid while these live.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*mut c_void> {
    tensors
        .iter()
        .map(|tensor| tensor.as_ptr().cast_mut().cast())
        .collect()
}
