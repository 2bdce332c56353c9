//! The transition table, row by row. Each test plays the shell: it looks at effects and answers with inputs.

mod order;
mod pace;
mod pace_model;
mod proofs;
mod refusals;
mod settings;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tencent_vod_event::{Event, SubAppId};

use super::*;
use crate::clock::{Moment, WallTime};
use crate::identity::{DeliveryId, EventId};
use crate::lease::Window;
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
        confirm_after: ConfirmAfter::Publish,
        window: Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) },
        max_in_flight: 1024,
        idle_backoff_min: Duration::from_millis(200),
        idle_backoff_max: Duration::from_secs(5),
        publish_attempts: 3,
        requests_per_second: 100,
        seed: 7,
    }
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
fn what_is_full_waits_for_commits_alone_when_nothing_else_is_under_way() {
    let mut play = Play::new(Settings { max_in_flight: 16, ..settings() });
    let handles: Vec<String> = (0..16).map(|n| format!("h{n}")).collect();
    let handles: Vec<&str> = handles.iter().map(String::as_str).collect();
    let pull = play.answer(&handles);
    assert!(play.core.only_commits_pending(), "its record is all that can happen");
    let new: Vec<_> = handles.iter().map(|_| (play.row(), Progress::default(), false)).collect();
    play.recorded(pull, &new);
    assert!(!play.core.only_commits_pending(), "publishes are under way");
    play.all_are_acked();
    assert!(play.core.only_commits_pending(), "that of the acks is all that can happen");
    play.commit();
    assert!(!play.core.only_commits_pending(), "a confirm is under way");
    let (request, ..) = play.confirm_request();
    play.give(Input::Confirmed { request, result: Ok(()) });
    assert!(!play.core.only_commits_pending(), "there is capacity for a pull again");
    // One with capacity left pulls on, though it may wait for the quota.
    let mut play = Play::new(settings());
    play.answer(&["h"]);
    assert!(!play.core.only_commits_pending());
}

#[test]
fn confirm_after_journal_confirms_at_once_and_publishes_as_well() {
    let mut play = Play::new(Settings { confirm_after: ConfirmAfter::Journal, ..settings() });
    play.deliver(&["h"]);
    play.confirmed(&["h"]);
    assert_eq!(play.core.load().events, 1);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.none(is_confirm);
    assert_eq!(play.core.load().events, 0);
}

#[test]
fn nacked_is_tried_again_for_as_long_as_it_takes() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    for _ in 0..20 {
        play.broker_says(&PublishOutcome::Nacked);
        play.none(is_publish);
        play.commit();
        play.none(is_publish);
        play.pass(301 * SECOND);
    }
    play.broker_says(&PublishOutcome::Acked);
    play.none(|e| matches!(e, Effect::Write(Write::Parked(_))));
}

#[test]
fn returned_is_parked_after_the_attempts_and_its_handle_is_confirmed() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    for _ in 0..2 {
        play.broker_says(&returned());
        play.commit();
        play.pass(10 * SECOND);
    }
    play.broker_says(&returned());
    let Effect::Write(Write::Parked(parked)) = play.one(|e| matches!(e, Effect::Write(Write::Parked(_))))
    else {
        unreachable!()
    };
    assert_eq!(&*parked[0].1.message, "unroutable: 312 NO_ROUTE");
    play.none(is_confirm);
    play.give(Input::Written(Written::Parked(parked)));
    play.confirmed(&["h"]);
}

#[test]
fn a_refused_publish_is_parked_after_the_attempts() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    for _ in 0..3 {
        play.broker_says(&PublishOutcome::ChannelError { code: 406, text: "too large".into() });
        play.take(|e| matches!(e, Effect::Write(Write::Failed(_)))).into_iter().for_each(|effect| {
            let Effect::Write(Write::Failed(failed)) = effect else { unreachable!() };
            assert!(!failed[0].uncertain);
            play.give(Input::Written(Written::Failed(failed)));
        });
        play.pass(10 * SECOND);
    }
    let Effect::Write(Write::Parked(parked)) = play.one(|e| matches!(e, Effect::Write(Write::Parked(_))))
    else {
        unreachable!()
    };
    assert_eq!(&*parked[0].1.message, "refused by the broker: 406 too large");
}

