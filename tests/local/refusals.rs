//! A configuration that is refused is refused by everything that reads one, in the same words.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vodrelay::emulator::{Emulator, Options};

use crate::config::REFUSED;

const LIMIT: Duration = Duration::from_secs(60);

/// A process that does not outlive its test.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder with a configuration, which names a cloud and a journal of the test's own.
struct Desk {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Desk {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, text: &str) {
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
        command.args(args).arg("--config").arg(self.path("config.toml")).env_clear().stdin(Stdio::null());
        command
    }

    /// What the program prints, both ways, and how it ends.
    fn told(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.command(args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_refused_is_refused_by_check_by_run_and_by_a_reload() {
    let emulator = Emulator::start(Options::default()).await.unwrap();
    let credential = emulator.credential();
    let environment = [
        ("TENCENTCLOUD_SECRET_ID", credential.secret_id.clone()),
        ("TENCENTCLOUD_SECRET_KEY", credential.secret_key.expose().to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let desk = Desk { folder: tempfile::tempdir().unwrap(), environment };
    let good = format!(
        "[vod]\nendpoint = {:?}\n[output]\nkind = \"stdout\"\n[journal]\npath = {:?}\n[http]\nlisten = \"\"\n[status]\nsocket = \"\"\n",
        emulator.endpoint(),
        desk.path("journal.db"),
    );
    desk.write(&good);
    let log = desk.path("log");
    let mut command = desk.command(&["run"]);
    command.envs(desk.environment.iter().cloned()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let relay = Relay(command.spawn().unwrap());
    let pid = Pid::from_raw(i32::try_from(relay.0.id()).unwrap());
    // It listens for reloads before it opens its journal.
    wait_for(&log, |text| text.contains("vodrelay starts"));
    wait_for(&desk.path("journal.db"), |_| desk.path("journal.db").exists());

    for (number, (text, expected)) in REFUSED.iter().enumerate() {
        desk.write(text);
        let expected = expected.replacen("config.toml", desk.path("config.toml").to_str().unwrap(), 1);
        for args in [&["check", "--offline"][..], &["check"], &["run"]] {
            let (code, told) = desk.told(args);
            assert_eq!(code, Some(78), "{args:?} {text}: {told}");
            assert!(told.contains(&expected), "{args:?} {text}: {told}");
        }
        kill(pid, Signal::SIGHUP).unwrap();
        let told = wait_for(&log, |log| log.matches("reload refused").count() > number);
        let words = serde_json::to_string(&expected).unwrap();
        assert!(told.lines().last().unwrap().contains(words.trim_matches('"')), "{text}: {told}");
    }
}
