//! The journal's disk fills up, its file is locked, held by a reader, damaged.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use tencent_vod_emulator::Action;
use tokio::time::timeout;
use vodrelay_testkit::broker::{LIMIT, shared};
use vodrelay_testkit::world::{World, drained};

use super::program::{Program, relay};
use super::{accounted, in_time, pulls_rest, put_events, told};

// --- a full disk ---

/// The relay on a small file system of its own. It is in a mount namespace that goes with the process, so that a test that
/// is killed leaves no mount behind.
pub(super) fn on_a_small_disk(world: &World, folder: &Path) -> Command {
    // As root the mount alone is enough; others need a user namespace for it.
    let ways: [&[&str]; 2] = [&["-m"], &["-rm"]];
    let works = |way: &&[&str]| {
        let mount = r#"mount -t tmpfs -o size=64k tmpfs "$1""#;
        let tried = Command::new("unshare").args(*way).args(["sh", "-c", mount, "sh"]).arg(folder).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let way = ways.into_iter().find(works).expect(
        "a file system that fills up has to be mounted, and this machine permits neither `unshare -m` (CAP_SYS_ADMIN) nor \
         `unshare -rm` (unprivileged user namespaces): run the tests as root, or with user.max_user_namespaces above 0",
    );
    let program = relay(world.environment());
    let mut command = Command::new("unshare");
    let mount = r#"mount -t tmpfs -o size=16m tmpfs "$1" && shift && exec "$@""#;
    command.args(way).args(["sh", "-c", mount, "sh"]).arg(folder).arg(program.get_program());
    command.args(program.get_args()).env_clear().envs(world.environment());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Writes until there is no space left.
fn fill(path: &Path) {
    let mut ballast = OpenOptions::new().create(true).append(true).open(path).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        loop {
            match ballast.write(&vec![0; size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_stops_pulling_until_there_is_space_and_nothing_is_lost() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    world.set("JOURNAL__PATH", journal.to_str().unwrap());
    let program = Program::start(on_a_small_disk(&world, folder.path()));
    put_events(&world, 0..100);
    world.until("some went through", |state| state.counts(0).confirmed >= 20).await;
    // The process sees another file system there than we do.
    let inside = PathBuf::from(format!("/proc/{}/root{}", program.pid(), folder.path().display()));
    let ballast = inside.join("ballast");
    fill(&ballast);
    put_events(&world, 100..400);
    program.logs("journal cannot commit; its work is kept and tried again").await;
    program.logs("free space on the journal's file system").await;
    program.tells("journal down: database or disk is full").await;
    pulls_rest(&world).await;
    assert!(world.emulator.stats().events().unconfirmed() > 0, "the cloud keeps the rest");
    fs::remove_file(&ballast).unwrap();
    program.logs("journal commits again").await;
    world.until_confirmed().await;
    // The file system goes with the process, so that the journal is looked at before.
    world.config.journal.path = copied(&inside, &world).await;
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 400).await), 0, "each once");
    program.drained().await;
}

/// A copy of the journal once it calls everything confirmed. The relay is idle then, and writes no more.
async fn copied(inside: &Path, world: &World) -> PathBuf {
    let copy = world.journal_path().with_file_name("copy.db");
    let done = async {
        loop {
            // SQLite would follow the path by its text, and so look at our own file system.
            for suffix in ["", "-wal"] {
                let name = |file: &str| format!("{file}{suffix}");
                fs::copy(inside.join(name("journal.db")), copy.with_file_name(name("copy.db"))).unwrap();
            }
            let under_way = "SELECT count(*) FROM event_log WHERE state <> 'confirmed'";
            let copied = Connection::open(&copy).unwrap();
            let left: rusqlite::Result<i64> = copied.query_row(under_way, [], |row| row.get(0));
            // A copy that was made in the middle of a commit is of no use.
            if left == Ok(0) {
                break;
            }
            drop(copied);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(2 * LIMIT, done).await.expect("the journal calls everything confirmed");
    copy
}

// --- locks ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_holds_a_transaction_for_long_costs_space_and_nothing_else() {
    /// The WAL is folded back when it has so many bytes, if nobody reads in it.
    const USUAL: u64 = 8 << 20;
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = world.start().await;
    put_events(&world, 0..10);
    world.until_confirmed().await;
    world.until_journal_agrees().await;
    let wal = || fs::metadata(with_suffix(&world.journal_path(), "-wal")).unwrap().len();
    let reader = Connection::open(world.journal_path()).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let seen = || reader.query_row("SELECT count(*) FROM event_log", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(seen(), 10);
    let padding = "x".repeat(10_000);
    let large = |number: u64| format!(r#"{{"EventType":"Large","Number":{number},"Padding":"{padding}"}}"#);
    world.emulator.put_many(0, (0..2_000).map(large));
    world.until_confirmed().await;
    world.until_journal_agrees().await;
    assert_eq!(seen(), 10, "the reader sees the one moment that it asked for");
    let grown = wal();
    assert!(grown > 2 * USUAL, "nothing of the WAL can be folded back: {grown}");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(seen(), 2_010);
    drop(reader);
    // The next commits fold it back and begin it anew, in the space that it has.
    put_events(&world, 2_010..2_110);
    world.until_confirmed().await;
    world.until_journal_agrees().await;
    assert!(wal() < grown + USUAL / 2, "it hardly grows any more: from {grown} to {}", wal());
    let looker = Connection::open(world.journal_path()).unwrap();
    let pages = |row: &rusqlite::Row<'_>| row.get::<_, i64>(1);
    let used = looker.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], pages).unwrap().cast_unsigned() * 8_192;
    assert!(used < grown / 2, "of {grown} bytes {used} are in use");
    drop(looker);
    let snapshot = drained(running).await;
    assert_eq!(snapshot.let_go, 0, "{snapshot:?}");
    assert!(!with_suffix(&world.journal_path(), "-wal").exists(), "folded back at the end");
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 2_110).await), 0, "each once");
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_holds_the_lock_stops_pulling_and_all_goes_on_after_it() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = world.start().await;
    put_events(&world, 0..200);
    world.until("some went through", |state| state.counts(0).confirmed >= 20).await;
    let operator = Connection::open(world.journal_path()).unwrap();
    operator.busy_timeout(LIMIT).unwrap();
    tokio::task::block_in_place(|| operator.execute_batch("BEGIN IMMEDIATE")).unwrap();
    told(&running, "journal down: database is locked").await;
    told(&running, "another program holds the journal's write lock: end its transaction").await;
    // Until every lease has lapsed.
    pulls_rest(&world).await;
    operator.execute_batch("ROLLBACK").unwrap();
    world.until_confirmed().await;
    told(&running, "idle").await;
    world.until_journal_agrees().await;
    drained(running).await;
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 200).await), 0, "each once");
}

