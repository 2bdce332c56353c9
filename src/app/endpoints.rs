//! The endpoints that show the relay's state: the pages, the status socket and the dead man's switch.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vodrelay_core::error_code::ErrorCode;

use super::AppError;
use super::supervisor::Supervisor;
use crate::config::Config;
use crate::ops::metrics::Metrics;
use crate::ops::{dead_mans_switch, http, status};

/// The open endpoints.
#[derive(Debug)]
pub struct Endpoints {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Endpoints {
    /// Opens the endpoints of the configuration. The status socket is optional: a failure is only a warning.
    ///
    /// # Errors
    ///
    /// [`AppError::Listen`] for a taken port: without the pages, an operator would rely on those of another program.
    /// [`AppError::DeadMansSwitch`] when its client cannot be made.
    pub async fn open(config: &Config, metrics: Metrics, supervisor: &Supervisor) -> Result<Self, AppError> {
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        if let Some(address) = config.http.listen {
            let opened = http::spawn(address, metrics, supervisor.verdict(), stop.clone()).await;
            let (address, task) = opened.map_err(AppError::Listen)?;
            info!(%address, "serving /metrics, /livez and /readyz");
            tasks.push(task);
        }
        if let Some(path) = &config.status.socket {
            match status::spawn(path, supervisor.document(), stop.clone()) {
                Ok(task) => tasks.push(task),
                Err(error) => {
                    warn!(error_code = %ErrorCode::ListenerFailed, %error, "`vodrelay status` cannot ask this relay");
                }
            }
        }
        if let Some(url) = &config.health.dead_mans_switch_url {
            let task = dead_mans_switch::spawn(url.expose().clone(), supervisor.verdict(), stop.clone());
            tasks.push(task.map_err(AppError::DeadMansSwitch)?);
        }
        Ok(Self { stop, tasks })
    }

    /// Closes them. The relay does not wait for a reader of a page.
    pub async fn close(self) {
        self.stop.cancel();
        for task in self.tasks {
            let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
        }
    }
}
