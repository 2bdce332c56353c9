//! Copies of the journal that cannot be made, or are damaged, by the program itself.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::timeout;
use vodrelay_testkit::broker::LIMIT;
use vodrelay_testkit::world::World;

use super::journal::on_a_small_disk;
use super::program::{Program, relay};
use super::put_events;

/// A world whose relay makes a copy every second.
async fn copying() -> World {
    let mut world = World::new("amqp://127.0.0.1:1", &[0]).await;
    world.set("OUTPUT__KIND", "stdout");
    world.set("MAINTENANCE__BACKUP", "* * * * * *");
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_made_is_told_with_its_code_and_events_go_on() {
    let mut world = copying().await;
    let file = world.folder().join("file");
    fs::write(&file, "not a folder").unwrap();
    world.set("MAINTENANCE__BACKUP_DIR", file.join("copies").to_str().unwrap());
    let program = Program::start(relay(world.environment()));
    program.logs("VR-504").await;
    program.logs("make it writable for the relay's user, or change maintenance.backup_dir").await;
    put_events(&world, 0..100);
    world.until_confirmed().await;
    program.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_disk_is_left_to_the_journal() {
    let mut world = copying().await;
    let folder = tempfile::tempdir().unwrap();
    world.set("JOURNAL__PATH", folder.path().join("journal.db").to_str().unwrap());
    let program = Program::start(on_a_small_disk(&world, folder.path()));
    program.logs("VR-504").await;
    program
        .logs("are free there; free some, or set maintenance.backup_dir to a folder on another disk")
        .await;
    // The process sees another file system there than we do.
    let inside = PathBuf::from(format!("/proc/{}/root{}", program.pid(), folder.path().display()));
    put_events(&world, 0..100);
    world.until_confirmed().await;
    // Each try makes an empty file for a moment, to see whether it could be written.
    let nothing_left = async {
        while fs::read_dir(inside.join("backups")).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, nothing_left).await.expect("no half file is left");
    program.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_nobody_has_met_is_found_by_the_next_copy() {
    let world = copying().await;
    put_events(&world, 0..2_000);
    let program = Program::start(relay(world.environment()));
    world.until_confirmed().await;
    program.logs("journal copied, and the copy checked").await;
    // Old pages, which an idle relay has no use for.
    let vandal = Connection::open(world.journal_path()).unwrap();
    vandal.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let file = File::options().write(true).open(world.journal_path()).unwrap();
    let pages = file.metadata().unwrap().len() / 8_192;
    let length = usize::try_from(pages / 4 * 8_192).unwrap();
    file.write_all_at(&vec![0x5a; length], pages / 4 * 8_192).unwrap();
    program.logs("VR-202").await;
    program.logs("no older copy is removed").await;
    let names: Vec<String> = fs::read_dir(world.folder().join("backups"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.iter().filter(|name| name.ends_with(".db.damaged")).count(), 1, "{names:?}");
    assert!(names.iter().any(|name| name.ends_with(".db")), "{names:?}");
}
