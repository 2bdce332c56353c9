//! The files of the journal: the folder, the modes, the lock.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::OpenError;
use super::origin::Note;
use vodrelay_host::regular_file::other_kind;

/// Events name customers' files: owner and group only.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
/// More than the file of a lock has.
const LOCK_BYTES: u64 = 256;

/// Keeps every other relay out while it is held.
///
/// The lock beside the journal goes by the journal's name. Its file holds the number of the process, and in a
/// second line a note about the journal. The lock on the journal itself (flock(2), which Linux keeps apart
/// from the fcntl(2) locks of SQLite) goes by the file, under any name: a hard link, a bind mount, or the
/// same name after the file beside it was removed. It must be held longer than SQLite has the file open,
/// because closing any descriptor of the file drops SQLite's locks.
#[derive(Debug)]
pub(super) struct Lock {
    beside: File,
    _database: File,
    noted: Option<Note>,
}

impl Lock {
    /// The note of the process before this one.
    pub(super) fn noted(&self) -> Option<Note> {
        self.noted
    }

    /// Notes it for the next process, after it was committed to the journal. This process needs no note.
    /// Without a new note, an older copy can pass for the journal; nothing else goes wrong.
    pub(super) fn note(&self, note: Note) -> io::Result<()> {
        write(&self.beside, Some(note))?;
        self.beside.sync_data()
    }
}

/// Makes sure that `path` can hold a journal, and takes its lock. Returns the lock and the path without symbolic links.
pub(super) fn prepare(path: &Path) -> Result<(Lock, PathBuf), OpenError> {
    let unusable = |problem: String| OpenError::unusable(path, problem);
    if path.as_os_str().is_empty() || path.file_name().is_none() {
        return Err(unusable("journal.path must name a file".into()));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|e| no_folder(path, folder, &e))?;
    refuse_other_kinds(path)?;
    refuse_network(path, folder)?;
    let not_writable = |e: io::Error| not_writable(path, &e);
    if !path.exists() {
        create(path, folder).map_err(not_writable)?;
    }
    // A journal has one lock, under every path to it.
    let path = path.canonicalize().map_err(|e| unusable(format!("its path cannot be followed ({e})")))?;
    let (beside, noted) = lock(&path)?;
    let database = open(&path).map_err(not_writable)?;
    match database.try_lock() {
        Ok(()) => Ok((Lock { beside, _database: database, noted }, path)),
        Err(TryLockError::WouldBlock) => {
            let pid = database.metadata().ok().and_then(|metadata| holder(&metadata));
            Err(OpenError::InUse { path, pid: pid.unwrap_or_else(|| "unknown".to_owned()) })
        }
        Err(TryLockError::Error(e)) => Err(unusable(format!("its file system cannot lock it ({e})"))),
    }
}

/// Refuses what is not a file. Opening a FIFO can block for ever. A device is not the relay's: other users
/// would lose their right to it.
pub(super) fn refuse_other_kinds(path: &Path) -> Result<(), OpenError> {
    match other_kind(path) {
        None => Ok(()),
        Some("folder") => Err(OpenError::unusable(path, "it is a folder: set journal.path to a file in it")),
        Some(kind) => {
            Err(OpenError::unusable(path, format!("it is a {kind}: set journal.path to a file of its own")))
        }
    }
}

/// The folder of the journal cannot be made.
pub(super) fn no_folder(path: &Path, folder: &Path, error: &io::Error) -> OpenError {
    let next_step =
        format!("make {} writable for the relay's user, or change journal.path", folder.display());
    OpenError::refused(path, "its folder cannot be made", error, &next_step)
}

/// The journal, or a file beside it, cannot be written.
pub(super) fn not_writable(path: &Path, error: &io::Error) -> OpenError {
    let next_step = "check the owner and the mode of it and of its folder, and that the file system is mounted for writing";
    OpenError::refused(path, "it cannot be written", error, next_step)
}

/// The process that has the journal open under another name of the file, which is a hard link. SQLite keeps
/// the WAL beside the name that it was given, and a process with another name does not find it. The WAL of a
/// relay always exists, and is empty for moments only.
///
/// No file is opened for that: closing a descriptor would drop SQLite's locks in this process.
pub(super) fn used_by_another_name(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let metadata = fs::metadata(&path).ok()?;
    let has_wal = fs::metadata(beside(&path, "-wal")).is_ok_and(|wal| wal.len() > 0);
    if metadata.nlink() < 2 || has_wal { None } else { holder(&metadata) }
}

/// What to do about it.
pub(super) fn another_name(path: &Path, pid: &str) -> String {
    format!(
        "process {pid} has it open by another of its names (hard links), and the newest events are in the -wal file beside that name: \
         set journal.path to that one; `find DIRECTORY -xdev -samefile {}` lists them",
        path.display()
    )
}

