//! The lane between the core and the journal.
//!
//! Commits are asked for in the core's order, and their answers come back in that order. The core relies on it: an event
//! that was read from the backlog must not be heard of after the commit that took it out of there.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::core::{self, Effect, FailedAttempt, Input, LetGo, Loaded, Parcel, PullId};
use super::{Arrived, RelayError};
use crate::clock::{Moment, WallTime};
use crate::event::SubAppId;
use crate::identity::{DeliveryId, EventId};
use crate::journal::{Answer, Attempt, Closed, HandleOutcome, Journal};
use crate::lease::{Lease, Window};
use crate::outcome::Trouble;

/// How many commits are asked for before the first of them is answered.
const ASKED_MAX: usize = 256;

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
    Parked(Vec<(EventId, Trouble)>),
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
            Effect::Pull { .. } | Effect::Publish { .. } | Effect::Confirm { .. } | Effect::Finished => {
                return None;
            }
        })
    }
}

/// Runs until the relay ends.
pub(super) async fn lane(
    journal: Journal,
    window: Window,
    mut work: mpsc::UnboundedReceiver<Work>,
    inputs: mpsc::UnboundedSender<Arrived>,
) -> Result<(), RelayError> {
    // Futures are polled first in the order in which they are pushed, and the journal's queue is fair: so they are queued
    // in that order, too.
    let mut asked = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(answer) = asked.next() => {
                let answer: Result<Input, Closed> = answer;
                super::send(&inputs, answer.map_err(|Closed| RelayError::Journal)?.into());
            }
            next = work.recv(), if asked.len() < ASKED_MAX => match next {
                Some(work) => asked.push_back(ask(&journal, window, work)),
                None if asked.is_empty() => return Ok(()),
                None => {}
            },
        }
    }
}

async fn ask(journal: &Journal, window: Window, work: Work) -> Result<Input, Closed> {
    let now = WallTime::now();
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
            journal.published(events.iter().map(|event| (*event, now)).collect()).await?;
            Ok(Input::PublishRecorded(events))
        }
        Work::Attempts(failed) => {
            let events = failed.iter().map(|attempt| attempt.event).collect();
            let attempts = failed
                .into_iter()
                .map(|FailedAttempt { event, uncertain, trouble }| Attempt {
                    event,
                    uncertain,
                    reason: trouble.to_string().into(),
                })
                .collect();
            journal.attempts(attempts).await?;
            Ok(Input::AttemptRecorded(events))
        }
        Work::Parked(events) => {
            let ids = events.iter().map(|(event, _)| *event).collect();
            journal
                .parked(events.into_iter().map(|(event, trouble)| (event, trouble.to_string())).collect())
                .await?;
            Ok(Input::ParkRecorded(ids))
        }
        Work::Confirmed(deliveries) => {
            journal.confirmed(deliveries, now).await?;
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
            journal.settle(sub_app, received_before, now).await?;
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
