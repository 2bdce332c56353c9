//! What becomes of events that the broker does not take.

use super::*;

const MINUTE: u64 = 60 * SECOND;

/// Answers each publish under way as `says` has it for its event, and commits what follows.
fn broker(play: &mut Play, says: impl Fn(EventId) -> PublishOutcome) -> Vec<EventId> {
    let mut answered = Vec::new();
    for effect in play.take(is_publish) {
        let Effect::Publish { event, .. } = effect else { unreachable!() };
        answered.push(event);
        play.give(Input::Published { event, outcome: says(event) });
    }
    play.commit();
    answered
}

fn parked(play: &Play) -> Vec<(EventId, Problem)> {
    let parked = play.asked.iter().filter_map(|effect| match effect {
        Effect::Write(Write::Parked(events)) => Some(events.to_vec()),
        _ => None,
    });
    parked.flatten().collect()
}

fn deliver(play: &mut Play, count: usize) -> Vec<EventId> {
    let handles: Vec<String> = (0..count).map(|n| format!("h{}-{n}", play.next_row)).collect();
    play.deliver(&handles.iter().map(String::as_str).collect::<Vec<_>>())
}

/// When an event of this play is published, for as long as it takes to park it.
fn attempts_until_parked(play: &mut Play, says: impl Fn(EventId) -> PublishOutcome) -> Vec<Moment> {
    let mut at = Vec::new();
    for _ in 0..2_000 {
        for effect in play.take(is_publish) {
            let Effect::Publish { event, .. } = effect else { unreachable!() };
            at.push(play.now);
            play.give(Input::Published { event, outcome: says(event) });
        }
        if !parked(play).is_empty() {
            return at;
        }
        play.commit();
        play.pass(SECOND);
    }
    panic!("never parked: {at:?}");
}

#[test]
fn a_nack_is_on_record_as_a_possible_duplicate_and_the_tries_slow_down_to_minutes() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    let mut waits = Vec::new();
    let mut last = play.now;
    for _ in 0..60 {
        play.broker_says(&PublishOutcome::Nacked);
        let Effect::Write(Write::Failed(failed)) = play.one(|e| matches!(e, Effect::Write(Write::Failed(_))))
        else {
            unreachable!()
        };
        assert!(failed[0].uncertain, "RabbitMQ may have stored it in some queue");
        play.give(Input::Written(Written::Failed(failed)));
        while !play.asked.iter().any(is_publish) {
            play.pass(SECOND);
        }
        waits.push(play.now.since(last));
        last = play.now;
    }
    assert!(waits[..5].iter().all(|wait| *wait <= Duration::from_secs(8)), "{waits:?}");
    let late = &waits[20..];
    assert!(late.iter().any(|wait| *wait > Duration::from_secs(150)), "{late:?}");
    assert!(
        late.iter().any(|wait| *wait < Duration::from_secs(100)),
        "the whole span is drawn from: {late:?}"
    );
    assert!(late.iter().all(|wait| *wait <= Duration::from_secs(302)), "{late:?}");
    assert!(parked(&play).is_empty());
}

#[test]
fn the_attempts_of_a_returned_event_are_spread_over_minutes() {
    for seed in 0..20 {
        let mut play =
            Play::new(Settings { seed, ..with(RelaySettings { publish_attempts: 5, ..settings().relay }) });
        play.deliver(&["h"]);
        let at = attempts_until_parked(&mut play, |_| returned());
        let took = at[4].since(at[0]);
        assert_eq!(at.len(), 5, "{at:?}");
        assert!((MINUTE..=6 * MINUTE).contains(&(took.as_millis() as u64)), "seed {seed}: {took:?}");
        assert!(at[1].since(at[0]) <= Duration::from_secs(3), "the first one soon: {at:?}");
    }
}

#[test]
fn an_event_that_is_returned_for_ten_minutes_is_parked_whatever_the_attempts() {
    let mut play = Play::new(with(RelaySettings { publish_attempts: 1_000, ..settings().relay }));
    play.deliver(&["h"]);
    let at = attempts_until_parked(&mut play, |_| returned());
    let took = at[at.len() - 1].since(at[0]).as_millis() as u64;
    assert!((10 * MINUTE..10 * MINUTE + 5 * SECOND).contains(&took), "{took} ms");
}

