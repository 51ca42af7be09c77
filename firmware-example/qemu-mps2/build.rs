//! Puts `memory.x` where the linker looks for it, whatever directory cargo was started in.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    let memory = if env::var_os("CARGO_FEATURE_TLS").is_some() {
        &include_bytes!("memory-tls.x")[..]
    } else {
        include_bytes!("memory.x")
    };
    fs::write(out.join("memory.x"), memory).expect("OUT_DIR is writable");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=memory-tls.x");
    println!("cargo:rerun-if-changed=build.rs");
}
