//! Compiles `shim/cpu` against the headers of the libtorch that torch-sys links.

use std::{env, path::PathBuf};

const SOURCES: [&str; 14] = [
    "adamw8",
    "attention",
    "blocks",
    "device",
    "fp8",
    "layers",
    "linear",
    "loss",
    "mode",
    "nf4",
    "ops",
    "optimizer",
    "ranks",
    "recompute",
];

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=shim/cpu");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        panic!("LIBTORCH is not set: run `make setup`, which installs libtorch and writes .cargo/config.toml");
    };
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++17")
        .opt_level(3)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .define("GLOG_USE_GLOG_EXPORT", None)
        // Several ranks: c10d over gloo, which libtorch_cpu.so holds; Debian's libgloo-dev has the headers that the wheel lacks.
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .flag("-fopenmp")
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"));
    for source in SOURCES {
        build.file(format!("shim/cpu/{source}.cpp"));
    }
    build.compile("tidemill_torch_shim");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    for library in ["torch_cpu", "c10", "dl"] {
        println!("cargo:rustc-link-lib={library}");
    }
    // The very OpenMP that libtorch uses: a second one would bring a second pool of threads.
    println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
}
