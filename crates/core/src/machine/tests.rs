//! The transition table, row by row. Each test plays the shell: it looks at effects and answers with inputs.

mod capacity;
mod handles;
mod order;
mod pace;
mod pace_model;
mod proofs;
mod publishing;
mod redeliveries;
mod refusals;
mod settings;
mod settling;
mod start_and_drain;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tencent_vod_event::{Event, SubAppId};

use super::*;
use crate::clock::{Moment, WallTime};
use crate::identity::{DeliveryId, EventId};
use crate::outcome::{JournalState, OutputState, Problem, PublishOutcome, RequestFailure};
use crate::outgoing::Outgoing;
use crate::write::{LetGo, PullId, Write, Written};

const SECOND: u64 = 1_000;

fn problem(words: &str) -> Problem {
    Problem::new(crate::error_code::ErrorCode::BrokerUnreachable, words)
}

fn settings() -> Settings {
    Settings {
        sub_apps: vec![SubAppId(0)],
        window: Duration::from_secs(30),
        requests_per_second: 100,
        relay: RelaySettings { publish_attempts: 3, ..RelaySettings::default() },
        seed: 7,
    }
}

fn with(relay: RelaySettings) -> Settings {
    Settings { relay, ..settings() }
}

/// A core with its shell played by the test: what it asks for is kept until the test answers.
struct Play {
    core: Core,
    now: Moment,
    asked: Vec<Effect>,
    /// The answers that the journal was asked to record.
    pulled: HashMap<PullId, Arc<Pulled>>,
    next_row: i64,
}

impl Play {
    fn new(settings: Settings) -> Self {
        let now = Moment(1_000_000);
        let mut play = Self::of(Core::new(settings, now), now, 1);
        play.give(Input::Output(OutputState::Up));
        let Effect::Write(Write::Load { .. }) = play.one(|e| matches!(e, Effect::Write(Write::Load { .. })))
        else {
            unreachable!()
        };
        play.give(Input::Written(Written::Loaded(Vec::new())));
        play
    }

    fn of(core: Core, now: Moment, next_row: i64) -> Self {
        Self { core, now, asked: Vec::new(), pulled: HashMap::new(), next_row }
    }

    fn give(&mut self, input: Input) {
        let effects = self.core.handle(self.now, input);
        self.asked(effects);
    }

    fn asked(&mut self, effects: Vec<Effect>) {
        let records = effects.iter().filter_map(|effect| match effect {
            Effect::Write(Write::Record(pulled)) => Some((pulled.pull, Arc::clone(pulled))),
            _ => None,
        });
        self.pulled.extend(records);
        self.asked.extend(effects);
    }

    fn written(&mut self, pull: PullId, recorded: Vec<Recorded>) -> Input {
        Input::Written(Written::Recorded(self.pulled.remove(&pull).unwrap(), recorded))
    }

    fn give_recorded(&mut self, pull: PullId, recorded: Vec<Recorded>) {
        let input = self.written(pull, recorded);
        self.give(input);
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(wake) = self.core.next_wake().filter(|wake| *wake <= end) {
            self.now = wake.max(self.now + Duration::from_millis(1));
            self.give(Input::Tick);
        }
        self.now = end;
        self.give(Input::Tick);
    }

    fn take(&mut self, wanted: impl Fn(&Effect) -> bool) -> Vec<Effect> {
        let (taken, left) = std::mem::take(&mut self.asked).into_iter().partition(|e| wanted(e));
        self.asked = left;
        taken
    }

    #[track_caller]
    fn one(&mut self, wanted: impl Fn(&Effect) -> bool) -> Effect {
        let mut taken = self.take(wanted);
        assert_eq!(taken.len(), 1, "expected one such effect, got {taken:?}; others: {:?}", self.asked);
        taken.remove(0)
    }

    #[track_caller]
    fn none(&mut self, wanted: impl Fn(&Effect) -> bool) {
        let taken = self.take(wanted);
        assert!(taken.is_empty(), "unexpected: {taken:?}");
    }

    /// The pulls that are asked for.
    fn pulls(&mut self) -> Vec<PullId> {
        let pulls = self.take(is_pull).into_iter();
        pulls
            .filter_map(|effect| if let Effect::Pull { pull, .. } = effect { Some(pull) } else { None })
            .collect()
    }

    /// Answers the one poll under way with these handles (one event each), and commits their record as new events.
    #[track_caller]
    fn deliver(&mut self, handles: &[&str]) -> Vec<EventId> {
        let ids: Vec<EventId> = handles.iter().map(|_| self.row()).collect();
        let known: Vec<_> = ids.iter().map(|id| (*id, Progress::default(), false)).collect();
        self.deliver_known(handles, &known);
        ids
    }

    #[track_caller]
    fn deliver_known(&mut self, handles: &[&str], known: &[(EventId, Progress, bool)]) {
        let pull = self.answer(handles);
        self.recorded(pull, known);
    }

    fn recorded(&mut self, pull: PullId, known: &[(EventId, Progress, bool)]) {
        let recorded = known.iter().map(|(event, progress, redelivered)| Recorded {
            event: *event,
            delivery: DeliveryId(self.row().0),
            occurrence: 1,
            redelivered: *redelivered,
            progress: *progress,
        });
        let recorded = recorded.collect();
        self.give_recorded(pull, recorded);
    }

    #[track_caller]
    fn answer(&mut self, handles: &[&str]) -> PullId {
        if !self.asked.iter().any(is_pull) {
            // The quota lets one request through every ten milliseconds.
            self.pass(10);
        }
        let Effect::Pull { pull, sub_app } = self.one(is_pull) else { unreachable!() };
        let events = handles.iter().map(|handle| Arc::new(event(sub_app, handle))).collect();
        let (sent_at, received_at) = (self.now, self.now);
        let answer = Answer { request_id: "r".into(), events };
        self.give(Input::Pulled { pull, sent_at, received_at, pulled_at: WallTime(0), result: Ok(answer) });
        if !handles.is_empty() {
            self.one(|e| matches!(e, Effect::Write(Write::Record(_))));
        }
        pull
    }

