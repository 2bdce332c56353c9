//! Kills the relay as often as asked: `cargo run --release -p vodrelay-testkit --bin kill -- --kills 1000 --seed 1`.
//!
//! It builds the program, starts a RabbitMQ node of its own and an emulated cloud, and runs one campaign after another. Each
//! has a fresh queue and fresh journals, and its seed draws the number of relays and sub-applications, the proof that a
//! confirm waits for, the faults and the moments. The program dies by SIGKILL; at the end of each campaign the ledger of the
//! cloud, the queue and the journals are compared. The same seed gives the same plan, but not the same moments.
//!
//! A program with debug assertions also dies at named points inside: leave out `--release` for that.

use std::path::PathBuf;
use std::process::Command;

use clap::Parser;
use vodrelay_testkit::broker::Broker;
use vodrelay_testkit::kills::campaign::{Figures, Plan, run};

/// So many kills share one queue and one set of journals.
const KILLS_PER_CAMPAIGN: u32 = 100;

/// Kill the relay over and over, and see that nothing is lost
#[derive(Debug, Parser)]
struct Args {
    /// How many kills, at least
    #[arg(long, default_value_t = 1_000)]
    kills: u32,
    /// Where chance begins; campaigns count on from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program to kill, instead of the one that is built for it
    #[arg(long)]
    program: Option<PathBuf>,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let program = args.program.unwrap_or_else(build);
    let points = cfg!(debug_assertions);
    let broker = Broker::start().await;
    let mut total = Figures::default();
    for seed in args.seed.. {
        let left = args.kills.saturating_sub(total.kills);
        if left == 0 {
            break;
        }
        let plan = Plan::by_chance(&program, seed, left.min(KILLS_PER_CAMPAIGN), points);
        eprintln!("{plan:?}");
        let figures = run(&broker, &plan).await;
        eprintln!("  {figures}");
        total += figures;
    }
    println!("{total}");
}

/// Builds the program in the profile of this one, which does not bring it up to date by itself.
fn build() -> PathBuf {
    let this = std::env::current_exe().expect("a program knows where it is");
    let folder = this.parent().expect("a program is in a folder");
    let profile = folder.file_name().and_then(|name| name.to_str()).expect("a profile's name is text");
    // The folder of the profile `dev` is the one that is called otherwise.
    let profile = if profile == "debug" { "dev" } else { profile };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["build", "--locked", "-p", "vodrelay", "--bin", "vodrelay", "--profile", profile]);
    assert!(command.status().expect("cargo can be run").success(), "the program cannot be built");
    folder.join("vodrelay")
}
