//! The checkers. They see what an onlooker sees: what left the process and when, what the cloud and the broker got, what
//! the journal has committed. They ask the core nothing but its figures, and share no arithmetic with it.
//!
//! What cannot be said exactly, and why:
//!
//! - Equal events are counted, not told apart: whatever the relay does, the cloud's copies of one content have no names.
//! - When the cloud forgot an event and the journal did not learn of it before the lease's cutoff (the answer was lost or
//!   late, or the process died), an equal event that comes next looks like that one handed over again. No relay can tell.
//!   Each such *doubt* excuses one message that is missing for that content; a content that was put once is never excused.
//! - An event that the cloud hands out again while its handle is live, or after it said that it forgot it, under another
//!   handle, must be taken for another one that says the same. Each such *surprise* excuses one message too many.
//! - Equal events whose handles stay the same over redeliveries can be taken for each other while answers are lost, and be
//!   told apart later, so that there is a message too many. Their redeliveries excuse it; a content that was put once is
//!   never excused.
//! - A lease of another boot is judged by the wall clock. Where somebody set that, an equal event under a live lease may be taken
//!   for a redelivery, and a redelivery for another event; the journal marks the latter. In a copy of a journal, an equal event
//!   is another one, and is marked. Each mark excuses one message too many.
//! - Two relays do not know of each other: both may publish one event, and a relay that learns that the cloud is idle may
//!   take for settled what the other one holds. Of them is asked: nothing lost, and each relay names its own repeats.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tencent_vod_event::{EventHandle, Fingerprint, SubAppId};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::{DeliveryId, Doubt, EventId};
use vodrelay_core::machine::{Answer, ConfirmAfter, ConfirmId, Load};
use vodrelay_core::outcome::{Problem, PublishOutcome};
use vodrelay_core::outgoing::Outgoing;

use super::journal::{Delivery, Journal, Row};
use super::plan::{Plan, Theme};
pub use pace::Api;

mod leases;
mod pace;
mod released;
mod restored;
mod routing;
mod tries;

/// Events among others that break the connection wait so long for their confirm at the most, and so much longer for each of
/// these.
const AROUND_A_BREAK_MS: u64 = 20_000;
const ANOTHER_BREAK_MS: u64 = 4_000;

/// What is promised, and what is asked besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    /// G1: nothing is lost, and nothing is confirmed without proof.
    NothingLost,
    /// G2: no confirm after its lease.
    NeverLate,
    /// G3: no repeat without a reason, and the journal names each.
    RepeatsNamed,
    /// G4: different events are never taken for one, nor one for two.
    NothingMerged,
    /// G5: the cloud's bytes.
    NothingAltered,
    /// G6: nobody waits for another.
    NobodyWaits,
    /// G7: everything is bounded.
    Bounded,
    /// G8: committed before its consequence leaves.
    CommittedFirst,
    /// Without faults everything comes to its end, and a drain does.
    ComesToAnEnd,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingLost => "G1 nothing lost",
            Self::NeverLate => "G2 never late",
            Self::RepeatsNamed => "G3 repeats named",
            Self::NothingMerged => "G4 nothing merged",
            Self::NothingAltered => "G5 nothing altered",
            Self::NobodyWaits => "G6 nobody waits",
            Self::Bounded => "G7 bounded",
            Self::CommittedFirst => "G8 committed first",
            Self::ComesToAnEnd => "comes to an end",
        })
    }
}

/// What was seen that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which promise is broken.
    pub guarantee: Guarantee,
    /// When, in virtual milliseconds.
    pub at: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms: {}", self.guarantee, self.at, self.what)
    }
}

/// One thing that events can say, in one sub-application.
#[derive(Debug, Default)]
struct Content {
    put: usize,
    /// Events that the cloud forgot by a confirm.
    forgotten: usize,
    /// Rows of all relays whose event is safe.
    safe: usize,
    /// Rows of all relays that the broker has or that are parked.
    placed: usize,
    surprises: usize,
    /// Latency that it was under a live lease when its relay's host booted: a wall clock that is wrong may call it lapsed.
    live_at_a_boot: usize,
    /// Latency that the cloud handed one of them out again under the handle that it had.
    same_again: usize,
    /// Events that came after a copy that was restored: each may be published again.
    again_after_copy: usize,
    /// Those of them that only the journal had.
    lost_with_journal: usize,
    /// Confirms that a journal does not know any more, where equal events can be mistaken for each other.
    unlearnt: usize,
    /// Whether no object stands there for a handle to be put into.
    bare: bool,
    /// Whether it belongs to no queue, or the broker refuses it, or it breaks the connection.
    bad: bool,
    /// Whether the broker refuses it.
    refused: bool,
    /// Whether it breaks the connection.
    breaks: bool,
}

