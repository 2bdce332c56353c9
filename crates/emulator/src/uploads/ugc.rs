//! The requests of the web SDK: `POST /v3/index.php?Action=…`, under a signature for client uploads. They are
//! undocumented; this module follows the source of the SDK.

use std::sync::Arc;

use serde_json::{Value, json};
use tencentcloud_signing::upload::{Grant, Signature};

use super::actions::{apply, commit, is_type, tell};
use super::sessions::{APP_ID, Application, CommitRefusal, Session};
use super::settings::OneTime;
use crate::action::Action;
use crate::state::{Cloud, State, wall_seconds};

/// The largest lead of a signer's clock, in seconds.
const CLOCK_AHEAD: i64 = 300;

/// The longest name of a medium, in characters.
const MAX_NAME: usize = 512;

/// Why a request is refused. The client's documents name some of the codes; the others are the emulator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UgcError {
    pub(crate) code: i64,
    pub(crate) message: String,
}

impl UgcError {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn signature(message: impl Into<String>) -> Self {
        Self::new(1001, message)
    }
}

/// The parameters of a request. Others are ignored.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct UgcParameters {
    signature: String,
    vod_session_key: Option<String>,
    video_name: Option<String>,
    video_type: Option<String>,
    video_size: Option<u64>,
    cover_name: Option<String>,
    cover_type: Option<String>,
    cover_size: Option<u64>,
    file_id: Option<String>,
    storage_region: Option<String>,
    #[serde(rename = "ExpireTime")]
    expire_time: Option<String>,
}

/// Carries out a request and returns the members of its answer.
pub(crate) fn act(cloud: &Arc<Cloud>, action: Action, body: &[u8]) -> Result<Value, UgcError> {
    let parameters: UgcParameters = serde_json::from_slice(body)
        .map_err(|error| UgcError::new(1002, format!("the body is not what the SDK sends: {error}")))?;
    let now = wall_seconds();
    let mut state = cloud.lock();
    let grant = grant(&state, &parameters.signature, now)?;
    let sub_app_id = grant.sub_app_id.unwrap_or(0);
    if !state.knows_app(sub_app_id) {
        return Err(UgcError::signature(format!("there is no sub-application {sub_app_id}")));
    }
    let spends = match state.settings.uploads.one_time {
        OneTime::EveryCall => true,
        OneTime::Apply => action == Action::ApplyUploadUGC,
    };
    if grant.one_time_valid == Some(true) {
        let uploads = &mut state.uploads;
        let fresh = match spends {
            true => uploads.spend(&parameters.signature, grant.expire_time, now),
            false => action == Action::CommitUploadUGC || !uploads.is_spent(&parameters.signature),
        };
        if !fresh {
            return Err(UgcError::signature("the signature is for one use, and was used before"));
        }
    }
    match action {
        Action::PrepareUploadUGC => Ok(prepare(&state)),
        Action::ApplyUploadUGC => {
            let session = applied(&mut state, &grant, parameters, now)?;
            Ok(place_and_key(&mut state, &session, now))
        }
        _ => {
            let key = parameters.vod_session_key.unwrap_or_default();
            let committed = commit(&mut state, &key, sub_app_id).map_err(commit_error)?;
            drop(state);
            tell(cloud, &committed);
            let medium = &committed.medium;
            let mut data = json!({ "fileId": medium.file_id, "video": { "url": medium.media_url } });
            if committed.session.cover.is_some() {
                data["cover"] = json!({ "url": medium.cover_url });
            }
            Ok(data)
        }
    }
}

/// The permissions in a signature, if it is valid now.
fn grant(state: &State, text: &str, now: i64) -> Result<Grant, UgcError> {
    if text.is_empty() {
        return Err(UgcError::new(1012, "there is no signature"));
    }
    let signature = Signature::parse(text).map_err(|error| UgcError::signature(error.to_string()))?;
    let secret_id = signature.parameter("secretId").unwrap_or_default();
    let credential = state.credentials.iter().find(|credential| credential.secret_id == secret_id);
    let Some(credential) = credential else { return Err(UgcError::signature("nobody has this secretId")) };
    if !signature.verify(credential.secret_key.expose()) {
        return Err(UgcError::signature("the signature is not the one that the server computes"));
    }
    let grant = signature.grant().map_err(|error| UgcError::signature(error.to_string()))?;
    if now >= grant.expire_time {
        return Err(UgcError::signature("the signature has expired"));
    }
    if grant.current_time_stamp.saturating_sub(now) > CLOCK_AHEAD {
        return Err(UgcError::signature("the signature was made in the future"));
    }
    Ok(grant)
}

