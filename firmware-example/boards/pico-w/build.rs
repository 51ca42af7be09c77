//! Takes the radio's firmware from where `BUGLE_CYW43` says: a folder with `43439A0.bin`, `43439A0_clm.bin` and `nvram_rp2040.bin`.
//! It isn't ours to hand on, so it isn't in this repository. Without it the image is built, and says at its start what it lacks.

use std::{env, fs, path::PathBuf};

const FILES: [&str; 3] = ["43439A0.bin", "43439A0_clm.bin", "nvram_rp2040.bin"];

fn main() {
    println!("cargo:rerun-if-env-changed=BUGLE_CYW43");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    let from = env::var_os("BUGLE_CYW43").map(PathBuf::from);
    if from.is_none() {
        println!(
            "cargo:warning=BUGLE_CYW43 names no folder with the radio's firmware: this image can't go online"
        );
    }
    for file in FILES {
        let bytes = match &from {
            None => Vec::new(),
            Some(folder) => {
                let path = folder.join(file);
                println!("cargo:rerun-if-changed={}", path.display());
                fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            }
        };
        fs::write(out.join(file), bytes).expect("OUT_DIR is writable");
    }
}
