//! The lane between the core and the journal.
//!
//! Commits are asked for in the core's order, and their answers come back in that order. The core relies on it: an event
//! that was read from the backlog must not be heard of after the commit that took it out of there.
//!
//! A commit costs the more for each event the fewer share it, and few wait for what the broker and the cloud have answered,
//! or for one full answer of many. Such work waits for a moment here, to share the commit of what is next.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::core::{self, Effect, FailedAttempt, Input, LetGo, Loaded, Parcel, PullId};
use super::pacing::EVENTS_PER_PULL;
use super::{Arrived, RelayError};
use crate::clock::{Moment, WallTime};
use crate::event::SubAppId;
use crate::identity::{DeliveryId, EventId};
use crate::journal::{Answer, Attempt, Closed, HandleOutcome, Journal};
use crate::lease::{Lease, Window};
use crate::outcome::Problem;

/// How many commits are asked for before the first of them is answered.
const ASKED_MAX: usize = 256;

/// How long patient work waits for company at the most: four full answers come within it at the documented quota. It delays
/// confirms, and what has queued in the cloud for longer.
const PATIENCE_MAX: Duration = Duration::from_millis(40);

/// How long it waits when so many events may be in hand. They are through the sooner the shorter each of them waits, and the
/// fewer they are, the more the rate depends on that.
pub(super) fn patience(max_in_flight: usize) -> Duration {
    Duration::from_micros((max_in_flight as u64).saturating_mul(40)).min(PATIENCE_MAX)
}

/// How long it waits while it is less than an answer's worth and a confirm waits for it: the journal has time then. Events
/// that come faster than this take it along.
const PATIENCE_FOR_FEW: Duration = Duration::from_millis(5);

/// So many rows are company enough: a commit has become cheap for each of them.
const COMPANY_ROWS: usize = 768;

/// What the lane is told.
pub(super) enum Told {
    Work(Work),
    /// Nothing is under way that could bring more work: what waits for company waits in vain.
    NoMoreComes,
    /// How long patient work waits from now on.
    Patience(Duration),
}

/// The part of the effects that the journal carries out.
pub(super) enum Work {
    Record {
        pull: PullId,
        sub_app: SubAppId,
        answer: core::Answer,
        lease: Lease,
        received_at: Moment,
        pulled_at: WallTime,
        publish_now: bool,
    },
    Published(Vec<EventId>),
    Attempts(Vec<FailedAttempt>),
    Parked(Vec<(EventId, Problem)>),
    Confirmed(Vec<DeliveryId>),
    LetGo(Vec<DeliveryId>, LetGo),
    Settle {
        sub_app: SubAppId,
        received_before: Moment,
    },
    Load {
        after: EventId,
        limit: u32,
    },
}

impl Work {
    /// The journal's share of an effect; `None` for effects that are not the journal's.
    pub(super) fn of(effect: Effect) -> Option<Self> {
        Some(match effect {
            Effect::Record { pull, sub_app, answer, lease, received_at, pulled_at, publish_now } => {
                Self::Record { pull, sub_app, answer, lease, received_at, pulled_at, publish_now }
            }
            Effect::RecordPublished(events) => Self::Published(events),
            Effect::RecordAttempts(failed) => Self::Attempts(failed),
            Effect::RecordParked(events) => Self::Parked(events),
            Effect::RecordConfirmed(confirmed) => {
                Self::Confirmed(confirmed.into_iter().map(|c| c.delivery).collect())
            }
            Effect::RecordLetGo(deliveries, why) => Self::LetGo(deliveries, why),
            Effect::Settle { sub_app, received_before } => Self::Settle { sub_app, received_before },
            Effect::Load { after, limit } => Self::Load { after, limit },
            Effect::Pull { .. }
            | Effect::Publish { .. }
            | Effect::Confirm { .. }
            | Effect::ProveConfirm { .. }
            | Effect::Finished => {
                return None;
            }
        })
    }

    /// How many rows it writes, if it is patient: a record of what at most a confirm waits for, or of a full answer. The cloud
    /// has more then, and its events have waited there already.
    fn patient_rows(&self) -> Option<usize> {
        match self {
            Self::Record { answer, .. } if answer.events.len() >= EVENTS_PER_PULL => {
                Some(answer.events.len())
            }
            Self::Published(events) => Some(events.len()),
            Self::Confirmed(deliveries) | Self::LetGo(deliveries, _) => Some(deliveries.len()),
            Self::Record { .. }
            | Self::Attempts(_)
            | Self::Parked(_)
            | Self::Settle { .. }
            | Self::Load { .. } => None,
        }
    }
}

