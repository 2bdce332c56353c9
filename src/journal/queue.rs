//! The queue of the writer.

use tokio::sync::mpsc;
use vodrelay_core::clock::WallTime;
use vodrelay_core::write::{Write, Written};

use super::copy;

/// An entry of the writer's queue.
#[derive(Debug)]
pub(super) enum Queued {
    /// Work for one transaction.
    Writes(Vec<Asked>),
    /// Work between two transactions.
    Copy(copy::CopyCommand),
}

/// One write with its caller.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) write: Write,
    pub(super) at: WallTime,
    pub(super) reply: mpsc::UnboundedSender<Written>,
}
