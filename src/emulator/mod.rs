//! A local VOD.

pub mod handles;
pub mod ledger;
pub mod queue;