/// What an event is by its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nature {
    /// No object stands there for a handle to be put into.
    pub bare: bool,
    /// It belongs to no queue, or the broker refuses it, or it breaks the connection.
    pub bad: bool,
    /// The broker refuses it.
    pub refused: bool,
    /// It breaks the connection.
    pub breaks: bool,
}

/// One row of one relay: one message id.
#[derive(Debug)]
struct Message {
    content: usize,
    /// Copies that the broker has.
    copies: usize,
    /// Publishes that left the process.
    left: usize,
    /// Those of them whose outcome nobody learnt for certain.
    excused: usize,
    /// Those without an outcome.
    in_flight: usize,
    /// Acked, and not yet committed as published.
    acked: usize,
    safe: bool,
    placed: bool,
    failed_at: Option<u64>,
    tries: tries::Tries,
    /// Whether it was lost when an older copy of the journal was restored.
    gone: bool,
    /// Whether it was released when all was at rest.
    released_at_end: bool,
    /// Whether a publish was nacked or had no answer, so that a repeat may be a duplicate.
    doubted: bool,
}

impl Message {
    fn new(content: usize) -> Self {
        Self {
            content,
            copies: 0,
            left: 0,
            excused: 0,
            in_flight: 0,
            acked: 0,
            safe: false,
            placed: false,
            failed_at: None,
            tries: tries::Tries::default(),
            gone: false,
            released_at_end: false,
            doubted: false,
        }
    }
}

/// A publish that leaves.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Which event.
    pub event: EventId,
    /// What is published.
    pub outgoing: &'a Outgoing,
    /// Whether it has a batch of its own.
    pub alone: bool,
    /// Publishes that are under way.
    pub others: usize,
}

/// An event that the cloud forgot and of which the journal has not learnt.
#[derive(Debug)]
struct Pending {
    content: usize,
    cutoff: u64,
}

/// How an event is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOut {
    /// For the first time, or again when its window is over.
    Usual,
    /// Again, under the handle that it had.
    SameHandle,
    /// Again, and the relay cannot know that it is an event that it has.
    Surprise,
}

/// How a pull ended, for the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// It brought events.
    Brought,
    /// It brought none.
    Idle,
    /// The cloud throttled it.
    Throttled,
    /// It failed otherwise.
    Failed,
}

type Key = (usize, EventId);
type HandleKey = (usize, SubAppId, EventHandle);

/// When an answer arrived, and its request id.
type Pulled = (WallTime, Arc<str>);

/// All that was seen.
#[derive(Debug)]
pub struct Checker {
    plan: Plan,
    now: u64,
    contents: Vec<Content>,
    bodies: HashMap<(SubAppId, Arc<[u8]>), usize>,
    messages: BTreeMap<Key, Message>,
    ids: HashMap<(usize, Fingerprint, u32), EventId>,
    /// When the pulls left that handed a handle to a relay.
    seen: HashMap<HandleKey, Vec<u64>>,
    pending: HashMap<HandleKey, Vec<Pending>>,
    paces: Vec<pace::Pace>,
    /// How the deliveries under a handle stand together in a relay's hands.
    joined: HashMap<HandleKey, Vec<leases::Joined>>,
    in_requests: HashMap<(usize, ConfirmId), Vec<HandleKey>>,
    /// What each relay was told to poll, and on which proof it confirms.
    polled: Vec<Vec<SubAppId>>,
    confirm_after: Vec<ConfirmAfter>,
    /// What each relay's process learnt of the queues behind the exchange.
    routings: Vec<routing::Routing>,
    /// When the answers arrived that brought an event, and their ids.
    pulled: HashMap<(usize, Fingerprint), Vec<Pulled>>,
    /// Relays whose wall clock was set, and relays whose journal was copied.
    wall_wrong: BTreeSet<usize>,
    copied: BTreeSet<usize>,
    /// What was seen first that must not be.
    pub violation: Option<Violation>,
    /// Repeats at the broker, each of them explained.
    pub repeats: usize,
}

