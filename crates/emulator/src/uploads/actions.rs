//! The API's requests about media.

use serde_json::{Value, json};
use tencentcloud_signing::upload::TaskNotifyMode;

use super::manifest;
use super::media_events::{SUB_TASKS, SubTask, TaskFlow, new_file_upload, procedure_state_changed};
use super::parameters::MediaParameters;
use super::sessions::{Application, CommitRefusal, CommittedUpload, Session, is_plain};
use crate::action::Action;
use crate::api::ApiError;
use crate::state::{Cloud, State, now_ms, wall_seconds};

const MAX_SOURCE_CONTEXT: usize = 250;
const MAX_SESSION_CONTEXT: usize = 1_000;
const MAX_SESSION_ID: usize = 50;

/// Carries out a request and returns the members of its answer.
pub(crate) fn act(
    cloud: &std::sync::Arc<Cloud>,
    action: Action,
    parameters: &MediaParameters,
) -> Result<Value, ApiError> {
    let mut state = cloud.lock();
    let sub_app_id = parameters.sub_app_id()?;
    if !state.knows_app(sub_app_id) {
        let message = format!("there is no sub-application {sub_app_id}");
        return Err(ApiError::new("InvalidParameterValue.SubAppId", message));
    }
    match action {
        Action::ApplyUpload => apply_upload(&mut state, sub_app_id, parameters),
        Action::CommitUpload => {
            parameters.only(action, &["VodSessionKey", "SubAppId"])?;
            let key = parameters.required("VodSessionKey")?;
            let committed = commit(&mut state, key, sub_app_id).map_err(commit_error)?;
            let answer = json!({
                "FileId": committed.medium.file_id,
                "MediaUrl": committed.medium.media_url,
                "CoverUrl": committed.medium.cover_url,
            });
            drop(state);
            tell(cloud, &committed);
            Ok(answer)
        }
        Action::ParseStreamingManifest => parse_manifest(parameters),
        Action::DescribeStorageRegions => {
            parameters.only(action, &["SubAppId"])?;
            Ok(storage_regions(&state))
        }
        Action::ProcessMedia => {
            let (medium, flow) = process_media(&mut state, sub_app_id, parameters)?;
            let wait_ms = state.settings.uploads.procedure_ms;
            drop(state);
            let events = procedure_state_changed(&medium, &flow, wall_seconds());
            put_events(cloud, sub_app_id, events, wait_ms);
            Ok(json!({ "TaskId": flow.task_id }))
        }
        other => Err(ApiError::new("InvalidAction", format!("{} is not about media", other.name()))),
    }
}

fn value_error(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(code, message)
}

