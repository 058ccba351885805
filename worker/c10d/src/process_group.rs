//! A group of ranks that run collectives together, over Gloo (CPU) or NCCL (CUDA).
//! It owns the connections; the decision to abort it is made elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tch::Tensor;

use shim::Failure;

use crate::error::{Error, of};
use crate::ffi;
use crate::store::{Store, c_string, millis};

/// The transport of a group's collectives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// TCP between CPUs; the tensors live in host memory.
    Gloo {
        /// The name or address of this machine that the peers connect to, and that
        /// alone is listened on. `None` takes the interfaces that
        /// `GLOO_SOCKET_IFNAME` lists, or else the address that this machine's name
        /// resolves to, or else loopback.
        host: Option<String>,
    },
    /// NCCL between GPUs; the tensors live on this one. Needs
    /// [`cuda::load`](crate::cuda::load).
    Nccl {
        /// The index of this rank's GPU.
        device: u32,
    },
}

/// The transport and the timeouts of a group.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// The transport of the collectives.
    pub backend: Backend,
    /// How long [`ProcessGroup::new`] waits for the other ranks.
    pub connect_timeout: Duration,
    /// How long one collective may take, the wait for slower ranks included.
    pub timeout: Duration,
}

impl GroupOptions {
    /// Two minutes for the rendezvous, five for a collective.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            connect_timeout: Duration::from_secs(120),
            timeout: Duration::from_secs(300),
        }
    }
}

/// One rank's membership in a group. Clones are handles on the same membership.
///
/// Every rank must call the same collectives in the same order, on tensors of equal
/// shape, dtype and strides; c10d does not check that. Calls block until the
/// collective is done (NCCL: until it is queued on the device's current stream,
/// where later work finds it done). After any failure, [`abort`](Self::abort)
/// included, the group stays failed: drop it and form another with new keys.
#[derive(Clone, Debug)]
pub struct ProcessGroup {
    handle: Arc<Handle>,
    rank: u32,
    world_size: u32,
}

#[derive(Debug)]
struct Handle(*mut ffi::ShimGroup);

// SAFETY: the shim's GuardedBackend takes a lock wherever a collective is started,
// abort works on atomics and on connections with locks of their own, and the handle
// is freed once, by the last Arc, on whichever thread that is.
unsafe impl Send for Handle {}
// SAFETY: as above: the group's functions may run concurrently on several threads.
unsafe impl Sync for Handle {}

impl ProcessGroup {
    /// Joins a new group of `world_size` ranks as `rank`, and returns when all of
    /// them have joined. `prefix` names the group within the store: equal for its
    /// ranks, never used before.
    ///
    /// Another thread ends the wait with [`Store::interrupt`].
    ///
    /// # Errors
    /// [`Error::RendezvousTimedOut`] when a rank is missing after
    /// `options.connect_timeout`, [`Error::Aborted`] after an interrupt,
    /// [`Error::NoSuchRank`], and [`Error::Failed`] for what c10d refuses: a host that
    /// is not this machine's, CUDA not loaded, a store that is gone.
    pub fn new(
        store: &Store,
        prefix: &str,
        rank: u32,
        world_size: u32,
        options: &GroupOptions,
    ) -> Result<Self, Error> {
        let no_such_rank = Error::NoSuchRank { rank, world_size };
        let (Ok(c_rank), Ok(c_world_size)) = (i32::try_from(rank), i32::try_from(world_size))
        else {
            return Err(no_such_rank);
        };
        if rank >= world_size {
            return Err(no_such_rank);
        }
        let prefix = c_string("prefix", prefix)?;
        let connect_ms = millis(options.connect_timeout);
        let timeout_ms = millis(options.timeout);
        let mut out = std::ptr::null_mut();
        let status = match &options.backend {
            Backend::Gloo { host } => {
                let host = host
                    .as_deref()
                    .map(|host| c_string("host", host))
                    .transpose()?;
                // SAFETY: store and strings outlive the call (a missing host is NULL,
                // which the shim allows), `out` is writable, and 0 <= rank < world size.
                unsafe {
                    ffi::c10d_group_new_gloo(
                        store.as_ptr(),
                        prefix.as_ptr(),
                        c_rank,
                        c_world_size,
                        host.as_ref().map_or(std::ptr::null(), |host| host.as_ptr()),
                        connect_ms,
                        timeout_ms,
                        &mut out,
                    )
                }
            }
            Backend::Nccl { device } => {
                // The largest index that libtorch's devices have.
                let device = i32::from(i8::try_from(*device).unwrap_or(i8::MAX));
                // SAFETY: as for Gloo; that CUDA is loaded is checked by the shim, that
                // the device exists by CUDA.
                unsafe {
                    ffi::c10d_group_new_nccl(
                        store.as_ptr(),
                        prefix.as_ptr(),
                        c_rank,
                        c_world_size,
                        device,
                        connect_ms,
                        timeout_ms,
                        &mut out,
                    )
                }
            }
        };
        status.check().map_err(|failure| match failure {
            Failure {
                kind: ffi::RENDEZVOUS_TIMED_OUT,
                message,
            } => Error::RendezvousTimedOut {
                rank,
                world_size,
                timeout: options.connect_timeout,
                message,
            },
            failure => of("joining a process group")(failure),
        })?;
        Ok(Self {
            handle: Arc::new(Handle(out)),
            rank,
            world_size,
        })
    }

