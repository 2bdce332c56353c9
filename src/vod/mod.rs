//! The client of the cloud's API.

pub mod sign;
