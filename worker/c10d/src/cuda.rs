//! CUDA and NCCL, loaded at run time where there is a GPU: one binary serves both
//! kinds of machine. The choice of a worker's device is made elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, of};
use crate::ffi;
use crate::store::c_string;

/// The environment variable that names the NCCL library, for unusual installations.
pub const LIBRARY_VARIABLE: &str = "C10D_NCCL_LIBRARY";

/// The file name of the NCCL library, looked for beside the program.
pub const LIBRARY_NAME: &str = "libc10d_nccl.so";

/// What [`load`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cuda {
    /// CUDA and NCCL are loaded and there is at least one GPU.
    Ready {
        /// The number of GPUs that are visible to this process.
        devices: u32,
    },
    /// There is no usable GPU.
    Absent {
        /// Why: there is no driver or no device.
        reason: String,
    },
    /// There is a GPU, but it cannot be used.
    Unusable {
        /// Why: the driver is too old, a library is missing, or what CUDA said.
        reason: String,
    },
}

/// A GPU, as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The product's name.
    pub name: String,
    /// The UUID as `nvidia-smi -L` and DCGM print it: `GPU-` and five groups of hex.
    pub uuid: String,
    /// The compute capability, major then minor. bfloat16 is native from (8, 0).
    pub compute_capability: (u32, u32),
    /// The memory of the device in bytes.
    pub total_memory: u64,
}

/// Loads libtorch's CUDA part, and this crate's NCCL library, if there is a GPU to use
/// them. Until then, tch sees no CUDA either. Repeated calls are cheap.
///
/// The NCCL library is looked for in `C10D_NCCL_LIBRARY`, else beside the program, else
/// where it was built. Without [`process::prepare`](crate::process::prepare), NCCL's watchdog
/// ends the process when a collective fails.
///
/// # Errors
/// [`Error::NcclLibrary`] when CUDA's libraries are there but this crate's is not.
pub fn load() -> Result<Cuda, Error> {
    static LOADING: Mutex<()> = Mutex::new(());
    // The lock guards no data, so a panic under it leaves nothing inconsistent.
    let _lock = LOADING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: dlopen of libtorch's own library, whose initialisers are libtorch's.
    if let Err(failure) = unsafe { ffi::c10d_cuda_load_libtorch() }.check() {
        let reason = failure.message;
        // A driver's library is also where no driver runs.
        return Ok(match Path::new("/dev/nvidiactl").exists() {
            true => Cuda::Unusable { reason },
            false => Cuda::Absent { reason },
        });
    }
    load_shim()?;
    let mut devices = 0;
    // SAFETY: `devices` is writable; the library is loaded, which the shim checks.
    match unsafe { ffi::c10d_cuda_device_count(&mut devices) }.check() {
        Err(failure) => Ok(Cuda::Unusable {
            reason: failure.message,
        }),
        Ok(()) => Ok(match u32::try_from(devices) {
            Ok(devices @ 1..) => Cuda::Ready { devices },
            _ => Cuda::Absent {
                reason: String::from("the driver sees no device"),
            },
        }),
    }
}

/// Describes the GPU with this index.
///
/// # Errors
/// [`Error::Failed`] when there is no such device or CUDA is not loaded.
pub fn device_info(index: u32) -> Result<DeviceInfo, Error> {
    let mut raw = ffi::DeviceInfo {
        name: [0; 256],
        uuid: [0; 16],
        capability_major: 0,
        capability_minor: 0,
        total_memory: 0,
    };
    // SAFETY: `raw` is writable and as large as the shim expects; an index that does
    // not exist is refused by CUDA.
    unsafe { ffi::c10d_cuda_device_info(c_index(index), &mut raw) }
        .check()
        .map_err(of("describing the GPU"))?;
    let name: Vec<u8> = raw.name.into_iter().take_while(|byte| *byte != 0).collect();
    Ok(DeviceInfo {
        name: String::from_utf8_lossy(&name).into_owned(),
        uuid: format_uuid(raw.uuid),
        compute_capability: (
            raw.capability_major.unsigned_abs(),
            raw.capability_minor.unsigned_abs(),
        ),
        total_memory: raw.total_memory,
    })
}

/// Blocks until the GPU with this index has completed all queued work. A device that waits
/// for a lost peer returns when the group is aborted.
///
/// # Errors
/// [`Error::Failed`] with what CUDA reports, or when it is not loaded.
pub fn synchronize(index: u32) -> Result<(), Error> {
    // SAFETY: no pointers; an index that does not exist is refused by CUDA.
    unsafe { ffi::c10d_cuda_synchronize(c_index(index)) }
        .check()
        .map_err(of("waiting for the GPU"))
}

/// Free bytes of the memory of the GPU with this index.
///
/// # Errors
/// [`Error::Failed`] with what CUDA reports, or when it is not loaded.
pub fn free_memory(index: u32) -> Result<u64, Error> {
    let mut bytes = 0;
    // SAFETY: `bytes` is writable; an index that does not exist is refused by CUDA.
    unsafe { ffi::c10d_cuda_free_memory(c_index(index), &mut bytes) }
        .check()
        .map_err(of("asking for the memory of the GPU"))?;
    Ok(bytes)
}

/// Loads the NCCL library from the first place that has it.
fn load_shim() -> Result<(), Error> {
    let mut tried = Vec::new();
    for path in candidates() {
        let text = path.display().to_string();
        // SAFETY: dlopen of this crate's own library, built from the same sources; a
        // file that is something else fails to offer the symbol asked for.
        match unsafe { ffi::c10d_cuda_load_shim(c_string("path", &text)?.as_ptr()) }.check() {
            Ok(()) => return Ok(()),
            Err(failure) => tried.push(format!("{text} ({})", failure.message)),
        }
    }
    Err(Error::NcclLibrary {
        tried: tried.join("; "),
    })
}

/// Where the NCCL library may be, in order of preference. A path that the user sets is the only
/// candidate.
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os(LIBRARY_VARIABLE) {
        return vec![path.into()];
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().map(|folder| folder.join(LIBRARY_NAME)));
    let built = env!("C10D_NCCL_BUILT");
    beside
        .into_iter()
        .chain((!built.is_empty()).then(|| built.into()))
        .collect()
}

/// Indices that do not fit are passed on as the largest, which no machine has.
pub(crate) fn c_index(index: u32) -> i32 {
    i32::from(i8::try_from(index).unwrap_or(i8::MAX))
}

fn format_uuid(bytes: [u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_reads_as_nvidia_smi_prints_it() {
        let bytes = std::array::from_fn(|i| i as u8 * 0x11);
        assert_eq!(
            format_uuid(bytes),
            "GPU-00112233-4455-6677-8899-aabbccddeeff"
        );
    }
}
