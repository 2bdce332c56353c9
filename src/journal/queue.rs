//! What waits for the writer.

use tokio::sync::mpsc;
use vodrelay_core::clock::WallTime;
use vodrelay_core::write::{Write, Written};

use super::copy;

/// What waits for the writer.
#[derive(Debug)]
pub(super) enum Queued {
    /// Work for one transaction.
    Writes(Vec<Asked>),
    /// Work between two transactions.
    Copy(copy::CopyCommand),
}

/// One write, and who asked for it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) write: Write,
    pub(super) at: WallTime,
    pub(super) reply: mpsc::UnboundedSender<Written>,
}
