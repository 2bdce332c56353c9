//! `vodrelay upload` against the emulator: what is stored is the file, whatever breaks on the way, and one command makes one medium.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tencent_vod_emulator::{Action, Emulator, Fault, FaultKind, Options, Policy, UploadSettings};

use crate::child::Relay;

const MIB: usize = 1024 * 1024;

/// A local VOD, and a folder with the files to upload.
struct Desk {
    emulator: Emulator,
    folder: TempDir,
}

impl Desk {
    async fn new(change: impl FnOnce(&mut UploadSettings)) -> Self {
        let mut options = Options::default();
        options.settings.requests_per_second = 0;
        options.settings.uploads.keep_object_bytes = 64 * MIB as u64;
        change(&mut options.settings.uploads);
        Self { emulator: Emulator::start(options).await.unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// A file with content that no two seeds share.
    fn file(&self, name: &str, size: usize, seed: u64) -> PathBuf {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut content = vec![0; size];
        rng.fill(&mut content);
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, command: &[&str]) -> Command {
        let key = self.emulator.credential();
        let mut program = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
        program
            .env_clear()
            .env("TENCENTCLOUD_SECRET_ID", &key.secret_id)
            .env("TENCENTCLOUD_SECRET_KEY", key.secret_key.expose())
            .env("VODRELAY_VOD__ENDPOINT", self.emulator.endpoint())
            .env("VODRELAY_JOURNAL__PATH", self.folder.path().join("journal.db"))
            .env("XDG_STATE_HOME", self.folder.path().join("state"))
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        program
    }

    fn start(&self, command: &[&str]) -> Child {
        self.command(command).spawn().unwrap()
    }

    async fn run(&self, command: &[&str]) -> Output {
        let mut program = self.command(command);
        tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap()
    }

    async fn upload(&self, path: &Path, more: &[&str]) -> Output {
        self.run(&[&["upload", path.to_str().unwrap()], more].concat()).await
    }

    fn records(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("state/vodrelay/uploads");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect()
    }

    /// There is one medium, and it is the file; no part of it was stored twice, and nothing is left over.
    #[track_caller]
    fn assert_is(&self, path: &Path, file_id: &str) {
        let report = self.emulator.uploads();
        assert_eq!(report.media.len(), 1, "{report:#?}");
        let medium = &report.media[0];
        assert_eq!(medium.file_id, file_id);
        let object = report.objects.iter().find(|object| object.key == medium.key).unwrap();
        let content = self.emulator.content(&object.bucket, &object.key).unwrap();
        assert!(content == std::fs::read(path).unwrap(), "the medium is not the file");
        assert_eq!(object.parts_stored, u64::from(object.parts), "a part that had arrived was sent again");
        assert!(report.multipart.is_empty(), "{report:#?}");
        assert!(self.records().is_empty());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn file_id(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert_eq!(printed.lines().count(), 1, "{printed}");
    printed.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_one_medium_whatever_its_size_and_its_name() {
    for (name, size) in [
        ("one byte.mp4", 1),
        ("测试 a+b(1).MP4", 1_000),
        ("whole.mp4", 8 * MIB - 1),
        ("one part.mp4", 8 * MIB),
        ("100% #1 é.tar.gz", 8 * MIB + 1),
        ("🎬.mkv", 16 * MIB + 77),
    ] {
        let desk = Desk::new(|_| {}).await;
        let path = desk.file(name, size, size as u64);
        let output = desk.upload(&path, &["--json"]).await;
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&shown["proven"], &shown["resumed"]), (&Value::Bool(true), &Value::Bool(false)));
        desk.assert_is(&path, shown["file_id"].as_str().unwrap());
        let media = desk.emulator.uploads().media;
        let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
        assert_eq!((media[0].name.as_str(), media[0].size), (stem, size as u64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wish_reaches_the_cloud_and_the_event() {
    let desk = Desk::new(|settings| settings.procedures = vec!["P".to_owned()]).await;
    let (path, cover) = (desk.file("a.mp4", 100, 1), desk.file("c.jpg", 50, 2));
    let cover = cover.to_str().unwrap();
    let wishes = [
        "--procedure",
        "P",
        "--cover",
        cover,
        "--sub-app",
        "7",
        "--storage-region",
        "ap-singapore",
        "--source-context",
        "user=17",
        "--session-context",
        "order 4",
        "--name",
        "Film",
    ];
    let id = file_id(&desk.upload(&path, &wishes).await);
    let report = desk.emulator.uploads();
    let medium = &report.media[0];
    assert_eq!((medium.file_id.as_str(), medium.sub_app_id, medium.name.as_str()), (id.as_str(), 7, "Film"));
    assert!(!medium.procedure_task_id.is_empty());
    assert_eq!(report.objects.len(), 2, "the medium and its cover");

    let refused = desk.upload(&path, &["--procedure", "Missing"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("Missing"), "{}", text(&refused.stderr));
    let elsewhere = desk.upload(&path, &["--storage-region", "mars"]).await;
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(text(&elsewhere.stderr).contains("ap-guangzhou, ap-singapore"), "{}", text(&elsewhere.stderr));
    assert_eq!(desk.emulator.uploads().media.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_uploaded_is_told_before_anything_is_asked_for() {
    let desk = Desk::new(|_| {}).await;
    let empty = desk.file("empty.mp4", 0, 1);
    let nameless = desk.file("nameless", 10, 1);
    for (path, more, words) in [
        (&empty, &[][..], "is empty"),
        (&nameless, &[], "--type mp4"),
        (&desk.folder.path().to_owned(), &[], "not a regular file"),
        (&nameless, &["--type", "mp4", "--source-context", &"x".repeat(251)], "251 characters"),
        (&nameless, &["--type", "mp4", "--expires", "2020-01-01T00:00:00Z"], "in the past"),
    ] {
        let output = desk.upload(path, more).await;
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
    assert!(desk.emulator.uploads().sessions.is_empty());
}

/// Kills at random moments, over as many processes as it takes.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_one_command_makes_one_medium_and_sends_no_part_twice() {
    const KILLS: u32 = 40;
    let (mut kills, mut resumed, mut rng) = (0, 0, fastrand::Rng::with_seed(1));
    while kills < KILLS {
        let desk = Desk::new(|settings| settings.repeated_commit = Policy::Accept).await;
        let path = desk.file("film.mp4", 4 * 8 * MIB + 77, u64::from(kills));
        let command = ["upload", path.to_str().unwrap(), "--json", "--bwlimit", "100M", "--concurrency", "2"];
        let output = loop {
            if kills >= KILLS || rng.u32(0..8) == 0 {
                break desk.run(&command).await;
            }
            let mut child = desk.start(&command);
            tokio::time::sleep(Duration::from_millis(rng.u64(20..600))).await;
            if child.try_wait().unwrap().is_some() {
                break child.wait_with_output().unwrap();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        };
        assert!(output.status.success(), "{}", text(&output.stderr));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        desk.assert_is(&path, shown["file_id"].as_str().unwrap());
        resumed += u32::from(shown["resumed"] == true);
    }
    println!("{kills} kills, {resumed} uploads went on");
    assert!(resumed > 0);
}

fn once(kind: FaultKind, action: Action) -> Fault {
    Fault { action: Some(action), count: Some(1), ..Fault::always(kind) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_that_can_pass_is_passed() {
    use Action::{ApplyUpload, CommitUpload, CompleteMultipartUpload, InitiateMultipartUpload, UploadPart};
    let error = |code: &str| FaultKind::Error { code: code.to_owned() };
    for (kind, action) in [
        (FaultKind::AnswerLost, ApplyUpload),
        (FaultKind::Throttle, ApplyUpload),
        (FaultKind::Reset, ApplyUpload),
        (FaultKind::AnswerLost, UploadPart),
        (FaultKind::Reset, UploadPart),
        (FaultKind::Truncated, UploadPart),
        (error("SlowDown"), UploadPart),
        (error("InternalError"), InitiateMultipartUpload),
        (FaultKind::AnswerLost, CompleteMultipartUpload),
        (FaultKind::ErrorInOk { code: "InternalError".to_owned() }, CompleteMultipartUpload),
        (FaultKind::Spaces { ms: 300 }, CompleteMultipartUpload),
        (FaultKind::Reset, CompleteMultipartUpload),
        (FaultKind::Reset, CommitUpload),
        (error("InternalError"), CommitUpload),
        (FaultKind::AnswerLost, CommitUpload),
    ] {
        let desk = Desk::new(|settings| settings.repeated_commit = Policy::Accept).await;
        let path = desk.file("film.mp4", 16 * MIB + 77, 5);
        desk.emulator.faults().add(once(kind.clone(), action));
        let output = desk.upload(&path, &[]).await;
        assert!(output.status.success(), "{kind:?} of {action:?}: {}", text(&output.stderr));
        desk.assert_is(&path, &file_id(&output));
        assert!(desk.emulator.faults().active().is_empty(), "{kind:?} of {action:?} did not happen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_perhaps_a_medium_and_never_two() {
    let desk = Desk::new(|_| {}).await;
    let path = desk.file("film.mp4", 1_000, 5);
    desk.emulator.faults().add(once(FaultKind::AnswerLost, Action::CommitUpload));
    for _ in 0..2 {
        let output = desk.upload(&path, &[]).await;
        assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("perhaps committed"), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "no FileId before the cloud named one");
        assert_eq!(desk.emulator.uploads().media.len(), 1);
        assert_eq!(desk.records().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_meanwhile_is_not_committed() {
    let desk = Desk::new(|_| {}).await;
    let path = desk.file("film.mp4", 3 * 8 * MIB, 5);
    let child = desk.start(&["upload", path.to_str().unwrap(), "--bwlimit", "12M", "--concurrency", "1"]);
    let parts = |state: &tencent_vod_emulator::State| {
        state.uploads().multipart.iter().any(|upload| !upload.parts.is_empty())
    };
    desk.emulator.wait_until(parts, Duration::from_secs(30)).await.unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[0] ^= 1;
    std::fs::write(&path, content).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("changed while it was uploaded"), "{}", text(&output.stderr));
    let report = desk.emulator.uploads();
    assert!(report.media.is_empty() && report.multipart.is_empty(), "{report:#?}");
    assert!(desk.records().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_paused_listed_resumed_and_aborted_from_another_terminal() {
    let desk = Desk::new(|_| {}).await;
    let path = desk.file("film.mp4", 3 * 8 * MIB, 5);
    let under_way = |state: &tencent_vod_emulator::State| !state.uploads().multipart.is_empty();
    let slow = ["upload", path.to_str().unwrap(), "--bwlimit", "4M"];

    let child = desk.start(&slow);
    desk.emulator.wait_until(under_way, Duration::from_secs(30)).await.unwrap();
    let listed = desk.run(&["uploads", "list", "--json"]).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed["state"], &listed["running"]), (&Value::from("sending"), &Value::Bool(true)));
    let id = listed["id"].as_str().unwrap();
    let busy = desk.upload(&path, &[]).await;
    assert_eq!(busy.status.code(), Some(75), "{}", text(&busy.stderr));
    assert!(desk.run(&["uploads", "pause", id]).await.status.success());
    let paused = child.wait_with_output().unwrap();
    assert_eq!(paused.status.code(), Some(75), "{}", text(&paused.stderr));
    assert!(text(&paused.stderr).contains(&format!("vodrelay uploads resume {id}")));
    let resumed = desk.run(&["uploads", "resume", id]).await;
    desk.assert_is(&path, &file_id(&resumed));

    let other = desk.file("other.mp4", 3 * 8 * MIB, 6);
    let child = desk.start(&["upload", other.to_str().unwrap(), "--bwlimit", "4M"]);
    desk.emulator.wait_until(under_way, Duration::from_secs(30)).await.unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(75));
    let listed: Value =
        serde_json::from_slice(&desk.run(&["uploads", "list", "--json"]).await.stdout).unwrap();
    let aborted = desk.run(&["uploads", "abort", listed["id"].as_str().unwrap()]).await;
    assert!(aborted.status.success(), "{}", text(&aborted.stderr));
    let report = desk.emulator.uploads();
    assert!(report.multipart.is_empty() && report.media.len() == 1, "{report:#?}");
    assert!(desk.records().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_brings_its_segments_and_no_file_from_elsewhere() {
    let desk = Desk::new(|_| {}).await;
    std::fs::create_dir(desk.folder.path().join("seg")).unwrap();
    desk.file("seg/1.ts", 100, 1);
    desk.file("seg/2.ts", 200, 2);
    let playlist = desk.folder.path().join("film.m3u8");
    std::fs::write(&playlist, "#EXTM3U\n#EXTINF:4,\nseg/1.ts\n#EXTINF:4,\nseg/2.ts\n#EXT-X-ENDLIST\n")
        .unwrap();
    file_id(&desk.upload(&playlist, &[]).await);
    let mut sizes: Vec<u64> = desk.emulator.uploads().objects.iter().map(|object| object.size).collect();
    sizes.sort_unstable();
    assert_eq!(sizes[1..], [100, 200], "the playlist is the smallest");

    std::fs::write(&playlist, "#EXTM3U\n#EXTINF:4,\n../../etc/passwd\n#EXT-X-ENDLIST\n").unwrap();
    let refused = desk.upload(&playlist, &[]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("not in its folder"), "{}", text(&refused.stderr));
    assert_eq!(desk.emulator.uploads().media.len(), 1);
}

/// A relay beside the desk, with standard output as its output.
fn relay(desk: &Desk) -> Relay {
    let mut command = desk.command(&["run"]);
    command
        .env("VODRELAY_OUTPUT__KIND", "stdout")
        .env("VODRELAY_HTTP__LISTEN", "")
        .env("VODRELAY_STATUS__SOCKET", "")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Relay(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_an_upload_are_waited_for() {
    let desk = Desk::new(|_| {}).await;
    let path = desk.file("film.mp4", 1_000, 1);
    let alone = desk.upload(&path, &["--wait", "1s"]).await;
    assert_eq!(alone.status.code(), Some(75), "nobody relays: {}", text(&alone.stderr));
    assert!(!alone.stdout.is_empty(), "the medium is there all the same");
    let _relay = relay(&desk);
    let output = desk.upload(&path, &["--procedure", "P", "--wait", "60s"]).await;
    file_id(&output);
    let shown = text(&output.stderr);
    for event in ["NewFileUpload", "ProcedureStateChanged"] {
        assert!(shown.contains(event), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_medium_whose_commit_was_not_answered_is_found_by_its_event() {
    let desk = Desk::new(|_| {}).await;
    let mut relay = relay(&desk);
    let (path, twin) = (desk.file("film.mp4", 1_000, 1), desk.file("film.mkv", 1_000, 2));
    // One of the same name and size, and of other content.
    let other = file_id(&desk.upload(&twin, &["--wait", "60s"]).await);
    desk.emulator.faults().add(once(FaultKind::AnswerLost, Action::CommitUpload));
    let first = desk.upload(&path, &[]).await;
    let found = if first.status.success() {
        file_id(&first)
    } else {
        // The event is a moment behind.
        assert_eq!(first.status.code(), Some(75), "{}", text(&first.stderr));
        let all_confirmed = |state: &tencent_vod_emulator::State| {
            state.stats().queues.values().all(|queue| queue.confirmed >= 2)
        };
        desk.emulator.wait_until(all_confirmed, Duration::from_secs(60)).await.unwrap();
        file_id(&desk.upload(&path, &[]).await)
    };
    let media = desk.emulator.uploads().media;
    assert_eq!(media.len(), 2);
    assert!(found != other && media.iter().any(|medium| medium.file_id == found));
    assert!(desk.records().is_empty());
    relay.signal(Signal::SIGTERM);
    relay.wait();
}
