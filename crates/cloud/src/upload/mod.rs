//! Uploads: a file becomes a medium.
//!
//! [`plan`] decides what comes next, without I/O; [`record`] is what is written down for a later process; [`source`] is the file.

mod api;
pub mod plan;
pub mod record;
pub mod source;

pub use api::{Applied, ApplyUpload, Committed, TempCredential, UNKNOWN_SESSION};
