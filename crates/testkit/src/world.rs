//! A whole world for one test: an emulated VOD, a relay with its journal, and a queue at a real RabbitMQ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tencent_vod::{CredentialSource, Environment, Places};
use tencent_vod_emulator::{Emulator, Ledger, Options, State};
use tencent_vod_event::SubAppId;
use tokio::time::timeout;
use vodrelay::app::Running;
use vodrelay::config::Config;
use vodrelay::relay::Snapshot;

use crate::broker::{Broker, LIMIT, Received, unique};

/// The window of these tests: long enough for every step, short enough to wait for its end.
pub const WINDOW: Duration = Duration::from_secs(4);

pub struct World {
    pub emulator: Emulator,
    pub config: Config,
    pub queue: String,
    /// The configuration as a child process gets it.
    variables: BTreeMap<String, String>,
    folder: tempfile::TempDir,
}

impl World {
    /// An emulator that behaves, and a configuration that fits it. Nothing relays yet.
    pub async fn new(url: &str, sub_apps: &[u64]) -> Self {
        let mut options = Options::default();
        options.settings.hold_ms = 300;
        options.settings.requests_per_second = 0;
        options.settings.queue.window_ms = u64::try_from(WINDOW.as_millis()).unwrap();
        let emulator = Emulator::start(options).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let queue = unique("events");
        let set = |key: &str, value: String| (format!("VODRELAY_{key}"), value);
        let ids: Vec<String> = sub_apps.iter().map(ToString::to_string).collect();
        let variables = [
            set("VOD__ENDPOINT", emulator.endpoint()),
            set("VOD__SUB_APP_IDS", ids.join(",")),
            set("VOD__WINDOW", "4s".to_owned()),
            set("VOD__REQUESTS_PER_SECOND", "1000".to_owned()),
            set("RELAY__LEASE_MARGIN", "1s".to_owned()),
            set("RELAY__IDLE_BACKOFF_MAX", "500ms".to_owned()),
            set("AMQP__URLS", url.to_owned()),
            set("AMQP__EXCHANGE", queue.clone()),
            set("AMQP__QUEUE", queue.clone()),
            // A port that the system chooses.
            set("HTTP__LISTEN", "127.0.0.1:0".to_owned()),
            set("STATUS__SOCKET", folder.path().join("status.sock").display().to_string()),
            set("JOURNAL__PATH", folder.path().join("journal.db").display().to_string()),
        ];
        let variables = BTreeMap::from(variables);
        let config = Config::from_variables(variables.clone().into_iter()).unwrap();
        Self { emulator, config, queue, variables, folder }
    }

    /// Changes the configuration, for a relay in this process and for one in its own: `VOD__ENDPOINT` and the like.
    pub fn set(&mut self, key: &str, value: &str) {
        self.variables.insert(format!("VODRELAY_{key}"), value.to_owned());
        self.config = Config::from_variables(self.variables.clone().into_iter()).unwrap();
    }

    /// Leaves a key to its default, or to a file.
    pub fn unset(&mut self, key: &str) {
        self.variables.remove(&format!("VODRELAY_{key}"));
    }