impl Checker {
    /// Nothing was seen yet.
    pub fn new(plan: Plan) -> Self {
        let relays = plan.relays;
        let paces = (0..relays).map(|_| pace::Pace::default()).collect();
        let polled = vec![plan.sub_apps.clone(); plan.relays];
        let confirm_after = vec![plan.confirm_after; plan.relays];
        Self {
            plan,
            now: 0,
            contents: Vec::new(),
            bodies: HashMap::new(),
            messages: BTreeMap::new(),
            ids: HashMap::new(),
            seen: HashMap::new(),
            pending: HashMap::new(),
            paces,
            joined: HashMap::new(),
            in_requests: HashMap::new(),
            polled,
            confirm_after,
            routings: (0..relays).map(|_| routing::Routing::default()).collect(),
            pulled: HashMap::new(),
            wall_wrong: BTreeSet::new(),
            copied: BTreeSet::new(),
            violation: None,
            repeats: 0,
        }
    }

    /// The virtual time of what is seen from now on.
    pub fn at(&mut self, now: u64) {
        self.now = now;
    }

    fn violated(&mut self, guarantee: Guarantee, what: impl Into<String>) {
        let at = self.now;
        self.violation.get_or_insert_with(|| Violation { guarantee, at, what: what.into() });
    }

    fn usable_ms(&self) -> u64 {
        millis(self.plan.window.length) - millis(self.plan.window.margin)
    }

    // --- the cloud ---

    /// A new content is known.
    pub fn content(&mut self, nature: Nature) -> usize {
        let Nature { bare, bad, refused, breaks } = nature;
        self.contents.push(Content { bare, bad, refused, breaks, ..Content::default() });
        self.contents.len() - 1
    }

    /// An event was put into the queue.
    pub fn put(&mut self, content: usize) {
        self.contents[content].put += 1;
    }

    /// The cloud handed these bytes out.
    pub fn handed_out(&mut self, sub_app: SubAppId, content: usize, body: &[u8], how: HandedOut) {
        self.bodies.insert((sub_app, body.into()), content);
        let content = &mut self.contents[content];
        match how {
            HandedOut::Usual => {}
            HandedOut::SameHandle => content.same_again += 1,
            HandedOut::Surprise => content.surprises += 1,
        }
    }

    /// A `ConfirmEvents` arrived, and deleted events of these contents.
    pub fn confirm_arrived(
        &mut self,
        relay: usize,
        sub_app: SubAppId,
        handles: &[EventHandle],
        deleted: &[(EventHandle, usize)],
    ) {
        let distinct: HashSet<_> = handles.iter().collect();
        if distinct.len() < handles.len() || handles.len() > 16 || handles.is_empty() {
            self.violated(
                Guarantee::Bounded,
                format!("a request with {} handles, {} different", handles.len(), distinct.len()),
            );
        }
        for (handle, content) in deleted {
            let key = (relay, sub_app, handle.clone());
            let sent_at = self.seen.get(&key).and_then(|seen| seen.iter().max().copied());
            // A handle that the relay was never given: its confirm has been reported when it left.
            let cutoff = sent_at.unwrap_or(0) + self.usable_ms();
            self.pending.entry(key).or_default().push(Pending { content: *content, cutoff });
            self.contents[*content].forgotten += 1;
            let doubts = self.doubts(*content);
            let Content { forgotten, safe, .. } = self.contents[*content];
            if forgotten > safe + doubts {
                self.violated(
                    Guarantee::NothingLost,
                    format!(
                        "the cloud forgot {forgotten} events of content {content} by handle {handle}, and {safe} are safe"
                    ),
                );
            }
        }
    }

    /// Events that the cloud forgot and the journal did not learn of in time.
    fn doubts(&self, content: usize) -> usize {
        let pending = self.pending.values().flatten();
        let doubts = pending.filter(|p| p.content == content && p.cutoff <= self.now).count();
        let unlearnt = self.contents[content].unlearnt;
        doubts + unlearnt + if self.wall_wrong.is_empty() { 0 } else { self.contents[content].live_at_a_boot }
    }

    /// Somebody set the wall clock of a relay's host.
    pub fn wall_is_wrong(&mut self, relay: usize) {
        self.wall_wrong.insert(relay);
    }

    /// A relay's journal is opened in another boot.
    pub fn rebooted(&mut self, relay: usize, journal: &Journal) {
        for (at, row) in journal.rows.iter().enumerate() {
            let newest = row.deliveries.last().map(|at| &journal.deliveries[*at]);
            let live = newest.is_some_and(|delivery| delivery.lease.cutoff > Moment(self.now));
            let id = EventId(i64::try_from(at).expect("few rows") + 1);
            if let Some(message) = self.messages.get(&(relay, id)).filter(|_| live && !row.confirmed) {
                self.contents[message.content].live_at_a_boot += 1;
            }
        }
    }

