//! The journal's files are moved, removed, replaced or cut while the journal is open, and a second relay comes by another way.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use vodrelay::journal::{Journal, OpenError, Options, WriteError};
use vodrelay_core::outcome::JournalState;
use vodrelay_testkit::asks::Asks as _;

use super::{BOUND, Desk, answer, is_down, texts, until};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    path.with_file_name(format!("{}{suffix}", path.file_name().unwrap().to_str().unwrap()))
}

/// What a process that starts after a SIGKILL at this moment finds: the files by their names.
fn after_a_kill(path: &Path) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("journal.db");
    for suffix in ["", "-wal"] {
        if beside(path, suffix).exists() {
            fs::copy(beside(path, suffix), beside(&copy, suffix)).unwrap();
        }
    }
    let (journal, writer) = Journal::open(&Options { path: copy.clone() }).unwrap();
    let found =
        texts(&rusqlite::Connection::open(&copy).unwrap(), "SELECT task_id FROM event_log ORDER BY id");
    drop(journal);
    writer.join().unwrap();
    found
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn rename(path: &Path) {
    fs::rename(path, beside(path, ".aside")).unwrap();
}

fn replace(path: &Path) {
    fs::copy(path, beside(path, ".new")).unwrap();
    fs::rename(beside(path, ".new"), path).unwrap();
}

/// A commit that is answered is one that the next process finds, whatever was done to the files before it.
#[tokio::test]
async fn a_journal_whose_wal_or_index_is_gone_keeps_what_it_has_and_ends() {
    for (suffix, change) in [
        ("-wal", remove as fn(&Path)),
        ("-wal", rename),
        ("-wal", replace),
        ("-shm", remove),
        ("-shm", replace),
    ] {
        let mut desk = Desk::new();
        desk.record(answer(0, &[("h", "before")])).await;
        change(&beside(&desk.path(), suffix));
        let (journal, writer) = desk.open.take().unwrap();
        let answered =
            tokio::time::timeout(BOUND, journal.record(answer(0, &[("i", "after")]))).await.unwrap();
        assert!(answered.is_err(), "{suffix}: nothing is answered that goes to a file without a name");
        let JournalState::Down(problem) = journal.state().borrow().clone() else { panic!("it is down") };
        assert_eq!(problem.error_code.as_str(), "VR-206");
        let words = format!(
            "its {suffix} file was moved, removed or replaced; everything that was committed is in the journal itself now"
        );
        assert!(problem.message.contains(&words), "{problem}");
        let ended = writer.join();
        assert!(matches!(&ended, Err(WriteError::TakenApart { .. })), "{ended:?}");
        assert_eq!(after_a_kill(&desk.path()), ["t-before"], "{suffix}");
        desk.start();
        desk.record(answer(0, &[("i", "after")])).await;
        assert_eq!(after_a_kill(&desk.path()), ["t-before", "t-after"]);
    }
}

#[tokio::test]
async fn while_a_reader_keeps_the_commits_from_being_copied_the_journal_stays_open() {
    let mut desk = Desk::new();
    let reader = desk.sql();
    reader.execute_batch("BEGIN").unwrap();
    reader.query_row("SELECT count(*) FROM event_log", [], |_| Ok(())).unwrap();
    desk.record(answer(0, &[("h", "before")])).await;
    remove(&beside(&desk.path(), "-wal"));
    let (journal, writer) = desk.open.take().unwrap();
    let mut state = journal.state();
    let call = tokio::spawn(async move { journal.record(answer(0, &[("i", "after")])).await });
    let JournalState::Down(problem) = until(&mut state, is_down).await else { unreachable!() };
    assert!(problem.message.contains("do not end the relay, which alone has it"), "{problem}");
    assert!(!call.is_finished());
    reader.execute_batch("COMMIT").unwrap();
    assert!(tokio::time::timeout(BOUND, call).await.unwrap().unwrap().is_err());
    assert!(matches!(writer.join(), Err(WriteError::TakenApart { .. })));
    drop(reader);
    assert_eq!(after_a_kill(&desk.path()), ["t-before"]);
}

#[tokio::test]
async fn a_wal_that_others_cut_ends_the_journal_before_another_answer() {
    for bytes in [0, 16, 9_000] {
        let mut desk = Desk::new();
        desk.restart();
        desk.record(answer(0, &[("h", "before")])).await;
        File::options().write(true).open(beside(&desk.path(), "-wal")).unwrap().set_len(bytes).unwrap();
        let (journal, writer) = desk.open.take().unwrap();
        assert!(journal.record(answer(0, &[("i", "after")])).await.is_err(), "{bytes}");
        let ended = writer.join().unwrap_err().to_string();
        assert!(ended.contains("made its -wal shorter, or wrote over it"), "{ended}");
        // What was destroyed is gone, and the rest is in order.
        assert_eq!(after_a_kill(&desk.path()), [""; 0], "{bytes}");
        desk.start();
        assert_eq!(texts(&desk.sql(), "PRAGMA integrity_check"), ["ok"]);
    }
}