fn with_open_breaker(settings: Settings) -> (Play, Vec<EventId>) {
    let mut play = Play::new(settings);
    let events = deliver(&mut play, 16);
    for event in &events[..15] {
        play.give(Input::Published { event: *event, outcome: returned() });
    }
    assert_eq!(play.core.load().unroutable_since, None, "fifteen do not open it");
    play.give(Input::Published { event: events[15], outcome: returned() });
    play.take(is_publish);
    play.commit();
    assert!(play.core.load().unroutable_since.is_some() && play.core.load().paused);
    (play, events)
}

#[test]
fn while_nothing_is_routable_there_is_a_poll_every_thirty_seconds_and_the_first_ack_ends_it() {
    for confirm_after in [ConfirmAfter::Publish, ConfirmAfter::Journal] {
        let (mut play, events) = with_open_breaker(with(RelaySettings { confirm_after, ..settings().relay }));
        let begin = play.now;
        let mut polls = Vec::new();
        // The poll that was under way when the breaker opened is answered like any other.
        while play.now.since(begin) < Duration::from_secs(200) {
            for effect in play.take(is_pull) {
                let Effect::Pull { pull, .. } = effect else { unreachable!() };
                polls.push(play.now);
                play.give(Input::Pulled {
                    pull,
                    sent_at: play.now,
                    received_at: play.now,
                    pulled_at: WallTime(0),
                    result: Ok(Answer { request_id: "r".into(), events: Vec::new() }),
                });
            }
            broker(&mut play, |_| returned());
            assert!(parked(&play).is_empty(), "attempts do not count meanwhile");
            play.pass(500);
        }
        assert!((6..=8).contains(&polls.len()), "{confirm_after:?}: {polls:?}");
        for pair in polls[1..].windows(2) {
            assert!(pair[1].since(pair[0]) >= Duration::from_secs(30), "{polls:?}");
        }
        // The queue is bound again: a waiting event finds out within half a minute, and all others follow soon.
        let mut acked = Vec::new();
        let bound = play.now;
        while acked.len() < events.len() && play.now.since(bound) < Duration::from_secs(41) {
            acked.extend(broker(&mut play, |_| PublishOutcome::Acked));
            play.pass(500);
        }
        assert_eq!(acked.len(), events.len(), "{confirm_after:?}");
        assert!(play.core.load().unroutable_since.is_none() && !play.core.load().paused);
        assert!(parked(&play).is_empty());
    }
}

#[test]
fn while_nothing_is_routable_an_event_is_parked_after_ten_minutes_and_not_before() {
    let (mut play, events) =
        with_open_breaker(with(RelaySettings { publish_attempts: 2, ..settings().relay }));
    let begin = play.now;
    let mut gone = 0;
    while gone < events.len() && play.now.since(begin) < Duration::from_secs(700) {
        for effect in play.take(is_publish) {
            let Effect::Publish { event, .. } = effect else { unreachable!() };
            play.give(Input::Published { event, outcome: returned() });
        }
        let now_parked = parked(&play).len();
        if now_parked > 0 {
            let after = play.now.since(begin).as_millis() as u64;
            assert!((10 * MINUTE - SECOND..=10 * MINUTE + 2 * SECOND).contains(&after), "{after} ms");
        }
        gone += now_parked;
        play.commit();
        play.pass(500);
    }
    assert_eq!(gone, events.len());
}

#[test]
fn one_unroutable_type_among_routable_ones_is_parked_and_never_opens_the_breaker() {
    let mut play = Play::new(settings());
    let mut unroutable = 0;
    let mut gone = 0;
    for _ in 0..60 {
        let events = deliver(&mut play, 4);
        unroutable += 1;
        for event in &events[1..] {
            play.give(Input::Published { event: *event, outcome: PublishOutcome::Acked });
        }
        play.take(|effect| matches!(effect, Effect::Publish { event, .. } if events[1..].contains(event)));
        for effect in play.take(is_publish) {
            let Effect::Publish { event, .. } = effect else { unreachable!() };
            play.give(Input::Published { event, outcome: returned() });
        }
        gone += parked(&play).len();
        play.commit();
        assert_eq!(play.core.load().unroutable_since, None);
        play.pass(10);
    }
    let mut rounds = 0;
    while gone < unroutable && rounds < 200 {
        rounds += 1;
        deliver(&mut play, 1);
        let newest = EventId(play.next_row);
        for effect in play.take(is_publish) {
            let Effect::Publish { event, .. } = effect else { unreachable!() };
            let outcome = if event.0 + 2 >= newest.0 { PublishOutcome::Acked } else { returned() };
            play.give(Input::Published { event, outcome });
        }
        gone += parked(&play).len();
        play.commit();
        play.pass(SECOND);
    }
    assert_eq!(gone, unroutable);
}