#[test]
fn a_missing_exchange_or_permission_parks_nothing() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    for code in [403, 404].repeat(10) {
        play.broker_says(&PublishOutcome::ChannelError { code, text: "no".into() });
        play.none(|e| matches!(e, Effect::Write(Write::Parked(_))));
        play.commit();
        play.pass(31 * SECOND);
    }
    play.one(is_publish);
}

#[test]
fn unknown_is_on_record_as_uncertain_before_it_is_published_again_and_is_never_parked() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    for _ in 0..10 {
        play.broker_says(&unknown(false));
        let Effect::Write(Write::Failed(failed)) = play.one(|e| matches!(e, Effect::Write(Write::Failed(_))))
        else {
            unreachable!()
        };
        assert!(failed[0].uncertain);
        play.pass(40 * SECOND);
        play.none(is_publish);
        play.give(Input::Written(Written::Failed(failed)));
        play.pass(40 * SECOND);
    }
    play.broker_says(&PublishOutcome::Acked);
}

#[test]
fn suspects_are_published_alone() {
    let mut play = Play::new(settings());
    play.deliver(&["h1", "h2"]);
    play.broker_says(&unknown(true));
    play.commit();
    play.pass(SECOND);
    let again = play.take(is_publish);
    assert!(again.len() == 2 && again.iter().all(|e| matches!(e, Effect::Publish { alone: true, .. })));
}

#[test]
fn unsent_is_tried_again_without_a_record() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    play.broker_says(&PublishOutcome::Unsent);
    play.none(|e| matches!(e, Effect::Write(Write::Failed(_))) || is_publish(e));
    play.pass(SECOND);
    play.one(is_publish);
}

#[test]
fn one_events_trouble_delays_no_other() {
    let mut play = Play::new(settings());
    play.deliver(&["good", "bad"]);
    let publishes = play.take(is_publish);
    for (effect, outcome) in publishes.into_iter().zip([PublishOutcome::Acked, PublishOutcome::Nacked]) {
        let Effect::Publish { event, .. } = effect else { unreachable!() };
        play.give(Input::Published { event, outcome });
    }
    play.commit();
    play.confirmed(&["good"]);
}

#[test]
fn one_handle_on_two_events_is_confirmed_when_both_are_safe() {
    let mut play = Play::new(settings());
    play.deliver(&["same", "same"]);
    let publishes = play.take(is_publish);
    let ids: Vec<_> = publishes
        .iter()
        .map(|e| if let Effect::Publish { event, .. } = e { *event } else { unreachable!() })
        .collect();
    play.give(Input::Published { event: ids[0], outcome: PublishOutcome::Acked });
    play.commit();
    play.none(is_confirm);
    play.give(Input::Published { event: ids[1], outcome: PublishOutcome::Acked });
    play.commit();
    play.confirmed(&["same"]);
    assert_eq!(play.core.load().events, 0);
}

#[test]
fn a_handle_in_a_request_does_not_cover_an_event_that_came_under_it_later() {
    let mut play = Play::new(settings());
    play.deliver(&["same"]);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    let (request, ..) = play.confirm_request();
    play.deliver(&["same"]);
    play.give(Input::Confirmed { request, result: Ok(()) });
    play.one(|e| matches!(e, Effect::Write(Write::Confirmed(_))));
    play.none(is_confirm);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.confirmed(&["same"]);
}

#[test]
fn a_failed_request_waits_for_the_event_that_came_under_its_handle_meanwhile() {
    let mut play = Play::new(settings());
    play.deliver(&["same"]);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    let (request, ..) = play.confirm_request();
    play.deliver(&["same"]);
    play.give(Input::Confirmed { request, result: Err(RequestFailure::Transient) });
    play.pass(5 * SECOND);
    play.none(is_confirm);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.confirmed(&["same"]);
    assert_eq!((play.core.load().events, play.core.load().handles), (0, 0));
}

#[test]
fn a_lapsed_handle_is_let_go_and_the_redelivery_is_confirmed_without_publishing() {
    let mut play = Play::new(settings());
    let ids = play.deliver(&["h1"]);
    play.pass(28 * SECOND);
    assert_eq!(play.core.load().handles, 0);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.none(is_confirm);
    play.deliver_known(&["h2"], &[(ids[0], PUBLISHED, true)]);
    play.none(is_publish);
    play.confirmed(&["h2"]);
}

