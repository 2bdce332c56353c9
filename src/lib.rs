//! vodrelay carries Tencent Cloud VOD's reliable-callback events into RabbitMQ and loses none of them.
//!
//! The map of this house, in reading order:
//!
//! - [`event`]: what an event is: its raw bytes, its fingerprint, its message id.
//! - [`clock`] and [`lease`]: the moments that decide, and the arithmetic of the 30-second window.
//! - [`identity`]: what makes two deliveries the same event.
//! - [`outcome`]: how an attempt to publish or to call can end.
//! - [`outgoing`]: an event as it is published. [`mod@write`]: what the journal can be asked, and what it answers.
//! - [`routing_key`]: how an event's routing key is made.
//! - [`times`]: how long things take. [`stages`]: how each stage of the way stands. [`heartbeat`]: signs of life of the loops.
//! - [`error_code`]: the stable names of what can be wrong.
//! - [`cron`]: when things are to be done again and again.
//! - [`descriptors`]: whether there are files left to open.
//! - [`crash`]: where a test build can be made to die.
//! - [`serve`]: an HTTP server that no client can make costly.
//! - [`relay`]: `core` decides, the shell around it acts; pacing and back-off.
//! - [`vod`]: the client of the cloud's API.
//! - [`journal`]: the durable record, in SQLite.
//! - [`output`]: where events go: RabbitMQ, or standard output.
//! - [`emulator`]: a local VOD, with its own reading of the API.
//! - [`ops`]: what operators see: the log, health, metrics, the status socket, the service manager; scheduled maintenance.
//! - [`config`]: what the file may say, and what the program may rely on.
//! - [`app`]: builds the parts, owns the tasks, looks after them once a second, turns signals into a drain or a reload.
//! - [`cli`]: the commands.
//!
//! Imports flow one way, from the bottom of this list of rooms to the top: `tests/local/house.rs` holds the arrows.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

// The program has it, in src/main.rs.
#[cfg(feature = "jemalloc")]
use tikv_jemallocator as _;

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash;
pub mod cron;
pub mod descriptors;
pub mod emulator;
pub mod error_code;
pub mod event;
pub mod heartbeat;
pub mod identity;
pub mod journal;
pub mod lease;
pub mod ops;
pub mod outcome;
pub mod outgoing;
pub mod output;
pub mod relay;
pub mod routing_key;
pub mod secret;
pub mod serve;
pub mod stages;
pub mod times;
pub mod vod;
pub mod write;
