//! Applications for uploads, their temporary keys, and the media.

use std::collections::{BTreeMap, VecDeque};

use tencentcloud_signing::Secret;
use tencentcloud_signing::upload::TaskNotifyMode;

use super::settings::UploadSettings;
use super::store::{ObjectKey, ObjectStore};

/// The account of all media.
pub(crate) const APP_ID: u64 = 1_500_004_321;

/// The number of applications that are kept.
const MAX_SESSIONS: usize = 10_000;

/// The parameters of an application.
#[derive(Clone, Debug, Default)]
pub(crate) struct Application {
    pub(crate) sub_app_id: u64,
    /// `None` if only a cover is uploaded.
    pub(crate) media_type: Option<String>,
    pub(crate) media_name: String,
    pub(crate) cover_type: Option<String>,
    /// The medium whose cover is replaced.
    pub(crate) cover_of: Option<String>,
    pub(crate) procedure: Option<String>,
    pub(crate) task_priority: i64,
    pub(crate) task_notify_mode: Option<TaskNotifyMode>,
    pub(crate) storage_region: Option<String>,
    pub(crate) class_id: i64,
    pub(crate) source_context: String,
    pub(crate) session_context: String,
    pub(crate) expire_time: Option<String>,
    /// The requested path, with its leading slash.
    pub(crate) media_storage_path: Option<String>,
}

/// A temporary key.
#[derive(Clone, Debug)]
pub(crate) struct TemporaryKey {
    pub(crate) secret_id: String,
    pub(crate) secret_key: Secret,
    pub(crate) token: Secret,
    /// In seconds since the Unix epoch.
    pub(crate) expired_time: i64,
    session_key: String,
}

/// An application for an upload.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) key: String,
    pub(crate) applied_at: i64,
    pub(crate) application: Application,
    pub(crate) region: String,
    pub(crate) media: Option<ObjectKey>,
    pub(crate) cover: Option<ObjectKey>,
    /// The id of its medium.
    pub(crate) committed: Option<String>,
}

impl Session {
    /// Whether a key of this upload gives access to an object: the medium, the cover, and the files in the
    /// folder of a manifest.
    fn covers(&self, place: &ObjectKey) -> bool {
        if self.media.as_ref() == Some(place) || self.cover.as_ref() == Some(place) {
            return true;
        }
        self.folder().is_some_and(|(bucket, folder)| {
            place.bucket == bucket && place.key.starts_with(folder) && is_plain(&place.key)
        })
    }

    /// The folder of a manifest.
    fn folder(&self) -> Option<(&str, &str)> {
        let manifest = self.application.media_type.as_deref().is_some_and(is_manifest);
        let place = self.media.as_ref().filter(|_| manifest)?;
        let end = place.key.rfind('/')? + 1;
        Some((&place.bucket, &place.key[..end]))
    }

    /// Whether a key of this upload may list the uploads below a prefix.
    fn covers_list(&self, bucket: &str, prefix: &str) -> bool {
        let below = |place: &ObjectKey| place.bucket == bucket && place.key == prefix;
        let in_folder = self.folder().is_some_and(|(of, folder)| of == bucket && prefix.starts_with(folder));
        in_folder || self.media.as_ref().is_some_and(below) || self.cover.as_ref().is_some_and(below)
    }
}

/// Whether media of this type list other files.
pub(crate) fn is_manifest(media_type: &str) -> bool {
    matches!(media_type.to_ascii_lowercase().as_str(), "m3u8" | "mpd")
}

/// Whether no part of a key is empty, `.` or `..`.
pub(crate) fn is_plain(key: &str) -> bool {
    !key.contains('\0') && key.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// An access under a temporary key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access<'a> {
    /// One object.
    Object(&'a ObjectKey),
    /// The uploads of a bucket with this prefix.
    List { bucket: &'a str, prefix: &'a str },
}

/// A committed upload.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    /// Its id.
    pub(crate) file_id: String,
    /// The sub-application.
    pub(crate) sub_app_id: u64,
    /// Its name.
    pub(crate) name: String,
    /// Its type, such as `mp4`.
    pub(crate) media_type: String,
    /// Its place in the object storage.
    pub(crate) place: ObjectKey,
    /// Its storage region.
    pub(crate) storage_region: String,
    /// Its URL.
    pub(crate) media_url: String,
    /// The URL of its cover; empty without one.
    pub(crate) cover_url: String,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its MD5 in hex; empty if it is unknown.
    pub(crate) md5: String,
    /// The source context of the upload.
    pub(crate) source_context: String,
    /// The task id of its procedure; empty without one.
    pub(crate) procedure_task_id: String,
    pub(crate) class_id: i64,
    pub(crate) expire_time: String,
    pub(crate) created_at: i64,
}

