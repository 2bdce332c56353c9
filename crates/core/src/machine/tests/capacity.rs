//! How many events are in flight, and when nothing is pulled.

use super::*;

#[test]
fn what_is_full_waits_for_commits_alone_when_nothing_else_is_under_way() {
    let mut play = Play::new(with(RelaySettings { max_in_flight: 16, ..settings().relay }));
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
    let mut play = Play::new(with(RelaySettings {
        confirm_after: ConfirmAfter::Journal,
        max_in_flight: 64,
        ..settings().relay
    }));
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
fn with_confirm_after_journal_hands_full_of_unpublished_events_do_not_stop_the_pulls() {
    let now = Moment(5_000_000);
    let confirm_after = ConfirmAfter::Journal;
    let core = Core::new(with(RelaySettings { max_in_flight: 64, confirm_after, ..settings().relay }), now);
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
    let core = Core::new(with(RelaySettings { max_in_flight: 64, ..settings().relay }), now);
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
fn what_is_held_is_bounded() {
    let mut play = Play::new(with(RelaySettings { max_in_flight: 48, ..settings().relay }));
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
