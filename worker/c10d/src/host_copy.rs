//! Copies of tensors in the memory of the host. A GPU makes them behind the work that it was given
//! before, while this thread goes on.

use std::ffi::c_void;

use tch::{Device, TchError, Tensor};

use crate::error::{Error, of};
use crate::ffi;

/// A copy that may not be complete yet.
#[derive(Debug)]
pub struct HostCopy {
    tensor: Tensor,
    /// What the copy is complete after, if it is not complete from the beginning.
    event: Option<Event>,
}

#[derive(Debug)]
struct Event(*mut c_void);

// SAFETY: CUDA's events may be waited for, and freed, on any thread.
unsafe impl Send for Event {}

impl HostCopy {
    /// Begins to copy `tensor` as it is after all work that this thread has asked for. Later work
    /// may overwrite it.
    ///
    /// # Errors
    /// [`Error::Failed`] when there is no memory left, or with what CUDA reports.
    pub fn begin(tensor: &Tensor) -> Result<Self, Error> {
        let tensor = tensor.detach();
        if !matches!(tensor.device(), Device::Cuda(_)) {
            return copied(&tensor).map_err(|error| Error::Failed {
                operation: COPYING,
                message: error.to_string(),
            });
        }
        let (mut copy, mut event) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the tensor is alive for the call, and the device reads it in the order of its
        // stream, as it reuses the memory; both results are writable.
        let status = unsafe {
            ffi::c10d_cuda_copy_to_host(tensor.as_ptr().cast_mut(), &mut copy, &mut event)
        };
        let event = (!event.is_null()).then_some(Event(event));
        status.check().map_err(of(COPYING))?;
        // SAFETY: the shim succeeded, so `copy` is a tensor that the caller owns.
        let tensor = unsafe { Tensor::from_ptr(copy) };
        Ok(Self { tensor, event })
    }

    /// The copy, once it is complete.
    ///
    /// # Errors
    /// [`Error::Failed`] with what CUDA reports.
    pub fn wait(&self) -> Result<&Tensor, Error> {
        if let Some(event) = &self.event {
            // SAFETY: the event is alive.
            unsafe { ffi::c10d_cuda_event_wait(event.0) }
                .check()
                .map_err(of(COPYING))?;
        }
        Ok(&self.tensor)
    }
}

const COPYING: &str = "copying a tensor to the host";

fn copied(tensor: &Tensor) -> Result<HostCopy, TchError> {
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(HostCopy {
        tensor: copy,
        event: None,
    })
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event came from the shim and is freed once.
        unsafe { ffi::c10d_cuda_event_free(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_was_when_it_began() {
        let mut tensor = Tensor::from_slice(&[1.0f32, 2.0]).set_requires_grad(true);
        let copy = HostCopy::begin(&tensor).unwrap();
        let _ = tch::no_grad(|| tensor.fill_(9.0));
        let copy = copy.wait().unwrap();
        assert!(!copy.requires_grad());
        assert_eq!(Vec::<f32>::try_from(copy).unwrap(), [1.0, 2.0]);
    }
}