    /// This process's rank, from 0.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many ranks the group has.
    pub fn world_size(&self) -> u32 {
        self.world_size
    }

    /// Replaces `tensor`'s elements, on every rank, by their sum over the ranks.
    ///
    /// # Errors
    /// [`Error::Failed`] when a peer fails or is too slow, or the tensor is not dense
    /// or lives on the wrong device; [`Error::Aborted`]. The elements are then unspecified.
    pub fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<(), Error> {
        // SAFETY: handle and tensor are alive for the call, which waits for the
        // collective; `&mut` keeps this handle's users away. The shim checks density.
        let status = unsafe { ffi::c10d_group_all_reduce_sum(self.as_ptr(), tensor.as_mut_ptr()) };
        status
            .check()
            .map_err(|failure| self.cause(of("all-reduce")(failure)))
    }

    /// Overwrites the elements of every tensor, on every rank, with those of rank
    /// `root`. In place, without autograd: leaves that require gradients are allowed.
    ///
    /// # Errors
    /// As for [`all_reduce_sum`](Self::all_reduce_sum), and [`Error::NoSuchRank`].
    pub fn broadcast(&self, tensors: &[Tensor], root: u32) -> Result<(), Error> {
        let no_such_rank = Error::NoSuchRank {
            rank: root,
            world_size: self.world_size,
        };
        let Ok(c_root) = i32::try_from(root) else {
            return Err(no_such_rank);
        };
        if root >= self.world_size {
            return Err(no_such_rank);
        }
        let pointers = ffi::pointers(tensors);
        // SAFETY: handle and tensors are alive for the call, which waits for every
        // broadcast that it started; the count is the list's own.
        let status = unsafe {
            ffi::c10d_group_broadcast(self.as_ptr(), pointers.as_ptr(), pointers.len(), c_root)
        };
        status
            .check()
            .map_err(|failure| self.cause(of("broadcast")(failure)))
    }

    /// Checks, without communicating, whether the group has failed. NCCL runs
    /// asynchronously: after a synchronisation with the device, this reports whether
    /// the collectives before it succeeded.
    ///
    /// # Errors
    /// [`Error::Aborted`], or the error that NCCL's watchdog has found.
    pub fn check(&self) -> Result<(), Error> {
        // SAFETY: the handle is alive for the call.
        unsafe { ffi::c10d_group_check(self.as_ptr()) }
            .check()
            .map_err(of("the process group"))
    }

    /// Ends the group, from any thread: collectives and backward passes that are
    /// blocked in it return an error at once, as do all later ones, here and, as their
    /// connections close, on the peers. With NCCL it ends the kernels that wait on
    /// the device, so that a blocked synchronisation returns. Idempotent.
    ///
    /// # Errors
    /// [`Error::Failed`] when NCCL could not be stopped in an orderly way; the group
    /// counts as aborted all the same.
    pub fn abort(&self) -> Result<(), Error> {
        // SAFETY: the handle is alive for the call, which may overlap with any other.
        unsafe { ffi::c10d_group_abort(self.as_ptr()) }
            .check()
            .map_err(of("aborting the process group"))
    }

    /// What NCCL's watchdog has found, if it has aborted the group because of that: a call that
    /// fails then says only that there is no group.
    pub(crate) fn cause(&self, error: Error) -> Error {
        match (&error, self.check()) {
            (Error::Failed { .. }, Err(cause)) => cause,
            _ => error,
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::ShimGroup {
        self.handle.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the shim and only the last owner gets here. A
        // Reducer keeps references of its own to what it uses of the group.
        unsafe { ffi::c10d_group_free(self.0) }
    }
}
