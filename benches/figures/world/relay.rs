//! The relay, as a process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::Value;
use tokio::net::UnixDatagram;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use vodrelay_testkit::broker::{Broker, unique};

use super::cloud::{CREDENTIALS, Cloud};
use super::process::Process;
use super::{Bench, bounded};

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
    pub(crate) fn new(bench: &Bench, cloud: &Cloud, broker: &Broker, requests_per_second: u32) -> Self {
        let queue = unique("events");
        let mut setup = Self { variables: BTreeMap::new(), queue: queue.clone() };
        for (name, value) in CREDENTIALS {
            setup.variables.insert(name.to_owned(), value.to_owned());
        }
        setup.set("VOD__CREDENTIALS", "env");
        setup.set("VOD__ENDPOINT", cloud.endpoint());
        setup.set("VOD__REQUESTS_PER_SECOND", &requests_per_second.to_string());
        // Several relays run at once.
        setup.set("HTTP__LISTEN", "127.0.0.1:0");
        setup.set("STATUS__SOCKET", "");
        setup.set("AMQP__URLS", &broker.url());
        setup.set("AMQP__EXCHANGE", &queue);
        setup.set("AMQP__QUEUE", &queue);
        setup.journal(&bench.folder().join(format!("{queue}.db")));
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
}

/// A relay at work. Its log goes to a file, at its default level.
pub(crate) struct Relay {
    process: Process,
    started: Instant,
    ready: oneshot::Receiver<Instant>,
    /// The service manager's ear, and the folder of its socket.
    _listener: AbortOnDropHandle<()>,
    _folder: tempfile::TempDir,
}

impl Relay {
    pub(crate) fn start(bench: &Bench, setup: &Setup) -> Self {
        // Not the scenario's folder: the name of a socket has room for a hundred bytes.
        let folder = tempfile::Builder::new().prefix("figures-").tempdir_in(std::env::temp_dir());
        let folder = folder.expect("a folder can be made");
        let socket = folder.path().join("notify");
        let listener = UnixDatagram::bind(&socket).expect("a socket can be made");
        let (told, ready) = oneshot::channel();
        let listener = AbortOnDropHandle::new(tokio::spawn(listen(listener, told)));
        let notify = ("NOTIFY_SOCKET", socket.to_str().expect("the folder's name is text"));
        let variables = setup.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let started = Instant::now();
        let process = Process::start(bench, &setup.queue, &["run"], variables.chain([notify]));
        Self { process, started, ready, _listener: listener, _folder: folder }
    }

    /// Waits until it says that it is ready; returns how long that took from its start. To be asked once.
    pub(crate) async fn ready(&mut self) -> Duration {
        let ready = bounded("the relay is ready", &mut self.ready).await;
        ready.expect("the listener goes on") - self.started
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

/// Hears the first READY, and whatever else is said: a socket that nobody reads would hold the relay up.
async fn listen(socket: UnixDatagram, ready: oneshot::Sender<Instant>) {
    let mut ready = Some(ready);
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer).await {
        let said = String::from_utf8_lossy(&buffer[..length]);
        if said.lines().any(|line| line == "READY=1")
            && let Some(ready) = ready.take()
        {
            // Not every scenario asks.
            let _ = ready.send(Instant::now());
        }
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