#[test]
fn a_redelivery_before_the_ack_brings_a_fresh_handle_to_the_event() {
    let mut play = Play::new(settings());
    let ids = play.deliver(&["h1"]);
    play.pass(28 * SECOND);
    play.deliver_known(&["h2"], &[(ids[0], Progress::default(), true)]);
    assert_eq!(play.take(is_publish).len(), 1, "published once");
    play.give(Input::Published { event: ids[0], outcome: PublishOutcome::Acked });
    play.commit();
    play.confirmed(&["h2"]);
}

#[test]
fn a_handle_that_comes_twice_is_confirmed_under_the_earlier_of_its_leases() {
    let mut play = Play::new(settings());
    let ids = play.deliver(&["h"]);
    let first = play.now;
    play.pass(10);
    let Effect::Pull { pull, sub_app } = play.one(is_pull) else { unreachable!() };
    // This answer was overtaken: its pull left five seconds earlier.
    let sent_at = Moment(first.0 - 5 * SECOND);
    let answer = Answer { request_id: "r".into(), events: vec![Arc::new(event(sub_app, "h"))] };
    let (received_at, pulled_at) = (play.now, WallTime(0));
    play.give(Input::Pulled { pull, sent_at, received_at, pulled_at, result: Ok(answer) });
    play.one(|e| matches!(e, Effect::Write(Write::Record(_))));
    play.recorded(pull, &[(ids[0], Progress::default(), true)]);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    let (_, _, cutoff) = play.confirm_request();
    assert_eq!(cutoff, sent_at + Duration::from_secs(27));
}

#[test]
fn a_confirmed_event_that_comes_again_under_its_handle_is_confirmed_again() {
    let mut play = Play::new(settings());
    let ids = play.deliver(&["h1"]);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.confirmed(&["h1"]);
    let progress = Progress { confirmed: true, ..PUBLISHED };
    play.deliver_known(&["h1"], &[(ids[0], progress, true)]);
    play.none(is_publish);
    play.confirmed(&["h1"]);
}

#[test]
fn a_parked_event_that_comes_again_is_confirmed_and_not_published() {
    let mut play = Play::new(settings());
    let event = play.row();
    let parked = Progress { parked: true, ..Progress::default() };
    play.deliver_known(&["h2"], &[(event, parked, true)]);
    play.none(is_publish);
    play.confirmed(&["h2"]);
}

#[test]
fn no_confirm_leaves_at_or_after_the_cutoff() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    play.pass(27 * SECOND - 50);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.none(is_confirm);
    assert_eq!(play.core.load().handles, 0);
}

#[test]
fn a_lost_answer_is_tried_again_while_the_lease_allows_and_then_put_on_record() {
    let mut play = Play::new(settings());
    let start = play.now;
    play.deliver(&["h"]);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    let mut requests = 0;
    while play.now.since(start) < Duration::from_secs(40) {
        for effect in play.take(is_confirm) {
            let Effect::Confirm { request, cutoff, .. } = effect else { unreachable!() };
            assert!(play.now < cutoff);
            requests += 1;
            play.give(Input::Confirmed { request, result: Err(RequestFailure::Transient) });
        }
        play.pass(100);
    }
    assert!((5..60).contains(&requests), "{requests}");
    let Effect::Write(Write::LetGo(deliveries, LetGo::Lost)) =
        play.one(|e| matches!(e, Effect::Write(Write::LetGo(..))))
    else {
        unreachable!()
    };
    assert_eq!(deliveries.len(), 1);
}

#[test]
fn a_rejected_request_is_halved_until_the_bad_handle_stands_alone() {
    let mut play = Play::new(settings());
    let handles: Vec<String> = (0..16).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = handles.iter().map(String::as_str).collect();
    play.deliver(&names);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    let (mut requests, mut confirmed, mut refused) = (0, 0, 0);
    for _ in 0..200 {
        for effect in play.take(is_confirm) {
            let Effect::Confirm { request, handles, .. } = effect else { unreachable!() };
            assert!(handles.len() <= 16);
            requests += 1;
            let bad = handles.iter().any(|h| &*h.0 == "h11");
            play.give(Input::Confirmed {
                request,
                result: if bad { Err(RequestFailure::Refused) } else { Ok(()) },
            });
        }
        for effect in
            play.take(|e| matches!(e, Effect::Write(Write::Confirmed(_)) | Effect::Write(Write::LetGo(..))))
        {
            match effect {
                Effect::Write(Write::Confirmed(deliveries)) => confirmed += deliveries.len(),
                Effect::Write(Write::LetGo(deliveries, LetGo::Refused)) => refused += deliveries.len(),
                other => panic!("{other:?}"),
            }
        }
        play.pass(50);
    }
    assert_eq!((confirmed, refused), (15, 1));
    assert!(requests <= 12, "{requests}");
}