    /// A relay's journal is opened as a copy.
    pub fn copied(&mut self, relay: usize) {
        self.copied.insert(relay);
    }

    /// The latest of the leases of these handles.
    pub fn latest_deadline(&self, relay: usize, sub_app: SubAppId, handles: &[EventHandle]) -> Moment {
        let usable = self.usable_ms();
        let sent_at = |handle: &EventHandle| {
            self.seen.get(&(relay, sub_app, handle.clone())).and_then(|seen| seen.iter().max().copied())
        };
        Moment(handles.iter().filter_map(sent_at).max().unwrap_or(0) + usable)
    }

    // --- what leaves a relay, and what comes back ---

    /// The relay learnt its configuration.
    pub fn configured(&mut self, relay: usize, polled: &[SubAppId], confirm_after: ConfirmAfter) {
        self.polled[relay] = polled.to_vec();
        self.confirm_after[relay] = confirm_after;
    }

    /// The relay asks for a pull.
    pub fn pull_asked(&mut self, relay: usize, sub_app: SubAppId) {
        if !self.polled[relay].contains(&sub_app) {
            let what = format!("relay {relay} polls {sub_app}, which is not in its configuration");
            self.violated(Guarantee::Bounded, what);
        }
        self.polls(relay, sub_app);
        let not_before = self.paces[relay].pull_not_before.get(&sub_app).copied().unwrap_or(0);
        if self.now < not_before {
            self.violated(
                Guarantee::Bounded,
                format!("a pull of {sub_app} before {not_before} ms, after one that brought nothing"),
            );
        }
        self.sent(relay, Api::Pull);
    }

    /// The relay learnt how a pull ended.
    pub fn pull_ended(&mut self, relay: usize, sub_app: SubAppId, sent_at: u64, end: PullEnd) {
        self.routings[relay].poll_ended(sub_app, self.now);
        let not_before = match end {
            PullEnd::Brought => 0,
            PullEnd::Throttled => {
                self.routings[relay].poll_throttled(sub_app);
                return self.throttled(relay, Api::Pull);
            }
            PullEnd::Idle => sent_at + 200,
            PullEnd::Failed => self.now + 200,
        };
        self.paces[relay].pull_not_before.insert(sub_app, not_before);
    }

    /// The relay received an answer with events.
    pub fn answer_received(
        &mut self,
        relay: usize,
        sub_app: SubAppId,
        sent_at: u64,
        wall: WallTime,
        answer: &Answer,
    ) {
        for event in &answer.events {
            let pulled = self.pulled.entry((relay, event.fingerprint)).or_default();
            pulled.push((wall, answer.request_id.clone()));
            if let Some(handle) = &event.handle {
                let key = (relay, sub_app, handle.clone());
                self.seen.entry(key).or_default().push(sent_at);
            }
        }
    }

    /// A publish left the process.
    pub fn publish_left(&mut self, relay: usize, publish: &Publish<'_>, journal: &Journal) {
        let Publish { event, outgoing, alone, others } = *publish;
        let fingerprint = outgoing.event.fingerprint;
        let Some(row) = journal.row(event) else {
            let what = format!("event {} of relay {relay} is published and not journalled", event.0);
            return self.violated(Guarantee::CommittedFirst, what);
        };
        let (attempts, confirmed_as_published) = (row.attempts as usize, row.published);
        let row_is_it = row.event.fingerprint == fingerprint && row.occurrence == outgoing.occurrence;
        let other = *self.ids.entry((relay, fingerprint, outgoing.occurrence)).or_insert(event);
        if other != event || !row_is_it {
            let what = format!("events {} and {} of relay {relay} have one message id", other.0, event.0);
            return self.violated(Guarantee::NothingMerged, what);
        }
        let body: Arc<[u8]> = outgoing.event.body.as_ref().into();
        let Some(content) = self.bodies.get(&(outgoing.event.sub_app, body)).copied() else {
            let what =
                format!("event {} of relay {relay} is published in bytes that the cloud never sent", event.0);
            return self.violated(Guarantee::NothingAltered, what);
        };
        let brought_it = |(at, id): &Pulled| (at, id) == (&outgoing.pulled_at, &outgoing.request_id);
        if !self.pulled.get(&(relay, fingerprint)).is_some_and(|all| all.iter().any(brought_it)) {
            let what = format!(
                "event {} of relay {relay} says that {} brought it at {}, which is not so",
                event.0, outgoing.request_id, outgoing.pulled_at.0
            );
            return self.violated(Guarantee::NothingAltered, what);
        }
        self.tried(relay, event, alone, others);
        let now = self.now;
        let message = self.messages.entry((relay, event)).or_insert(Message::new(content));
        message.left += 1;
        message.in_flight += 1;
        let (left, failed_at, known_as) = (message.left, message.failed_at, message.content);
        if known_as != content {
            self.violated(
                Guarantee::NothingMerged,
                format!("event {} of relay {relay} has two contents", event.0),
            );
        }
        if failed_at.is_some_and(|at| now < at + 200) {
            let what = format!("event {} of relay {relay} is published again without a wait", event.0);
            self.violated(Guarantee::Bounded, what);
        }
        if confirmed_as_published {
            let what =
                format!("event {} of relay {relay} is published again after its ack is on record", event.0);
            self.violated(Guarantee::RepeatsNamed, what);
        }
        if left > attempts {
            let what = format!("publish {left} of event {} of relay {relay}, {attempts} on record", event.0);
            self.violated(Guarantee::CommittedFirst, what);
        }
        let of = |at: &usize| &journal.deliveries[*at];
        let it =
            |at: &usize| (of(at).pulled_at, &of(at).request_id) == (outgoing.pulled_at, &outgoing.request_id);
        // One answer can bring an event twice.
        let mut nths = row.deliveries.iter().enumerate().filter(|(_, at)| it(at)).map(|(nth, _)| nth);
        if !nths.any(|nth| (nth > 0) == outgoing.redelivered) {
            let what = format!(
                "event {} of relay {relay} says of {}: handed over before {}, which is not so",
                event.0, outgoing.request_id, outgoing.redelivered
            );
            self.violated(Guarantee::NothingAltered, what);
        }
    }

