//! The requests of an upload, and what they answer. Source: "ApplyUpload", "CommitUpload", "ParseStreamingManifest" and
//! "DescribeStorageRegions" in the VOD documents, API version 2018-07-17.

use serde::{Deserialize, Serialize};
use tencent_vod_event::{SubAppId, Value};
use tencentcloud_signing::Secret;
use vodrelay_host::BootTime;

use crate::classify::{Action, RequestError};
use crate::wire::ApiAnswer;
use crate::{Client, Inner};

/// What is asked for a new medium. Texts that are `None` are not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ApplyUpload {
    /// The type of the medium, as a file name ends: `mp4`.
    pub media_type: String,
    /// Its name; the cloud makes one where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_name: Option<String>,
    /// The type of the cover, as a file name ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cover_type: Option<String>,
    /// The template of the task flow that begins when the medium is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub procedure: Option<String>,
    /// When the medium is deleted, in ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<String>,
    /// Where it is stored; the nearest enabled region where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_region: Option<String>,
    /// Its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_id: Option<i64>,
    /// Comes back in `NewFileUpload`; at most 250 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_context: Option<String>,
    /// Comes back in `ProcedureStateChanged`; at most 1,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_context: Option<String>,
}

/// Where a file may be uploaded to. It prints without its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The bucket, `name-appid`.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// What `CommitUpload` is asked for.
    pub session_key: String,
    /// The medium's path in the bucket, with a leading slash.
    pub media_path: String,
    /// The cover's path in the bucket, with a leading slash; absent when no cover was announced.
    pub cover_path: Option<String>,
    /// The temporary key.
    pub credential: TempCredential,
}

/// A temporary key for one upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TempCredential {
    /// `SecretId`.
    pub secret_id: String,
    /// `SecretKey`.
    #[serde(with = "exposed")]
    pub secret_key: Secret,
    /// The token that goes with it.
    #[serde(with = "exposed")]
    pub token: Secret,
    /// When it ends, in seconds since the Unix epoch.
    pub expires_at: i64,
}

/// A secret as the state file has it: the only place where one is written down, with mode 0600.
mod exposed {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use tencentcloud_signing::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}

/// A medium that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Its id.
    pub file_id: String,
    /// Where it can be had.
    pub media_url: String,
    /// Where its cover can be had, if it has one.
    pub cover_url: Option<String>,
    /// The cloud's id of the request.
    pub request_id: String,
}

/// What `CommitUpload` says of a session that it does not know, or no longer.
pub const UNKNOWN_SESSION: &str = "InvalidParameterValue.VodSessionKey";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a, T: Serialize> {
    #[serde(flatten)]
    what: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_app_id: Option<u64>,
}

impl Client {
    /// Asks where a file may be uploaded to.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. A repeat is harmless: an upload that is never committed becomes no medium.
    pub async fn apply_upload(
        &self,
        sub_app: SubAppId,
        upload: &ApplyUpload,
    ) -> Result<Applied, RequestError> {
        self.0.ask(Action::ApplyUpload, sub_app, upload).await?.into_applied()
    }

    /// Makes a medium of what was uploaded.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; if it may have acted, the same session key must be asked for again, and no other.
    pub async fn commit_upload(
        &self,
        sub_app: SubAppId,
        session_key: &str,
    ) -> Result<Committed, RequestError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct CommitUpload<'a> {
            vod_session_key: &'a str,
        }
        let what = CommitUpload { vod_session_key: session_key };
        self.0.ask(Action::CommitUpload, sub_app, &what).await?.into_committed()
    }

    /// The segments that a playlist names: `manifest` is its text, `kind` is `m3u8` or `mpd`.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn parse_streaming_manifest(
        &self,
        sub_app: SubAppId,
        manifest: &str,
        kind: &str,
    ) -> Result<Vec<String>, RequestError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Parse<'a> {
            media_manifest_content: &'a str,
            manifest_type: &'a str,
        }
        let what = Parse { media_manifest_content: manifest, manifest_type: kind };
        self.0.ask(Action::ParseStreamingManifest, sub_app, &what).await?.into_segments()
    }

    /// The regions in which an application can store now.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn describe_storage_regions(&self, sub_app: SubAppId) -> Result<Vec<String>, RequestError> {
        #[derive(Serialize)]
        struct Nothing {}
        self.0.ask(Action::DescribeStorageRegions, sub_app, &Nothing {}).await?.into_regions()
    }
}

