//! Which handles a confirm request carries, until when, and what becomes of them when it fails.

use super::*;

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
