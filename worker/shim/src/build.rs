//! How the shims are compiled: against the libtorch that `LIBTORCH` names.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

/// Why a shim cannot be built.
pub type BuildError = Box<dyn Error>;

/// Where libtorch is, as a canonical path: the other folders of the wheels are found relative to
/// it.
///
/// # Errors
/// `LIBTORCH` is not set, or names nothing.
pub fn libtorch() -> Result<PathBuf, BuildError> {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = env::var_os("LIBTORCH")
        .map(PathBuf::from)
        .ok_or("LIBTORCH is not set: run `make setup`, or point it at libtorch 2.11.0")?;
    libtorch.canonicalize().map_err(|error| {
        let libtorch = libtorch.display();
        format!("LIBTORCH={libtorch}: {error}; run `make setup`").into()
    })
}

/// A compiler for C++ that includes libtorch's headers and this crate's.
pub fn compiler(libtorch: &Path) -> cc::Build {
    let include = libtorch.join("include");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .warnings(true)
        .extra_warnings(true)
        .include("csrc")
        .include(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    for folder in [&include, &include.join("torch/csrc/api/include")] {
        system_include(&mut build, folder);
    }
    build
}

/// Turns OpenMP on: ATen's parallel loops are inline, and would run on one thread without it.
///
/// # Errors
/// `CXX` is Clang. torch-sys links GCC's runtime, which is also libtorch's; Clang's would be a
/// second one.
pub fn openmp(build: &mut cc::Build) -> Result<(), BuildError> {
    if build.get_compiler().is_like_clang() {
        return Err("CXX is Clang, whose OpenMP is another than libtorch's; use g++".into());
    }
    build.flag("-fopenmp");
    Ok(())
}

/// Adds a folder whose headers' own warnings are not ours to fix.
pub fn system_include(build: &mut cc::Build, folder: &Path) {
    build.flag("-isystem").flag(folder);
}

/// Links libtorch's CPU part, and lets the package's own tests find it.
pub fn link(libtorch: &Path) {
    let folder = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
}
