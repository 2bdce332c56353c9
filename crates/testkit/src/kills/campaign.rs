//! Kill after kill, at random moments and at named points, while events keep coming and the cloud misbehaves.
//!
//! The tests run short ones, and the program `kill` runs as many kills as asked.

use std::fmt;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tencent_vod_emulator::events::{EVENT_TYPES, sample};
use tencent_vod_emulator::{Action, Fault, FaultKind, Redelivery, State};

use super::audit::{audit, figure};
use super::process::{Host, Relay};
use crate::broker::{Broker, LIMIT};
use crate::world::{WINDOW, World};

/// How long a life may go on without what it is to be killed at.
const LIFE_LIMIT: Duration = Duration::from_millis(1_500);

/// How old one of two relays gets at the most. A relay takes an idle answer for the proof that the cloud has forgotten an
/// event, a window and five seconds after it had it; another relay that holds the event just then, and dies with it, makes
/// that proof wrong. No relay here lives long enough for it.
const SECOND_RELAY_LIMIT: Duration = Duration::from_secs(4);

/// Where a process can be made to die, in the order of an event's way: see `src/failpoint.rs`.
pub const POINTS: [&str; 11] = [
    "committing start",
    "committed start",
    "committing load",
    "committed load",
    "committing record",
    "committed record",
    "sent publish",
    "committing published",
    "committed published",
    "committing confirmed",
    "committed confirmed",
];

/// What is done to whom.
#[derive(Clone, Debug)]
pub struct Plan {
    pub program: PathBuf,
    pub seed: u64,
    pub kills: u32,
    /// Relays on one queue, each with its own journal.
    pub relays: usize,
    pub sub_apps: Vec<u64>,
    /// `publish` or `journal`.
    pub confirm_after: &'static str,
    /// Whether redeliveries come under the handle that the event had. If not, some pulls come under one handle: both at
    /// once would let a confirm delete what its relay was never shown.
    pub same_handle: bool,
    /// Whether the program has crash points: a build with debug assertions does.
    pub points: bool,
}

impl Plan {
    /// What a seed stands for.
    pub fn by_chance(program: &Path, seed: u64, kills: u32, points: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let sub_apps = match rng.usize(1..=3) {
            // The default application stands alone.
            1 => vec![0],
            some => [1_500_000_001, 1_500_000_002, 1_500_000_003][..some].to_vec(),
        };
        Self {
            program: program.to_owned(),
            seed,
            kills,
            // Every fourth: a small seed is no good chance at its first draw.
            relays: if seed.is_multiple_of(4) { 2 } else { 1 },
            sub_apps,
            confirm_after: if rng.bool() { "publish" } else { "journal" },
            same_handle: rng.bool(),
            points,
        }
    }
}

/// What came of it, when all is well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub kills: u32,
    /// Kills of those at a named point.
    pub at_points: u32,
    pub events: usize,
    pub redeliveries: usize,
    /// Messages beyond the first of each event, all under its first message id.
    pub duplicates: usize,
    /// Those of them that another relay published; every other one is named by its own.
    pub across: usize,
    /// When a confirm came nearest to its cutoff, in milliseconds after it.
    pub nearest_ms: Option<i64>,
    pub time: Duration,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.at_points += other.at_points;
        self.events += other.events;
        self.redeliveries += other.redeliveries;
        self.duplicates += other.duplicates;
        self.across += other.across;
        self.nearest_ms = self.nearest_ms.max(other.nearest_ms);
        self.time += other.time;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, at_points, events, redeliveries, duplicates, across, nearest_ms, time } = self;
        let per_kill = *duplicates as f64 / f64::from((*kills).max(1));
        write!(
            f,
            "{kills} kills ({at_points} at named points), {events} events, none lost, {redeliveries} redeliveries, \
             {duplicates} duplicates ({across} by another relay, all others named), {per_kill:.2} duplicates per kill, last confirm {} ms before its cutoff, {:.1} s",
            -nearest_ms.unwrap_or_default(),
            time.as_secs_f64()
        )
    }
}

/// Says which seed it was when anything panics.
struct Seed<'a>(&'a Plan);

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was {:?}", self.0);
        }
    }
}

/// Events of all types, no two of which are equal.
pub struct Source {
    number: u64,
}

impl Source {
    pub fn new() -> Self {
        Self { number: 0 }
    }

    pub fn put(&mut self, world: &World, sub_app: u64, count: usize) {
        for _ in 0..count {
            let event_type = EVENT_TYPES[usize::try_from(self.number).unwrap() % EVENT_TYPES.len()];
            world.emulator.put(sub_app, sample(event_type, self.number).unwrap());
            self.number += 1;
        }
    }
}

