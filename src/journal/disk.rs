//! Finds what is wrong with the disk when the journal cannot be opened, read or written.
//!
//! SQLite reports a full disk only where it writes pages. A `-shm` that cannot grow is an "I/O error", and a
//! `-wal` that cannot be made is a "cannot open". The system's own error says more, and a trial write in the
//! journal's folder finds it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;
use vodrelay_core::error_code::ErrorCode;

/// More than SQLite needs to open a journal: the first piece of the `-shm` has 32 kB.
const TRIAL_BYTES: usize = 64 << 10;

/// A fault of the disk or of its file system. It can pass or be repaired without a change of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskFault {
    /// No space, or no inodes.
    Full,
    /// The quota of the user, the group or the project is used up.
    Quota,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The disk answers with an error.
    Io,
}

impl DiskFault {
    /// What a system error says about the disk. `None` when it is about something else, such as the mode of a
    /// file.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::NOSPC => Some(Self::Full),
            Errno::DQUOT => Some(Self::Quota),
            Errno::ROFS => Some(Self::ReadOnly),
            Errno::IO => Some(Self::Io),
            _ => None,
        }
    }

    /// The fault behind an error of SQLite whose code leaves it open. Looks at the disk then.
    pub(super) fn behind(path: &Path, cause: &rusqlite::Error) -> Option<Self> {
        match cause.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Some(Self::Full),
            Some(
                rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::ReadOnly,
            ) => Self::at(path),
            _ => None,
        }
    }

    /// The fault of the journal's file system, as far as a small write shows it.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        match trial(folder) {
            Ok(()) => None,
            // A reader may have no right to write. It can still see the free space.
            Err(error) => Self::of(&error).or_else(|| is_full(folder).then_some(Self::Full)),
        }
    }

    /// Its name in the catalogue.
    pub(super) fn error_code(self) -> ErrorCode {
        match self {
            Self::Full | Self::Quota => ErrorCode::DiskFull,
            Self::ReadOnly => ErrorCode::JournalNotWritable,
            Self::Io => ErrorCode::JournalIo,
        }
    }

    /// What an operator can do about it.
    pub(super) fn next_step(self) -> &'static str {
        match self {
            Self::Full => "free space on the journal's file system (df -h; for its inodes df -i)",
            Self::Quota => {
                "raise the disk quota of the relay's user, or free space of that user on the journal's file system"
            }
            Self::ReadOnly => {
                "see in the kernel's log why the journal's file system is mounted read-only, and mount it for writing"
            }
            Self::Io => "check the disk, and what the kernel's log says of it",
        }
    }
}

/// Writes a small file in the folder, and removes it again. Nothing waits for the disk: the space is taken by
/// the write itself.
fn trial(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".vodrelay-trial-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let written = file.write_all(&[0; TRIAL_BYTES]);
    // The result of the write is the answer. A file that stays has a clear name and some kilobytes.
    let _ = fs::remove_file(&path);
    written
}

fn is_full(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|space| {
        let no_room = space.f_bavail.saturating_mul(space.f_frsize) < TRIAL_BYTES as u64;
        // Some file systems do not count inodes, and say 0 of 0.
        no_room || (space.f_files > 0 && space.f_favail == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_system_is_told_for_what_it_is() {
        let of = |errno: Errno| DiskFault::of(&io::Error::from(errno));
        for (errno, fault, code) in [
            (Errno::NOSPC, DiskFault::Full, "VR-204"),
            (Errno::DQUOT, DiskFault::Quota, "VR-204"),
            (Errno::ROFS, DiskFault::ReadOnly, "VR-206"),
            (Errno::IO, DiskFault::Io, "VR-207"),
        ] {
            assert_eq!(of(errno), Some(fault));
            assert_eq!(fault.error_code().to_string(), code);
        }
        assert!(DiskFault::Quota.next_step().contains("quota"));
        assert!(DiskFault::ReadOnly.next_step().contains("read-only"));
        for other in [Errno::ACCESS, Errno::PERM, Errno::NOENT, Errno::MFILE] {
            assert_eq!(of(other), None, "{other:?} says nothing about the disk");
        }
    }

    #[test]
    fn a_trial_leaves_nothing_behind_and_finds_no_fault_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(DiskFault::at(&folder.path().join("journal.db")), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
