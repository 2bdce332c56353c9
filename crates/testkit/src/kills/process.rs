//! The relay as a process: started, killed, asked to drain, and never left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::broker::LIMIT;
use crate::process_group::ProcessGroup;
use crate::world::World;

/// What the lives of one relay have in common: its program, its configuration, its journal, its log.
pub struct Host {
    program: PathBuf,
    variables: BTreeMap<String, String>,
    journal: PathBuf,
    log: PathBuf,
    group: ProcessGroup,
}

impl Host {
    /// The relay of this name in this world, with a journal of its own.
    pub fn new(program: &Path, world: &World, name: &str, more: &[(&str, &str)]) -> Self {
        let journal = world.folder().join(format!("{name}.db"));
        let mut variables = world.environment();
        let path = ("VODRELAY_JOURNAL__PATH", journal.to_str().unwrap());
        // Several relays share a world.
        let socket = ("VODRELAY_STATUS__SOCKET", "");
        for (key, value) in [path, socket].iter().chain(more) {
            variables.insert((*key).to_owned(), (*value).to_owned());
        }
        let log = world.folder().join(format!("{name}.log"));
        Self { program: program.to_owned(), variables, journal, log, group: ProcessGroup::new() }
    }

    pub fn journal(&self) -> &Path {
        &self.journal
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(&self.variables).current_dir("/").stdin(Stdio::null());
        command
    }

    /// One life. It may end at a crash point: `committed record:3`.
    pub fn start(&self, crash_at: Option<&str>) -> Relay {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command();
        command.arg("run").stdout(Stdio::null()).stderr(log).process_group(self.group.group());
        if let Some(point) = crash_at {
            command.env("CRASH_AT", point);
        }
        Relay { child: command.spawn().unwrap(), born: Instant::now(), log: self.log.clone() }
    }

    /// The message ids that the program itself names as possible duplicates.
    pub fn maybe_duplicates(&self) -> BTreeSet<String> {
        let listed = self
            .command()
            .args(["events", "list", "--maybe-duplicate", "--json", "--limit", "1000000"])
            .output()
            .unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let lines = String::from_utf8(listed.stdout).unwrap();
        let id = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["maybe_duplicate"], true, "{line}");
            event["message_id"].as_str().unwrap().to_owned()
        };
        lines.lines().map(id).collect()
    }
}

/// One life of a relay. Dropping it kills it.
pub struct Relay {
    child: Child,
    born: Instant,
    log: PathBuf,
}

impl Relay {
    pub fn signal(&self, signal: Signal) {
        // The child is unreaped until it is waited for, so that its number is its own.
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Whether the process has got so far in its start that this signal would no longer just end it.
    fn handles(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (signal as u64 - 1)) != 0
    }

    /// For how long it has lived.
    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Whether it has ended by itself. An end that no crash point explains fails the test.
    pub fn has_crashed(&mut self) -> bool {
        let Some(status) = self.child.try_wait().unwrap() else { return false };
        assert_eq!(status.signal(), Some(9), "the relay ended by itself: {status}\n{}", tail(&self.log));
        true
    }

    /// SIGKILL. Says whether it was alive until then.
    pub fn kill(mut self) -> bool {
        if self.has_crashed() {
            return false;
        }
        self.signal(Signal::SIGKILL);
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
        true
    }

    /// Waits until it has ended, in bounded time.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + 2 * LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the relay does not end\n{}", tail(&self.log));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGTERM, and the drain that follows.
    pub async fn drained(mut self) {
        let deadline = Instant::now() + LIMIT;
        while !self.handles(Signal::SIGTERM) {
            assert!(Instant::now() < deadline, "the relay does not start\n{}", tail(&self.log));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.signal(Signal::SIGTERM);
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", tail(&self.log));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last words of a log.
fn tail(log: &Path) -> String {
    let text = File::open(log).and_then(std::io::read_to_string).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