/// The checked parameters of `ApplyUpload`.
fn application(
    state: &State,
    sub_app_id: u64,
    parameters: &MediaParameters,
) -> Result<Application, ApiError> {
    parameters.only(
        Action::ApplyUpload,
        &[
            "MediaType",
            "SubAppId",
            "MediaName",
            "CoverType",
            "Procedure",
            "ExpireTime",
            "StorageRegion",
            "ClassId",
            "SourceContext",
            "SessionContext",
            "ExtInfo",
            "MediaStoragePath",
        ],
    )?;
    let media_type = parameters.required("MediaType")?;
    if !is_type(media_type) {
        return Err(value_error("InvalidParameterValue.MediaType", "MediaType is not a type like mp4"));
    }
    let cover_type = parameters.text("CoverType")?.filter(|text| !text.is_empty());
    if cover_type.is_some_and(|cover_type| !is_type(cover_type)) {
        return Err(value_error("InvalidParameterValue.CoverType", "CoverType is not a type like jpg"));
    }
    let expire_time = parameters.text("ExpireTime")?.filter(|text| !text.is_empty());
    if expire_time.is_some_and(|time| time.parse::<jiff::Timestamp>().is_err()) {
        return Err(value_error("InvalidParameterValue.ExpireTime", "ExpireTime is not a time of ISO 8601"));
    }
    let path = parameters.text("MediaStoragePath")?.filter(|text| !text.is_empty());
    let takes_path = state.settings.uploads.media_storage_path.accepts();
    if path.is_some_and(|path| !takes_path || !path.strip_prefix('/').is_some_and(is_plain)) {
        let message = "MediaStoragePath is not taken by this application, or does not lead plainly from /";
        return Err(value_error("InvalidParameterValue.MediaStoragePath", message));
    }
    let optional = |name| Ok(parameters.text(name)?.filter(|text| !text.is_empty()).map(str::to_owned));
    Ok(Application {
        sub_app_id,
        media_type: Some(media_type.to_owned()),
        media_name: parameters.text("MediaName")?.unwrap_or_default().to_owned(),
        cover_type: cover_type.map(str::to_owned),
        cover_of: None,
        procedure: optional("Procedure")?,
        task_priority: 0,
        task_notify_mode: None,
        storage_region: optional("StorageRegion")?,
        class_id: parameters.number("ClassId")?.unwrap_or(0),
        source_context: parameters.at_most("SourceContext", MAX_SOURCE_CONTEXT)?,
        session_context: parameters.at_most("SessionContext", MAX_SESSION_CONTEXT)?,
        expire_time: expire_time.map(str::to_owned),
        media_storage_path: path.map(str::to_owned),
    })
}

/// Whether a text can be the type of a medium. It becomes the end of a key.
pub(crate) fn is_type(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Applies for an upload, for the API and for the web SDK.
pub(crate) fn apply(state: &mut State, application: Application) -> Result<Session, ApiError> {
    let settings = &state.settings.uploads;
    let region = match &application.storage_region {
        Some(region) if settings.storage_regions.contains(region) => region.clone(),
        Some(region) => {
            let message = format!("the storage region {region} is not switched on");
            return Err(ApiError::new("InvalidParameterValue", message));
        }
        None => settings.storage_regions.first().cloned().unwrap_or_default(),
    };
    if let Some(name) = &application.procedure
        && !settings.procedures.is_empty()
        && !settings.procedures.contains(name)
    {
        return Err(ApiError::new("InvalidParameterValue", format!("there is no procedure {name}")));
    }
    Ok(state.uploads.sessions.apply(application, region, wall_seconds()))
}

fn apply_upload(state: &mut State, sub_app_id: u64, parameters: &MediaParameters) -> Result<Value, ApiError> {
    let application = application(state, sub_app_id, parameters)?;
    let session = apply(state, application)?;
    let settings = &state.settings.uploads;
    let certificate = settings.temporary_keys.then(|| {
        let key = state.uploads.sessions.temporary_key(&session, settings.credential_seconds, wall_seconds());
        json!({
            "SecretId": key.secret_id,
            "SecretKey": key.secret_key.expose(),
            "Token": key.token.expose(),
            "ExpiredTime": key.expired_time,
        })
    });
    let bucket =
        [&session.media, &session.cover].into_iter().flatten().next().map(|place| place.bucket.as_str());
    let path =
        |place: &Option<super::store::ObjectKey>| place.as_ref().map(|place| format!("/{}", place.key));
    Ok(json!({
        "StorageBucket": bucket,
        "StorageRegion": session.region,
        "VodSessionKey": session.key,
        "MediaStoragePath": path(&session.media),
        "CoverStoragePath": path(&session.cover),
        "TempCertificate": certificate,
    }))
}

/// Commits an upload, for the API and for the web SDK.
pub(crate) fn commit(
    state: &mut State,
    key: &str,
    sub_app_id: u64,
) -> Result<CommittedUpload, CommitRefusal> {
    let uploads = &mut state.uploads;
    uploads.sessions.commit(key, sub_app_id, &uploads.store, &state.settings.uploads, wall_seconds())
}

fn commit_error(error: CommitRefusal) -> ApiError {
    let (code, message) = match error {
        CommitRefusal::UnknownSession => {
            ("InvalidParameterValue.VodSessionKey", "there is no such session, or it is over")
        }
        CommitRefusal::Repeated => {
            ("InvalidParameterValue.VodSessionKey", "the session was committed before")
        }
        CommitRefusal::OtherSubApp => {
            ("InvalidParameterValue.SubAppId", "the session belongs to another sub-application")
        }
        CommitRefusal::NoObject => {
            ("ResourceNotFound", "the medium or the cover is not in the object storage")
        }
    };
    ApiError::new(code, message)
}

/// Puts the events of a new medium into the queue.
pub(crate) fn tell(cloud: &std::sync::Arc<Cloud>, committed: &CommittedUpload) {
    if !committed.first {
        return;
    }
    let medium = &committed.medium;
    let (told, wait_ms) = {
        let mut state = cloud.lock();
        let told = state.app(medium.sub_app_id).config.upload_switch == "ON";
        (told, state.settings.uploads.procedure_ms)
    };
    if told {
        put_events(cloud, medium.sub_app_id, vec![new_file_upload(medium)], 0);
    }
    if medium.procedure_task_id.is_empty() {
        return;
    }
    let application = &committed.session.application;
    let flow = TaskFlow {
        task_id: medium.procedure_task_id.clone(),
        priority: application.task_priority,
        notify_mode: application.task_notify_mode.unwrap_or(TaskNotifyMode::Finish),
        session_context: application.session_context.clone(),
        session_id: String::new(),
        sub_tasks: TaskFlow::usual(),
    };
    put_events(cloud, medium.sub_app_id, procedure_state_changed(medium, &flow, wall_seconds()), wait_ms);
}

/// Puts events in their order, now or after a delay.
fn put_events(cloud: &std::sync::Arc<Cloud>, sub_app_id: u64, events: Vec<String>, wait_ms: u64) {
    let put = move |cloud: &Cloud, events: Vec<String>| {
        let now = now_ms();
        let mut state = cloud.lock();
        for event in events {
            state.put(now, sub_app_id, event);
        }
        drop(state);
        cloud.changed.notify_waiters();
    };
    if wait_ms == 0 {
        return put(cloud, events);
    }
    let cloud = cloud.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(wait_ms)) => put(&cloud, events),
            () = cloud.gone.cancelled() => {}
        }
    });
}

