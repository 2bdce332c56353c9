//! The journal as a model: the same judgements and the same updates as the SQL of `src/journal/store.rs`, in memory.
//!
//! What is here is committed. Work that waits for its commit is in the process that asked for it, and dies with it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tencent_vod_event::{Event, EventHandle, Fingerprint, SubAppId};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::{
    DeliveryId, Doubt, EventId, Known, KnownLease, Progress, Recorded, Verdict, classify,
};
use vodrelay_core::lease::{Clocks, KeptLease, Lease, Standing};
use vodrelay_core::outcome::Problem;
use vodrelay_core::outgoing::Outgoing;
use vodrelay_core::write::{FailedAttempt, Loaded, Pulled};

use super::sabotage::Sabotage;

/// As in the journal: the newest occurrences and deliveries that a judgement looks at.
const NEWEST_OCCURRENCES: usize = 16;
const NEWEST_DELIVERIES: usize = 64;

/// One occurrence of one fingerprint.
#[derive(Clone, Debug)]
pub struct Row {
    /// The content, as its first delivery brought it.
    pub event: Arc<Event>,
    /// Which occurrence.
    pub occurrence: u32,
    /// Whether the broker's ack is committed.
    pub published: bool,
    /// Whether it was given up.
    pub parked: bool,
    /// Why it was given up last.
    pub parked_for: Option<ErrorCode>,
    /// Whether the cloud is known to have forgotten it.
    pub confirmed: bool,
    /// Since when.
    pub confirmed_at: Option<WallTime>,
    /// Whether its row is gone.
    pub pruned: bool,
    /// Why it may be an event that was published before.
    pub doubt: Option<Doubt>,
    /// Publishes that may have left.
    pub attempts: u32,
    /// Further deliveries.
    pub redeliveries: u32,
    /// Whether the broker may have it without an ack.
    pub uncertain: bool,
    /// Its deliveries, by their index.
    pub deliveries: Vec<usize>,
}

/// One delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its event, by its index.
    pub row: usize,
    /// Its handle.
    pub handle: Option<EventHandle>,
    /// Its lease.
    pub lease: Lease,
    /// When it arrived.
    pub received_at: Moment,
    /// The same on the clock of its boot, and on the wall.
    kept: KeptLease,
    boot: u64,
    pub pulled_at: WallTime,
    /// The cloud's id of the request that brought it.
    pub request_id: Arc<str>,
    /// Whether it has an outcome, and whether that is final.
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Confirmed,
    Refused,
    Lost,
    Settled,
}

/// What is committed.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Events; the id of one is its index and one more.
    pub rows: Vec<Row>,
    /// Deliveries; the id of one is its index and one more.
    pub deliveries: Vec<Delivery>,
    by_fingerprint: HashMap<Fingerprint, Vec<usize>>,
    sabotage: Option<Sabotage>,
    /// What the process that has it open knows of its boot.
    boot: Boot,
    /// How many events and deliveries came with the newest copy.
    copied: (usize, usize),
    /// The sub-applications that the process does not poll, for a deliberate bug.
    pub unwanted: Vec<SubAppId>,
    /// Events that are not handed out any more, for a deliberate bug.
    pub forgotten: HashSet<EventId>,
    /// Events that were released, for the same.
    released: HashSet<EventId>,
}

/// One boot of a host, and the process in it that opened the journal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boot {
    /// Which boot.
    pub number: u64,
    /// When its clock began.
    pub began: Moment,
    /// When the process opened the journal.
    pub opened: Moment,
}

impl Boot {
    /// A moment as the clock of this boot has it.
    fn clock(&self, at: Moment) -> Moment {
        Moment(at.0.saturating_sub(self.began.0))
    }
}

impl Journal {
    /// An empty one; with a deliberate bug in it, if that bug is the journal's.
    pub fn new(sabotage: Option<Sabotage>) -> Self {
        Self { sabotage, ..Self::default() }
    }

    /// The row of an event.
    pub fn row(&self, event: EventId) -> Option<&Row> {
        self.rows.get(usize::try_from(event.0 - 1).ok()?)
    }