#[test]
fn a_request_carries_sixteen_handles_at_most_and_none_twice() {
    let mut play = Play::new(settings());
    for round in 0..4 {
        let handles: Vec<String> = (0..16).map(|n| format!("r{round}-{}", n / 2)).collect();
        play.deliver(&handles.iter().map(String::as_str).collect::<Vec<_>>());
        // A full batch asks for more polls than one; only one is answered here.
        let mut pulls = play.take(is_pull);
        play.asked.extend(pulls.pop());
    }
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    for _ in 0..100 {
        for effect in play.take(is_confirm) {
            let Effect::Confirm { request, handles, .. } = effect else { unreachable!() };
            let distinct: HashSet<_> = handles.iter().collect();
            assert!(handles.len() <= 16 && distinct.len() == handles.len());
            play.give(Input::Confirmed { request, result: Ok(()) });
        }
        play.pass(20);
    }
    assert_eq!(play.core.load().handles, 0);
}

#[test]
fn a_handle_that_is_ready_leaves_at_once_and_later_ones_share_a_request() {
    let mut play = Play::new(settings());
    play.deliver(&["a"]);
    play.deliver(&["b"]);
    play.deliver(&["c"]);
    play.broker_says(&PublishOutcome::Acked);
    let commits = play.take(|e| matches!(e, Effect::Write(Write::Published(_))));
    for effect in commits {
        let Effect::Write(Write::Published(events)) = effect else { unreachable!() };
        play.give(Input::Written(Written::Published(events)));
    }
    let (request, first, _) = play.confirm_request();
    assert_eq!(first, ["a"]);
    play.give(Input::Confirmed { request, result: Ok(()) });
    let (_, second, _) = play.confirm_request();
    assert_eq!(second, ["b", "c"]);
}

#[test]
fn an_event_without_a_handle_is_published_and_never_confirmed() {
    let mut play = Play::new(settings());
    play.deliver(&[""]);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.pass(SECOND);
    play.none(is_confirm);
    assert_eq!(play.core.load().events, 0);
}

#[test]
fn while_the_output_is_away_nothing_is_pulled_and_then_everything_goes_on() {
    let mut play = Play::new(settings());
    for state in [OutputState::Blocked(problem("alarm")), OutputState::Down(problem("gone"))] {
        // The poll under way when the output goes away is recorded all the same.
        play.give(Input::Output(state));
        let event = play.row();
        play.deliver_known(&["h"], &[(event, Progress::default(), false)]);
        play.pass(60 * SECOND);
        play.none(|e| is_publish(e) || is_pull(e));
        play.give(Input::Output(OutputState::Up));
        play.broker_says(&PublishOutcome::Acked);
        play.commit();
        assert!(play.asked.iter().any(is_pull));
    }
}

#[test]
fn while_the_journal_is_down_nothing_is_pulled() {
    let mut play = Play::new(settings());
    play.answer(&[]);
    play.give(Input::Journal(JournalState::Down(problem("disk full"))));
    play.pass(60 * SECOND);
    play.none(is_pull);
    play.give(Input::Journal(JournalState::Up));
    play.one(is_pull);
}

#[test]
fn with_confirm_after_journal_the_backlog_waits_in_the_journal_and_drains_in_order() {
    let mut play =
        Play::new(Settings { confirm_after: ConfirmAfter::Journal, max_in_flight: 64, ..settings() });
    play.give(Input::Output(OutputState::Down(problem("gone"))));
    let mut stored = Vec::new();
    for n in 0..50 {
        let handle = format!("h{n}");
        stored.extend(play.deliver(&[handle.as_str()]));
        play.confirmed(&[handle.as_str()]);
        play.none(is_publish);
    }
    assert_eq!(play.core.load().events, 0, "the journal has them, not the memory");
    play.give(Input::Output(OutputState::Up));
    let mut published = Vec::new();
    while let Some(Effect::Write(Write::Load { after, limit })) =
        play.take(|e| matches!(e, Effect::Write(Write::Load { .. }))).pop()
    {
        let page: Vec<Loaded> = stored
            .iter()
            .filter(|id| **id > after)
            .take(limit as usize)
            .map(|id| Loaded { event: *id, outgoing: outgoing(event(SubAppId(0), "x")), confirmed: true })
            .collect();
        play.give(Input::Written(Written::Loaded(page)));
        for effect in play.take(is_publish) {
            let Effect::Publish { event, .. } = effect else { unreachable!() };
            published.push(event);
            play.give(Input::Published { event, outcome: PublishOutcome::Acked });
        }
        play.commit();
    }
    assert_eq!(published, stored);
    assert!(!play.core.load().backlog);
}

