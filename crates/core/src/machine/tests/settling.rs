//! When an idle answer proves that an event is confirmed.

use super::*;

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
