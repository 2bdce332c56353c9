//! Real parts against each other, over real sockets on the loopback address.

mod config;
mod journal;
mod vod;
