//! The relay against a real RabbitMQ, over real sockets on the loopback address.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod broken;
mod check;
mod kills;
mod login;
mod maintenance;
mod output;
mod refusals;
mod relay;
