//! Deliberate bugs, to prove that the checkers see. None of them is in the product: each is put between the core and its
//! world, or into the model of the journal.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tencent_vod_event::Event;
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::{EventId, Progress, Recorded};
use vodrelay_core::machine::{Answer, ConfirmAfter, Effect, Settings};
use vodrelay_core::outcome::{Problem, PublishOutcome, RequestFailure};
use vodrelay_core::outgoing::Outgoing;
use vodrelay_core::write::{FailedAttempt, Write};

use super::check::Guarantee;

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A publish counts as acked when it leaves.
    AckedWhenSent,
    /// A returned message counts as acked.
    ReturnedIsAcked,
    /// A nack counts as an ack.
    NackedIsAcked,
    /// A refused publish counts as acked.
    RefusedIsAcked,
    /// No answer counts as an ack.
    UnknownIsAcked,
    /// A confirm does not wait for the commit of the ack.
    ConfirmedBeforeCommit,
    /// A publish does not wait for the commit of its record.
    PublishedBeforeCommit,
    /// The handle alone says what an event is.
    HandleAlone,
    /// The content alone says what an event is.
    ContentAlone,
    /// An equal event under way counts as the same.
    LiveLeaseIsRedelivery,
    /// Every event is the first of its content.
    OneOccurrence,
    /// An answer that came after its lease can bring new events. It was so once, until a seed showed it.
    LateIsNew,
    /// A handle that stood on an event once stands on it for ever. It was so once, until a seed showed it.
    HandleIsForLife,
    /// Of equal events the first counts as the one that comes again. It was so once, until a seed showed it.
    FirstLapsedTaken,
    /// The lease starts when the answer arrives.
    LeaseFromAnswer,
    /// The window is thought to be longer than it is.
    WindowTooLong,
    /// A confirm without an answer counts as a yes.
    LostConfirmIsYes,
    /// Every idle answer settles everything.
    SettledAtOnce,
    /// A redelivery is published like a new event.
    PublishedOnRedelivery,
    /// Events without a type are dropped.
    TypelessDropped,
    /// Events without a handle are dropped.
    HandlelessDropped,
    /// An idle answer is followed by the next poll at once.
    NoIdleWait,
    /// A failed publish is tried again at once.
    NoPublishWait,
    /// Requests are twice as many as the account may make.
    TwiceAsFast,
    /// Events in flight have no limit.
    UnboundedInFlight,
    /// A shared handle is confirmed when the first of its events is safe.
    FirstConfirmsShared,
    /// A confirm waits for the broker where the journal's commit is proof enough.
    WaitsForTheBroker,
    /// A drain drops the polls in flight.
    DrainDropsPull,
    /// That a publish may have arrived is not written down.
    UncertainForgotten,
    /// A restart does not mark what was being published.
    ReopenMarksNothing,
    /// A restart does not publish what is in the journal.
    NothingLoaded,
    /// The body is written anew.
    BodyRewritten,
    /// One handle twice in a request.
    HandleTwice,
    /// A refused request is repeated as it is.
    BadHandleNotIsolated,
    /// A confirm may leave until the latest of its leases ends.
    LatestDeadline,
    /// A lease of another boot is compared with this boot's clock.
    BootIgnored,
    /// The wall clock alone judges a lease of another boot. It was so once.
    WallBelieved,
    /// An event that was settled counts as another one under its own handle. For the differential test, as the next one.
    SettledIsNew,
    /// What was confirmed a moment ago is pruned with what was confirmed long ago.
    PruneForgetsConfirms,
    /// A journal does not know that it is a copy.
    CopyNotNoticed,
    /// An event is given up after five nacks.
    FiveNacksPark,
    /// An event is given up when the broker returns or refuses it for the first time.
    FirstRefusalParks,
    /// Every message says that it was pulled at the beginning of time.
    PulledAtZero,
    /// The wait between two publishes stays as it is.
    WaitStopsGrowing,
    /// An event whose batch was refused is published with others again.
    SuspectNotAlone,
    /// A lost answer is no reason to look for the event that breaks the connection.
    LossesNotCounted,
    /// An event that joins the backlog while it is read is forgotten.
    JoinedForgotten,
    /// A sub-application confirms when those before it have nothing to confirm.
    NoTurns,
    /// A delivery that joins a handle gives it its own, later lease.
    JoinsLater,
    /// A sub-application that a reload removed is polled on.
    RemovedIsPolled,
    /// Events of a sub-application that left the configuration are not published after a restart.
    LeftIsForgotten,
    /// An event that breaks the connection is published alone, and never given up.
    IsolatedNotParked,
    /// An event is given up when it loses its answer for the first time.
    FirstLossParks,
    /// Events are given up with another error code than their own.
    ParkedForAnother,
    /// A returned event is published again at once, as often as it may.
    RefusedInHaste,
    /// However many events are returned, the relay goes on as if others had a queue.
    BreakerNeverOpens,
    /// Once nothing was routable, polls rest for good.
    BreakerNeverCloses,
    /// Returned events are counted whatever is acked between them.
    BreakerIgnoresAcks,
    /// While nothing is routable nothing is given up.
    UnboundNeverParks,
    /// What is released is marked as a possible duplicate, whatever its publishes met.
    ReleaseMarks,
    /// What is released is not marked any more, whatever its publishes met.
    ReleaseUnmarks,
    /// What is released is not published.
    ReleasedIsForgotten,
    /// What is released is published under another message id.
    ReleasedAsAnother,
    /// No message says that the cloud had handed it over before.
    RedeliveryUnsaid,
    /// Every message names the same request.
    OneRequest,
    /// Every message is the first occurrence.
    FirstOccurrence,
    /// The calendar looks at the first delivery of an event alone. For the differential test, as the next one.
    FirstDeliveryCounts,
    /// The calendar settles what is polled as well.
    PolledIsSettled,
}