fn prepare(state: &State) -> Value {
    let regions = state.settings.uploads.storage_regions.iter();
    let regions: Vec<Value> = regions
        .map(|region| {
            let domain = format!("{}.cos.{region}.myqcloud.com", super::sessions::bucket_of(region));
            json!({ "region": region, "domain": domain })
        })
        .collect();
    json!({ "appId": APP_ID, "cosRegionList": regions })
}

/// The session of a request: an earlier one by its key, or a new one.
fn applied(
    state: &mut State,
    grant: &Grant,
    parameters: UgcParameters,
    now: i64,
) -> Result<Session, UgcError> {
    let sub_app_id = grant.sub_app_id.unwrap_or(0);
    if let Some(key) = parameters.vod_session_key.filter(|key| !key.is_empty()) {
        let known = state.uploads.sessions.session(&key, &state.settings.uploads, now).cloned();
        let open =
            |session: &Session| session.committed.is_none() && session.application.sub_app_id == sub_app_id;
        return known.filter(open).ok_or_else(|| commit_error(CommitRefusal::UnknownSession));
    }
    let wrong = |message: &str| UgcError::new(1002, message);
    let types = [&parameters.video_type, &parameters.cover_type].into_iter().flatten();
    if types.into_iter().any(|of| !is_type(of)) {
        return Err(wrong("videoType or coverType is not a type like mp4"));
    }
    let names = [&parameters.video_name, &parameters.cover_name].into_iter().flatten();
    if names.into_iter().any(|name| name.chars().count() > MAX_NAME) {
        return Err(UgcError::new(1015, "the name is too long"));
    }
    let cover_of = parameters.file_id.filter(|file_id| !file_id.is_empty());
    match (&parameters.video_type, &cover_of) {
        (Some(_), None) if parameters.video_size.is_some() => {}
        (None, Some(file_id)) if parameters.cover_type.is_some() && parameters.cover_size.is_some() => {
            let medium = state.uploads.sessions.medium(file_id);
            if medium.is_none_or(|medium| medium.sub_app_id != sub_app_id) {
                return Err(wrong("there is no medium of this fileId"));
            }
        }
        _ => return Err(wrong("neither a video nor the cover of a medium is described")),
    }
    let application = Application {
        sub_app_id,
        media_type: parameters.video_type,
        media_name: parameters.video_name.unwrap_or_default(),
        cover_type: parameters.cover_type,
        cover_of,
        procedure: grant.procedure.clone(),
        task_priority: grant.task_priority.unwrap_or(0).into(),
        task_notify_mode: grant.task_notify_mode,
        // The signature decides. The page's region is only a proposal.
        storage_region: grant.storage_region.clone().or(parameters.storage_region),
        class_id: grant.class_id.unwrap_or(0),
        source_context: grant.source_context.clone().unwrap_or_default(),
        session_context: grant.session_context.clone().unwrap_or_default(),
        expire_time: parameters.expire_time,
        media_storage_path: None,
    };
    apply(state, application).map_err(|error| UgcError::new(1002, error.message))
}

fn place_and_key(state: &mut State, session: &Session, now: i64) -> Value {
    let life = state.settings.uploads.credential_seconds;
    let key = state.uploads.sessions.temporary_key(session, life, now);
    let bucket = super::sessions::bucket_of(&session.region);
    let name = bucket.rsplit_once('-').map_or(bucket.as_str(), |(name, _)| name);
    let mut data = json!({
        "storageBucket": name,
        "storageAppId": APP_ID,
        "appId": APP_ID,
        "storageRegion": session.region,
        "storageRegionV5": session.region,
        "StorageRegionV5": session.region,
        "domain": "vod2.qcloud.com",
        "vodSessionKey": session.key,
        "timestamp": now,
        "tempCertificate": {
            "secretId": key.secret_id,
            "secretKey": key.secret_key.expose(),
            "token": key.token.expose(),
            "expiredTime": key.expired_time,
        },
        "cosAcc": { "isOpen": 0, "domain": "" },
    });
    let places = [("video", &session.media), ("cover", &session.cover)];
    for (member, place) in places {
        if let Some(place) = place {
            data[member] = json!({ "storagePath": format!("/{}", place.key) });
        }
    }
    data
}

fn commit_error(error: CommitRefusal) -> UgcError {
    let message = match error {
        CommitRefusal::UnknownSession => "there is no such session, or it is over",
        CommitRefusal::Repeated => "the session was committed before",
        CommitRefusal::OtherSubApp => "the session belongs to another sub-application",
        CommitRefusal::NoObject => "the medium or the cover is not in the object storage",
    };
    UgcError::new(1005, message)
}
