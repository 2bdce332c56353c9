//! What an upload's plan takes and gives.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{WHOLE_BELOW, part_size};
use crate::upload::api::{Applied, Committed};

/// What is fixed for the life of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the medium's file.
    pub size: u64,
    /// How many objects are beside it: a cover, segments of a playlist. They are sent whole.
    pub others: u32,
    /// How many parts are under way at once.
    pub concurrency: u32,
}

impl Shape {
    /// How many parts the file has; none when it is sent whole.
    pub fn parts(&self) -> u32 {
        if self.size < WHOLE_BELOW {
            0
        } else {
            u32::try_from(self.size.div_ceil(part_size(self.size))).unwrap_or(u32::MAX)
        }
    }
}

/// How far an upload is. What is saved is what a later process goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Objects and parts are being sent.
    Sending,
    /// The parts may have been put together.
    Completing,
    /// `CommitUpload` may have been called.
    Committing,
    /// The medium is there.
    Committed(Committed),
}

/// What a later process needs to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadProgress {
    /// Where the file goes, and the temporary key for it.
    pub applied: Applied,
    /// When `ApplyUpload` answered, in seconds since the Unix epoch: the session can be resumed for a day.
    pub applied_at: i64,
    /// The multipart upload, once there is one.
    pub upload_id: Option<String>,
    /// How many of the objects beside the medium are stored; they go in order.
    pub others_done: u32,
    /// Whether the object storage answered that it has the whole file.
    pub proven: bool,
    /// How far the upload is.
    pub phase: Phase,
}

/// What proves one part: its MD5 is also its `ETag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartProof {
    /// The `ETag` as the service gave it, without quotes.
    pub etag: String,
    /// CRC-64/XZ of its bytes.
    pub crc64: u64,
}

/// Why a request to the object storage did not do what it should, by what the plan does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// It may pass; the request may have taken effect.
    Unanswered,
    /// The service failed. Nothing was stored.
    Later,
    /// The service asks for fewer requests at a time. Nothing was stored.
    SlowDown,
    /// The temporary key is over.
    KeyOver,
    /// The service does not know the multipart upload: it was aborted, completed, or never there.
    NoSuchUpload,
    /// The file's bytes could not be read, or it is not the one that it was.
    File,
    /// No repeat helps.
    Refused,
}

/// Why a request to the API did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFailure {
    /// It may pass. Whether it took effect is not known.
    Unanswered,
    /// It may pass. It did not take effect.
    Later,
    /// `CommitUpload` does not know the session.
    UnknownSession,
    /// No repeat helps.
    Refused,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadInput {
    /// `ApplyUpload` was answered, at this time in seconds since the Unix epoch.
    Applied(Result<Applied, ApiFailure>),
    /// What was to be saved is saved.
    Saved,
    /// It cannot be saved: what would follow is not done.
    SaveFailed,
    /// An object beside the medium is stored.
    OtherPut(u32, Result<(), StoreFailure>),
    /// The file is stored as one object.
    WholePut(Result<(), StoreFailure>),
    /// There is a multipart upload of this id.
    Initiated(Result<String, StoreFailure>),
    /// The parts that the service has, by their numbers, each with its `ETag`.
    Listed(Result<BTreeMap<u32, String>, StoreFailure>),
    /// A part is stored, or was found to be what the service has.
    PartDone(u32, Result<PartProof, StoreFailure>),
    /// The part that the service has is not what the file has.
    PartDiffers(u32),
    /// Whether the file is the one that it was.
    FileChecked(bool),
    /// The parts are one object now.
    Completed(Result<(), StoreFailure>),
    /// `CommitUpload` was answered.
    CommitAnswered(Result<Committed, ApiFailure>),
    /// The person wants to stop, and to go on later.
    Pause,
    /// The person does not want the upload any more.
    Cancel,
    /// The multipart upload is gone, or could not be removed.
    Aborted,
}

/// What shall be done. Each comes back as an [`UploadInput`]; `after` is how long to wait first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadEffect {
    /// How long to wait before it.
    pub after: Duration,
    /// What to do.
    pub act: Act,
}

/// See [`UploadEffect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Call `ApplyUpload`.
    Apply,
    /// Save this, and replace what was saved before.
    Save(Box<UploadProgress>),
    /// Store the object of this number beside the medium.
    PutOther(u32),
    /// Store the file as one object.
    PutWhole,
    /// Begin a multipart upload.
    Initiate,
    /// List the parts of the multipart upload.
    List,
    /// Read a part. Send it, unless the service has one of this `ETag` and it is the same.
    Part {
        /// Its number, from 1.
        number: u32,
        /// The `ETag` of the part that the service has.
        stored: Option<String>,
        /// Whether the service may have it and did not say so: ask it first, and send the part only if it does not.
        ask_first: bool,
    },
    /// Look whether the file is the one that it was.
    CheckFile,
    /// Put the parts together.
    Complete(BTreeMap<u32, PartProof>),
    /// Remove the parts that were stored.
    Abort,
    /// Call `CommitUpload`.
    Commit,
    /// The upload ends here.
    Finish(UploadOutcome),
}

/// How an upload ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadOutcome {
    /// The medium is there. `proven` says whether the checksum of the whole was seen.
    Committed {
        /// The medium.
        medium: Committed,
        /// Whether the object storage answered that it has the whole file.
        proven: bool,
    },
    /// Whether the medium is there is not known: the journal may tell.
    PerhapsCommitted,
    /// What was sent stays, and can be gone on from.
    Paused,
    /// Nothing was committed, and the parts were removed.
    Cancelled,
    /// Nothing was committed.
    Failed(Failed),
}

/// Why nothing was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The file changed while it was sent. What was stored was removed.
    FileChanged,
    /// No repeat helps; see the last error.
    Refused,
    /// Every try failed; see the last error. What was sent stays, and can be gone on from.
    GaveUp,
    /// The temporary key ended, or the parts were gone, more often than the upload begins again.
    KeyOver,
}
