//! Every command on a disk that is full, that has no inodes left, or that is mounted read-only: whatever the journal's files were
//! left like, the program says what is wrong and ends as for something that may pass, and what only reads goes on reading.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tencent_vod_emulator::events::sample;
use tencent_vod_emulator::{Emulator, Options};

use crate::child::{Relay, environment};
use crate::observers::private_mounts;

const LIMIT: Duration = Duration::from_secs(60);
/// The event that is parked, so that there is something to release.
const PARKED: &str = "2";

/// A small file system in a mount namespace of its own. Both go with the process that keeps them, which ends with its input.
struct Disk {
    keeper: Child,
    _input: ChildStdin,
    way: &'static [&'static str],
    folder: TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let way = private_mounts(folder.path());
        let mount = r#"mount -t tmpfs -o size=1m,nr_inodes=64 tmpfs "$1" && echo && exec cat"#;
        let mut keeper = Command::new("unshare")
            .args(way)
            .args(["sh", "-c", mount, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = keeper.stdin.take().unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(keeper.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self { keeper, _input: input, way, folder }
    }

    /// What its processes see under the journal's folder; we see another file system there.
    fn inside(&self, name: &str) -> PathBuf {
        format!("/proc/{}/root{}/{name}", self.keeper.id(), self.folder.path().display()).into()
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    /// A program that sees the small file system.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--mount").arg("--target").arg(self.keeper.id().to_string());
        if self.way.iter().any(|option| option.contains('r')) {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg(program).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null());
        command
    }

    /// Writes until there is no space left.
    fn fill(&self) {
        let mut ballast = OpenOptions::new().create(true).append(true).open(self.inside("ballast")).unwrap();
        loop {
            match ballast.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Makes files until no further one can be made.
    fn use_inodes_up(&self) {
        for number in 0.. {
            match File::create_new(self.inside(&format!("file-{number}"))) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn mount_read_only(&self) {
        let done = self.command("mount").args(["-o", "remount,ro"]).arg(self.folder.path()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Full,
    NoInodes,
    ReadOnly,
}

impl Fault {
    fn code(self) -> &'static str {
        match self {
            Self::Full | Self::NoInodes => "VR-204",
            Self::ReadOnly => "VR-206",
        }
    }

    fn next_step(self) -> &'static str {
        match self {
            Self::Full | Self::NoInodes => "free space",
            Self::ReadOnly => "mounted read-only, and mount it for writing",
        }
    }

    fn befall(self, disk: &Disk) {
        match self {
            Self::Full => disk.fill(),
            Self::NoInodes => disk.use_inodes_up(),
            Self::ReadOnly => disk.mount_read_only(),
        }
    }
}

/// How the relay before left the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// There was none.
    Nothing,
    /// It drained: the file is the whole journal, and beside it are an empty WAL and its index.
    Drained,
    /// The same without these two, as a restored backup is.
    Alone,
    /// It was killed: the newest commits are in the WAL.
    Killed,
}

/// An emulated cloud, and journals as a relay left them.
struct Stage {
    cloud: Emulator,
    drained: TempDir,
    killed: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let mut options = Options::default();
        options.settings.hold_ms = 200;
        let cloud = Emulator::start(options).await.unwrap();
        let folder = || tempfile::tempdir().unwrap();
        let stage = Self { cloud, drained: folder(), killed: folder() };
        for (folder, signal) in [(&stage.drained, Signal::SIGTERM), (&stage.killed, Signal::SIGKILL)] {
            let journal = folder.path().join("journal.db");
            let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
            let mut relay = stage.start(stage.dress(command.env_clear(), &journal), folder.path());
            stage.confirms(0..3).await;
            let sql = rusqlite::Connection::open(&journal).unwrap();
            sql.busy_timeout(LIMIT).unwrap();
            let state =
                || sql.query_row("SELECT group_concat(DISTINCT state) FROM event_log", [], |r| r.get(0));
            wait_for("the journal calls all of them confirmed", || state() == Ok("confirmed".to_owned()));
            sql.execute_batch(&format!(
                "UPDATE event SET parked = 1, published_at = NULL, reason = 'unroutable' WHERE id = {PARKED};
                 UPDATE tally SET events = events - 1 WHERE state = 'confirmed';
                 UPDATE tally SET events = events + 1 WHERE state = 'parked'",
            ))
            .unwrap();
            // Whoever closes it last folds the WAL back.
            if signal == Signal::SIGKILL {
                relay.signal(signal);
                relay.0.wait().unwrap();
                for suffix in ["", "-wal", "-shm", ".lock"] {
                    let name = format!("journal.db{suffix}");
                    fs::rename(folder.path().join(&name), folder.path().join(format!("kept-{name}")))
                        .unwrap();
                }
                drop(sql);
                for entry in fs::read_dir(folder.path()).unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    if let Some(kept) = name.strip_prefix("kept-") {
                        fs::rename(folder.path().join(&name), folder.path().join(kept)).unwrap();
                    }
                }
                assert!(fs::metadata(folder.path().join("journal.db-wal")).unwrap().len() > 0);
            } else {
                drop(sql);
                relay.signal(signal);
                assert_eq!(relay.0.wait().unwrap().code(), Some(0));
                assert_eq!(fs::metadata(folder.path().join("journal.db-wal")).unwrap().len(), 0);
            }
        }
        stage
    }

    /// A disk with the files that such a relay left.
    fn disk(&self, left: Left, with_lock: bool) -> Disk {
        let disk = Disk::new();
        let from = match left {
            Left::Nothing => {
                if with_lock {
                    File::create(disk.inside("journal.db.lock")).unwrap();
                }
                return disk;
            }
            Left::Drained | Left::Alone => &self.drained,
            Left::Killed => &self.killed,
        };
        for suffix in ["", "-wal", "-shm", ".lock"] {
            let name = format!("journal.db{suffix}");
            let wanted = match suffix {
                "" => true,
                ".lock" => with_lock,
                _ => left != Left::Alone,
            };
            if wanted && from.path().join(&name).exists() {
                fs::copy(from.path().join(&name), disk.inside(&name)).unwrap();
            }
        }
        disk
    }

    fn dress<'a>(&self, command: &'a mut Command, journal: &Path) -> &'a mut Command {
        command
            .envs(environment(&self.cloud, Path::new("")))
            .env("VODRELAY_VOD__CREDENTIALS", "env")
            .env("VODRELAY_JOURNAL__PATH", journal)
            .env("VODRELAY_HTTP__LISTEN", "")
            .env("VODRELAY_STATUS__SOCKET", "")
    }

    /// A relay whose standard output and log are files in this folder.
    fn start(&self, command: &mut Command, folder: &Path) -> Relay {
        command.arg("run").stdin(Stdio::null());
        command.stdout(File::create(folder.join("out")).unwrap());
        Relay(command.stderr(File::create(folder.join("log")).unwrap()).spawn().unwrap())
    }

    async fn confirms(&self, events: std::ops::Range<u64>) {
        self.cloud.put_many(0, events.map(|number| sample("NewFileUpload", number).unwrap()));
        self.cloud.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    }

    /// Runs a command on this disk.
    fn told(&self, disk: &Disk, arguments: &[&str]) -> Told {
        let mut command = disk.command(env!("CARGO_BIN_EXE_vodrelay"));
        self.dress(&mut command, &disk.journal()).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let until = Instant::now() + LIMIT;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Told { exit: status.code(), said: text(stdout), complained: text(stderr) }
    }
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < until, "{what}: not within the time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
struct Told {
    exit: Option<i32>,
    said: String,
    complained: String,
}

impl Told {
    #[track_caller]
    fn reads(&self, exit: i32, words: &str, case: &str) {
        assert!(self.exit == Some(exit) && self.said.contains(words), "{case}: {self:#?}");
        assert_eq!(self.complained, "", "{case}: {self:#?}");
    }

    /// Whether it names the journal, the cause, the next step and the code, and ends as for what may pass.
    #[track_caller]
    fn fails(&self, disk: &Disk, fault: Fault, case: &str) {
        let all = format!("{}{}", self.said, self.complained);
        let line = |line: &&str| line.contains(fault.next_step());
        assert!(all.lines().any(|text| line(&text)) && all.contains(fault.code()), "{case}: {self:#?}");
        assert!(all.contains(disk.journal().to_str().unwrap()), "{case}: {self:#?}");
        for other in ["check the owner", "VR-203", "VR-207", "report"] {
            assert!(!all.contains(other), "{case}: {other}: {self:#?}");
        }
        assert_eq!(self.exit, Some(75), "{case}: {self:#?}");
    }
}

/// Every command, on a disk with this fault, whatever was left there before.
async fn all_commands(fault: Fault) {
    let stage = Stage::new().await;
    for left in [Left::Nothing, Left::Drained, Left::Alone, Left::Killed] {
        for with_lock in [true, false] {
            if fault == Fault::NoInodes && with_lock && matches!(left, Left::Drained | Left::Killed) {
                // Every file is there, so that nothing is wrong.
                continue;
            }
            let disk = stage.disk(left, with_lock);
            fault.befall(&disk);
            let case = format!("{fault:?}, {left:?}, lock file: {with_lock}");
            let told = |arguments: &[&str]| stage.told(&disk, arguments);
            told(&["check", "--offline"]).reads(0, "ok    config", &case);
            told(&["check"]).fails(&disk, fault, &case);
            if left == Left::Nothing {
                for reading in
                    [&["events", "list"][..], &["events", "show", "1"], &["events", "release", "1"]]
                {
                    let told = told(reading);
                    assert_eq!((told.exit, told.said.as_str()), (Some(1), ""), "{case}: {told:#?}");
                    assert!(told.complained.contains("there is no journal at "), "{case}: {told:#?}");
                }
                told(&["status"]).reads(1, "there is no journal at ", &case);
            } else {
                let list = told(&["events", "list"]);
                list.reads(0, "NewFileUpload", &case);
                assert_eq!(list.said.lines().count(), 1 + 3, "{case}: {list:#?}");
                told(&["events", "show", PARKED]).reads(0, "unroutable", &case);
                told(&["events", "show", "3", "--json"]).reads(0, "\"state\":\"confirmed\"", &case);
                told(&["status"]).reads(1, "2 confirmed, 1 parked", &case);
            }
            if left != Left::Nothing {
                told(&["events", "release", PARKED]).fails(&disk, fault, &case);
            }
            told(&["run"]).fails(&disk, fault, &case);
            // Nothing of it has changed what is there.
            if left != Left::Nothing {
                told(&["status"]).reads(1, "2 confirmed, 1 parked", &case);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_by_every_command_and_what_reads_still_reads() {
    all_commands(Fault::Full).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_inodes_is_named_by_every_command_and_what_reads_still_reads() {
    all_commands(Fault::NoInodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_mounted_read_only_is_named_by_every_command_and_what_reads_still_reads() {
    all_commands(Fault::ReadOnly).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_relay_at_work_a_full_disk_is_named_and_what_reads_still_reads() {
    let stage = Stage::new().await;
    let disk = Disk::new();
    let log = tempfile::tempdir().unwrap();
    let mut command = disk.command(env!("CARGO_BIN_EXE_vodrelay"));
    let mut relay = stage.start(stage.dress(&mut command, &disk.journal()), log.path());
    stage.confirms(3..6).await;
    disk.fill();
    // More than fits into what the WAL has left of its last page.
    stage.cloud.put_many(0, (6..40).map(|number| sample("NewFileUpload", number).unwrap()));
    let logged = || fs::read_to_string(log.path().join("log")).unwrap();
    wait_for("the relay tells of the full disk", || logged().contains("VR-204"));
    let told = |arguments: &[&str]| stage.told(&disk, arguments);
    let check = told(&["check"]);
    check.fails(&disk, Fault::Full, "at work");
    told(&["events", "list"]).reads(0, "NewFileUpload", "at work");
    told(&["events", "show", "1"]).reads(0, "NewFileUpload", "at work");
    told(&["status"]).reads(1, "confirmed, 0 parked", "at work");
    for writing in [&["run"][..], &["events", "release", "1"]] {
        let told = told(writing);
        assert!(told.exit == Some(75) && told.complained.contains("VR-201"), "{writing:?}: {told:#?}");
    }
    fs::remove_file(disk.inside("ballast")).unwrap();
    stage.cloud.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.0.wait().unwrap().code(), Some(0));
}
