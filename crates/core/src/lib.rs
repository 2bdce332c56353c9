//! What vodrelay decides. No I/O, no clock, no await: values in, values out.
//!
//! In reading order:
//!
//! - [`clock`] and [`lease`]: the moments that decide, and the arithmetic of the 30-second window.
//! - [`identity`]: what makes two deliveries the same event.
//! - [`outcome`]: how an attempt to publish, or a request to the cloud, can end. [`error_code`]: the stable names of what can be wrong.
//! - [`outgoing`]: an event as it is published. [`mod@write`]: what the journal can be asked, and what it answers.
//! - [`stages`]: how each stage of an event's way stands.
//! - [`machine`]: the state machine, from everything that can happen to everything that shall be done.
//!   [`backoff`]: how long to wait.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod backoff;
pub mod clock;
pub mod error_code;
pub mod identity;
pub mod lease;
pub mod machine;
pub mod outcome;
pub mod outgoing;
pub mod stages;
pub mod write;
