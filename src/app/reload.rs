//! Takes over the keys that can change at work, and names the others.

use std::fmt;

use tencent_vod::Client;
use tencent_vod_event::SubAppId;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::machine::Settings;

use crate::config::{Change, Config, ConfigError, ConfigErrors, LoadedConfig, changes, take_live};
use crate::ops::logging;

/// The handle for changes of a running relay.
#[derive(Debug)]
pub struct Reload {
    config: Config,
    client: Client,
    settings: mpsc::UnboundedSender<Settings>,
    sub_apps: watch::Sender<Vec<SubAppId>>,
}

impl Reload {
    pub(super) fn new(
        config: Config,
        client: Client,
        settings: mpsc::UnboundedSender<Settings>,
        sub_apps: watch::Sender<Vec<SubAppId>>,
    ) -> Self {
        Self { config, client, settings, sub_apps }
    }

    /// Takes over a configuration. A wrong configuration changes nothing. Keys that need a restart are named
    /// at each reload until then. The credentials are always read again: their files are not part of the
    /// configuration.
    pub async fn apply(&mut self, read: Result<LoadedConfig, ConfigErrors>) {
        let error_code = ErrorCode::ReloadRefused;
        let new = match read {
            Ok(LoadedConfig { config, warnings }) => {
                warn_of(&warnings);
                config
            }
            Err(errors) => {
                let reason = ErrorLines(&errors);
                warn!(%error_code, %reason, "reload refused: nothing was changed; correct the configuration and reload again");
                return count("refused");
            }
        };
        let changed = changes(&self.config, &new);
        let named = |live: bool| {
            let changed = changed.iter().filter(|change| change.live == live);
            let keys: Vec<String> =
                changed.map(|Change { key: (section, name), .. }| format!("{section}.{name}")).collect();
            keys.join(", ")
        };
        let (taken, left) = (named(true), named(false));
        if self.config.log.level != new.log.level
            && let Err(error) = logging::set_level(&new.log.level)
        {
            warn!(%error_code, %error, "the log level stays unchanged");
        }
        // The rest stays as at the start, and the next reload names it again.
        take_live(&mut self.config, &new);
        self.sub_apps.send_replace(self.config.vod.sub_apps());
        // The relay may have ended. Then nothing is left to change.
        let _ = self.settings.send(super::settings(&self.config));
        let credentials = self.client.refresh_credentials().await;
        if let Err(error) = &credentials {
            let error_code = ErrorCode::NoCredentials;
            warn!(%error_code, %error, "the credentials cannot be read again; those in use stay");
        }
        info!(taken, credentials_read = credentials.is_ok(), "configuration reloaded");
        if !left.is_empty() {
            warn!(error_code = %ErrorCode::NeedsRestart, error = %left, "changed settings need a restart");
        }
        count(if left.is_empty() && credentials.is_ok() { "ok" } else { "partial" });
    }
}

/// Logs the doubts about a configuration's sources.
pub fn warn_of(warnings: &[ConfigError]) {
    for warning in warnings {
        warn!(error_code = %ErrorCode::ConfigurationDoubtful, error = %warning, "the configuration is doubtful");
    }
}

pub(super) fn count(result: &'static str) {
    metrics::counter!("vodrelay_reloads_total", "result" => result).increment(1);
}

/// The errors of a configuration in one line.
struct ErrorLines<'a>(&'a ConfigErrors);

impl fmt::Display for ErrorLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replace('\n', "; "))
    }
}
