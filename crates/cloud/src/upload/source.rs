//! The file that is uploaded: opened once, and looked at again before anything of it counts.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cos::digest::{PartDigests, PartHasher};

/// What is read at a time of a part that is not held in memory.
pub(crate) const READ_BYTES: u64 = 1024 * 1024;

/// What tells whether a file is the one that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Bytes.
    pub size: u64,
    /// When its content changed last, in nanoseconds since the Unix epoch.
    pub modified_ns: i128,
    /// Its number on its file system.
    pub inode: u64,
    /// Its file system.
    pub device: u64,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Self { size: metadata.size(), modified_ns, inode: metadata.ino(), device: metadata.dev() }
    }
}

/// Why a file cannot be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened or read.
    #[error("the file {path} cannot be read: {cause}; check the path and its permissions", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("{path} is not a regular file; name a file, and write a pipe into one first", path = path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is empty.
    #[error("the file {path} is empty; there is nothing to upload", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than the cloud takes.
    #[error("the file {path} has {size} bytes, and the cloud takes 50,000 GB at most; split it", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// It is not the one that it was.
    #[error("the file {path} changed while it was uploaded; upload it when it is complete", path = path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// An open file.
#[derive(Debug)]
pub struct SourceFile {
    path: PathBuf,
    file: File,
    identity: FileIdentity,
}

impl SourceFile {
    /// Opens a file. Blocks.
    ///
    /// # Errors
    ///
    /// [`SourceError`]: it cannot be read, is no regular file, is empty, or is too large.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
        // Opening a pipe would wait for somebody who writes to it.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(SourceError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let identity = FileIdentity::of(&metadata);
        match identity.size {
            _ if !metadata.is_file() => Err(SourceError::NotAFile { path: path.to_owned() }),
            0 => Err(SourceError::Empty { path: path.to_owned() }),
            size if size > super::plan::LARGEST_FILE => {
                Err(SourceError::TooLarge { path: path.to_owned(), size })
            }
            _ => Ok(Self { path: path.to_owned(), file, identity }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was when it was opened.
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Reads `length` bytes from `offset` on. Blocks.
    ///
    /// # Errors
    ///
    /// [`SourceError::Changed`] when the file is not the one that it was, before or after; [`SourceError::Unreadable`].
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, SourceError> {
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(SourceError::Changed { path: self.path.clone() });
            }
            Err(cause) => return Err(SourceError::Unreadable { path: self.path.clone(), cause }),
        }
        self.check()?;
        Ok(bytes)
    }

    /// The digests of `length` bytes from `offset` on, read a piece at a time. Blocks.
    ///
    /// # Errors
    ///
    /// See [`SourceFile::read`].
    pub fn digests(&self, offset: u64, length: u64) -> Result<PartDigests, SourceError> {
        let (mut hasher, mut done) = (PartHasher::default(), 0);
        while done < length {
            let piece = READ_BYTES.min(length - done);
            hasher.update(&self.read(offset + done, usize::try_from(piece).unwrap_or(usize::MAX))?);
            done += piece;
        }
        Ok(hasher.finish())
    }

    /// Looks whether the open file, and the one that the path names, are the one that was opened. Blocks.
    ///
    /// # Errors
    ///
    /// [`SourceError::Changed`], or that it cannot be looked at.
    pub fn check(&self) -> Result<(), SourceError> {
        let unreadable = |cause| SourceError::Unreadable { path: self.path.clone(), cause };
        let open = FileIdentity::of(&self.file.metadata().map_err(unreadable)?);
        let named = std::fs::metadata(&self.path).map(|metadata| FileIdentity::of(&metadata));
        // A file that was renamed or removed meanwhile is still the one that was opened.
        let replaced = named.is_ok_and(|named| named.inode == open.inode && named != self.identity);
        if open == self.identity && !replaced {
            Ok(())
        } else {
            Err(SourceError::Changed { path: self.path.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_with_content_is_uploaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        assert!(matches!(SourceFile::open(&path), Err(SourceError::Unreadable { .. })));
        assert!(matches!(SourceFile::open(folder.path()), Err(SourceError::NotAFile { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(SourceFile::open(&path), Err(SourceError::Empty { .. })));
        std::fs::write(&path, "0123456789").unwrap();
        let file = SourceFile::open(&path).unwrap();
        assert_eq!(file.read(3, 4).unwrap(), b"3456");
        assert!(matches!(file.read(8, 4), Err(SourceError::Changed { .. })), "it is shorter than it was");
    }

    #[test]
    fn a_file_that_changes_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        std::fs::write(&path, "0123456789").unwrap();
        let file = SourceFile::open(&path).unwrap();
        file.check().unwrap();
        std::fs::rename(&path, folder.path().join("b.mp4")).unwrap();
        file.check().unwrap();
        std::fs::write(folder.path().join("b.mp4"), "012345678X").unwrap();
        assert!(matches!(file.check(), Err(SourceError::Changed { .. })));
        assert!(matches!(file.read(0, 1), Err(SourceError::Changed { .. })));
    }
}
