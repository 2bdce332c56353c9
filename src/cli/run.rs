//! `run`: the relay, until a signal ends it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use vodrelay_core::error_code::ErrorCode;

use super::exit::{Exit, Failure};
use crate::app::daemon::{self, Daemon, drain_on_signal};
use crate::app::endpoints::Endpoints;
use crate::app::supervisor::Supervisor;
use crate::app::{self, AppError, Running};
use crate::config::{self, Config, CredentialSource, LoadedConfig, environment};
use crate::journal::OpenError;
use crate::journal::query::{EventState, JournalReader};
use crate::ops::logging;
use crate::ops::metrics::Metrics;
use crate::ops::service_manager::ServiceManager;

/// How long the process waits for tasks that may be cut off.
const END_LIMIT: Duration = Duration::from_secs(1);
/// While the journal is opened and migrated, the service manager grants this much more time, twice as often.
const START_EXTENSION: Duration = Duration::from_secs(30);
// `--help` says what each code means.
const _: () = assert!(daemon::SECOND_SIGNAL_EXIT == Exit::Failure as i32);

/// Relay events until SIGTERM or SIGINT; a second one ends the process at once. SIGHUP reads the configuration again
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, path: Option<&Path>) -> Result<Exit, Failure> {
    let LoadedConfig { config, warnings } = Config::load_with_warnings(path, environment())?;
    logging::init(config.log.format, &config.log.level)?;
    // Secrets in the process's memory must not end in a core file after a crash.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .map_err(|error| Failure::new(Exit::Failure, std::io::Error::from(error)))?;
    // Before the first part that counts.
    let metrics = Metrics::install().map_err(|error| Failure::new(Exit::Bug, error))?;
    app::warn_of(&warnings);
    let runtime = super::runtime()?;
    let ended = runtime.block_on(relay(config, path, metrics));
    // Everything that must be finished is finished. A file that does not answer, such as a pipe in place of a
    // credentials file, blocks its thread for ever. The process does not wait for it.
    runtime.shutdown_timeout(END_LIMIT);
    ended
}

async fn relay(config: Config, path: Option<&Path>, metrics: Metrics) -> Result<Exit, Failure> {
    let mut manager = ServiceManager::new();
    let places = app::places(&config);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %config::origin(path),
        endpoint = %config.vod.endpoint,
        sub_apps = config.vod.sub_apps().len(),
        journal = %config.journal.path.display(),
        "vodrelay starts"
    );
    let hangups = signal(SignalKind::hangup()).map_err(AppError::Signals)?;
    let running = start(&config, places, &mut manager).await.map_err(|error| {
        // The instance's metadata service may not answer yet while the host starts.
        let passes =
            config.vod.credentials == CredentialSource::CvmRole && matches!(error, AppError::Credentials(_));
        let failure = Failure::from(error);
        if passes { failure.ending(Exit::Temporary) } else { failure }
    })?;
    let watch = running.watch();
    drain_on_signal(running.drain())?;
    let supervisor = Supervisor::new(running.watch(), &config, path, Some(metrics.clone()));
    let endpoints = Endpoints::open(&config, metrics, &supervisor).await?;
    let journal = config.journal.path.clone();
    let reload = running.reload(config);
    let daemon = Daemon { manager, supervisor, hangups, reload, path: path.map(Path::to_owned) };
    let ended = daemon.run(running).await;
    endpoints.close().await;
    let snapshot = ended?;
    let published = snapshot.published();
    let (commit, publish) = (watch.commit_times(), watch.publish_times());
    let left = left_in(journal).await;
    info!(
        deliveries = snapshot.deliveries,
        published,
        confirmed = snapshot.confirmed,
        commit_p50_us = commit.p50_us,
        commit_p99_us = commit.p99_us,
        publish_p50_us = publish.p50_us,
        publish_p99_us = publish.p99_us,
        "vodrelay has stopped; {left}"
    );
    Ok(Exit::Done)
}

/// What a stopped relay leaves behind, and where. The relay does not know which events wait in the cloud.
async fn left_in(path: PathBuf) -> String {
    let count = move || {
        let counts = JournalReader::open(&path).and_then(|reader| reader.count_by_state());
        (path, counts)
    };
    match tokio::task::spawn_blocking(count).await {
        Ok((path, Ok(counts))) => {
            let of =
                |wanted| counts.iter().find(|(state, _)| *state == wanted).map_or(0, |(_, events)| *events);
            left(&path, of(EventState::Received), of(EventState::Published), of(EventState::Parked))
        }
        Ok((_, Err(error))) => format!("the rest is unknown: {error}"),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn left(path: &Path, received: u64, published: u64, parked: u64) -> String {
    let journal = path.display();
    if received + published + parked == 0 {
        return format!("nothing is left to do in {journal}");
    }
    let mut parts = Vec::new();
    if received > 0 {
        parts.push(format!("{received} received, which the next start publishes"));
    }
    if published > 0 {
        parts.push(format!("{published} published, which the cloud hands over again to be confirmed"));
    }
    if parked > 0 {
        parts.push(format!("{parked} parked, which wait for `vodrelay events release`"));
    }
    format!("left in {journal}: {}", parts.join("; "))
}

/// Starts the relay. The migration of a large journal takes time, and the service manager is informed.
async fn start(
    config: &Config,
    places: tencent_vod::Places,
    manager: &mut ServiceManager,
) -> Result<Running, AppError> {
    let mut started = std::pin::pin!(Running::start(config, places));
    let mut waits = tokio::time::interval(START_EXTENSION / 2);
    waits.tick().await;
    loop {
        tokio::select! {
            started = &mut started => return started,
            _ = waits.tick() => {
                manager.extend_start(START_EXTENSION);
                manager.status("opening the journal; one of an older version is migrated, which can take minutes");
            }
        }
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let (exit, error_code) = match &error {
            AppError::Credentials(_) => (Exit::Configuration, Some(ErrorCode::NoCredentials)),
            AppError::Client(_) => (Exit::Configuration, Some(ErrorCode::ConfigurationWrong)),
            AppError::Journal(error) => {
                let exit = match error {
                    OpenError::InUse { .. }
                    | OpenError::Files { .. }
                    | OpenError::Failed { .. }
                    | OpenError::Disk { .. } => Exit::Temporary,
                    // Each of these needs an operator. Another start would only repeat it.
                    _ => Exit::Configuration,
                };
                (exit, Some(error.error_code()))
            }
            AppError::Writer(error) => (Exit::Failure, Some(error.error_code())),
            AppError::Stuck(problem) => (Exit::Failure, Some(problem.error_code)),
            AppError::Output(_) => (Exit::Failure, Some(ErrorCode::NoPublish)),
            AppError::Maintenance(_) => (Exit::Failure, Some(ErrorCode::Maintenance)),
            AppError::Listen(_) => (Exit::Temporary, Some(ErrorCode::ListenerFailed)),
            AppError::Signals(_) | AppError::DeadMansSwitch(_) | AppError::Relay(_) => (Exit::Failure, None),
        };
        Self::new(exit, error).error_code(error_code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_what_is_left_and_who_goes_on_with_it() {
        let path = Path::new("/j.db");
        assert_eq!(left(path, 0, 0, 0), "nothing is left to do in /j.db");
        assert_eq!(
            left(path, 3, 2, 1),
            "left in /j.db: 3 received, which the next start publishes; 2 published, which the cloud hands over again to be \
             confirmed; 1 parked, which wait for `vodrelay events release`"
        );
        assert_eq!(
            left(path, 0, 2, 0),
            "left in /j.db: 2 published, which the cloud hands over again to be confirmed"
        );
    }
}