/// Work that waits for company, in the order in which it came, and what decides for how long.
struct Waiting {
    work: Vec<(Work, WallTime)>,
    rows: usize,
    a_confirm_waits: bool,
    since: Instant,
}

impl Waiting {
    fn new() -> Self {
        Self { work: Vec::new(), rows: 0, a_confirm_waits: false, since: Instant::now() }
    }

    /// Adds work. Says whether it can wait.
    fn add(&mut self, work: Work) -> bool {
        if self.work.is_empty() {
            self.since = Instant::now();
        }
        let patient_rows = work.patient_rows();
        self.rows += patient_rows.unwrap_or(0);
        self.a_confirm_waits |= matches!(work, Work::Published(_));
        self.work.push((work, WallTime::now()));
        patient_rows.is_some() && self.rows < COMPANY_ROWS
    }

    /// Until when what is here waits.
    fn until(&self, patience: Duration) -> Instant {
        let few = self.a_confirm_waits && self.rows < EVENTS_PER_PULL;
        self.since + if few { patience.min(PATIENCE_FOR_FEW) } else { patience }
    }

    /// Ends the wait.
    fn take(&mut self) -> Vec<(Work, WallTime)> {
        std::mem::replace(self, Self::new()).work
    }
}

/// Runs until the relay ends.
pub(super) async fn lane(
    journal: Journal,
    window: Window,
    mut patience: Duration,
    mut told: mpsc::UnboundedReceiver<Told>,
    inputs: mpsc::UnboundedSender<Arrived>,
) -> Result<(), RelayError> {
    let mut asked = FuturesOrdered::new();
    // What waits for company keeps its place: it is asked for before whatever came after it.
    let mut waiting = Waiting::new();
    let mut waited = pin!(sleep(patience));
    let mut ended = false;
    while !(ended && asked.is_empty() && waiting.work.is_empty()) {
        let waits = tokio::select! {
            biased;
            Some(answer) = asked.next() => {
                let answer: Result<Input, Closed> = answer;
                super::send(&inputs, answer.map_err(|Closed| RelayError::Journal)?.into());
                continue;
            }
            next = told.recv(), if !ended && asked.len() + waiting.work.len() < ASKED_MAX => match next {
                // The answers that are still to come bring more; then it is said again.
                Some(Told::NoMoreComes) => !asked.is_empty(),
                Some(Told::Patience(changed)) => {
                    patience = changed;
                    true
                }
                Some(Told::Work(work)) => {
                    let can_wait = waiting.add(work);
                    waited.as_mut().reset(waiting.until(patience));
                    can_wait && asked.len() + waiting.work.len() < ASKED_MAX
                }
                None => {
                    ended = true;
                    false
                }
            },
            () = &mut waited, if !waiting.work.is_empty() => false,
        };
        if !waits {
            let mut together = journal.together();
            let work = waiting.take().into_iter();
            asked.extend(work.map(|(work, since)| together.add(|journal| ask(journal, window, work, since))));
            together.send().await.map_err(|Closed| RelayError::Journal)?;
        }
    }
    Ok(())
}

