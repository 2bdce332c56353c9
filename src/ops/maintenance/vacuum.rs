//! The room that pruned events leave in the journal's file goes back to the file system, in small steps.
//!
//! A step takes pages from the file's end and puts them where there is room. What is not given back is used by the next events,
//! so that nothing hangs on it but the file's size.

use std::time::Duration;

use tracing::info;
use vodrelay_core::write::{Write, Written};

use crate::journal::{Closed, Journal};

/// Pages that one commit gives back, and the pause before the next.
const PAGES_PER_STEP: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Returns how many pages were given back.
pub(super) async fn run(journal: &Journal) -> Result<u64, Closed> {
    let mut given_back = 0;
    loop {
        let step = journal.ask(Write::Vacuum { pages: PAGES_PER_STEP }).await?;
        let Written::Vacuumed(step) = step else { unreachable!("a vacuum is answered by its pages") };
        given_back += step.given_back;
        // A file that was not made for it gives nothing back, however much is free.
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
