//! What the tests and `examples/crash.rs` share.

pub(crate) mod audit;
pub(crate) mod campaign;
pub(crate) mod process;
