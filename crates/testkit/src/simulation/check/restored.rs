//! What an older copy of a journal excuses when it is restored.
//!
//! What the copy holds is doubtful from then on: an equal event is another one, what is unpublished there is published again,
//! and both are marked. What came after the copy is not known to the journal: the cloud hands it out again if it was not
//! confirmed, and it is published again under the same id. What was confirmed and not published yet is lost with the journal,
//! which only `confirm_after = "journal"` allows. Of equal events, one may have been confirmed as another one, and only the newer
//! journal could tell them apart.

use vodrelay_core::identity::EventId;

use super::super::journal::Journal;
use super::Checker;

impl Checker {
    /// An older copy takes the place of a relay's journal: of `journal` as it is now, what is above `lost_from` is lost, and of
    /// the rows `unlearnt` that they are confirmed.
    pub(crate) fn restored(&mut self, relay: usize, journal: &Journal, lost_from: usize, unlearnt: &[usize]) {
        for at in unlearnt {
            let id = EventId(i64::try_from(*at).expect("few rows") + 1);
            if let Some(message) = self.messages.get(&(relay, id)) {
                let content = &mut self.contents[message.content];
                content.unlearnt += usize::from(content.put > 1);
            }
        }
        let mut parked_again = Vec::new();
        let is_lost = |event: &EventId| usize::try_from(event.0).is_ok_and(|id| id > lost_from);
        self.ids.retain(|(of, _, _), event| *of != relay || !is_lost(event));
        for ((_, event), message) in self.messages.iter_mut().filter(|((of, _), _)| *of == relay) {
            if message.gone {
                continue;
            }
            // As far as this journal knows, nothing has left yet.
            message.left = 0;
            if is_lost(event) {
                message.gone = true;
                let content = &mut self.contents[message.content];
                content.again_after_copy += 1;
                content.lost_with_journal += usize::from(message.safe && !message.placed);
            } else if journal.row(*event).is_some_and(|row| !row.published) {
                message.excused += message.copies;
                message.doubted |= message.copies > 0;
                parked_again.extend(journal.row(*event).filter(|row| row.parked).map(|_| *event));
            }
        }
        for event in parked_again {
            self.place(relay, event);
        }
    }
}