    fn row_mut(&mut self, event: EventId) -> &mut Row {
        &mut self.rows[index(event.0)]
    }

    /// A new process opens it: what an earlier one may have published without learning of its ack is marked.
    pub fn reopen(&mut self, boot: Boot, is_copy: bool) {
        self.boot = boot;
        self.forgotten.clear();
        if is_copy && self.sabotage != Some(Sabotage::CopyNotNoticed) {
            self.copied = (self.rows.len(), self.deliveries.len());
        }
        if self.sabotage == Some(Sabotage::ReopenMarksNothing) {
            return;
        }
        for row in &mut self.rows {
            row.uncertain |= !row.parked && !row.published && row.attempts > 0;
        }
    }

    /// An older copy of the file takes its place. The numbers of what is lost are not used again here, so that an onlooker
    /// can tell it from what comes next.
    pub fn restore(&mut self, older: &Journal) {
        let now = std::mem::replace(self, older.clone());
        self.rows.extend(now.rows.into_iter().skip(older.rows.len()).map(|row| Row { pruned: true, ..row }));
        self.deliveries.extend(now.deliveries.into_iter().skip(older.deliveries.len()));
    }

    /// Judges and records the events of one answer.
    pub fn record(&mut self, pulled: &Pulled) -> Vec<Recorded> {
        let mut taken = HashSet::new();
        let events = pulled.events.clone();
        let mut all = Vec::with_capacity(events.len());
        for event in &events {
            let recorded = self.record_one(pulled, event, &taken);
            taken.insert(recorded.event);
            all.push(recorded);
        }
        all
    }

    fn record_one(&mut self, pulled: &Pulled, event: &Arc<Event>, taken: &HashSet<EventId>) -> Recorded {
        let all = self.by_fingerprint.get(&event.fingerprint).cloned().unwrap_or_default();
        let newest = all.len().saturating_sub(NEWEST_OCCURRENCES);
        let occurrences =
            all.iter().enumerate().filter(|(n, row)| *n >= newest || !self.rows[**row].confirmed);
        let known: Vec<(usize, Known)> = occurrences
            .map(|(_, at)| {
                let row = &self.rows[*at];
                let leases = row.deliveries.iter().rev().take(NEWEST_DELIVERIES).map(|d| {
                    let delivery = &self.deliveries[*d];
                    let standing = self.standing(delivery, pulled);
                    let confirmed = delivery.outcome == Some(Outcome::Confirmed);
                    KnownLease {
                        delivery: delivery_id(*d),
                        handle: delivery.handle.clone(),
                        standing,
                        confirmed,
                    }
                });
                let known = Known {
                    occurrence: row.occurrence,
                    confirmed: row.confirmed,
                    taken: taken.contains(&id(*at)),
                    of_a_copy: row.deliveries.last().is_some_and(|newest| *newest < self.copied.1),
                    leases: leases.collect(),
                };
                (*at, known)
            })
            .collect();
        let only_known: Vec<Known> = known.iter().map(|(_, known)| known.clone()).collect();
        let verdict = self.judge(&only_known, event, pulled.lease.lapsed(pulled.received_at));
        let again = match verdict {
            Verdict::New { .. } => None,
            Verdict::Redelivery { occurrence } => {
                known.iter().find(|(_, known)| known.occurrence == occurrence).map(|(at, _)| *at)
            }
        };
        let again = self.by_handle_alone(event).or(again);
        if let Some(at) = again {
            let delivery = self.insert_delivery(pulled, event, at);
            let row = &mut self.rows[at];
            row.redeliveries += 1;
            let progress =
                Progress { published: row.published, parked: row.parked, confirmed: row.confirmed };
            return Recorded {
                event: id(at),
                delivery,
                occurrence: row.occurrence,
                redelivered: true,
                progress,
            };
        }
        let (Verdict::New { occurrence, .. } | Verdict::Redelivery { occurrence }) = verdict;
        let doubt = if let Verdict::New { doubt, .. } = verdict { doubt } else { None };
        let attempts = u32::from(pulled.publish_now);
        let at = self.rows.len();
        self.rows.push(Row {
            event: event.clone(),
            occurrence,
            published: false,
            parked: false,
            parked_for: None,
            confirmed: false,
            confirmed_at: None,
            pruned: false,
            doubt,
            attempts,
            redeliveries: 0,
            uncertain: doubt.is_some(),
            deliveries: Vec::new(),
        });
        self.by_fingerprint.entry(event.fingerprint).or_default().push(at);
        let delivery = self.insert_delivery(pulled, event, at);
        Recorded { event: id(at), delivery, occurrence, redelivered: false, progress: Progress::default() }
    }

