//! Real parts against each other, over real sockets on the loopback address.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod broken;
mod broker;
mod check;
mod config;
mod crash;
mod documents;
mod emulator;
mod house;
mod journal;
mod leash;
mod maintenance;
mod output;
mod process;
mod relay;
mod vod;
mod world;