#[test]
fn an_event_that_breaks_the_connection_goes_alone_and_is_parked_and_its_neighbours_get_through() {
    let mut play = Play::new(settings());
    let events = deliver(&mut play, 8);
    let culprit = events[3];
    let (mut acked, mut losses, mut alone) = (Vec::new(), 0, 0);
    let begin = play.now;
    while parked(&play).is_empty() {
        assert!(play.now.since(begin) < Duration::from_secs(300), "never parked");
        let batch = play.take(is_publish);
        let breaks = batch.iter().any(|e| matches!(e, Effect::Publish { event, .. } if *event == culprit));
        if breaks {
            losses += 1;
            alone += usize::from(batch.len() == 1);
            let down = Problem::new(crate::error_code::ErrorCode::BrokerUnreachable, "gone");
            play.give(Input::Output(OutputState::Down(down)));
        }
        for effect in batch {
            let Effect::Publish { event, .. } = effect else { unreachable!() };
            let outcome = if breaks { unknown(false) } else { PublishOutcome::Acked };
            if !breaks {
                acked.push((event, play.now.since(begin)));
            }
            play.give(Input::Published { event, outcome });
        }
        if parked(&play).is_empty() {
            play.commit();
            if breaks {
                play.give(Input::Output(OutputState::Up));
            }
            play.pass(100);
        }
    }
    let gone = parked(&play);
    assert_eq!((gone[0].0, gone[0].1.error_code), (culprit, crate::error_code::ErrorCode::PublishUnanswered));
    assert_eq!((acked.len(), alone), (7, 3), "{losses} losses");
    assert!(acked.iter().all(|(_, after)| *after < Duration::from_secs(10)), "{acked:?}");
}

#[test]
fn a_broker_that_breaks_under_every_publish_parks_nothing() {
    let mut play = Play::new(settings());
    deliver(&mut play, 3);
    for _ in 0..200 {
        broker(&mut play, |_| unknown(false));
        assert!(parked(&play).is_empty());
        play.pass(10 * SECOND);
    }
}

#[test]
fn an_event_that_breaks_the_connection_does_not_take_the_last_capacity() {
    let mut play = Play::new(with(RelaySettings { max_in_flight: 16, ..settings().relay }));
    deliver(&mut play, 1);
    let begin = play.now;
    // With the event in hand there is no capacity for a whole answer, and without others nothing says that it is the culprit.
    while !play.asked.iter().any(is_pull) {
        assert!(play.now.since(begin) < Duration::from_secs(60), "the relay has no capacity to pull");
        broker(&mut play, |_| unknown(false));
        play.pass(SECOND);
    }
    let others = deliver(&mut play, 2);
    while parked(&play).is_empty() {
        assert!(play.now.since(begin) < Duration::from_secs(300), "never parked");
        let answered = play.take(is_publish).into_iter().filter_map(|effect| match effect {
            Effect::Publish { event, .. } => Some(event),
            _ => None,
        });
        for event in answered.collect::<Vec<_>>() {
            let outcome = if others.contains(&event) { PublishOutcome::Acked } else { unknown(false) };
            play.give(Input::Published { event, outcome });
        }
        if parked(&play).is_empty() {
            play.commit();
            play.pass(SECOND);
        }
    }
    play.commit();
    assert_eq!(play.core.events.suspected(), 0);
}

#[test]
fn what_is_returned_after_the_ack_that_closes_the_breaker_counts() {
    let (mut play, events) = with_open_breaker(settings());
    let begin = play.now;
    let mut batch = Vec::new();
    while batch.len() < 2 {
        assert!(play.now.since(begin) < Duration::from_secs(120), "nothing is tried again");
        play.pass(SECOND);
        batch.extend(play.take(is_publish).into_iter().filter_map(|effect| match effect {
            Effect::Publish { event, .. } => Some(event),
            _ => None,
        }));
    }
    // In one step: an ack, and after it an event that is returned.
    let outcomes = batch.iter().enumerate().map(|(at, event)| {
        let outcome = if at == 0 { PublishOutcome::Acked } else { returned() };
        Input::Published { event: *event, outcome }
    });
    let effects = play.core.step(play.now, outcomes.collect::<Vec<_>>());
    play.asked.extend(effects);
    assert_eq!(play.core.load().unroutable_since, None, "{} events", events.len());
    assert_eq!(play.core.events.returned(), batch.len() - 1);
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
