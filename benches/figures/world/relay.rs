//! The relay, as a process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use serde_json::Value;

use super::Stage;
use super::cloud::{CREDENTIALS, Cloud};
use super::process::Process;
use crate::broker::{Broker, unique};

/// More than any cloud answers: the relay then paces itself by nothing.
pub(crate) const NO_LIMIT: u32 = 100_000;

/// How a relay is configured. Every key that is not named here has its default.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    variables: BTreeMap<String, String>,
    /// The queue, and its exchange: of this setup's own.
    pub(crate) queue: String,
}

impl Setup {
    /// A relay between these two, with a fresh queue and a fresh journal.
    pub(crate) fn new(stage: &Stage, cloud: &Cloud, broker: &Broker, requests_per_second: u32) -> Self {
        let queue = unique("events");
        let mut setup = Self { variables: BTreeMap::new(), queue: queue.clone() };
        for (name, value) in CREDENTIALS {
            setup.variables.insert(name.to_owned(), value.to_owned());
        }
        setup.set("VOD__CREDENTIALS", "env");
        setup.set("VOD__ENDPOINT", cloud.endpoint());
        setup.set("VOD__REQUESTS_PER_SECOND", &requests_per_second.to_string());
        setup.set("AMQP__URLS", &broker.url());
        setup.set("AMQP__EXCHANGE", &queue);
        setup.set("AMQP__QUEUE", &queue);
        setup.journal(&stage.folder().join(format!("{queue}.db")));
        setup
    }

    /// Sets a key: `RELAY__CONFIRM_AFTER` and the like.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.variables.insert(format!("VODRELAY_{key}"), value.to_owned());
    }

    /// Chooses the journal's file.
    pub(crate) fn journal(&mut self, path: &Path) {
        self.set("JOURNAL__PATH", path.to_str().expect("the folder's name is text"));
    }

    /// The journal's file.
    pub(crate) fn journal_path(&self) -> PathBuf {
        PathBuf::from(&self.variables["VODRELAY_JOURNAL__PATH"])
    }
}

/// A relay at work. Its log goes to a file, at its default level.
pub(crate) struct Relay {
    process: Process,
}

impl Relay {
    pub(crate) fn start(stage: &Stage, setup: &Setup) -> Self {
        let variables = setup.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Self { process: Process::start(stage, &setup.queue, &["run"], variables) }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Panics when it has ended by itself.
    pub(crate) fn assert_alive(&mut self) {
        self.process.assert_alive();
    }

    /// Lets it drain, and returns what it logged.
    pub(crate) async fn drained(self) -> Log {
        Log(self.process.terminate().await)
    }
}

/// What a relay logged: one JSON object a line.
pub(crate) struct Log(String);

impl Log {
    /// The figure of this name in the last line that has it.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        let lines = self.0.lines().rev().filter(|line| line.contains(name));
        let mut figures =
            lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()?.get(name)?.as_f64());
        figures.next()
    }
}