#[test]
fn after_a_start_the_journals_unpublished_events_go_out_without_waiting_for_a_redelivery() {
    let now = Moment(5_000_000);
    let mut play = Play::of(Core::new(settings(), now), now, 100);
    play.give(Input::Tick);
    play.none(|e| matches!(e, Effect::Write(Write::Load { .. })) || is_pull(e));
    play.give(Input::Output(OutputState::Up));
    let Effect::Write(Write::Load { after, .. }) =
        play.one(|e| matches!(e, Effect::Write(Write::Load { .. })))
    else {
        unreachable!()
    };
    assert_eq!(after, EventId(0));
    let outgoing = outgoing(event(SubAppId(0), "h"));
    play.give(Input::Written(Written::Loaded(vec![Loaded {
        event: EventId(3),
        outgoing,
        confirmed: false,
    }])));
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    // The earlier run may have had further events under this handle: it comes again for each of them.
    play.none(is_confirm);
    assert_eq!(play.core.load().events, 0);
}

#[test]
fn a_handle_that_was_taken_back_and_is_ready_again_in_one_step_is_queued_once() {
    let mut play = Play::new(settings());
    let unsafe_yet = play.deliver(&[""])[0];
    play.broker_says(&PublishOutcome::Acked);
    play.one(|e| matches!(e, Effect::Write(Write::Published(_))));
    let pull = play.answer(&["h", "h"]);
    let recorded = [(EventId(77), PUBLISHED), (unsafe_yet, Progress::default())].map(|(event, progress)| {
        Recorded { event, delivery: DeliveryId(100 + event.0), occurrence: 1, redelivered: true, progress }
    });
    let published = Input::Written(Written::Published([unsafe_yet].into()));
    let inputs = [play.written(pull, recorded.to_vec()), published];
    let effects = play.core.step(play.now, inputs);
    play.asked(effects);
    let (request, _, _) = play.confirm_request();
    play.give(Input::Confirmed { request, result: Err(RequestFailure::Refused) });
    play.none(is_confirm);
    assert_eq!((play.core.load().events, play.core.load().handles), (0, 0));
}

#[test]
fn with_confirm_after_journal_hands_full_of_unpublished_events_do_not_stop_the_pulls() {
    let now = Moment(5_000_000);
    let confirm_after = ConfirmAfter::Journal;
    let core = Core::new(Settings { max_in_flight: 64, confirm_after, ..settings() }, now);
    let mut play = Play::of(core, now, 100);
    play.give(Input::Output(OutputState::Up));
    let Effect::Write(Write::Load { limit, .. }) =
        play.one(|e| matches!(e, Effect::Write(Write::Load { .. })))
    else {
        unreachable!()
    };
    let stored = (1..=i64::from(limit)).map(|id| Loaded {
        event: EventId(id),
        outgoing: outgoing(event(SubAppId(0), "x")),
        confirmed: true,
    });
    play.give(Input::Written(Written::Loaded(stored.collect())));
    play.give(Input::Output(OutputState::Down(problem("gone"))));
    play.broker_says(&PublishOutcome::Unsent);
    play.answer(&[]);
    play.pass(10 * SECOND);
    play.one(is_pull);
}

#[test]
fn what_the_journal_is_about_to_hand_out_takes_room_like_what_is_in_hand() {
    let now = Moment(5_000_000);
    let core = Core::new(Settings { max_in_flight: 64, ..settings() }, now);
    let mut play = Play::of(core, now, 100);
    play.give(Input::Output(OutputState::Up));
    let Effect::Write(Write::Load { limit, .. }) =
        play.one(|e| matches!(e, Effect::Write(Write::Load { .. })))
    else {
        unreachable!()
    };
    assert_eq!(limit, 64);
    play.pass(SECOND);
    play.none(is_pull);
    play.give(Input::Written(Written::Loaded(Vec::new())));
    play.one(is_pull);
}

