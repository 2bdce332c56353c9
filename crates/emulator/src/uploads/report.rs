//! A report on uploads, for tests and for `/_emulator/uploads`.

use serde::Serialize;

use super::Uploads;
use super::sessions::Medium;

/// The state of uploads, without keys and tokens.
#[derive(Clone, Debug, Serialize)]
pub struct UploadReport {
    /// The applications, the oldest first.
    pub sessions: Vec<SessionReport>,
    /// The media, by id.
    pub media: Vec<MediumReport>,
    /// The objects, by bucket and key.
    pub objects: Vec<ObjectReport>,
    /// The multipart uploads in progress.
    pub multipart: Vec<MultipartReport>,
    /// The bytes of content in memory.
    pub memory_bytes: u64,
}

/// An application for an upload.
#[derive(Clone, Debug, Serialize)]
pub struct SessionReport {
    /// The sub-application.
    pub sub_app_id: u64,
    /// The time of the application, in seconds since the Unix epoch.
    pub applied_at: i64,
    /// The key of the medium.
    pub media_key: Option<String>,
    /// The key of the cover.
    pub cover_key: Option<String>,
    /// The id of its medium.
    pub file_id: Option<String>,
}

/// A medium.
#[derive(Clone, Debug, Serialize)]
pub struct MediumReport {
    /// Its id.
    pub file_id: String,
    /// The sub-application.
    pub sub_app_id: u64,
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its MD5; empty if it is unknown.
    pub md5: String,
    /// The task id of its procedure; empty without one.
    pub procedure_task_id: String,
}

/// An object.
#[derive(Clone, Debug, Serialize)]
pub struct ObjectReport {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its MD5, if it is known.
    pub md5: Option<String>,
    /// CRC-64/XZ, in decimal.
    pub crc64: String,
    /// The number of its parts; 0 after a single PUT.
    pub parts: u16,
    /// How often a part was stored.
    pub parts_stored: u64,
    /// Whether its content is kept.
    pub kept: bool,
}

/// A multipart upload in progress.
#[derive(Clone, Debug, Serialize)]
pub struct MultipartReport {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Its id.
    pub upload_id: String,
    /// The numbers of its parts.
    pub parts: Vec<u16>,
}

impl UploadReport {
    pub(crate) fn of(uploads: &Uploads) -> Self {
        let key = |place: &Option<super::store::ObjectKey>| place.as_ref().map(|place| place.key.clone());
        let sessions = uploads.sessions.all().map(|session| SessionReport {
            sub_app_id: session.application.sub_app_id,
            applied_at: session.applied_at,
            media_key: key(&session.media),
            cover_key: key(&session.cover),
            file_id: session.committed.clone(),
        });
        let media = uploads.sessions.media().map(|medium: &Medium| MediumReport {
            file_id: medium.file_id.clone(),
            sub_app_id: medium.sub_app_id,
            name: medium.name.clone(),
            key: medium.place.key.clone(),
            size: medium.size,
            md5: medium.md5.clone(),
            procedure_task_id: medium.procedure_task_id.clone(),
        });
        let objects = uploads.store.objects().map(|(place, object)| ObjectReport {
            bucket: place.bucket.clone(),
            key: place.key.clone(),
            size: object.size,
            md5: object.md5.map(hex::encode),
            crc64: object.crc64.to_string(),
            parts: object.parts,
            parts_stored: object.parts_stored,
            kept: object.pieces().is_some(),
        });
        let multipart = uploads.store.all_uploads().map(|(id, upload)| MultipartReport {
            bucket: upload.place.bucket.clone(),
            key: upload.place.key.clone(),
            upload_id: id.to_owned(),
            parts: upload.parts.keys().copied().collect(),
        });
        Self {
            sessions: sessions.collect(),
            media: media.collect(),
            objects: objects.collect(),
            multipart: multipart.collect(),
            memory_bytes: uploads.store.memory_taken(),
        }
    }
}
