//! Where a journal comes from: another boot, a clock that is wrong, a copy.

use std::os::unix::fs::MetadataExt as _;

use vodrelay::journal::{Boot, Examined, examine_copy};

use super::*;

impl Desk {
    fn start_in(&mut self, boot: &str, opened: u64) {
        let boot = Boot { id: boot.to_owned(), opened: Moment(opened) };
        self.open = Some(Journal::open_in(&Options { path: self.path() }, &boot).unwrap());
    }

    /// A process of boot `a` that has published an event which comes again, and one of boot `b` that began at its moment 7 s.
    async fn rebooted() -> Self {
        let mut desk = Self { folder: tempfile::tempdir().unwrap(), open: None };
        desk.start_in("a", 0);
        assert_eq!(desk.pull(500_000, "h1", "a").await, NEW_1);
        desk.publish(EventId(1)).await;
        desk.stop();
        desk.start_in("b", 7_000);
        desk
    }

    /// What an equal event is taken for that arrives then, by the clocks of boot `b`.
    async fn comes_again(&self, received_at: u64, wall_at: i64) -> (u32, bool) {
        let mut again = answer(received_at - 100, &[("h2", "a")]);
        again.pulled_at = WallTime(wall(500_000).0 + wall_at);
        let recorded = self.record(again).await;
        (recorded[0].occurrence, recorded[0].redelivered)
    }

    fn maybe_duplicates(&self) -> Vec<(i64, Option<String>)> {
        let filter = Filter { maybe_duplicate: true, ..Filter::default() };
        let rows = JournalReader::open(&self.path()).unwrap().list(&filter, None, 100).unwrap();
        let mut rows: Vec<_> = rows.into_iter().map(|row| (row.id, row.message)).collect();
        rows.sort_unstable();
        rows
    }

    /// Replaces the journal by what `copy` makes of its file, while nobody has it open.
    fn replace(&mut self, copy: impl FnOnce(&Path, &Path)) {
        self.stop();
        let aside = self.folder.path().join("aside.db");
        copy(&self.path(), &aside);
        self.start();
    }

    async fn in_doubt(&self) -> u64 {
        self.journal().summary(None).await.unwrap().in_doubt
    }
}

fn by_cp(path: &Path, aside: &Path) {
    fs::rename(path, aside).unwrap();
    fs::copy(aside, path).unwrap();
}

#[tokio::test]
async fn after_a_reboot_a_clock_that_is_behind_makes_no_second_event_of_a_redelivery() {
    for behind in [45_000, 86_400_000, 40 * 365 * 86_400_000] {
        let desk = Desk::rebooted().await;
        assert_eq!(desk.comes_again(8_000, 31_000 - behind).await, AGAIN_1, "{behind} ms behind");
    }
    // A clock that is behind by less than a lease says nothing for certain. The process is young, so that it is all there is.
    let desk = Desk::rebooted().await;
    assert_eq!(desk.comes_again(8_000, 31_000 - 10_000).await, NEW_2);
    assert_eq!(desk.maybe_duplicates().len(), 1, "it is named");
    assert!(desk.maybe_duplicates()[0].1.as_ref().unwrap().contains("another boot"));
    // The cloud proves that it has nothing any more: the first one is done as well.
    desk.journal().settle(APP, Moment(9_000), wall(600_000)).await.unwrap();
    assert_eq!(desk.event_states()[0], "confirmed");
}

#[tokio::test]
async fn a_process_that_is_older_than_a_lease_asks_no_wall_clock() {
    let desk = Desk::rebooted().await;
    assert_eq!(desk.comes_again(7_000 + LEASE, 1_000).await, AGAIN_1);
    assert_eq!(desk.maybe_duplicates(), []);
}

#[tokio::test]
async fn a_boot_clock_that_was_set_back_under_one_name_is_that_of_another_boot() {
    let mut desk = Desk::rebooted().await;
    desk.stop();
    // A machine was set back to an earlier state: the boot is the same, and its clock is not.
    desk.start_in("a", 100_000);
    assert_eq!(desk.comes_again(101_000, 31_000 - 86_400_000).await, AGAIN_1);
}

