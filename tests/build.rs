//! Compiles the fake GPU of `fakegpu/`, and its NCCL for a real one, if the headers of CUDA and NCCL
//! lie beside libtorch.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The fake GPU: CUDA, NCCL and the libraries.
const GPU: [&str; 6] = [
    "runtime.cc",
    "streams.cc",
    "graphs.cc",
    "nccl.cc",
    "trace.cc",
    "libraries.cc",
];
/// The fake NCCL alone, for a real GPU.
const NCCL: [&str; 3] = ["nccl.cc", "trace.cc", "real/device.cc"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=fakegpu");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let Some(build) = compiler()? else {
        return Ok(());
    };
    for (name, files) in [("libfakegpu.so", &GPU[..]), ("libfakenccl.so", &NCCL)] {
        let library = out.join(name);
        compile(&build, files, &library)?;
        // OUT_DIR is target/<profile>/build/<package>/out. Programs look beside themselves.
        if let Some(profile) = out.ancestors().nth(3) {
            fs::copy(&library, profile.join(name))?;
        }
    }
    Ok(())
}

/// A compiler that finds the headers, or nothing, with a warning, without a header.
fn compiler() -> Result<Option<cc::Build>, Box<dyn Error>> {
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
    Ok(Some(build))
}

fn compile(build: &cc::Build, files: &[&str], library: &Path) -> Result<(), Box<dyn Error>> {
    let mut command = build.get_compiler().to_command();
    // Lazily: the CUDA runtime is loaded after what is preloaded. Both may be, and each uses what it
    // has itself.
    command.args(["-shared", "-fPIC", "-Wl,-z,lazy,-Bsymbolic", "-o"]);
    command.arg(library);
    command.args(files.iter().map(|file| Path::new("fakegpu").join(file)));
    if !command.status()?.success() {
        return Err(format!("compiling the fake GPU failed: {command:?}").into());
    }
    Ok(())
}
