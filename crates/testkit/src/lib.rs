//! What the tests and the benchmarks share.
//!
//! - [`broker`]: a private RabbitMQ node. [`authority`]: certificates for it.
//! - [`world`]: a relay in this process, between an emulated cloud and such a node.
//! - [`kills`]: the relay as a process, killed by SIGKILL over and over, and the comparison at the end. The program `kill` runs as many
//!   of them as one likes.
//! - [`simulation`]: the relay's core in a simulated world, decided by a seed. The program `simulate` runs as many seeds as one likes.
//! - [`asks`]: the journal's writes, each with the answer that it has.
//! - [`encodings`]: how a planted secret can look in a text.
//! - [`process_group`]: child processes that end with this one.

#![expect(missing_docs, reason = "tests say what they need by names; what is not plain has a comment")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![expect(clippy::new_without_default, reason = "each is made where a test can see it")]

pub mod asks;
pub mod authority;
pub mod broker;
pub mod encodings;
pub mod kills;
pub mod process_group;
pub mod simulation;
pub mod world;