    fn standing(&self, delivery: &Delivery, pulled: &Pulled) -> Standing {
        let (boot, now) = (&self.boot, pulled.received_at);
        let mut kept = delivery.kept;
        kept.this_boot = delivery.boot == boot.number || self.sabotage == Some(Sabotage::BootIgnored);
        if self.sabotage == Some(Sabotage::WallBelieved) && !kept.this_boot {
            return if kept.until <= pulled.pulled_at { Standing::Lapsed } else { Standing::Live };
        }
        let opened = boot.clock(boot.opened);
        kept.standing(&Clocks { opened, now: boot.clock(now), wall: pulled.pulled_at })
    }

    fn judge(&self, known: &[Known], event: &Event, late: bool) -> Verdict {
        match (self.sabotage, known.last()) {
            (Some(Sabotage::ContentAlone), Some(last)) => Verdict::Redelivery { occurrence: last.occurrence },
            (Some(Sabotage::LiveLeaseIsRedelivery), _) => {
                let known: Vec<Known> = known
                    .iter()
                    .cloned()
                    .map(|mut one| {
                        one.leases.iter_mut().for_each(|lease| lease.standing = Standing::Lapsed);
                        one
                    })
                    .collect();
                classify(&known, event.handle.as_ref(), late)
            }
            (Some(Sabotage::LateIsNew), _) => classify(known, event.handle.as_ref(), false),
            (Some(Sabotage::HandleIsForLife), _) => handle_is_for_life(known, event, late),
            (Some(Sabotage::FirstLapsedTaken), _) => {
                let mut known = known.to_vec();
                known
                    .iter_mut()
                    .flat_map(|one| &mut one.leases)
                    .for_each(|lease| lease.delivery = DeliveryId(0));
                classify(&known, event.handle.as_ref(), late)
            }
            (Some(Sabotage::SettledIsNew), _) => {
                let mut known = known.to_vec();
                for one in known.iter_mut().filter(|one| one.confirmed && one.was_settled()) {
                    one.leases.iter_mut().for_each(|lease| lease.handle = None);
                }
                classify(&known, event.handle.as_ref(), late)
            }
            (Some(Sabotage::OneOccurrence), None) => Verdict::New { occurrence: 1, doubt: None },
            (Some(Sabotage::OneOccurrence), _) => match classify(known, event.handle.as_ref(), late) {
                Verdict::New { doubt, .. } => Verdict::New { occurrence: 1, doubt },
                redelivery => redelivery,
            },
            _ => classify(known, event.handle.as_ref(), late),
        }
    }

    fn by_handle_alone(&self, event: &Event) -> Option<usize> {
        if self.sabotage != Some(Sabotage::HandleAlone) || event.handle.is_none() {
            return None;
        }
        self.deliveries.iter().rfind(|delivery| delivery.handle == event.handle).map(|delivery| delivery.row)
    }

    fn insert_delivery(&mut self, pulled: &Pulled, event: &Event, row: usize) -> DeliveryId {
        self.rows[row].deliveries.push(self.deliveries.len());
        self.deliveries.push(Delivery {
            row,
            handle: event.handle.clone(),
            lease: pulled.lease,
            kept: KeptLease {
                lease: Lease {
                    sent_at: self.boot.clock(pulled.lease.sent_at),
                    cutoff: self.boot.clock(pulled.lease.cutoff),
                },
                until: pulled.lease_until(),
                this_boot: false,
            },
            boot: self.boot.number,
            received_at: pulled.received_at,
            pulled_at: pulled.pulled_at,
            request_id: pulled.request_id.clone(),
            outcome: None,
        });
        delivery_id(self.deliveries.len() - 1)
    }