/// The process that holds the lock on a file, by the kernel's list (proc_locks(5)). For people: a container
/// does not see other processes, and some file systems have other numbers there.
pub(super) fn holder(of: &fs::Metadata) -> Option<String> {
    let (major, minor) = (rustix::fs::major(of.dev()), rustix::fs::minor(of.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", of.ino());
    holder_in(&fs::read_to_string("/proc/locks").ok()?, &file)
}

fn holder_in(locks: &str, file: &str) -> Option<String> {
    locks
        .lines()
        .find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, "FLOCK", _, _, pid, of, ..] if of == file => pid.parse::<u32>().ok().filter(|pid| *pid > 0),
            _ => None,
        })
        .map(|pid| pid.to_string())
}

/// WAL keeps its index in memory that all processes share. Network file systems share none (sqlite.org,
/// "Write-Ahead Logging"), and their file locks are unreliable.
pub(super) fn refuse_network(path: &Path, folder: &Path) -> Result<(), OpenError> {
    let stat = rustix::fs::statfs(folder)
        .map_err(|e| OpenError::unusable(path, format!("its file system cannot be examined ({e})")))?;
    // The magic numbers have 32 bits; the field's width and sign differ between platforms.
    match network_file_system(stat.f_type as u32) {
        Some(name) => Err(OpenError::unusable(
            path,
            format!(
                "it lies on a network file system ({name}), where SQLite is not safe: move it to a local disk"
            ),
        )),
        None => Ok(()),
    }
}

/// The name of a network file system, by the numbers of Linux's `magic.h`.
fn network_file_system(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517B | 0xFE53_4D42 | 0xFF53_4D42 => Some("SMB"),
        _ => None,
    }
}

/// Makes the file with its mode from the start; SQLite gives `-wal` and `-shm` the mode of the database.
fn create(path: &Path, folder: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        // A commit in a file whose name is not synced would be lost with the name.
        Ok(_) => File::open(folder)?.sync_all(),
        // Another relay was faster and has the lock, or the name is a symbolic link to nowhere.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Opens the file, and removes the rights of others from its mode.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        // An older copy may have come with any mode.
        file.set_permissions(fs::Permissions::from_mode(mode & !0o007))?;
    }
    Ok(file)
}

/// The name of a file beside the journal: its own with `suffix` at the end. SQLite names its files in this
/// way.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The process number in the file of a lock. For people: the lock decides.
pub(super) fn process_in(lock: &mut File) -> String {
    match read(lock).lines().next().map(str::trim) {
        None | Some("") => "unknown".to_owned(),
        Some(pid) => pid.to_owned(),
    }
}

/// The content of a lock's file, which is two short lines. Unreadable content says nothing.
fn read(lock: &mut File) -> String {
    let mut content = Vec::new();
    let read = lock.take(LOCK_BYTES).read_to_end(&mut content);
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&content).into_owned())
}

/// Writes the new lines over the old ones, so neither is missing at any moment.
fn write(mut lock: &File, note: Option<Note>) -> io::Result<()> {
    let mut lines = format!("{}\n", std::process::id());
    if let Some(note) = note {
        lines.push_str(&format!("{note}\n"));
    }
    lock.rewind()?;
    lock.write_all(lines.as_bytes())?;
    lock.set_len(lines.len() as u64)
}

fn lock(path: &Path) -> Result<(File, Option<Note>), OpenError> {
    let lock_path = beside(path, ".lock");
    let unusable = |e: io::Error| {
        let what = format!("its lock {} cannot be taken", lock_path.display());
        OpenError::refused(path, what, &e, "check the owner and the mode of that file")
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&lock_path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse { path: path.to_owned(), pid: process_in(&mut file) });
        }
        Err(TryLockError::Error(e)) => return Err(unusable(e)),
    }
    let noted = read(&mut file).lines().nth(1).and_then(|note| note.parse().ok());
    write(&file, noted).map_err(unusable)?;
    Ok((file, noted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xFF53_4D42), Some("SMB"));
        for local in [0xEF53, 0x0102_1994, 0x794c_7630, 0x5846_5342] {
            assert_eq!(network_file_system(local), None);
        }
    }

    #[test]
    fn the_holder_of_a_lock_is_found_in_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 0 08:01:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 33 08:01:42 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 44 08:01:42 0 EOF\n";
        assert_eq!(holder_in(locks, "08:01:42").as_deref(), Some("33"));
        assert_eq!(holder_in(locks, "08:01:43"), None);
    }

    #[test]
    fn a_path_without_a_file_name_is_refused() {
        for path in ["", "/", ".."] {
            let error = prepare(Path::new(path)).unwrap_err();
            assert!(error.to_string().contains("must name a file"), "{error}");
        }
    }
}
