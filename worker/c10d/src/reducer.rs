//! DDP's gradient reducer.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use tch::Tensor;

use crate::error::{Error, check};
use crate::ffi;
use crate::process_group::{ProcessGroup, pointers};

/// Sizes of the buckets in which gradients travel.
#[derive(Debug, Clone, Copy)]
pub struct ReducerOptions {
    /// Bytes of the first bucket to be complete.
    pub first_bucket_bytes: usize,
    /// Bytes of every other one.
    pub bucket_bytes: usize,
    /// Gradients live inside the buckets: no copy, but they must be zeroed in place.
    pub gradient_as_bucket_view: bool,
}

/// Where the time of the last backward pass went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timings {
    /// Until the last gradient was computed.
    pub backward_compute: Duration,
    /// From then until all were reduced.
    pub allreduce_wait: Duration,
}

/// Averages gradients over the ranks while the backward pass still runs. The sum over the ranks
/// is divided by the world size, as DDP does.
#[derive(Debug)]
pub struct Reducer {
    raw: *mut c_void,
    prepared: Instant,
    // The C++ side refers to both for as long as it lives.
    _parameters: Vec<Tensor>,
    _group: ProcessGroup,
}

// SAFETY: the reducer is used by one thread at a time (its methods take `&mut self`), and its
// autograd hooks synchronise inside.
unsafe impl Send for Reducer {}

impl Reducer {
    /// Hooks into the gradients of `parameters`, which every rank lists in the same order.
    ///
    /// # Errors
    /// When a parameter takes no gradient, or the ranks disagree.
    pub fn new(
        parameters: &[Tensor],
        group: &ProcessGroup,
        options: ReducerOptions,
    ) -> Result<Self, Error> {
        let pointers = pointers(parameters);
        let mut raw = null_mut();
        // SAFETY: the pointers are to live tensors, kept alive below as long as the reducer.
        let answer = unsafe {
            ffi::shim_reducer_new(
                pointers.as_ptr(),
                pointers.len(),
                group.raw(),
                options.first_bucket_bytes,
                options.bucket_bytes,
                options.gradient_as_bucket_view,
                &mut raw,
            )
        };
        check("make a reducer", answer)?;
        Ok(Self {
            raw,
            prepared: Instant::now(),
            _parameters: parameters.iter().map(Tensor::shallow_clone).collect(),
            _group: group.clone(),
        })
    }

    /// To be called before each forward pass.
    ///
    /// # Errors
    /// When the pass before was not completed.
    pub fn prepare_for_forward(&mut self) -> Result<(), Error> {
        // SAFETY: `raw` is alive and used by this thread alone.
        check("prepare a forward pass", unsafe {
            ffi::shim_reducer_prepare_forward(self.raw)
        })
    }

    /// To be called between forward and `loss.backward()`.
    ///
    /// # Errors
    /// When the pass before was not completed.
    pub fn prepare_for_backward(&mut self, loss: &Tensor) -> Result<(), Error> {
        self.prepared = Instant::now();
        // SAFETY: as above; the loss is alive for the call, which keeps no reference to it.
        check("prepare a backward pass", unsafe {
            ffi::shim_reducer_prepare_backward(self.raw, loss.as_ptr().cast_mut().cast())
        })
    }

    /// How long the backward pass that has just returned computed and waited.
    ///
    /// # Errors
    /// When the reducer has no times yet.
    pub fn timings(&self) -> Result<Timings, Error> {
        let total = self.prepared.elapsed();
        let mut nanos = 0;
        // SAFETY: `raw` is alive; `nanos` is a local.
        check("read the reducer's times", unsafe {
            ffi::shim_reducer_compute_nanos(self.raw, &mut nanos)
        })?;
        let compute = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).min(total);
        Ok(Timings {
            backward_compute: compute,
            allreduce_wait: total - compute,
        })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: `raw` came from the shim and is released only here, before what it refers to.
        unsafe { ffi::shim_reducer_drop(self.raw) }
    }
}
