//! The program itself, in a process of its own, and what it tells.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::timeout;
use vodrelay_testkit::broker::LIMIT;

type Lines = Arc<Mutex<Vec<String>>>;

/// A process that ends with the test.
pub(super) struct Program {
    child: Child,
    log: Lines,
    output: Lines,
    statuses: Lines,
    _folder: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The relay with this environment and no other.
pub(super) fn relay(environment: BTreeMap<String, String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
    command.arg("run").env_clear().envs(environment);
    command
}

impl Program {
    /// Starts it, with a service manager that listens.
    pub(super) fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = lines_of(child.stderr.take().unwrap());
        let output = lines_of(child.stdout.take().unwrap());
        let statuses = Lines::default();
        let said = statuses.clone();
        // It ends with the socket's folder, or with the test's process.
        manager.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = manager.recv(&mut buffer) {
                said.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        Self { child, log, output, statuses, _folder: folder }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(super) fn signals(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
    }

    /// What it told so far on standard error.
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The lines of its standard output so far.
    pub(super) fn output(&self) -> Vec<String> {
        self.output.lock().unwrap().clone()
    }

    /// Waits until it has logged these words.
    pub(super) async fn logs(&self, words: &str) {
        self.says(&self.log, words).await;
    }

    /// Waits until it has told its service manager these words.
    pub(super) async fn tells(&self, words: &str) {
        self.says(&self.statuses, words).await;
    }

    async fn says(&self, lines: &Lines, words: &str) {
        let said = async {
            while !lines.lock().unwrap().iter().any(|line| line.contains(words)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = timeout(LIMIT, said).await.is_ok();
        assert!(in_time, "{words:?} was never said: {:?}\n{}", self.statuses.lock().unwrap(), self.log());
    }

    /// Waits for its end, and returns its exit code and what it told.
    pub(super) async fn ended(mut self) -> (Option<i32>, String) {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let status = timeout(2 * LIMIT, ended).await;
        let status = status.unwrap_or_else(|_| panic!("it is still there:\n{}", self.log()));
        // Its last words may still be on their way through the pipe.
        let told = async {
            while Arc::strong_count(&self.log) > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, told).await.expect("the pipe ends with the process");
        (status.code(), self.log())
    }

    /// Asks it to drain, and sees that it ends well. Returns what it told.
    pub(super) async fn drained(self) -> String {
        self.signals(Signal::SIGTERM);
        let (code, log) = self.ended().await;
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

/// Gathers lines until the pipe ends; then it lets go of them.
fn lines_of(pipe: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let gathered = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            gathered.lock().unwrap().push(line);
        }
    });
    lines
}
