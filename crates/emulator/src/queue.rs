//! One sub-application's reliable queue, as a pure model: no I/O, no clock, no task.
//!
//! It keeps what the documents say: a pull hides an event for 30 s, a handle can be confirmed only that long,
//! an event is kept for four days ("PullEvents" 266/33433, "ConfirmEvents" 266/33434). What they leave open
//! is a setting. The default follows the queue service that the figures suggest (CMQ: one receipt for each
//! delivery, and only the latest one deletes).

mod settings;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::handles::{HandleForm, HandleMint};
use super::ledger::{ConfirmRecord, ConfirmVerdict, DeliveryRecord, EventRecord, Ledger};
pub use settings::{HandleStyle, MixedConfirm, QueueSettings, Redelivery};

/// The most events of one pull, and the most handles of one confirm (documents 266/33433, 266/33434).
pub const MAX_BATCH: usize = 16;

/// The number of an event within its queue, from 1, in the order in which the events were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct EventNo(pub u64);

/// One event as a pull hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Which event.
    pub number: EventNo,
    /// Its handle; `None` under [`HandleStyle::Missing`].
    pub handle: Option<Arc<str>>,
    /// Whether the handle is written as a bare number.
    pub handle_as_number: bool,
    /// The event's JSON without a handle, unchanged.
    pub body: Arc<str>,
    /// Its number among the deliveries of the event, from 1.
    pub delivery: usize,
}

impl Delivered {
    /// Appends the event in the form of `EventSet`: the handle as the first member, every other byte
    /// unchanged.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // A body that is not an object has no place for a handle, and is sent unchanged.
        let (Some(handle), Some(brace)) = (&self.handle, self.body.find('{')) else {
            out.extend_from_slice(self.body.as_bytes());
            return;
        };
        let (head, members) = self.body.split_at(brace + 1);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(b"\"EventHandle\":");
        let quote: &[u8] = if self.handle_as_number { b"" } else { b"\"" };
        out.extend_from_slice(quote);
        out.extend_from_slice(handle.as_bytes());
        out.extend_from_slice(quote);
        if !members.trim_start().starts_with('}') {
            out.push(b',');
        }
        out.extend_from_slice(members.as_bytes());
    }

    /// The event as `EventSet` shows it.
    pub fn to_json(&self) -> String {
        let mut out = Vec::with_capacity(self.body.len() + 48);
        self.write_to(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// The result of a confirm, for each handle. The cloud's answer only says whether all were good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmResult {
    /// One verdict for each handle of the call, in its order.
    pub verdicts: Vec<ConfirmVerdict>,
}

impl ConfirmResult {
    /// Whether the call succeeds.
    pub fn is_ok(&self) -> bool {
        self.verdicts.iter().all(|v| matches!(v, ConfirmVerdict::Confirmed | ConfirmVerdict::Repeated))
    }

    /// The position and the verdict of the first handle that makes the request fail.
    pub fn first_bad(&self) -> Option<(usize, ConfirmVerdict)> {
        let bad = |v: &ConfirmVerdict| {
            !matches!(
                v,
                ConfirmVerdict::Confirmed | ConfirmVerdict::Repeated | ConfirmVerdict::RefusedWithOthers
            )
        };
        self.verdicts.iter().position(bad).map(|at| (at, self.verdicts[at]))
    }
}

/// How many events a queue has in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Put since the start of the queue.
    pub put: u64,
    /// Visible to a pull, at the last moment that was given.
    pub visible: u64,
    /// Handed out, hidden until their window ends.
    pub hidden: u64,
    /// Confirmed, and gone.
    pub confirmed: u64,
    /// Deleted unconfirmed after the retention.
    pub expired: u64,
    /// Deliveries so far.
    pub deliveries: u64,
    /// Deliveries that were not an event's first.
    pub redeliveries: u64,
}

