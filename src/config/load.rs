//! Reads the file, then the environment, then compares the values with each other. Every error is kept.

mod weigh;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tencentcloud_signing::Secret;
use toml::de::{DeTable, DeValue};
use vodrelay_host::regular_file;

use super::document::{self, TomlDocument, word};
use super::keys::{self, Key};
use super::value::{RawValue, nearest, unknown};
use super::{Config, DEFAULT_PATH};
use crate::output::amqp::{Address, Auth};

/// More than any configuration or password has.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// One error, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: `file:line`, an environment variable, or a file.
    pub place: String,
    /// The error in one line that ends with the next step.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All errors of a configuration; never empty. It prints one line for each error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// The errors: the file's in its order, then the environment's.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}

/// A configuration, and what is doubtful about its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedConfig {
    /// The checked configuration.
    pub config: Config,
    /// Warnings for the operator; the configuration itself is right.
    pub warnings: Vec<ConfigError>,
}

impl Config {
    /// Reads the file at `path`, and the environment over it.
    ///
    /// Without a path the default file is read. When that is missing, only the defaults and the environment
    /// count.
    ///
    /// # Errors
    ///
    /// Every error of both, not only the first.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Self::load_with_warnings(path, env).map(|loaded| loaded.config)
    }

    /// As [`Config::load`], with the warnings.
    ///
    /// # Errors
    ///
    /// Every error of both, not only the first.
    pub fn load_with_warnings(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<LoadedConfig, ConfigErrors> {
        let mut reader = ConfigReader::default();
        match (path, regular_file::read(path.unwrap_or(Path::new(DEFAULT_PATH)), MAX_BYTES)) {
            (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            (_, read) => reader.file(path.unwrap_or(Path::new(DEFAULT_PATH)), read),
        }
        reader.finish(env)
    }

    /// The defaults with these variables over them. No file is read.
    ///
    /// # Errors
    ///
    /// Every error of the variables, not only the first.
    pub fn from_variables(variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        ConfigReader::default().finish(variables).map(|loaded| loaded.config)
    }
}

/// The part of this process's environment that the configuration reads.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// The result of a key.
enum KeyOrigin {
    /// It was read from here.
    Read(ConfigPlace),
    /// It already has an error of its own.
    Wrong,
}

/// Where something stands. The file's lines come before the environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ConfigPlace {
    Line(usize),
    Variable(String),
    File(PathBuf),
}

#[derive(Default)]
struct ConfigReader {
    file: PathBuf,
    config: Config,
    origins: HashMap<(&'static str, &'static str), KeyOrigin>,
    errors: Vec<(ConfigPlace, String)>,
    warnings: Vec<(ConfigPlace, String)>,
    /// Whether a part of the file is not TOML.
    damaged: bool,
}

impl ConfigReader {
    fn error(&mut self, place: ConfigPlace, message: impl Into<String>) {
        self.errors.push((place, message.into()));
    }

    fn file(&mut self, path: &Path, read: io::Result<Vec<u8>>) {
        self.file = path.to_owned();
        let text = match document::text(read, "--config or VODRELAY_CONFIG") {
            Ok(text) => text,
            Err((line, message)) => {
                let at = line.map_or_else(|| ConfigPlace::File(path.to_owned()), ConfigPlace::Line);
                return self.error(at, message);
            }
        };
        let document = TomlDocument::parse(&text);
        self.damaged = !document.errors.is_empty();
        for (line, message) in &document.errors {
            self.error(ConfigPlace::Line(*line), message);
        }
        for (section, at, content) in document.sections() {
            match content {
                DeValue::Table(table) => self.section(section, at, table, &document),
                _ => self.outside(section, ConfigPlace::Line(at)),
            }
        }
        self.secrets_for_all(path);
    }

    /// Warns of a file with a secret that every user can read. The environment was not read yet.
    fn secrets_for_all(&mut self, path: &Path) {
        let Ok(mode) = fs::metadata(path).map(|found| found.permissions().mode() & 0o7777) else { return };
        let secret = if self.config.amqp.urls.iter().any(has_secret) {
            "amqp.urls hold a password: set VODRELAY_AMQP__PASSWORD instead, or remove that permission"
        } else if self.config.health.dead_mans_switch_url.is_some() {
            "health.dead_mans_switch_url is a secret: remove that permission"
        } else {
            return;
        };
        if mode & 0o004 != 0 {
            let message =
                format!("every user of this host can read it (mode {mode:03o}), and {secret} (chmod o-rwx)");
            self.warnings.push((ConfigPlace::File(path.to_owned()), message));
        }
    }

    /// A value that stands before the first section.
    fn outside(&mut self, name: &str, at: ConfigPlace) {
        let sections = keys::sections();
        let message = if sections.contains(&name) {
            format!("{name:?} is a section; write [{name}] on a line of its own and its keys below")
        } else if let Some(home) = keys::home(name) {
            format!("{name:?} stands in no section; put it under [{home}]")
        } else {
            unknown(&format!("unknown key {:?} in no section", word(name)), name, &sections, |name| {
                format!("[{name}]")
            })
        };
        self.error(at, message);
    }

