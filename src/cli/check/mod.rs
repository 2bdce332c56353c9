//! `check`: tries everything that the relay needs, and prints the next step for what fails.
//!
//! It changes nothing and creates nothing. It calls `DescribeEventConfig` and `DescribeEventsState`, and
//! never `PullEvents`, which would hide events from the relay for a window.

mod broker;
mod cloud;
mod endpoints;
mod journal;
pub(super) mod lines;

use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use vodrelay_core::error_code::ErrorCode;

use self::lines::{CheckLine, CheckReport};
use super::exit::{Exit, Failure};
use crate::config::{Config, LoadedConfig, environment, origin};

/// The longest duration of the live part. Each request in it has a shorter limit of its own.
const LIMIT: Duration = Duration::from_secs(18);

/// Check the configuration, and try the cloud, the broker and the journal for real
///
/// One line each: ok, warn or fail, with the next step. Nothing is changed, created, pulled or published. Ends with 0 when
/// nothing failed, with 78 when something must be changed first, and with 75 when something is out of reach right now.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read the configuration only, and try nothing
    #[arg(long)]
    offline: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, path: Option<&Path>) -> Result<Exit, Failure> {
    let mut report = CheckReport::new(args.json);
    let LoadedConfig { config, warnings } = match Config::load_with_warnings(path, environment()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for error in errors.iter() {
                let line = CheckLine::wrong("config", error.to_string()).at(&error.place);
                report.add(&line.error_code(ErrorCode::ConfigurationWrong))?;
            }
            return Ok(report.exit());
        }
    };
    report.add(&CheckLine::ok("config", origin(path)))?;
    for warning in &warnings {
        let line = CheckLine::warn("config", warning.to_string()).at(&warning.place);
        report.add(&line.error_code(ErrorCode::ConfigurationDoubtful))?;
    }
    if !args.offline {
        let runtime = super::runtime()?;
        let tried = runtime.block_on(try_all(&config, &mut report));
        // A name server or a disk that never answers must not keep the process.
        runtime.shutdown_background();
        tried?;
    }
    Ok(report.exit())
}

/// Tries everything at once, and reports in one order.
async fn try_all(config: &Config, report: &mut CheckReport) -> Result<(), Failure> {
    let deadline = Instant::now() + LIMIT;
    let parts: [JoinHandle<Vec<CheckLine>>; 4] = [
        tokio::spawn(cloud::check(config.clone(), deadline)),
        tokio::spawn(broker::check(config.clone(), deadline)),
        tokio::spawn(journal::check(config.journal.path.clone(), deadline)),
        tokio::spawn(endpoints::check(config.clone())),
    ];
    for part in parts {
        let lines = part.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        for line in &lines {
            report.add(line)?;
        }
    }
    Ok(())
}
