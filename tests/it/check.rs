//! What an operator is told, through the program itself: by `check` about both ends, and by `run` when it cannot start.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tencent_vod_emulator::{Action, Credential, Emulator, Fault, FaultKind, Options};
use tokio::time::timeout;
use vodrelay::config::Config;
use vodrelay::journal::{self, Journal};
use vodrelay_testkit::broker::{self, Broker, unique};

/// `check` ends within 20 s whatever happens, and a `run` that cannot start at once.
const LIMIT: Duration = Duration::from_secs(25);
const ID: &str = "AKIDexample";
const KEY: &str = "example-key";

/// An emulated cloud, and a folder with a configuration and room for a journal.
struct Stage {
    cloud: Emulator,
    folder: TempDir,
    /// By section and key, as they stand in the file.
    keys: BTreeMap<(&'static str, &'static str), String>,
    environment: BTreeMap<&'static str, String>,
}

impl Stage {
    /// Everything is well, and events go to standard output.
    async fn new() -> Self {
        let options = Options { credentials: vec![Credential::new(ID, KEY)], ..Options::default() };
        let cloud = Emulator::start(options).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let environment = [("TENCENTCLOUD_SECRET_ID", ID), ("TENCENTCLOUD_SECRET_KEY", KEY)];
        let mut stage = Self {
            folder,
            keys: BTreeMap::new(),
            environment: environment.map(|(name, value)| (name, value.to_owned())).into(),
            cloud,
        };
        let endpoint = stage.cloud.endpoint();
        stage.set("vod", "endpoint", &endpoint);
        // Not "auto": a machine of the vendor's cloud would find a role of its own.
        stage.set("vod", "credentials", "env");
        stage.set("output", "kind", "stdout");
        stage.set("log", "level", "error");
        let journal = stage.journal();
        stage.set("journal", "path", journal.to_str().unwrap());
        stage
    }

    /// The same with a broker, and with names for the topology that no other test has.
    async fn with_broker() -> (Self, &'static Broker, String) {
        let broker = broker::shared().await;
        let mut stage = Self::new().await;
        let name = unique("check");
        stage.set("output", "kind", "amqp");
        stage.set("amqp", "exchange", &name);
        stage.set("amqp", "queue", &name);
        stage.raw("amqp", "urls", &format!("[{:?}]", broker.url()));
        (stage, broker, name)
    }

    fn set(&mut self, section: &'static str, key: &'static str, text: &str) {
        self.raw(section, key, &format!("{text:?}"));
    }

    fn raw(&mut self, section: &'static str, key: &'static str, toml: &str) {
        self.keys.insert((section, key), toml.to_owned());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn journal(&self) -> PathBuf {
        self.path("journal.db")
    }

    /// The program with this configuration and no other environment than the stage's.
    fn command(&self, args: &[&str]) -> Command {
        let mut text = String::new();
        for ((section, key), value) in &self.keys {
            text += &format!("[{section}]\n{key} = {value}\n");
        }
        // A section is written once.
        let mut seen = Vec::new();
        let lines = text.lines().filter(|line| {
            let again = line.starts_with('[') && seen.contains(line);
            seen.push(line);
            !again
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let path = self.path("config.toml");
        fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
        command.args(args).arg("--config").arg(path).env_clear();
        // Several relays run at once.
        command.env("VODRELAY_HTTP__LISTEN", "").env("VODRELAY_STATUS__SOCKET", "");
        command.envs(&self.environment);
        command
    }

    async fn run(&self, args: &[&str]) -> Told {
        let child = start(self.command(args));
        self.told(finished(child).await)
    }

    async fn check(&self) -> Told {
        self.run(&["check"]).await
    }

    fn told(&self, output: Output) -> Told {
        let folder = self.folder.path().to_str().unwrap();
        let plain = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(folder, "DIR").replace(&self.cloud.endpoint(), "CLOUD")
        };
        let said: Vec<String> = plain(output.stdout).lines().map(same_everywhere).collect();
        Told { exit: output.status.code(), said, complained: plain(output.stderr) }
    }

    /// The names of all files but the configuration.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name != "config.toml");
        names.sort();
        names
    }
}

/// What the program said, without what differs from run to run.
#[derive(Debug)]
struct Told {
    exit: Option<i32>,
    said: Vec<String>,
    complained: String,
}

impl Told {
    #[track_caller]
    fn is(&self, exit: i32, lines: &[&str]) {
        assert_eq!(self.said, lines, "{self:#?}");
        assert_eq!((self.exit, self.complained.as_str()), (Some(exit), ""), "{self:#?}");
    }