    fn section(&mut self, section: &str, at: usize, table: &DeTable<'_>, document: &TomlDocument<'_>) {
        let sections = keys::sections();
        if !sections.contains(&section) {
            let message =
                unknown(&format!("unknown section [{}]", word(section)), section, &sections, |name| {
                    format!("[{name}]")
                });
            return self.error(ConfigPlace::Line(at), message);
        }
        for (name, at, value) in document.keys(table) {
            let at = ConfigPlace::Line(at);
            match keys::find(section, name) {
                Some(Key { not_in_file: Some(instead), .. }) => {
                    self.error(at, format!("{section}.{name} must not be in the file; {instead}"));
                }
                Some(key) => self.read(key, at, &RawValue::Toml(value)),
                None => {
                    let what = format!("unknown key {:?} in [{section}]", word(name));
                    let message = match keys::home(name) {
                        Some(home) => format!("{what}; it belongs under [{home}]"),
                        None => unknown(&what, name, &keys::names(section), |name| format!("{name:?}")),
                    };
                    self.error(at, message);
                }
            }
        }
    }

    fn read(&mut self, key: &'static Key, at: ConfigPlace, value: &RawValue<'_>) {
        let origin = match (key.read)(&mut self.config, value) {
            Ok(()) => KeyOrigin::Read(at),
            Err(message) => {
                self.error(at, format!("{}.{} {message}", key.section, key.name));
                KeyOrigin::Wrong
            }
        };
        self.origins.insert((key.section, key.name), origin);
    }

    fn environment(&mut self, env: impl Iterator<Item = (String, String)>) {
        let mut variables: Vec<(String, String)> = env.collect();
        variables.sort();
        for (name, value) in &variables {
            let Some(rest) = name.strip_prefix(keys::PREFIX) else { continue };
            if keys::OTHER_VARIABLES.contains(&name.as_str()) || keys::is_of_kubernetes(rest, value) {
                continue;
            }
            let at = ConfigPlace::Variable(name.clone());
            if let Some(key) = keys::KEYS.iter().find(|key| key.variable() == *name) {
                self.read(key, at, &RawValue::Env(value));
                continue;
            }
            // Without the common prefix, which would make any two names similar.
            let known: Vec<String> = keys::KEYS.iter().map(Key::variable).collect();
            let known = known.iter().map(String::as_str).chain(keys::OTHER_VARIABLES);
            let message = match nearest(rest, known.filter_map(|name| name.strip_prefix(keys::PREFIX))) {
                Some(nearest) => format!("unknown variable; did you mean {}{nearest}?", keys::PREFIX),
                None => "unknown variable; a key is overridden by VODRELAY_SECTION__KEY".to_owned(),
            };
            // Another program may have variables with our prefix. A key has two underscores.
            if rest.contains("__") {
                self.error(at, message);
            } else {
                let stop = if message.ends_with('?') { "" } else { "." };
                self.warnings.push((at, format!("{message}{stop} It has no effect")));
            }
        }
        let directory = variables.into_iter().find(|(name, _)| name == "CREDENTIALS_DIRECTORY");
        let wanted = self.config.amqp.password.is_none() && self.config.amqp.auth == Auth::Password;
        if let (Some((_, directory)), true) = (directory, wanted) {
            self.credential(&Path::new(&directory).join("amqp_password"));
        }
    }

    /// The broker's password, if the service manager has one as a credential.
    fn credential(&mut self, file: &Path) {
        let read = regular_file::read(file, MAX_BYTES).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        });
        match read {
            Ok(text) => {
                // Editors write a mark at the beginning and a line break at the end. Neither belongs to the
                // password.
                let password = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
                let message = match password {
                    "" => {
                        "is empty; write the broker's password into it, or remove the credential from the unit"
                    }
                    several if several.contains(['\r', '\n']) => {
                        "has several lines; write the password alone on one line"
                    }
                    password => return self.config.amqp.password = Some(Secret::new(password)),
                };
                self.error(ConfigPlace::File(file.to_owned()), message);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.error(ConfigPlace::File(file.to_owned()), "is not UTF-8; save the file as UTF-8");
            }
            Err(error) => {
                let message = format!("cannot be read: {error}; see LoadCredential= in the unit");
                self.error(ConfigPlace::File(file.to_owned()), message);
            }
        }
    }

    fn finish(mut self, env: impl Iterator<Item = (String, String)>) -> Result<LoadedConfig, ConfigErrors> {
        self.environment(env);
        self.weigh();
        let file = self.file;
        let place = |place| match place {
            ConfigPlace::Line(line) => format!("{}:{line}", file.display()),
            ConfigPlace::Variable(name) => name,
            ConfigPlace::File(path) => path.display().to_string(),
        };
        let told = |mut found: Vec<(ConfigPlace, String)>| -> Vec<ConfigError> {
            found.sort();
            found.into_iter().map(|(at, message)| ConfigError { place: place(at), message }).collect()
        };
        if self.errors.is_empty() {
            return Ok(LoadedConfig { config: self.config, warnings: told(self.warnings) });
        }
        Err(ConfigErrors(told(self.errors)))
    }
}

/// Whether a URL holds a real password. RabbitMQ's own default is public.
fn has_secret(url: &Address) -> bool {
    url.password.as_ref().is_some_and(|password| password.expose() != "guest")
}
