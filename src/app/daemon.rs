//! A running relay: signals become a drain or a reload, and its progress is judged once a second.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::reload::Reload;
use super::supervisor::{self, Supervisor};
use super::{AppError, Running};
use crate::config::{Config, environment};
use crate::ops::logging;
use crate::ops::service_manager::ServiceManager;
use crate::relay::Snapshot;

/// How often the service manager gets the state.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// How a process ends that a second signal ends.
pub const SECOND_SIGNAL_EXIT: i32 = 1;

/// The first SIGTERM or SIGINT begins the drain, the second one ends the process.
///
/// # Errors
///
/// [`AppError::Signals`] when the process cannot receive them.
pub fn drain_on_signal(drain: CancellationToken) -> Result<(), AppError> {
    on_signals(
        move || drain.cancel(),
        || {
            warn!("second signal: ending at once; the next start continues from the journal");
            logging::flush();
            std::process::exit(SECOND_SIGNAL_EXIT);
        },
    )
}

/// Calls `first` at the first SIGTERM or SIGINT, and `second` at the second.
///
/// # Errors
///
/// [`AppError::Signals`] when the process cannot receive them.
pub fn on_signals(
    first: impl FnOnce() + Send + 'static,
    second: impl FnOnce() + Send + 'static,
) -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        first();
        next().await;
        second();
    });
    Ok(())
}

/// The parts that look after a relay.
#[derive(Debug)]
pub struct Daemon {
    /// The service manager: ready, alive or stopping, and a line with the state.
    pub manager: ServiceManager,
    /// Judges the relay's progress.
    pub supervisor: Supervisor,
    /// SIGHUP.
    pub hangups: Signal,
    /// Takes over a changed configuration.
    pub reload: Reload,
    /// The named configuration file.
    pub path: Option<PathBuf>,
}

impl Daemon {
    /// Looks after the relay until it has drained or had to end.
    ///
    /// # Errors
    ///
    /// [`AppError`] when a necessary part ended, or when no work makes progress.
    pub async fn run(mut self, running: Running) -> Result<Snapshot, AppError> {
        // In a task of its own, because the files and the source of the credentials may be slow.
        let mut reload = Some(self.reload);
        let mut reloading = JoinSet::new();
        // Ready means running. The relay waits for a broker or a cloud that is away. The status line has
        // their state.
        self.manager.ready();
        let drain = running.drain();
        let mut ended = std::pin::pin!(running.wait());
        let mut looks = tokio::time::interval(supervisor::PERIOD);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut stopping, mut told) = (false, None);
        loop {
            tokio::select! {
                ended = &mut ended => break ended,
                () = drain.cancelled(), if !stopping => {
                    stopping = true;
                    self.manager.stopping();
                    info!("drain begins: no more pulls; events in flight are finished");
                }
                // Signals during a reload cause one more.
                Some(()) = self.hangups.recv(), if !stopping && reload.is_some() => {
                    self.manager.reloading();
                    if let Some(reload) = reload.take() {
                        reloading.spawn(apply(reload, self.path.clone()));
                    }
                }
                Some(done) = reloading.join_next() => {
                    // A panic has ended the process already.
                    reload = done.ok();
                    if !stopping {
                        self.manager.ready();
                    }
                }
                _ = looks.tick() => {
                    let look = self.supervisor.look(stopping);
                    if look.live {
                        self.manager.alive();
                    }
                    if told.is_none_or(|at: Instant| at.elapsed() >= STATUS_PERIOD) {
                        told = Some(Instant::now());
                        self.manager.status(&look.line);
                    }
                    if let Some(problem) = look.stuck.filter(|_| !stopping) {
                        error!(error_code = %problem.error_code, error = %problem.message, "the process ends, and the service manager starts it again");
                        break Err(AppError::Stuck(problem));
                    }
                }
            }
        }
    }
}

/// Reads the configuration again and takes it over.
async fn apply(mut reload: Reload, path: Option<PathBuf>) -> Reload {
    let read =
        tokio::task::spawn_blocking(move || Config::load_with_warnings(path.as_deref(), environment())).await;
    // It is not cancelled, and a panic would have ended the process.
    if let Ok(read) = read {
        reload.apply(read).await;
    }
    reload
}
