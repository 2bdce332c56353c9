//! What is written down of an upload, so that a later process can go on: one file an upload, readable by its owner alone, because it
//! holds the temporary key.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tencent_vod_event::SubAppId;
use url::Url;

use super::api::ApplyUpload;
use super::plan::{Phase, UploadProgress};
use super::source::FileIdentity;

/// A session can be resumed for a day ("Upload from web", VOD documents).
pub const RESUMABLE_SECONDS: i64 = 24 * 60 * 60;

/// The form of the file. A file with another number is refused, because its meaning is not known.
const FORM: u32 = 1;

/// An object beside the medium: its cover, or a segment of a playlist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it was when the upload began.
    pub identity: FileIdentity,
    /// Its path in the bucket, beside the medium's; `None` for the cover, whose path the cloud names.
    pub beside: Option<String>,
}

/// Everything about one upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    form: u32,
    /// Its name here: eight hex digits.
    pub id: String,
    /// The medium's file.
    pub path: PathBuf,
    /// What it was when the upload began.
    pub identity: FileIdentity,
    /// The objects beside it, in their order.
    pub others: Vec<OtherFile>,
    /// For which application.
    pub sub_app: u64,
    /// What is asked for.
    pub apply: ApplyUpload,
    /// The API's address.
    pub endpoint: Url,
    /// The object storage's address, if it is not the cloud's own.
    pub cos_endpoint: Option<Url>,
    /// When it began, in seconds since the Unix epoch.
    pub began_at: i64,
    /// The process that works on it, while one does.
    pub process: Option<u32>,
    /// How far it is; `None` before `ApplyUpload` answered.
    pub progress: Option<UploadProgress>,
}

impl UploadRecord {
    /// A record of an upload that begins now.
    #[expect(clippy::too_many_arguments, reason = "each is a field of the record, and none has a default")]
    pub fn new(
        id: String,
        path: PathBuf,
        identity: FileIdentity,
        others: Vec<OtherFile>,
        sub_app: SubAppId,
        apply: ApplyUpload,
        endpoint: Url,
        cos_endpoint: Option<Url>,
        began_at: i64,
    ) -> Self {
        let (sub_app, process, progress) = (sub_app.0, None, None);
        Self {
            form: FORM,
            id,
            path,
            identity,
            others,
            sub_app,
            apply,
            endpoint,
            cos_endpoint,
            began_at,
            process,
            progress,
        }
    }

    /// Until when it can be gone on from, in seconds since the Unix epoch; `None` before there is anything to go on from.
    pub fn resumable_until(&self) -> Option<i64> {
        self.progress.as_ref().map(|progress| progress.applied_at + RESUMABLE_SECONDS)
    }

    /// Whether a `CommitUpload` may have taken effect: then a new upload of the same file could make a second medium.
    pub fn may_be_committed(&self) -> bool {
        self.progress
            .as_ref()
            .is_some_and(|progress| matches!(progress.phase, Phase::Committing | Phase::Committed(_)))
    }
}

/// Why a record cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The folder or a file in it cannot be read or written.
    #[error("{path} cannot be used: {cause}; choose another folder with --state-dir", path = path.display())]
    Unusable {
        /// The folder or the file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// Another process works on it.
    #[error(
        "the upload {id} is being worked on by another process; wait for it, or stop it with `vodrelay uploads pause {id}`"
    )]
    InUse {
        /// The upload.
        id: String,
    },
    /// There is none of this name.
    #[error("there is no upload {id}; `vodrelay uploads list` shows those that there are")]
    Unknown {
        /// The name.
        id: String,
    },
    /// It cannot be understood.
    #[error("the record {path} cannot be understood ({cause}); remove it, and upload again if no medium was made", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// The folder of records.
#[derive(Clone, Debug)]
pub struct RecordFolder(PathBuf);

