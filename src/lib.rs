//! vodrelay carries Tencent Cloud VOD's reliable-callback events into RabbitMQ and loses none of them.
//!
//! The modules, in reading order:
//!
//! - The crates below this one: `tencent_vod_event` (what an event is), `vodrelay_core` (what decides, and the words that all share),
//!   `tencentcloud_signing`, `tencent_vod` (a client of the cloud's API), `tencent_vod_emulator` (a local VOD, with its own reading of
//!   the API), `vodrelay_serve` (an HTTP server that no client can make costly), `vodrelay_host` (the boot clock; files that are named or left to open).
//! - [`clock`]: reads the clocks. [`latency`]: how long things take. [`heartbeat`]: signs of progress of the tasks.
//! - [`routing_key`]: how an event's routing key is made.
//! - [`cron`]: when things are to be done again and again.
//! - [`failpoint`]: where a test build can be made to die.
//! - [`relay`]: the shell around the state machine: it acts.
//! - [`cloud`]: the client of the cloud's API in the relay's words.
//! - [`journal`]: the durable record, in SQLite.
//! - [`output`]: where events go: RabbitMQ, or standard output.
//! - [`ops`]: what operators see: the log, health, metrics, the status socket, the service manager; scheduled maintenance.
//! - [`config`]: what the file may say, and what the program may rely on.
//! - [`app`]: builds the parts, owns the tasks, looks after them once a second, turns signals into a drain or a reload.
//! - [`cli`]: the commands.
//!
//! Imports flow one way, from the bottom of this list to the top: the compiler keeps the crates apart, and `tests/local/house.rs` the
//! modules of this one.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

// The program uses it, in src/main.rs.
#[cfg(feature = "jemalloc")]
use tikv_jemallocator as _;

pub mod app;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod cron;
pub mod failpoint;
pub mod heartbeat;
pub mod journal;
pub mod latency;
pub mod ops;
pub mod output;
pub mod relay;
pub mod routing_key;