    /// The relay learnt how a publish ended. `left` is false when it never left the process.
    pub fn publish_answered(&mut self, relay: usize, event: EventId, outcome: &PublishOutcome, left: bool) {
        let now = self.now;
        let Some(message) = self.messages.get_mut(&(relay, event)) else { return };
        message.in_flight -= usize::from(left);
        message.failed_at = None;
        message.tries.answered(now, outcome);
        match outcome {
            PublishOutcome::Acked => message.acked += 1,
            // No answer, or no responsibility: it may be in some queue.
            PublishOutcome::Unknown { .. } | PublishOutcome::Nacked => {
                message.excused += 1;
                message.doubted = true;
                message.failed_at = Some(now);
            }
            _ => message.failed_at = Some(now),
        }
    }

    /// The broker stored a copy.
    pub fn stored(&mut self, relay: usize, event: EventId, journal: &Journal) {
        let Some(message) = self.messages.get_mut(&(relay, event)) else { return };
        message.copies += 1;
        let Message { copies, excused, left, gone, .. } = *message;
        self.repeats += usize::from(copies > 1);
        if copies > 1 && copies > 1 + excused {
            let what = format!("copy {copies} of event {} of relay {relay}, {excused} excused", event.0);
            self.violated(Guarantee::RepeatsNamed, what);
        }
        // A copy that left before an older journal was restored is one that no journal knows of.
        let known = left > 0 && !gone;
        if copies > 1 && known && !journal.row(event).is_some_and(|row| row.uncertain) {
            let what =
                format!("copy {copies} of event {} of relay {relay} is not marked in the journal", event.0);
            self.violated(Guarantee::RepeatsNamed, what);
        }
        self.place(relay, event);
    }

    fn place(&mut self, relay: usize, event: EventId) {
        self.make_safe(relay, event);
        let Some(message) = self.messages.get_mut(&(relay, event)) else { return };
        if !message.placed {
            message.placed = true;
            self.contents[message.content].placed += 1;
        }
    }

    fn make_safe(&mut self, relay: usize, event: EventId) {
        let Some(message) = self.messages.get_mut(&(relay, event)) else { return };
        if !message.safe {
            message.safe = true;
            self.contents[message.content].safe += 1;
        }
    }

