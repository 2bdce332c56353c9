//! What holds when the configuration is read again.

use super::*;

#[test]
fn an_event_of_a_sub_application_that_comes_back_is_settled_after_its_publish() {
    let now = Moment(5_000_000);
    let mut play = Play::of(Core::new(settings(), now), now, 100);
    let left = SubAppId(5);
    play.give(Input::Output(OutputState::Up));
    play.one(|e| matches!(e, Effect::Write(Write::Load { .. })));
    let outgoing = outgoing(event(left, "h"));
    play.give(Input::Written(Written::Loaded(vec![Loaded {
        event: EventId(3),
        outgoing,
        confirmed: false,
    }])));
    play.answer(&[]);
    play.give(Input::Reconfigure(Box::new(Settings { sub_apps: vec![left], ..settings() })));
    // What came before is settled while the event is still under way.
    play.pass(40 * SECOND);
    play.answer(&[]);
    play.one(|e| matches!(e, Effect::Write(Write::Settle { .. })));
    play.give(Input::Written(Written::Settled(0)));
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.pass(40 * SECOND);
    play.answer(&[]);
    let Effect::Write(Write::Settle { sub_app, .. }) =
        play.one(|e| matches!(e, Effect::Write(Write::Settle { .. })))
    else {
        unreachable!()
    };
    assert_eq!(sub_app, left);
}
