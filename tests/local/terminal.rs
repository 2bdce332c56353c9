//! What a person sees at a terminal of 80 columns and 24 lines, whatever the cloud has sent: no character that a terminal obeys
//! but line breaks and the program's own colours, and no line that is wider than the terminal.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex_lite::Regex;
use tencent_vod_emulator::{Action, Emulator, Fault, FaultKind, Options};
use vodrelay::cli::screen::{printable, width};

use crate::child::environment;

const LIMIT: Duration = Duration::from_secs(60);
const COLUMNS: usize = 80;
const LINES: usize = 24;

/// What the cloud may send: of any length, of any characters, with other kinds of values than the documents name.
pub(crate) const HOSTILE: &str = "\u{1b}[2J\u{7}\0\u{7f}\u{85}\u{9b}31m\u{202e}\u{2066}\u{200f}\u{2028}視";

/// Events with [`HOSTILE`] in all their parts, in 66,000 characters, without a type, and with numbers in the place of texts.
fn hostile_events() -> Vec<String> {
    let long = serde_json::Value::from(HOSTILE.repeat(66_000 / HOSTILE.chars().count()));
    let short = serde_json::Value::from(HOSTILE);
    let letters = "x".repeat(66_000);
    vec![
        format!(r#"{{"EventType":{long},"FileUploadEvent":{{"FileId":{long},"TaskId":{long}}}}}"#),
        format!(r#"{{"EventType":{short},"FileUploadEvent":{{"FileId":{short},"TaskId":{short}}}}}"#),
        format!(r#"{{"EventType":"{letters}","FileUploadEvent":{{"FileId":"{letters}"}}}}"#),
        r#"{"Nothing":null}"#.to_owned(),
        r#"{"EventType":17,"FileUploadEvent":{"FileId":18446744073709551615}}"#.to_owned(),
        // As they are, where JSON lets them stand.
        "{\n\t\"EventType\":\"\u{7f}\u{9b}\u{202e}\u{e0001}\"}".to_owned(),
    ]
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn ended(&mut self) -> Option<i32> {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A terminal: the end that a program writes to, and the text of the other one when everybody has closed it.
fn terminal() -> (Stdio, impl Fn() -> Stdio, std::thread::JoinHandle<String>) {
    let size = Winsize { ws_row: LINES as u16, ws_col: COLUMNS as u16, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    let second = slave.try_clone().unwrap();
    let read = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut master = File::from(master);
        let mut buffer = [0; 65_536];
        // The end of a terminal is an error (EIO) here.
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
    });
    (slave.into(), move || second.try_clone().unwrap().into(), read)
}

/// Runs a command whose standard output and standard error are one terminal.
fn at_a_terminal(mut command: Command) -> (Option<i32>, String) {
    let (out, again, text) = terminal();
    command.stdin(Stdio::null()).stdout(out).stderr(again());
    drop(again);
    let mut process = Process(command.spawn().unwrap());
    // It holds the terminal open, too.
    drop(command);
    (process.ended(), text.join().unwrap())
}

/// The text without the colour of a word at the beginning of a line, as `check` has it.
fn plain(text: &str) -> String {
    Regex::new("(?m)^\x1b\\[3[0-9]m([a-z]+)\x1b\\[0m").unwrap().replace_all(text, "$1").into_owned()
}

struct Desk {
    cloud: Emulator,
    folder: tempfile::TempDir,
}

impl Desk {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
        command
            .args(arguments)
            .env_clear()
            .env("TERM", "xterm")
            .envs(environment(&self.cloud, self.folder.path()))
            .env("VODRELAY_VOD__CREDENTIALS", "env")
            .env("VODRELAY_HTTP__LISTEN", "");
        command
    }

    /// What a command says at a terminal, whose lines are looked at.
    fn says(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let (exit, text) = at_a_terminal(self.command(arguments));
        let text = plain(&text);
        // One object is one line, and --wide prints whole cells.
        let unbounded = arguments.iter().any(|argument| matches!(*argument, "--json" | "--wide"));
        for line in text.lines() {
            assert_eq!(line, printable(line), "{arguments:?}");
            assert!(unbounded || width(line) <= COLUMNS, "{arguments:?}: {line}");
        }
        assert!(!text.is_empty(), "{arguments:?}");
        (exit, text)
    }
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < until, "{what}: not within the time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Parks the first two events, as if a broker had refused them with words of its own.
fn park(journal: &Path) {
    let sql = rusqlite::Connection::open(journal).unwrap();
    sql.busy_timeout(LIMIT).unwrap();
    let parked = "UPDATE event SET parked = 1, published_at = NULL, reason = ?1 WHERE id IN (1, 2)";
    assert_eq!(sql.execute(parked, [HOSTILE.repeat(1_000)]).unwrap(), 2);
    sql.execute_batch(
        "UPDATE tally SET events = events - 2 WHERE state = 'confirmed';
         UPDATE tally SET events = events + 2 WHERE state = 'parked'",
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_keeps_to_the_terminal_whatever_the_cloud_has_sent() {
    let mut options = Options::default();
    options.settings.hold_ms = 200;
    let desk = Desk { cloud: Emulator::start(options).await.unwrap(), folder: tempfile::tempdir().unwrap() };
    let code = format!("InternalError.{}", HOSTILE.repeat(1_000));
    desk.cloud.faults().add(Fault::once(FaultKind::Error { code }).times(3).on(Action::PullEvents));
    desk.cloud.put_many(0, hostile_events());
    let events = hostile_events().len();

    // Its log is for people too: no line of it has a limit.
    let (log, _, logged) = terminal();
    let mut command = desk.command(&["run"]);
    command.stdin(Stdio::null()).stdout(File::create(desk.path("out")).unwrap()).stderr(log);
    let mut relay = Process(command.spawn().unwrap());
    drop(command);
    desk.cloud.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    let settled = || {
        let sql = rusqlite::Connection::open(desk.path("journal.db")).unwrap();
        let open = "SELECT count(*) FROM event_log WHERE state <> 'confirmed'";
        sql.query_row(open, [], |row| row.get::<_, i64>(0)) == Ok(0)
    };
    wait_for("the journal calls all of them confirmed", settled);
    wait_for("the status socket answers", || desk.path("status.sock").exists());
    let status = || {
        let (exit, text) = desk.says(&["status"]);
        assert!(text.lines().count() < LINES, "{text}");
        exit == Some(0) && text.contains("VR-304")
    };
    wait_for("the relay is ready, and its status has the troubles", status);
    for arguments in [&["status", "--wide"][..], &["status", "--json"], &["check"], &["check", "--offline"]] {
        assert_eq!(desk.says(arguments).0, Some(0), "{arguments:?}");
    }
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.ended(), Some(0));
    drop(relay);
    let log = logged.join().unwrap();
    assert!(log.contains("InternalError"), "{log}");
    let coloured = Regex::new("\x1b\\[[0-9;]*m").unwrap();
    for line in coloured.replace_all(&log, "").lines() {
        assert_eq!(line, printable(line));
    }

    park(&desk.path("journal.db"));
    // An argument cannot hold a NUL.
    let nothing = HOSTILE.replace('\0', "");
    let whole: Vec<Vec<&str>> = vec![
        vec!["events", "list"],
        vec!["events", "list", "--wide"],
        vec!["events", "list", "--json"],
        vec!["events", "list", "--state", "parked"],
        vec!["events", "list", "--columns", "number,type,file,task,error-code,message"],
        vec!["events", "list", "--columns", "message"],
        vec!["events", "list", "--type", &nothing],
    ];
    for arguments in &whole {
        assert_eq!(desk.says(arguments).0, Some(0), "{arguments:?}");
    }
    for number in 1..=events {
        let number = number.to_string();
        assert_eq!(desk.says(&["events", "show", &number]).0, Some(0), "{number}");
        let (exit, json) = desk.says(&["events", "show", &number, "--json"]);
        assert_eq!((exit, json.lines().count()), (Some(0), 1), "{number}");
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
    }
    // A complaint is one sentence, and as long as that is.
    let (exit, text) = at_a_terminal(desk.command(&["events", "show", &nothing]));
    assert_eq!((exit, text.lines().count()), (Some(1), 1), "{text}");
    assert_eq!(text, printable(text.trim_end()) + "\n");
    let (exit, text) = desk.says(&["status"]);
    assert!(exit == Some(1) && text.contains("2 parked"), "{text}");
    let (exit, text) = desk.says(&["events", "release", "--all"]);
    assert_eq!((exit, text.lines().count()), (Some(0), 2), "{text}");
    assert_eq!(desk.says(&["events", "release", "--all"]), (Some(0), "no event is parked\n".to_owned()));
}

#[test]
fn the_demonstration_fits_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
    command.arg("demo").env_clear().env("TERM", "xterm").env("TMPDIR", folder.path());
    // Where the progress is drawn is no part of this.
    let (out, _, text) = terminal();
    command.stdin(Stdio::null()).stdout(out).stderr(File::create(folder.path().join("talk")).unwrap());
    let mut demo = Process(command.spawn().unwrap());
    drop(command);
    assert_eq!(demo.ended(), Some(0));
    drop(demo);
    let text = text.join().unwrap();
    let talk = fs::read_to_string(folder.path().join("talk")).unwrap();
    assert!(text.lines().count() > 1, "{text}{talk}");
    for line in text.lines().chain(talk.lines()) {
        assert!(line == printable(line) && width(line) <= COLUMNS, "{line}");
    }
    assert!(text.lines().count() + talk.lines().count() < LINES, "{text}{talk}");
}