    /// A confirm leaves the process.
    pub fn confirm_left(
        &mut self,
        relay: usize,
        sub_app: SubAppId,
        handles: &[EventHandle],
        journal: &Journal,
    ) {
        let usable = self.usable_ms();
        for handle in handles {
            let seen = self.seen.get(&(relay, sub_app, handle.clone()));
            let Some(cutoff) = seen.and_then(|seen| seen.iter().max()).map(|sent_at| sent_at + usable) else {
                let what = format!("relay {relay} confirms handle {handle}, which nobody gave it");
                self.violated(Guarantee::NothingLost, what);
                continue;
            };
            if self.now >= cutoff {
                let what =
                    format!("relay {relay} confirms handle {handle}, whose lease ended at {cutoff} ms");
                self.violated(Guarantee::NeverLate, what);
            }
            // The events of the newest answer with this handle, if nothing newer came for them: all of them need the proof.
            // When the handle came again, those that did not come with it are no longer behind it.
            let live = |delivery: &Delivery| delivery.lease.cutoff > Moment(self.now);
            let all = journal.deliveries.iter().enumerate().filter(|(at, delivery)| {
                let row = &journal.rows[delivery.row];
                delivery.handle.as_ref() == Some(handle)
                    && row.event.sub_app == sub_app
                    && live(delivery)
                    && !row.pruned
                    && row.deliveries.contains(at)
            });
            let with_it = all.map(|(_, delivery)| delivery);
            let sent_at = with_it.clone().map(|delivery| delivery.lease.sent_at).max();
            let under_it = with_it.filter(|delivery| Some(delivery.lease.sent_at) == sent_at);
            let nothing_under_it = under_it.clone().next().is_none();
            let newest = |row: usize| {
                let mut newest_first =
                    journal.rows[row].deliveries.iter().rev().map(|at| &journal.deliveries[*at]);
                newest_first
                    .find(|delivery| live(delivery))
                    .is_some_and(|d| d.handle.as_ref() == Some(handle))
            };
            let rows: BTreeSet<usize> =
                under_it.map(|delivery| delivery.row).filter(|row| newest(*row)).collect();
            let proven = |row: &usize| {
                let row = &journal.rows[*row];
                self.confirm_after[relay] == ConfirmAfter::Journal || row.published || row.parked
            };
            // All of its events may have come again under other handles.
            if nothing_under_it || !rows.iter().all(proven) {
                let shown: Vec<_> = rows.iter().map(|row| (row + 1, &journal.rows[*row])).collect();
                let what = format!(
                    "relay {relay} confirms handle {handle} before the journal has the proof: {shown:?}"
                );
                self.violated(Guarantee::CommittedFirst, what);
            }
        }
    }

    /// The relay asks for a confirm.
    pub fn confirm_asked(
        &mut self,
        relay: usize,
        sub_app: SubAppId,
        request: ConfirmId,
        handles: &[EventHandle],
        cutoff: Moment,
    ) {
        for handle in handles {
            let deadline = self.requested(relay, sub_app, handle, request);
            if cutoff > deadline {
                let what = format!(
                    "a confirm of relay {relay} may leave until {} ms, and the lease of {handle} ends at {} ms",
                    cutoff.0, deadline.0
                );
                self.violated(Guarantee::NeverLate, what);
            }
        }
        let not_before = self.paces[relay].confirm_not_before.get(&sub_app).copied().unwrap_or(0);
        if self.now < not_before {
            self.violated(
                Guarantee::Bounded,
                format!("a confirm of {sub_app} follows a failed one without a wait"),
            );
        }
        self.sent(relay, Api::Confirm);
    }

    /// The relay learnt that a confirm failed, and not because of its handles.
    pub fn confirm_failed(&mut self, relay: usize, sub_app: SubAppId) {
        self.paces[relay].confirm_not_before.insert(sub_app, self.now + 100);
        if self.paces[relay].proof_not_before.get(&sub_app) == Some(&u64::MAX) {
            self.paces[relay].proof_not_before.remove(&sub_app);
        }
    }

    // --- the journal ---

    /// The journal of a relay committed something.
    pub fn committed(&mut self, relay: usize, journal: &Journal, what: Committed<'_>) {
        match what {
            Committed::Recorded(events) => {
                for event in events {
                    let Some(row) = journal.row(*event) else { continue };
                    let body: Arc<[u8]> = row.event.body.as_ref().into();
                    let Some(content) = self.bodies.get(&(row.event.sub_app, body)).copied() else {
                        let what =
                            format!("event {} is journalled in bytes that the cloud never sent", event.0);
                        return self.violated(Guarantee::NothingAltered, what);
                    };
                    self.messages.entry((relay, *event)).or_insert(Message::new(content));
                    if self.confirm_after[relay] == ConfirmAfter::Journal {
                        self.make_safe(relay, *event);
                    }
                }
            }
            Committed::Published(events) => {
                for event in events {
                    if let Some(message) = self.messages.get_mut(&(relay, *event)) {
                        message.acked = 0;
                    }
                }
            }
            Committed::Parked(events) => {
                for (event, problem) in events {
                    self.given_up(relay, *event, problem.error_code);
                    self.place(relay, *event);
                }
            }
            Committed::Confirmed(deliveries) => {
                for id in deliveries {
                    let delivery = &journal.deliveries[usize::try_from(id.0 - 1).expect("ids begin with 1")];
                    let Some(handle) = delivery.handle.clone() else { continue };
                    let sub_app = journal.rows[delivery.row].event.sub_app;
                    if let Some(pending) = self.pending.get_mut(&(relay, sub_app, handle)) {
                        pending.retain(|p| self.now >= p.cutoff);
                    }
                }
            }
        }
    }

