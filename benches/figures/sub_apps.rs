//! What many sub-applications cost, and whether one with a large backlog leaves the others their share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::Consumer;
use tokio::time::{sleep, sleep_until};
use vodrelay_testkit::broker::Broker;

use crate::report::{Figure, Goal, median, median_ratio, percentile};
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::events::{ONE_KB, number};
use crate::world::process::cpu_time;
use crate::world::relay::{NO_LIMIT, Relay, Setup};
use crate::world::run::work_off;
use crate::world::{Bench, bounded, queue};

const COUNTS: [u64; 3] = [1, 50, 500];

/// The account's quota, for each API, and what one call carries.
const QUOTA: u32 = 100;
const EVENTS_PER_CALL: u32 = 16;

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let broker = bench.broker().await;
    let mut figures = Vec::new();
    for count in COUNTS {
        let idle = Figure::new(format!("{count}: idle CPU"), idle(bench, broker, count).await, "% of a core");
        figures.push(if count == 500 { idle.goal(Goal::AtMost(3.0)) } else { idle });
    }
    figures.extend(busy(bench, broker).await);
    figures.extend(fair(bench, broker).await);
    figures
}

/// A relay for sub-applications 1 to `count`.
fn setup(bench: &Bench, cloud: &Cloud, broker: &Broker, requests_per_second: u32, count: u64) -> Setup {
    let mut setup = Setup::new(bench, cloud, broker, requests_per_second);
    let ids: Vec<String> = (1..=count).map(|id| id.to_string()).collect();
    setup.set("VOD__SUB_APP_IDS", &ids.join(","));
    setup
}

/// The share of a core that a relay takes while there is nothing to relay, in percent.
async fn idle(bench: &Bench, broker: &Broker, count: u64) -> f64 {
    let behaviour = Behaviour { requests_per_second: QUOTA, latency_ms: 0, hold_ms: 5_000 };
    let cloud = Cloud::start(bench, behaviour).await;
    let setup = setup(bench, &cloud, broker, QUOTA, count);
    let mut relay = Relay::start(bench, &setup);
    relay.ready().await;
    // Until every sub-application has been asked some times, and the wait between two questions has grown.
    sleep(Duration::from_secs(bench.pick(20, 1))).await;
    let (before, began) = (cpu_time(relay.pid()), Instant::now());
    sleep(Duration::from_secs(bench.pick(20, 1))).await;
    let share = (cpu_time(relay.pid()) - before).as_secs_f64() / began.elapsed().as_secs_f64();
    relay.assert_alive();
    bench.say(&format!("{count} idle sub-applications: {:.1} % of a core", 100.0 * share));
    100.0 * share
}

/// The same backlog spread over few and over many.
async fn busy(bench: &Bench, broker: &Broker) -> Vec<Figure> {
    let (rounds, events) = bench.pick((3, 20_000), (1, 1_000));
    let mut relayed: HashMap<u64, Vec<f64>> = HashMap::new();
    for number in 1..=rounds {
        for count in COUNTS {
            let cloud = Cloud::start(bench, Behaviour::UNLIMITED).await;
            let share = events / count;
            for id in 1..=count {
                cloud.put(id, ONE_KB.events(id * share, share)).await;
            }
            let setup = setup(bench, &cloud, broker, NO_LIMIT, count);
            let run = work_off(bench, &cloud, broker, &setup, share * count).await;
            let stored = u64::from(queue::delete(broker, &setup.queue).await);
            assert_eq!(stored, share * count, "everything was published once");
            let per_second = run.events_per_second();
            bench.say(&format!(
                "round {number} of {rounds}, {count} busy sub-applications: {per_second:.0} events/s"
            ));
            relayed.entry(count).or_default().push(per_second);
        }
    }
    let figures = COUNTS.map(|count| {
        [
            Figure::new(format!("{count}: relayed"), median(&relayed[&count]), "events/s"),
            Figure::new(
                format!("{count}: relayed / with one"),
                median_ratio(&relayed[&count], &relayed[&1]),
                "",
            ),
        ]
    });
    figures.into_iter().flatten().collect()
}

/// One sub-application with a backlog that does not end, and 49 with an event now and then.
async fn fair(bench: &Bench, broker: &Broker) -> Vec<Figure> {
    const BUSY: u64 = 1;
    const OTHERS: std::ops::RangeInclusive<u64> = 2..=50;
    /// The numbers of the others' events begin here.
    const TRICKLE: u64 = 10_000_000;
    /// The time between two events of each of the others.
    const EVERY: Duration = Duration::from_secs(2);

    let seconds = bench.pick(30, 4);
    let behaviour = Behaviour { requests_per_second: QUOTA, latency_ms: 40, hold_ms: 5_000 };
    let cloud = Arc::new(Cloud::start(bench, behaviour).await);
    // More than the quota lets through meanwhile, also while things come to rest.
    let allowed = u64::from(QUOTA * EVENTS_PER_CALL);
    cloud.put(BUSY, ONE_KB.events(0, 2 * allowed * (seconds + 10))).await;
    let setup = setup(bench, &cloud, broker, QUOTA, 50);
    let mut relay = Relay::start(bench, &setup);
    relay.ready().await;
    sleep(Duration::from_secs(bench.pick(5, 1))).await;

    let (connection, channel) = broker.channel().await;
    let consumer = queue::consume(&channel, &setup.queue).await;
    let count = u64::try_from(OTHERS.count()).expect("a few") * seconds / EVERY.as_secs();
    let received = tokio::spawn(receive(consumer, TRICKLE, count));
    let confirmed = async || cloud.stats().await.queues[&BUSY].confirmed;
    let (began, before) = (tokio::time::Instant::now(), confirmed().await);
    let mut sent = HashMap::new();
    for (number, at) in (TRICKLE..TRICKLE + count).zip(0_u32..) {
        let others = u32::try_from(OTHERS.count()).expect("a few");
        sleep_until(began + EVERY * at / others).await;
        let sub_app = OTHERS.start() + u64::from(at % others);
        sent.insert(number, Instant::now());
        cloud.put(sub_app, ONE_KB.events(number, 1)).await;
    }
    let share = (confirmed().await - before) as f64 / (began.elapsed().as_secs_f64() * allowed as f64);
    let received = received.await.expect("the consumer ends well");
    relay.assert_alive();
    assert!(confirmed().await < cloud.stats().await.queues[&BUSY].put, "the backlog lasted");
    queue::close(connection).await;

    let delays: Vec<f64> = sent
        .iter()
        .map(|(number, sent)| received[number].duration_since(*sent).as_secs_f64() * 1e3)
        .collect();
    vec![
        Figure::new("one backlog: its share of the quota", 100.0 * share, "%"),
        Figure::new("one backlog: the others' delay, p50", percentile(&delays, 50.0), "ms"),
        Figure::new("one backlog: the others' delay, p99", percentile(&delays, 99.0), "ms"),
        Figure::new("one backlog: the others' longest delay", percentile(&delays, 100.0), "ms")
            .goal(Goal::AtMost(5_000.0)),
    ]
}

/// When each event from this number on came.
async fn receive(mut consumer: Consumer, first: u64, count: u64) -> HashMap<u64, Instant> {
    let mut received = HashMap::new();
    let everything = async {
        while (received.len() as u64) < count {
            let delivery = consumer.next().await.expect("the queue goes on").expect("a message can be taken");
            let number = number(&delivery.data);
            if number >= first {
                received.insert(number, Instant::now());
            }
        }
    };
    bounded("every event comes", everything).await;
    received
}
