//! Compiles the C++ shim against the libtorch that `LIBTORCH` names, and, where the
//! CUDA and NCCL headers lie beside it, NCCL's part into a shared object of its own.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The part that every binary links.
const SHIM: [&str; 8] = [
    "store.cc",
    "process_group.cc",
    "reducer.cc",
    "tensor_ops.cc",
    "memory.cc",
    "cuda.cc",
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

/// The name under which the NCCL part is looked for at run time.
const NCCL_LIBRARY: &str = "libc10d_nccl.so";

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = env::var_os("LIBTORCH")
        .map(PathBuf::from)
        .ok_or("LIBTORCH is not set: run `make setup`, or point it at libtorch 2.11.0")?;
    // Canonical, because the wheels' other folders are found relative to it.
    let libtorch = libtorch
        .canonicalize()
        .map_err(|error| format!("LIBTORCH={}: {error}; run `make setup`", libtorch.display()))?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let mut shim = compiler(&libtorch);
    shim.files(SHIM.iter().map(|file| Path::new("csrc").join(file)));
    // ATen's parallel loops are inline: without OpenMP they would run on one thread.
    // torch-sys links GCC's runtime, which is also libtorch's; Clang's would be a second one.
    if shim.get_compiler().is_like_clang() {
        return Err("CXX is Clang, whose OpenMP is another than libtorch's; use g++".into());
    }
    shim.flag("-fopenmp");
    for kernels in norm_kernels(&out) {
        shim.objects(kernels);
    }
    shim.compile("c10d_shim");
    println!(
        "cargo:rustc-link-search=native={}",
        libtorch.join("lib").display()
    );
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    // For this package's own tests; the worker's build script does it for its binaries.
    println!(
        "cargo:rustc-link-arg=-Wl,-rpath,{}",
        libtorch.join("lib").display()
    );

    let built = build_nccl(&libtorch, &out)?.unwrap_or_default();
    println!("cargo:rustc-env=C10D_NCCL_BUILT={}", built.display());
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

/// The settings that both parts are compiled with.
fn compiler(libtorch: &Path) -> cc::Build {
    let include = libtorch.join("include");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .warnings(true)
        .extra_warnings(true)
        .include("csrc");
    for folder in [
        Path::new("csrc/gloo_forward"),
        &include,
        &include.join("torch/csrc/api/include"),
    ] {
        system_include(&mut build, folder);
    }
    build
}

/// Adds a folder whose headers' own warnings are not ours to fix.
fn system_include(build: &mut cc::Build, folder: &Path) {
    build.flag("-isystem").flag(folder);
}

/// Builds `libc10d_nccl.so` and puts a copy beside the binaries. Returns where it is,
/// or nothing, with a warning, when a header is missing.
fn build_nccl(libtorch: &Path, out: &Path) -> Result<Option<PathBuf>, Failure> {
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
