//! Copies of a working journal.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::*;
use crate::journal::CopyError;
use crate::journal::query::{EventState, Filter, JournalReader};

fn backups(journal: &Journal, kept: usize) -> Backups {
    let folder = journal.path().with_file_name("backups");
    Backups::new(journal.path(), folder, kept, CancellationToken::new())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn integrity(path: &Path) -> String {
    Connection::open(path).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

fn count(path: &Path) -> usize {
    let counted = JournalReader::open(path).unwrap().count_by_state().unwrap();
    counted.into_iter().map(|(_, events)| usize::try_from(events).unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_events_are_recorded_is_a_journal_with_all_events_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    for thousand in 0..4 {
        record(&journal, thousand * 1_000..thousand * 1_000 + 1_000, 900, DAY).await;
    }
    let backups = backups(&journal, 2);
    let mut next = 4_000;
    // The writer always has work, and changes pages that are in the copy already.
    let copied = {
        let mut made = std::pin::pin!(backups.run(&journal));
        loop {
            tokio::select! {
                biased;
                made = &mut made => break made.unwrap(),
                () = record(&journal, next..next + 50, 25, DAY) => next += 50,
            }
        }
    };
    assert!(next > 4_200, "there was work meanwhile: {next}");
    let mode = fs::metadata(&copied).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640, "{mode:o}");
    assert_eq!(names(copied.parent().unwrap()).len(), 1, "nothing is beside it");
    assert_eq!(integrity(&copied), "ok");
    let events = count(&copied);
    assert!((4_000..=next + 50).contains(&events), "{events} of {next}");
    let reader = JournalReader::open(&copied).unwrap();
    let confirmed = Filter { state: Some(EventState::Confirmed), ..Filter::default() };
    assert!(reader.list(&confirmed, None, 5_000).unwrap().len() >= 3_600);
    // It can be read from a read-only disk, and reading it leaves nothing beside it.
    assert_eq!(names(copied.parent().unwrap()).len(), 1);
    // It also works in the place of the journal.
    let restored = folder.path().join("restored.db");
    fs::copy(&copied, &restored).unwrap();
    let (restored, _writer) = Journal::open(&journal::Options { path: restored }).unwrap();
    record(&restored, next..next + 1, 1, DAY).await;
    // The journal itself is undamaged.
    assert_eq!(integrity(journal.path()), "ok");
}

#[tokio::test]
async fn the_wal_is_folded_back_while_a_copy_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    record(&journal, 0..1_000, 0, DAY).await;
    let to = folder.path().join("copy");
    File::create(&to).unwrap();
    let mut copying = journal.copy(to.clone()).await.unwrap();
    let mut wal = journal.path().as_os_str().to_owned();
    wal.push("-wal");
    // Four times the size at which the WAL is copied back (2048 pages of 4 KiB).
    let (mut next, mut copied) = (1_000, 0);
    while next < 21_000 {
        let step = copying.step(1).await.unwrap();
        assert!(step.pages - step.left > copied, "it never begins anew: {step:?}");
        copied = step.pages - step.left;
        record(&journal, next..next + 500, 0, DAY).await;
        next += 500;
    }
    let bytes = fs::metadata(PathBuf::from(wal)).unwrap().len();
    assert!(bytes < 2 * (8 << 20), "{bytes}");
    while copying.step(1_000).await.unwrap().left > 0 {}
    assert_eq!(integrity(&to), "ok");
    assert_eq!(count(&to), next, "what was recorded meanwhile is in it");
}

#[tokio::test]
async fn so_many_copies_are_kept_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    record(&journal, 0..10, 0, DAY).await;
    let backups = backups(&journal, 3);
    let kept = folder.path().join("backups");
    fs::create_dir(&kept).unwrap();
    let old =
        ["journal-2026-01-01T000000Z.db", "journal-2026-01-02T000000Z.db", "journal-2026-01-03T000000Z.db"];
    let others = [
        "journal-2026-01-01T000000Z.db.damaged",
        "journal-2026-01-01.db",
        "journal-a-2026-01-01T000000Z.db",
        "notes",
    ];
    for name in old.iter().chain(&others) {
        fs::write(kept.join(name), name).unwrap();
    }
    // Left behind by a process that was killed.
    fs::write(kept.join("journal-2026-01-04T000000Z.db.partial"), "half").unwrap();
    fs::write(kept.join("journal-2026-01-04T000000Z.db.partial-wal"), "half").unwrap();
    let made = backups.run(&journal).await.unwrap();
    let mut expected: Vec<String> = others.iter().map(ToString::to_string).collect();
    expected.extend([old[1].to_owned(), old[2].to_owned()]);
    expected.push(made.file_name().unwrap().to_str().unwrap().to_owned());
    expected.sort();
    assert_eq!(names(&kept), expected);
}

#[tokio::test]
async fn the_newest_copy_stays_whatever_the_clock_said_before() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    let backups = backups(&journal, 1);
    let kept = folder.path().join("backups");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("journal-2999-01-01T000000Z.db"), "by a clock that was wrong").unwrap();
    let made = backups.run(&journal).await.unwrap();
    assert_eq!(names(&kept), [made.file_name().unwrap().to_str().unwrap()]);
}

