//! Several relays on one account: what they carry together, who carries how much, and what comes twice.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use nix::unistd::Pid;
use rusqlite::{Connection, OpenFlags};
use vodrelay_testkit::broker::{self, Broker, Received, unique};

use crate::report::{Figure, median};
use crate::world::bare::{self, Shape};
use crate::world::cloud::{Behaviour, Cloud, Stats};
use crate::world::events::ONE_KB;
use crate::world::process::cpu_time;
use crate::world::queue;
use crate::world::relay::{NO_LIMIT, Relay, Setup};
use crate::world::{Bench, STEP_LIMIT};

/// The account's limit of each API, which every relay believes to be its own.
const QUOTA: u32 = 100;

/// How often the emulator is asked how far things are.
const LOOK: Duration = Duration::from_millis(20);

/// What the relays meet.
#[derive(Clone, Copy)]
struct Place<'a> {
    name: &'static str,
    behaviour: Behaviour,
    /// What each relay is told that it may ask.
    requests_per_second: u32,
    nodes: &'a [&'a Broker],
    events: u64,
    /// How long they may take to find their parts of the quota; only what comes after that is counted.
    finding: Duration,
}

/// What some relays did with one backlog.
struct Round {
    events_per_second: f64,
    throttled_share: f64,
    /// The part of the events that each relay has confirmed.
    shares: Vec<f64>,
    /// Events that the cloud handed over again.
    redeliveries: u64,
    /// Messages that a consumer gets beyond one for each event.
    repeats: u64,
    /// Of all relays together, after their end.
    journal_bytes: u64,
    /// What all relays together had written to their disks.
    written_bytes: u64,
    relays_cpu: Duration,
    brokers_cpu: Duration,
}

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let mut figures = on_one_node(bench).await;
    figures.extend(on_a_cluster(bench).await);
    figures
}

async fn on_one_node(bench: &Bench) -> Vec<Figure> {
    let nodes = [bench.broker().await];
    let free = Place {
        name: "no quota",
        behaviour: Behaviour::UNLIMITED,
        requests_per_second: NO_LIMIT,
        nodes: &nodes,
        events: bench.pick(20_000, 1_000),
        finding: Duration::ZERO,
    };
    let quota = Place {
        name: "quota",
        behaviour: Behaviour { requests_per_second: QUOTA, latency_ms: 40, ..Behaviour::UNLIMITED },
        requests_per_second: QUOTA,
        events: bench.pick(32_000, 1_000),
        finding: bench.pick(Duration::from_secs(5), Duration::ZERO),
        ..free
    };
    let mut figures = of_place(bench, free).await;
    figures.extend(of_place(bench, quota).await);
    figures.extend(of_lanes(bench, "one node", nodes[0]).await);
    figures
}

async fn on_a_cluster(bench: &Bench) -> Vec<Figure> {
    let first = Broker::start().await;
    let setup = || broker::Setup { cluster: Some(first.cluster()), ..broker::Setup::default() };
    let (second, third) = tokio::join!(Broker::start_with(setup()), Broker::start_with(setup()));
    let nodes = [&first, &second, &third];
    let place = Place {
        name: "cluster",
        behaviour: Behaviour::UNLIMITED,
        requests_per_second: NO_LIMIT,
        nodes: &nodes,
        events: bench.pick(20_000, 1_000),
        finding: Duration::ZERO,
    };
    let mut figures = of_place(bench, place).await;
    figures.extend(of_lanes(bench, "cluster", nodes[0]).await);
    figures
}