    /// Counts further attempts.
    pub fn attempts(&mut self, failed: &[FailedAttempt]) {
        let forgets = self.sabotage == Some(Sabotage::UncertainForgotten);
        for attempt in failed {
            let row = self.row_mut(attempt.event);
            row.attempts += 1;
            row.uncertain |= attempt.uncertain && !forgets;
        }
    }

    /// The broker acked these.
    pub fn published(&mut self, events: &[EventId]) {
        for event in events {
            self.row_mut(*event).published = true;
        }
    }

    /// The relay gives these up.
    pub fn parked(&mut self, events: &[(EventId, Problem)]) {
        for (event, problem) in events {
            let row = self.row_mut(*event);
            row.parked |= !row.published;
            row.parked_for = Some(problem.error_code);
        }
    }

    /// An operator releases an event that was given up. Says whether it was.
    pub fn release(&mut self, event: EventId) -> bool {
        let sabotage = self.sabotage;
        let row = self.row_mut(event);
        if !row.parked {
            return false;
        }
        row.parked = false;
        row.attempts = 0;
        match sabotage {
            Some(Sabotage::ReleaseMarks) => row.uncertain = true,
            Some(Sabotage::ReleaseUnmarks) => row.uncertain = false,
            Some(Sabotage::ReleasedIsForgotten) => _ = self.released.insert(event),
            Some(Sabotage::ReleasedAsAnother) => _ = self.released.insert(event),
            _ => {}
        }
        true
    }

    /// The cloud accepted these.
    pub fn confirmed(&mut self, deliveries: &[DeliveryId], at: WallTime) {
        for delivery in deliveries {
            let delivery = &mut self.deliveries[index(delivery.0)];
            delivery.outcome = Some(Outcome::Confirmed);
            let row = &mut self.rows[delivery.row];
            row.confirmed = true;
            row.confirmed_at.get_or_insert(at);
        }
    }

    /// These ended otherwise; `lost` when the answer never came.
    pub fn let_go(&mut self, deliveries: &[DeliveryId], lost: bool) {
        for delivery in deliveries {
            let delivery = &mut self.deliveries[index(delivery.0)];
            if matches!(delivery.outcome, None | Some(Outcome::Lost)) {
                delivery.outcome = Some(if lost { Outcome::Lost } else { Outcome::Refused });
            }
        }
    }

    /// The cloud holds nothing that was received before.
    pub fn settle(&mut self, sub_app: SubAppId, received_before: Moment, at: WallTime) {
        let boot = self.boot.number;
        for row in &mut self.rows {
            let newest = *row.deliveries.last().expect("a row is made by a delivery");
            let settled = row.event.sub_app == sub_app
                && !row.confirmed
                && !row.pruned
                && (row.published || row.parked)
                && (self.deliveries[newest].boot != boot
                    || self.deliveries[newest].received_at < received_before);
            if settled {
                row.confirmed = true;
                row.confirmed_at = Some(at);
                for delivery in &row.deliveries {
                    self.deliveries[*delivery].outcome.get_or_insert(Outcome::Settled);
                }
            }
        }
    }