    fn row(&mut self) -> EventId {
        self.next_row += 1;
        EventId(self.next_row)
    }

    fn pull_fails(&mut self, pull: PullId, failure: RequestFailure) {
        let (sent_at, received_at) = (self.now, self.now);
        let result = Err(failure);
        self.give(Input::Pulled { pull, sent_at, received_at, pulled_at: WallTime(0), result });
    }

    /// Answers all publishes under way.
    fn broker_says(&mut self, outcome: &PublishOutcome) {
        for effect in self.take(is_publish) {
            let Effect::Publish { event, .. } = effect else { unreachable!() };
            self.give(Input::Published { event, outcome: outcome.clone() });
        }
    }

    /// Acks all publishes under way, in one step, and commits that.
    fn all_are_published(&mut self) {
        self.all_are_acked();
        self.commit();
    }

    fn all_are_acked(&mut self) {
        let acked = self.take(is_publish).into_iter().map(|effect| match effect {
            Effect::Publish { event, .. } => Input::Published { event, outcome: PublishOutcome::Acked },
            other => panic!("{other:?}"),
        });
        let effects = self.core.step(self.now, acked);
        self.asked(effects);
    }

    /// Commits what is asked to be committed about publishes.
    fn commit(&mut self) {
        for effect in self.take(|e| {
            matches!(
                e,
                Effect::Write(Write::Published(_))
                    | Effect::Write(Write::Failed(_))
                    | Effect::Write(Write::Parked(_))
            )
        }) {
            self.give(Input::Written(match effect {
                Effect::Write(Write::Published(events)) => Written::Published(events),
                Effect::Write(Write::Failed(failed)) => Written::Failed(failed),
                Effect::Write(Write::Parked(events)) => Written::Parked(events),
                _ => unreachable!(),
            }));
        }
    }

    #[track_caller]
    fn confirm_request(&mut self) -> (ConfirmId, Vec<String>, Moment) {
        let Effect::Confirm { request, handles, cutoff, .. } = self.one(is_confirm) else { unreachable!() };
        (request, handles.into_iter().map(|h| h.0.to_string()).collect(), cutoff)
    }

    #[track_caller]
    fn confirmed(&mut self, handles: &[&str]) {
        let (request, got, _) = self.confirm_request();
        assert_eq!(got, handles);
        self.give(Input::Confirmed { request, result: Ok(()) });
        let committed = self.one(|e| matches!(e, Effect::Write(Write::Confirmed(_))));
        let Effect::Write(Write::Confirmed(deliveries)) = committed else { unreachable!() };
        self.give(Input::Written(Written::Confirmed(deliveries)));
    }
}

use crate::identity::{Progress, Recorded};
use crate::write::{Loaded, Pulled};

const PUBLISHED: Progress = Progress { published: true, parked: false, confirmed: false };

fn event(sub_app: SubAppId, handle: &str) -> Event {
    let handle = if handle.is_empty() { String::new() } else { format!(r#""EventHandle":"{handle}","#) };
    Event::parse(sub_app, Bytes::from(format!(r#"{{{handle}"EventType":"T"}}"#))).unwrap()
}

fn outgoing(event: Event) -> Outgoing {
    Outgoing::new(Arc::new(event), 1, false, WallTime(0), "r".into())
}

fn is_pull(effect: &Effect) -> bool {
    matches!(effect, Effect::Pull { .. })
}

fn is_publish(effect: &Effect) -> bool {
    matches!(effect, Effect::Publish { .. })
}

fn is_confirm(effect: &Effect) -> bool {
    matches!(effect, Effect::Confirm { .. })
}

fn unknown(suspect: bool) -> PublishOutcome {
    PublishOutcome::Unknown { message: "lost".into(), suspect }
}

fn returned() -> PublishOutcome {
    PublishOutcome::Returned { code: 312, text: "NO_ROUTE".into() }
}

#[test]
fn the_whole_way_each_commit_before_its_consequence() {
    let mut play = Play::new(settings());
    let pull = play.answer(&["h"]);
    play.none(is_publish);
    let event = play.row();
    let recorded = Recorded {
        event,
        delivery: DeliveryId(9),
        occurrence: 1,
        redelivered: false,
        progress: Progress::default(),
    };
    play.give_recorded(pull, vec![recorded]);
    play.broker_says(&PublishOutcome::Acked);
    play.none(is_confirm);
    play.commit();
    let (request, handles, cutoff) = play.confirm_request();
    assert_eq!((handles, cutoff), (vec!["h".to_owned()], play.now + Duration::from_secs(27)));
    play.give(Input::Confirmed { request, result: Ok(()) });
    let Effect::Write(Write::Confirmed(confirmed)) =
        play.one(|e| matches!(e, Effect::Write(Write::Confirmed(_))))
    else {
        unreachable!()
    };
    assert_eq!((confirmed[0].delivery, confirmed[0].event), (DeliveryId(9), event));
    assert_eq!((play.core.load().events, play.core.load().handles), (0, 0));
}

#[test]
fn confirm_after_journal_confirms_at_once_and_publishes_as_well() {
    let mut play =
        Play::new(with(RelaySettings { confirm_after: ConfirmAfter::Journal, ..settings().relay }));
    play.deliver(&["h"]);
    play.confirmed(&["h"]);
    assert_eq!(play.core.load().events, 1);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.none(is_confirm);
    assert_eq!(play.core.load().events, 0);
}