impl RecordFolder {
    /// The folder at `path`; made when the first record is.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    fn unusable(path: &Path) -> impl FnOnce(io::Error) -> RecordError {
        let path = path.to_owned();
        move |cause| RecordError::Unusable { path, cause }
    }

    /// Takes hold of a record, new or old: no other process has it until the hold is dropped. Blocks.
    ///
    /// # Errors
    ///
    /// [`RecordError::InUse`] when another process has it; or the folder cannot be used.
    pub fn hold(&self, id: &str) -> Result<HeldRecord, RecordError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(Self::unusable(&self.0))?;
        let lock_path = self.0.join(format!("{id}.lock"));
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = open.map_err(Self::unusable(&lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(HeldRecord { folder: self.clone(), id: id.to_owned(), lock_path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(RecordError::InUse { id: id.to_owned() }),
            Err(error) => Err(RecordError::Unusable { path: lock_path, cause: error.into() }),
        }
    }

    /// Whether a process works on it now. Blocks.
    pub fn is_held(&self, id: &str) -> bool {
        let Ok(lock) = File::open(self.0.join(format!("{id}.lock"))) else { return false };
        flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// Reads a record. Blocks.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: unknown, unreadable, or damaged.
    pub fn read(&self, id: &str) -> Result<UploadRecord, RecordError> {
        let path = self.file(id);
        let named = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let text = match std::fs::read(&path) {
            _ if !named => return Err(RecordError::Unknown { id: id.to_owned() }),
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecordError::Unknown { id: id.to_owned() });
            }
            Err(cause) => return Err(RecordError::Unusable { path, cause }),
        };
        let damaged = |cause: String| RecordError::Damaged { path: path.clone(), cause };
        let record: UploadRecord =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if record.form != FORM {
            return Err(damaged(format!("it is of form {}, and this program knows {FORM}", record.form)));
        }
        Ok(record)
    }

    /// Every record, the oldest first; one that cannot be read is an error of its own. Blocks.
    ///
    /// # Errors
    ///
    /// [`RecordError::Unusable`] when the folder cannot be read. No folder has no records.
    pub fn list(&self) -> Result<Vec<Result<UploadRecord, RecordError>>, RecordError> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(RecordError::Unusable { path: self.0.clone(), cause }),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<String> =
            names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
        ids.sort();
        let mut records: Vec<_> = ids.iter().map(|id| self.read(id)).collect();
        records.sort_by_key(|record| record.as_ref().map_or(i64::MAX, |record| record.began_at));
        Ok(records)
    }
}

/// A record that this process works on.
#[derive(Debug)]
pub struct HeldRecord {
    folder: RecordFolder,
    id: String,
    lock_path: PathBuf,
    _lock: File,
}

impl HeldRecord {
    /// Writes the record: whole or not at all, and on the disk when this returns. Blocks.
    ///
    /// # Errors
    ///
    /// [`RecordError::Unusable`]; the record that was there stays.
    pub fn write(&self, record: &UploadRecord) -> Result<(), RecordError> {
        let (path, new) = (self.folder.file(&self.id), self.folder.0.join(format!("{}.new", self.id)));
        let text = serde_json::to_vec_pretty(record).expect("a record is JSON");
        let written = (|| {
            let mut file =
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(&self.folder.0)?.sync_all()
        })();
        written.map_err(RecordFolder::unusable(&path))
    }

    /// Removes the record: there is nothing to go on from any more. Blocks.
    ///
    /// # Errors
    ///
    /// [`RecordError::Unusable`].
    pub fn remove(self) -> Result<(), RecordError> {
        let path = self.folder.file(&self.id);
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(RecordError::Unusable { path, cause })
            }
            _ => {
                // Only a name goes: a process that still holds the lock keeps it.
                let _gone = std::fs::remove_file(&self.lock_path);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> UploadRecord {
        UploadRecord::new(
            id.to_owned(),
            "/films/a.mp4".into(),
            FileIdentity { size: 1, modified_ns: 2, inode: 3, device: 4 },
            Vec::new(),
            SubAppId(7),
            ApplyUpload { media_type: "mp4".to_owned(), ..ApplyUpload::default() },
            Url::parse("https://vod.tencentcloudapi.com").unwrap(),
            None,
            1_000,
        )
    }

    #[test]
    fn a_record_is_written_whole_read_again_and_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RecordFolder::new(parent.path().join("state/uploads"));
        assert!(folder.list().unwrap().is_empty());
        let held = folder.hold("aa").unwrap();
        held.write(&record("aa")).unwrap();
        assert_eq!(folder.read("aa").unwrap(), record("aa"));
        let mode = std::fs::metadata(folder.file("aa")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(folder.hold("aa"), Err(RecordError::InUse { .. })));
        assert!(folder.is_held("aa") && !folder.is_held("bb"));
        held.remove().unwrap();
        assert!(!folder.is_held("aa") && matches!(folder.read("aa"), Err(RecordError::Unknown { .. })));
        assert!(matches!(folder.read("../aa"), Err(RecordError::Unknown { .. })));
    }

    #[test]
    fn a_record_that_cannot_be_understood_is_an_error_of_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RecordFolder::new(parent.path().to_owned());
        folder.hold("aa").unwrap().write(&record("aa")).unwrap();
        std::fs::write(folder.file("bb"), "{").unwrap();
        let of_later = serde_json::to_string(&record("cc")).unwrap().replace("\"form\":1", "\"form\":2");
        std::fs::write(folder.file("cc"), of_later).unwrap();
        let listed = folder.list().unwrap();
        assert_eq!(listed.iter().filter(|record| record.is_ok()).count(), 1);
        assert_eq!(
            listed.iter().filter(|record| matches!(record, Err(RecordError::Damaged { .. }))).count(),
            2
        );
    }
}