/// Why an upload cannot be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitRefusal {
    /// There is no such session, or it is expired.
    UnknownSession,
    /// It belongs to another sub-application.
    OtherSubApp,
    /// It was committed before.
    Repeated,
    /// The medium or the cover is missing.
    NoObject,
}

/// The result of a commit.
#[derive(Clone, Debug)]
pub(crate) struct CommittedUpload {
    pub(crate) medium: Medium,
    pub(crate) session: Session,
    /// Whether it made a new medium, which has events.
    pub(crate) first: bool,
}

/// All applications and media.
#[derive(Debug)]
pub(crate) struct Sessions {
    sessions: BTreeMap<String, Session>,
    order: VecDeque<String>,
    keys: BTreeMap<String, TemporaryKey>,
    media: BTreeMap<String, Medium>,
    rng: fastrand::Rng,
    made: u64,
}

impl Sessions {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            sessions: BTreeMap::new(),
            order: VecDeque::new(),
            keys: BTreeMap::new(),
            media: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(seed ^ 0x75_706c_6f61_6473),
            made: 0,
        }
    }

    fn letters(&mut self, count: usize) -> String {
        (0..count).map(|_| self.rng.alphanumeric()).collect()
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.rng.u64(..)
    }

    /// A new id of a medium.
    fn file_id(&mut self) -> String {
        self.made += 1;
        format!("{}{:06}", self.rng.u64(5_285_000_000_000..5_286_000_000_000), self.made % 1_000_000)
    }

    /// Records an application and returns its places.
    pub(crate) fn apply(&mut self, application: Application, region: String, now: i64) -> Session {
        let bucket = bucket_of(&region);
        let folder = format!("{:08x}vodcq{APP_ID}/{:016x}{:08x}", self.rng.u32(..), self.random(), self.made);
        self.made += 1;
        let place = |key: String| ObjectKey { bucket: bucket.clone(), key };
        let media = application.media_type.as_ref().map(|media_type| {
            place(match &application.media_storage_path {
                Some(path) => path.trim_start_matches('/').to_owned(),
                None => format!("{folder}/f0.{media_type}"),
            })
        });
        let cover =
            application.cover_type.as_ref().map(|cover_type| place(format!("{folder}/cover.{cover_type}")));
        // It has the form of the cloud's keys and no meaning.
        let key = format!("{}{:08x}==", self.letters(120), self.made);
        let session =
            Session { key: key.clone(), applied_at: now, application, region, media, cover, committed: None };
        self.sessions.insert(key.clone(), session.clone());
        self.order.push_back(key);
        while self.order.len() > MAX_SESSIONS {
            let oldest = self.order.pop_front().unwrap_or_default();
            self.sessions.remove(&oldest);
            self.keys.retain(|_, key| key.session_key != oldest);
        }
        session
    }

    /// A new key for an upload. Earlier keys stay valid until they expire.
    pub(crate) fn temporary_key(&mut self, session: &Session, life: i64, now: i64) -> TemporaryKey {
        let key = TemporaryKey {
            secret_id: format!("AKIDtemporary{}", self.letters(40)),
            secret_key: Secret::new(self.letters(44)),
            token: Secret::new(self.letters(200)),
            expired_time: now.saturating_add(life),
            session_key: session.key.clone(),
        };
        self.keys.retain(|_, old| old.session_key != session.key || old.expired_time >= now);
        self.keys.insert(key.secret_id.clone(), key.clone());
        key
    }

    pub(crate) fn key(&self, secret_id: &str) -> Option<&TemporaryKey> {
        self.keys.get(secret_id)
    }

    /// Whether a temporary key permits an access.
    pub(crate) fn allows(&self, key: &TemporaryKey, access: Access<'_>) -> bool {
        let Some(session) = self.sessions.get(&key.session_key) else { return false };
        match access {
            Access::Object(place) => session.covers(place),
            Access::List { bucket, prefix } => session.covers_list(bucket, prefix),
        }
    }

    /// The session of a key, if it is not expired.
    pub(crate) fn session(&self, key: &str, settings: &UploadSettings, now: i64) -> Option<&Session> {
        let session = self.sessions.get(key)?;
        (now.saturating_sub(session.applied_at) < settings.session_seconds).then_some(session)
    }

    /// All sessions, the oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Session> {
        self.order.iter().filter_map(|key| self.sessions.get(key))
    }

    pub(crate) fn medium(&self, file_id: &str) -> Option<&Medium> {
        self.media.get(file_id)
    }

    pub(crate) fn media(&self) -> impl Iterator<Item = &Medium> {
        self.media.values()
    }

    /// Makes a medium of an upload.
    pub(crate) fn commit(
        &mut self,
        key: &str,
        sub_app_id: u64,
        store: &ObjectStore,
        settings: &UploadSettings,
        now: i64,
    ) -> Result<CommittedUpload, CommitRefusal> {
        let session = self.session(key, settings, now).ok_or(CommitRefusal::UnknownSession)?.clone();
        if session.application.sub_app_id != sub_app_id {
            return Err(CommitRefusal::OtherSubApp);
        }
        if let Some(medium) = session.committed.as_ref().and_then(|file_id| self.media.get(file_id)) {
            return match settings.repeated_commit.accepts() {
                true => Ok(CommittedUpload { medium: medium.clone(), session, first: false }),
                false => Err(CommitRefusal::Repeated),
            };
        }
        let missing =
            [&session.media, &session.cover].into_iter().flatten().any(|place| store.object(place).is_none());
        if missing && !settings.commit_without_object.accepts() {
            return Err(CommitRefusal::NoObject);
        }
        let cover_url = session.cover.as_ref().map(url_of).unwrap_or_default();
        let medium = match (&session.media, &session.application.cover_of) {
            (Some(place), _) => self.new_medium(&session, place, cover_url, store, settings, now),
            (None, Some(file_id)) => {
                let medium = self.media.get_mut(file_id).ok_or(CommitRefusal::NoObject)?;
                medium.cover_url = cover_url;
                medium.clone()
            }
            (None, None) => return Err(CommitRefusal::NoObject),
        };
        let first = session.media.is_some();
        if let Some(session) = self.sessions.get_mut(key) {
            session.committed = Some(medium.file_id.clone());
        }
        self.media.insert(medium.file_id.clone(), medium.clone());
        Ok(CommittedUpload { medium, session, first })
    }

    fn new_medium(
        &mut self,
        session: &Session,
        place: &ObjectKey,
        cover_url: String,
        store: &ObjectStore,
        settings: &UploadSettings,
        now: i64,
    ) -> Medium {
        let application = &session.application;
        let object = store.object(place);
        let context = application.source_context.as_str();
        let context = if settings.trim_source_context { context.trim() } else { context };
        let known = |name: &String| settings.procedures.is_empty() || settings.procedures.contains(name);
        let procedure_task_id = match application.procedure.as_ref().filter(|name| known(name)) {
            Some(_) => self.task_id("Procedure"),
            None => String::new(),
        };
        Medium {
            file_id: self.file_id(),
            sub_app_id: application.sub_app_id,
            name: application.media_name.clone(),
            media_type: application.media_type.clone().unwrap_or_default(),
            place: place.clone(),
            storage_region: session.region.clone(),
            media_url: url_of(place),
            cover_url,
            size: object.map_or(0, |object| object.size),
            md5: object.and_then(|object| object.md5).map(hex::encode).unwrap_or_default(),
            source_context: context.to_owned(),
            procedure_task_id,
            class_id: application.class_id,
            expire_time: application.expire_time.clone().unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned()),
            created_at: now,
        }
    }

    /// The id of a new task.
    pub(crate) fn task_id(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{APP_ID}-{kind}-{:016x}{:08x}t0", self.random(), self.made)
    }
}

/// The bucket of a region.
pub(crate) fn bucket_of(region: &str) -> String {
    let name: String = region.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("vod{}-{APP_ID}", name.to_ascii_lowercase())
}

/// The playback URL of an object.
fn url_of(place: &ObjectKey) -> String {
    let key: Vec<_> = place.key.split('/').map(tencentcloud_signing::encode).collect();
    format!("http://{APP_ID}.vod2.myqcloud.com/{}", key.join("/"))
}
