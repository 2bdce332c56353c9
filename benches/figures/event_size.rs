//! Small events and large ones: how many pass, how much, and that each arrives as it was put.

use std::collections::HashSet;

use vodrelay_testkit::broker::{Broker, Received};

use crate::report::Figure;
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::events::{Kind, number};
use crate::world::relay::{NO_LIMIT, Setup};
use crate::world::run::work_off;
use crate::world::{Bench, queue};

const KB: usize = 1 << 10;

/// Sizes, and how many events of each a full run relays.
const SIZES: [(usize, u64); 4] = [(KB, 20_000), (16 * KB, 8_000), (256 * KB, 800), (1024 * KB, 200)];

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let broker = bench.broker().await;
    let mut figures = Vec::new();
    for (bytes, events) in SIZES {
        figures.extend(of_size(bench, broker, bytes, bench.pick(events, events / 20)).await);
    }
    figures
}

async fn of_size(bench: &Bench, broker: &Broker, bytes: usize, events: u64) -> Vec<Figure> {
    let kind = Kind::Bytes(bytes);
    bench.say(&format!("{events} events of {}", kind.name()));
    let cloud = Cloud::start(bench, Behaviour::UNLIMITED).await;
    cloud.put(0, kind.events(0, events)).await;
    let setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    let run = work_off(bench, &cloud, broker, &setup, events).await;
    let mut seen = HashSet::new();
    queue::each(broker, &setup.queue, events, |message| {
        let number = number(&message.body);
        assert_eq!(
            message.body,
            as_delivered(kind, number, &message),
            "event {number} arrives as it was put"
        );
        assert!(number < events && seen.insert(number), "event {number} arrives once");
    })
    .await;
    assert_eq!(queue::delete(broker, &setup.queue).await, 0, "everything was published once");
    let name = |figure: &str| format!("{}: {figure}", kind.name());
    let per_second = run.events_per_second();
    vec![
        Figure::new(name("relayed"), per_second, "events/s"),
        Figure::new(name("carried"), per_second * bytes as f64 / 1e6, "MB/s"),
        Figure::new(name("relay's CPU an event"), run.cpu_us_per_event()[0], "us"),
        Figure::new(name("peak memory"), run.peak_mb(), "MB"),
    ]
}

/// The body that the cloud handed out: the event as it was put, with the handle of this message as its first member.
fn as_delivered(kind: Kind, number: u64, message: &Received) -> Vec<u8> {
    let put: String = kind.events(number, 1).collect();
    let handle = message.header("x-vod-event-handle").and_then(|value| value.as_long_string());
    let handle = handle.expect("the handle is in a header").to_string();
    format!("{{\"EventHandle\":\"{handle}\",{}", &put[1..]).into_bytes()
}
