//! The settings of uploads. Each open question of the documents has a switch. The stricter reading is the
//! default, because a client that works with it also works with the other one.

use serde::{Deserialize, Serialize};

/// The two readings of an open question: the cloud refuses, or it accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// It is refused.
    #[default]
    Refuse,
    /// It is accepted.
    Accept,
}

impl Policy {
    /// Whether it is accepted.
    pub fn accepts(self) -> bool {
        self == Self::Accept
    }
}

/// The requests that spend a one-time signature. The documents do not name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneTime {
    /// Every request. The web SDK fetches a new signature for each.
    #[default]
    EveryCall,
    /// `ApplyUploadUGC` only.
    Apply,
}

/// The form of the object storage's signature errors. Its documents disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureErrorForm {
    /// `RequestTimeTooSkewed`, `SignatureDoesNotMatch` and `InvalidAccessKeyId` are codes.
    #[default]
    Code,
    /// They are messages of the code `AccessDenied`.
    Message,
}

/// The limits and switches of uploads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UploadSettings {
    /// The life of a temporary key. The documents do not state it.
    pub credential_seconds: i64,
    /// How long a session can be committed, and its key be renewed.
    pub session_seconds: i64,
    /// The life of the parts of an incomplete upload. The documents do not state it.
    pub parts_seconds: i64,
    /// Whether `ApplyUpload` returns a temporary key. Without one, SDKs sign with the account's key.
    pub temporary_keys: bool,
    /// A second `CommitUpload` of a session: an error, or the first answer again.
    pub repeated_commit: Policy,
    /// `CommitUpload` without the medium or the cover.
    pub commit_without_object: Policy,
    /// A second `CompleteMultipartUpload` of an upload: 404, or the first answer again.
    pub repeated_complete: Policy,
    /// `HEAD` of an object under a temporary key.
    pub temporary_key_head: Policy,
    /// `ListMultipartUploads` under a temporary key. The vendor's SDKs rely on it.
    pub temporary_key_list_uploads: Policy,
    /// An XML declaration after the spaces of a slow `CompleteMultipartUpload`. The vendor's Python SDK cannot read it.
    pub declaration_after_spaces: Policy,
    /// An empty `SignKey` in `ModifyEventConfig`.
    pub empty_sign_key: Policy,
    /// `MediaStoragePath` in `ApplyUpload`. Only applications with paths have it.
    pub media_storage_path: Policy,
    /// Whether white space around a source context is removed.
    pub trim_source_context: bool,
    /// The requests that spend a one-time signature.
    pub one_time: OneTime,
    /// The form of the object storage's signature errors.
    pub signature_error_form: SignatureErrorForm,
    /// The smallest part but the last one, in bytes.
    pub min_part_bytes: u64,
    /// The existing procedures; any, if the list is empty.
    pub procedures: Vec<String>,
    /// The storage regions that are switched on; the first one is the default.
    pub storage_regions: Vec<String>,
    /// How long a procedure takes.
    pub procedure_ms: u64,
    /// The emulator keeps the content of objects up to this size, and only the digests of larger ones.
    pub keep_object_bytes: u64,
    /// The memory limit for content, parts in progress included.
    pub memory_bytes: u64,
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self {
            credential_seconds: 1_800,
            session_seconds: 86_400,
            parts_seconds: 86_400,
            temporary_keys: true,
            repeated_commit: Policy::Refuse,
            commit_without_object: Policy::Refuse,
            repeated_complete: Policy::Refuse,
            temporary_key_head: Policy::Refuse,
            temporary_key_list_uploads: Policy::Accept,
            declaration_after_spaces: Policy::Refuse,
            empty_sign_key: Policy::Refuse,
            media_storage_path: Policy::Refuse,
            trim_source_context: false,
            one_time: OneTime::EveryCall,
            signature_error_form: SignatureErrorForm::Code,
            min_part_bytes: 1024 * 1024,
            procedures: Vec::new(),
            storage_regions: vec!["ap-guangzhou".to_owned(), "ap-singapore".to_owned()],
            procedure_ms: 0,
            keep_object_bytes: 16 * 1024 * 1024,
            memory_bytes: 256 * 1024 * 1024,
        }
    }
}
