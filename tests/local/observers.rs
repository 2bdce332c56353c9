//! Whoever looks on stands still, or opens connections and says nothing: nothing of it reaches the relay's work.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tencent_vod_emulator::events::sample;
use tencent_vod_emulator::{ConfirmVerdict, Emulator, Options};

use crate::child::{Relay, environment};

const LIMIT: Duration = Duration::from_secs(60);

struct Stage {
    cloud: Emulator,
    folder: TempDir,
    address: SocketAddr,
}

impl Stage {
    async fn new() -> Self {
        let mut options = Options::default();
        options.settings.hold_ms = 500;
        let cloud = Emulator::start(options).await.unwrap();
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { cloud, folder: tempfile::tempdir().unwrap(), address }
    }

    /// Sets up the relay's environment for a command that leads to it.
    fn dress(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment(&self.cloud, self.folder.path()))
            .env("VODRELAY_HTTP__LISTEN", self.address.to_string())
            .stdin(Stdio::null())
            .stdout(File::create(self.folder.path().join("out")).unwrap());
    }

    /// A relay that logs all it can, and the pipe that it logs to.
    fn talkative_relay(&self) -> (Relay, ChildStderr) {
        let mut command = self.relay();
        command.env("VODRELAY_LOG__LEVEL", "trace").stderr(Stdio::piped());
        let mut relay = Relay(command.spawn().unwrap());
        let unread = relay.0.stderr.take().unwrap();
        (relay, unread)
    }

    fn relay(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
        self.dress(&mut command);
        command.arg("run");
        command
    }

    async fn confirms(&self, events: std::ops::Range<u64>) {
        self.cloud.put_many(0, events.map(|number| sample("NewFileUpload", number).unwrap()));
        self.cloud.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    }

    /// The first line of the answer, which has to come within a second.
    fn livez(&self) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

fn ends_well(relay: &mut Relay) {
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
}

fn files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn memory_kb(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_half_a_request_cost_little_and_delay_nothing() {
    // The quick lane of scripts/test makes do with fewer.
    let many = std::env::var("HALF_REQUESTS").map_or(10_000, |many| many.parse().unwrap());
    let stage = Stage::new().await;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    // What this process may hold at once; the rest follows when these are closed.
    let at_once = limit.maximum.map_or(many, |most| many.min(usize::try_from(most).unwrap() - 500));
    let mut command = stage.relay();
    command.stderr(File::create(stage.folder.path().join("log")).unwrap());
    let mut relay = Relay(command.spawn().unwrap());
    stage.confirms(0..40).await;
    let (pid, address) = (relay.0.id(), stage.address);
    let (files_before, kb_before) = (files(pid), memory_kb(pid));
    let (mut most_files, mut held) = (0, Vec::new());
    for number in 0..many {
        if held.len() == at_once {
            held.clear();
        }
        let mut stream = TcpStream::connect(address).unwrap();
        // It may have been closed already, to make room for the next ones.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Half: ");
        held.push(stream);
        if number % 20 == 0 {
            let event = 200 + u64::try_from(number).unwrap();
            stage.cloud.put(0, sample("NewFileUpload", event).unwrap());
        }
        if number % 500 == 0 {
            most_files = most_files.max(files(pid));
        }
    }
    assert_eq!(stage.livez(), "HTTP/1.1 200 OK");
    stage.confirms(40..200).await;
    assert_eq!(stage.livez(), "HTTP/1.1 200 OK");
    most_files = most_files.max(files(pid));
    assert!(most_files <= files_before + 64, "{most_files} files, {files_before} before");
    let kb = memory_kb(pid);
    assert!(kb <= kb_before + 8 * 1024, "{kb} kB, {kb_before} before");
    ends_well(&mut relay);
    let ledger = stage.cloud.ledger(None);
    assert_eq!(ledger.with_verdict(ConfirmVerdict::Late).count(), 0, "no confirm after its window");
    let again = ledger.events.iter().filter(|event| event.deliveries.len() > 1).count();
    assert_eq!(again, 0, "each is confirmed in its first window");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standard_error_that_nobody_reads_stops_nothing() {
    let stage = Stage::new().await;
    let (mut relay, mut unread) = stage.talkative_relay();
    // More than a pipe and the queue before it hold.
    stage.confirms(0..4_000).await;
    assert_eq!(stage.livez(), "HTTP/1.1 200 OK");
    ends_well(&mut relay);
    let mut some = [0; 100];
    assert!(unread.read(&mut some).unwrap() > 0, "there was something to read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_reads_again_is_told_how_many_lines_were_dropped() {
    let stage = Stage::new().await;
    let (mut relay, mut unread) = stage.talkative_relay();
    stage.confirms(0..4_000).await;
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        unread.read_to_string(&mut text).map(|_| text)
    });
    ends_well(&mut relay);
    let text = read.join().unwrap().unwrap();
    assert!(text.contains("lines of the log were dropped") && text.contains("VR-512"), "no such line");
    assert!(text.contains("vodrelay has stopped"), "the last line is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journald_that_does_not_read_stops_nothing() {
    let stage = Stage::new().await;
    let journal = stage.folder.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let socket = UnixDatagram::bind(journal.join("socket")).unwrap();
    let way = private_mounts(&journal);
    let mut command = Command::new("unshare");
    stage.dress(&mut command);
    let mount = r#"mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && mount --bind "$1" /run/systemd/journal && shift && exec "$@""#;
    command.args(way).args(["sh", "-c", mount, "sh"]).arg(&journal);
    command.arg(env!("CARGO_BIN_EXE_vodrelay")).arg("run");
    command.env("VODRELAY_LOG__LEVEL", "trace").env("VODRELAY_LOG__FORMAT", "journald");
    command.stderr(File::create(stage.folder.path().join("log")).unwrap());
    let mut relay = Relay(command.spawn().unwrap());
    stage.confirms(0..4_000).await;
    assert_eq!(stage.livez(), "HTTP/1.1 200 OK");
    ends_well(&mut relay);
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = vec![0; 1 << 18];
    let length = socket.recv(&mut buffer).unwrap();
    let fields = String::from_utf8_lossy(&buffer[..length]);
    assert!(fields.contains("SYSLOG_IDENTIFIER\n") && fields.contains("MESSAGE\n"), "{fields}");
}

/// How this user can mount something that goes with the process.
pub(crate) fn private_mounts(folder: &Path) -> &'static [&'static str] {
    let ways: [&[&str]; 2] = [&["-m"], &["-rm"]];
    let works = |way: &&&[&str]| {
        let tried =
            Command::new("unshare").args(**way).args(["mount", "-t", "tmpfs", "tmpfs"]).arg(folder).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    ways.iter().find(works).copied().expect(
        "a file system of the test's own has to be mounted, and this machine permits neither `unshare -m` (CAP_SYS_ADMIN) nor \
         `unshare -rm` (unprivileged user namespaces): run the tests as root, or with user.max_user_namespaces above 0",
    )
}
