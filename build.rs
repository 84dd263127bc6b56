//! Compiles `src/stunet/shim.cpp` against the headers of the libtorch that tch links.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/stunet/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        panic!("LIBTORCH names no folder; run `make libtorch` and build with this repository's .cargo/config.toml");
    };
    let include = libtorch.join("include");
    assert!(include.join("ATen/Parallel.h").is_file(), "{} has no libtorch headers; run `make libtorch`", include.display());
    cc::Build::new()
        .cpp(true)
        .file("src/stunet/shim.cpp")
        .include(&include)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into()).as_str())
        // libtorch's headers run parallel loops through OpenMP only where the compiler has it on.
        .flag("-fopenmp")
        .flag("-Wno-unused-parameter")
        .opt_level(2)
        .debug(false)
        .compile("stunetd_shim");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in ["torch_cpu", "c10", "gomp"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
