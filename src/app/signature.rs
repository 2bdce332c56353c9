//! The signature server at work: its listeners, and signals that become a reload or the end.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tencent_vod::{CredentialsError, Places};
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_serve::Limits;

use super::reload::{count, warn_of};
use crate::config::signature::{LoadedSignatureConfig, SignatureConfig};
use crate::ops::logging;
use crate::ops::metrics::Metrics;
use crate::ops::service_manager::ServiceManager;
use crate::serve::signature::{
    AUDIT_TARGET, Callers, Current, DIRECTORY_VARIABLE, GrantSigner, SignatureService, TemporaryPair,
    TokenError, limits, pages, router,
};

/// For the pages of metrics: some scrapers and probes.
const PAGE_LIMITS: Limits = Limits {
    connections: 32,
    head: Duration::from_secs(5),
    body: Duration::from_secs(5),
    life: Duration::from_secs(60),
};

/// How often the service manager hears that the loop turns.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Why the server cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is no key to sign with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The key is not one that can sign.
    #[error(transparent)]
    Temporary(#[from] TemporaryPair),
    /// A caller's token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A listener cannot be opened.
    #[error("cannot listen on {address} ({key}): {source}; free the port, or choose another")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Where it is configured.
        key: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl SignatureError {
    /// Its name in the catalogue.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Credentials(_) => ErrorCode::NoCredentials,
            Self::Temporary(_) => ErrorCode::CannotSign,
            Self::Token(_) => ErrorCode::TokenUnusable,
            Self::Listen { .. } => ErrorCode::ListenerFailed,
        }
    }
}

/// Reads what the configuration names: tokens, and the key.
///
/// # Errors
///
/// [`SignatureError`].
pub async fn prepare(config: &SignatureConfig) -> Result<Current, SignatureError> {
    let folder = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from);
    let callers = Callers::read(&config.callers, folder.as_deref())?;
    let signer = GrantSigner::new(Places::new(config.server.credentials).read().await?)?;
    Ok(Current::new(&config.server, callers, signer))
}

/// The level of the log, with the audit's lines in any case.
pub fn log_level(level: &str) -> String {
    format!("{level},{AUDIT_TARGET}=info")
}

/// Both listeners, opened and not served yet.
#[derive(Debug)]
pub struct Listeners {
    requests: TcpListener,
    metrics: Option<TcpListener>,
}

impl Listeners {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Listen`].
    pub async fn open(config: &SignatureConfig) -> Result<Self, SignatureError> {
        let open = async |address: SocketAddr, key| {
            TcpListener::bind(address).await.map_err(|source| SignatureError::Listen { address, key, source })
        };
        let requests = open(config.server.listen, "server.listen").await?;
        let metrics = match config.server.metrics_listen {
            Some(address) => Some(open(address, "server.metrics_listen").await?),
            None => None,
        };
        Ok(Self { requests, metrics })
    }
}

/// What the server is made of.
#[derive(Debug)]
pub struct SignatureServer {
    /// The file that it was configured by.
    pub path: PathBuf,
    /// What the file says.
    pub config: SignatureConfig,
    /// What was read for it.
    pub current: Current,
    /// Its listeners.
    pub listeners: Listeners,
    /// Its metrics.
    pub metrics: Metrics,
    /// SIGHUP.
    pub hangups: Signal,
    /// Hears that it is ready, alive or about to stop.
    pub manager: ServiceManager,
}

impl SignatureServer {
    /// Serves until `stop` is cancelled, and finishes the requests that are under way.
    pub async fn run(self, stop: CancellationToken) {
        let Self { path, mut config, current, listeners, metrics, mut hangups, mut manager } = self;
        let service = Arc::new(SignatureService::new(current));
        let tasks = serve(listeners, &config, &service, metrics.clone(), &stop);
        manager.ready();
        let mut signs = tokio::time::interval(SIGN_OF_LIFE);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = hangups.recv() => {
                    manager.reloading();
                    reload(&path, &mut config, &service).await;
                    manager.ready();
                }
                _ = signs.tick() => {
                    metrics.upkeep();
                    manager.alive();
                }
            }
        }
        manager.stopping();
        info!("the signature server stops");
        for task in tasks {
            // A panic has ended the process already.
            let _ = task.await;
        }
    }
}

fn serve(
    listeners: Listeners,
    config: &SignatureConfig,
    service: &Arc<SignatureService>,
    metrics: Metrics,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let Listeners { requests, metrics: page } = listeners;
    let address = |listener: &TcpListener| listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
    info!(
        address = address(&requests),
        metrics = page.as_ref().map(address),
        callers = service.current().callers().iter().count(),
        secret_id = service.current().signer().credentials().masked_id(),
        "upload signatures are served"
    );
    let failed = |key: &'static str| move |error: &io::Error| warn!(error_code = %ErrorCode::ListenerFailed, %error, "no connection can be taken at {key} now");
    let mut tasks = Vec::new();
    let limits = limits(config.server.connections);
    let router = router(Arc::clone(service));
    tasks.push(tokio::spawn(vodrelay_serve::serve(
        requests,
        router,
        limits,
        stop.clone(),
        failed("server.listen"),
    )));
    if let Some(page) = page {
        let served = vodrelay_serve::serve(
            page,
            pages(metrics),
            PAGE_LIMITS,
            stop.clone(),
            failed("server.metrics_listen"),
        );
        tasks.push(tokio::spawn(served));
    }
    tasks
}

/// Reads file, tokens and key again. What is wrong changes nothing.
async fn reload(path: &Path, config: &mut SignatureConfig, service: &SignatureService) {
    let error_code = ErrorCode::ReloadRefused;
    let read = {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || SignatureConfig::load(&path)).await
    };
    // It is not cancelled, and a panic has ended the process already.
    let Ok(read) = read else { return };
    let LoadedSignatureConfig { config: new, warnings } = match read {
        Ok(loaded) => loaded,
        Err(errors) => {
            let cause = errors.to_string().replace('\n', "; ");
            warn!(%error_code, cause, "reload refused: nothing was changed; correct the file and reload again");
            return count("refused");
        }
    };
    warn_of(&warnings);
    let current = match prepare(&new).await {
        Ok(current) => current,
        Err(error) => {
            error!(error_code = %error.error_code(), %error, "reload refused: nothing was changed");
            return count("refused");
        }
    };
    let left = config.take_live(&new);
    if let Err(error) = logging::set_level(&log_level(&config.log.level)) {
        warn!(%error_code, %error, "the log's level stays as it was");
    }
    let (callers, tokens) = (current.callers().iter().count(), current.callers().tokens());
    let secret_id = current.signer().credentials().masked_id();
    service.replace(current);
    info!(callers, tokens, secret_id, "the signature server's file, tokens and key were read again");
    if !left.is_empty() {
        warn!(error_code = %ErrorCode::NeedsRestart, error = left.join(", "), "changed settings need a restart");
    }
    count(if left.is_empty() { "ok" } else { "partial" });
}
