//! Builds the shim against libtorch's headers, and the NCCL object where CUDA's headers are.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        panic!("LIBTORCH is not set: run `make setup` in the top folder");
    };
    let headers = libtorch.join("include");
    assert!(
        headers
            .join("torch/csrc/distributed/c10d/reducer.hpp")
            .exists(),
        "no libtorch with headers at {}: run `make setup` in the top folder",
        libtorch.display()
    );
    configured(&headers, "USE_C10D_GLOO")
        .include("csrc/gloo_forward")
        .file("csrc/shim.cc")
        .compile("c10d_shim");
    println!(
        "cargo:rustc-link-search=native={}",
        libtorch.join("lib").display()
    );
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    nccl_object(&libtorch, &headers);
}

fn configured(headers: &Path, backend: &str) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .warnings(false)
        .flag("-w")
        .define("USE_DISTRIBUTED", None)
        .define(backend, None)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .include(headers)
        .include(headers.join("torch/csrc/api/include"))
        .include("csrc");
    build
}

/// A shared object of its own, so that the binaries themselves need no CUDA library.
fn nccl_object(libtorch: &Path, headers: &Path) {
    let nvidia = libtorch.join("../nvidia");
    let includes = ["nccl/include", "cu13/include", "cu13/include/cccl"].map(|p| nvidia.join(p));
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let library = out.join("libc10d_nccl.so");
    println!("cargo:rustc-env=C10D_NCCL_BUILT={}", library.display());
    if !includes.iter().all(|path| path.exists()) || !includes[1].join("cusparse.h").exists() {
        return;
    }
    let mut build = configured(headers, "USE_C10D_NCCL");
    for path in &includes {
        build.include(path);
    }
    let objects = build.pic(true).file("csrc/nccl.cc").compile_intermediates();
    let status = cc::Build::new()
        .cpp(true)
        .get_compiler()
        .to_command()
        .arg("-shared")
        .args(objects)
        .arg("-o")
        .arg(&library)
        .arg(format!("-L{}", libtorch.join("lib").display()))
        .args([
            "-Wl,--no-as-needed",
            "-ltorch_cuda",
            "-ltorch_cpu",
            "-lc10_cuda",
            "-lc10",
        ])
        // CUDA's own libraries are not needed to link against libtorch's.
        .args([
            "-Wl,--unresolved-symbols=ignore-all",
            "-Wl,--allow-shlib-undefined",
        ])
        .status();
    match status {
        Ok(status) if status.success() => {
            // Also beside the binaries, where a deployed one looks first.
            // OUT_DIR is <profile>/build/<package>/out.
            if let Some(profile) = out.ancestors().nth(3) {
                let beside = profile.join("libc10d_nccl.so");
                if let Err(error) = std::fs::copy(&library, &beside) {
                    println!("cargo:warning=cannot copy to {}: {error}", beside.display());
                }
            }
        }
        other => panic!("linking libc10d_nccl.so failed: {other:?}"),
    }
}