impl Inner {
    async fn ask<T: Serialize>(
        &self,
        action: Action,
        sub_app: SubAppId,
        what: &T,
    ) -> Result<ApiAnswer, RequestError> {
        // The default application is asked for by not naming one.
        let asked = Question { what, sub_app_id: (sub_app != SubAppId(0)).then_some(sub_app.0) };
        let body = serde_json::to_vec(&asked).expect("texts and numbers are always JSON");
        self.call(action, sub_app, body, BootTime::now() + self.describe_timeout).await
    }
}

impl ApiAnswer {
    /// The answer as that of `ApplyUpload`.
    fn into_applied(self) -> Result<Applied, RequestError> {
        let certificate = self.member("TempCertificate");
        let within = |name: &str| {
            let value = certificate.as_ref()?.root().member(name)?;
            value.text().or_else(|| value.number()).map(std::borrow::Cow::into_owned)
        };
        let credential = (|| {
            Some(TempCredential {
                secret_id: within("SecretId")?,
                secret_key: within("SecretKey").map(Secret::new)?,
                token: within("Token").map(Secret::new)?,
                expires_at: within("ExpiredTime")?.parse().ok()?,
            })
        })();
        let slashed = |path: String| if path.starts_with('/') { path } else { format!("/{path}") };
        let text = |name| self.scalar(name).filter(|text| !text.is_empty());
        let applied = (|| {
            Some(Applied {
                bucket: text("StorageBucket")?,
                region: text("StorageRegion")?,
                session_key: text("VodSessionKey")?,
                media_path: text("MediaStoragePath").map(slashed)?,
                cover_path: text("CoverStoragePath").map(slashed),
                credential: credential?,
            })
        })();
        applied.ok_or_else(|| {
            self.strange(
                "the answer lacks the bucket, the region, the path, the session or the temporary key; an application of the \
                 Professional edition is uploaded to in another way",
            )
        })
    }

    /// The answer as that of `CommitUpload`.
    fn into_committed(self) -> Result<Committed, RequestError> {
        let file_id = self.scalar("FileId").filter(|id| !id.is_empty());
        match (file_id, &self.request_id) {
            (Some(file_id), Some(request_id)) => Ok(Committed {
                file_id,
                media_url: self.scalar("MediaUrl").unwrap_or_default(),
                cover_url: self.scalar("CoverUrl").filter(|url| !url.is_empty()),
                request_id: request_id.clone(),
            }),
            _ => Err(self.strange("the answer has no FileId")),
        }
    }

    fn into_segments(self) -> Result<Vec<String>, RequestError> {
        self.texts("MediaSegmentSet", |element| element.text().map(std::borrow::Cow::into_owned))
    }

    /// Only those that are switched on: `Status` is `opened`.
    fn into_regions(self) -> Result<Vec<String>, RequestError> {
        let open = self.texts("StorageRegionInfos", |element| {
            let text = |name| element.member(name).and_then(Value::text);
            let region = text("Region")?.into_owned();
            Some(if text("Status").as_deref() == Some("opened") { region } else { String::new() })
        })?;
        Ok(open.into_iter().filter(|region| !region.is_empty()).collect())
    }

    fn texts(
        &self,
        name: &str,
        read: impl Fn(Value<'_>) -> Option<String>,
    ) -> Result<Vec<String>, RequestError> {
        let Some(document) = self.member(name) else { return Ok(Vec::new()) };
        let texts: Option<Vec<String>> = document.root().elements().map(read).collect();
        texts.ok_or_else(|| self.strange(&format!("{name} is not a list of the documented shape")))
    }
}
