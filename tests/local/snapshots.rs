//! What the program says, compared with the files in `tests/local/snapshots`.
//!
//! After a change of words, `INSTA_UPDATE=always cargo test --test local snapshots` writes the files again, and `git diff` is
//! the review.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use nix::sys::signal::Signal;
use regex_lite::Regex;
use tempfile::TempDir;
use tencent_vod_emulator::events::sample;
use tencent_vod_emulator::{Action, Credential, Emulator, Fault, FaultKind, Options};
use vodrelay::cli::Cli;

use crate::child::{Relay, environment};

const LIMIT: Duration = Duration::from_secs(60);
const ID: &str = "AKIDexample";
const KEY: &str = "example-key";

/// What differs from run to run, and what stands for it.
const VARIABLE: [(&str, &str); 20] = [
    (r"/tmp/\.tmp[A-Za-z0-9]+", "FOLDER"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"\b\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "REQUEST"),
    (r"\b[0-9a-f]{64}\b", "FINGERPRINT"),
    (r"\b[0-9a-f]{32}\b", "MESSAGE-ID"),
    (r"\b\d+(\.\d+)? (ns|us|ms|s|min|h)\b", "TIME-SPAN"),
    (r"\b\d+(\.\d+)?(ns|us|ms|s)\b", "TIME-SPAN"),
    // In a column its width depends on its figure.
    (r"TIME-SPAN +", "TIME-SPAN "),
    (r" +TIME-SPAN ago", " TIME-SPAN ago"),
    // Jobs run at set times, whenever a test does.
    (r"cloud has   .*", "cloud has   BACKLOG"),
    (r"maintenance .*", "maintenance JOBS"),
    (r"\b\d+(\.\d+)? (KB|MB|GB|TB)\b", "SIZE"),
    (r"\b\d+ bytes", "SIZE"),
    (r"process \d+", "process PID"),
    (r#""(pulled|published|confirmed|deliveries|let_go|\w+_us)":\d+"#, "\"$1\":N"),
    (r#""(version)":"[^"]+""#, "\"$1\":\"VERSION\""),
    (r"version \d+\.\d+\.\d+", "version VERSION"),
];

fn same_everywhere(text: &str) -> String {
    let same = |text: String, (from, to): &(&str, &str)| {
        Regex::new(from).unwrap().replace_all(&text, *to).into_owned()
    };
    VARIABLE.iter().fold(text.to_owned(), same)
}

/// Compares with the file of that name.
fn told(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, same_everywhere(text)));
}

/// An emulated cloud, and a folder for a relay that writes to standard output.
struct Desk {
    cloud: Emulator,
    folder: TempDir,
    more: Vec<(&'static str, String)>,
}

impl Desk {
    async fn new() -> Self {
        let mut options = Options { credentials: vec![Credential::new(ID, KEY)], ..Options::default() };
        options.settings.hold_ms = 200;
        let cloud = Emulator::start(options).await.unwrap();
        Self { cloud, folder: tempfile::tempdir().unwrap(), more: Vec::new() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
        command
            .args(arguments)
            .env_clear()
            .env("COLUMNS", "80")
            .env("TZ", "UTC")
            .envs(environment(&self.cloud, self.folder.path()))
            .env("VODRELAY_VOD__CREDENTIALS", "env")
            .envs(self.more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, and returns what it says, with the words on standard error after those on standard output.
    async fn says(&self, arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        let running = tokio::task::spawn_blocking(move || command.output().unwrap());
        let Output { status, stdout, stderr } = tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
        let mut text = format!("$ vodrelay {}\n{}", arguments.join(" "), String::from_utf8(stdout).unwrap());
        if !stderr.is_empty() {
            text += "-- standard error --\n";
            text += &String::from_utf8(stderr).unwrap();
        }
        format!("{text}-- exit code {} --\n", status.code().unwrap())
    }

    fn start(&self) -> Relay {
        let mut command = self.command(&["run"]);
        // Files: a pipe that nobody reads would rightly stop the relay.
        command.stdout(File::create(self.folder.path().join("out")).unwrap());
        command.stderr(File::create(self.folder.path().join("log")).unwrap());
        Relay(command.spawn().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Waits until a command prints this.
    async fn until_said(&self, arguments: &[&str], text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let said = self.says(arguments).await;
            if said.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "{text} is not said:\n{said}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a line of the log holds this.
    async fn until_logged(&self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "{text} is not logged:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The different lines of the log, each without what differs from run to run, in the order of the alphabet: tasks write
    /// at the same time.
    fn lines_of_the_log(&self) -> String {
        let lines: BTreeSet<String> = self.log().lines().map(same_everywhere).collect();
        lines.into_iter().fold(String::new(), |text, line| text + &line + "\n")
    }
}

/// A relay that does not outlive its test.
#[test]
fn help_of_every_command() {
    let mut root = Cli::command();
    root.build();
    help(&root, "help");
}

fn help(command: &clap::Command, name: &str) {
    let text = command.clone().term_width(80).render_long_help().to_string();
    told(name, &text);
    for below in command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set())
    {
        help(below, &format!("{name}-{}", below.get_name()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_sees_of_a_relay_that_works() {
    let desk = Desk::new().await;
    told("check-before-the-first-start", &desk.says(&["check"]).await);
    told("status-without-a-journal", &desk.says(&["status"]).await);
    for (number, event_type) in (0..).zip(["NewFileUpload", "FileDeleted", "ProcedureStateChanged"]) {
        desk.cloud.put(0, sample(event_type, number).unwrap());
    }
    let mut relay = desk.start();
    desk.cloud.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    for line in ["\"message\":\"relayed\"", "ready\",\"target\":\"vodrelay::app::supervisor"] {
        desk.until_logged(line).await;
    }
    desk.until_said(&["events", "list", "--state", "confirmed", "--json"], "ProcedureStateChanged").await;
    told("check-beside-a-relay", &desk.says(&["check"]).await);
    relay.signal(Signal::SIGTERM);
    relay.wait();
    told("log-of-a-relay-that-works", &desk.lines_of_the_log());
    told("status-when-no-relay-runs", &desk.says(&["status"]).await);
    told("events-list", &desk.says(&["events", "list"]).await);
    told("events-list-of-nothing", &desk.says(&["events", "list", "--state", "parked"]).await);
    told("events-show", &desk.says(&["events", "show", "1"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_sees_of_a_relay_in_trouble() {
    let mut desk = Desk::new().await;
    let refused = FaultKind::Error { code: "InternalError".to_owned() };
    desk.cloud.faults().add(Fault::always(refused).on(Action::PullEvents));
    // Nobody listens on this port, and nobody can.
    desk.more.push(("VODRELAY_OUTPUT__KIND", "amqp".to_owned()));
    desk.more.push(("VODRELAY_AMQP__URLS", "amqp://guest:guest@127.0.0.1:1/%2f".to_owned()));
    told("check-without-a-broker", &desk.says(&["check"]).await);
    let mut relay = desk.start();
    desk.until_said(&["status"], "pull     unproven").await;
    // The figures of the journal are counted beside the start.
    desk.until_said(&["status"], "journal has 0 received").await;
    told("status-of-a-relay-in-trouble", &desk.says(&["status"]).await);
    relay.signal(Signal::SIGTERM);
    relay.wait();
    told("log-of-a-relay-in-trouble", &desk.lines_of_the_log());
}
