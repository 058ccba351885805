//! The half that exists only where a GPU is: `libtorch_cuda`, which the linker drops, and our
//! NCCL object, both opened at run time.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::OnceLock;

use crate::error::{Error, check};
use crate::ffi;
use crate::store::c_string;

/// Names another place of the NCCL object than the usual ones.
pub const LIBRARY_VARIABLE: &str = "C10D_NCCL_LIBRARY";
const LIBRARY: &str = "libc10d_nccl.so";

struct Handle(*mut c_void);
// SAFETY: a dlopen handle may be used from any thread, and is never closed.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

static NCCL: OnceLock<Handle> = OnceLock::new();

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its model.
    pub name: String,
    /// As `nvidia-smi -L` prints it.
    pub uuid: String,
    /// Major and minor.
    pub compute_capability: (i32, i32),
    /// Bytes.
    pub total_memory: u64,
}

/// Opens libtorch's CUDA half and the NCCL object. False where the machine has no NVIDIA driver,
/// no CUDA build of libtorch, or no visible GPU.
///
/// # Errors
/// When there is a driver and libtorch's CUDA half opens, but the NCCL object does not.
pub fn load() -> Result<bool, Error> {
    if !std::path::Path::new("/dev/nvidiactl").exists() && open("libcuda.so.1").is_err() {
        return Ok(false);
    }
    if open("libtorch_cuda.so").is_err() {
        return Ok(false);
    }
    let mut refusal = Error::new("open the NCCL object", format!("{LIBRARY} was not built"));
    for path in candidates() {
        match open(&path.to_string_lossy()) {
            Ok(handle) => {
                let handle = NCCL.get_or_init(|| Handle(handle));
                let count = symbol(handle.0, c"c10d_cuda_count")?;
                // SAFETY: the NCCL object defines this symbol as `int()`.
                let count = unsafe {
                    std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(count)()
                };
                return Ok(count > 0);
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Describes a visible GPU.
///
/// # Errors
/// Before [`load`] said yes, or for an index that is not there.
pub fn device_info(index: usize) -> Result<DeviceInfo, Error> {
    type Info = extern "C" fn(
        c_int,
        *mut c_char,
        *mut c_char,
        *mut c_int,
        *mut c_int,
        *mut u64,
    ) -> *mut c_char;
    let pointer = symbol(loaded()?, c"c10d_cuda_info")?;
    // SAFETY: the NCCL object defines this symbol with that signature.
    let info = unsafe { std::mem::transmute::<*mut c_void, Info>(pointer) };
    let (mut name, mut uuid) = ([0 as c_char; 256], [0 as c_char; 64]);
    let (mut major, mut minor, mut total_memory) = (0, 0, 0);
    let answer = info(
        index as c_int,
        name.as_mut_ptr(),
        uuid.as_mut_ptr(),
        &mut major,
        &mut minor,
        &mut total_memory,
    );
    check("describe a GPU", answer)?;
    // SAFETY: snprintf terminated both arrays.
    let text = |array: &[c_char]| {
        unsafe { CStr::from_ptr(array.as_ptr()) }
            .to_string_lossy()
            .into_owned()
    };
    Ok(DeviceInfo {
        name: text(&name),
        uuid: text(&uuid),
        compute_capability: (major, minor),
        total_memory,
    })
}

/// The NCCL object's maker of process groups.
pub(crate) fn make_group() -> Result<*mut c_void, Error> {
    symbol(loaded()?, c"c10d_nccl_make")
}

fn loaded() -> Result<*mut c_void, Error> {
    NCCL.get()
        .map(|handle| handle.0)
        .ok_or_else(|| Error::new("use NCCL", "the CUDA half of libtorch is not loaded"))
}

fn candidates() -> Vec<PathBuf> {
    let named = std::env::var_os(LIBRARY_VARIABLE).map(PathBuf::from);
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(LIBRARY)));
    [named, beside, Some(PathBuf::from(env!("C10D_NCCL_BUILT")))]
        .into_iter()
        .flatten()
        .collect()
}

fn open(path: &str) -> Result<*mut c_void, Error> {
    let path = c_string("open a library", path)?;
    let mut handle = null_mut();
    // SAFETY: the string is alive; loading runs the constructors of libtorch's own libraries.
    check("open a library", unsafe {
        ffi::shim_open_library(path.as_ptr(), &mut handle)
    })?;
    Ok(handle)
}

fn symbol(handle: *mut c_void, name: &CStr) -> Result<*mut c_void, Error> {
    // SAFETY: the handle came from dlopen and is never closed.
    let found = unsafe { ffi::shim_symbol(handle, name.as_ptr()) };
    if found.is_null() {
        let name = name.to_string_lossy();
        return Err(Error::new(
            "use NCCL",
            format!("the NCCL object lacks `{name}`"),
        ));
    }
    Ok(found)
}
