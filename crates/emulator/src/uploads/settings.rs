//! How uploads behave where it can be set. What the documents leave open has a switch each, and the stricter reading is the
//! default: a client that can live with it can live with the other one.

use serde::{Deserialize, Serialize};

/// What an open question's two readings are called: the cloud refuses, or it accepts.
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

/// When a one-time signature is spent. The documents say that a spent one is refused, and not which calls spend it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneTime {
    /// By every call: the web SDK fetches a new one for each.
    #[default]
    EveryCall,
    /// By `ApplyUploadUGC` alone.
    Apply,
}

/// How the object storage words what is wrong with a signature. Its own documents disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureErrorForm {
    /// `RequestTimeTooSkewed`, `SignatureDoesNotMatch` and the like are codes.
    #[default]
    Code,
    /// They are the message of the code `AccessDenied`.
    Message,
}

/// The figures and switches of uploads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UploadSettings {
    /// How long a temporary key can be used. The documents do not say.
    pub credential_seconds: i64,
    /// How long an upload that was applied for can be committed, and its key be renewed.
    pub session_seconds: i64,
    /// How long the parts of an upload that nobody completes are kept. The documents do not say.
    pub parts_seconds: i64,
    /// Whether `ApplyUpload` gives a temporary key at all. Without one, SDKs sign with the caller's own.
    pub temporary_keys: bool,
    /// A second `CommitUpload` of an upload: refused, or answered like the first.
    pub repeated_commit: Policy,
    /// `CommitUpload` before everything is there that was applied for.
    pub commit_without_object: Policy,
    /// A second `CompleteMultipartUpload` of an upload: 404, or answered like the first.
    pub repeated_complete: Policy,
    /// `HEAD` of an object under a temporary key.
    pub temporary_key_head: Policy,
    /// `ListMultipartUploads` under a temporary key. The vendor's SDKs rely on it.
    pub temporary_key_list_uploads: Policy,
    /// An XML declaration after the spaces of a slow `CompleteMultipartUpload`. The vendor's Python SDK cannot read it.
    pub declaration_after_spaces: Policy,
    /// An empty `SignKey` of `ModifyEventConfig`, meant to clear it.
    pub empty_sign_key: Policy,
    /// `MediaStoragePath` of `ApplyUpload`, which applications of one kind take.
    pub media_storage_path: Policy,
    /// A source context comes back without the white space around it.
    pub trim_source_context: bool,
    /// Which calls spend a one-time signature.
    pub one_time: OneTime,
    /// How the object storage words what is wrong with a signature.
    pub signature_error_form: SignatureErrorForm,
    /// The smallest part but the last one, in bytes.
    pub min_part_bytes: u64,
    /// The procedures that exist; any when it is empty.
    pub procedures: Vec<String>,
    /// The storage regions that are switched on; the first one is the default.
    pub storage_regions: Vec<String>,
    /// How long a procedure takes.
    pub procedure_ms: u64,
    /// Content of objects up to this size is kept; of larger ones the digests are.
    pub keep_object_bytes: u64,
    /// How much content is held in memory at most, that of parts under way included.
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
