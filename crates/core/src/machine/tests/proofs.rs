//! The right to confirm is proven while nothing is there to be confirmed.

use super::*;

const MINUTE: u64 = 60 * SECOND;

fn is_proof(effect: &Effect) -> bool {
    matches!(effect, Effect::ProveConfirm { .. })
}

/// The one pull that is under way finds nothing.
fn idle(play: &mut Play) {
    let pull = play.one(is_pull);
    finds_nothing(play, &pull);
}

fn finds_nothing(play: &mut Play, pull: &Effect) {
    let Effect::Pull { pull, .. } = *pull else { unreachable!() };
    let answer = Answer { request_id: "r".into(), events: Vec::new() };
    let now = play.now;
    play.give(Input::Pulled {
        pull,
        sent_at: now,
        received_at: now,
        pulled_at: WallTime(0),
        result: Ok(answer),
    });
}

fn proof_ends(play: &mut Play, result: Result<(), RequestFailure>) {
    let Effect::ProveConfirm { request, .. } = play.one(is_proof) else { unreachable!() };
    play.give(Input::ConfirmProof { request, result });
}

/// The waits between the requests of so many minutes on an idle queue, each answered alike.
fn asked_within(play: &mut Play, minutes: u64, result: Result<(), RequestFailure>) -> Vec<Moment> {
    let mut at = Vec::new();
    let end = play.now + Duration::from_millis(minutes * MINUTE);
    while play.now < end {
        if play.asked.iter().any(is_pull) {
            idle(play);
        }
        if play.asked.iter().any(is_proof) {
            at.push(play.now);
            proof_ends(play, result);
        }
        play.pass(SECOND);
    }
    at
}

#[test]
fn an_idle_answer_asks_once_and_what_is_said_of_the_handle_is_proof() {
    for proof in [Ok(()), Err(RequestFailure::Refused)] {
        let mut play = Play::new(settings());
        play.none(is_proof);
        assert_eq!(asked_within(&mut play, 60, proof).len(), 1);
    }
}

#[test]
fn while_it_is_denied_it_is_asked_again_slower_and_slower() {
    for failure in [RequestFailure::Configuration, RequestFailure::Credentials, RequestFailure::Transient] {
        let mut play = Play::new(settings());
        let at = asked_within(&mut play, 120, Err(failure));
        assert!((8..=60).contains(&at.len()), "{failure}: {at:?}");
        assert!(at.windows(2).all(|pair| pair[1].since(pair[0]) >= Duration::from_secs(60)), "{at:?}");
    }
}

#[test]
fn a_real_confirm_is_proof_and_one_that_is_denied_takes_it_back() {
    let mut play = Play::new(settings());
    play.deliver(&["h"]);
    play.all_are_published();
    play.all_are_acked();
    let (request, ..) = play.confirm_request();
    play.give(Input::Confirmed { request, result: Ok(()) });
    play.commit();
    assert_eq!(asked_within(&mut play, 30, Ok(())), []);
    play.deliver(&["i"]);
    play.all_are_published();
    play.all_are_acked();
    let (request, ..) = play.confirm_request();
    play.give(Input::Confirmed { request, result: Err(RequestFailure::Configuration) });
    for _ in 0..40 {
        if play.core.load().handles > 0 {
            play.none(is_proof);
        }
        for effect in play.take(is_confirm) {
            let Effect::Confirm { request, .. } = effect else { unreachable!() };
            play.give(Input::Confirmed { request, result: Err(RequestFailure::Configuration) });
        }
        play.pass(SECOND);
    }
    assert_eq!(asked_within(&mut play, 30, Ok(())).len(), 1, "the lapsed handle tells nothing any more");
}

#[test]
fn it_delays_no_confirm_and_no_drain() {
    let mut play = Play::new(Settings { requests_per_second: 1, ..settings() });
    play.deliver(&["h"]);
    play.all_are_published();
    play.all_are_acked();
    // The confirm is under way: nothing else is asked, however idle the queue is.
    play.pass(SECOND);
    idle(&mut play);
    play.none(is_proof);
    play.confirmed(&["h"]);
    let mut play = Play::new(settings());
    idle(&mut play);
    assert!(play.asked.iter().any(is_proof));
    play.pass(5 * SECOND);
    play.give(Input::Drain);
    idle(&mut play);
    play.one(|effect| matches!(effect, Effect::Finished));
}

#[test]
fn each_sub_application_has_a_request_of_its_own() {
    let sub_apps = vec![SubAppId(1), SubAppId(2), SubAppId(3)];
    let mut play = Play::new(Settings { sub_apps: sub_apps.clone(), ..settings() });
    let mut asked = Vec::new();
    for _ in 0..100 {
        for pull in play.take(is_pull) {
            finds_nothing(&mut play, &pull);
        }
        for effect in play.take(is_proof) {
            let Effect::ProveConfirm { request, sub_app } = effect else { unreachable!() };
            asked.push(sub_app);
            play.give(Input::ConfirmProof { request, result: Err(RequestFailure::Refused) });
        }
        play.pass(SECOND);
    }
    asked.sort_unstable();
    assert_eq!(asked, sub_apps);
}
