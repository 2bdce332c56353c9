//! A relay at work: signals become a drain or a reload, and once a second it is looked whether it gets on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;
use tokio::task::JoinSet;
use tracing::{error, info};

use super::reload::Reload;
use super::supervisor::{self, Supervisor};
use super::{AppError, Running};
use crate::config::{Config, environment};
use crate::ops::service_manager::ServiceManager;
use crate::relay::Snapshot;

/// How often the service manager hears how things stand.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// What looks after a relay.
#[derive(Debug)]
pub struct Daemon {
    /// Hears that the relay is ready, alive or about to stop, and in a line what it does.
    pub manager: ServiceManager,
    /// Judges how the relay gets on.
    pub supervisor: Supervisor,
    /// SIGHUP.
    pub hangups: Signal,
    /// Takes a changed configuration over.
    pub reload: Reload,
    /// The configuration file that was named.
    pub path: Option<PathBuf>,
}

impl Daemon {
    /// Looks after the relay until it has drained, or had to end.
    ///
    /// # Errors
    ///
    /// [`AppError`] when a part ended that the relay cannot do without, or when nothing moves any more.
    pub async fn run(mut self, running: Running) -> Result<Snapshot, AppError> {
        // Not here while it works: a task of its own reads the files and the credentials, whose source may be slow.
        let mut reload = Some(self.reload);
        let mut reloading = JoinSet::new();
        // Ready means at work. A broker or a cloud that is away is waited for: their state is in the status line.
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
                    info!("drain begins: nothing more is pulled, what is in flight is finished");
                }
                // Signals that come meanwhile are one more reload.
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
                        error!(error_code = %problem.error_code, error = %problem.message, "the process ends, so that it is started anew");
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
    // It is not cancelled, and a panic has ended the process already.
    if let Ok(read) = read {
        reload.apply(read).await;
    }
    reload
}
