//! Compiles the C++ shim against the libtorch that `LIBTORCH` names, and, where the
//! CUDA and NCCL headers lie beside it, NCCL's part into a shared object of its own.

use std::path::{Path, PathBuf};
use std::{env, fs};

use shim::build::{self, BuildError, system_include};

/// The part that every binary links.
const SHIM: [&str; 4] = ["store.cc", "process_group.cc", "reducer.cc", "cuda.cc"];

/// The name under which the NCCL part is looked for at run time.
const NCCL_LIBRARY: &str = "libc10d_nccl.so";

fn main() -> Result<(), BuildError> {
    println!("cargo:rerun-if-changed=csrc");
    let libtorch = build::libtorch()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut shim = compiler(&libtorch);
    build::openmp(&mut shim)?;
    shim.files(SHIM.iter().map(|file| Path::new("csrc").join(file)));
    shim.compile("c10d_shim");
    build::link(&libtorch);
    let nccl = build_nccl(&libtorch, &out)?.unwrap_or_default();
    println!("cargo:rustc-env=C10D_NCCL_BUILT={}", nccl.display());
    Ok(())
}

/// The settings that both parts are compiled with.
fn compiler(libtorch: &Path) -> cc::Build {
    let mut build = build::compiler(libtorch);
    build
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None);
    system_include(&mut build, Path::new("csrc/gloo_forward"));
    build
}

/// CUDA as the wheels beside libtorch bring it. They lie elsewhere for each major version.
struct Cuda {
    /// Folders of headers below the folder `nvidia`, and a header of each.
    includes: &'static [(&'static str, &'static str)],
    libraries: &'static str,
    runtime: &'static str,
}

const CUDA: [Cuda; 2] = [
    Cuda {
        includes: &[
            ("cu13/include", "cuda_runtime_api.h"),
            ("cu13/include/cccl", "cuda/std/complex"),
            ("nccl/include", "nccl.h"),
        ],
        libraries: "cu13/lib",
        runtime: "libcudart.so.13",
    },
    Cuda {
        includes: &[
            ("cuda_runtime/include", "cuda_runtime_api.h"),
            ("cuda_nvcc/include", "crt/host_config.h"),
            ("cuda_cccl/include", "cuda/std/complex"),
            ("nccl/include", "nccl.h"),
        ],
        libraries: "cuda_runtime/lib",
        runtime: "libcudart.so.12",
    },
];

/// The version of CUDA whose headers are complete; none, with a warning, where there is none.
fn find_cuda(nvidia: &Path) -> Option<&'static Cuda> {
    let headers = |cuda: &Cuda| {
        let headers = cuda.includes.iter();
        headers.map(|(folder, header)| nvidia.join(folder).join(header))
    };
    for header in CUDA.iter().flat_map(headers) {
        println!("cargo:rerun-if-changed={}", header.display());
    }
    let found = CUDA
        .iter()
        .find(|cuda| headers(cuda).all(|header| header.exists()));
    if found.is_none() {
        let missing = headers(&CUDA[0]).find(|header| !header.exists());
        println!(
            "cargo:warning=built without NCCL, so without GPUs: no {}; `make setup` installs the \
             headers",
            missing.unwrap_or_default().display()
        );
    }
    found
}

/// Builds `libc10d_nccl.so` and puts a copy beside the binaries. Returns where it is, or nothing
/// where a header is missing.
fn build_nccl(libtorch: &Path, out: &Path) -> Result<Option<PathBuf>, BuildError> {
    let nvidia = libtorch.join("../nvidia");
    let Some(cuda) = find_cuda(&nvidia) else {
        return Ok(None);
    };

    let mut build = compiler(libtorch);
    build.define("USE_C10D_NCCL", None).define("USE_CUDA", None);
    system_include(&mut build, Path::new("csrc/cuda_forward"));
    for (folder, _) in cuda.includes {
        system_include(&mut build, &nvidia.join(folder));
    }
    let library = out.join(NCCL_LIBRARY);
    let mut command = build.get_compiler().to_command();
    command
        .args([
            "-shared",
            "-fPIC",
            "-fvisibility=hidden",
            "-fvisibility-inlines-hidden",
        ])
        .args(["csrc/nccl.cc", "csrc/graph.cc"])
        .arg("-o")
        .arg(&library)
        .arg(format!("-L{}", libtorch.join("lib").display()))
        .arg(format!("-L{}", nvidia.join(cuda.libraries).display()))
        .args(["-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"])
        .arg(format!("-l:{}", cuda.runtime))
        // libtorch_cuda's own dependencies (cuDNN and the like) need not be here.
        .args(["-Wl,-z,defs", "-Wl,--allow-shlib-undefined"]);
    if !command.status()?.success() {
        return Err(format!("compiling csrc/nccl.cc and csrc/graph.cc failed: {command:?}").into());
    }

    // OUT_DIR is target/<profile>/build/<package>/out. A deployed binary looks for the
    // library beside itself.
    if let Some(profile) = out.ancestors().nth(3) {
        fs::copy(&library, profile.join(NCCL_LIBRARY))?;
    }
    Ok(Some(library))
}
