//! Real parts against each other, over real sockets on the loopback address.

mod broker;
mod config;
mod house;
mod journal;
mod output;
mod vod;
