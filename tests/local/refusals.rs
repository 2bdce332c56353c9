//! A configuration that is refused, warned of, or cannot be had is told of by everything that reads one, in the same words.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tencent_vod_emulator::{Emulator, Options};

use crate::child::Relay;
use crate::config::{REFUSED, REFUSED_VARIABLES};

const LIMIT: Duration = Duration::from_secs(60);

/// A folder with a configuration, which names a cloud and a journal of the test's own.
struct Desk {
    emulator: Emulator,
    folder: tempfile::TempDir,
}

impl Desk {
    async fn new() -> Self {
        let emulator = Emulator::start(Options::default()).await.unwrap();
        Self { emulator, folder: tempfile::tempdir().unwrap() }
    }

    /// A configuration that nothing is wrong with, and more lines at its end.
    fn good(&self, more: &str) -> String {
        let (endpoint, journal) = (self.emulator.endpoint(), self.path("journal.db"));
        format!(
            "[vod]\nendpoint = {endpoint:?}\ncredentials = \"env\"\n[output]\nkind = \"stdout\"\n[journal]\npath = {journal:?}\n{more}"
        )
    }

    /// A relay with this configuration, which is at work, and its log.
    fn relay(&self, text: &str) -> (Relay, PathBuf) {
        self.write(text);
        let log = self.path("log");
        let mut command = self.command(&["run"]);
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let relay = Relay(command.spawn().unwrap());
        // It listens for reloads before it opens its journal.
        wait_for(&log, |text| text.contains("vodrelay starts"));
        wait_for(&self.path("journal.db"), |_| self.path("journal.db").exists());
        (relay, log)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, text: &str) {
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
        let credential = self.emulator.credential();
        command.args(args).arg("--config").arg(self.path("config.toml")).env_clear().stdin(Stdio::null());
        command
            .env("TENCENTCLOUD_SECRET_ID", &credential.secret_id)
            .env("TENCENTCLOUD_SECRET_KEY", credential.secret_key.expose());
        command
    }

    /// What the program prints, both ways, and how it ends.
    fn told(&self, args: &[&str]) -> (Option<i32>, String) {
        told(&mut self.command(args))
    }
}

fn wait_for(file: &Path, done: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if done(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn told(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// All that read a configuration and end.
const READERS: [&[&str]; 3] = [&["check", "--offline"], &["check"], &["run"]];
/// Several relays run at once, and none of these tests is about what they would open.
const CLOSED: &str = "[http]\nlisten = \"\"\n[status]\nsocket = \"\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_refused_is_refused_by_check_by_run_and_by_a_reload() {
    let desk = Desk::new().await;
    let (relay, log) = desk.relay(&desk.good(CLOSED));
    for (number, (text, expected)) in REFUSED.iter().enumerate() {
        desk.write(text);
        let expected = expected.replacen("config.toml", desk.path("config.toml").to_str().unwrap(), 1);
        for args in READERS {
            let (code, told) = desk.told(args);
            assert_eq!(code, Some(78), "{args:?} {text}: {told}");
            assert!(told.contains(&expected), "{args:?} {text}: {told}");
        }
        relay.signal(Signal::SIGHUP);
        let told = wait_for(&log, |log| log.matches("reload refused").count() > number);
        let words = serde_json::to_string(&expected).unwrap();
        assert!(told.lines().last().unwrap().contains(words.trim_matches('"')), "{text}: {told}");
    }
}

/// A process keeps the environment that it was started with, so that a reload meets none of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_that_is_refused_is_refused_by_check_and_by_run() {
    let desk = Desk::new().await;
    desk.write(&desk.good(CLOSED));
    for (name, value, expected) in REFUSED_VARIABLES {
        for args in READERS {
            let (code, told) = told(desk.command(args).env(name, value));
            assert_eq!(code, Some(78), "{args:?} {name}={value:?}: {told}");
            assert!(told.contains(expected) && !told.contains("secret"), "{args:?} {name}: {told}");
        }
    }
}

/// Each way to read a configuration warns, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_with_a_password_that_everybody_may_read_is_warned_of_by_all_of_them() {
    let desk = Desk::new().await;
    let good = desk.good(&format!("[amqp]\nurls = [\"amqp://relay:hunter2@b\"]\n{CLOSED}"));
    desk.write(&good);
    let mode = |mode: u32| {
        fs::set_permissions(desk.path("config.toml"), fs::Permissions::from_mode(mode)).unwrap();
    };
    let warned = |text: &str| text.matches("chmod o-rwx").count();
    for (permissions, warnings) in [(0o644, 1), (0o640, 0)] {
        mode(permissions);
        for args in &READERS[..2] {
            let (code, told) = desk.told(args);
            assert_eq!((code, warned(&told)), (Some(0), warnings), "{args:?}: {told}");
            assert_eq!(told.matches("VR-104").count(), warnings, "{args:?}: {told}");
        }
    }
    let (relay, log) = desk.relay(&good);
    // The file keeps its mode when it is written anew.
    assert_eq!(warned(&wait_for(&log, |text| text.contains("vodrelay starts"))), 0);
    mode(0o644);
    relay.signal(Signal::SIGHUP);
    wait_for(&log, |text| warned(text) == 1);
    drop(relay);
    let (_relay, log) = desk.relay(&good);
    let told = wait_for(&log, |text| warned(text) == 1);
    assert!(!told.contains("hunter2"), "{told}");
}

