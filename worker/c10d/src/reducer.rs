//! DDP's gradient reducer: it hooks into the parameters' autograd nodes and
//! all-reduces gradients, bucket by bucket, while the backward pass still runs.

use std::marker::PhantomData;
use std::time::Duration;

use tch::{TchError, Tensor};

use crate::error::{Error, of};
use crate::ffi;
use crate::process_group::ProcessGroup;

/// How gradients are put into buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReducerOptions {
    /// The size of the bucket that is ready first: small, so that communication
    /// begins early.
    pub first_bucket_bytes: u32,
    /// The size of the other buckets.
    pub bucket_bytes: u32,
    /// Lets gradients be views into the buckets, which saves a copy and the memory
    /// for it. Such gradients must be zeroed in place, not detached or replaced.
    pub gradient_as_bucket_view: bool,
}

impl Default for ReducerOptions {
    /// DDP's sizes (1 MiB, then 25 MiB), with views.
    fn default() -> Self {
        Self {
            first_bucket_bytes: 1 << 20,
            bucket_bytes: 25 << 20,
            gradient_as_bucket_view: true,
        }
    }
}

/// The time of one step, by phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// From `prepare_for_forward` to the first gradient that is ready.
    pub forward: Duration,
    /// From the first gradient that is ready to the last.
    pub backward_compute: Duration,
    /// From the last gradient to the end of the last all-reduce: the part of the
    /// communication that the backward pass did not hide.
    pub allreduce_wait: Duration,
}

/// Reduces the gradients of a list of parameters over a [`ProcessGroup`].
///
/// Per step: [`prepare_for_forward`](Self::prepare_for_forward), forward,
/// [`backward`](Self::backward). Every parameter must take part in the loss, on
/// every rank. Each `.grad` then holds the **mean** over the ranks of their
/// gradients: the sum divided by the world size. For the sum (say, of a loss that is
/// already weighted by a rank's share of the batch), scale the loss by the world size.
///
/// It keeps the parameters and the group's connections alive. It stays on its thread
/// because it must not be dropped while a backward pass runs on another thread. After a failed
/// backward pass, drop it.
#[derive(Debug)]
pub struct Reducer {
    handle: *mut ffi::ShimReducer,
    // Autograd reaches the Reducer through hooks on these.
    parameters: Vec<Tensor>,
    group: ProcessGroup,
    _not_send: PhantomData<*mut ()>,
}

impl Reducer {
    /// Attaches to `parameters`: leaves that require gradients, in the same order and
    /// with equal shapes and strides on every rank, which is verified by a collective.
    /// Values are not synchronised: broadcast them first.
    ///
    /// # Errors
    /// [`Error::Failed`] when the ranks' parameters differ or the list is empty, or as
    /// any collective; [`Error::Aborted`].
    pub fn new(
        parameters: &[Tensor],
        group: &ProcessGroup,
        options: ReducerOptions,
    ) -> Result<Self, Error> {
        let operation = "attaching the gradient reducer";
        if parameters.is_empty() {
            return Err(Error::Failed {
                operation,
                message: String::from("no parameters"),
            });
        }
        let parameters: Vec<Tensor> = parameters.iter().map(Tensor::shallow_clone).collect();
        let pointers = ffi::pointers(&parameters);
        let mut handle = std::ptr::null_mut();
        // SAFETY: tensors and group are alive for the call, and the Reducer takes its
        // own references to both; the count is the list's own; `handle` is writable.
        let status = unsafe {
            ffi::c10d_reducer_new(
                pointers.as_ptr(),
                pointers.len(),
                group.as_ptr(),
                i64::from(options.first_bucket_bytes),
                i64::from(options.bucket_bytes),
                i32::from(options.gradient_as_bucket_view),
                &mut handle,
            )
        };
        status.check().map_err(of(operation))?;
        Ok(Self {
            handle,
            parameters,
            group: group.clone(),
            _not_send: PhantomData,
        })
    }

    /// Begins a step. After the first one it also puts the buckets into the order in
    /// which the gradients came, which takes a broadcast.
    ///
    /// # Errors
    /// As any collective; [`Error::Failed`] too when the step before was not finished.
    pub fn prepare_for_forward(&mut self) -> Result<(), Error> {
        // SAFETY: the handle is alive as long as `self`, and `&mut` keeps calls apart.
        unsafe { ffi::c10d_reducer_prepare_for_forward(self.handle) }
            .check()
            .map_err(of("preparing the forward pass"))
    }

    /// Runs the backward pass of `loss` and returns when the gradients are reduced
    /// (NCCL: when that is queued; see [`ProcessGroup::check`]).
    ///
    /// # Errors
    /// [`Error::Failed`] when a peer fails or is too slow, or the pass itself fails;
    /// [`Error::Aborted`]. The gradients are then unspecified.
    pub fn backward(&mut self, loss: &Tensor) -> Result<(), Error> {
        let operation = "the backward pass";
        // SAFETY: handle and loss are alive for the call; `&mut` keeps calls apart.
        let status = unsafe {
            ffi::c10d_reducer_prepare_for_backward(self.handle, loss.as_ptr().cast_mut())
        };
        status.check().map_err(of(operation))?;
        let result = loss.f_backward();
        // First, because an abort explains whatever libtorch says.
        self.group.check().map_err(|error| match error {
            Error::Aborted { .. } => Error::Aborted { operation },
            other => other,
        })?;
        result.map_err(|error| Error::Failed {
            operation,
            message: match error {
                TchError::Torch(message) => first_paragraph(&message),
                other => other.to_string(),
            },
        })
    }

    /// The time of the last step by phase, or `None` before the first one is complete.
    /// On CUDA it waits for the device to finish that step.
    ///
    /// # Errors
    /// [`Error::Failed`] when CUDA reports an error.
    pub fn last_timings(&self) -> Result<Option<Timings>, Error> {
        let mut raw = ffi::Timings::default();
        // SAFETY: the handle is alive as long as `self`; `raw` is writable.
        unsafe { ffi::c10d_reducer_timings(self.handle, &mut raw) }
            .check()
            .map_err(of("reading the reducer's timer"))?;
        let duration = |nanos| u64::try_from(nanos).ok().map(Duration::from_nanos);
        Ok((|| {
            Some(Timings {
                forward: duration(raw.forward)?,
                backward_compute: duration(raw.backward_compute)?,
                allreduce_wait: duration(raw.allreduce_wait)?,
            })
        })())
    }

    /// The parameters that it reduces the gradients of, in the order given.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the shim and is freed once. The hooks on the
        // parameters, which are still alive, go with it.
        unsafe { ffi::c10d_reducer_free(self.handle) }
    }
}

/// tch passes c10's message on with its C++ backtrace; only what precedes it is kept.
fn first_paragraph(message: &str) -> String {
    message
        .split("\nException raised from")
        .next()
        .unwrap_or(message)
        .trim_end()
        .to_owned()
}