    /// What the program itself needs in its environment: this configuration and the credentials.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let credential = self.emulator.credential();
        let mut environment = self.variables.clone();
        let more = [
            ("TENCENTCLOUD_SECRET_ID", credential.secret_id.as_str()),
            ("TENCENTCLOUD_SECRET_KEY", credential.secret_key.expose()),
            ("VODRELAY_VOD__CREDENTIALS", "env"),
        ];
        let token = credential.token.as_ref().map(|token| token.expose().to_owned());
        environment.extend(token.map(|token| ("TENCENTCLOUD_TOKEN".to_owned(), token)));
        environment.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        environment
    }

    pub fn places(&self) -> Places {
        let credential = self.emulator.credential();
        let environment = Environment::fixed([
            ("TENCENTCLOUD_SECRET_ID", credential.secret_id.as_str()),
            ("TENCENTCLOUD_SECRET_KEY", credential.secret_key.expose()),
        ]);
        Places { environment, ..Places::new(CredentialSource::Env) }
    }

    pub async fn start(&self) -> Running {
        Running::start(&self.config, self.places()).await.unwrap()
    }

    /// Where files of this world can be put; it goes with the world.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn journal_path(&self) -> PathBuf {
        self.config.journal.path.clone()
    }

    /// Waits until something holds at the emulator, for up to `limit`.
    pub async fn until_within(&self, limit: Duration, what: &str, holds: impl Fn(&State) -> bool) {
        if let Err(error) = self.emulator.wait_until(holds, limit).await {
            panic!("{what}: {error}\n{:#?}", self.emulator.stats());
        }
    }

    /// As [`World::until_within`], with the usual limit.
    pub async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        self.until_within(LIMIT, what, holds).await;
    }

    /// Waits until nothing is left unconfirmed.
    pub async fn until_confirmed(&self) {
        self.until_within(2 * LIMIT, "everything confirmed", |state| state.unconfirmed() == 0).await;
    }

    /// Waits until the journal calls everything confirmed, too: an answer that was lost is settled by a later idle one.
    pub async fn until_journal_agrees(&self) {
        let agrees = async {
            while self.figure("SELECT count(*) FROM event_log WHERE state <> 'confirmed'") > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(2 * LIMIT, agrees).await.expect("the journal calls everything confirmed");
    }

    /// The message ids of the journal's view.
    pub fn journalled_ids(&self) -> BTreeSet<String> {
        let journal = rusqlite::Connection::open(self.journal_path()).unwrap();
        let mut rows = journal.prepare("SELECT message_id FROM event_log").unwrap();
        let ids = rows.query_map([], |row| row.get(0)).unwrap();
        ids.map(Result::unwrap).collect()
    }

    /// The message ids that the journal names as possible duplicates.
    pub fn uncertain_ids(&self) -> BTreeSet<String> {
        let journal = rusqlite::Connection::open(self.journal_path()).unwrap();
        let mut rows = journal
            .prepare("SELECT message_id FROM event_log WHERE id IN (SELECT id FROM event WHERE uncertain)")
            .unwrap();
        let ids = rows.query_map([], |row| row.get(0)).unwrap();
        ids.map(Result::unwrap).collect()
    }

    /// One figure from the journal.
    pub fn figure(&self, sql: &str) -> i64 {
        let journal = rusqlite::Connection::open(self.journal_path()).unwrap();
        journal.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

/// Drains a relay, in bounded time.
pub async fn drained(running: Running) -> Snapshot {
    running.drain().cancel();
    timeout(2 * LIMIT, running.wait()).await.expect("the drain ends").unwrap()
}

/// The body of an event as it was delivered under this handle: the emulator puts the handle first.
pub fn delivered(json: &str, handle: &str) -> String {
    format!("{{\"EventHandle\":\"{handle}\",{}", json.strip_prefix('{').unwrap())
}

/// How often each event (by sub-application and content) was put.
pub fn put(ledger: &Ledger) -> BTreeMap<(u64, Arc<str>), usize> {
    let mut count = BTreeMap::new();
    for event in &ledger.events {
        *count.entry((event.sub_app_id, event.json.clone())).or_default() += 1;
    }
    count
}

/// Counts each event in the queue. Checks that each body is one that was delivered, byte for byte, and that no
/// message id is there twice.
pub fn carried(ledger: &Ledger, messages: &[Received]) -> BTreeMap<(u64, Arc<str>), usize> {
    let mut bodies = BTreeMap::new();
    for event in &ledger.events {
        for delivery in &event.deliveries {
            let body = match &delivery.handle {
                Some(handle) => delivered(&event.json, handle),
                None => event.json.to_string(),
            };
            bodies.insert((event.sub_app_id, body.into_bytes()), event.json.clone());
        }
    }
    let ids: BTreeSet<String> = messages.iter().map(Received::message_id).collect();
    assert_eq!(ids.len(), messages.len(), "each message id once");
    let mut count = BTreeMap::new();
    for message in messages {
        let sub_app = sub_app(message).0;
        let json = bodies.get(&(sub_app, message.body.clone())).unwrap_or_else(|| {
            panic!("no delivery had this body: {}", String::from_utf8_lossy(&message.body));
        });
        *count.entry((sub_app, json.clone())).or_default() += 1;
    }
    count
}

fn sub_app(message: &Received) -> SubAppId {
    let header = message.header("x-vod-sub-app-id").expect("the header is there");
    let text = format!("{header:?}");
    SubAppId(text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap())
}

/// A broker of one's own, with its queue settled before anything is killed.
pub async fn settled(broker: &Broker, world: &World) -> Running {
    let running = world.start().await;
    let declared = async {
        loop {
            let passive = lapin::options::QueueDeclareOptions {
                passive: true,
                ..lapin::options::QueueDeclareOptions::default()
            };
            let (connection, channel) = broker.channel().await;
            let found = channel.queue_declare(
                world.queue.as_str().into(),
                passive,
                lapin::types::FieldTable::default(),
            );
            let found = found.await.is_ok();
            let _ = timeout(LIMIT, connection.close(200, "looked".into())).await;
            if found {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, declared).await.expect("the relay declares its queue");
    broker.settle().await;
    running
}