    // --- the process ---

    /// A process died, or ended: publishes without a committed outcome are excused.
    pub fn ended(&mut self, relay: usize) {
        for ((_, _), message) in self.messages.iter_mut().filter(|((of, _), _)| *of == relay) {
            message.excused += message.in_flight + message.acked;
            message.in_flight = 0;
            message.acked = 0;
            message.failed_at = None;
            message.tries = tries::Tries::default();
        }
        self.holds_nothing(relay);
        // What the cloud forgot and the journal has not committed is in doubt from here on: the newest answer under the handle
        // may have died as well, so that the journal's lease ends earlier than the one that was seen.
        let its = self.pending.iter_mut().filter(|((of, _, _), _)| *of == relay);
        for pending in its.flat_map(|(_, pending)| pending) {
            pending.cutoff = pending.cutoff.min(self.now);
        }
        self.paces[relay] = pace::Pace::default();
        self.routings[relay] = routing::Routing::default();
    }

    /// A step of a core ended.
    pub fn stepped(&mut self, relay: usize, load: &Load, only_a_tick: bool, next_wake: Option<Moment>) {
        self.turned(relay, load.unroutable_since.is_some());
        // Events that the broker returns or refuses for minutes must not take the room of the others.
        let besides = (self.plan.max_in_flight / 4).max(16);
        let bound = self.plan.max_in_flight + 16 * self.plan.sub_apps.len() + besides;
        if load.events > bound {
            let what = format!("relay {relay} holds {} events, {bound} allowed", load.events);
            self.violated(Guarantee::Bounded, what);
        }
        if load.publishing > 256 {
            self.violated(
                Guarantee::Bounded,
                format!("relay {relay} has {} publishes in flight", load.publishing),
            );
        }
        let now = self.now;
        let pace = &mut self.paces[relay];
        if only_a_tick && next_wake.is_some_and(|wake| wake.0 <= now) {
            pace.ticks = if pace.last_tick == now { pace.ticks + 1 } else { 1 };
            pace.last_tick = now;
            if pace.ticks > 3 {
                self.violated(Guarantee::Bounded, format!("relay {relay} asks to be woken over and over"));
            }
        }
    }

    /// A drain is over; `unanswered` requests and publishes are under way all the same.
    pub fn drained(&mut self, relay: usize, unanswered: usize) {
        if unanswered > 0 {
            let what =
                format!("the drain of relay {relay} is over, and {unanswered} requests or publishes are not");
            self.violated(Guarantee::ComesToAnEnd, what);
        }
    }

    // --- the end ---

    /// A content that no broker and no journal has, if there is one.
    pub fn nowhere(&self) -> Option<usize> {
        self.contents.iter().position(|content| content.placed + content.lost_with_journal == 0)
    }

