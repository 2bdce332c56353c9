//! Whether a journal is a copy of another one.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::place::Identity;
use super::schema;

/// Which file a journal is. A copy is another one, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    file: Identity,
    /// When it was made, in nanoseconds since 1970: an inode is used again. Not every file system tells.
    born: Option<i64>,
}

impl Origin {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| i64::try_from(since.as_nanos()).ok());
        Ok(Self { file: Identity::of(&metadata), born })
    }

    /// Writes down that a relay has opened this file. A mark of a backup goes with that.
    pub(super) fn record(self, conn: &Connection) -> rusqlite::Result<()> {
        conn.execute("DELETE FROM origin", [])?;
        conn.execute(
            "INSERT INTO origin (device, inode, born) VALUES (?1, ?2, ?3)",
            params![self.file.device.cast_signed(), self.file.inode.cast_signed(), self.born],
        )?;
        Ok(())
    }
}

/// By what the journal is known to be a copy, if it is one. A journal of an earlier version tells nothing.
pub(super) fn copy_sign(conn: &Connection, now: Origin) -> rusqlite::Result<Option<&'static str>> {
    let row = |row: &Row<'_>| {
        let born: Option<i64> = row.get(2)?;
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let is_another = Identity { device: number(0)?, inode: number(1)? } != now.file
            // Where one of the two is not known, the rest decides.
            || born.zip(now.born).is_some_and(|(was, is)| was != is);
        let is_backup: bool = row.get(3)?;
        Ok(match (is_backup, is_another) {
            (true, _) => Some("it is a backup that vodrelay made"),
            (false, true) => Some("it is not the file that a relay opened last"),
            (false, false) => None,
        })
    };
    let sign = conn.query_row("SELECT device, inode, born, is_backup FROM origin", [], row).optional()?;
    Ok(sign.flatten())
}

/// How many events are in doubt because the journal is a copy: those that came with it and are not done.
pub(super) fn in_doubt(conn: &Connection, copied_up_to: i64) -> rusqlite::Result<i64> {
    if copied_up_to == 0 {
        return Ok(0);
    }
    conn.prepare_cached(&format!("SELECT count(*) FROM ({}) WHERE id <= ?1", schema::NOT_DONE))?
        .query_row([copied_up_to], |row| row.get(0))
}
