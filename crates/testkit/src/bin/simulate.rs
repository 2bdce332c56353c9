//! Runs as many seeds of the simulation as one likes, or one of them with a trace.
//!
//! ```text
//! cargo run --profile dist -p vodrelay-testkit --bin simulate -- --seeds 1000000 [--from N]
//! cargo run --profile dist -p vodrelay-testkit --bin simulate -- --seed N --trace
//! ```

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use vodrelay_testkit::simulation::campaign;
use vodrelay_testkit::simulation::plan::{Fault, Plan};
use vodrelay_testkit::simulation::sabotage::Sabotage;
use vodrelay_testkit::simulation::world::Outcome;

/// Runs the relay's core in a simulated world.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Ends after so many seeds that failed.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Runs this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Puts each deliberate bug in, and says which promise it is seen to break.
    #[arg(long)]
    sabotage: bool,
    /// Only the one of this name.
    #[arg(long, requires = "sabotage")]
    bug: Option<String>,
    /// Takes a fault out of it, to see whether it matters.
    #[arg(long, requires = "seed")]
    without: Vec<String>,
    /// Says everything that happens in it.
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let mut plan = Plan::new(seed);
        for fault in Fault::ALL.into_iter().filter(|fault| arguments.without.contains(&format!("{fault:?}")))
        {
            plan.set(fault, 0);
        }
        if arguments.trace {
            eprintln!("{plan:#?}");
        }
        let outcome = campaign::run(&plan, None, arguments.trace);
        return match outcome.violation {
            None => {
                let Outcome { events, repeats, digest, .. } = outcome;
                println!(
                    "seed {seed}: {events} events, {repeats} repeats, all is well, digest {digest:016x}"
                );
                ExitCode::SUCCESS
            }
            Some(violation) => {
                println!("seed {seed}: {violation}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments.sabotage {
        let wanted = |bug: &Sabotage| arguments.bug.as_ref().is_none_or(|name| format!("{bug:?}") == *name);
        let rare = Sabotage::FOUND.map(|(_, bug, guarantee)| (bug, vec![guarantee]));
        let all = Sabotage::ALL.map(|(bug, expected)| (bug, expected.to_vec())).into_iter();
        let all = if arguments.bug.is_some() { all.chain(rare.to_vec()) } else { all.chain(Vec::new()) };
        for (bug, expected) in all.filter(|(bug, _)| wanted(bug)) {
            println!("{}", campaign::row(bug, &campaign::seen(bug, &expected, arguments.seeds)));
        }
        return ExitCode::SUCCESS;
    }
    let began = Instant::now();
    let range = arguments.from..arguments.from + arguments.seeds;
    let progress = |done| eprint!("\r{done} seeds");
    let (figures, failed) = campaign::seeds(range, None, arguments.failures, progress);
    let seconds = began.elapsed().as_secs_f64();
    eprintln!();
    println!("{}", figures.table());
    println!("{seconds:>12.1} s, {:.0} seeds a second", figures.seeds as f64 / seconds);
    for (seed, violation) in &failed {
        println!("seed {seed}: {violation}\nreplay: {}", campaign::replay(*seed));
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
