//! Writes the place of libtorch into the binaries' run path, so that they start
//! without `LD_LIBRARY_PATH`. A deployed binary may also find it in `../lib`.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    if let Some(libtorch) = std::env::var_os("LIBTORCH")
        && let Ok(directory) = std::path::Path::new(&libtorch).join("lib").canonicalize()
    {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", directory.display());
    }
}
