//! Whether a journal is a copy of another one, or an older state of itself.
//!
//! A copy in a file of its own has another device, inode or birth time. An older copy that `cp` writes over the journal has those of
//! the journal. So the journal has a number, its generation, which grows at each start and at each clean end, and the lock file
//! beside it has a note of that number. The journal is committed first, so that its number is never lower than that of the note
//! unless the file went back to an earlier state. Readers, checkpoints and `VACUUM` do not change the number.
//!
//! A crash leaves the note of the start. A copy that was made in that same run has the same number, and is not noticed.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::place::Identity;
use super::schema;

/// The identity of a journal's file. A copy has another one, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    file: Identity,
    /// The birth time in nanoseconds since 1970, because inodes are used again. Some file systems do not
    /// report it.
    born: Option<i64>,
}

impl Origin {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| i64::try_from(since.as_nanos()).ok());
        Ok(Self { file: Identity::of(&metadata), born })
    }

    /// Records that a relay has opened this file, and begins a generation. This removes the mark of a backup.
    /// Returns the note for the lock file, which must be written after the commit.
    pub(super) fn record(self, conn: &Connection, noted: Option<Note>) -> rusqlite::Result<Note> {
        let last = generation(conn)?.max(self.generation_in(noted)).unwrap_or(0);
        let note = Note { file: self.file, generation: last.saturating_add(1) };
        conn.execute("DELETE FROM origin", [])?;
        conn.execute(
            "INSERT INTO origin (device, inode, born, generation) VALUES (?1, ?2, ?3, ?4)",
            params![
                self.file.device.cast_signed(),
                self.file.inode.cast_signed(),
                self.born,
                note.generation
            ],
        )?;
        Ok(note)
    }

    /// A note about another file says nothing about this one.
    fn generation_in(self, noted: Option<Note>) -> Option<i64> {
        noted.filter(|note| note.file == self.file).map(|note| note.generation)
    }
}

/// What the lock file says of the journal: which file it was, and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    file: Identity,
    generation: i64,
}

impl Note {
    /// The next generation, which a clean end begins. Write it into the lock file after the commit.
    pub(super) fn next(self, conn: &Connection) -> rusqlite::Result<Self> {
        let next = Self { generation: self.generation.saturating_add(1), ..self };
        conn.execute("UPDATE origin SET generation = ?1", [next.generation])?;
        Ok(next)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.generation, self.file.device, self.file.inode)
    }
}

impl FromStr for Note {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [generation, device, inode] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(()) };
        let number = |text: &str| text.parse().map_err(|_| ());
        let file = Identity { device: number(device)?, inode: number(inode)? };
        Ok(Self { file, generation: generation.parse().map_err(|_| ())? })
    }
}

/// The journal's generation; `None` in a journal that no relay of this version has opened.
fn generation(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    conn.query_row("SELECT generation FROM origin", [], |row| row.get(0)).optional()
}

/// The sign by which the journal is recognised as a copy, if it is one. A journal of an earlier version has
/// no sign.
pub(super) fn copy_sign(
    conn: &Connection,
    now: Origin,
    noted: Option<Note>,
) -> rusqlite::Result<Option<&'static str>> {
    let row = |row: &Row<'_>| {
        let born: Option<i64> = row.get(2)?;
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let is_another = Identity { device: number(0)?, inode: number(1)? } != now.file
            // Where one of the two is unknown, the rest decides.
            || born.zip(now.born).is_some_and(|(was, is)| was != is);
        let is_backup: bool = row.get(3)?;
        let generation: i64 = row.get(4)?;
        let is_older = now.generation_in(noted).is_some_and(|noted| generation < noted);
        Ok(match (is_backup, is_another, is_older) {
            (true, _, _) => Some("it is a backup that vodrelay made"),
            (false, true, _) => Some("it is not the file that a relay opened last"),
            (false, false, true) => Some("it is an older state of the file that a relay opened last"),
            (false, false, false) => None,
        })
    };
    let sign = conn
        .query_row("SELECT device, inode, born, is_backup, generation FROM origin", [], row)
        .optional()?;
    Ok(sign.flatten())
}

/// The events that are in doubt because the journal is a copy: those that came with it and are unfinished.
pub(super) fn in_doubt(conn: &Connection, copied_up_to: i64) -> rusqlite::Result<i64> {
    if copied_up_to == 0 {
        return Ok(0);
    }
    conn.prepare_cached(&format!("SELECT count(*) FROM ({}) WHERE id <= ?1", schema::NOT_DONE))?
        .query_row([copied_up_to], |row| row.get(0))
}