/// Runs a backup that must fail, and returns its message. No file is left of it.
async fn failed(backups: &Backups, journal: &Journal) -> String {
    let Err(JobFailure::Failed(words)) = backups.run(journal).await else { panic!("it must fail") };
    words
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_told_and_the_journal_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let stop = CancellationToken::new();
    let in_a_file = Backups::new(journal.path(), file.join("backups"), 2, stop.clone());
    let words = failed(&in_a_file, &journal).await;
    assert!(
        words.contains("the folder cannot be made") && words.contains("change maintenance.backup_dir"),
        "{words}"
    );
    // A place where no file can be created, not even by root.
    let in_proc = Backups::new(journal.path(), PathBuf::from("/proc/self/fdinfo"), 2, stop);
    let words = failed(&in_proc, &journal).await;
    assert!(words.contains("change maintenance.backup_dir"), "{words}");
    record(&journal, 0..1, 1, DAY).await;
}

#[tokio::test]
async fn a_disk_without_room_is_told_before_it_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    record(&journal, 0..10, 0, DAY).await;
    let mut backups = backups(&journal, 2);
    backups.run(&journal).await.unwrap();
    let before = names(&folder.path().join("backups"));
    backups.space_left = 1 << 60;
    let words = failed(&backups, &journal).await;
    assert!(words.contains("are free there") && words.contains("maintenance.backup_dir"), "{words}");
    assert_eq!(names(&folder.path().join("backups")), before, "no half file, and no copy was removed");
}

#[tokio::test]
async fn a_disk_that_is_full_in_the_middle_ends_the_copy_and_not_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    for thousand in 0..3 {
        record(&journal, thousand * 1_000..thousand * 1_000 + 1_000, 0, DAY).await;
    }
    // A device that is always full.
    let mut copying = journal.copy(PathBuf::from("/dev/full")).await.unwrap();
    let error = loop {
        match copying.step(100).await {
            Ok(step) => assert!(step.left > 0, "{step:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("full"), "{error}");
    assert!(matches!(copying.step(100).await, Err(CopyError::Over)));
    record(&journal, 3_000..3_001, 1, DAY).await;
}

#[tokio::test]
async fn a_copy_ends_another_one_that_was_begun_before() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    record(&journal, 0..1_000, 0, DAY).await;
    let files = ["first", "second"].map(|name| folder.path().join(name));
    files.iter().for_each(|file| drop(File::create(file).unwrap()));
    let mut first = journal.copy(files[0].clone()).await.unwrap();
    first.step(1).await.unwrap();
    let mut second = journal.copy(files[1].clone()).await.unwrap();
    assert!(matches!(first.step(1).await, Err(CopyError::Over)));
    drop(first);
    while second.step(10).await.unwrap().left > 0 {}
    assert_eq!(integrity(&files[1]), "ok");
    assert!(matches!(journal.copy(folder.path().join("missing")).await, Err(CopyError::Failed(_))));
}

#[tokio::test]
async fn a_copy_that_is_given_up_leaves_no_file_and_the_next_one_can_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    for thousand in 0..3 {
        record(&journal, thousand * 1_000..thousand * 1_000 + 1_000, 0, DAY).await;
    }
    let backups = backups(&journal, 2);
    let kept = folder.path().join("backups");
    {
        let mut made = std::pin::pin!(backups.run(&journal));
        let begun = async {
            // A step is in the file.
            let has_pages = |name: &String| fs::metadata(kept.join(name)).is_ok_and(|file| file.len() > 0);
            while !(kept.exists() && names(&kept).iter().any(has_pages)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = &mut made => panic!("it was too quick to be given up"),
            begun = tokio::time::timeout(BOUND, begun) => begun.unwrap(),
        }
    }
    assert_eq!(names(&kept), [""; 0]);
    let made = backups.run(&journal).await.unwrap();
    assert_eq!((integrity(&made).as_str(), count(&made)), ("ok", 3_000));
}

#[tokio::test]
async fn damage_is_found_by_the_look_at_the_copy_and_no_older_copy_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    for thousand in 0..3 {
        record(&journal, thousand * 1_000..thousand * 1_000 + 1_000, 0, DAY).await;
    }
    let backups = backups(&journal, 1);
    let kept = folder.path().join("backups");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("journal-2026-01-01T000000Z.db"), "an older copy").unwrap();
    // Another program copies the WAL back and overwrites a page in the middle.
    let vandal = Connection::open(journal.path()).unwrap();
    vandal.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let file = File::options().write(true).open(journal.path()).unwrap();
    // Old pages, which the writer no longer has in memory.
    let pages = file.metadata().unwrap().len() / 8_192;
    file.write_all_at(&[0x5a; 32 * 8_192], pages / 4 * 8_192).unwrap();
    let words = failed(&backups, &journal).await;
    assert!(words.contains("is damaged"), "{words}");
    let found = names(&kept);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], "journal-2026-01-01T000000Z.db");
    assert!(found[1].ends_with("Z.db.damaged"), "{found:?}");
    // One is enough, however often damage is found.
    failed(&backups, &journal).await;
    assert_eq!(names(&kept), found);
}