impl Sabotage {
    /// Those that a few thousand seeds show, with the promises one of which each must be seen to break.
    pub const ALL: [(Sabotage, &'static [Guarantee]); 61] = {
        use Guarantee::{
            Bounded, ComesToAnEnd, CommittedFirst, NeverLate, NobodyWaits, NothingAltered, NothingLost,
            NothingMerged, RepeatsNamed,
        };
        [
            (Sabotage::AckedWhenSent, &[NothingLost]),
            (Sabotage::ReturnedIsAcked, &[NothingLost]),
            (Sabotage::NackedIsAcked, &[NothingLost]),
            (Sabotage::RefusedIsAcked, &[NothingLost]),
            (Sabotage::UnknownIsAcked, &[NothingLost]),
            (Sabotage::ConfirmedBeforeCommit, &[CommittedFirst]),
            (Sabotage::PublishedBeforeCommit, &[CommittedFirst]),
            (Sabotage::HandleAlone, &[NothingLost, NothingMerged]),
            (Sabotage::ContentAlone, &[NothingLost, NothingMerged]),
            (Sabotage::LiveLeaseIsRedelivery, &[NothingLost, NothingMerged]),
            (Sabotage::OneOccurrence, &[NothingMerged]),
            (Sabotage::HandleIsForLife, &[NothingLost]),
            (Sabotage::LeaseFromAnswer, &[NeverLate]),
            (Sabotage::WindowTooLong, &[NeverLate]),
            (Sabotage::LostConfirmIsYes, &[NothingMerged]),
            (Sabotage::SettledAtOnce, &[NothingMerged]),
            (Sabotage::PublishedOnRedelivery, &[RepeatsNamed]),
            (Sabotage::TypelessDropped, &[ComesToAnEnd, NothingLost]),
            (Sabotage::HandlelessDropped, &[ComesToAnEnd, NothingLost]),
            (Sabotage::NoIdleWait, &[Bounded]),
            (Sabotage::NoPublishWait, &[Bounded]),
            (Sabotage::TwiceAsFast, &[Bounded]),
            (Sabotage::UnboundedInFlight, &[Bounded]),
            (Sabotage::FirstConfirmsShared, &[NothingLost]),
            (Sabotage::WaitsForTheBroker, &[NobodyWaits]),
            (Sabotage::DrainDropsPull, &[ComesToAnEnd]),
            (Sabotage::UncertainForgotten, &[RepeatsNamed]),
            (Sabotage::ReopenMarksNothing, &[RepeatsNamed]),
            (Sabotage::NothingLoaded, &[ComesToAnEnd]),
            (Sabotage::BodyRewritten, &[NothingAltered]),
            (Sabotage::HandleTwice, &[Bounded]),
            (Sabotage::BadHandleNotIsolated, &[NobodyWaits, ComesToAnEnd]),
            (Sabotage::LatestDeadline, &[NeverLate]),
            (Sabotage::WallBelieved, &[NothingMerged]),
            (Sabotage::CopyNotNoticed, &[NothingMerged, RepeatsNamed]),
            (Sabotage::FiveNacksPark, &[NothingLost]),
            (Sabotage::FirstRefusalParks, &[NothingLost]),
            (Sabotage::PulledAtZero, &[NothingAltered]),
            (Sabotage::WaitStopsGrowing, &[Bounded]),
            (Sabotage::SuspectNotAlone, &[NobodyWaits]),
            (Sabotage::LossesNotCounted, &[NobodyWaits]),
            (Sabotage::JoinedForgotten, &[ComesToAnEnd]),
            (Sabotage::NoTurns, &[NobodyWaits]),
            (Sabotage::JoinsLater, &[NeverLate]),
            (Sabotage::RemovedIsPolled, &[Bounded]),
            (Sabotage::LeftIsForgotten, &[ComesToAnEnd]),
            (Sabotage::IsolatedNotParked, &[ComesToAnEnd]),
            (Sabotage::FirstLossParks, &[NothingLost]),
            (Sabotage::ParkedForAnother, &[NothingLost]),
            (Sabotage::RefusedInHaste, &[NothingLost]),
            (Sabotage::BreakerNeverOpens, &[Bounded]),
            (Sabotage::BreakerNeverCloses, &[NobodyWaits]),
            (Sabotage::BreakerIgnoresAcks, &[NobodyWaits]),
            (Sabotage::UnboundNeverParks, &[Bounded]),
            (Sabotage::ReleaseMarks, &[RepeatsNamed]),
            (Sabotage::ReleaseUnmarks, &[RepeatsNamed]),
            (Sabotage::ReleasedIsForgotten, &[ComesToAnEnd]),
            (Sabotage::ReleasedAsAnother, &[NothingMerged]),
            (Sabotage::RedeliveryUnsaid, &[NothingAltered]),
            (Sabotage::OneRequest, &[NothingAltered]),
            (Sabotage::FirstOccurrence, &[NothingMerged]),
        ]
    };

    /// Mistakes that the judgement of deliveries once made, with seeds that show them. Two are rare: when a change of the
    /// simulation gives the seeds another meaning, `simulate --sabotage --bug NAME --seeds 1000000` finds new ones.
    pub const FOUND: [(u64, Sabotage, Guarantee); 3] = [
        (33, Sabotage::HandleIsForLife, Guarantee::NothingLost),
        (251_869, Sabotage::FirstLapsedTaken, Guarantee::NothingMerged),
        (12_495, Sabotage::LateIsNew, Guarantee::NothingMerged),
    ];

    /// What a core with this bug would be told to do.
    pub fn settings(self, settings: &mut Settings) {
        match self {
            Self::WindowTooLong => settings.window += Duration::from_secs(20),
            Self::NoIdleWait => {
                settings.relay.idle_backoff_min = Duration::ZERO;
                settings.relay.idle_backoff_max = Duration::ZERO;
            }
            Self::WaitsForTheBroker => settings.relay.confirm_after = ConfirmAfter::Publish,
            Self::TwiceAsFast => settings.requests_per_second *= 2,
            Self::UnboundedInFlight => settings.relay.max_in_flight = usize::MAX / 2,
            _ => {}
        }
    }

    /// What the core is told of an answer.
    pub fn answer(self, answer: &mut Answer) {
        match self {
            Self::TypelessDropped => answer.events.retain(|event| event.event_type.is_some()),
            Self::HandlelessDropped => answer.events.retain(|event| event.handle.is_some()),
            Self::FirstConfirmsShared => {
                let mut seen = HashSet::new();
                for event in &mut answer.events {
                    if event.handle.is_some() && !seen.insert(event.handle.clone()) {
                        *event = Arc::new(Event { handle: None, ..Event::clone(event) });
                    }
                }
            }
            Self::BodyRewritten => {
                for event in &mut answer.events {
                    let text: String = String::from_utf8_lossy(&event.body).split(' ').collect();
                    *event = Arc::new(Event { body: text.into(), ..Event::clone(event) });
                }
            }
            _ => {}
        }
    }

    /// What the core is told of a publish.
    pub fn outcome(self, outcome: PublishOutcome) -> PublishOutcome {
        match (self, &outcome) {
            (Self::ReturnedIsAcked, PublishOutcome::Returned { .. })
            | (Self::NackedIsAcked, PublishOutcome::Nacked)
            | (Self::RefusedIsAcked, PublishOutcome::ChannelError { .. })
            | (Self::UnknownIsAcked, PublishOutcome::Unknown { .. }) => PublishOutcome::Acked,
            (Self::LossesNotCounted, PublishOutcome::Unknown { suspect: false, .. }) => {
                PublishOutcome::Nacked
            }
            (Self::BreakerNeverOpens, PublishOutcome::Returned { code, text }) => {
                PublishOutcome::ChannelError { code: *code, text: text.clone() }
            }
            _ => outcome,
        }
    }

    /// What the core is told of a confirm.
    pub fn confirmed(self, result: Result<(), RequestFailure>) -> Result<(), RequestFailure> {
        match (self, result) {
            (Self::LostConfirmIsYes, Err(RequestFailure::Transient)) => Ok(()),
            (Self::BadHandleNotIsolated, Err(RequestFailure::Refused)) => Err(RequestFailure::Configuration),
            _ => result,
        }
    }

    /// What the core is told of a record.
    pub fn recorded(self, recorded: &mut [Recorded]) {
        if self == Self::PublishedOnRedelivery {
            for one in recorded {
                one.redelivered = false;
                one.progress = Progress::default();
            }
        }
    }

    /// What becomes of an effect on its way out.
    pub fn effect(self, effect: &mut Effect, unroutable: bool) {
        if self.keeps_trying(effect, unroutable)
            && let Effect::Write(Write::Parked(events)) = effect
        {
            let again = |(event, problem): &(EventId, Problem)| FailedAttempt {
                event: *event,
                uncertain: true,
                problem: problem.clone(),
            };
            *effect = Effect::Write(Write::Failed(events.iter().map(again).collect()));
        }
        match (self, effect) {
            (Self::ParkedForAnother, Effect::Write(Write::Parked(events))) => {
                let other = |(event, problem): &(EventId, Problem)| {
                    (*event, Problem { error_code: ErrorCode::NoPublish, ..problem.clone() })
                };
                *events = events.iter().map(other).collect();
            }
            (Self::HandleTwice, Effect::Confirm { handles, .. }) => handles.extend(handles.first().cloned()),
            (Self::SuspectNotAlone, Effect::Publish { alone, .. }) => *alone = false,
            (Self::RedeliveryUnsaid, Effect::Publish { outgoing, .. }) => {
                *outgoing = Arc::new(Outgoing { redelivered: false, ..Outgoing::clone(outgoing) });
            }
            (Self::OneRequest, Effect::Publish { outgoing, .. }) => {
                *outgoing = Arc::new(Outgoing { request_id: "r0".into(), ..Outgoing::clone(outgoing) });
            }
            (Self::FirstOccurrence, Effect::Publish { outgoing, .. }) => {
                *outgoing = Arc::new(Outgoing { occurrence: 1, ..Outgoing::clone(outgoing) });
            }
            (Self::PulledAtZero, Effect::Publish { outgoing, .. }) => {
                *outgoing = Arc::new(Outgoing { pulled_at: WallTime(0), ..Outgoing::clone(outgoing) });
            }
            _ => {}
        }
    }

    /// Whether an event that is to be given up is tried again instead.
    fn keeps_trying(self, effect: &Effect, unroutable: bool) -> bool {
        let Effect::Write(Write::Parked(events)) = effect else { return false };
        match self {
            Self::IsolatedNotParked => {
                events.iter().any(|(_, problem)| problem.error_code == ErrorCode::PublishUnanswered)
            }
            Self::UnboundNeverParks => unroutable,
            _ => false,
        }
    }

    /// Whether the journal is told that an event is given up, and not that it was tried so many times.
    pub fn parks(self, failed: &FailedAttempt, attempts: u32) -> bool {
        match self {
            Self::FiveNacksPark => attempts >= 5 && failed.problem.message.contains("nacked"),
            Self::FirstLossParks => failed.problem.error_code == ErrorCode::PublishUnanswered,
            Self::RefusedInHaste => failed.problem.error_code == ErrorCode::PublishReturned,
            Self::FirstRefusalParks => {
                let words = &failed.problem.message;
                words.contains("unroutable") || words.contains("refused by the broker")
            }
            _ => false,
        }
    }
}