/// `since` is when the work came.
async fn ask(journal: Journal, window: Window, work: Work, since: WallTime) -> Result<Input, Closed> {
    match work {
        Work::Record { pull, sub_app, answer, lease, received_at, pulled_at, publish_now } => {
            let answer = Answer {
                sub_app,
                request_id: answer.request_id,
                lease,
                received_at,
                pulled_at,
                lease_until: pulled_at + window.length.saturating_sub(window.margin)
                    - received_at.since(lease.sent_at),
                events: answer.events,
                publish_now,
            };
            Ok(Input::Recorded { pull, recorded: journal.record(answer).await? })
        }
        Work::Published(events) => {
            journal.published(events.iter().map(|event| (*event, since)).collect()).await?;
            Ok(Input::PublishRecorded(events))
        }
        Work::Attempts(failed) => {
            let events = failed.iter().map(|attempt| attempt.event).collect();
            let attempts = failed
                .into_iter()
                .map(|FailedAttempt { event, uncertain, problem }| Attempt {
                    event,
                    uncertain,
                    reason: problem.to_string().into(),
                })
                .collect();
            journal.attempts(attempts).await?;
            Ok(Input::AttemptRecorded(events))
        }
        Work::Parked(events) => {
            let ids = events.iter().map(|(event, _)| *event).collect();
            journal
                .parked(events.into_iter().map(|(event, problem)| (event, problem.to_string())).collect())
                .await?;
            Ok(Input::ParkRecorded(ids))
        }
        Work::Confirmed(deliveries) => {
            journal.confirmed(deliveries, since).await?;
            Ok(Input::OutcomeRecorded)
        }
        Work::LetGo(deliveries, why) => {
            let outcome = match why {
                LetGo::Refused => HandleOutcome::Refused,
                LetGo::Lost => HandleOutcome::Lost,
            };
            journal.handle_outcome(deliveries, outcome).await?;
            Ok(Input::OutcomeRecorded)
        }
        Work::Settle { sub_app, received_before } => {
            journal.settle(sub_app, received_before, since).await?;
            Ok(Input::SettleRecorded)
        }
        Work::Load { after, limit } => {
            let loaded = journal.load(after, limit).await?;
            Ok(Input::Loaded(loaded.into_iter().map(parcel).collect()))
        }
    }
}

fn parcel(row: crate::journal::Loaded) -> Loaded {
    let parcel = Parcel {
        event: Arc::new(row.content),
        occurrence: row.occurrence,
        redelivered: row.redelivered,
        pulled_at: row.pulled_at,
        request_id: row.request_id,
    };
    Loaded { event: row.event, parcel, confirmed: row.confirmed }
}

#[cfg(test)]
mod tests {
    use tokio::task::{JoinHandle, yield_now};

    use super::*;
    use crate::event::Event;
    use crate::journal::{Options, Writer};