// --- damage ---

/// A journal of some hundred pages, made by the program, which has ended well.
async fn a_world_with_a_journal() -> World {
    let mut world = World::new("amqp://127.0.0.1:1", &[0]).await;
    world.set("OUTPUT__KIND", "stdout");
    put_events(&world, 0..300);
    let program = Program::start(relay(world.environment()));
    world.until_confirmed().await;
    program.drained().await;
    world
}

/// The program does not start, tells why and what to do, and leaves the file as it is.
async fn refused(world: &World, words: &str) {
    let before = fs::read(world.journal_path()).unwrap();
    let pulls = world.emulator.stats().calls(Action::PullEvents);
    let (code, log) = Program::start(relay(world.environment())).ended().await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("journal.db is damaged (") && log.contains(words), "{log}");
    assert!(
        log.contains("move it aside with its -wal and -shm files, restore a copy or start with a new one"),
        "{log}"
    );
    assert!(fs::read(world.journal_path()).unwrap() == before, "the file was changed");
    assert_eq!(world.emulator.stats().calls(Action::PullEvents), pulls, "nothing was pulled");
}

/// The way out that the message names: with the file moved aside, a new one is begun.
async fn starts_anew(world: &World) {
    for suffix in ["", "-wal", "-shm"] {
        let from = with_suffix(&world.journal_path(), suffix);
        if from.exists() {
            fs::rename(&from, with_suffix(&from, ".aside")).unwrap();
        }
    }
    put_events(world, 300..310);
    let program = Program::start(relay(world.environment()));
    world.until_confirmed().await;
    program.drained().await;
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE published_at IS NOT NULL"), 10);
    in_time(world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_was_truncated_is_refused_and_left_as_it_is() {
    let world = a_world_with_a_journal().await;
    let file = OpenOptions::new().write(true).open(world.journal_path()).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    refused(&world, "malformed").await;
    starts_anew(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_with_garbage_in_its_middle_is_refused_and_left_as_it_is() {
    let world = a_world_with_a_journal().await;
    let file = OpenOptions::new().write(true).open(world.journal_path()).unwrap();
    let middle = file.metadata().unwrap().len() / 2 / 8_192 * 8_192;
    file.write_all_at(&garbage(2 * 8_192), middle).unwrap();
    refused(&world, "Tree ").await;
    starts_anew(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_keeps_the_wal_that_a_crash_left_for_whoever_repairs_it() {
    let world = a_world_with_a_journal().await;
    put_events(&world, 300..310);
    let program = Program::start(relay(world.environment()));
    world.until_confirmed().await;
    // SIGKILL.
    drop(program);
    let wal = with_suffix(&world.journal_path(), "-wal");
    let before = fs::read(&wal).unwrap();
    assert!(!before.is_empty());
    let file = OpenOptions::new().write(true).open(world.journal_path()).unwrap();
    let middle = file.metadata().unwrap().len() / 2 / 8_192 * 8_192;
    file.write_all_at(&garbage(16 * 8_192), middle).unwrap();
    refused(&world, "Tree ").await;
    assert!(fs::read(&wal).unwrap() == before, "the WAL was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_in_the_place_of_the_journal_is_refused_and_left_as_it_is() {
    let world = a_world_with_a_journal().await;
    for length in [1, 10, 1_000] {
        fs::write(world.journal_path(), "this is no database\n".repeat(length)).unwrap();
        refused(&world, "file is not a database").await;
    }
    starts_anew(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_damaged_at_work_ends_the_program() {
    let mut world = World::new("amqp://127.0.0.1:1", &[0]).await;
    world.set("OUTPUT__KIND", "stdout");
    put_events(&world, 0..300);
    let program = Program::start(relay(world.environment()));
    world.until_confirmed().await;
    // Somebody folds the WAL back, writes over all but the first page, and changes something, so that nobody relies on what
    // is in memory.
    let vandal = Connection::open(world.journal_path()).unwrap();
    vandal.busy_timeout(LIMIT).unwrap();
    vandal.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let file = File::options().write(true).open(world.journal_path()).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&garbage(usize::try_from(length).unwrap() - 8_192), 8_192).unwrap();
    vandal.pragma_update(None, "user_version", 5).unwrap();
    put_events(&world, 300..400);
    let (code, log) = program.ended().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("journal failed for good") && log.contains("malformed"), "{log}");
    assert!(log.contains("stop the relay, keep a copy of the file with its -wal"), "{log}");
    assert!(world.emulator.stats().events().unconfirmed() > 0, "the cloud keeps what was not journalled");
    drop(vandal);
    // And whoever starts it again is told at once.
    let (code, log) = Program::start(relay(world.environment())).ended().await;
    assert_eq!(code, Some(78), "{log}");
}

/// Bytes that mean nothing.
fn garbage(length: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    (0..length).map(|_| rng.u8(..)).collect()
}

// --- a clean-up job ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_job_that_removes_the_wal_at_work_loses_nothing_that_was_confirmed() {
    let broker = shared().await;
    let mut world = World::new("amqp://127.0.0.1:1", &[0]).await;
    world.set("RELAY__CONFIRM_AFTER", "journal");
    put_events(&world, 0..10);
    let program = Program::start(relay(world.environment()));
    world.until_confirmed().await;
    fs::remove_file(with_suffix(&world.journal_path(), "-wal")).unwrap();
    put_events(&world, 10..20);
    let (code, log) = program.ended().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("its -wal file was moved, removed or replaced") && log.contains("VR-206"), "{log}");
    // As if it had been killed there: nothing of the second run cleans up what the first one left.
    let confirmed = world.emulator.stats().events().confirmed;
    assert!(confirmed >= 10);
    let journalled = world.figure("SELECT count(*) FROM event_log");
    assert!(u64::try_from(journalled).unwrap() >= confirmed, "{journalled} of {confirmed}");
    world.set("AMQP__URLS", &broker.url());
    let program = Program::start(relay(world.environment()));
    world.until_confirmed().await;
    let published = async {
        while world.figure("SELECT count(*) FROM event_log WHERE published_at IS NULL") > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, published).await.expect("all are published");
    program.drained().await;
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 20).await), 0, "each once");
}