fn parse_manifest(parameters: &MediaParameters) -> Result<Value, ApiError> {
    parameters.only(Action::ParseStreamingManifest, &["MediaManifestContent", "ManifestType", "SubAppId"])?;
    let content = parameters.required("MediaManifestContent")?;
    let manifest_type = parameters.text("ManifestType")?.filter(|text| !text.is_empty()).unwrap_or("m3u8");
    if !matches!(manifest_type, "m3u8" | "mpd") {
        return Err(value_error(
            "InvalidParameterValue.ManifestType",
            "ManifestType is neither m3u8 nor mpd",
        ));
    }
    match manifest::segments(content, manifest_type) {
        Some(segments) => Ok(json!({ "MediaSegmentSet": segments })),
        None => {
            let message = format!("MediaManifestContent is no manifest of type {manifest_type}");
            Err(value_error("InvalidParameterValue.MediaManifestContent", message))
        }
    }
}

/// The known regions. The settings say which are switched on.
const REGIONS: [(&str, &str, &str); 4] = [
    ("ap-guangzhou", "Guangzhou", "Chinese Mainland"),
    ("ap-chongqing", "Chongqing", "Chinese Mainland"),
    ("ap-hongkong", "Hong Kong", "Outside Chinese Mainland"),
    ("ap-singapore", "Singapore", "Outside Chinese Mainland"),
];