async fn of_place(bench: &Bench, place: Place<'_>) -> Vec<Figure> {
    let rounds = bench.pick(3, 1);
    let mut figures = Vec::new();
    for relays in 1..=3 {
        let mut all = Vec::new();
        for number in 1..=rounds {
            let round = round(bench, place, relays).await;
            bench.say(&format!(
                "{}, {relays} relays, round {number} of {rounds}: {:.0} events/s, {:.1} % throttled, shares {:.2?}",
                place.name,
                round.events_per_second,
                100.0 * round.throttled_share,
                round.shares,
            ));
            all.push(round);
        }
        let of = |figure: &dyn Fn(&Round) -> f64| median(&all.iter().map(figure).collect::<Vec<f64>>());
        let count = |figure: fn(&Round) -> u64| all.iter().map(figure).sum::<u64>() as f64;
        let us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / place.events as f64;
        let name = |figure: &str| match relays {
            1 => format!("{}, 1 relay: {figure}", place.name),
            _ => format!("{}, {relays} relays: {figure}", place.name),
        };
        figures.push(Figure::new(name("relayed"), of(&|round| round.events_per_second), "events/s"));
        figures.push(Figure::new(name("CPU of all relays an event"), of(&|r| us(r.relays_cpu)), "us"));
        figures.push(Figure::new(name("CPU of the broker an event"), of(&|r| us(r.brokers_cpu)), "us"));
        if place.behaviour.requests_per_second > 0 {
            let throttled = of(&|round| 100.0 * round.throttled_share);
            figures.push(Figure::new(name("throttled calls"), throttled, "%"));
        }
        if relays == 1 {
            let bytes = of(&|round| round.journal_bytes as f64 / place.events as f64);
            figures.push(Figure::new(name("journal, an event of 1 KB"), bytes, "bytes"));
            let bytes = of(&|round| round.written_bytes as f64 / place.events as f64);
            figures.push(Figure::new(name("written to disk, an event"), bytes, "bytes"));
        } else {
            let least = of(&|round| round.shares.iter().copied().fold(f64::INFINITY, f64::min));
            figures.push(Figure::new(name("smallest share"), 100.0 * least, "% of the events"));
        }
        figures.push(Figure::new(name("handed over again"), count(|r| r.redeliveries), "events"));
        figures.push(Figure::new(name("repeats for a consumer"), count(|r| r.repeats), "messages"));
    }
    figures
}

/// What a program that only publishes gets through one connection by more lanes.
async fn of_lanes(bench: &Bench, name: &str, broker: &Broker) -> Vec<Figure> {
    let message = |event: String| Received {
        routing_key: "vod.0.NewFileUpload".to_owned(),
        properties: BasicProperties::default().with_delivery_mode(2),
        body: event.into_bytes(),
    };
    let messages: Vec<Received> = ONE_KB.events(0, bench.pick(10_000, 500)).map(message).collect();
    let rounds = bench.pick(3, 1);
    let mut figures = Vec::new();
    for lanes in [1, 2, 4, 8] {
        let mut all = Vec::new();
        for _ in 0..rounds {
            let bare = bare::publish(broker, &messages, Shape { lanes, ..Shape::relay() }).await;
            all.push(bare.events_per_second);
        }
        let name = format!("{name}, bare publishes by {lanes} lanes");
        figures.push(Figure::new(name, median(&all), "events/s"));
    }
    figures
}

