//! `signature serve`: the signature server, until a signal ends it.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{DEFAULT_PATH, try_out};
use crate::app::daemon::drain_on_signal;
use crate::app::reload::warn_of;
use crate::app::signature::{self, Listeners, SignatureError, SignatureServer};
use crate::cli::exit::{Exit, Failure};

use crate::config::signature::{LoadedSignatureConfig, SignatureConfig};
use crate::ops::logging;
use crate::ops::metrics::Metrics;
use crate::ops::service_manager::ServiceManager;

/// How long the process waits for what may be cut off.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Give signatures to the callers that the file names, until SIGTERM or SIGINT; SIGHUP reads the file, the tokens and the key again
///
/// It is a process of its own with a file of its own. Clients of an app ask the app's backend, and the backend asks here, with
/// its token. docs/client-uploads.md shows how.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The signature server's file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// Try the file, the tokens, the key and the listeners, sign once for each caller, and end
    #[arg(long)]
    check: bool,
    /// With --check, print one JSON object a line
    #[arg(long, requires = "check")]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    if args.check {
        return try_out::run(&args.file, args.json);
    }
    let LoadedSignatureConfig { config, warnings } = SignatureConfig::load(&args.file)?;
    logging::init(config.log.format, &signature::log_level(&config.log.level))?;
    // The key is not to lie in a file after a crash.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .map_err(|error| Failure::new(Exit::Failure, std::io::Error::from(error)))?;
    let metrics = Metrics::install().map_err(|error| Failure::new(Exit::Bug, error))?;
    crate::serve::signature::describe();
    warn_of(&warnings);
    let runtime = crate::cli::runtime()?;
    let ended = runtime.block_on(serve(args.file.clone(), config, metrics));
    runtime.shutdown_timeout(END_LIMIT);
    ended
}

async fn serve(path: PathBuf, config: SignatureConfig, metrics: Metrics) -> Result<Exit, Failure> {
    info!(version = env!("CARGO_PKG_VERSION"), file = %path.display(), "vodrelay's signature server starts");
    let hangups = signal(SignalKind::hangup()).map_err(|error| Failure::new(Exit::Failure, error))?;
    let stop = CancellationToken::new();
    drain_on_signal(stop.clone())?;
    let current = signature::prepare(&config).await?;
    let listeners = Listeners::open(&config).await?;
    let manager = ServiceManager::new();
    SignatureServer { path, config, current, listeners, metrics, hangups, manager }.run(stop).await;
    Ok(Exit::Done)
}

impl From<SignatureError> for Failure {
    fn from(error: SignatureError) -> Self {
        let exit = match &error {
            // A port that is taken may be free later.
            SignatureError::Listen { .. } => Exit::Temporary,
            _ => Exit::Configuration,
        };
        let error_code = error.error_code();
        Self::new(exit, error).error_code(error_code)
    }
}
