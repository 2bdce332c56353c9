//! What the file may contain, and what the program can rely on.
//!
//! [`Config`] holds checked values only. Where a part has options of its own, they are the section. `keys` is
//! the one list of keys: the file, the environment, the messages and the tests read it. A new key is a field,
//! a default, a line there and a line in `config.example.toml`.

mod binding;
mod changes;
mod document;
mod keys;
mod load;
mod paths;
pub mod signature;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use tencent_vod::CredentialSource;
use tencent_vod_event::SubAppId;
use url::Url;
pub use vodrelay_core::machine::{ConfirmAfter, RelaySettings};

pub use crate::ops::logging::LogFormat;
use crate::ops::maintenance;
use crate::output::amqp;
pub use changes::{Change, changes, take_live};
pub use load::{ConfigError, ConfigErrors, LoadedConfig, environment};

/// The path of the configuration when none is named.
pub const DEFAULT_PATH: &str = "/etc/vodrelay/config.toml";

/// The file that is read for this name, or without one. `None` when there is none.
pub fn file_read(named: Option<&Path>) -> Option<PathBuf> {
    let default = || Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists());
    named.map(Path::to_owned).or_else(default)
}

/// Where the configuration came from, for people.
pub fn origin(named: Option<&Path>) -> String {
    match file_read(named) {
        Some(path) => path.display().to_string(),
        None => format!("the defaults and the environment, without {DEFAULT_PATH}"),
    }
}

/// The whole configuration, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The cloud's API.
    pub vod: VodConfig,
    /// How events are carried.
    pub relay: RelaySettings,
    /// Where events go.
    pub output: OutputConfig,
    /// RabbitMQ.
    pub amqp: amqp::Options,
    /// The durable record.
    pub journal: JournalConfig,
    /// The endpoints for machines.
    pub http: HttpConfig,
    /// When a stage is not ready.
    pub health: HealthConfig,
    /// The state for people.
    pub status: StatusConfig,
    /// The scheduled jobs.
    pub maintenance: maintenance::Options,
    /// The log.
    pub log: LogConfig,
}

/// `[vod]`: the cloud's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VodConfig {
    /// The API's address: `https`, or `http` on a loopback host.
    pub endpoint: Url,
    /// `X-TC-Region`, if it is sent.
    pub region: Option<String>,
    /// The sub-applications to pull for, as configured; see [`VodConfig::sub_apps`].
    pub sub_app_ids: Vec<SubAppId>,
    /// Where the credentials come from.
    pub credentials: CredentialSource,
    /// How long the cloud lets a handle be confirmed.
    pub window: Duration,
    /// The account's limit, for each API.
    pub requests_per_second: u32,
}

impl VodConfig {
    /// The sub-applications to pull for: the default application when none is configured.
    pub fn sub_apps(&self) -> Vec<SubAppId> {
        if self.sub_app_ids.is_empty() { vec![SubAppId(0)] } else { self.sub_app_ids.clone() }
    }
}

impl Default for VodConfig {
    fn default() -> Self {
        Self {
            endpoint: Url::parse("https://vod.tencentcloudapi.com").expect("a constant URL parses"),
            region: None,
            sub_app_ids: Vec::new(),
            credentials: CredentialSource::Auto,
            window: Duration::from_secs(30),
            requests_per_second: 100,
        }
    }
}

/// `[output]`: where events go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputConfig {
    /// The kind of output.
    pub kind: OutputKind,
}

/// The kinds of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputKind {
    /// RabbitMQ.
    #[default]
    Amqp,
    /// One JSON line for each event on standard output.
    Stdout,
}

/// `[journal]`: the durable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The database file.
    pub path: PathBuf,
    /// How long confirmed events are kept.
    pub retention: Duration,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/vodrelay/journal.db"),
            retention: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// `[http]`: `/metrics`, `/livez` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// The address to listen on; `None` turns it off.
    pub listen: Option<SocketAddr>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))) }
    }
}

/// `[health]`: when a stage is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// How long work may wait without progress before a stage is not ready.
    pub ready_limit: Duration,
    /// How long work may wait without progress before the process ends; zero turns that off.
    pub exit_after: Duration,
    /// The URL that is called every minute while no stage fails.
    pub dead_mans_switch_url: Option<SwitchUrl>,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            ready_limit: Duration::from_secs(60),
            exit_after: Duration::from_secs(600),
            dead_mans_switch_url: None,
        }
    }
}

/// The address of the dead man's switch. Its path is usually a token, so it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SwitchUrl(Url);

impl SwitchUrl {
    /// The whole address, for the one place that calls it.
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for SwitchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/***", self.0.origin().ascii_serialization())
    }
}

/// `[status]`: the state for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusConfig {
    /// The socket of `vodrelay status`; `None` turns it off.
    pub socket: Option<PathBuf>,
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self { socket: Some(PathBuf::from("/run/vodrelay/status.sock")) }
    }
}

/// `[log]`: the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// A level, or directives such as `info,vodrelay::vod=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}