    /// The calendar says that the cloud dropped what was handed over before, of sub-applications that are not polled. For the
    /// differential test, as the next one.
    pub fn settle_unpolled(&mut self, polled: &[SubAppId], before: WallTime, at: WallTime) -> u64 {
        let by_first = self.sabotage == Some(Sabotage::FirstDeliveryCounts);
        let all = self.sabotage == Some(Sabotage::PolledIsSettled);
        let mut settled = 0;
        for row in &mut self.rows {
            let mut pulled_at = row.deliveries.iter().map(|at| self.deliveries[*at].pulled_at);
            let old =
                if by_first { pulled_at.next() < Some(before) } else { pulled_at.all(|at| at < before) };
            let unpolled = all || !polled.contains(&row.event.sub_app);
            if unpolled && old && !row.confirmed && !row.pruned && (row.published || row.parked) {
                row.confirmed = true;
                row.confirmed_at = Some(at);
                for delivery in &row.deliveries {
                    self.deliveries[*delivery].outcome.get_or_insert(Outcome::Settled);
                }
                settled += 1;
            }
        }
        settled
    }

    /// Forgets what was received and confirmed before that time. Only the differential test asks for it. Returns how many events that were.
    pub fn prune(&mut self, before: WallTime) -> u64 {
        let forgets = self.sabotage == Some(Sabotage::PruneForgetsConfirms);
        let mut pruned = 0;
        for (at, row) in self.rows.iter_mut().enumerate() {
            let received_at = self.deliveries[row.deliveries[0]].pulled_at;
            let done = row.confirmed_at.is_some_and(|confirmed_at| forgets || confirmed_at < before);
            if done && received_at < before && row.published && !row.parked && !row.pruned {
                row.pruned = true;
                pruned += 1;
                let rows = self.by_fingerprint.get_mut(&row.event.fingerprint).expect("each row is there");
                rows.retain(|other| *other != at);
            }
        }
        pruned
    }

    /// Hands out unpublished events, and counts the attempt.
    pub fn load(&mut self, after: EventId, limit: u32) -> Vec<Loaded> {
        if self.sabotage == Some(Sabotage::NothingLoaded) {
            return Vec::new();
        }
        let mut loaded = Vec::new();
        let from = index(after.0 + 1);
        for (at, row) in self.rows.iter_mut().enumerate().skip(from) {
            let released = self.released.contains(&id(at));
            let left = self.sabotage == Some(Sabotage::LeftIsForgotten)
                && self.unwanted.contains(&row.event.sub_app)
                || self.sabotage == Some(Sabotage::ReleasedIsForgotten) && released;
            let another = self.sabotage == Some(Sabotage::ReleasedAsAnother) && released;
            if row.published || row.parked || row.pruned || left || self.forgotten.contains(&id(at)) {
                continue;
            }
            if loaded.len() >= limit as usize {
                break;
            }
            row.attempts += 1;
            row.uncertain |= at < self.copied.0;
            let newest = *row.deliveries.last().expect("a row is made by a delivery");
            let delivery = &self.deliveries[newest];
            let mut event = Event::clone(&row.event);
            event.handle = delivery.handle.clone();
            loaded.push(Loaded {
                event: id(at),
                outgoing: Outgoing::new(
                    Arc::new(event),
                    row.occurrence + u32::from(another),
                    row.redeliveries > 0,
                    delivery.pulled_at,
                    delivery.request_id.clone(),
                ),
                confirmed: row.confirmed,
            });
        }
        loaded
    }
}

/// A mistake that the judgement once made: a handle that ever stood on an occurrence stands on it for ever.
fn handle_is_for_life(known: &[Known], event: &Event, late: bool) -> Verdict {
    let has = |one: &&Known| {
        let this = |lease: &KnownLease| lease.handle.is_some() && lease.handle == event.handle;
        !one.taken && one.leases.iter().any(this)
    };
    let unconfirmed = known.iter().filter(has).find(|one| !one.confirmed);
    match unconfirmed.or_else(|| known.iter().rfind(has)) {
        Some(again) => Verdict::Redelivery { occurrence: again.occurrence },
        None => classify(known, event.handle.as_ref(), late),
    }
}

fn index(id: i64) -> usize {
    usize::try_from(id - 1).expect("ids begin with 1")
}

fn delivery_id(index: usize) -> DeliveryId {
    DeliveryId(i64::try_from(index).expect("few deliveries") + 1)
}

fn id(index: usize) -> EventId {
    EventId(i64::try_from(index).expect("few rows") + 1)
}
