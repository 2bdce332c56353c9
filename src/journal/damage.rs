//! Looks for damage before it is met. SQLite itself finds a damaged page when it reads it, which can be long
//! after the start.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

/// How long a start examines the journal. A journal of usual size is examined completely in that time, and no
/// start waits longer.
pub(super) const LIMIT_AT_START: Duration = Duration::from_millis(100);

/// Looks at the structure of every page for up to `limit`. False when that was too short.
pub(super) fn look(conn: &mut Connection, limit: Duration) -> rusqlite::Result<bool> {
    let until = Instant::now() + limit;
    look_until(conn, move || Instant::now() >= until)
}

/// The same until `is_over`, which is asked every few pages.
pub(super) fn look_until(
    conn: &mut Connection,
    is_over: impl FnMut() -> bool + Send + 'static,
) -> rusqlite::Result<bool> {
    conn.progress_handler(STEPS_BETWEEN_LOOKS_AT_THE_CLOCK, Some(is_over))?;
    let found: rusqlite::Result<String> = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    // No later statement may be interrupted.
    conn.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(verdict) if verdict == "ok" => Ok(true),
        // The line before it names the database. There is only one.
        Ok(damage) => Err(corrupt(damage.lines().last().unwrap_or_default())),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// In instructions of SQLite's virtual machine and of the check itself, which makes one for each page. A page
/// from a disk takes many times as long as one in memory.
const STEPS_BETWEEN_LOOKS_AT_THE_CLOCK: i32 = 32;

/// SQLite's error of a damaged file.
fn corrupt(damage: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(damage.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A database of some hundred pages.
    fn database(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("database");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO t (x) SELECT randomblob(900) FROM n",
        )
        .unwrap();
        path
    }

    #[test]
    fn a_look_sees_what_is_sound_and_what_it_has_no_time_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut conn = Connection::open(database(&folder)).unwrap();
        assert!(!look(&mut conn, Duration::ZERO).unwrap());
        assert!(look(&mut conn, Duration::from_secs(60)).unwrap());
        conn.query_row("SELECT count(*) FROM t AS a, t AS b", [], |_| Ok(())).unwrap();
    }

    /// A page of a disk that was not read since the host's start can take milliseconds.
    #[test]
    fn a_look_can_be_over_after_a_few_pages_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut conn = Connection::open(database(&folder)).unwrap();
        let pages: u32 = conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let is_over = {
            let asked = Arc::clone(&asked);
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                false
            }
        };
        assert!(look_until(&mut conn, is_over).unwrap());
        let asked = asked.load(Ordering::Relaxed);
        assert!(pages > 100 && asked >= u64::from(pages) / 40, "asked {asked} times for {pages} pages");
    }
}
