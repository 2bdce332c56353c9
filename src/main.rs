//! The `vodrelay` binary.
fn main() {}
