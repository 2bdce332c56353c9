//! The space of pruned events in the journal's file goes back to the file system, in small steps.
//!
//! A step moves pages from the file's end to free places. The next events use the pages that are not given
//! back, so only the file's size depends on this job.

use std::time::Duration;

use tracing::info;
use vodrelay_core::write::{Write, Written};

use crate::journal::{Closed, Journal};

/// The pages that one commit gives back, and the pause before the next.
const PAGES_PER_STEP: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Returns the number of pages that were given back.
pub(super) async fn run(journal: &Journal) -> Result<u64, Closed> {
    let mut given_back = 0;
    loop {
        let step = journal.ask(Write::Vacuum { pages: PAGES_PER_STEP }).await?;
        let Written::Vacuumed(step) = step else { unreachable!("a vacuum is answered by its pages") };
        given_back += step.given_back;
        // A file that was made without this option gives nothing back.
        if step.left == 0 || step.given_back == 0 {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if given_back > 0 {
        info!(pages = given_back, "free pages of the journal were given back to the file system");
    }
    Ok(given_back)
}
