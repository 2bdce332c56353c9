//! Builds the parts from the configuration, owns their tasks, and closes them in order.

pub mod daemon;
mod document;
pub mod endpoints;
mod journal_figures;
mod options;
pub mod reload;
pub mod signature;
pub mod supervisor;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use tencent_vod_event::SubAppId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::machine::Settings;
use vodrelay_core::outcome::Problem;

use crate::config::Config;
use crate::heartbeat::Heartbeat;
use crate::journal::{self, Journal};
use crate::ops::{http, maintenance};
use crate::output;
use crate::relay::{self, RelayError, RelayParts, RelayStats, Snapshot};
use journal_figures::look_at_figures;
pub use options::{OutputOptions, client_options, output_options, places, settings};
pub use reload::{Reload, warn_of};
pub use watched::Watch;

/// The longest drain: a poll in flight (5 s, or its time-out), a publish, a confirm.
const DRAIN_LIMIT: Duration = Duration::from_secs(35);

/// The longest time for the output to close after the drain.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Why the relay cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There are no usable credentials.
    #[error(transparent)]
    Credentials(tencent_vod::CredentialsError),
    /// The client cannot work with its settings.
    #[error(transparent)]
    Client(tencent_vod::SetupError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(journal::OpenError),
    /// The journal failed for good, or its last work could not be committed.
    #[error(transparent)]
    Writer(journal::WriteError),
    /// The output ended.
    #[error(transparent)]
    Output(output::Error),
    /// Maintenance cannot be scheduled.
    #[error("maintenance cannot be scheduled")]
    Maintenance(#[source] tokio_cron_scheduler::JobSchedulerError),
    /// The relay itself ended.
    #[error("the relay ended before it was asked to")]
    Relay(#[source] RelayError),
    /// The process cannot receive signals.
    #[error(transparent)]
    Signals(std::io::Error),
    /// The pages cannot be served.
    #[error(transparent)]
    Listen(http::ListenError),
    /// The dead man's switch has no client.
    #[error(transparent)]
    DeadMansSwitch(reqwest::Error),
    /// Work waits and nothing moves.
    #[error("{0}; the next start continues from the journal")]
    Stuck(Problem),
}

/// A running relay.
#[derive(Debug)]
pub struct Running {
    drain: CancellationToken,
    stop: CancellationToken,
    relay: JoinHandle<Result<(), RelayError>>,
    output: JoinHandle<Result<(), output::Error>>,
    maintenance: JoinHandle<()>,
    /// Whether it was asked to end or not: there is nothing to report.
    figures: JoinHandle<Option<()>>,
    writer: journal::Writer,
    changes: mpsc::UnboundedSender<Settings>,
    sub_apps: watch::Sender<Vec<SubAppId>>,
    watch: Watch,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

impl Running {
    /// Starts a relay. The places of the credentials are a parameter, because a demonstration has its own.
    ///
    /// # Errors
    ///
    /// [`AppError`]. Then nothing runs. A cloud or a broker that is away is not an error: the relay waits for
    /// it.
    pub async fn start(config: &Config, places: tencent_vod::Places) -> Result<Self, AppError> {
        Self::start_writing(config, places, std::io::stdout()).await
    }

    /// The same, with a writer in place of standard output.
    ///
    /// # Errors
    ///
    /// [`AppError`].
    pub async fn start_writing(
        config: &Config,
        places: tencent_vod::Places,
        standard_output: impl std::io::Write + Send + 'static,
    ) -> Result<Self, AppError> {
        let client = tencent_vod::Client::new(client_options(config, places)).map_err(AppError::Client)?;
        // Without credentials nothing works, so the start fails instead of the first request.
        client.refresh_credentials().await.map_err(AppError::Credentials)?;
        let output_options = output_options(config);
        let journal_options = journal::Options { path: config.journal.path.clone() };
        let opened = tokio::task::spawn_blocking(move || Journal::open(&journal_options)).await;
        let (journal, writer) = unwound(opened).map_err(AppError::Journal)?;
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let (output, output_task) = match output_options {
            OutputOptions::Amqp(options) => output::amqp::spawn(*options, stop.clone()),
            OutputOptions::Stdout(options) => {
                output::stdout::spawn_to(options, standard_output, stop.clone())
            }
        };
        let stats = Arc::new(RelayStats::new());
        let heartbeat = Heartbeat::new("relay");
        let (found, figures) = watch::channel(None);
        let waiting = maintenance::Waiting::default();
        let (sub_apps, sub_apps_now) = watch::channel(config.vod.sub_apps());
        let look = look_at_figures(journal.clone(), sub_apps_now.clone(), found);
        let figures_task = tokio::spawn(stop.clone().run_until_cancelled_owned(look));
        let parts = maintenance::MaintenanceParts {
            retention: config.journal.retention,
            journal: journal.clone(),
            client: client.clone(),
            sub_apps: sub_apps_now,
            waiting: waiting.clone(),
            figures: figures_of(Arc::clone(&stats)),
        };
        let maintenance = maintenance::spawn(config.maintenance.clone(), parts, stop.clone());
        let (maintenance, jobs) = maintenance.await.map_err(AppError::Maintenance)?;
        let watch = Watch {
            stats: Arc::clone(&stats),
            journal: journal.state(),
            output: output.state(),
            broker: output.broker(),
            waiting,
            commit_times: journal.commit_times(),
            publish_times: output.publish_times(),
            client: client.clone(),
            heartbeats: [heartbeat.clone(), journal.heartbeat(), output.heartbeat()].into(),
            figures,
            jobs,
        };
        let (changes, changed) = mpsc::unbounded_channel();
        let parts = RelayParts {
            settings: settings(config),
            client,
            journal,
            output,
            stats,
            changes: changed,
            heartbeat,
        };
        let relay = tokio::spawn(relay::run(parts, drain.clone()));
        Ok(Self {
            drain,
            stop,
            relay,
            output: output_task,
            maintenance,
            figures: figures_task,
            writer,
            changes,
            sub_apps,
            watch,
        })
    }

    /// The handle for changes at work.
    pub fn reload(&self, config: Config) -> Reload {
        Reload::new(config, self.watch.client.clone(), self.changes.clone(), self.sub_apps.clone())
    }

    /// The handle for observers.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Cancelling it begins the drain: nothing more is pulled, what is in flight is finished.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Waits until the relay has drained or had to end, and closes its parts. A drain that takes too long is
    /// cut off. Nothing is lost: the next start continues from the journal.
    ///
    /// # Errors
    ///
    /// [`AppError`] when a necessary part ended.
    pub async fn wait(mut self) -> Result<Snapshot, AppError> {
        let drain = self.drain.clone();
        let too_long = async {
            drain.cancelled().await;
            tokio::time::sleep(DRAIN_LIMIT).await;
        };
        let ended = tokio::select! {
            ended = &mut self.relay => flatten(ended).map_err(AppError::Relay),
            ended = &mut self.output => {
                let ended = unwound(ended);
                // Acked events are still confirmed: the relay drains, and does not wait for an output that is
                // gone.
                self.drain.cancel();
                // Its own end adds nothing to the cause from the output.
                let _ = tokio::time::timeout(DRAIN_LIMIT, &mut self.relay).await;
                return self.close(ended.map_err(AppError::Output)).await;
            }
            () = too_long => {
                warn!(error_code = %ErrorCode::DrainCutOff, limit_s = DRAIN_LIMIT.as_secs(), "drain cut off; the next start continues from the journal");
                self.relay.abort();
                Ok(())
            }
        };
        self.stop.cancel();
        let closed = tokio::time::timeout(CLOSE_LIMIT, &mut self.output).await;
        // An output that takes too long to close is abandoned.
        let closed = closed.map_or(Ok(()), unwound).map_err(AppError::Output);
        self.close(ended.and(closed)).await
    }

    async fn close(self, ended: Result<(), AppError>) -> Result<Snapshot, AppError> {
        let Self { relay, watch, writer, maintenance, figures, stop, .. } = self;
        // The writer ends when its last senders are dropped: the relay's and the maintenance's.
        relay.abort();
        stop.cancel();
        unwound(maintenance.await);
        unwound(figures.await);
        let snapshot = watch.snapshot();
        let written = unwound(tokio::task::spawn_blocking(move || writer.join()).await);
        match (ended, written) {
            // The writer's own error says more than its end.
            (Ok(()) | Err(AppError::Relay(RelayError::Journal)), Err(error)) => Err(AppError::Writer(error)),
            (Ok(()), Ok(())) => Ok(snapshot),
            (Err(error), _) => Err(error),
        }
    }
}

/// The result of a task that is never aborted. Its panic continues here: a dead task is a dead process.
pub fn unwound<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn flatten(ended: Result<Result<(), RelayError>, tokio::task::JoinError>) -> Result<(), RelayError> {
    ended.unwrap_or_else(|died| Err(RelayError::Task(died)))
}

/// The parts of the daily summary.
fn figures_of(stats: Arc<RelayStats>) -> Box<dyn Fn() -> maintenance::Figures + Send> {
    Box::new(move || {
        let snapshot = stats.snapshot();
        maintenance::Figures {
            received: snapshot.received(),
            redelivered: snapshot.redelivered,
            published: snapshot.published(),
            confirmed: snapshot.confirmed,
            parked: snapshot.parked,
        }
    })
}