#[tokio::test]
async fn a_database_that_others_cut_ends_the_journal_before_another_answer() {
    let mut desk = Desk::new();
    desk.record(answer(0, &[("h", "before")])).await;
    File::options().write(true).open(desk.path()).unwrap().set_len(0).unwrap();
    let (journal, writer) = desk.open.take().unwrap();
    assert!(journal.record(answer(0, &[("i", "after")])).await.is_err());
    let ended = writer.join().unwrap_err().to_string();
    assert!(ended.contains("another program made it shorter"), "{ended}");
    // All of it was in the WAL still, which SQLite removes beside a database without content.
    assert_eq!(after_a_kill(&desk.path()), ["t-before"]);
    desk.start();
    assert_eq!(texts(&desk.sql(), "PRAGMA integrity_check"), ["ok"]);
}

#[tokio::test]
async fn a_link_that_leads_to_another_folder_takes_no_more_until_it_leads_back() {
    let outer = tempfile::tempdir().unwrap();
    let (here, there, link) = (outer.path().join("a"), outer.path().join("b"), outer.path().join("link"));
    let lead_to = |folder: &Path| {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(folder, &link).unwrap();
    };
    fs::create_dir(&here).unwrap();
    fs::create_dir(&there).unwrap();
    lead_to(&here);
    let path = link.join("journal.db");
    let (journal, writer) = Journal::open(&Options { path: path.clone() }).unwrap();
    let mut state = journal.state();
    lead_to(&there);
    let call = tokio::spawn({
        let journal = journal.clone();
        async move { journal.record(answer(0, &[("h", "a")])).await }
    });
    let JournalState::Down(problem) = until(&mut state, is_down).await else { unreachable!() };
    assert_eq!(problem.error_code.as_str(), "VR-206");
    lead_to(&here);
    assert_eq!(call.await.unwrap().unwrap().len(), 1);
    assert_eq!(after_a_kill(&path), ["t-a"]);
    drop(journal);
    writer.join().unwrap();
}

#[tokio::test]
async fn a_folder_that_was_renamed_takes_no_more_until_it_is_back() {
    let outer = tempfile::tempdir().unwrap();
    let (here, there) = (outer.path().join("state"), outer.path().join("renamed"));
    let path = here.join("journal.db");
    let (journal, writer) = Journal::open(&Options { path: path.clone() }).unwrap();
    let mut state = journal.state();
    fs::rename(&here, &there).unwrap();
    let call = tokio::spawn({
        let journal = journal.clone();
        async move { journal.record(answer(0, &[("h", "a")])).await }
    });
    let JournalState::Down(problem) = until(&mut state, is_down).await else { unreachable!() };
    assert_eq!(problem.error_code.as_str(), "VR-206");
    fs::rename(&there, &here).unwrap();
    assert_eq!(call.await.unwrap().unwrap().len(), 1);
    assert_eq!(after_a_kill(&path), ["t-a"]);
    drop(journal);
    writer.join().unwrap();
}

/// SQLite's locks are the process's, so that whoever tries here has to be another one: this test again, told which file.
#[test]
fn a_second_relay_is_refused_whichever_way_it_comes() {
    const PATH: &str = "VODRELAY_TEST_JOURNAL";
    if let Some(path) = std::env::var_os(PATH) {
        let error = Journal::open(&Options { path: path.into() }).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
        println!("{error}");
        return;
    }
    let desk = Desk::new();
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let tried = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "journal::apart::a_second_relay_is_refused_whichever_way_it_comes",
                "--nocapture",
            ])
            .env(PATH, path)
            .output()
            .unwrap();
        assert!(tried.status.success(), "{}: {tried:?}", path.display());
        String::from_utf8(tried.stdout).unwrap()
    };
    let hard = desk.folder.path().join("hard.db");
    fs::hard_link(desk.path(), &hard).unwrap();
    let soft = folder.path().join("soft.db");
    std::os::unix::fs::symlink(&hard, &soft).unwrap();
    for path in [desk.path(), hard, soft] {
        assert!(refused(&path).contains("is in use by another relay"));
    }
    fs::remove_file(beside(&desk.path(), ".lock")).unwrap();
    let pid = format!("(process {})", std::process::id());
    assert!(refused(&desk.path()).contains("is in use by another relay"));
    fs::remove_file(beside(&desk.path(), ".lock")).unwrap();
    let told = refused(&desk.path());
    // Some file systems have other numbers in the kernel's list of locks.
    assert!(told.contains(&pid) || told.contains("(process unknown)"), "{told}");
}
