//! The order in which events are handed to the output.

use super::*;

fn published(play: &mut Play) -> Vec<EventId> {
    let events = play.take(is_publish).into_iter().map(|effect| match effect {
        Effect::Publish { event, .. } => event,
        _ => unreachable!(),
    });
    events.collect()
}

#[test]
fn what_an_outage_brought_back_goes_first_when_the_output_is_back() {
    let mut play = Play::new(settings());
    let ids = play.deliver(&["h1", "h2", "h3", "h4"]);
    assert_eq!(published(&mut play), ids);
    play.give(Input::Output(OutputState::Down(problem("gone"))));
    // In any order: some never left, and of one nobody knows.
    for (event, outcome) in [
        (ids[3], PublishOutcome::Unsent),
        (ids[0], unknown(false)),
        (ids[2], PublishOutcome::Unsent),
        (ids[1], PublishOutcome::Unsent),
    ] {
        play.give(Input::Published { event, outcome });
    }
    play.commit();
    assert_eq!(published(&mut play), [], "nothing leaves while the output is away");
    play.give(Input::Output(OutputState::Up));
    assert_eq!(published(&mut play), [], "not without a wait");
    play.pass(200);
    assert_eq!(published(&mut play), ids, "in their order");
    // A second time it may be one of them that takes the connection down: it waits, and the others do not.
    play.give(Input::Output(OutputState::Down(problem("gone"))));
    play.give(Input::Published { event: ids[0], outcome: unknown(false) });
    play.commit();
    for id in &ids[1..] {
        play.give(Input::Published { event: *id, outcome: PublishOutcome::Unsent });
    }
    play.give(Input::Output(OutputState::Up));
    play.pass(200);
    assert_eq!(published(&mut play), ids[1..]);
    play.pass(30_000);
    assert_eq!(published(&mut play), [ids[0]]);
}

#[test]
fn nothing_overtakes_what_is_being_recorded_to_wait() {
    let mut play =
        Play::new(with(RelaySettings { confirm_after: ConfirmAfter::Journal, ..settings().relay }));
    play.give(Input::Output(OutputState::Down(problem("gone"))));
    let waits = play.answer(&["h1"]);
    play.give(Input::Output(OutputState::Up));
    play.pass(10);
    // Its answer arrives while the first one's record is under way, and nothing is known of a backlog yet.
    let Effect::Pull { pull, sub_app } = play.one(is_pull) else { unreachable!() };
    let answer = Answer { request_id: "r".into(), events: vec![Arc::new(event(sub_app, "h2"))] };
    let (sent_at, received_at) = (play.now, play.now);
    play.give(Input::Pulled { pull, sent_at, received_at, pulled_at: WallTime(0), result: Ok(answer) });
    play.one(|e| matches!(e, Effect::Write(Write::Record(pulled)) if !pulled.publish_now));
    for pull in [waits, pull] {
        let record = Recorded {
            event: play.row(),
            delivery: DeliveryId(play.row().0),
            occurrence: 1,
            redelivered: false,
            progress: Progress::default(),
        };
        play.give_recorded(pull, vec![record]);
    }
    assert_eq!(published(&mut play), [], "both come from the journal, in its order");
    let Effect::Write(Write::Load { .. }) = play.one(|e| matches!(e, Effect::Write(Write::Load { .. })))
    else {
        unreachable!()
    };
}
