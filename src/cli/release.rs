//! `events release`: parked events are published again.

use std::io::{self, Write as _};
use std::path::Path;

use vodrelay_core::identity::EventId;
use vodrelay_core::write::{Write, Written};

use super::events::EventsError;
use super::exit::{Exit, Failure};
use crate::app::AppError;
use crate::journal::query::{EventState, Filter, JournalReader, QueryError};
use crate::journal::{Journal, OpenError, Options};

/// Parked events that are read together.
const PAGE: u32 = 200;

/// What `events release` is asked for.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "The relay must be stopped: a running one would miss the change. The next start publishes the released events."
)]
pub(super) struct Args {
    /// The events' numbers in the journal, as `events list --state parked` shows them
    #[arg(required_unless_present = "all", value_name = "ID")]
    ids: Vec<i64>,
    /// All parked events
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

pub(super) fn run(args: &Args, path: &Path) -> Result<Exit, Failure> {
    // A wrong path would create a new journal without parked events.
    if !path.try_exists().unwrap_or(true) {
        return Err(EventsError::from(QueryError::Missing { path: path.to_owned() }).into());
    }
    let (journal, writer) = Journal::open(&Options { path: path.to_owned() }).map_err(|error| {
        let in_use = matches!(error, OpenError::InUse { .. });
        let failure = Failure::from(AppError::Journal(error));
        if in_use { failure.next("stop the relay, release the events, then start it again") } else { failure }
    })?;
    let released = super::runtime()?.block_on(async move {
        let ids = if args.all { parked(path)? } else { args.ids.clone() };
        let mut released = Vec::new();
        for id in ids {
            let done = journal.ask(Write::Release(EventId(id))).await;
            let done = done.map_err(|error| Failure::new(Exit::Failure, error))?;
            released.push((id, done == Written::Released(true)));
        }
        Ok::<_, Failure>(released)
    });
    writer.join().map_err(AppError::Writer)?;
    let released = released?;
    let mut out = io::stdout().lock();
    for (id, done) in &released {
        let word = if *done { "released" } else { "not parked" };
        writeln!(out, "{id}  {word}").map_err(Failure::stdout)?;
    }
    if args.all && released.is_empty() {
        // Standard error may be closed; then there is no reader.
        let _ = writeln!(io::stderr(), "no event is parked");
    }
    let all = released.iter().all(|(_, done)| *done);
    Ok(if all { Exit::Done } else { Exit::Failure })
}

fn parked(path: &Path) -> Result<Vec<i64>, EventsError> {
    let reader = JournalReader::open(path)?;
    let filter = Filter { state: Some(EventState::Parked), ..Filter::default() };
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let page = reader.list(&filter, cursor, PAGE)?;
        ids.extend(page.iter().map(|event| event.id));
        match page.last() {
            Some(last) => cursor = Some(last.cursor()),
            None => return Ok(ids),
        }
    }
}
