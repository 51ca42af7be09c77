//! What the fuzz targets in `tests/fuzz` reach of the process: each function takes any input, and panics where something is wrong.
//! There only under cargo-fuzz.

pub use crate::admin::fuzzing::request;
pub use crate::authentication::fuzzing::{credential_files, hook_answer, token, token_keys};
pub use crate::config::fuzzing::{configuration, rules_file};
pub use crate::store::fuzzing::rows;
pub use crate::transport::fuzzing::beginning;
