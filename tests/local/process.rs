//! The program as a process: what it prints, what it tells the service manager, and how signals end it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tencent_vod_emulator::events::sample;
use tencent_vod_emulator::{Action, Emulator, Fault, FaultKind, Options};

use crate::child::{Relay, environment};

const LIMIT: Duration = Duration::from_secs(60);

async fn emulator() -> Emulator {
    let mut options = Options::default();
    options.settings.hold_ms = 500;
    Emulator::start(options).await.unwrap()
}

fn command(emulator: &Emulator, folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
    command
        .env_clear()
        .envs(environment(emulator, folder.path()))
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stdin(Stdio::null())
        // Files: a pipe that nobody reads would rightly stop the relay.
        .stdout(File::create(folder.path().join("out")).unwrap())
        .stderr(File::create(folder.path().join("log")).unwrap());
    command
}

fn notify_socket(folder: &tempfile::TempDir) -> UnixDatagram {
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Waits for the next message to the service manager that begins like this.
fn told(socket: &UnixDatagram, beginning: &str) -> String {
    loop {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.starts_with(beginning) {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_tells_the_service_manager_relays_and_drains_on_sigterm() {
    let emulator = emulator().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = notify_socket(&folder);
    let mut relay = Relay(command(&emulator, &folder).arg("run").spawn().unwrap());
    told(&socket, "READY=1");
    told(&socket, "STATUS=idle; 0 events today; ");
    for number in 0..40 {
        emulator.put(0, sample("NewFileUpload", number).unwrap());
    }
    emulator.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    relay.signal(Signal::SIGTERM);
    told(&socket, "STOPPING=1");
    assert_eq!(relay.wait().code(), Some(0));
    let out = fs::read_to_string(folder.path().join("out")).unwrap();
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["message_id"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), ids.len()), (40, 40));
    let members: Vec<&String> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["event", "headers", "message_id", "routing_key"]);

    // Lines of progress at info, and none a batch or an event; JSON, as nobody looks on; no body, no key.
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    let messages: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let progress: Vec<&Value> = messages.iter().filter(|line| line["message"] == "relayed").collect();
    let sum = |figure: &str| progress.iter().map(|line| line[figure].as_u64().unwrap()).sum::<u64>();
    assert!((1..=5).contains(&progress.len()), "{log}");
    assert_eq!((sum("pulled"), sum("confirmed"), sum("let_go")), (40, 40, 0), "{log}");
    assert!(!log.contains("FileUploadEvent"), "{log}");
    assert!(!log.contains(emulator.credential().secret_key.expose()), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_process_at_once_and_the_next_start_goes_on() {
    let emulator = emulator().await;
    // A drain that would take long: the poll under way is held.
    emulator.change_settings(|settings| settings.hold_ms = 10_000);
    let folder = tempfile::tempdir().unwrap();
    let socket = notify_socket(&folder);
    let mut relay = Relay(command(&emulator, &folder).arg("run").spawn().unwrap());
    told(&socket, "READY=1");
    emulator.wait_until(|state| state.stats().pulls_now == 1, LIMIT).await.unwrap();
    relay.signal(Signal::SIGINT);
    told(&socket, "STOPPING=1");
    relay.signal(Signal::SIGINT);
    assert_eq!(relay.wait().code(), Some(1));

    emulator.change_settings(|settings| settings.hold_ms = 500);
    emulator.put(0, sample("NewFileUpload", 1).unwrap());
    let mut relay = Relay(command(&emulator, &folder).arg("run").spawn().unwrap());
    emulator.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_said_once_with_the_next_step_and_waited_for() {
    let emulator = emulator().await;
    emulator.put(0, sample("NewFileUpload", 1).unwrap());
    emulator.faults().add(
        Fault::always(FaultKind::Error { code: "AuthFailure.SignatureFailure".to_owned() })
            .on(Action::PullEvents),
    );
    let folder = tempfile::tempdir().unwrap();
    let _socket = notify_socket(&folder);
    let mut relay = Relay(command(&emulator, &folder).arg("run").spawn().unwrap());
    emulator
        .wait_until(|state| state.stats().errors("AuthFailure.SignatureFailure") >= 3, LIMIT)
        .await
        .unwrap();
    emulator.faults().clear();
    emulator.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("\"WARN\"")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("AuthFailure.SignatureFailure"), "{}", warnings[0]);
    assert!(warnings[0].contains("secret id, secret key and token belong together"), "{}", warnings[0]);
    assert!(log.contains("requests succeed again"), "{log}");
}

#[test]
fn the_demonstration_shows_a_lost_confirm_and_its_redelivery() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let output = Command::new(env!("CARGO_BIN_EXE_vodrelay"))
        .args(["demo", "--json", "--journal", journal.to_str().unwrap()])
        .env_clear()
        .output()
        .unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{talk}");
    let summary: Value = serde_json::from_str(talk.trim()).unwrap();
    let events = summary["events"].as_u64().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(u64::try_from(lines.lines().count()).unwrap(), events);
    assert_eq!(summary["published"].as_u64(), Some(events));
    // One by the story. A machine that has much to do can let the short window of a further one lapse.
    assert!(summary["redelivered"].as_u64() >= Some(1), "{summary}");
    assert_eq!(summary["parked"], 0);
    assert!(summary["pull_to_confirm_p99_ms"].is_u64() && summary["smallest_lease_left_ms"].is_u64());

    let listed = Command::new(env!("CARGO_BIN_EXE_vodrelay"))
        .args(["events", "list", "--json", "--limit", "1000"])
        .env_clear()
        .env("VODRELAY_JOURNAL__PATH", &journal)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(u64::try_from(listed.lines().count()).unwrap(), events);
    assert!(listed.lines().all(|line| line.contains("\"confirmed\"")), "{listed}");
}

#[test]
fn a_demonstration_without_its_broker_says_why_at_once() {
    // A port that was free a moment ago, and that nobody is given meanwhile.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_vodrelay"))
        .args(["demo", "--amqp", &format!("amqp://127.0.0.1:{port}")])
        .env_clear()
        .output()
        .unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{talk}");
    assert!(talk.contains("check that RabbitMQ runs and listens there") && talk.contains("VR-401"), "{talk}");
    assert!(!talk.contains("Stats"), "{talk}");
    assert!(began.elapsed() < Duration::from_secs(20), "a step of the story may take 30 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_event_is_released_while_the_relay_is_stopped_and_published_by_the_next() {
    let emulator = emulator().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = notify_socket(&folder);
    let mut relay = Relay(command(&emulator, &folder).arg("run").spawn().unwrap());
    told(&socket, "READY=1");
    for number in 0..3 {
        emulator.put(0, sample("NewFileUpload", number).unwrap());
    }
    emulator.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    let run = |arguments: &[&str]| {
        let mut release = command(&emulator, &folder);
        release.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    };
    let refused = run(&["events", "release", "--all"]);
    assert_eq!(refused.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop the relay"), "{refused:?}");
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    // As if the broker had refused one of them.
    let journal = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
    journal
        .execute_batch(
            "UPDATE event SET parked = 1, published_at = NULL, reason = 'unroutable' WHERE id = 2;
             UPDATE tally SET events = events - 1 WHERE state = 'confirmed';
             UPDATE tally SET events = events + 1 WHERE state = 'parked'",
        )
        .unwrap();
    let elsewhere = |path: &Path| {
        let mut release = command(&emulator, &folder);
        release.env("VODRELAY_JOURNAL__PATH", path).args(["events", "release", "--all"]);
        let output = release.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = folder.path().join("elsewhere/journal.db");
    let complaint = elsewhere(&missing);
    assert!(
        complaint.contains("there is no journal at ") && !missing.parent().unwrap().exists(),
        "{complaint}"
    );
    let unusable = folder.path().join("a-folder");
    fs::create_dir(&unusable).unwrap();
    let complaint = elsewhere(&unusable);
    assert!(complaint.contains("it is a folder") && !complaint.contains("stop the relay"), "{complaint}");
    let released = run(&["events", "release", "--all"]);
    assert_eq!((released.status.code(), released.stdout.as_slice()), (Some(0), b"2  released\n".as_slice()));
    assert_eq!(run(&["events", "release", "2", "99"]).status.code(), Some(1));
    let mut relay = Relay(command(&emulator, &folder).arg("run").spawn().unwrap());
    told(&socket, "READY=1");
    let states = || {
        let states = journal.query_row("SELECT group_concat(state) FROM event_log", [], |row| row.get(0));
        states.unwrap()
    };
    while {
        let states: String = states();
        states
    } != "confirmed,confirmed,confirmed"
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    let out = fs::read_to_string(folder.path().join("out")).unwrap();
    assert_eq!(out.lines().count(), 1, "the released one: {out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_cannot_be_read_during_a_reload_stop_neither_the_watchdog_nor_a_drain() {
    let emulator = emulator().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = notify_socket(&folder);
    let file = folder.path().join("credentials");
    let credential = emulator.credential();
    let pair = format!(
        "[default]\nsecret_id = {}\nsecret_key = {}\n",
        credential.secret_id,
        credential.secret_key.expose()
    );
    fs::write(&file, pair).unwrap();
    let mut command = command(&emulator, &folder);
    command
        .env("VODRELAY_VOD__CREDENTIALS", "file")
        .env("TENCENTCLOUD_CREDENTIALS_FILE", &file)
        .env("WATCHDOG_USEC", "5000000");
    let mut relay = Relay(command.arg("run").spawn().unwrap());
    told(&socket, "READY=1");
    // A pipe that nobody writes to.
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    relay.signal(Signal::SIGHUP);
    told(&socket, "RELOADING=1");
    let mut alive = 0;
    loop {
        let message = told(&socket, "");
        if message.starts_with("READY=1") {
            break;
        }
        alive += usize::from(message.starts_with("WATCHDOG=1"));
    }
    assert!(alive >= 2, "it tells nothing of itself while it reads");
    emulator.put(0, sample("NewFileUpload", 1).unwrap());
    emulator.wait_until(|state| state.unconfirmed() == 0, LIMIT).await.unwrap();
    relay.signal(Signal::SIGHUP);
    told(&socket, "RELOADING=1");
    relay.signal(Signal::SIGTERM);
    told(&socket, "STOPPING=1");
    assert_eq!(relay.wait().code(), Some(0));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("the credentials cannot be read again; those in use stay"), "{log}");
}

#[test]
fn a_program_that_may_open_too_few_files_says_so() {
    // Something that takes connections and ends them at once: a silent one would be waited for.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = format!("amqp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let folder = tempfile::tempdir().unwrap();
    let mut said = 0;
    for files in 3..40 {
        let output = Command::new("sh")
            .args(["-c", r#"ulimit -n "$1" && shift && exec "$@""#, "sh"])
            .arg(files.to_string())
            .arg(env!("CARGO_BIN_EXE_vodrelay"))
            .arg("check")
            .env_clear()
            .env("TENCENTCLOUD_SECRET_ID", "id")
            .env("TENCENTCLOUD_SECRET_KEY", "key")
            .env("VODRELAY_VOD__ENDPOINT", "http://127.0.0.1:1")
            .env("VODRELAY_AMQP__URLS", &broker)
            .env("VODRELAY_JOURNAL__PATH", folder.path().join("journal.db"))
            .output()
            .unwrap();
        let words = [output.stdout, output.stderr].concat();
        let words = String::from_utf8_lossy(&words);
        for line in words.lines() {
            if line.contains("os error 24") || line.contains("unable to open") {
                assert!(line.contains("files are open") || line.contains("open files"), "{files}: {line}");
                assert!(
                    !line.contains("check the owner") && !line.contains("check that RabbitMQ runs"),
                    "{files}: {line}"
                );
            }
        }
        said += usize::from(words.contains("LimitNOFILE="));
    }
    assert!(said > 0, "some of these limits are met by the journal or the broker");
}
