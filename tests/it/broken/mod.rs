//! Parts that break while the relay works: what must hold meanwhile, and afterwards.
//!
//! In every test nothing is lost, nothing is confirmed late, and every repeat is named.

mod backup;
mod clocks;
mod cloud;
mod cluster;
mod connections;
mod credentials;
mod gate;
mod journal;
mod middlebox;
mod program;
mod rabbitmq;
mod stages;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tencent_vod_emulator::events::{EVENT_TYPES, sample};
use tencent_vod_emulator::{Action, ConfirmVerdict};
use tokio::time::timeout;
use vodrelay::app::Running;
use vodrelay_testkit::broker::{LIMIT, Received};
use vodrelay_testkit::world::{WINDOW, World, carried, put};

/// A sample of some type, different for every number.
fn event(number: u64) -> String {
    let event_type = EVENT_TYPES[usize::try_from(number).unwrap() % EVENT_TYPES.len()];
    sample(event_type, number).unwrap()
}

fn put_events(world: &World, numbers: std::ops::Range<u64>) {
    world.emulator.put_many(0, numbers.map(event));
}

/// Waits until the relay's status line holds these words.
async fn told(running: &Running, words: &str) {
    let watch = running.watch();
    let told = async {
        while !watch.status().contains(words) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = timeout(LIMIT, told).await.is_ok();
    assert!(in_time, "{words:?} was never told: {}", watch.status());
}

/// Sees that nothing is pulled any more, once the polls under way have ended, until every event that was handed out is
/// visible again.
async fn pulls_rest(world: &World) {
    world.until("the polls under way end", |state| state.stats().pulls_now == 0).await;
    let pulls = world.emulator.stats().calls(Action::PullEvents);
    world.until_within(2 * WINDOW, "events come visible", |state| state.counts(0).hidden == 0).await;
    assert_eq!(world.emulator.stats().calls(Action::PullEvents), pulls, "nothing is pulled meanwhile");
}

/// Compares both ends and the journal when all is over, and returns how many messages are repeats.
///
/// Every event that was put is in the queue under a message id of its own, byte for byte as it was delivered; the journal
/// has the same ids, none parked; every id that is there twice is marked as uncertain; no confirm came late.
#[track_caller]
fn accounted(world: &World, messages: &[Received]) -> usize {
    let ledger = world.emulator.ledger(None);
    let mut first = BTreeMap::new();
    let mut repeated = BTreeSet::new();
    for message in messages {
        if first.insert(message.message_id(), message.clone()).is_some() {
            repeated.insert(message.message_id());
        }
    }
    assert!(world.journalled_ids() == first.keys().cloned().collect(), "the same ids at both ends");
    let distinct: Vec<Received> = first.into_values().collect();
    assert_eq!(carried(&ledger, &distinct), put(&ledger), "every event under its own id");
    let named = world.uncertain_ids();
    let unnamed: Vec<_> = repeated.difference(&named).collect();
    assert!(unnamed.is_empty(), "repeats that nobody named: {unnamed:?}");
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE state = 'parked'"), 0);
    in_time(world);
    messages.len() - distinct.len()
}

/// Everything was confirmed, and nothing late or twice in one call.
#[track_caller]
fn in_time(world: &World) {
    let ledger = world.emulator.ledger(None);
    assert_eq!(ledger.with_verdict(ConfirmVerdict::Late).count(), 0, "no confirm after its window");
    assert_eq!(ledger.calls_with_a_handle_twice(), []);
    assert_eq!(ledger.unconfirmed().count(), 0);
}
