//! Work of a GPU that is recorded once and then asked for with one call, as a CUDA graph:
//! <https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-graphs>.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::cuda::c_index;
use crate::error::{Error, of};
use crate::ffi;

/// Recorded work. It reads and writes the same memory each time: what it was recorded with must
/// live as long, in place.
#[derive(Debug)]
pub struct Graph {
    handle: *mut c_void,
    // It was recorded on a stream of this thread.
    _not_send: PhantomData<*mut ()>,
}

impl Graph {
    /// Records what `work` asks of the GPU `device`, which does none of it yet. `work` must not
    /// wait for the GPU, and everything that it needs must have been used once before: libraries
    /// choose their algorithms the first time.
    ///
    /// # Errors
    /// [`Error::Failed`] when CUDA refuses, for example because `work` did wait.
    pub fn record<T>(device: u32, work: impl FnOnce() -> T) -> Result<(Self, T), Error> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is writable; an index that does not exist is refused by CUDA.
        unsafe { ffi::c10d_cuda_graph_begin(c_index(device), &mut handle) }
            .check()
            .map_err(of(RECORDING))?;
        let graph = Self {
            handle,
            _not_send: PhantomData,
        };
        let done = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: the recording has begun, on this thread, and ends once.
        let ended = unsafe { ffi::c10d_cuda_graph_end(graph.handle) }.check();
        match done {
            Ok(done) => {
                ended.map_err(of(RECORDING))?;
                Ok((graph, done))
            }
            Err(panic) => {
                drop(graph);
                resume_unwind(panic)
            }
        }
    }

    /// Asks the GPU for the recorded work, behind what it was asked for before.
    ///
    /// # Errors
    /// [`Error::Failed`] with what CUDA reports.
    pub fn replay(&self) -> Result<(), Error> {
        // SAFETY: the handle is alive, and its recording has ended.
        unsafe { ffi::c10d_cuda_graph_replay(self.handle) }
            .check()
            .map_err(of("replaying a CUDA graph"))
    }
}

const RECORDING: &str = "recording a CUDA graph";

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the handle came from the shim and is freed once.
        unsafe { ffi::c10d_cuda_graph_free(self.handle) }
    }
}
