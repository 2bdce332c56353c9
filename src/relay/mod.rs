//! (to be written)
pub mod backoff;
pub mod core;
pub mod pacing;
