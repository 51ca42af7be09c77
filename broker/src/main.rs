//! The `bugle` program. All of it is in the library beside it, where the fuzzers reach it, too.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    bugle::main()
}
