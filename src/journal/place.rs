//! Whether the journal's files are at their names and hold what SQLite wrote.
//!
//! SQLite continues with its open files when their names were removed or lead to other files. A commit is
//! then worthless: the next process opens the files by their names. A stat of a name costs about a
//! microsecond, and a commit some hundreds. So each commit is preceded and followed by a comparison.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::files::beside;

/// The beginning of a WAL: magic number, version, page size, number of the checkpoint, two salts (sqlite.org,
/// "The WAL-Index File Format"). Checkpoint number and salts change whenever SQLite starts the WAL again.
const HEAD_BYTES: usize = 24;
/// The two magic numbers: for checksums in little-endian and in big-endian order.
const MAGIC: [u32; 2] = [0x377f_0682, 0x377f_0683];

/// The identity of this file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

/// What is wrong with the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// The database is not at its name.
    Database,
    /// Another program made the database shorter. The content there is lost, except what the WAL holds.
    DatabaseCut,
    /// The file with this suffix is not at its name.
    Beside(&'static str),
    /// Another program made the WAL shorter or overwrote its beginning. Its content is lost.
    WalCut,
}

/// The files as they were opened.
#[derive(Debug)]
pub(super) struct Place {
    /// The names that must lead to the database: its own, and the one that it was opened by, because symbolic
    /// links can change.
    names: Vec<PathBuf>,
    database: Identity,
    /// The length of the database.
    length: Cell<u64>,
    beside: [(PathBuf, &'static str, Identity); 2],
    wal: File,
    /// The length of a WAL at its opening that SQLite takes for empty, until SQLite starts it again.
    leftover: Option<u64>,
    /// The beginning of the WAL, and its length.
    seen: Cell<Option<([u8; HEAD_BYTES], u64)>>,
}

impl Place {
    /// Call it when SQLite has all of them open, with the name without links and the name that the next
    /// process uses.
    pub(super) fn of(path: &Path, configured: &Path, conn: &Connection) -> io::Result<Self> {
        let (wal_path, shm_path) = (beside(path, "-wal"), beside(path, "-shm"));
        // SQLite has no locks on the WAL that closing this file could drop.
        let wal = File::open(&wal_path)?;
        let metadata = wal.metadata()?;
        let wal_identity = Identity::of(&metadata);
        let leftover = (!begins(&wal)?.is_some_and(is_wal)).then_some(metadata.len());
        let shm_identity = Identity::at(&shm_path)?;
        let new = Self {
            names: if configured == path {
                vec![path.to_owned()]
            } else {
                vec![path.to_owned(), configured.to_owned()]
            },
            database: Identity::at(path)?,
            length: Cell::new(0),
            beside: [(wal_path, "-wal", wal_identity), (shm_path, "-shm", shm_identity)],
            wal,
            leftover,
            seen: Cell::new(None),
        };
        new.look(conn).map_err(|_| io::Error::other("its files changed while they were opened"))?;
        Ok(new)
    }

    /// Whether the next process will find a commit that was made before this call.
    pub(super) fn look(&self, conn: &Connection) -> Result<(), Misplaced> {
        for name in &self.names {
            let there = fs::metadata(name).map_err(|_| Misplaced::Database)?;
            if Identity::of(&there) != self.database {
                return Err(Misplaced::Database);
            }
            self.look_at_length(there.len(), conn)?;
        }
        for (path, suffix, identity) in &self.beside {
            if Identity::at(path).ok() != Some(*identity) {
                return Err(Misplaced::Beside(suffix));
            }
        }
        self.look_at_wal()
    }

    /// SQLite shortens the database when pages were given back, to the pages that it still has. When another
    /// program shortens it, SQLite continues. The next process takes a database without content for one
    /// without a WAL, too.
    fn look_at_length(&self, bytes: u64, conn: &Connection) -> Result<(), Misplaced> {
        if bytes < self.length.get() {
            let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
            let needed =
                pragma("page_count").and_then(|pages| Ok(u64::from(pages) * u64::from(pragma("page_size")?)));
            // What cannot be asked makes the commit fail on its own.
            if needed.is_ok_and(|needed| bytes < needed) {
                return Err(Misplaced::DatabaseCut);
            }
        }
        self.length.set(bytes);
        Ok(())
    }

    /// SQLite continues at its old place in a WAL that another program shortened. The gap reads as zeros, and
    /// the next process takes the WAL to end there.
    fn look_at_wal(&self) -> Result<(), Misplaced> {
        let cut = |_| Misplaced::WalCut;
        let bytes = self.wal.metadata().map_err(cut)?.len();
        if bytes == 0 {
            // Empty at first, and after a checkpoint of another program that freed its space. Otherwise the
            // next commit leaves zeros at the beginning.
            self.seen.set(None);
            return Ok(());
        }
        let head = begins(&self.wal).map_err(cut)?;
        let Some(head) = head.filter(|head| is_wal(*head)) else {
            return if self.seen.get().is_none() && self.leftover == Some(bytes) {
                Ok(())
            } else {
                Err(Misplaced::WalCut)
            };
        };
        if self.seen.get().is_some_and(|(before, was)| before == head && bytes < was) {
            return Err(Misplaced::WalCut);
        }
        self.seen.set(Some((head, bytes)));
        Ok(())
    }
}

/// The beginning of the WAL, if it is that long.
fn begins(wal: &File) -> io::Result<Option<[u8; HEAD_BYTES]>> {
    let mut head = [0; HEAD_BYTES];
    match wal.read_exact_at(&mut head, 0) {
        Ok(()) => Ok(Some(head)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_wal([a, b, c, d, ..]: [u8; HEAD_BYTES]) -> bool {
    MAGIC.contains(&u32::from_be_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> (Connection, Place) {
        let conn = Connection::open(path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let place = Place::of(path, path, &conn).unwrap();
        (conn, place)
    }

    fn insert(conn: &Connection, rows: usize) {
        for _ in 0..rows {
            conn.execute_batch("INSERT INTO t VALUES (zeroblob(3000))").unwrap();
        }
    }

    #[test]
    fn what_sqlite_does_with_its_files_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.db");
        let (conn, place) = open(&path);
        let other = Connection::open(&path).unwrap();
        for limit in ["-1", "0", "20000"] {
            conn.pragma_update_and_check(None, "journal_size_limit", limit, |_| Ok(())).unwrap();
            for way in ["PASSIVE", "RESTART", "TRUNCATE"] {
                insert(&conn, 20);
                assert_eq!(place.look(&conn), Ok(()));
                for who in [&conn, &other] {
                    who.query_row(&format!("PRAGMA wal_checkpoint({way})"), [], |_| Ok(())).unwrap();
                    assert_eq!(place.look(&conn), Ok(()), "{limit} {way}");
                    who.execute_batch("DELETE FROM t; VACUUM").unwrap();
                    assert_eq!(place.look(&conn), Ok(()), "{limit} {way}");
                    who.query_row(&format!("PRAGMA wal_checkpoint({way})"), [], |_| Ok(())).unwrap();
                    assert_eq!(place.look(&conn), Ok(()), "{limit} {way}");
                    insert(who, 1);
                    assert_eq!(place.look(&conn), Ok(()), "{limit} {way}");
                }
            }
        }
    }

    #[test]
    fn each_file_that_is_not_at_its_name_is_noticed() {
        let change: [fn(&Path); 3] = [
            |name| fs::remove_file(name).unwrap(),
            |name| fs::rename(name, name.with_extension("aside")).unwrap(),
            |name| {
                fs::copy(name, name.with_extension("new")).unwrap();
                fs::rename(name.with_extension("new"), name).unwrap();
            },
        ];
        for change in change {
            for (name, expected) in [
                ("j.db", Misplaced::Database),
                ("j.db-wal", Misplaced::Beside("-wal")),
                ("j.db-shm", Misplaced::Beside("-shm")),
            ] {
                let folder = tempfile::tempdir().unwrap();
                let (conn, place) = open(&folder.path().join("j.db"));
                insert(&conn, 1);
                assert_eq!(place.look(&conn), Ok(()));
                change(&folder.path().join(name));
                assert_eq!(place.look(&conn), Err(expected));
            }
        }
    }

    #[test]
    fn a_wal_that_others_made_shorter_is_noticed_before_or_after_the_next_commit() {
        for bytes in [0, 10, 5_000] {
            let folder = tempfile::tempdir().unwrap();
            let (conn, place) = open(&folder.path().join("j.db"));
            insert(&conn, 10);
            assert_eq!(place.look(&conn), Ok(()));
            let wal = File::options().write(true).open(folder.path().join("j.db-wal")).unwrap();
            wal.set_len(bytes).unwrap();
            let before = place.look(&conn);
            insert(&conn, 1);
            let after = place.look(&conn);
            assert!(before.and(after) == Err(Misplaced::WalCut), "{bytes}");
        }
    }

    #[test]
    fn a_database_that_others_made_shorter_is_noticed() {
        for bytes in [0, 4096, 40_960] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("j.db");
            let (conn, place) = open(&path);
            insert(&conn, 100);
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            assert_eq!(place.look(&conn), Ok(()));
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes).unwrap();
            assert_eq!(place.look(&conn), Err(Misplaced::DatabaseCut), "{bytes}");
        }
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let (conn, _) = open(&real.join("j.db"));
        let place = Place::of(&real.join("j.db"), &link.join("j.db"), &conn).unwrap();
        assert_eq!(place.look(&conn), Ok(()));
        fs::remove_file(&link).unwrap();
        assert_eq!(place.look(&conn), Err(Misplaced::Database));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(place.look(&conn), Ok(()));
    }
}