#[tokio::test]
async fn a_journal_that_was_copied_marks_what_it_brought() {
    let mut desk = Desk::new();
    let one = desk.record(answer(0, &[("h1", "a"), ("h2", "b"), ("h3", "c"), ("h4", "d")])).await;
    desk.publish(EventId(1)).await;
    desk.publish(EventId(2)).await;
    desk.confirm(one[1].delivery).await;
    desk.journal().parked(vec![(EventId(4), problem("no queue"))]).await.unwrap();
    desk.replace(by_cp);
    assert_eq!(desk.in_doubt().await, 3, "the confirmed one is done");
    // What is still to be published may have been, and is listed at once. The journal says so for good when it hands it out.
    assert_eq!(desk.maybe_duplicates().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3]);
    let loaded = desk.journal().load(EventId(0), 10).await.unwrap();
    assert_eq!(loaded.len(), 1);
    desk.publish(EventId(3)).await;
    assert_eq!(desk.maybe_duplicates().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3]);
    assert_eq!(number(&desk.sql(), "SELECT uncertain FROM event WHERE id = 3"), 1);
    assert!(desk.journal().release(EventId(4)).await.unwrap());
    assert_eq!(desk.maybe_duplicates().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3, 4]);

    // The next equal event is another one. The very handle is the same one, and ends the doubt.
    assert_eq!(desk.pull(90_000, "h9", "a").await, NEW_2);
    assert!(
        desk.maybe_duplicates().iter().any(|(_, why)| why.as_ref().is_some_and(|why| why.contains("copy")))
    );
    assert_eq!(desk.pull(90_000, "h3", "c").await, AGAIN_1);
    assert_eq!(desk.pull(190_000, "h10", "c").await, AGAIN_1);
    assert_eq!(desk.pull(190_000, "h11", "b").await, NEW_2, "it was confirmed: it happened again");
    // What came after the copy is judged as always.
    assert_eq!(desk.pull(190_000, "h12", "a").await, AGAIN_2);
}

#[tokio::test]
async fn a_journal_that_stays_where_it_is_or_is_renamed_is_no_copy() {
    let mut desk = Desk::new();
    assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
    desk.publish(EventId(1)).await;
    desk.restart();
    desk.replace(|path, aside| {
        fs::rename(path, aside).unwrap();
        fs::rename(aside, path).unwrap();
    });
    assert_eq!(desk.in_doubt().await, 0);
    assert_eq!(desk.pull(90_000, "h2", "a").await, AGAIN_1);
}

#[tokio::test]
async fn a_backup_of_our_own_is_known_even_in_the_place_of_the_journals_file() {
    let mut desk = Desk::new();
    assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
    desk.publish(EventId(1)).await;
    let backup = desk.folder.path().join("backup.db");
    fs::write(&backup, b"").unwrap();
    let mut copying = desk.journal().copy(backup.clone()).await.unwrap();
    while copying.step(128).await.unwrap().left > 0 {}
    drop(copying);
    assert_eq!(examine_copy(&backup, || false).unwrap(), Examined::Sound);
    desk.replace(|path, _| {
        // Into the file that is there: device, inode and birth stay.
        let bytes = fs::read(&backup).unwrap();
        fs::write(path, bytes).unwrap();
    });
    assert_eq!(desk.in_doubt().await, 1);
    assert_eq!(desk.pull(90_000, "h2", "a").await, NEW_2);
    desk.restart();
    assert_eq!(desk.in_doubt().await, 1, "the doubt outlives a start, and what came later is not in it");
}

/// As `cp`, which truncates the file that is there and writes into it: device, inode and birth time stay.
fn write_over(path: &Path, copy: &Path) {
    let before = fs::metadata(path).unwrap().ino();
    fs::copy(copy, path).unwrap();
    assert_eq!(fs::metadata(path).unwrap().ino(), before);
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(path.with_file_name(format!("journal.db{suffix}")));
    }
}

/// The event of the copy is confirmed after the copy was made. Then the copy is written over the journal, and an equal event happens.
#[tokio::test]
async fn an_older_copy_that_is_written_over_the_journal_is_known_by_its_generation() {
    for (copied_at_work, crashed) in [(false, false), (true, false), (false, true)] {
        let mut desk = Desk::new();
        let (copy, lock) = (desk.folder.path().join("copy.db"), desk.folder.path().join("journal.db.lock"));
        let one = desk.record(answer(0, &[("h1", "a")])).await[0];
        desk.publish(EventId(1)).await;
        if copied_at_work {
            desk.sql().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        } else {
            desk.stop();
            fs::copy(desk.path(), &copy).unwrap();
            desk.start();
        }
        desk.confirm(one.delivery).await;
        let at_work = fs::read(&lock).unwrap();
        desk.stop();
        if crashed {
            // A crash leaves what the start noted.
            fs::write(&lock, at_work).unwrap();
        }
        write_over(&desk.path(), &copy);
        desk.start();
        let case = format!("copied at work: {copied_at_work}, crashed: {crashed}");
        assert_eq!(desk.in_doubt().await, 1, "{case}");
        assert_eq!(desk.pull(90_000, "h2", "a").await, NEW_2, "{case}: it is not lost");
        desk.restart();
        assert_eq!(number(&desk.sql(), "SELECT count(*) FROM copied"), 1, "{case}: it is doubted once");
    }
}

