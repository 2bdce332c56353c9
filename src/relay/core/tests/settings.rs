//! What holds when the configuration is read again.

use super::*;

#[test]
fn an_event_of_a_sub_application_that_comes_back_is_settled_after_its_publish() {
    let now = Moment(5_000_000);
    let mut play = Play { core: Core::new(settings(), now), now, asked: Vec::new(), next_row: 100 };
    let left = SubAppId(5);
    play.give(Input::Output(OutputState::Up));
    play.one(|e| matches!(e, Effect::Load { .. }));
    let parcel = Parcel {
        event: Arc::new(event(left, "h")),
        occurrence: 1,
        redelivered: false,
        pulled_at: WallTime(0),
        request_id: "r".into(),
    };
    play.give(Input::Loaded(vec![Loaded { event: EventId(3), parcel, confirmed: false }]));
    play.answer(&[]);
    play.give(Input::Reconfigure(Box::new(Settings { sub_apps: vec![left], ..settings() })));
    // What came before is settled while the event is still under way.
    play.pass(40 * SECOND);
    play.answer(&[]);
    play.one(|e| matches!(e, Effect::Settle { .. }));
    play.give(Input::SettleRecorded);
    play.broker_says(&PublishOutcome::Acked);
    play.commit();
    play.pass(40 * SECOND);
    play.answer(&[]);
    let Effect::Settle { sub_app, .. } = play.one(|e| matches!(e, Effect::Settle { .. })) else {
        unreachable!()
    };
    assert_eq!(sub_app, left);
}
