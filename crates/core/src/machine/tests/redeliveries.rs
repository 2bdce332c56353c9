//! What becomes of an event that comes again.

use super::*;

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
