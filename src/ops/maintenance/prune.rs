//! The journal deletes confirmed events after their retention, in steps so small that no commit of the relay
//! waits long.

use std::time::Duration;

use tracing::info;
use vodrelay_core::clock::WallTime;
use vodrelay_core::write::{Write, Written};

use crate::clock::Now as _;
use crate::journal::{Closed, Journal};

/// The events that one commit deletes, and the pause before the next.
const EVENTS_PER_STEP: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);

/// Returns the number of deleted events.
pub(super) async fn run(journal: &Journal, retention: Duration) -> Result<u64, Closed> {
    let before = WallTime::now() - retention;
    let mut pruned = 0;
    loop {
        let step = journal.ask(Write::Prune { before, limit: EVENTS_PER_STEP }).await?;
        let Written::Pruned(step) = step else { unreachable!("a prune is answered by its count") };
        pruned += step;
        if step < u64::from(EVENTS_PER_STEP) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if pruned > 0 {
        info!(events = pruned, received_before = %before, "confirmed events pruned from the journal");
    }
    Ok(pruned)
}