async fn round(bench: &Bench, place: Place<'_>, relays: usize) -> Round {
    let Place { nodes, events, .. } = place;
    let cloud = Cloud::start(bench, place.behaviour).await;
    cloud.put(0, ONE_KB.events(0, events)).await;
    let queue = unique("scale");
    let journals: Vec<PathBuf> =
        (0..relays).map(|at| bench.folder().join(format!("{queue}-{at}.db"))).collect();
    let cpu_of_nodes = || nodes.iter().map(|node| cpu_time(node.pid())).sum::<Duration>();
    let brokers_before = cpu_of_nodes();
    let mut running = Vec::new();
    for (at, journal) in journals.iter().enumerate() {
        // Each begins with another node, and knows the others.
        let mut urls: Vec<String> = nodes.iter().map(|node| node.url()).collect();
        urls.rotate_left(at % nodes.len());
        let mut setup = Setup::new(bench, &cloud, nodes[0], place.requests_per_second);
        setup.set("AMQP__URLS", &urls.join(","));
        setup.set("AMQP__EXCHANGE", &queue);
        setup.set("AMQP__QUEUE", &queue);
        setup.journal(journal);
        running.push(Relay::start(bench, &setup));
    }
    let samples = watched(&cloud, &mut running, events).await;
    let relays_cpu = running.iter().map(|relay| cpu_time(relay.pid())).sum();
    let brokers_cpu = cpu_of_nodes() - brokers_before;
    let written_bytes = running.iter().map(|relay| written(relay.pid())).sum();
    for relay in running {
        relay.drained().await;
    }
    assert_replicated(nodes, &queue).await;
    let published = u64::from(queue::delete(nodes[0], &queue).await);
    let shares = journals.iter().map(|journal| f64::from(confirmed_by(journal)) / events as f64).collect();
    let from = samples.iter().find(|(at, _)| *at - samples[0].0 >= place.finding);
    let (began, before) = from.expect("the backlog lasts longer than finding the quota");
    let (ended, after) = samples.last().expect("a run has an end");
    let confirmed = after.events().confirmed - before.events().confirmed;
    Round {
        events_per_second: confirmed as f64 / (*ended - *began).as_secs_f64(),
        throttled_share: (after.throttled - before.throttled) as f64
            / (after.calls() - before.calls()) as f64,
        shares,
        redeliveries: after.events().redeliveries,
        written_bytes,
        journal_bytes: journals.iter().map(|journal| size(journal)).sum(),
        repeats: published.checked_sub(events).expect("every event was published"),
        relays_cpu,
        brokers_cpu,
    }
}

/// Waits until all is confirmed; returns what the cloud counted meanwhile, from the first delivery on.
async fn watched(cloud: &Cloud, relays: &mut [Relay], events: u64) -> Vec<(Instant, Stats)> {
    let mut samples: Vec<(Instant, Stats)> = Vec::new();
    let mut moved = (0, Instant::now());
    loop {
        let at = Instant::now();
        let stats = cloud.stats().await;
        let counts = stats.events();
        if counts.deliveries > 0 {
            samples.push((at, stats));
        }
        if counts.confirmed >= events {
            return samples;
        }
        if counts.confirmed > moved.0 {
            moved = (counts.confirmed, at);
        }
        relays.iter_mut().for_each(Relay::assert_alive);
        assert!(moved.1.elapsed() < STEP_LIMIT, "the relays do not go on: {counts:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Panics when a node has no replica of the queue: an ack would then mean less than it is measured for.
async fn assert_replicated(nodes: &[&Broker], queue: &str) {
    if let [first, _, ..] = nodes {
        let rows = first.ctl(&["list_queues", "--no-table-headers", "name", "online"]).await;
        let row = rows.lines().find(|row| row.starts_with(queue)).unwrap_or_default();
        assert!(nodes.iter().all(|node| row.contains(node.name())), "not on every node: {row}");
    }
}

/// The size of a journal with what SQLite keeps beside it.
fn size(journal: &Path) -> u64 {
    let of = |end| std::fs::metadata(format!("{}{end}", journal.display())).map_or(0, |file| file.len());
    ["", "-wal", "-shm"].map(of).iter().sum()
}

/// What a process had written to disks so far, whole pages and everything twice that is written twice.
fn written(pid: Pid) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("the process lives");
    let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    bytes.and_then(|bytes| bytes.parse().ok()).expect("the kernel counts what is written")
}

/// How many events are confirmed in a journal.
fn confirmed_by(journal: &Path) -> u32 {
    let db = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let count = "SELECT count(*) FROM event_log WHERE state = 'confirmed'";
    db.and_then(|db| db.query_row(count, (), |row| row.get::<_, u32>(0))).expect("a journal can be read")
}