    /// All that is said at the end, when everything has come to rest.
    pub fn at_the_end(&mut self, journals: &[&Journal]) {
        for at in 0..self.contents.len() {
            let Content { put, forgotten, placed, surprises, same_again, bare, .. } = self.contents[at];
            let Content { again_after_copy, lost_with_journal, .. } = self.contents[at];
            let doubts = self.doubts(at) + lost_with_journal;
            let mixed_up = if put > 1 { same_again } else { 0 };
            if forgotten < put && !bare {
                let what = format!("the cloud still has {} events of content {at}", put - forgotten);
                self.violated(Guarantee::ComesToAnEnd, what);
            }
            if placed + lost_with_journal == 0 {
                self.violated(Guarantee::NothingLost, format!("content {at} was put and is nowhere"));
            }
            if placed + doubts < put {
                let what = format!(
                    "content {at} was put {put} times, and {placed} messages have it; {doubts} doubts"
                );
                self.violated(Guarantee::NothingMerged, what);
            }
            let doubtful = self.doubtful(at, journals);
            if placed > put + surprises + mixed_up + doubtful + again_after_copy && self.plan.relays == 1 {
                let what = format!(
                    "content {at} was put {put} times, and {placed} messages have it; {surprises} surprises"
                );
                self.violated(Guarantee::NothingMerged, what);
            }
        }
        for (relay, journal) in journals.iter().enumerate() {
            for (at, row) in journal.rows.iter().enumerate().filter(|(_, row)| !row.pruned) {
                let id = EventId(i64::try_from(at).expect("few rows") + 1);
                self.released_well(relay, id, row);
                let message = &self.messages[&(relay, id)];
                let Content { bare, breaks, .. } = self.contents[message.content];
                let (copies, left) = (message.copies, message.left);
                // Events that nothing can confirm come again and again, so that no answer need ever be idle and settle
                // what was left in doubt.
                let never_idle = self.plan.bare_per_mille > 0;
                if !(row.published || row.parked) || !(row.confirmed || bare || never_idle) {
                    let what = format!("the journal of relay {relay} has event {} under way: {row:?}", id.0);
                    self.violated(Guarantee::ComesToAnEnd, what);
                }
                if breaks && !(row.parked && row.parked_for == Some(ErrorCode::PublishUnanswered)) {
                    let what = format!(
                        "event {} of relay {relay} breaks the connection, and is parked for {:?}",
                        id.0, row.parked_for
                    );
                    self.violated(Guarantee::NothingLost, what);
                }
                if row.published && copies == 0 {
                    let what = format!("event {} of relay {relay} is said to be published and is not", id.0);
                    self.violated(Guarantee::NothingLost, what);
                }
                if self.plan.theme == Theme::Calm && (copies, left) != (1, 1) {
                    let what =
                        format!("event {} has {copies} copies of {left} publishes in a calm run", id.0);
                    self.violated(Guarantee::RepeatsNamed, what);
                }
            }
        }
    }

    /// Rows of this content that the journal marks because a clock or a copy left it in doubt, where there was one.
    fn doubtful(&self, content: usize, journals: &[&Journal]) -> usize {
        let rows = journals.iter().enumerate().flat_map(|(relay, journal)| {
            journal.rows.iter().enumerate().map(move |(at, row)| (relay, at, row))
        });
        let excused = |(relay, at, row): &(usize, usize, &Row)| {
            let id = EventId(i64::try_from(*at).expect("few rows") + 1);
            let is_it = self.messages.get(&(*relay, id)).is_some_and(|message| message.content == content);
            is_it
                && row.uncertain
                && match row.doubt {
                    Some(Doubt::OtherBoot) => self.wall_wrong.contains(relay),
                    // What a copy holds can be settled before the cloud hands it over again.
                    Some(Doubt::Copy | Doubt::Settled) => self.copied.contains(relay),
                    None => false,
                }
        };
        rows.filter(excused).count()
    }

    /// G6, where nothing but bad events and bad handles goes wrong: how long the cloud waited for the confirm of a good
    /// event, if it got one.
    pub fn neighbour(&mut self, content: usize, handle_is_bad: bool, deliveries: usize, waited: Option<u64>) {
        let theme = self.plan.theme;
        if matches!(theme, Theme::Swarm | Theme::Unbound) || handle_is_bad || self.contents[content].bad {
            return;
        }
        let window = millis(self.plan.window.length);
        let breaks = self.contents.iter().filter(|content| content.breaks).count();
        if breaks > 0 {
            let bound = AROUND_A_BREAK_MS + ANOTHER_BREAK_MS * breaks as u64;
            if waited.is_none_or(|ms| ms > bound) {
                let what = format!(
                    "content {content} is good, and took {waited:?} ms beside {breaks} that break the connection"
                );
                self.violated(Guarantee::NobodyWaits, what);
            }
            return;
        }
        if deliveries != 1 || waited.is_none_or(|ms| ms >= window) {
            let what =
                format!("content {content} is good, and took {deliveries} deliveries and {waited:?} ms");
            self.violated(Guarantee::NobodyWaits, what);
        }
    }

    /// Whether an event that breaks the connection was put and is nowhere yet.
    pub fn breaks_waiting(&self) -> bool {
        self.contents.iter().any(|content| content.breaks && content.placed + content.lost_with_journal == 0)
    }

    /// Something did not come to its end in time.
    pub fn never_ended(&mut self, what: String) {
        self.violated(Guarantee::ComesToAnEnd, what);
    }
}

/// What a commit was about.
#[derive(Clone, Copy, Debug)]
pub enum Committed<'a> {
    /// Deliveries of these events.
    Recorded(&'a [EventId]),
    /// Acks.
    Published(&'a [EventId]),
    /// Given up.
    Parked(&'a [(EventId, Problem)]),
    /// The cloud's yes.
    Confirmed(&'a [DeliveryId]),
}

/// In the unit of virtual time.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("short")
}