fn storage_regions(state: &State) -> Value {
    let opened = &state.settings.uploads.storage_regions;
    let named = REGIONS.iter().map(|(region, description, area)| (*region, *description, *area));
    let unnamed = opened.iter().map(|region| (region.as_str(), region.as_str(), "Chinese Mainland"));
    let unnamed = unnamed.filter(|(region, _, _)| !REGIONS.iter().any(|(known, _, _)| known == region));
    let infos: Vec<Value> = named
        .chain(unnamed)
        .map(|(region, description, area)| {
            let open = opened.iter().any(|opened| opened == region);
            json!({
                "Region": region,
                "Description": description,
                "Status": if open { "opened" } else { "unopened" },
                "IsDefault": opened.first().is_some_and(|first| first == region),
                "Area": area,
            })
        })
        .collect();
    json!({ "StorageRegionInfos": infos })
}

fn process_media(
    state: &mut State,
    sub_app_id: u64,
    parameters: &MediaParameters,
) -> Result<(super::sessions::Medium, TaskFlow), ApiError> {
    parameters.only(
        Action::ProcessMedia,
        &[
            "FileId",
            "SubAppId",
            "MediaProcessTask",
            "AiContentReviewTask",
            "AiAnalysisTask",
            "AiRecognitionTask",
            "TasksPriority",
            "TasksNotifyMode",
            "SessionContext",
            "SessionId",
            "ExtInfo",
        ],
    )?;
    let file_id = parameters.required("FileId")?;
    let medium = state.uploads.sessions.medium(file_id).filter(|medium| medium.sub_app_id == sub_app_id);
    let Some(medium) = medium.cloned() else {
        return Err(value_error("InvalidParameterValue.FileId", "there is no such medium"));
    };
    let priority = parameters.number("TasksPriority")?.unwrap_or(0);
    if !(-10..=10).contains(&priority) {
        return Err(ApiError::new("InvalidParameterValue", "TasksPriority is not from -10 to 10"));
    }
    let mode = parameters.text("TasksNotifyMode")?.filter(|mode| !mode.is_empty()).unwrap_or("Finish");
    let Some(notify_mode) = TaskNotifyMode::from_name(mode) else {
        return Err(ApiError::new("InvalidParameterValue", "TasksNotifyMode is not Finish, Change or None"));
    };
    let session_context = parameters.at_most("SessionContext", MAX_SESSION_CONTEXT)?;
    let session_id = parameters.at_most("SessionId", MAX_SESSION_ID)?;
    let sub_tasks = sub_tasks(parameters.raw("MediaProcessTask"))?;
    if !session_id.is_empty() && !state.uploads.first_of(sub_app_id, &session_id, wall_seconds()) {
        let message = "a request with this SessionId came within the last three days";
        return Err(value_error("InvalidParameterValue.SessionId", message));
    }
    let task_id = state.uploads.sessions.task_id("Procedure");
    Ok((medium, TaskFlow { task_id, priority, notify_mode, session_context, session_id, sub_tasks }))
}

/// The parts of `MediaProcessTask`, in the order of the documents.
fn sub_tasks(task: Option<&Value>) -> Result<Vec<SubTask>, ApiError> {
    let Some(task) = task else { return Ok(Vec::new()) };
    let wrong = |name: &str| {
        ApiError::new("InvalidParameter", format!("MediaProcessTask.{name} is not what it should be"))
    };
    let Some(members) = task.as_object() else { return Err(wrong("")) };
    if let Some(name) = members.keys().find(|name| !SUB_TASKS.iter().any(|(known, _, _)| known == name)) {
        let name: String = name.chars().take(100).collect();
        return Err(ApiError::new("UnknownParameter", format!("MediaProcessTask has no member {name}")));
    }
    let mut parts = Vec::new();
    for (member, kind, _) in SUB_TASKS {
        let Some(list) = members.get(member).filter(|list| !list.is_null()) else { continue };
        for part in list.as_array().ok_or_else(|| wrong(member))? {
            let definition = &part["Definition"];
            let text = definition.as_str().and_then(|text| text.parse().ok());
            let definition = definition.as_i64().or(text).ok_or_else(|| wrong(member))?;
            parts.push(SubTask { kind, definition });
        }
    }
    Ok(parts)
}