/// Kills as often as planned, then lets the relays finish, and compares all ends.
pub async fn run(broker: &Broker, plan: &Plan) -> Figures {
    let began = Instant::now();
    let _seed = Seed(plan);
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let world = World::new(&broker.url(), &plan.sub_apps).await;
    if plan.same_handle {
        world.emulator.change_settings(|settings| settings.queue.redelivery = Redelivery::SameHandle);
    }
    let mode = [("VODRELAY_RELAY__CONFIRM_AFTER", plan.confirm_after)];
    let host = |number| Host::new(&plan.program, &world, &format!("relay{number}"), &mode);
    let hosts: Vec<Host> = (1..=plan.relays).map(host).collect();
    let mut source = Source::new();
    let mut figures = Figures::default();
    // With two relays one goes on while the other is killed.
    let mut others: Vec<Relay> = hosts[1..].iter().map(|host| host.start(None)).collect();
    let mut next = 0;
    while figures.kills < plan.kills {
        if rng.u32(..6) == 0 {
            switch_faults(&world, plan, &mut rng);
        }
        for sub_app in &plan.sub_apps {
            source.put(&world, *sub_app, rng.usize(..8));
        }
        let point = (plan.points && rng.u32(..3) == 0)
            .then(|| format!("{}:{}", POINTS[rng.usize(..POINTS.len())], rng.u32(1..=4)));
        let mut life = hosts[next].start(point.as_deref());
        let crashed = live(&world, plan, &mut rng, &mut source, &mut life, point.is_some()).await;
        figures.at_points += u32::from(crashed);
        life.kill();
        figures.kills += 1;
        if rng.u32(..15) == 0 {
            // The next life finds leases that are nearly over, or just over.
            tokio::time::sleep(WINDOW.mul_f64(rng.f64())).await;
        }
        if let Some(other) = others.pop() {
            // The one that was killed comes back, and it is the other one's turn.
            if rng.bool() || other.age() > SECOND_RELAY_LIMIT {
                others.push(hosts[next].start(None));
                other.kill();
                figures.kills += 1;
                next = (next + 1) % hosts.len();
            } else {
                others.push(other);
            }
        }
    }
    drop(others);
    finish(&world, &hosts).await;
    let found = audit(broker, &world, &hosts).await;
    Figures {
        events: found.events,
        duplicates: found.duplicates,
        across: found.across,
        redeliveries: found.redeliveries,
        nearest_ms: Some(found.nearest_ms),
        time: began.elapsed(),
        ..figures
    }
}

/// No more faults, and every relay once more, until all ends agree.
pub async fn finish(world: &World, hosts: &[Host]) {
    world.emulator.faults().clear();
    let relays: Vec<Relay> = hosts.iter().map(|host| host.start(None)).collect();
    world.until_confirmed().await;
    let agree = async {
        let open = "SELECT count(*) FROM event_log WHERE state <> 'confirmed'";
        while hosts.iter().any(|host| figure(host.journal(), open) > 0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let agreed = tokio::time::timeout(2 * LIMIT, agree).await;
    assert!(agreed.is_ok(), "the journals call everything confirmed");
    for relay in relays {
        relay.drained().await;
    }
}

/// One life up to its last moment: at its crash point, or anywhere. Says whether it reached its point.
async fn live(
    world: &World,
    plan: &Plan,
    rng: &mut fastrand::Rng,
    source: &mut Source,
    life: &mut Relay,
    has_point: bool,
) -> bool {
    let began = Instant::now();
    if has_point {
        while began.elapsed() < LIFE_LIMIT {
            if life.has_crashed() {
                return true;
            }
            let sub_app = plan.sub_apps[rng.usize(..plan.sub_apps.len())];
            source.put(world, sub_app, rng.usize(..3));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        return life.has_crashed();
    }
    if plan.relays == 1 && rng.u32(..20) == 0 {
        // Leases lapse, and events come again, within one life.
        tokio::time::sleep(WINDOW.mul_f64(1.2)).await;
        return false;
    }
    let before = world.emulator.stats().events();
    let (deliveries, confirmed) = (before.deliveries, before.confirmed);
    // Around the start, while an answer is on its way, and around a confirm. Not everything happens in every life.
    let mean_ms = match rng.u32(..3) {
        0 => 80.0,
        1 => {
            let pulled = |state: &State| state.stats().events().deliveries > deliveries;
            let _ = world.emulator.wait_until(pulled, LIFE_LIMIT).await;
            15.0
        }
        _ => {
            let told = |state: &State| state.stats().events().confirmed > confirmed;
            let _ = world.emulator.wait_until(told, LIFE_LIMIT).await;
            15.0
        }
    };
    let wait_ms = (-mean_ms * (1.0 - rng.f64()).ln()).clamp(1.0, 300.0);
    let wait = Duration::from_secs_f64(wait_ms / 1_000.0);
    tokio::time::sleep(wait / 2).await;
    source.put(world, plan.sub_apps[rng.usize(..plan.sub_apps.len())], rng.usize(..5));
    tokio::time::sleep(wait / 2).await;
    false
}

fn switch_faults(world: &World, plan: &Plan, rng: &mut fastrand::Rng) {
    let (pull, confirm) = (Action::PullEvents, Action::ConfirmEvents);
    let mut all = vec![
        Fault::always(FaultKind::AnswerLost).on(pull).with_probability(0.05),
        Fault::always(FaultKind::AnswerLost).on(confirm).with_probability(0.2),
        Fault::always(FaultKind::Truncated).with_probability(0.05),
        Fault::always(FaultKind::Reset).on(pull).with_probability(0.1),
        Fault::always(FaultKind::Reset).on(confirm).with_probability(0.2),
        Fault::always(FaultKind::Throttle).with_probability(0.1),
        Fault::always(FaultKind::SlowAnswer { ms: 20 }).with_probability(0.3),
        Fault::always(FaultKind::Delay { ms: 30 }).on(confirm).with_probability(0.3),
        Fault::once(FaultKind::BadHandle { handle: None }),
    ];
    all.push(if plan.same_handle {
        Fault::always(FaultKind::Redelivered { under: Redelivery::SameHandle }).with_probability(0.1)
    } else {
        Fault::always(FaultKind::OneHandle).with_probability(0.3)
    });
    world.emulator.faults().clear();
    for fault in all {
        if rng.u32(..3) == 0 {
            world.emulator.faults().add(fault);
        }
    }
}
