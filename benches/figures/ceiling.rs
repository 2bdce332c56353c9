//! How fast the relay is when nothing limits it but the machine, beside a loop that only publishes.

use vodrelay_testkit::broker::Broker;

use crate::report::{Figure, Goal, median};
use crate::world::Bench;
use crate::world::bare::{self, Bare, Shape};
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::events::{Kind, ONE_KB};
use crate::world::queue;
use crate::world::relay::{NO_LIMIT, Setup};
use crate::world::run::{Run, peak_figure, work_off};

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let broker = bench.broker().await;
    let mut figures = Vec::new();
    for kind in [ONE_KB, Kind::Upload] {
        figures.extend(of_kind(bench, broker, kind).await);
    }
    figures
}

/// One relay and both bare loops, with the same messages.
struct Round {
    relay: Run,
    bare: Bare,
    bare_64: Bare,
}

async fn of_kind(bench: &Bench, broker: &Broker, kind: Kind) -> Vec<Figure> {
    let (rounds, events) = bench.pick((5, 30_000), (1, 2_000));
    let mut all: Vec<Round> = Vec::new();
    for number in 1..=rounds {
        let round = round(bench, broker, kind, events).await;
        bench.say(&format!(
            "{}, round {number} of {rounds}: relay {:.0} events/s, bare {:.0}, in batches of 64 {:.0}",
            kind.name(),
            round.relay.events_per_second(),
            round.bare.events_per_second,
            round.bare_64.events_per_second,
        ));
        all.push(round);
    }
    let of = |figure: &dyn Fn(&Round) -> f64| median(&all.iter().map(figure).collect::<Vec<f64>>());
    let relayed = |round: &Round| round.relay.events_per_second();
    let ratio = of(&|round| relayed(round) / round.bare.events_per_second);
    let cpu = |whose: usize| of(&|round| round.relay.cpu_us_per_event()[whose]);
    let peak = all.iter().map(|round| round.relay.peak_mb()).fold(0.0, f64::max);
    let name = |figure: &str| format!("{}: {figure}", kind.name());
    vec![
        Figure::new(name("relayed"), of(&relayed), "events/s"),
        Figure::new(name("bare, batches of 16"), of(&|round| round.bare.events_per_second), "events/s"),
        Figure::new(name("bare, batches of 64"), of(&|round| round.bare_64.events_per_second), "events/s"),
        Figure::new(name("relayed / bare"), ratio, "").goal(Goal::AtLeast(0.6)),
        Figure::new(name("relay's CPU an event"), cpu(0), "us"),
        // Of the same events in the same round: a machine's speed is on both sides.
        Figure::new(
            name("relay's CPU / broker's"),
            of(&|round| {
                let [relay, _, broker] = round.relay.cpu_us_per_event();
                relay / broker
            }),
            "",
        )
        .goal(Goal::AtMost(0.65)),
        Figure::new(name("emulator's CPU an event"), cpu(1), "us"),
        Figure::new(name("broker's CPU an event"), cpu(2), "us"),
        Figure::new(name("bare: its own CPU an event"), of(&|round| round.bare.cpu_us_per_event), "us"),
        Figure::new(
            name("bare: broker's CPU an event"),
            of(&|round| round.bare.broker_cpu_us_per_event),
            "us",
        ),
        peak_figure(name("peak memory"), peak),
    ]
}

async fn round(bench: &Bench, broker: &Broker, kind: Kind, events: u64) -> Round {
    let cloud = Cloud::start(bench, Behaviour::UNLIMITED).await;
    cloud.put(0, kind.events(0, events)).await;
    let setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    let relay = work_off(bench, &cloud, broker, &setup, events).await;
    drop(cloud);
    let messages = queue::take(broker, &setup.queue, events).await;
    assert_eq!(queue::delete(broker, &setup.queue).await, 0, "everything was published once");
    // Alone on the machine now.
    let bare = bare::publish(broker, &messages, Shape::relay()).await;
    let bare_64 = bare::publish(broker, &messages, Shape { batch: 64, ..Shape::relay() }).await;
    Round { relay, bare, bare_64 }
}
