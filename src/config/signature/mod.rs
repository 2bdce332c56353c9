//! The signature server's own file: `/etc/vodrelay/signature.toml`. No environment variable overrides it, and nothing of the relay's
//! configuration counts for it.

mod keys;
mod load;
mod weigh;

use super::LogConfig;
use crate::serve::signature::{CallerOptions, ServerOptions};

pub use load::LoadedSignatureConfig;

/// Where the file is looked for when nobody names one.
pub const DEFAULT_PATH: &str = "/etc/vodrelay/signature.toml";

/// The whole file, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignatureConfig {
    /// The listeners, and what holds for all callers.
    pub server: ServerOptions,
    /// What the program says about itself.
    pub log: LogConfig,
    /// Who may ask, and for what.
    pub callers: Vec<CallerOptions>,
}

impl SignatureConfig {
    /// Takes over into this one what of `new` needs no restart. Returns the names of the keys that need one.
    pub fn take_live(&mut self, new: &Self) -> Vec<String> {
        let (live, others): (Vec<_>, Vec<_>) = keys::KEYS.iter().partition(|key| key.live);
        live.iter().for_each(|key| (key.take)(self, new));
        self.callers.clone_from(&new.callers);
        let changed = others.iter().filter(|key| (key.differs)(self, new));
        changed.map(|key| format!("{}.{}", key.section, key.name)).collect()
    }
}
