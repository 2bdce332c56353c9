//! vodrelay carries Tencent Cloud VOD's reliable-callback events into RabbitMQ and loses none of them.
//!
//! The modules, in reading order:
//!
//! - The crates below this one: `tencent_vod_event` (an event's bytes and identity), `vodrelay_core` (the state machine and the
//!   shared types), `tencentcloud_signing`, `tencent_vod` (a client of the cloud's API), `tencent_vod_emulator` (a local VOD with
//!   its own reading of the API), `vodrelay_serve` (an HTTP server with limits), `vodrelay_host` (the boot clock; named and free
//!   files).
//! - [`clock`]: reads the clocks. [`latency`]: durations. [`heartbeat`]: signs of progress of the tasks.
//! - [`routing_key`]: the routing key of an event.
//! - [`cron`]: schedules of repeated jobs.
//! - [`failpoint`]: places where a test build can kill itself.
//! - [`relay`]: the shell around the state machine: it acts.
//! - [`cloud`]: the client of the cloud's API in the core's types.
//! - [`journal`]: the durable record, in SQLite.
//! - [`output`]: the destination of events: RabbitMQ, or standard output.
//! - [`ops`]: the operators' view: log, health, metrics, status socket, service manager; scheduled maintenance.
//! - [`serve`]: services for others over HTTP, each a process of its own: upload signatures.
//! - [`config`]: the file, checked.
//! - [`app`]: builds the parts, owns the tasks, examines them once a second, turns signals into a drain or a reload.
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
pub mod serve;
