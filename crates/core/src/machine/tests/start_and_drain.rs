//! What a start takes over from the journal, and what a drain finishes.

use super::*;

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
