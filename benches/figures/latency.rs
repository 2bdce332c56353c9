//! How long an event takes from the cloud's queue to a consumer, one event a request and at a steady rate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use lapin::Consumer;
use tokio::time::sleep_until;
use vodrelay_testkit::broker::Broker;

use crate::report::{Figure, Goal, percentile};
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::events::{ONE_KB, number};
use crate::world::relay::{NO_LIMIT, Relay, Setup};
use crate::world::{Bench, STEP_LIMIT, bounded, disk, queue};

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let broker = bench.broker().await;
    let mut figures = Vec::new();
    for per_second in [50, 500] {
        bench.say(&format!("{per_second} events a second"));
        figures.extend(at_rate(bench, broker, per_second).await);
    }
    let syncs = disk::sync_times(bench.folder(), bench.pick(1_000, 50));
    let syncs: Vec<f64> = syncs.iter().map(|took| milliseconds(*took)).collect();
    figures.push(Figure::new("a sync of the disk, p50", percentile(&syncs, 50.0), "ms"));
    figures.push(Figure::new("a sync of the disk, p99", percentile(&syncs, 99.0), "ms"));
    figures
}

async fn at_rate(bench: &Bench, broker: &Broker, per_second: u32) -> Vec<Figure> {
    let cloud = Cloud::start(bench, Behaviour { hold_ms: 5_000, ..Behaviour::UNLIMITED }).await;
    let setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    let mut relay = Relay::start(bench, &setup);
    relay.ready().await;
    // The first event finds everything connected, or waits until it is; it is not measured.
    cloud.put(0, ONE_KB.events(0, 1)).await;
    cloud.confirmed(1, STEP_LIMIT).await;
    queue::take(broker, &setup.queue, 1).await;

    let (connection, channel) = broker.channel().await;
    let consumer = queue::consume(&channel, &setup.queue).await;
    let count = u64::from(per_second * bench.pick(30, 2));
    let received = tokio::spawn(receive(consumer, count));
    let cloud = Arc::new(cloud);
    let sent = send(&cloud, per_second, count).await;
    let received = received.await.expect("the consumer ends well");
    let took: Vec<f64> =
        sent.iter().map(|(number, sent)| milliseconds(received[number].duration_since(*sent))).collect();
    cloud.confirmed(count + 1, STEP_LIMIT).await;
    let log = relay.drained().await;
    queue::close(connection).await;
    assert_eq!(queue::delete(broker, &setup.queue).await, 0, "everything was published once");

    let name = |figure: &str| format!("{per_second}/s: {figure}");
    let part = |figure: &str, key: &str| {
        Figure::new(name(figure), log.figure(key).map(|microseconds| microseconds / 1e3), "ms")
    };
    vec![
        Figure::new(name("p50"), percentile(&took, 50.0), "ms").goal(Goal::AtMost(3.0)),
        Figure::new(name("p99"), percentile(&took, 99.0), "ms").goal(Goal::AtMost(20.0)),
        Figure::new(name("the slowest"), percentile(&took, 100.0), "ms"),
        part("of it the journal's commit, p50", "commit_p50_us"),
        part("of it the journal's commit, p99", "commit_p99_us"),
        part("of it the broker's ack, p50", "publish_p50_us"),
        part("of it the broker's ack, p99", "publish_p99_us"),
    ]
}

/// Puts one event after the other, each at its time, whatever became of those before. Returns when each left.
async fn send(cloud: &Arc<Cloud>, per_second: u32, count: u64) -> HashMap<u64, Instant> {
    let began = tokio::time::Instant::now();
    let mut requests = Vec::new();
    for number in 1..=count {
        sleep_until(began + Duration::from_secs(number) / per_second).await;
        let event: Vec<String> = ONE_KB.events(number, 1).collect();
        let cloud = Arc::clone(cloud);
        requests.push(tokio::spawn(async move {
            let sent = Instant::now();
            cloud.put(0, event).await;
            (number, sent)
        }));
    }
    join_all(requests).await.into_iter().map(|sent| sent.expect("a request ends well")).collect()
}

/// When each event came. None comes twice, and none that is not waited for.
async fn receive(mut consumer: Consumer, count: u64) -> HashMap<u64, Instant> {
    let mut received = HashMap::new();
    while (received.len() as u64) < count {
        let next = bounded(&format!("{} of {count} events came", received.len()), consumer.next()).await;
        let delivery = next.expect("the queue goes on").expect("a message can be taken");
        let before = received.insert(number(&delivery.data), Instant::now());
        assert!(before.is_none(), "an event came twice");
    }
    received
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
