//! The files of the journal: the folder, the modes, the lock.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::OpenError;

/// Events name customers' files: owner and group only.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// Keeps every other relay out while it is held.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
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
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(|e| {
        unusable(format!(
            "its folder cannot be made ({e}): make {} writable for the relay's user, or change journal.path",
            folder.display()
        ))
    })?;
    if path.is_dir() {
        return Err(unusable("it is a folder: set journal.path to a file in it".into()));
    }
    refuse_network(path, folder)?;
    create(path, folder).map_err(|e| {
        unusable(format!("it cannot be written ({e}): check the owner and the mode of it and of its folder, and that the file system is mounted for writing"))
    })?;
    // One journal has one lock, whichever way a path leads to it.
    let path = path.canonicalize().map_err(|e| unusable(format!("its path cannot be followed ({e})")))?;
    Ok((lock(&path)?, path))
}

/// WAL keeps its index in memory that all processes share, and network file systems share none
/// (sqlite.org, "Write-Ahead Logging"); their file locks are not to be trusted either.
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
        Ok(_) => {
            // A commit in a file whose name is not on the disk yet would be lost with the name.
            File::open(folder)?.sync_all()
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let file = OpenOptions::new().write(true).open(path)?;
            let mode = file.metadata()?.permissions().mode() & 0o7777;
            if mode & 0o007 != 0 {
                // An older copy may have come with any mode.
                file.set_permissions(fs::Permissions::from_mode(mode & !0o007))?;
            }
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Which file this is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let unusable = |e: io::Error| {
        OpenError::unusable(
            path,
            format!(
                "its lock {} cannot be taken ({e}): check the owner and the mode of that file",
                lock_path.display()
            ),
        )
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
            let mut pid = String::new();
            // The lock decides; the number in the file is for people, and its absence changes nothing.
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim();
            let pid = if pid.is_empty() { "unknown" } else { pid }.to_owned();
            return Err(OpenError::InUse { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(unusable(e)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(unusable)?;
    Ok(Lock { _file: file })
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
    fn a_path_without_a_file_name_is_refused() {
        for path in ["", "/", ".."] {
            let error = prepare(Path::new(path)).unwrap_err();
            assert!(error.to_string().contains("must name a file"), "{error}");
        }
    }
}
