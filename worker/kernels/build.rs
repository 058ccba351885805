//! Compiles `csrc/` against the libtorch that `LIBTORCH` names; the loops of the fused batch
//! normalisation once per instruction set.

use std::env;
use std::path::{Path, PathBuf};

use shim::build::{self, BuildError};

const SOURCES: [&str; 5] = [
    "autocast.cc",
    "memory.cc",
    "optimizer.cc",
    "norm/autograd.cc",
    "norm/dispatch.cc",
];

/// What csrc/norm/kernels.cc is compiled for, each copy in a namespace of its own.
const PORTABLE: (&str, &[&str]) = ("baseline", &["-DNORM_AVX2=0", "-DNORM_AVX512=0"]);
const X86_64: [(&str, &[&str]); 2] = [
    (
        "avx2",
        &["-DNORM_AVX2=1", "-DNORM_AVX512=0", "-mavx2", "-mfma"],
    ),
    (
        "avx512",
        &[
            "-DNORM_AVX2=1",
            "-DNORM_AVX512=1",
            "-mavx2",
            "-mfma",
            "-mavx512f",
            "-mavx512bw",
            "-mavx512dq",
            "-mavx512vl",
        ],
    ),
];

fn main() -> Result<(), BuildError> {
    println!("cargo:rerun-if-changed=csrc");
    let libtorch = build::libtorch()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut shim = build::compiler(&libtorch);
    build::openmp(&mut shim)?;
    shim.files(SOURCES.iter().map(|file| Path::new("csrc").join(file)));
    for kernels in norm_kernels(&out) {
        shim.objects(kernels);
    }
    shim.compile("kernels_shim");
    build::link(&libtorch);
    Ok(())
}

/// Compiles the loops of the fused batch normalisation once per instruction set; which
/// one runs is decided at run time.
fn norm_kernels(out: &Path) -> Vec<Vec<PathBuf>> {
    let x86_64 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let sets = X86_64.iter().filter(|_| x86_64);
    std::iter::once(&PORTABLE)
        .chain(sets)
        .map(|(namespace, flags)| {
            let mut build = cc::Build::new();
            build
                .cpp(true)
                .std("c++17")
                .opt_level(3)
                .debug(false)
                .warnings(true)
                .extra_warnings(true)
                .define("NORM_ISA", *namespace)
                .flags(*flags)
                // Objects are named after their source, which is one.
                .out_dir(out.join(namespace))
                .file("csrc/norm/kernels.cc");
            build.compile_intermediates()
        })
        .collect()
}
