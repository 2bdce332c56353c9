//! What each outcome of a publish leads to, and that one event delays no other.

use super::*;

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
