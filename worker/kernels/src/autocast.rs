//! Mixed precision for a stretch of code. tch's own autocast knows CUDA only.

use tch::Device;

use crate::error::{Error, of};
use crate::ffi;

/// Runs `body` with autocast to bfloat16 for `device`'s type: convolutions and matrix
/// products compute in bfloat16, what needs range stays in float32. Holds for this
/// thread. Whatever state there was returns with the end of `body`, by panic too, and
/// the casts of weights that autocast caches are dropped with the outermost one.
///
/// # Errors
/// [`Error::Failed`] for devices other than CPU and CUDA.
pub fn autocast_bf16<T>(device: Device, body: impl FnOnce() -> T) -> Result<T, Error> {
    let _guard = Enabled::enter(device)?;
    Ok(body())
}

struct Enabled {
    device_type: i32,
    previous: ffi::AutocastState,
}

impl Enabled {
    fn enter(device: Device) -> Result<Self, Error> {
        let operation = "autocast";
        let device_type = match device {
            Device::Cpu => 0,
            Device::Cuda(_) => 1,
            other => {
                let message = format!("{other:?} is neither CPU nor CUDA");
                return Err(Error::Failed { operation, message });
            }
        };
        let mut previous = ffi::AutocastState::default();
        // SAFETY: the device type is one that the shim knows; `previous` is writable.
        unsafe { ffi::kernels_autocast_enter(device_type, &mut previous) }
            .check()
            .map_err(of(operation))?;
        Ok(Self {
            device_type,
            previous,
        })
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        // SAFETY: undoes one `enter` on the same thread, to which the guard is bound
        // by living on the stack of `autocast_bf16`.
        unsafe { ffi::kernels_autocast_leave(self.device_type, &self.previous) }
    }
}
