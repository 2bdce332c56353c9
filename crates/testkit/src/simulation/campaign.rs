//! Many seeds on every core of the machine, and the figures of them.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::check::{Guarantee, Violation};
use super::plan::{Fault, Plan};
use super::sabotage::Sabotage;
use super::world::{self, Outcome};

const NO_PANIC: &str = "no thread panics while it holds this";

/// The figures of a campaign.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Seeds run.
    pub seeds: u64,
    /// Events put.
    pub events: u64,
    /// How often each fault struck, in the order of [`Fault::ALL`].
    pub faults: Vec<u64>,
    /// Processes that died.
    pub crashes: u64,
    /// Repeats at the broker, each explained.
    pub repeats: u64,
    /// The longest time from the end of the faults to the end of everything, in virtual milliseconds.
    pub longest_rest_ms: u64,
}

impl Figures {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events as u64;
        self.faults.resize(Fault::ALL.len(), 0);
        for (sum, count) in self.faults.iter_mut().zip(outcome.faults) {
            *sum += u64::from(count);
        }
        self.crashes += outcome.crashes as u64;
        self.repeats += outcome.repeats as u64;
        self.longest_rest_ms = self.longest_rest_ms.max(outcome.rest_ms);
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut lines = vec![
            format!("{:>12} seeds", self.seeds),
            format!("{:>12} events", self.events),
            format!("{:>12} faults", self.faults.iter().sum::<u64>()),
            format!("{:>12} processes died", self.crashes),
            format!("{:>12} repeats at the broker, each explained", self.repeats),
            format!("{:>12} ms at the most until all was at rest", self.longest_rest_ms),
        ];
        for (fault, count) in Fault::ALL.iter().zip(&self.faults) {
            lines.push(format!("{count:>12} {fault:?}"));
        }
        lines.join("\n")
    }
}

/// Runs one seed. A panic of the core is a violation like any other.
pub fn seed(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> Outcome {
    run(&Plan::new(seed), sabotage, trace)
}

/// Runs one plan.
pub fn run(plan: &Plan, sabotage: Option<Sabotage>, trace: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| world::run(plan, sabotage, trace))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        let what = format!("panicked: {}", words.unwrap_or_default());
        Outcome {
            violation: Some(Violation { guarantee: Guarantee::ComesToAnEnd, at: 0, what }),
            faults: [0; Fault::ALL.len()],
            events: 0,
            crashes: 0,
            repeats: 0,
            rest_ms: 0,
            digest: 0,
        }
    })
}

/// How to bring a failure back.
pub fn replay(seed: u64) -> String {
    format!("cargo run --profile dist -p vodrelay-testkit --bin simulate -- --seed {seed} --trace")
}

/// Runs seeds until `failures` of them have failed or all are done. The failures are in the order of their seeds.
///
/// `progress` is told the number of seeds that are done, now and then.
pub fn seeds(
    range: Range<u64>,
    sabotage: Option<Sabotage>,
    failures: usize,
    progress: impl Fn(u64) + Sync,
) -> (Figures, Vec<(u64, Violation)>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(range.start);
    let stop = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    let figures = Mutex::new(Figures::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= range.end {
                break;
            }
            let outcome = seed(number, sabotage, false);
            let mut figures = figures.lock().expect(NO_PANIC);
            figures.add(&outcome);
            if figures.seeds.is_multiple_of(1_000) {
                progress(figures.seeds);
            }
            drop(figures);
            if let Some(violation) = outcome.violation {
                let mut failed = failed.lock().expect(NO_PANIC);
                failed.push((number, violation));
                stop.fetch_or(failed.len() >= failures, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().expect(NO_PANIC);
    failed.sort_by_key(|(seed, _)| *seed);
    (figures.into_inner().expect(NO_PANIC), failed)
}

/// What became of a bug: the first seed that showed it by any checker, and the first by one of those expected.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub first: Option<(u64, Violation)>,
    pub expected: Option<(u64, Violation)>,
}

/// Looks for a bug in so many seeds.
pub fn seen(bug: Sabotage, expected: &[Guarantee], within: u64) -> Seen {
    let mut seen = Seen::default();
    for number in 0..within {
        let Some(violation) = seed(number, Some(bug), false).violation else { continue };
        let is_expected = expected.contains(&violation.guarantee);
        seen.first.get_or_insert_with(|| (number, violation.clone()));
        if is_expected {
            seen.expected = Some((number, violation));
            break;
        }
    }
    seen
}

/// A bug and the checkers that saw it, as a row of a table.
pub fn row(bug: Sabotage, seen: &Seen) -> String {
    let shown = |seen: &Option<(u64, Violation)>| match seen {
        Some((seed, violation)) => format!("seed {seed:>4} {:<18}", violation.guarantee.to_string()),
        None => format!("{:<28}", "NOT SEEN"),
    };
    format!("{:<24} first {} expected {}", format!("{bug:?}"), shown(&seen.first), shown(&seen.expected))
}