impl Counts {
    /// Events that are not finished.
    pub fn unconfirmed(&self) -> u64 {
        self.visible + self.hidden
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visibility {
    /// In `visible`.
    Visible,
    /// In `hidden`, under this moment.
    Hidden { until: u64 },
    /// Confirmed or expired.
    Gone,
}

#[derive(Debug)]
struct Slot {
    record: EventRecord,
    place: Visibility,
    /// The handle under which it comes next, if it was set for this event alone.
    next: Option<Redelivery>,
}

/// The queue of one sub-application. All moments are milliseconds of one clock, of the caller's choice.
#[derive(Debug)]
pub struct Queue {
    sub_app_id: u64,
    settings: QueueSettings,
    mint: HandleMint,
    /// Events from number `forgotten + 1` on, without gaps.
    slots: VecDeque<Slot>,
    /// The number of events at the front that the ledger has dropped.
    forgotten: u64,
    /// In the order of delivery. Entries of events that were confirmed while visible are stale and skipped.
    visible: VecDeque<u64>,
    hidden: BTreeSet<(u64, u64)>,
    by_handle: HashMap<Arc<str>, Vec<u64>>,
    poisoned: HashSet<Arc<str>>,
    /// The first event that the retention has not checked.
    next_to_expire: u64,
    confirms: VecDeque<ConfirmRecord>,
    calls: u64,
    counts: Counts,
}

impl Queue {
    /// An empty queue. Equal seeds give equal handles.
    pub fn new(sub_app_id: u64, seed: u64, settings: QueueSettings) -> Self {
        Self {
            sub_app_id,
            settings,
            mint: HandleMint::new(seed, sub_app_id),
            slots: VecDeque::new(),
            forgotten: 0,
            visible: VecDeque::new(),
            hidden: BTreeSet::new(),
            by_handle: HashMap::new(),
            poisoned: HashSet::new(),
            next_to_expire: 1,
            confirms: VecDeque::new(),
            calls: 0,
            counts: Counts::default(),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// The settings. Handles that are out keep their window.
    pub fn settings_mut(&mut self) -> &mut QueueSettings {
        &mut self.settings
    }

    /// Puts an event: its JSON without `EventHandle`, delivered byte for byte.
    pub fn put(&mut self, now_ms: u64, json: impl Into<Arc<str>>) -> EventNo {
        let number = self.forgotten + self.slots.len() as u64 + 1;
        let record = EventRecord {
            number: EventNo(number),
            sub_app_id: self.sub_app_id,
            json: json.into(),
            put_at: now_ms,
            deliveries: Vec::new(),
            confirmed_at: None,
            expired_at: None,
        };
        self.slots.push_back(Slot { record, place: Visibility::Visible, next: None });
        self.visible.push_back(number);
        self.counts.put += 1;
        self.counts.visible += 1;
        EventNo(number)
    }

    /// Takes up to `max` events (never more than [`MAX_BATCH`]) and hides them for the window.
    pub fn pull(&mut self, now_ms: u64, max: usize, style: HandleStyle) -> Vec<Delivered> {
        self.advance(now_ms);
        let mut taken = Vec::new();
        let mut shared: Option<Arc<str>> = None;
        while taken.len() < max.min(MAX_BATCH) {
            let Some(number) = self.visible.pop_front() else { break };
            let Some(slot) = slot(&mut self.slots, self.forgotten, number) else { continue };
            if slot.place != Visibility::Visible {
                continue;
            }
            let redelivery = slot.next.take().unwrap_or(self.settings.redelivery);
            let previous = slot.record.deliveries.iter().rev().find_map(|d| d.handle.clone());
            let handle = match (style, redelivery, previous) {
                (HandleStyle::Missing, ..) => None,
                (HandleStyle::OneForAll, ..) => {
                    Some(shared.get_or_insert_with(|| self.mint.next(now_ms, self.settings.form)).clone())
                }
                (_, Redelivery::SameHandle, Some(handle)) => Some(handle),
                (HandleStyle::Number, ..) => Some(self.mint.next(now_ms, HandleForm::Numeric)),
                (HandleStyle::Each, ..) => Some(self.mint.next(now_ms, self.settings.form)),
            };
            if let Some(handle) = &handle {
                let events = self.by_handle.entry(handle.clone()).or_default();
                if !events.contains(&number) {
                    events.push(number);
                }
            }
            let until = now_ms.saturating_add(self.settings.window_ms);
            slot.record.deliveries.push(DeliveryRecord { handle: handle.clone(), at: now_ms, until });
            slot.place = Visibility::Hidden { until };
            self.hidden.insert((until, number));
            self.counts.visible -= 1;
            self.counts.hidden += 1;
            self.counts.deliveries += 1;
            let delivery = slot.record.deliveries.len();
            self.counts.redeliveries += u64::from(delivery > 1);
            // A handle that stays the same may be of the form that is not a number.
            let handle_as_number = style == HandleStyle::Number
                && handle.as_ref().is_some_and(|h| h.bytes().all(|b| b.is_ascii_digit()));
            let body = slot.record.json.clone();
            taken.push(Delivered { number: EventNo(number), handle, handle_as_number, body, delivery });
        }
        taken
    }

    /// Confirms: deletes the events whose latest delivery had one of these handles, within its window.
    pub fn confirm<H: AsRef<str>>(&mut self, now_ms: u64, handles: &[H]) -> ConfirmResult {
        self.advance(now_ms);
        self.calls += 1;
        let mut verdicts: Vec<ConfirmVerdict> =
            handles.iter().map(|h| self.verdict(now_ms, h.as_ref())).collect();
        let is_bad = |v: &ConfirmVerdict| !matches!(v, ConfirmVerdict::Confirmed | ConfirmVerdict::Repeated);
        let refuse = verdicts.contains(&ConfirmVerdict::Poisoned)
            || (self.settings.mixed == MixedConfirm::RefuseAll && verdicts.iter().any(is_bad));
        if refuse {
            for verdict in verdicts.iter_mut().filter(|v| !is_bad(v)) {
                *verdict = ConfirmVerdict::RefusedWithOthers;
            }
        }
        for (handle, verdict) in handles.iter().zip(&verdicts) {
            let handle: Arc<str> = match self.by_handle.get_key_value(handle.as_ref()) {
                Some((known, _)) => known.clone(),
                None => handle.as_ref().into(),
            };
            let mut events = Vec::new();
            if *verdict == ConfirmVerdict::Confirmed {
                events = self.confirmable(now_ms, &handle);
                for number in &events {
                    self.finish(now_ms, *number, true);
                }
            }
            let events = events.into_iter().map(EventNo).collect();
            let (sub_app_id, call, verdict) = (self.sub_app_id, self.calls, *verdict);
            self.confirms.push_back(ConfirmRecord { sub_app_id, call, handle, at: now_ms, verdict, events });
        }
        self.forget();
        ConfirmResult { verdicts }
    }

    /// Makes every confirm that holds this handle fail as a whole.
    pub fn poison(&mut self, handle: &str) {
        self.poisoned.insert(handle.into());
    }

    /// Repairs every poisoned handle.
    pub fn heal(&mut self) {
        self.poisoned.clear();
    }

    /// Makes a hidden event visible again at once, before its window ends. The handle that is out stays good
    /// until the next delivery. Returns whether the event was hidden.
    pub fn force_redeliver(&mut self, event: EventNo, under: Redelivery) -> bool {
        let Some(slot) = slot(&mut self.slots, self.forgotten, event.0) else { return false };
        let Visibility::Hidden { until } = slot.place else { return false };
        slot.place = Visibility::Visible;
        slot.next = Some(under);
        self.hidden.remove(&(until, event.0));
        self.visible.push_back(event.0);
        self.counts.hidden -= 1;
        self.counts.visible += 1;
        true
    }

    /// Advances the queue to the moment: windows end, old events are deleted.
    pub fn advance(&mut self, now_ms: u64) {
        while let Some(&(until, number)) = self.hidden.first() {
            if until > now_ms {
                break;
            }
            self.hidden.pop_first();
            self.counts.hidden -= 1;
            if let Some(slot) = slot(&mut self.slots, self.forgotten, number) {
                slot.place = Visibility::Visible;
                self.visible.push_back(number);
                self.counts.visible += 1;
            }
        }
        while let Some(slot) = slot(&mut self.slots, self.forgotten, self.next_to_expire) {
            if slot.record.put_at.saturating_add(self.settings.retention_ms) > now_ms {
                break;
            }
            let number = self.next_to_expire;
            self.next_to_expire += 1;
            self.finish(now_ms, number, false);
        }
        self.forget();
    }

    /// When the next hidden event becomes visible; `None` when nothing is hidden.
    pub fn next_visible_at(&self) -> Option<u64> {
        self.hidden.first().map(|(until, _)| *until)
    }

    /// How many events are in which state, as of the last call that was given a moment.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The events that are hidden now, with the end of their windows, soonest first.
    pub fn hidden(&self) -> impl Iterator<Item = (u64, EventNo)> + '_ {
        self.hidden.iter().map(|(until, number)| (*until, EventNo(*number)))
    }

    /// The history of every event in memory.
    pub fn ledger(&self) -> Ledger {
        Ledger {
            events: self.slots.iter().map(|slot| slot.record.clone()).collect(),
            confirms: self.confirms.iter().cloned().collect(),
        }
    }

    /// The history of one event.
    pub fn event(&self, event: EventNo) -> Option<&EventRecord> {
        let at = event.0.checked_sub(self.forgotten + 1)?;
        self.slots.get(usize::try_from(at).ok()?).map(|slot| &slot.record)
    }

    /// Whether this handle belongs to an event that was handed out once.
    pub fn is_first(&self, handle: &str) -> bool {
        let events = self.by_handle.get(handle).into_iter().flatten();
        events.filter_map(|number| self.event(EventNo(*number))).any(|event| event.deliveries.len() == 1)
    }

    fn verdict(&self, now_ms: u64, handle: &str) -> ConfirmVerdict {
        if self.poisoned.contains(handle) {
            return ConfirmVerdict::Poisoned;
        }
        let Some(events) = self.by_handle.get(handle) else { return ConfirmVerdict::Unknown };
        let mut worst = ConfirmVerdict::Unknown;
        for event in events.iter().filter_map(|number| self.event(EventNo(*number))) {
            let delivery = event.deliveries.iter().rev().find(|d| d.handle.as_deref() == Some(handle));
            let latest = event.deliveries.last().is_some_and(|d| d.handle.as_deref() == Some(handle));
            let live = delivery.is_some_and(|d| now_ms < d.until);
            let gone = event.confirmed_at.is_some() || event.expired_at.is_some();
            worst = match (live, latest, gone) {
                // One event to confirm is enough: the others under this handle do not make it bad.
                (true, true, false) => return ConfirmVerdict::Confirmed,
                (true, _, true) if event.confirmed_at.is_some() && !self.settings.refuse_repeats => {
                    ConfirmVerdict::Repeated
                }
                (true, _, true) => ConfirmVerdict::Unknown,
                (true, false, false) => ConfirmVerdict::Superseded,
                (false, ..) => ConfirmVerdict::Late,
            };
        }
        worst
    }

    /// The events that this handle confirms now.
    fn confirmable(&self, now_ms: u64, handle: &str) -> Vec<u64> {
        let numbers = self.by_handle.get(handle).map(Vec::as_slice).unwrap_or_default();
        let good = |number: &u64| {
            self.event(EventNo(*number)).is_some_and(|event| {
                event.confirmed_at.is_none()
                    && event.expired_at.is_none()
                    && event
                        .deliveries
                        .last()
                        .is_some_and(|d| d.handle.as_deref() == Some(handle) && now_ms < d.until)
            })
        };
        numbers.iter().copied().filter(good).collect()
    }

    fn finish(&mut self, now_ms: u64, number: u64, confirmed: bool) {
        let Some(slot) = slot(&mut self.slots, self.forgotten, number) else { return };
        match slot.place {
            Visibility::Gone => return,
            Visibility::Visible => self.counts.visible -= 1,
            Visibility::Hidden { until } => {
                self.hidden.remove(&(until, number));
                self.counts.hidden -= 1;
            }
        }
        slot.place = Visibility::Gone;
        if confirmed {
            slot.record.confirmed_at = Some(now_ms);
            self.counts.confirmed += 1;
        } else {
            slot.record.expired_at = Some(now_ms);
            self.counts.expired += 1;
        }
    }

    /// Keeps the ledger within its bound. Only finished events at the front are dropped, so numbers have no
    /// gaps.
    fn forget(&mut self) {
        while self.slots.len() > self.settings.remember {
            if self.slots.front().is_none_or(|slot| slot.place != Visibility::Gone) {
                break;
            }
            let Some(slot) = self.slots.pop_front() else { break };
            self.forgotten += 1;
            self.next_to_expire = self.next_to_expire.max(self.forgotten + 1);
            for handle in slot.record.deliveries.into_iter().filter_map(|d| d.handle) {
                if let Some(events) = self.by_handle.get_mut(&handle) {
                    events.retain(|number| *number != slot.record.number.0);
                    if events.is_empty() {
                        self.by_handle.remove(&handle);
                    }
                }
            }
        }
        while self.confirms.len() > self.settings.remember.saturating_mul(4) {
            self.confirms.pop_front();
        }
    }
}

/// A function and not a method: it borrows only the slots of the queue.
fn slot(slots: &mut VecDeque<Slot>, forgotten: u64, number: u64) -> Option<&mut Slot> {
    let at = number.checked_sub(forgotten + 1)?;
    slots.get_mut(usize::try_from(at).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 30_000;

    fn queue() -> Queue {
        Queue::new(0, 7, QueueSettings::default())
    }

    fn queue_with(change: impl FnOnce(&mut QueueSettings)) -> Queue {
        let mut settings = QueueSettings::default();
        change(&mut settings);
        Queue::new(0, 7, settings)
    }

    #[track_caller]
    fn pull_one(queue: &mut Queue, now: u64) -> Delivered {
        let mut taken = queue.pull(now, MAX_BATCH, HandleStyle::Each);
        assert_eq!(taken.len(), 1, "one event expected at {now}");
        taken.remove(0)
    }

    fn handle_of(delivered: &Delivered) -> String {
        delivered.handle.as_deref().unwrap().to_owned()
    }

    #[track_caller]
    fn check_confirm(queue: &mut Queue, now: u64, handles: &[String], expected: &[ConfirmVerdict]) {
        assert_eq!(queue.confirm(now, handles).verdicts, expected);
    }

    #[test]
    fn events_come_in_the_order_they_were_put_and_sixteen_at_a_time() {
        let mut queue = queue();
        for n in 0..40 {
            queue.put(n, format!(r#"{{"n":{n}}}"#));
        }
        let mut numbers = Vec::new();
        for expected in [16, 16, 8, 0] {
            let taken = queue.pull(100, 99, HandleStyle::Each);
            assert_eq!(taken.len(), expected);
            numbers.extend(taken.iter().map(|d| d.number.0));
        }
        assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
        let counts = queue.counts();
        assert_eq!((counts.visible, counts.hidden, counts.deliveries), (0, 40, 40));
    }

    #[test]
    fn an_unconfirmed_event_comes_again_when_its_window_ends_under_a_new_handle() {
        let mut queue = queue();
        queue.put(0, "{}");
        let first = pull_one(&mut queue, 1_000);
        assert_eq!(queue.next_visible_at(), Some(1_000 + WINDOW));
        assert!(queue.pull(1_000 + WINDOW - 1, 16, HandleStyle::Each).is_empty());
        let second = pull_one(&mut queue, 1_000 + WINDOW);
        assert_ne!(first.handle, second.handle);
        assert_eq!((first.number, first.delivery, second.delivery), (second.number, 1, 2));
        assert_eq!(queue.counts().redeliveries, 1);
    }

    #[test]
    fn a_handle_confirms_until_its_window_ends_and_not_after() {
        let mut queue = queue();
        queue.put(0, "{}");
        let first = handle_of(&pull_one(&mut queue, 0));
        check_confirm(&mut queue, WINDOW, std::slice::from_ref(&first), &[ConfirmVerdict::Late]);
        let second = handle_of(&pull_one(&mut queue, WINDOW));
        check_confirm(
            &mut queue,
            2 * WINDOW - 1,
            std::slice::from_ref(&second),
            &[ConfirmVerdict::Confirmed],
        );
        assert!(queue.pull(9 * WINDOW, 16, HandleStyle::Each).is_empty());
        assert_eq!(queue.counts().confirmed, 1);
        assert_eq!(queue.event(EventNo(1)).unwrap().confirmed_at, Some(2 * WINDOW - 1));
    }

    #[test]
    fn only_the_latest_handle_of_an_event_confirms_it() {
        let mut queue = queue();
        queue.put(0, "{}");
        let first = pull_one(&mut queue, 0);
        assert!(queue.force_redeliver(first.number, Redelivery::NewHandle));
        let second = pull_one(&mut queue, 10);
        assert_ne!(first.handle, second.handle);
        check_confirm(&mut queue, 20, &[handle_of(&first)], &[ConfirmVerdict::Superseded]);
        check_confirm(&mut queue, 20, &[handle_of(&second)], &[ConfirmVerdict::Confirmed]);
    }

    #[test]
    fn a_forced_redelivery_can_keep_its_handle_and_renews_the_window() {
        let mut queue = queue();
        queue.put(0, "{}");
        let first = pull_one(&mut queue, 0);
        assert!(queue.force_redeliver(first.number, Redelivery::SameHandle));
        assert!(!queue.force_redeliver(first.number, Redelivery::SameHandle), "it is visible already");
        let second = pull_one(&mut queue, 5_000);
        assert_eq!(first.handle, second.handle);
        check_confirm(&mut queue, WINDOW + 4_999, &[handle_of(&first)], &[ConfirmVerdict::Confirmed]);
    }

    #[test]
    fn a_handle_stays_good_between_a_forced_redelivery_and_the_next_pull() {
        let mut queue = queue();
        queue.put(0, "{}");
        let first = pull_one(&mut queue, 0);
        queue.force_redeliver(first.number, Redelivery::NewHandle);
        check_confirm(&mut queue, 1, &[handle_of(&first)], &[ConfirmVerdict::Confirmed]);
        assert!(queue.pull(2, 16, HandleStyle::Each).is_empty(), "confirmed while visible");
        assert_eq!(queue.counts().unconfirmed(), 0);
    }

    #[test]
    fn redeliveries_under_the_same_handle_as_a_setting() {
        let mut queue = queue_with(|s| s.redelivery = Redelivery::SameHandle);
        queue.put(0, "{}");
        let first = pull_one(&mut queue, 0);
        let second = pull_one(&mut queue, WINDOW);
        assert_eq!(first.handle, second.handle);
    }

    #[test]
    fn equal_events_are_two_events() {
        let mut queue = queue();
        queue.put(0, r#"{"a":1}"#);
        queue.put(0, r#"{"a":1}"#);
        let taken = queue.pull(0, 16, HandleStyle::Each);
        assert_eq!(taken.len(), 2);
        assert_ne!(taken[0].handle, taken[1].handle);
        check_confirm(&mut queue, 1, &[handle_of(&taken[0])], &[ConfirmVerdict::Confirmed]);
        let again = pull_one(&mut queue, WINDOW);
        assert_eq!(again.number, taken[1].number);
    }

    #[test]
    fn a_bad_handle_fails_the_call_and_spares_or_drags_its_neighbours() {
        for (mixed, neighbour, left) in [
            (MixedConfirm::DeleteGood, ConfirmVerdict::Confirmed, 0),
            (MixedConfirm::RefuseAll, ConfirmVerdict::RefusedWithOthers, 1),
        ] {
            let mut queue = queue_with(|s| s.mixed = mixed);
            queue.put(0, "{}");
            let handle = handle_of(&pull_one(&mut queue, 0));
            let result = queue.confirm(1, &[handle, "nonsense".to_owned()]);
            assert_eq!(result.verdicts, [neighbour, ConfirmVerdict::Unknown]);
            assert!(!result.is_ok());
            assert_eq!(result.first_bad(), Some((1, ConfirmVerdict::Unknown)));
            assert_eq!(queue.counts().unconfirmed(), left);
        }
    }

    #[test]
    fn a_poisoned_handle_refuses_the_whole_call_until_it_is_left_out() {
        let mut queue = queue();
        queue.put(0, "{}");
        queue.put(0, "{}");
        let taken = queue.pull(0, 16, HandleStyle::Each);
        let (good, bad) = (handle_of(&taken[0]), handle_of(&taken[1]));
        queue.poison(&bad);
        let both = [good.clone(), bad.clone()];
        check_confirm(&mut queue, 1, &both, &[ConfirmVerdict::RefusedWithOthers, ConfirmVerdict::Poisoned]);
        check_confirm(&mut queue, 2, &[good], &[ConfirmVerdict::Confirmed]);
        check_confirm(&mut queue, 3, std::slice::from_ref(&bad), &[ConfirmVerdict::Poisoned]);
        queue.heal();
        check_confirm(&mut queue, 4, &[bad], &[ConfirmVerdict::Confirmed]);
    }

    #[test]
    fn confirming_twice_is_harmless_within_the_window_or_an_error_as_set() {
        for (refuse, expected) in [(false, ConfirmVerdict::Repeated), (true, ConfirmVerdict::Unknown)] {
            let mut queue = queue_with(|s| s.refuse_repeats = refuse);
            queue.put(0, "{}");
            let handle = [handle_of(&pull_one(&mut queue, 0))];
            check_confirm(&mut queue, 1, &handle, &[ConfirmVerdict::Confirmed]);
            check_confirm(&mut queue, 2, &handle, &[expected]);
            check_confirm(&mut queue, WINDOW, &handle, &[ConfirmVerdict::Late]);
        }
    }

    #[test]
    fn one_handle_for_a_whole_pull_confirms_the_whole_pull() {
        let mut queue = queue();
        for n in 0..3 {
            queue.put(0, format!(r#"{{"n":{n}}}"#));
        }
        let taken = queue.pull(0, 16, HandleStyle::OneForAll);
        assert!(taken.windows(2).all(|pair| pair[0].handle == pair[1].handle));
        let handle = handle_of(&taken[0]);
        let result = queue.confirm(1, &[handle.clone(), handle]);
        assert!(result.is_ok());
        assert_eq!(queue.counts().confirmed, 3);
        assert_eq!(queue.ledger().confirms[0].events, [EventNo(1), EventNo(2), EventNo(3)]);
    }

    #[test]
    fn an_event_without_a_handle_cannot_be_confirmed_and_comes_again() {
        let mut queue = queue();
        queue.put(0, r#"{"a":1}"#);
        let first = queue.pull(0, 16, HandleStyle::Missing).remove(0);
        assert_eq!((first.handle.clone(), first.to_json()), (None, r#"{"a":1}"#.to_owned()));
        assert!(pull_one(&mut queue, WINDOW).handle.is_some());
    }

    #[test]
    fn events_expire_after_the_retention_wherever_they_are() {
        let mut queue = queue_with(|s| s.retention_ms = 100_000);
        queue.put(0, "{}");
        queue.put(0, "{}");
        queue.put(50_000, "{}");
        let taken = queue.pull(99_000, 1, HandleStyle::Each);
        assert_eq!(taken[0].number, EventNo(1));
        let left = queue.pull(100_000, 16, HandleStyle::Each);
        assert_eq!(left.iter().map(|d| d.number.0).collect::<Vec<_>>(), [3]);
        assert_eq!((queue.counts().expired, queue.counts().unconfirmed()), (2, 1));
        check_confirm(&mut queue, 100_001, &[handle_of(&taken[0])], &[ConfirmVerdict::Unknown]);
    }

    #[test]
    fn the_handle_goes_in_first_and_nothing_else_moves() {
        let delivered = |body: &str| Delivered {
            number: EventNo(1),
            handle: Some("h1".into()),
            handle_as_number: false,
            body: body.into(),
            delivery: 1,
        };
        let cases = [
            (r#"{"a": 1.0,"b":"\/{"}"#, r#"{"EventHandle":"h1","a": 1.0,"b":"\/{"}"#),
            ("{}", r#"{"EventHandle":"h1"}"#),
            (" { } ", r#" {"EventHandle":"h1" } "#),
            ("null", "null"),
        ];
        for (body, expected) in cases {
            assert_eq!(delivered(body).to_json(), expected);
        }
        let number =
            Delivered { handle: Some("123".into()), handle_as_number: true, ..delivered(r#"{"a":1}"#) };
        assert_eq!(number.to_json(), r#"{"EventHandle":123,"a":1}"#);
    }

    #[test]
    fn the_ledger_is_bounded_and_keeps_what_is_under_way() {
        let mut queue = queue_with(|s| s.remember = 4);
        for n in 0..20 {
            queue.put(n, format!(r#"{{"n":{n}}}"#));
        }
        let taken = queue.pull(100, 16, HandleStyle::Each);
        let handles: Vec<String> = taken.iter().map(handle_of).collect();
        assert!(queue.confirm(101, &handles).is_ok());
        assert_eq!(queue.ledger().events.len(), 4);
        assert_eq!(queue.by_handle.len(), 0);
        let rest = queue.pull(102, 16, HandleStyle::Each);
        assert_eq!(rest.iter().map(|d| d.number.0).collect::<Vec<_>>(), [17, 18, 19, 20]);
        assert_eq!(queue.put(103, "{}"), EventNo(21));
        check_confirm(&mut queue, 104, &[handles[0].clone()], &[ConfirmVerdict::Unknown]);
    }

    #[test]
    fn equal_seeds_give_equal_handles_and_other_queues_give_others() {
        let handles = |sub_app_id: u64, seed: u64| -> Vec<Option<Arc<str>>> {
            let mut queue = Queue::new(sub_app_id, seed, QueueSettings::default());
            for _ in 0..16 {
                queue.put(0, "{}");
            }
            queue.pull(0, 16, HandleStyle::Each).into_iter().map(|d| d.handle).collect()
        };
        assert_eq!(handles(0, 1), handles(0, 1));
        assert_ne!(handles(0, 1), handles(1, 1));
        assert_ne!(handles(0, 1), handles(0, 2));
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        #[derive(Clone, Debug)]
        enum Op {
            Put,
            Pull {
                max: usize,
                style: HandleStyle,
            },
            /// Confirms random handles of all that were ever seen.
            Confirm(Vec<prop::sample::Index>),
            Redeliver(prop::sample::Index, Redelivery),
            Wait(u64),
        }

        fn op() -> impl Strategy<Value = Op> {
            use HandleStyle::{Each, Missing, Number, OneForAll};
            let style = prop::sample::select(vec![Each, Each, Each, OneForAll, Missing, Number]);
            let under = prop::sample::select(vec![Redelivery::NewHandle, Redelivery::SameHandle]);
            prop_oneof![
                3 => Just(Op::Put),
                3 => (0..20_usize, style).prop_map(|(max, style)| Op::Pull { max, style }),
                3 => prop::collection::vec(any::<prop::sample::Index>(), 1..5).prop_map(Op::Confirm),
                1 => (any::<prop::sample::Index>(), under).prop_map(|(which, under)| Op::Redeliver(which, under)),
                1 => (0..40_000_u64).prop_map(Op::Wait),
            ]
        }

        proptest! {
            #[test]
            fn nothing_is_lost_and_nothing_confirmed_late(ops in prop::collection::vec(op(), 1..80)) {
                let mut queue = queue_with(|s| s.retention_ms = 300_000);
                let (mut now, mut handles, mut delivered) = (0, vec!["nobody's".to_owned()], vec![EventNo(99)]);
                for op in ops {
                    match op {
                        Op::Put => {
                            queue.put(now, "{}");
                        }
                        Op::Pull { max, style } => {
                            for event in queue.pull(now, max, style) {
                                handles.extend(event.handle.as_deref().map(str::to_owned));
                                delivered.push(event.number);
                            }
                        }
                        Op::Confirm(which) => {
                            let chosen: Vec<&String> = which.iter().map(|index| index.get(&handles)).collect();
                            queue.confirm(now, &chosen);
                        }
                        Op::Redeliver(which, under) => {
                            queue.force_redeliver(*which.get(&delivered), under);
                        }
                        Op::Wait(ms) => now += ms,
                    }
                    let counts = queue.counts();
                    prop_assert_eq!(counts.put, counts.unconfirmed() + counts.confirmed + counts.expired);
                    prop_assert_eq!(counts.hidden, queue.hidden().count() as u64);
                }
                for event in &queue.ledger().events {
                    if let Some(at) = event.confirmed_at {
                        let last = event.deliveries.last().expect("nothing is confirmed undelivered");
                        prop_assert!(last.handle.is_some() && last.at <= at && at < last.until);
                    }
                }
                // The rest can still be pulled and confirmed.
                now += WINDOW;
                queue.advance(now);
                let mut left = queue.counts().unconfirmed();
                while left > 0 {
                    let taken = queue.pull(now, MAX_BATCH, HandleStyle::Each);
                    let handles: Vec<String> = taken.iter().map(handle_of).collect();
                    prop_assert!(queue.confirm(now, &handles).is_ok());
                    prop_assert!(queue.counts().unconfirmed() < left);
                    left = queue.counts().unconfirmed();
                }
            }
        }
    }
}