/// What people do with the file of a relay that is stopped, and what a crash leaves.
#[tokio::test]
async fn a_journal_that_was_only_read_checkpointed_or_compacted_is_not_doubted() {
    type Change = fn(&Desk, &Path);
    let sql = |path: &Path, sql: &str| Connection::open(path).unwrap().execute_batch(sql).unwrap();
    let changes: [(&str, Change); 7] = [
        ("nothing", |_, _| ()),
        ("a reader", |desk, _| drop(desk.event_states())),
        ("a lock file that is gone", |_, lock| fs::remove_file(lock).unwrap()),
        ("a lock file of an earlier version", |_, lock| fs::write(lock, "17\n").unwrap()),
        ("a lock file that was cut", |_, lock| fs::write(lock, "17\n5 1").unwrap()),
        ("a lock file of another journal", |_, lock| fs::write(lock, "17\n99 1 1\n").unwrap()),
        ("another modification time", |desk, _| {
            let file = fs::File::options().append(true).open(desk.path()).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
    ];
    for (name, change) in changes {
        let mut desk = Desk::new();
        assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
        desk.publish(EventId(1)).await;
        let lock = desk.folder.path().join("journal.db.lock");
        desk.restart();
        desk.stop();
        change(&desk, &lock);
        for statement in ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA optimize", "ANALYZE"] {
            sql(&desk.path(), statement);
        }
        desk.start();
        assert_eq!(desk.in_doubt().await, 0, "{name}");
        assert_eq!(desk.pull(90_000, "h2", "a").await, AGAIN_1, "{name}");
    }
}

/// The journal is committed before the lock file is written, so that a crash between the two leaves the older note.
#[tokio::test]
async fn a_note_that_is_older_than_the_journal_says_nothing() {
    let mut desk = Desk::new();
    let lock = desk.folder.path().join("journal.db.lock");
    let older = fs::read(&lock).unwrap();
    assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
    desk.restart();
    desk.stop();
    fs::write(&lock, older).unwrap();
    desk.start();
    assert_eq!(desk.in_doubt().await, 0);
}

#[tokio::test]
async fn what_nobody_polls_is_settled_by_the_calendar_and_left_out_of_the_figures() {
    let desk = Desk::new();
    desk.record(answer(0, &[("h1", "a"), ("h2", "b"), ("h3", "c"), ("h4", "d")])).await;
    desk.publish(EventId(1)).await;
    desk.publish(EventId(2)).await;
    desk.journal().parked(vec![(EventId(3), problem("no queue"))]).await.unwrap();
    // The second one is handed over again later: it counts from there.
    assert_eq!(desk.pull(90_000, "h5", "b").await, AGAIN_1);
    let others: Arc<[SubAppId]> = [SubAppId(8), SubAppId(u64::MAX)].into();
    let these: Arc<[SubAppId]> = [SubAppId(8), APP].into();
    let of = async |polled: &Arc<[SubAppId]>| desk.journal().summary(Some(Arc::clone(polled))).await.unwrap();
    assert_eq!((of(&these).await.unconfirmed, of(&these).await.oldest_unconfirmed), (4, Some(wall(100))));
    let left = of(&others).await;
    assert_eq!((left.unconfirmed, left.oldest_unconfirmed), (0, None));
    assert_eq!(left.oldest_unpublished, Some(wall(100)), "what is to be published counts whatever is polled");

    let settle = async |polled: &Arc<[SubAppId]>, before| {
        desk.journal().settle_unpolled(Arc::clone(polled), wall(before), wall(500_000), 10).await.unwrap()
    };
    assert_eq!(settle(&these, 900_000).await, 0, "it is polled: an idle answer decides");
    assert_eq!(settle(&others, 100).await, 0);
    assert_eq!(settle(&others, 101).await, 2);
    assert_eq!(desk.event_states(), ["confirmed", "published", "parked", "received"]);
    assert_eq!(settle(&others, 90_100).await, 0);
    assert_eq!(settle(&others, 90_101).await, 1);
    assert_eq!(desk.event_states(), ["confirmed", "confirmed", "parked", "received"]);
    assert_eq!(of(&these).await.unconfirmed, 1);
    assert_eq!(
        desk.pull(190_000, "h9", "a").await,
        NEW_2,
        "the calendar was wrong: it is another one, and is named"
    );
    assert_eq!(desk.maybe_duplicates().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [6]);
}
