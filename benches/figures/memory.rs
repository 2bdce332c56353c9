//! Whether the relay's memory is flat, however many events have passed.

use crate::report::{Figure, Goal, median};
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::events::ONE_KB;
use crate::world::relay::{NO_LIMIT, Setup};
use crate::world::run::{Run, peak_figure, work_off};
use crate::world::{Bench, queue};

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let broker = bench.broker().await;
    let events = bench.pick(1_000_000, 20_000);
    let cloud = Cloud::start(bench, Behaviour::UNLIMITED).await;
    cloud.put(0, ONE_KB.events(0, events)).await;
    bench.say(&format!("the cloud holds {events} events"));
    let setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    let run = work_off(bench, &cloud, broker, &setup, events).await;
    assert_eq!(u64::from(queue::delete(broker, &setup.queue).await), events, "everything was published once");
    let (quarter, end) = (resident_mb(&run, 0.20..=0.30), resident_mb(&run, 0.90..=1.0));
    vec![
        Figure::new("relayed", run.events_per_second(), "events/s"),
        peak_figure("peak memory".to_owned(), run.peak_mb()),
        Figure::new("memory after a quarter of the events", quarter, "MB"),
        Figure::new("memory at the end", end, "MB"),
        Figure::new("growth", 100.0 * (end / quarter - 1.0), "%").goal(Goal::AtMost(10.0)),
    ]
}

/// The resident memory while this part of the events was confirmed.
fn resident_mb(run: &Run, part: std::ops::RangeInclusive<f64>) -> f64 {
    let of = |confirmed: u64| confirmed as f64 / run.events as f64;
    let samples = run.samples.iter().filter(|sample| part.contains(&of(sample.confirmed)));
    let sizes: Vec<f64> = samples.map(|sample| sample.resident_bytes as f64 / f64::from(1 << 20)).collect();
    median(&sizes)
}
