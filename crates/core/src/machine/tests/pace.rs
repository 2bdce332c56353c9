//! What throttled requests lead to, and whose turn it is.

use super::*;

#[test]
fn a_throttled_pull_slows_every_sub_application_down() {
    let sub_apps = (0..4).map(SubAppId).collect();
    let mut play = Play::new(Settings { sub_apps, ..settings() });
    let Effect::Pull { pull, .. } = play.one(is_pull) else { unreachable!() };
    play.pull_fails(pull, RequestFailure::Throttled);
    play.pass(90);
    play.none(is_pull);
    // One of them tries, and the others wait for what becomes of it.
    play.pass(100);
    play.one(is_pull);
    play.pass(SECOND);
    assert_eq!(play.take(is_pull).len(), 3);
}

#[test]
fn polls_that_are_throttled_are_asked_again_as_many_as_they_were() {
    let mut play = Play::new(settings());
    let mut in_flight = Vec::new();
    for batch in 0..3 {
        let handles: Vec<String> = (0..16).map(|n| format!("{batch}-{n}")).collect();
        play.deliver(&handles.iter().map(String::as_str).collect::<Vec<_>>());
        play.pass(SECOND);
        let mut pulls = play.take(is_pull);
        play.asked.extend(pulls.pop());
        in_flight.extend(pulls);
    }
    play.pass(SECOND);
    let polls = play.core.load().polls;
    assert!(polls > 4, "{polls}");
    in_flight.extend(play.take(is_pull));
    for effect in in_flight {
        let Effect::Pull { pull, .. } = effect else { unreachable!() };
        play.pull_fails(pull, RequestFailure::Throttled);
    }
    play.pass(2 * SECOND);
    assert_eq!(play.core.load().polls, polls);
}

#[test]
fn a_throttled_confirm_is_made_again_as_it_was_before_all_others() {
    let mut play = Play::new(settings());
    play.deliver(&["a", "b", "c"]);
    play.all_are_published();
    let (request, first, _) = play.confirm_request();
    assert_eq!(first, ["a", "b", "c"]);
    play.deliver(&["later"]);
    play.all_are_published();
    play.give(Input::Confirmed { request, result: Err(RequestFailure::Throttled) });
    play.pass(90);
    play.none(is_confirm);
    play.pass(100);
    play.confirmed(&["a", "b", "c", "later"]);
}

#[test]
fn a_part_of_a_rejected_request_stays_apart_when_it_is_throttled() {
    let mut play = Play::new(settings());
    play.deliver(&["a", "b", "c", "d"]);
    play.all_are_published();
    let (request, ..) = play.confirm_request();
    play.give(Input::Confirmed { request, result: Err(RequestFailure::Refused) });
    for _ in 0..2 {
        play.pass(SECOND);
        let halves = play.take(is_confirm);
        assert_eq!(halves.len(), 2);
        for effect in halves {
            let Effect::Confirm { request, handles, .. } = effect else { unreachable!() };
            assert_eq!(handles.len(), 2);
            play.give(Input::Confirmed { request, result: Err(RequestFailure::Throttled) });
        }
    }
}

#[test]
fn sub_applications_take_turns_to_confirm() {
    let mut play = Play::new(Settings { sub_apps: [0, 1].map(SubAppId).to_vec(), ..settings() });
    play.pass(SECOND);
    let slow = Settings { sub_apps: [0, 1].map(SubAppId).to_vec(), requests_per_second: 1, ..settings() };
    play.give(Input::Reconfigure(Box::new(slow)));
    let many: Vec<String> = (0..48).map(|n| format!("h{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (effect, handles) in play.take(is_pull).into_iter().zip([many, vec!["one"]]) {
        play.asked.push(effect);
        play.deliver(&handles);
        play.asked.retain(|effect| !is_pull(effect));
    }
    play.all_are_published();
    let mut requests = Vec::new();
    for _ in 0..4 {
        let Effect::Confirm { sub_app, .. } = play.one(is_confirm) else { unreachable!() };
        requests.push(sub_app.0);
        play.pass(SECOND);
    }
    assert_eq!(requests, [0, 1, 0, 0]);
}

#[test]
fn a_handle_that_no_request_could_confirm_in_time_is_left_out_of_the_request() {
    let mut play = Play::new(settings());
    play.deliver(&["old"]);
    play.pass(26 * SECOND + 950);
    play.deliver(&["new"]);
    play.all_are_published();
    play.confirmed(&["new"]);
    assert_eq!(play.core.load().handles, 0);
}

#[test]
fn many_idle_sub_applications_each_have_their_poll() {
    let sub_apps = (0..500).map(SubAppId).collect();
    let play = Play::new(Settings {
        sub_apps,
        requests_per_second: 10_000,
        ..with(RelaySettings { max_in_flight: 64, ..settings().relay })
    });
    let mut play = play;
    play.pass(SECOND);
    assert_eq!(play.take(is_pull).len(), 500);
}
