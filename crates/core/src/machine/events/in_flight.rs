//! An event in flight and its states: `transitions.md`.

use std::sync::Arc;

use smallvec::SmallVec;

use super::refusals::Tries;
use crate::clock::Moment;
use crate::machine::handles::HandleId;
use crate::machine::types::ConfirmAfter;
use crate::outgoing::Outgoing;

/// The state of an event in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InFlightState {
    /// Unpublished, and only the journal has its content: `Load` brings it.
    Stored,
    /// Waits to be published.
    Ready,
    /// A publish failed; the failure is being committed.
    Failing,
    /// Waits for its back-off.
    BackingOff,
    /// Handed to the output; its outcome comes.
    Publishing,
    /// Acked; the ack is being committed.
    Acked,
    /// Given up; that is being committed.
    Parking,
    /// Published or parked, and committed.
    Safe,
}

/// An event in flight: until it is safe and no handle of it is left to confirm.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) sub_app: usize,
    pub(super) outgoing: Option<Arc<Outgoing>>,
    state: InFlightState,
    /// Its handles that can still be confirmed.
    pub(super) holds: SmallVec<[HandleId; 1]>,
    /// The results of its publishes.
    pub(super) tries: Tries,
    /// In a batch of its own.
    pub(super) alone: bool,
    pub(super) confirmed: bool,
    /// When its newest delivery arrived.
    pub(super) received_at: Moment,
}

impl InFlightState {
    /// Whether an event in this state can change to `next`: the table in `transitions.md`, which a test
    /// reads.
    fn leads_to(self, next: Self) -> bool {
        use InFlightState::*;
        match next {
            // The journal has the last word: an event that it has committed as published or parked is safe,
            // whatever was known here.
            Safe => true,
            Stored => false,
            Ready => matches!(self, Stored | Publishing | Failing | BackingOff),
            Publishing => self == Ready,
            Acked | Failing | Parking => self == Publishing,
            BackingOff => matches!(self, Publishing | Failing | BackingOff),
        }
    }
}

impl InFlight {
    /// An event that is new in flight.
    pub(super) fn new(
        state: InFlightState,
        sub_app: usize,
        outgoing: Option<Arc<Outgoing>>,
        confirmed: bool,
        received_at: Moment,
    ) -> Self {
        let (holds, tries) = (SmallVec::new(), Tries::default());
        Self { sub_app, outgoing, state, holds, tries, alone: false, confirmed, received_at }
    }

    /// Its state.
    pub(super) fn state(&self) -> InFlightState {
        self.state
    }

    /// Changes its state.
    pub(super) fn enter(&mut self, next: InFlightState) {
        // In the tests of this crate. The simulation plants bugs that give the core wrong facts, and checks
        // the result.
        assert!(!cfg!(test) || self.state.leads_to(next), "an event goes from {:?} to {next:?}", self.state);
        self.state = next;
    }

    /// Whether it may be confirmed.
    pub(super) fn may_confirm(&self, confirm_after: ConfirmAfter) -> bool {
        match confirm_after {
            ConfirmAfter::Publish => self.state == InFlightState::Safe,
            // The commit of its record is the proof. Everything in the map has been recorded.
            ConfirmAfter::Journal => true,
        }
    }

    /// Whether nothing is wrong with it: its publish has not begun, or takes long.
    pub(super) fn waits_for_the_output(&self, confirm_after: ConfirmAfter) -> bool {
        let on_its_way =
            matches!(self.state, InFlightState::Ready | InFlightState::Publishing | InFlightState::Acked);
        on_its_way && self.tries.none_failed() && !self.may_confirm(confirm_after)
    }
}

#[cfg(test)]
mod tests {
    use super::InFlightState::*;
    use super::*;

    const ALL: [InFlightState; 8] = [Stored, Ready, Publishing, Acked, Failing, BackingOff, Parking, Safe];

    /// The rows of the table: from, to.
    fn rows() -> Vec<(String, String)> {
        let table = include_str!("../transitions.md");
        let rows = table.lines().filter(|line| line.starts_with("| `")).map(|line| {
            let mut cells =
                line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        });
        rows.collect()
    }

    #[test]
    fn the_table_and_the_code_say_the_same() {
        let rows = rows();
        for from in ALL {
            for to in ALL {
                let told = |(a, b): &(String, String)| {
                    (*a == format!("{from:?}") || a == "any state") && *b == format!("{to:?}")
                };
                assert_eq!(rows.iter().any(told), from.leads_to(to), "{from:?} to {to:?}");
            }
        }
        let states: Vec<String> = ALL.iter().map(|state| format!("{state:?}")).collect();
        for (from, to) in &rows {
            let known = |name: &String| states.contains(name);
            assert!(
                (known(from) || ["new", "any state"].contains(&from.as_str())) && (known(to) || to == "gone")
            );
        }
    }
}
