//! How much of the account's quota the relay uses, and how often it asks for more than there is.

use std::time::Duration;

use vodrelay_testkit::broker::Broker;

use crate::report::{Figure, Goal};
use crate::world::Bench;
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::events::ONE_KB;
use crate::world::queue;
use crate::world::relay::Setup;
use crate::world::run::{Run, peak_figure, work_off};

/// What one pull brings, and one confirm takes.
const EVENTS_PER_CALL: u32 = 16;

/// What the relay believes that the account may do.
const CONFIGURED: u32 = 100;

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let broker = bench.broker().await;
    let events = bench.pick(20_000, 2_000);

    bench.say("the quota is what the relay is configured with");
    let known = relay_backlog(bench, broker, CONFIGURED, events).await;
    let whole = known.since(Duration::ZERO);
    let ratio = known.events_per_second() / f64::from(CONFIGURED * EVENTS_PER_CALL);

    bench.say("the quota is half of that");
    let half = CONFIGURED / 2;
    let unknown = relay_backlog(bench, broker, half, events).await;
    // By then it should have found out.
    let found = unknown.since(bench.pick(Duration::from_secs(5), Duration::ZERO));
    let found_ratio = found.events_per_second() / f64::from(half * EVENTS_PER_CALL);

    vec![
        Figure::new("relayed", known.events_per_second(), "events/s"),
        Figure::new("relayed / allowed", ratio, "").goal(Goal::AtLeast(0.97)),
        Figure::new("throttled calls", 100.0 * whole.throttled_share(), "%").goal(Goal::AtMost(1.0)),
        Figure::new("half the quota: relayed", found.events_per_second(), "events/s"),
        Figure::new("half the quota: relayed / allowed", found_ratio, "").goal(Goal::AtLeast(0.97)),
        Figure::new("half the quota: throttled calls", 100.0 * found.throttled_share(), "%"),
        peak_figure("peak memory".to_owned(), known.peak_mb().max(unknown.peak_mb())),
    ]
}

async fn relay_backlog(bench: &Bench, broker: &Broker, requests_per_second: u32, events: u64) -> Run {
    let behaviour = Behaviour { requests_per_second, latency_ms: 40, ..Behaviour::UNLIMITED };
    let cloud = Cloud::start(bench, behaviour).await;
    cloud.put(0, ONE_KB.events(0, events)).await;
    let setup = Setup::new(bench, &cloud, broker, CONFIGURED);
    let run = work_off(bench, &cloud, broker, &setup, events).await;
    assert_eq!(u64::from(queue::delete(broker, &setup.queue).await), events, "everything was published once");
    run
}
