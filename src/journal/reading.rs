//! Opens the journal for reading, also where SQLite's files beside it cannot be created: on a full disk, on a
//! read-only file system, by a user who may only read.
//!
//! A reader of a journal in WAL mode needs its `-shm`. SQLite creates and grows it when no process has the
//! journal open. Where that fails, there are two other ways (sqlite.org, "Write-Ahead Logging", read-only
//! databases):
//!
//! - A `-shm` that is there is opened read-only (`readonly_shm`). SQLite uses it while a writer keeps it, and reads the WAL into
//!   memory of its own otherwise.
//! - Without a WAL the file is the whole journal, and can be read as one that nobody changes (`immutable`). That is right only as
//!   long as no relay works, so that the relay's lock is held meanwhile.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// A connection that only reads.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) conn: Connection,
    /// Keeps a relay from starting while the file is read as an unchanging file. Only held, never read.
    _undisturbed: Option<File>,
}

/// Opens the journal and reads something, which makes SQLite open the files beside it.
pub(super) fn open<T>(
    path: &Path,
    busy_timeout: Duration,
    read: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<(Reading, T)> {
    let with = |name: &Path, flags: OpenFlags| -> rusqlite::Result<(Connection, T)> {
        let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(name, flags)?;
        conn.busy_timeout(busy_timeout)?;
        let found = read(&conn)?;
        Ok((conn, found))
    };
    let cause = match with(path, OpenFlags::empty()) {
        Ok((conn, found)) => return Ok((Reading { conn, _undisturbed: None }, found)),
        Err(cause) => cause,
    };
    let code = cause.sqlite_error_code();
    if !matches!(
        code,
        Some(
            rusqlite::ErrorCode::DiskFull
                | rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::ReadOnly
        )
    ) {
        return Err(cause);
    }
    let uri = |query| uri(path, query).map(PathBuf::from);
    if let Some(name) = uri("readonly_shm=1")
        && let Ok((conn, found)) = with(&name, OpenFlags::SQLITE_OPEN_URI)
    {
        return Ok((Reading { conn, _undisturbed: None }, found));
    }
    let Some(undisturbed) = is_whole(path).then(|| keep_relays_out(path)).and_then(Result::ok) else {
        return Err(cause);
    };
    match uri("immutable=1").map(|name| with(&name, OpenFlags::SQLITE_OPEN_URI)) {
        Some(Ok((conn, found))) => Ok((Reading { conn, _undisturbed: undisturbed }, found)),
        // SQLite's first error is closer to the cause.
        _ => Err(cause),
    }
}

/// The name of the file for SQLite, with a parameter.
pub(super) fn uri(path: &Path, query: &str) -> Option<String> {
    let mut url = url::Url::from_file_path(path.canonicalize().ok()?).ok()?;
    url.set_query(Some(query));
    Some(url.into())
}

/// The journal's file, without symbolic links, with `suffix` at the end of its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    super::files::beside(&path.canonicalize().unwrap_or_else(|_| path.to_owned()), suffix)
}

/// Whether no file beside it holds a part of the journal.
fn is_whole(path: &Path) -> bool {
    ["-wal", "-journal"].iter().all(|suffix| match fs::metadata(beside(path, suffix)) {
        Ok(metadata) => metadata.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    })
}

/// Takes the relay's lock, shared with other readers. The lock beside the journal: closing a descriptor of
/// the journal itself would drop SQLite's locks. A journal without that file has never had a relay.
fn keep_relays_out(path: &Path) -> Result<Option<File>, TryLockError> {
    let file = match File::open(beside(path, ".lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TryLockError::Error(error)),
    };
    file.try_lock_shared()?;
    Ok(Some(file))
}