#[test]
fn an_idle_answer_long_after_the_lapse_settles_and_an_earlier_one_does_not() {
    let mut play = Play::new(settings());
    let settles = |e: &Effect| matches!(e, Effect::Write(Write::Settle { .. }));
    play.pass(40 * SECOND);
    play.answer(&[]);
    play.one(settles);
    play.give(Input::Written(Written::Settled(0)));
    play.pass(SECOND);
    play.deliver(&["h"]);
    let received = play.now;
    play.pass(28 * SECOND);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    for _ in 0..4 {
        play.answer(&[]);
        play.none(settles);
        play.pass(SECOND);
    }
    play.pass(6 * SECOND);
    play.answer(&[]);
    let Effect::Write(Write::Settle { received_before, .. }) = play.one(settles) else { unreachable!() };
    assert!(received_before > received);
    play.pass(6 * SECOND);
    play.answer(&[]);
    play.none(settles);
}

#[test]
fn a_lost_pull_answer_suspends_settling_because_idle_proves_nothing() {
    let mut play = Play::new(settings());
    let settles = |e: &Effect| matches!(e, Effect::Write(Write::Settle { .. }));
    play.pass(40 * SECOND);
    let Effect::Pull { pull, .. } = play.one(is_pull) else { unreachable!() };
    play.pull_fails(pull, RequestFailure::Transient);
    play.pass(20 * SECOND);
    play.answer(&[]);
    play.none(settles);
    play.pass(20 * SECOND);
    play.answer(&[]);
    play.one(settles);
}

#[test]
fn what_is_held_is_bounded() {
    let mut play = Play::new(Settings { max_in_flight: 48, ..settings() });
    let mut delivered = 0;
    for _ in 0..50 {
        for pull in play.pulls() {
            let handles: Vec<String> = (0..16).map(|n| format!("{delivered}-{n}")).collect();
            let events = handles.iter().map(|h| Arc::new(event(SubAppId(0), h))).collect();
            let (sent_at, received_at) = (play.now, play.now);
            let result = Ok(Answer { request_id: "r".into(), events });
            play.give(Input::Pulled { pull, sent_at, received_at, pulled_at: WallTime(0), result });
            let recorded = (0..16).map(|_| {
                let event = play.row();
                let progress = Progress::default();
                Recorded { event, delivery: DeliveryId(event.0), occurrence: 1, redelivered: false, progress }
            });
            let recorded = recorded.collect();
            play.give_recorded(pull, recorded);
            delivered += 16;
        }
        play.pass(SECOND / 2);
    }
    assert_eq!(delivered, 48);
    assert!(play.core.load().events <= 48);
}

#[test]
fn many_idle_sub_applications_each_have_their_poll() {
    let sub_apps = (0..500).map(SubAppId).collect();
    let play = Play::new(Settings { sub_apps, max_in_flight: 64, requests_per_second: 10_000, ..settings() });
    let mut play = play;
    play.pass(SECOND);
    assert_eq!(play.take(is_pull).len(), 500);
}

#[test]
fn a_drain_waits_for_the_poll_in_flight_and_finishes_what_it_brings() {
    let mut play = Play::new(settings());
    let finished = |e: &Effect| matches!(e, Effect::Finished);
    play.give(Input::Drain);
    play.none(finished);
    play.deliver(&["h"]);
    play.none(finished);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    let (request, ..) = play.confirm_request();
    play.none(finished);
    play.give(Input::Confirmed { request, result: Ok(()) });
    play.none(finished);
    let committed = play.one(|e| matches!(e, Effect::Write(Write::Confirmed(_))));
    let Effect::Write(Write::Confirmed(deliveries)) = committed else { unreachable!() };
    play.give(Input::Written(Written::Confirmed(deliveries)));
    play.one(finished);
    play.pass(60 * SECOND);
    play.none(|e| is_pull(e) || finished(e));
}

#[test]
fn a_drain_does_not_wait_for_a_broker_that_is_away() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    play.broker_says(&unknown(false));
    play.give(Input::Output(OutputState::Down(problem("gone"))));
    play.commit();
    play.give(Input::Drain);
    for pull in play.pulls() {
        let (sent_at, received_at) = (play.now, play.now);
        let result = Ok(Answer { request_id: "r".into(), events: Vec::new() });
        play.give(Input::Pulled { pull, sent_at, received_at, pulled_at: WallTime(0), result });
    }
    play.one(|e| matches!(e, Effect::Finished));
}