    const WINDOW: Window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };

    /// A lane with a journal of its own.
    struct Desk {
        _folder: tempfile::TempDir,
        journal: Journal,
        writer: Writer,
        work: mpsc::UnboundedSender<Told>,
        arrived: mpsc::UnboundedReceiver<Arrived>,
        lane: JoinHandle<Result<(), RelayError>>,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (journal, writer) =
                Journal::open(&Options { path: folder.path().join("journal.db") }).unwrap();
            let (work, queue) = mpsc::unbounded_channel();
            let (inputs, arrived) = mpsc::unbounded_channel();
            let lane = tokio::spawn(lane(journal.clone(), WINDOW, PATIENCE_MAX, queue, inputs));
            Self { _folder: folder, journal, writer, work, arrived, lane }
        }

        fn send(&self, work: Work) {
            self.tell(Told::Work(work));
        }

        fn tell(&self, told: Told) {
            self.work.send(told).map_err(|_| "the lane ended").unwrap();
        }

        async fn next(&mut self) -> Input {
            self.arrived.recv().await.unwrap().input
        }

        /// The same while the lane's clock stands still, as it does as long as there is something to do.
        async fn at_once(&mut self) -> Input {
            let began = std::time::Instant::now();
            loop {
                if let Ok(arrived) = self.arrived.try_recv() {
                    return arrived.input;
                }
                assert!(began.elapsed() < Duration::from_secs(30), "it waits for its clock");
                yield_now().await;
            }
        }

        /// Whether nothing was asked of the journal, however often the lane had its turn.
        async fn waits(&mut self) -> bool {
            for _ in 0..100 {
                yield_now().await;
            }
            self.arrived.try_recv().is_err() && self.journal.commits() == 0
        }

        /// What arrived until the end, and was not looked at before.
        async fn end(mut self) -> Vec<Input> {
            drop(self.work);
            self.lane.await.unwrap().unwrap();
            drop(self.journal);
            self.writer.join().unwrap();
            std::iter::from_fn(|| self.arrived.try_recv().ok()).map(|arrived| arrived.input).collect()
        }
    }

    /// The record of an answer with so many events, all different.
    fn record(pull: u64, events: usize) -> Work {
        let event = |n| {
            let body = format!(r#"{{"EventHandle":"h-{pull}-{n}","n":"{pull}-{n}"}}"#);
            Arc::new(Event::parse(SubAppId(0), body.into()).unwrap())
        };
        Work::Record {
            pull: PullId(pull),
            sub_app: SubAppId(0),
            answer: core::Answer { request_id: "r".into(), events: (0..events).map(event).collect() },
            lease: WINDOW.lease(Moment(0)),
            received_at: Moment(1),
            pulled_at: WallTime(0),
            publish_now: true,
        }
    }

    #[test]
    fn the_fewer_may_be_in_hand_the_shorter_each_waits() {
        assert_eq!(patience(usize::MAX), PATIENCE_MAX);
        assert_eq!(patience(1_024), PATIENCE_MAX, "by default");
        assert_eq!(patience(128), Duration::from_micros(5_120));
    }

    // The clock stands still until a test waits.
    #[tokio::test(start_paused = true)]
    async fn patient_work_waits_for_company_a_moment_and_keeps_its_place() {
        let mut desk = Desk::new();
        desk.send(Work::Published(vec![EventId(1)]));
        desk.send(Work::Confirmed(vec![DeliveryId(1)]));
        assert!(desk.waits().await);
        desk.send(Work::Settle { sub_app: SubAppId(0), received_before: Moment(0) });
        assert!(matches!(desk.next().await, Input::PublishRecorded(events) if events == [EventId(1)]));
        assert!(matches!(desk.next().await, Input::OutcomeRecorded));
        assert!(matches!(desk.next().await, Input::SettleRecorded));

        // Nothing comes after it, and it is committed all the same: in time, and at the end.
        desk.send(Work::Published(vec![EventId(2)]));
        assert!(matches!(desk.next().await, Input::PublishRecorded(events) if events == [EventId(2)]));
        desk.send(Work::LetGo(vec![DeliveryId(2)], LetGo::Lost));
        assert!(matches!(desk.end().await[..], [Input::OutcomeRecorded]));
    }

    #[tokio::test(start_paused = true)]
    async fn another_patience_holds_from_now_on() {
        let mut desk = Desk::new();
        let shorter = Duration::from_millis(10);
        desk.tell(Told::Patience(shorter));
        let began = Instant::now();
        desk.send(record(1, EVENTS_PER_PULL));
        desk.next().await;
        assert!(began.elapsed() < 2 * shorter, "{:?}", began.elapsed());
        desk.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn few_acks_wait_a_shorter_time_as_confirms_wait_for_them() {
        let acks = |count| Work::Published((1..=count).map(EventId).collect());
        let full = i64::try_from(EVENTS_PER_PULL).unwrap();
        let confirmed = || Work::Confirmed(vec![DeliveryId(1)]);
        for (work, patience) in [
            (vec![acks(1)], PATIENCE_FOR_FEW),
            (vec![acks(full - 1)], PATIENCE_FOR_FEW),
            (vec![acks(full)], PATIENCE_MAX),
            (vec![acks(full / 2), acks(full / 2)], PATIENCE_MAX),
            (vec![confirmed()], PATIENCE_MAX),
            (vec![confirmed(), acks(1)], PATIENCE_FOR_FEW),
        ] {
            let mut desk = Desk::new();
            let began = Instant::now();
            for one in work {
                desk.send(one);
            }
            desk.next().await;
            let waited = began.elapsed();
            assert!(waited >= patience && waited < patience + PATIENCE_FOR_FEW, "{waited:?}");
            desk.end().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_answer_waits_for_company_and_what_is_more_than_that_goes_at_once() {
        let mut desk = Desk::new();
        desk.send(record(1, EVENTS_PER_PULL));
        assert!(desk.waits().await);
        // An answer with room left is all that the cloud had: its events have waited for nothing.
        desk.send(record(2, EVENTS_PER_PULL - 1));
        for pull in [1, 2] {
            assert!(matches!(desk.at_once().await, Input::Recorded { pull: PullId(n), .. } if n == pull));
        }
        assert_eq!(desk.journal.commits(), 1, "they shared it");

        desk.send(record(3, EVENTS_PER_PULL));
        desk.send(Work::Published(vec![EventId(1)]));
        desk.tell(Told::NoMoreComes);
        assert!(matches!(desk.at_once().await, Input::Recorded { pull: PullId(3), .. }));
        assert!(matches!(desk.at_once().await, Input::PublishRecorded(_)));
        assert_eq!(desk.journal.commits(), 2);

        let enough = u64::try_from(COMPANY_ROWS.div_ceil(EVENTS_PER_PULL)).unwrap();
        for pull in 0..enough {
            desk.send(record(100 + pull, EVENTS_PER_PULL));
        }
        for _ in 0..enough {
            assert!(matches!(desk.at_once().await, Input::Recorded { .. }));
        }
        assert!(desk.end().await.is_empty());
    }
}
