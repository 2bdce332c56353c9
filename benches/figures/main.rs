//! Measures the relay as it is shipped, against a cloud that is emulated and a RabbitMQ that is not.
//!
//! `cargo bench --profile dist --features jemalloc --bench figures` measures everything and ends with an error when a goal is
//! missed; `-- --short` only sees that every measurement works. What the figures mean is in `benches/README.md`.
//!
//! A scenario is a module with a function that returns figures, and a line in [`SCENARIOS`].

mod ceiling;
mod event_size;
mod journal_size;
mod latency;
mod memory;
mod peers;
mod prefilled;
mod quota;
mod report;
mod scale;
mod store_and_forward;
mod sub_apps;
mod world;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::signal::unix::{SignalKind, signal};

use report::{Figure, Report};
use world::Bench;

/// Measure the relay
#[derive(Debug, Parser)]
struct Arguments {
    /// Only see that each scenario works: little of everything, and no goals
    #[arg(long)]
    short: bool,
    /// Run these scenarios alone
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = PossibleValuesParser::new(names()))]
    only: Vec<String>,
    /// Where the figures are written
    #[arg(long, value_name = "FILE", default_value_os_t = default_json())]
    json: PathBuf,
    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Something to measure.
struct Scenario {
    name: &'static str,
    run: for<'a> fn(&'a Bench) -> LocalBoxFuture<'a, Vec<Figure>>,
}

/// All there is to measure, in the order of the table.
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "quota", run: |bench| quota::run(bench).boxed_local() },
    Scenario { name: "ceiling", run: |bench| ceiling::run(bench).boxed_local() },
    Scenario { name: "latency", run: |bench| latency::run(bench).boxed_local() },
    Scenario { name: "memory", run: |bench| memory::run(bench).boxed_local() },
    Scenario { name: "journal-size", run: |bench| journal_size::run(bench).boxed_local() },
    Scenario { name: "sub-apps", run: |bench| sub_apps::run(bench).boxed_local() },
    Scenario { name: "event-size", run: |bench| event_size::run(bench).boxed_local() },
    Scenario { name: "store-and-forward", run: |bench| store_and_forward::run(bench).boxed_local() },
    Scenario { name: "peers", run: |bench| peers::run(bench).boxed_local() },
    Scenario { name: "scale", run: |bench| scale::run(bench).boxed_local() },
];

fn names() -> Vec<&'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name).collect()
}

/// Cargo's folder for what benchmarks make: on the disk that the program is built on, which is hardly ever a `tmpfs`.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");

fn default_json() -> PathBuf {
    Path::new(SCRATCH).with_file_name("figures.json")
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.short && !is_shipped() {
        eprintln!(
            "error: this is not the program as it is shipped; run `cargo bench --profile dist --features jemalloc --bench figures`"
        );
        return ExitCode::FAILURE;
    }
    // The brokers' folders too: their disk is a part of what is measured.
    tempfile::env::override_temp_dir(Path::new(SCRATCH)).expect("nobody has chosen another folder yet");
    // The HTTP client's TLS part wants a provider even where no TLS is spoken.
    rustls::crypto::ring::default_provider().install_default().expect("nobody has installed another one");
    tokio::select! {
        report = measure(&arguments) => {
            print!("{}", report.table());
            report.write(&arguments.json);
            eprintln!("the figures are in {}", arguments.json.display());
            if report.all_is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        // What was begun is cleared away on the way out.
        () = interrupted() => ExitCode::FAILURE,
    }
}

/// Whether the program under test was built as the package builds it.
fn is_shipped() -> bool {
    let folder = Path::new(env!("CARGO_BIN_EXE_vodrelay")).parent().and_then(Path::file_name);
    cfg!(feature = "jemalloc") && folder.is_some_and(|profile| profile == "dist")
}

async fn measure(arguments: &Arguments) -> Report {
    let mut report = Report::new(arguments.short);
    let wanted = |scenario: &&Scenario| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == scenario.name)
    };
    for scenario in SCENARIOS.iter().filter(wanted) {
        let bench = Bench::new(scenario.name, arguments.short);
        bench.say("begins");
        // One scenario that cannot be measured is no reason to lose the figures of the others.
        match AssertUnwindSafe((scenario.run)(&bench)).catch_unwind().await {
            Ok(figures) => report.add(scenario.name, figures),
            Err(_) => report.failed(scenario.name),
        }
        bench.say("ends");
    }
    report
}

async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
