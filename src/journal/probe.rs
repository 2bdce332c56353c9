//! Examines the journal for `vodrelay check` and leaves nothing behind: can it be used, is it in use, and
//! what does a sync cost?

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::disk::DiskFault;
use super::reading::{self, beside};
use super::schema::{self, Found};
use super::{OpenError, files, store};
use vodrelay_host::regular_file;

/// Enough for a median. A commit of the journal costs no more than one of these.
const SYNCS: usize = 20;
/// A page of the WAL.
const SYNCED_BYTES: usize = 4096;
/// Enough measurements for a disk this slow.
const MEASURE_LIMIT: Duration = Duration::from_secs(3);
/// Another process may be migrating or recovering it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What is at the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalStanding {
    /// No file; [`super::Journal::open`] creates it.
    Absent,
    /// A journal of this schema version; 0 is an empty file.
    Version(i64),
}

/// The findings at a path that can hold a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalReport {
    /// What is at the path.
    pub standing: JournalStanding,
    /// The process that has it open, from the lock's file.
    pub in_use_by: Option<String>,
    /// The median cost of a small synced write in the journal's folder, and the number of writes.
    pub sync: (Duration, usize),
    /// The space that is left to the relay's user.
    pub free_bytes: u64,
    /// Whether a reboot empties the file system.
    pub in_memory: bool,
}

impl JournalReport {
    /// The newest schema version of this program.
    pub const NEWEST_VERSION: i64 = schema::VERSION;
}

/// Examines `path` as [`super::Journal::open`] would, creates nothing there, and measures the disk with a
/// file that it removes again. A journal in use is not an error. Blocks on the disk.
///
/// # Errors
///
/// [`OpenError`], as [`super::Journal::open`] would return it; never [`OpenError::InUse`].
pub fn probe(path: &Path) -> Result<JournalReport, OpenError> {
    let unusable = |problem: String| OpenError::unusable(path, problem);
    if path.as_os_str().is_empty() || path.file_name().is_none() {
        return Err(unusable("journal.path must name a file".into()));
    }
    files::refuse_other_kinds(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let existing = nearest_folder(folder).map_err(|e| files::no_folder(path, folder, &e))?;
    files::refuse_network(path, &existing)?;
    let not_writable = |e: io::Error| files::not_writable(path, &e);
    let standing = match OpenOptions::new().write(true).open(path) {
        Ok(_) => match files::used_by_another_name(path) {
            Some(pid) => return Err(unusable(files::another_name(path, &pid))),
            None => JournalStanding::Version(version(path)?),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => JournalStanding::Absent,
        Err(e) => return Err(not_writable(e)),
    };
    let refused =
        |what: &str, error: &io::Error, otherwise: &str| OpenError::refused(path, what, error, otherwise);
    let in_use_by = in_use_by(path)
        .map_err(|e| refused("its lock cannot be read", &e, "check the owner and the mode of that file"))?;
    let (free_bytes, in_memory) = file_system(&existing)
        .map_err(|e| refused("its file system cannot be examined", &e, "see that its folder can be read"))?;
    let sync = measure(&existing).map_err(not_writable)?;
    Ok(JournalReport { standing, in_use_by, sync, free_bytes, in_memory })
}

/// The folder itself, or the folder in which it would be created.
fn nearest_folder(folder: &Path) -> io::Result<PathBuf> {
    for candidate in folder.ancestors() {
        let candidate = if candidate.as_os_str().is_empty() { Path::new(".") } else { candidate };
        match fs::metadata(candidate) {
            Ok(metadata) if metadata.is_dir() => return Ok(candidate.to_owned()),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The schema version of an existing file.
fn version(path: &Path) -> Result<i64, OpenError> {
    let failed = |cause: rusqlite::Error| match cause.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            OpenError::Damaged { path: path.to_owned(), cause }
        }
        code => {
            let fault = DiskFault::behind(path, &cause);
            OpenError::Failed {
                path: path.to_owned(),
                cause,
                error_code: fault.map_or_else(|| store::error_code(code), DiskFault::error_code),
                next_step: fault.map_or(
                    "check whether another program holds it, and read the kernel's log about the disk",
                    DiskFault::next_step,
                ),
            }
        }
    };
    match examine(path).map_err(failed)? {
        Found::Version(version) => Ok(version),
        Found::Newer(found) => Err(OpenError::Newer { path: path.to_owned(), found, known: schema::VERSION }),
        Found::Foreign => Err(OpenError::unusable(
            path,
            "it is another program's database: set journal.path to a file of its own",
        )),
    }
}

/// A reader of a journal in WAL mode creates `-wal` and `-shm` and leaves them behind. Without a WAL the file
/// is the whole journal, and can be read as an unchanging file.
fn examine(path: &Path) -> rusqlite::Result<Found> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match reading::uri(path, "immutable=1") {
        Some(uri) if !beside(path, "-wal").exists() => {
            schema::examine(&Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?)
        }
        _ => reading::open(path, BUSY_TIMEOUT, schema::examine).map(|(_, found)| found),
    }
}

/// The process that holds one of the journal's two locks, from its file.
///
/// # Errors
///
/// When a lock cannot be read.
pub fn in_use_by(path: &Path) -> io::Result<Option<String>> {
    if let Some(mut beside) = held(&beside(path, ".lock"))? {
        return Ok(Some(files::process_in(&mut beside)));
    }
    let Some(database) = held(path)? else { return Ok(None) };
    Ok(Some(files::holder(&database.metadata()?).unwrap_or_else(|| "unknown".to_owned())))
}

/// The file, if another process has locked it.
fn held(path: &Path) -> io::Result<Option<File>> {
    if regular_file::other_kind(path).is_some() {
        return Ok(None);
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // Held shared, for a moment: a lock of this kind cannot be tested in another way.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(file)),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// The free space, and whether it is memory: tmpfs and ramfs, by the numbers of Linux's `magic.h`.
fn file_system(folder: &Path) -> io::Result<(u64, bool)> {
    let space = rustix::fs::statvfs(folder)?;
    // The field's width and sign differ between platforms.
    let magic = rustix::fs::statfs(folder)?.f_type as u32;
    Ok((space.f_bavail.saturating_mul(space.f_frsize), matches!(magic, 0x0102_1994 | 0x8584_58F6)))
}

/// Removes its file, whatever happens.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure needs no report: the file has a clear name and some kilobytes.
        let _ = fs::remove_file(&self.0);
    }
}

/// The median of synced writes to a new file, and the number of writes. The file keeps its name meanwhile,
/// because some file systems need not sync a file without one.
fn measure(folder: &Path) -> io::Result<(Duration, usize)> {
    let path = folder.join(format!(".vodrelay-check-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let _scratch = Scratch(path);
    let began = Instant::now();
    let mut costs = Vec::with_capacity(SYNCS);
    while costs.len() < SYNCS && began.elapsed() < MEASURE_LIMIT {
        let before = Instant::now();
        file.write_all(&[0; SYNCED_BYTES])?;
        file.sync_all()?;
        costs.push(before.elapsed());
    }
    costs.sort_unstable();
    Ok((costs.get(costs.len() / 2).copied().unwrap_or_default(), costs.len()))
}
