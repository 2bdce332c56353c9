//! The number of events in each state, counted as they move and written once for each transaction.

use std::cell::RefCell;

use rusqlite::{Connection, params};

use super::event_state::EventState;

/// The changes of this transaction.
#[derive(Debug, Default)]
pub(super) struct StateCounts {
    /// In the order of [`EventState::ALL`].
    more: RefCell<[i64; EventState::ALL.len()]>,
}

impl StateCounts {
    /// A transaction begins. The changes of an earlier one were rolled back.
    pub(super) fn begin(&self) {
        self.more.take();
    }

    /// An event came.
    pub(super) fn came(&self, state: EventState) {
        self.more.borrow_mut()[state as usize] += 1;
    }

    /// So many events went from one state to another.
    pub(super) fn moved(&self, events: usize, from: EventState, to: EventState) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        let mut more = self.more.borrow_mut();
        more[from as usize] -= events;
        more[to as usize] += events;
    }

    /// Adds what changed to the file.
    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        let mut statement = conn.prepare_cached("UPDATE tally SET events = events + ?2 WHERE state = ?1")?;
        for (state, more) in EventState::ALL.into_iter().zip(self.more.take()) {
            if more != 0 {
                statement.execute(params![state.name(), more])?;
            }
        }
        Ok(())
    }
}