/// What only trying shows: `check` says it beforehand, with the code and the exit that `run` has for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_run_cannot_open_is_told_by_check_as_by_run() {
    let desk = Desk::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    desk.write(&desk.good(&format!("[http]\nlisten = \"{address}\"\n[status]\nsocket = \"\"\n")));
    assert_eq!(desk.told(&["check", "--offline"]).0, Some(0), "it tries nothing");
    for args in &READERS[1..] {
        let (code, told) = desk.told(args);
        assert_eq!(code, Some(75), "{args:?}: {told}");
        let words = format!("cannot listen on {address} (http.listen): ");
        assert!(told.contains(&words) && told.contains("VR-508"), "{args:?}: {told}");
    }
    // An address of no host, for documentation (RFC 3849).
    desk.write(&desk.good("[http]\nlisten = \"[2001:db8::1]:9464\"\n[status]\nsocket = \"\"\n"));
    for args in &READERS[1..] {
        let (code, told) = desk.told(args);
        assert_eq!(code, Some(75), "{args:?}: {told}");
        assert!(told.contains("cannot listen on [2001:db8::1]:9464"), "{args:?}: {told}");
    }
    // A folder that is made for the journal is there for the socket, too.
    let (state, journal) = (desk.path("new-state"), desk.path("journal.db"));
    let socket = state.join("status.sock");
    let text = desk.good(&format!("[http]\nlisten = \"\"\n[status]\nsocket = {socket:?}\n"));
    desk.write(&text.replace(journal.to_str().unwrap(), state.join("inner/journal.db").to_str().unwrap()));
    let (code, told) = desk.told(&["check"]);
    let made = told.contains("makes its folder, with the journal's") && !told.contains("VR-508");
    assert!(code == Some(0) && made, "{told}");
    let log = desk.path("log");
    let mut command = desk.command(&["run"]);
    command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let relay = Relay(command.spawn().unwrap());
    let told = wait_for(&log, |log| socket.exists() || log.contains("VR-508"));
    assert!(!told.contains("VR-508"), "{told}");
    drop(relay);
    // The relay works without its status socket.
    let socket = desk.path("no-such-folder/status.sock");
    let text = desk.good(&format!("[http]\nlisten = \"\"\n[status]\nsocket = {socket:?}\n"));
    desk.write(&text);
    let words = format!("cannot open the status socket {}", socket.display());
    let (code, told) = desk.told(&["check"]);
    assert!(code == Some(0) && told.contains(&words) && told.contains("VR-508"), "{told}");
    let (_relay, log) = desk.relay(&text);
    let told = wait_for(&log, |text| text.contains(&words));
    assert!(told.contains("VR-508"), "{told}");
}
