//! The relay against a real RabbitMQ, over real sockets on the loopback address.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod authority;
mod broken;
mod broker;
mod check;
mod crash;
mod leash;
mod login;
mod maintenance;
mod output;
mod refusals;
mod relay;
mod world;
