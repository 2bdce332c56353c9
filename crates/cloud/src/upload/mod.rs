//! Uploads: a file becomes a medium.
//!
//! [`run`] uploads. [`plan`] decides what comes next, without I/O; [`record`] is what is written down for a later process; [`source`] is the file.

mod api;
pub mod plan;
pub mod record;
pub mod run;
pub mod source;

pub use api::{Applied, ApplyUpload, Committed, TempCredential, UNKNOWN_SESSION};
pub use plan::part_size;
