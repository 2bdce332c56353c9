//! A relay that works off a backlog, and what it cost.

use std::time::{Duration, Instant};

use vodrelay_testkit::broker::Broker;

use super::cloud::Cloud;
use super::process::{Memory, cpu_time, memory};
use super::relay::{Relay, Setup};
use super::{Bench, STEP_LIMIT};
use crate::report::{Figure, Goal};

/// How often the emulator is asked how far things are. Each look costs it a tenth of a millisecond.
const LOOK: Duration = Duration::from_millis(20);

/// How far things were at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) confirmed: u64,
    pub(crate) calls: u64,
    pub(crate) throttled: u64,
    pub(crate) resident_bytes: u64,
}

/// The CPU time of everybody.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    relay: Duration,
    emulator: Duration,
    broker: Duration,
}

/// What one relay did with one backlog.
pub(crate) struct Run {
    /// From the first delivery to the last confirm.
    pub(crate) samples: Vec<Sample>,
    pub(crate) events: u64,
    pub(crate) memory: Memory,
    cpu: Cpu,
}

/// Starts a relay, and waits until it has relayed the `events` that the cloud holds; then lets it drain.
pub(crate) async fn work_off(
    bench: &Bench,
    cloud: &Cloud,
    broker: &Broker,
    setup: &Setup,
    events: u64,
) -> Run {
    let mut relay = Relay::start(bench, setup);
    let cpu = |relay: &Relay| Cpu {
        relay: cpu_time(relay.pid()),
        emulator: cpu_time(cloud.pid()),
        broker: cpu_time(broker.pid()),
    };
    let before = cloud.stats().await;
    let goal = before.events().confirmed + events;
    let mut cpu_before = cpu(&relay);
    let mut samples: Vec<Sample> = Vec::new();
    let mut moved = Instant::now();
    loop {
        let at = Instant::now();
        let stats = cloud.stats().await;
        let begun = stats.events().deliveries > before.events().deliveries;
        if !begun {
            cpu_before = cpu(&relay);
        } else {
            let confirmed = stats.events().confirmed;
            if samples.last().is_none_or(|last| confirmed > last.confirmed) {
                moved = at;
            }
            let resident_bytes = memory(relay.pid()).resident_bytes;
            samples.push(Sample {
                at,
                confirmed,
                calls: stats.calls(),
                throttled: stats.throttled,
                resident_bytes,
            });
            if confirmed >= goal {
                assert_eq!(confirmed, goal, "the cloud held these events alone");
                assert_eq!(stats.events().redeliveries, before.events().redeliveries, "nothing lapsed");
                break;
            }
        }
        relay.assert_alive();
        assert!(moved.elapsed() < STEP_LIMIT, "the relay does not go on: {:?}", stats.events());
        tokio::time::sleep(if begun { LOOK } else { Duration::from_millis(2) }).await;
    }
    let after = cpu(&relay);
    let cpu = Cpu {
        relay: after.relay - cpu_before.relay,
        emulator: after.emulator - cpu_before.emulator,
        broker: after.broker - cpu_before.broker,
    };
    let memory = memory(relay.pid());
    relay.drained().await;
    Run { samples, events, memory, cpu }
}

impl Run {
    /// How long it took, from the first pull to the last confirm.
    pub(crate) fn took(&self) -> Duration {
        self.last().at - self.samples[0].at
    }

    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.took().as_secs_f64()
    }

    /// The part of it that began so long after the first pull.
    pub(crate) fn since(&self, start: Duration) -> Part {
        let from = self.samples.iter().find(|sample| sample.at - self.samples[0].at >= start);
        Part { from: *from.expect("the run lasted longer than that"), to: *self.last() }
    }

    fn last(&self) -> &Sample {
        self.samples.last().expect("a run has an end")
    }

    /// Microseconds of CPU for each event: the relay's, the emulator's, the broker's.
    pub(crate) fn cpu_us_per_event(&self) -> [f64; 3] {
        let Cpu { relay, emulator, broker } = self.cpu;
        [relay, emulator, broker].map(|time| time.as_secs_f64() * 1e6 / self.events as f64)
    }

    pub(crate) fn peak_mb(&self) -> f64 {
        self.memory.peak_bytes as f64 / f64::from(1 << 20)
    }
}

/// The peak memory of a relay, as a figure with its goal.
pub(crate) fn peak_figure(name: String, mb: f64) -> Figure {
    Figure::new(name, mb, "MB").goal(Goal::AtMost(32.0))
}

/// What happened between two samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    from: Sample,
    to: Sample,
}

impl Part {
    pub(crate) fn events_per_second(&self) -> f64 {
        let took = self.to.at - self.from.at;
        (self.to.confirmed - self.from.confirmed) as f64 / took.as_secs_f64()
    }

    /// Which part of the calls the cloud refused as too many.
    pub(crate) fn throttled_share(&self) -> f64 {
        (self.to.throttled - self.from.throttled) as f64 / (self.to.calls - self.from.calls) as f64
    }
}