    /// Whether one line is this, and how the program ended.
    #[track_caller]
    fn has(&self, exit: i32, line: &str) {
        assert!(self.said.iter().any(|said| said == line), "{line}\nis not in {self:#?}");
        assert_eq!(self.exit, Some(exit), "{self:#?}");
    }

    #[track_caller]
    fn failed(&self, exit: i32, complaint: &str) {
        let (words, code) = self.complained.rsplit_once("  error code: ").unwrap_or((&self.complained, ""));
        assert_eq!(words, format!("{complaint}\n"), "{self:#?}");
        assert!(code.starts_with("VR-"), "{self:#?}");
        assert_eq!((self.exit, self.said.len()), (Some(exit), 0), "{self:#?}");
    }
}

/// A line without its request id, its seconds, and the disk's figures.
fn same_everywhere(line: &str) -> String {
    if let Some((_, figures)) = line.split_once("journal      fsync ") {
        let (cost, rest) = figures.split_once(" ms (p50 of ").unwrap();
        assert!(cost.parse::<f64>().is_ok() && rest.contains(" free"), "{line}");
        return DISK.to_owned();
    }
    // What each problem is called is a matter of its own.
    let mut line = match line.rsplit_once(" [VR-") {
        Some((before, code)) if code.len() == "401]".len() => before.to_owned(),
        _ => line.to_owned(),
    };
    if let Some((before, after)) = line.split_once("[request ") {
        line = format!("{before}[request R{}", &after[after.find(']').unwrap()..]);
    }
    if let Some((part, rest)) = line.split_once("clock        ")
        && let Some((seconds, rest)) = rest.split_once(" s ")
    {
        let seconds: u32 = seconds.parse().unwrap();
        // The header has whole seconds.
        line = format!("{part}clock        about {} s {rest}", (seconds + 5) / 10 * 10);
    }
    line
}

fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a process, and ends it when it takes too long.
async fn finished(child: Child) -> Output {
    let pid = pid(&child);
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let Ok(output) = timeout(LIMIT, waiting).await else {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("still there after {LIMIT:?}");
    };
    output.unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// An address that nobody listens on.
fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

const CONFIG: &str = "ok    config       DIR/config.toml";
const CREDENTIALS: &str = "ok    credentials  AKIDexam*** from the environment, permanent";
const CALLBACKS: &str = "ok    cloud        sub-application 0: mode PULL, events: upload ON, delete ON, persistence OFF [request R]";
const BACKLOG: &str =
    "ok    cloud        sub-application 0: 0 events wait (a count that is about three minutes late)";
const CLOCK: &str = "ok    clock        within a second of the cloud's";
const STDOUT: &str = "ok    output       standard output, one JSON line for each event";
const JOURNAL: &str = "ok    journal      DIR/journal.db: missing; `vodrelay run` creates it; not in use";
const DISK: &str = "the disk's figures";

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_and_nothing_is_left_behind() {
    let (mut stage, broker, name) = Stage::with_broker().await;
    stage.raw("vod", "sub_app_ids", "[7, 8]");
    stage.cloud.put(8, r#"{"EventType":"NewFileUpload"}"#);
    let login = format!(
        "ok    broker       login at amqp://127.0.0.1:{} (virtual host /): connected and logged in",
        broker.port()
    );
    let callbacks = |id: &str| CALLBACKS.replace("application 0", &format!("application {id}"));
    let backlog = |id: &str| BACKLOG.replace("application 0", &format!("application {id}"));
    let mut lines = vec![
        CONFIG.to_owned(),
        CREDENTIALS.to_owned(),
        callbacks("7"),
        backlog("7"),
        callbacks("8"),
        backlog("8").replace("0 events", "1 events"),
        CLOCK.to_owned(),
        login,
        format!(
            "ok    broker       exchange \"{name}\": missing; it will be declared at the start; whether the user may do so is not tested"
        ),
        format!(
            "ok    broker       queue \"{name}\": missing; it will be declared as a quorum queue at the start; whether the user may do so, and whether the virtual host's limit of queues allows it, is not tested"
        ),
        JOURNAL.to_owned(),
        DISK.to_owned(),
    ];
    let expect = |told: &Told, lines: &[String]| {
        told.is(0, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    };
    expect(&stage.check().await, &lines);
    assert_eq!(stage.files(), [""; 0]);
    assert_eq!(stage.cloud.stats().calls(Action::PullEvents), 0, "a check hides no event");

    // As it is after the relay has run.
    topology(broker, &name, "quorum").await;
    let opened = Journal::open(&journal::Options { path: stage.journal() }).unwrap();
    drop(opened.0);
    opened.1.join().unwrap();
    lines.splice(
        8..11,
        [
            format!(
                "ok    broker       exchange \"{name}\": exists, a durable topic exchange; the user may write to it; topic permissions \
                 are not proven: only a publish shows them"
            ),
            format!("ok    broker       queue \"{name}\": exists, a durable quorum queue with 0 messages"),
            format!("ok    broker       binding of \"{name}\": it is bound with \"vod.#\" at the start; the user may bind it"),
            "ok    journal      DIR/journal.db: schema version 5; not in use".to_owned(),
        ],
    );
    let before = stage.files();
    expect(&stage.check().await, &lines);
    assert_eq!(stage.files(), before);
}

/// A durable topic exchange, and a durable queue of this type, bound.
async fn topology(broker: &Broker, name: &str, queue_type: &str) {
    let (_connection, channel) = broker.channel().await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default();
    channel.exchange_declare(name.into(), ExchangeKind::Topic, durable, none.clone()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.into()));
    channel.queue_declare(name.into(), durable, arguments).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind(name.into(), name.into(), "vod.#".into(), bind, none).await.unwrap();
}

/// What the broker has of this name, and of whatever a check could have made.
async fn at_the_broker(broker: &Broker, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for what in [
        &["list_exchanges", "name", "type", "arguments"][..],
        &["list_queues", "name", "messages", "arguments"],
        &["list_bindings", "source_name", "destination_name", "destination_kind", "routing_key"],
    ] {
        let listed = broker.ctl(what).await;
        let ours = listed.lines().filter(|line| line.contains(name) || line.contains("vodrelay-check"));
        found.extend(ours.map(str::to_owned));
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_write_is_told_of_and_nothing_is_changed() {
    const CONFIGURE: &str = ".*";
    let (mut stage, broker, name) = Stage::with_broker().await;
    topology(broker, &name, "quorum").await;
    let before = at_the_broker(broker, &name).await;
    // The exchange, the queue, its binding by its own name, and the one that was made.
    assert_eq!(before.len(), 4, "{before:#?}");
    let user = broker.user().await.name;
    let url = format!("amqp://{user}:{}@127.0.0.1:{}/%2f", broker::USER_PASSWORD, broker.port());
    stage.raw("amqp", "urls", &format!("[{url:?}]"));
    let exchange = format!("broker       exchange \"{name}\": ");
    let binding = format!("broker       binding of \"{name}\": ");
    let may_not_write = format!("fail  {exchange}the user may not write to the exchange \"{name}\" (");
    let may_not_bind = format!("fail  {binding}the user may not bind the queue \"{name}\" (");
    let may_write = format!("ok    {exchange}exists, a durable topic exchange; the user may write to it");
    let may_write_to_ours =
        format!("ok    {exchange}exists, a durable topic exchange; the user may write to it");
    let may_bind = format!("ok    {binding}it is bound with \"vod.#\" at the start; the user may bind it");
    // The right to write and to read, and what is said.
    for (topology, write, read, exit, lines) in [
        ("verify", "^$", ".*", 78, vec![&may_not_write]),
        // The right to one exchange is enough, and to read none.
        ("verify", &*format!("^{name}$"), "^$", 0, vec![&may_write]),
        ("declare", "^$", ".*", 78, vec![&may_not_write, &may_not_bind]),
        ("declare", ".*", "^$", 78, vec![&may_write_to_ours, &may_not_bind]),
        ("declare", ".*", ".*", 0, vec![&may_write_to_ours, &may_bind]),
    ] {
        broker.ctl(&["set_permissions", "-p", "/", &user, CONFIGURE, write, read]).await;
        stage.set("amqp", "topology", topology);
        let told = stage.check().await;
        for line in lines {
            assert!(told.said.iter().any(|said| said.starts_with(line)), "{line}\nis not in {told:#?}");
        }
        assert_eq!(told.exit, Some(exit), "{topology}, {write}, {read}: {told:#?}");
    }
    assert_eq!(at_the_broker(broker, &name).await, before);
}

/// A passive declaration looks at the name alone.
#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_what_the_exchange_and_the_queue_are_and_what_is_not_proven() {
    let (mut stage, broker, name) = Stage::with_broker().await;
    let (_connection, channel) = broker.channel().await;
    let exchange =
        ExchangeDeclareOptions { auto_delete: true, internal: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default();
    let internal = format!("{name}-internal");
    channel
        .exchange_declare(internal.as_str().into(), ExchangeKind::Direct, exchange, none.clone())
        .await
        .unwrap();
    let exchange = ExchangeDeclareOptions { internal: false, ..exchange };
    channel.exchange_declare(name.as_str().into(), ExchangeKind::Direct, exchange, none).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(60_000));
    arguments.insert("x-max-length".into(), AMQPValue::ShortInt(5));
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("elsewhere".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
    let before = at_the_broker(broker, &name).await;
    stage.set("amqp", "topology", "verify");
    let told = stage.check().await;
    told.has(
        0,
        &format!("ok    broker       exchange \"{name}\": exists, a non-durable direct exchange; the user may write to it"),
    );
    told.has(
        0,
        &format!(
            "warn  broker       queue \"{name}\": exists, a durable classic queue with x-dead-letter-exchange = elsewhere, \
             x-max-length = 5, x-message-ttl = 60000, with 0 messages; RabbitMQ deletes events from it that wait longer than x-message-ttl milliseconds; RabbitMQ deletes the oldest events from it when it is full: x-overflow = reject-publish \
             keeps them; events in it live on one node, or not on its disk: a durable quorum queue is safer; the settings of a policy are not proven: AMQP does not show them"
        ),
    );
    stage.set("amqp", "exchange", &internal);
    stage.check().await.has(
        78,
        &format!(
            "fail  broker       exchange \"{internal}\": the exchange \"{internal}\" is internal, and RabbitMQ lets no client \
             publish to it; name another one in amqp.exchange"
        ),
    );

    // Who may not configure learns nothing of it, and nothing is called proven.
    let user = broker.user().await.name;
    broker.ctl(&["set_permissions", "-p", "/", &user, "^$", ".*", ".*"]).await;
    let url = format!("amqp://{user}:{}@127.0.0.1:{}/%2f", broker::USER_PASSWORD, broker.port());
    stage.raw("amqp", "urls", &format!("[{url:?}]"));
    let told = stage.check().await;
    told.has(
        0,
        &format!(
            "ok    broker       exchange \"{internal}\": exists; the user may write to it; not proven: whether it is internal \
             (that takes the right to configure it), and topic permissions (only a publish shows them)"
        ),
    );
    told.has(
        0,
        &format!(
            "ok    broker       queue \"{name}\": exists with 0 messages; not proven, because it takes the right to configure the \
             queue: its type, and whether it drops events (a time to live, a largest length)"
        ),
    );
    assert_eq!(at_the_broker(broker, &name).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_hangs_on_the_routing_key_is_proven_where_it_can_be() {
    let (mut stage, broker, name) = Stage::with_broker().await;
    topology(broker, &name, "quorum").await;
    let before = at_the_broker(broker, &name).await;
    let user = broker.user().await.name;
    broker.ctl(&["set_permissions", "-p", "/", &user, ".*", ".*", ".*"]).await;
    let url = format!("amqp://{user}:{}@127.0.0.1:{}/%2f", broker::USER_PASSWORD, broker.port());
    stage.raw("amqp", "urls", &format!("[{url:?}]"));
    // The binding key is read from the exchange; what is published to it is not tried.
    for (write, read, binds) in [("^$", "^vod\\.#$", true), (".*", "^other", false)] {
        broker.ctl(&["set_topic_permissions", "-p", "/", &user, &name, write, read]).await;
        let told = stage.check().await;
        let (exit, binding) =
            if binds { (0, "it is bound with") } else { (78, "the user may not bind the queue") };
        assert_eq!(told.exit, Some(exit), "{told:#?}");
        for line in [
            format!(
                "ok    broker       exchange \"{name}\": exists, a durable topic exchange; the user may write to it; topic permissions \
                 are not proven: only a publish shows them"
            ),
            format!("broker       binding of \"{name}\": {binding}"),
        ] {
            assert!(told.said.iter().any(|said| said.contains(&line)), "{line}\nis not in {told:#?}");
        }
    }
    assert_eq!(at_the_broker(broker, &name).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_or_a_socket_that_cannot_be_had_is_told_of() {
    let mut stage = Stage::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    stage.environment.insert("VODRELAY_HTTP__LISTEN", address.clone());
    stage.environment.insert("VODRELAY_STATUS__SOCKET", "/nowhere/status.sock".to_owned());
    let told = stage.check().await;
    for line in [
        format!("fail  http         cannot listen on {address} (http.listen): "),
        "warn  status       cannot open the status socket /nowhere/status.sock".to_owned(),
    ] {
        assert!(told.said.iter().any(|said| said.starts_with(&line)), "{line}\nis not in {told:#?}");
    }
    assert_eq!(told.exit, Some(75), "{told:#?}");
    drop(listener);
    let socket = stage.path("status.sock").to_str().unwrap().to_owned();
    stage.environment.insert("VODRELAY_STATUS__SOCKET", socket);
    let told = stage.check().await;
    told.has(0, &format!("ok    http         {address} can be listened on"));
    told.has(0, "ok    status       DIR/status.sock can be made");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_object_a_line() {
    let mut stage = Stage::new().await;
    let told = stage.run(&["check", "--json"]).await;
    let parsed = |told: &Told| -> Vec<(String, String)> {
        let lines = told.said.iter().filter(|line| *line != DISK);
        let objects = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        objects.map(|o| (o["part"].as_str().unwrap().into(), o["status"].as_str().unwrap().into())).collect()
    };
    let expected = ["config", "credentials", "cloud", "cloud", "clock", "output", "journal", "journal"];
    let parts = parsed(&told);
    assert_eq!(parts.iter().map(|(part, _)| part.as_str()).collect::<Vec<_>>(), expected, "{told:#?}");
    assert!(parts[..7].iter().all(|(_, status)| status == "ok"), "{told:#?}");
    assert_eq!(told.exit, Some(0));

    stage.raw("vod", "window", "30");
    let told = stage.run(&["check", "--json"]).await;
    let error: serde_json::Value = serde_json::from_str(&told.said[0]).unwrap();
    assert_eq!((told.exit, told.said.len()), (Some(78), 1), "{told:#?}");
    assert_eq!(
        error,
        serde_json::json!({
            "error_code": "VR-101",
            "status": "fail",
            "part": "config",
            "message": "DIR/config.toml:10: vod.window has no unit; a duration needs a unit, for example \"30s\"",
            "place": "DIR/config.toml:10",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_reads_the_configuration_and_no_more() {
    let mut stage = Stage::new().await;
    stage.environment.clear();
    stage.set("journal", "path", "/proc/nowhere/journal.db");
    stage.run(&["check", "--offline"]).await.is(0, &[CONFIG]);
    assert!(stage.cloud.stats().calls.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_missing_or_wrong_are_named() {
    let mut stage = Stage::new().await;
    stage.environment.insert("TENCENTCLOUD_SECRET_KEY", "another-key".to_owned());
    let told = stage.check().await;
    let refused =
        "fail  cloud        sub-application 0: DescribeEventConfig failed (AuthFailure.SignatureFailure): ";
    let line = told.said.iter().find(|line| line.starts_with(refused)).unwrap_or_else(|| panic!("{told:#?}"));
    assert!(
        line.ends_with(
            " [request R]; check that secret id, secret key and token belong together and are enabled"
        ),
        "{line}"
    );
    assert!(!format!("{told:?}").contains("another-key"));
    assert_eq!((told.exit, told.said.len()), (Some(78), 7), "{told:#?}");

    stage.environment.clear();
    stage.check().await.is(
        78,
        &[
            CONFIG,
            "fail  credentials  no credentials in the environment: TENCENTCLOUD_SECRET_ID is not set; set \
             TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY",
            STDOUT,
            JOURNAL,
            DISK,
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_are_out_of_reach_are_a_temporary_failure() {
    let mut stage = Stage::new().await;
    let (cloud, broker) = (refusing(), refusing());
    stage.set("vod", "endpoint", &format!("http://{cloud}"));
    stage.set("output", "kind", "amqp");
    stage.raw("amqp", "urls", &format!("[\"amqp://{broker}\"]"));
    let told = stage.check().await;
    assert_eq!((told.exit, told.said.len()), (Some(75), 6), "{told:#?}");
    let line = &told.said[2];
    assert!(
        line.starts_with("fail  cloud        sub-application 0: DescribeEventConfig failed (connect): ")
            && line.contains("refused")
            && line.ends_with("; check the endpoint, DNS, and proxies and firewalls between"),
        "{line}"
    );
    told.has(
        75,
        &format!(
            "fail  broker       login at amqp://{broker} (virtual host /): cannot connect to amqp://{broker} (virtual host /): \
             Connection refused (os error 111); check that RabbitMQ runs and listens there"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_never_answer_are_not_waited_for_long() {
    let mut stage = Stage::new().await;
    // Connections are accepted by the system, and by nobody else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    stage.set("vod", "endpoint", &format!("http://{address}"));
    stage.raw("vod", "sub_app_ids", &format!("{:?}", (1..=4).collect::<Vec<_>>()));
    stage.set("output", "kind", "amqp");
    stage.raw("amqp", "urls", &format!("[\"amqp://{address}\", \"amqp://{address}/other\"]"));
    let told = stage.check().await;
    assert_eq!((told.exit, told.said.len()), (Some(75), 2 + 4 + 2 + 2), "{told:#?}");
    for (line, id) in told.said[2..6].iter().zip(1..) {
        let silent = "DescribeEventConfig failed (timeout): no answer within 6.0 s";
        assert_eq!(*line, format!("fail  cloud        sub-application {id}: {silent}"));
    }
    let silence = "did not finish the handshake within 5s; check that RabbitMQ listens there";
    assert!(told.said[6].ends_with(silence) && told.said[7].ends_with(silence), "{told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callbacks_must_be_pulled_and_should_be_on() {
    let stage = Stage::new().await;
    stage.cloud.change_event_config(0, |config| config.mode = "PUSH".to_owned());
    let line = CALLBACKS.replace("ok  ", "fail").replace("PULL", "PUSH")
        + "; events can be pulled in mode PULL only: choose it under callback settings in the VOD console, or call \
           ModifyEventConfig with Mode=PULL";
    stage.check().await.is(78, &[CONFIG, CREDENTIALS, &line, BACKLOG, CLOCK, STDOUT, JOURNAL, DISK]);

    stage.cloud.change_event_config(0, |config| {
        config.mode = "PULL".to_owned();
        config.upload_switch = "OFF".to_owned();
        config.delete_switch = "OFF".to_owned();
    });
    let line = CALLBACKS.replace("ok  ", "warn").replace("ON", "OFF")
        + "; no such events arrive: switch the wanted ones on under callback settings in the VOD console, or call \
           ModifyEventConfig";
    stage.check().await.is(0, &[CONFIG, CREDENTIALS, &line, BACKLOG, CLOCK, STDOUT, JOURNAL, DISK]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_relay_is_enough() {
    let stage = Stage::new().await;
    let code = "UnauthorizedOperation".to_owned();
    stage.cloud.faults().add(Fault::always(FaultKind::Error { code }));
    let denied = |action: &str| {
        format!(
            "warn  cloud        sub-application 0: the key may not call {action} (UnauthorizedOperation): not checked; relaying needs vod:PullEvents and vod:ConfirmEvents only; grant vod:{action} for this check"
        )
    };
    stage.check().await.is(
        0,
        &[
            CONFIG,
            CREDENTIALS,
            &denied("DescribeEventConfig"),
            &denied("DescribeEventsState"),
            CLOCK,
            STDOUT,
            JOURNAL,
            DISK,
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_warned_of() {
    let stage = Stage::new().await;
    stage.cloud.faults().add(Fault::always(FaultKind::ClockSkew { ms: 120_000 }));
    stage.check().await.has(
        0,
        "warn  clock        about 120 s behind the cloud's, which refuses what is 300 s off; set it, and keep it set with NTP",
    );
    stage.cloud.faults().clear();
    stage.cloud.faults().add(Fault::always(FaultKind::ClockSkew { ms: -900_000 }));
    // The cloud refuses, the client signs with the cloud's time, and the call succeeds.
    let told = stage.check().await;
    told.has(0, CALLBACKS);
    told.has(
        0,
        "warn  clock        about 900 s ahead of the cloud's, which refuses what is 300 s off: the relay signs with the \
         cloud's time; set it, and keep it set with NTP",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_fit_is_told_of() {
    let (mut stage, broker, name) = Stage::with_broker().await;
    let address = format!("amqp://127.0.0.1:{} (virtual host /)", broker.port());
    let url = broker.url();
    stage.raw("amqp", "urls", &format!("[{:?}]", url.replace("guest:guest", "guest:hunter2")));
    let told = stage.check().await;
    let refused = format!(
        "fail  broker       login at {address}: {address} refused the user \"guest\" (from amqp.urls) or the password (from amqp.urls): ACCESS_REFUSED"
    );
    let line =
        told.said.iter().find(|line| line.starts_with(&refused)).unwrap_or_else(|| panic!("{told:#?}"));
    assert!(line.ends_with("; correct them there, or see `rabbitmqctl list_users`"), "{line}");
    assert!(told.exit == Some(78) && !format!("{told:?}").contains("hunter2"), "{told:#?}");

    stage.raw("amqp", "urls", &format!("[{url:?}]"));
    stage.set("amqp", "topology", "verify");
    let told = stage.check().await;
    for thing in ["exchange", "queue"] {
        told.has(
            78,
            &format!(
                "fail  broker       {thing} \"{name}\": the {thing} \"{name}\" does not exist; create it, or set topology = \
                 \"declare\""
            ),
        );
    }

    // A classic queue is the operator's choice where the operator makes it, and a mistake where the relay would.
    topology(broker, &name, "classic").await;
    let difference = format!(
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue '{name}' in vhost '/': received 'quorum' but current is \
         'classic'"
    );
    stage.check().await.has(
        0,
        &format!(
            "warn  broker       queue \"{name}\": exists, a durable classic queue, with 0 messages; events in it live on one \
             node, or not on its disk: a durable quorum queue is safer; the settings of a policy are not proven: AMQP does not show them"
        ),
    );
    stage.set("amqp", "topology", "declare");
    stage.check().await.has(
        78,
        &format!(
            "fail  broker       queue \"{name}\": the queue \"{name}\" exists with other properties ({difference}); \
             name another one, or set topology = \"verify\" to use it as it is"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_used_is_told_of() {
    let mut stage = Stage::new().await;
    fs::write(stage.path("file"), "").unwrap();
    let journal = async |stage: &mut Stage, path: &str, exit: i32, line: &str| {
        stage.set("journal", "path", &path.replace("DIR", stage.folder.path().to_str().unwrap()));
        let told = stage.check().await;
        told.has(exit, line);
        // Nothing is said about a disk that is of no use.
        assert_eq!(told.said.len(), 7, "{told:#?}");
    };
    journal(
        &mut stage,
        "DIR/file/journal.db",
        78,
        "fail  journal      the journal DIR/file/journal.db cannot be used: its folder cannot be made (not a directory): make \
         DIR/file writable for the relay's user, or change journal.path",
    )
    .await;
    journal(
        &mut stage,
        "/proc/vodrelay/journal.db",
        78,
        "fail  journal      the journal /proc/vodrelay/journal.db cannot be used: it cannot be written (No such file or directory \
         (os error 2)): check the owner and the mode of it and of its folder, and that the file system is mounted for writing",
    )
    .await;
    journal(
        &mut stage,
        "DIR",
        78,
        "fail  journal      the journal DIR cannot be used: it is a folder: set journal.path to a file in it",
    )
    .await;
    fs::write(stage.path("file"), "not a database, however long one reads on in it".repeat(100)).unwrap();
    journal(
        &mut stage,
        "DIR/file",
        78,
        "fail  journal      the journal DIR/file is damaged (file is not a database): stop every program that writes to it, move it aside \
         with its -wal and -shm files, restore a copy or start with a new one",
    )
    .await;
    let foreign = stage.path("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    journal(
        &mut stage,
        "DIR/foreign.db",
        78,
        "fail  journal      the journal DIR/foreign.db cannot be used: it is another program's database: set journal.path to a \
         file of its own",
    )
    .await;
    assert_eq!(stage.files(), ["file", "foreign.db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_in_use_is_no_failure() {
    let stage = Stage::new().await;
    let (_journal, _writer) = Journal::open(&journal::Options { path: stage.journal() }).unwrap();
    let line = format!(
        "ok    journal      DIR/journal.db: schema version 5; in use by process {}",
        std::process::id()
    );
    stage.check().await.has(0, &line);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_cannot_start_says_why_and_ends_at_once() {
    let mut stage = Stage::new().await;
    fs::write(stage.path("file"), "").unwrap();
    let in_a_file = format!("{:?}", stage.path("file/journal.db"));
    let at = "vodrelay: DIR/config.toml:";
    let table: [(&str, &str, &str, String); 6] = [
        (
            "vod",
            "endpoint",
            "\"http://vod.tencentcloudapi.com\"",
            format!(
                "{at}9: vod.endpoint must begin with https://: http:// is for loopback hosts only, because it shows every event \
                 to the network"
            ),
        ),
        (
            "journal",
            "retenton",
            "\"30d\"",
            format!("{at}3: unknown key \"retenton\" in [journal]; did you mean \"retention\"?"),
        ),
        (
            "vod",
            "window",
            "30",
            format!("{at}10: vod.window has no unit; a duration needs a unit, for example \"30s\""),
        ),
        (
            "vod",
            "endpoint",
            "\"https://\"",
            format!("{at}9: vod.endpoint has no host; a URL looks like scheme://host:port/"),
        ),
        (
            "amqp",
            "urls",
            "[\"amqp://\"]",
            format!("{at}2: amqp.urls URL 1 has no host; write it like \"amqp://127.0.0.1:5672/%2f\""),
        ),
        (
            "journal",
            "path",
            &in_a_file,
            "vodrelay: the journal DIR/file/journal.db cannot be used: its folder cannot be made (File exists (os error 17)): make \
             DIR/file writable for the relay's user, or change journal.path"
                .to_owned(),
        ),
    ];
    for (section, key, value, complaint) in table {
        let before = stage.keys.clone();
        stage.raw(section, key, value);
        stage.run(&["run"]).await.failed(78, &complaint);
        stage.keys = before;
    }
    assert_eq!(stage.files(), ["file"]);
    assert!(stage.cloud.stats().calls.is_empty(), "nothing was pulled");

    stage.environment.clear();
    stage.run(&["run"]).await.failed(
        78,
        "vodrelay: no credentials in the environment: TENCENTCLOUD_SECRET_ID is not set; set TENCENTCLOUD_SECRET_ID and \
         TENCENTCLOUD_SECRET_KEY",
    );
    assert_eq!(stage.files(), ["file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_relay_on_one_journal_ends_at_once_and_the_first_goes_on() {
    let stage = Stage::new().await;
    // A poll in flight is waited for at the end.
    stage.cloud.change_settings(|settings| settings.hold_ms = 100);
    let first = start(stage.command(&["run"]));
    let pid = pid(&first);
    stage.cloud.wait_until(|cloud| cloud.calls(Action::PullEvents) > 0, LIMIT).await.unwrap();
    stage.run(&["run"]).await.failed(
        75,
        &format!(
            "vodrelay: the journal DIR/journal.db is in use by another relay (process {pid}): stop that one, or give this one a \
             journal.path of its own"
        ),
    );
    stage
        .check()
        .await
        .has(0, &format!("ok    journal      DIR/journal.db: schema version 5; in use by process {pid}"));
    let polls = stage.cloud.stats().calls(Action::PullEvents);
    stage.cloud.wait_until(move |cloud| cloud.calls(Action::PullEvents) > polls, LIMIT).await.unwrap();
    kill(pid, Signal::SIGTERM).unwrap();
    let told = stage.told(finished(first).await);
    told.is(0, &[]);
}

#[test]
fn the_configurations_in_the_readme_are_right() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<&str> =
        readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for block in blocks {
        fs::write(&path, block).unwrap();
        Config::load(Some(&path), std::iter::empty()).unwrap();
    }
}
