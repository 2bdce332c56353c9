//! Whether a journal that is full of old events slows the relay down, or its start.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vodrelay_testkit::broker::Broker;

use crate::prefilled;
use crate::report::{Figure, Goal, median, median_ratio};
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::events::ONE_KB;
use crate::world::relay::{NO_LIMIT, Relay, Setup};
use crate::world::run::work_off;
use crate::world::{Bench, queue};

/// A journal with so many old events in it.
struct Journal {
    events: u64,
    path: PathBuf,
    relayed: Vec<f64>,
    starts_ms: Vec<f64>,
}

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let broker = bench.broker().await;
    let (sizes, rounds) = bench.pick((vec![1_000_000, 10_000_000], 5), (vec![1_000, 10_000], 1));
    let mut journals = vec![Journal::new(0, bench.folder().join("empty.db"))];
    let mut left_out = Vec::new();
    for size in sizes {
        match prefilled::journal(bench, broker, size).await {
            Some(path) => journals.push(Journal::new(size, path)),
            None => left_out.push(size),
        }
    }
    // No journal has met these numbers before, not even in an earlier run: an event that comes again is another case.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let mut next = u64::try_from(now.as_millis()).expect("it is not that late");
    for number in 1..=rounds {
        for journal in &mut journals {
            let events = bench.pick(20_000, 1_000);
            let (relayed, start) = relay_into(bench, broker, &journal.path, next, events).await;
            bench.say(&format!(
                "round {number} of {rounds}, {} old events: {relayed:.0} events/s, ready after {start:?}",
                journal.events
            ));
            journal.relayed.push(relayed);
            journal.starts_ms.push(start.as_secs_f64() * 1e3);
            next += events;
            if journal.events == 0 {
                journal.remove();
            }
        }
    }
    let empty = &journals[0].relayed;
    let mut figures: Vec<Figure> = journals.iter().flat_map(|journal| journal.figures(empty)).collect();
    let no_room = |size: u64| {
        Figure::new(format!("{size} old events: NOT MEASURED, the disk has too little room"), None, "")
    };
    figures.extend(left_out.into_iter().map(no_room));
    figures
}

impl Journal {
    fn new(events: u64, path: PathBuf) -> Self {
        Self { events, path, relayed: Vec::new(), starts_ms: Vec::new() }
    }

    fn remove(&self) {
        for end in ["", "-wal", "-shm", ".lock"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.path.display()));
        }
    }

    /// `empty` is what was relayed into an empty journal in the same rounds.
    fn figures(&self, empty: &[f64]) -> Vec<Figure> {
        let name = |figure: &str| format!("{} old events: {figure}", self.events);
        let mut figures = vec![Figure::new(name("relayed"), median(&self.relayed), "events/s")];
        if self.events > 0 {
            let ratio =
                Figure::new(name("relayed / with an empty journal"), median_ratio(&self.relayed, empty), "");
            figures.push(ratio.goal(Goal::AtLeast(0.9)));
        }
        let start = Figure::new(name("from exec to READY"), median(&self.starts_ms), "ms");
        figures.push(start.goal(Goal::AtMost(300.0)));
        figures
    }
}

/// Relays a backlog into this journal; says how fast, and how long the start of the relay took.
async fn relay_into(bench: &Bench, broker: &Broker, path: &Path, first: u64, events: u64) -> (f64, Duration) {
    let cloud = Cloud::start(bench, Behaviour::UNLIMITED).await;
    let mut setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    setup.journal(path);
    prefilled::keep(&mut setup);
    let mut relay = Relay::start(bench, &setup);
    let start = relay.ready().await;
    relay.drained().await;

    cloud.put(0, ONE_KB.events(first, events)).await;
    let run = work_off(bench, &cloud, broker, &setup, events).await;
    assert_eq!(u64::from(queue::delete(broker, &setup.queue).await), events, "everything was published once");
    (run.events_per_second(), start)
}
