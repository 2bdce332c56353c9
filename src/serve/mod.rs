//! Services for others over HTTP. Each is a process of its own: what goes wrong in it does not reach the relay.

pub mod signature;
