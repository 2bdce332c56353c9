//! Real parts over real sockets.

mod config;
