//! `run`: the relay, until a signal ends it.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::exit::{Exit, Failure};
use crate::app::{self, AppError, Running};
use crate::config::{Config, environment};
use crate::journal::OpenError;
use crate::ops::logging;
use crate::ops::service_manager::ServiceManager;

/// How often the service manager hears how things stand.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// Relay events until SIGTERM or SIGINT; a second one ends the process at once
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, path: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(path, environment())?;
    logging::init(config.log.format.into(), &config.log.level)?;
    super::runtime()?.block_on(relay(&config))
}

async fn relay(config: &Config) -> Result<Exit, Failure> {
    let mut manager = ServiceManager::new();
    let places = app::places(config);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        endpoint = %config.vod.endpoint,
        sub_apps = config.vod.sub_apps().len(),
        journal = %config.journal.path.display(),
        "vodrelay starts"
    );
    let running = Running::start(config, places).await?;
    let watch = running.watch();
    drain_on_signal(running.drain())?;
    // Ready means at work. A broker or a cloud that is away is waited for: their state is in the status line.
    manager.ready();
    let drain = running.drain();
    let ended = {
        let mut ended = std::pin::pin!(running.wait());
        let mut period = tokio::time::interval(STATUS_PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = &mut ended => break ended,
                () = drain.cancelled(), if !stopping => {
                    stopping = true;
                    manager.stopping();
                    info!("drain begins: nothing more is pulled, what is in flight is finished");
                }
                _ = period.tick() => manager.status(&watch.status()),
            }
        }
    };
    let snapshot = ended?;
    let published = snapshot.publishes.get("acked").copied().unwrap_or(0);
    let (commit, publish) = (watch.commit_times(), watch.publish_times());
    info!(
        deliveries = snapshot.deliveries,
        published,
        confirmed = snapshot.confirmed,
        commit_p50_us = commit.p50_us,
        commit_p99_us = commit.p99_us,
        publish_p50_us = publish.p50_us,
        publish_p99_us = publish.p99_us,
        "vodrelay has stopped"
    );
    Ok(Exit::Done)
}

/// The first SIGTERM or SIGINT begins the drain, the second one ends the process.
pub(super) fn drain_on_signal(drain: CancellationToken) -> Result<(), Failure> {
    let failed = |error| Failure::new(Exit::Failure, error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                drain.cancel();
            } else {
                warn!("second signal: ending at once; the next start goes on from the journal");
                std::process::exit(Exit::Failure as i32);
            }
        }
    });
    Ok(())
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let exit = match &error {
            AppError::Credentials(_)
            | AppError::Client(_)
            | AppError::RoutingKey(_)
            | AppError::Unbound { .. } => Exit::Configuration,
            AppError::Journal(OpenError::InUse { .. } | OpenError::Failed { .. }) => Exit::Temporary,
            // An operator has to do something about each of these; starting again would only repeat them.
            AppError::Journal(_) => Exit::Configuration,
            AppError::Output(_) | AppError::Relay(_) | AppError::Writer(_) | AppError::Maintenance(_) => {
                Exit::Failure
            }
        };
        Self::new(exit, error)
    }
}
