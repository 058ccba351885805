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

/// Builds `libc10d_nccl.so` and puts a copy beside the binaries. Returns where it is,
/// or nothing, with a warning, when a header is missing.
fn build_nccl(libtorch: &Path, out: &Path) -> Result<Option<PathBuf>, BuildError> {
    let nvidia = libtorch.join("../nvidia");
    let folders = [
        nvidia.join("cu13/include"),
        nvidia.join("cu13/include/cccl"),
        nvidia.join("nccl/include"),
    ];
    let needed = ["cuda_runtime_api.h", "cuda/std/complex", "nccl.h"];
    for (folder, header) in folders.iter().zip(needed) {
        let header = folder.join(header);
        println!("cargo:rerun-if-changed={}", header.display());
        if !header.exists() {
            println!(
                "cargo:warning=built without NCCL, so without GPUs: no {}; \
                 `make setup` installs the headers",
                header.display()
            );
            return Ok(None);
        }
    }

    let mut build = compiler(libtorch);
    build.define("USE_C10D_NCCL", None).define("USE_CUDA", None);
    system_include(&mut build, Path::new("csrc/cuda_forward"));
    for folder in &folders {
        system_include(&mut build, folder);
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
        .arg("csrc/nccl.cc")
        .arg("-o")
        .arg(&library)
        .arg(format!("-L{}", libtorch.join("lib").display()))
        .arg(format!("-L{}", nvidia.join("cu13/lib").display()))
        .args([
            "-ltorch_cuda",
            "-lc10_cuda",
            "-ltorch_cpu",
            "-lc10",
            "-l:libcudart.so.13",
        ])
        // libtorch_cuda's own dependencies (cuDNN and the like) need not be here.
        .args(["-Wl,-z,defs", "-Wl,--allow-shlib-undefined"]);
    if !command.status()?.success() {
        return Err(format!("compiling csrc/nccl.cc failed: {command:?}").into());
    }

    // OUT_DIR is target/<profile>/build/<package>/out. A deployed binary looks for the
    // library beside itself.
    if let Some(profile) = out.ancestors().nth(3) {
        fs::copy(&library, profile.join(NCCL_LIBRARY))?;
    }
    Ok(Some(library))
}
