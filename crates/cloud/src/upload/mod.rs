//! Uploads: a file becomes a medium.

mod api;
pub mod plan;

pub use api::{Applied, ApplyUpload, Committed, TempCredential, UNKNOWN_SESSION};
