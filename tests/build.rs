//! Compiles the fake GPU of `fakegpu/`, if the headers of CUDA and NCCL lie beside libtorch.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=fakegpu");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let library = compile(&out)?.unwrap_or_default();
    println!("cargo:rustc-env=FAKE_GPU={}", library.display());
    Ok(())
}

/// The library, or nothing, with a warning, without a header.
fn compile(out: &Path) -> Result<Option<PathBuf>, Box<dyn Error>> {
    let libtorch = env::var_os("LIBTORCH").ok_or("LIBTORCH is not set: run `make setup`")?;
    let nvidia = Path::new(&libtorch).canonicalize()?.join("../nvidia");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(1).debug(false);
    for (folder, header) in [
        ("cu13/include", "cuda_runtime_api.h"),
        ("nccl/include", "nccl.h"),
    ] {
        let folder = nvidia.join(folder);
        if !folder.join(header).exists() {
            let folder = folder.display();
            println!("cargo:warning=no tests on a fake GPU: {folder}/{header} is missing");
            return Ok(None);
        }
        build.flag("-isystem").flag(folder);
    }
    let library = out.join("libfakegpu.so");
    let mut command = build.get_compiler().to_command();
    command.args(["-shared", "-fPIC"]).arg("-o").arg(&library);
    for file in fs::read_dir("fakegpu")? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "cc") {
            command.arg(path);
        }
    }
    if !command.status()?.success() {
        return Err(format!("compiling the fake GPU failed: {command:?}").into());
    }
    Ok(Some(library))
}
