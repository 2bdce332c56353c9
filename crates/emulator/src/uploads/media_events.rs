//! The events of uploads and tasks. Facts that need a decoder, such as the duration, are zero.

use serde_json::{Value, json};
use tencentcloud_signing::upload::TaskNotifyMode;

use super::sessions::Medium;

/// One task of a task flow: its kind and its template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubTask {
    /// `Transcode`, `CoverBySnapshot` and so on.
    pub(crate) kind: &'static str,
    pub(crate) definition: i64,
}

/// The kinds of tasks: the member of the request, the kind, the member of the result.
pub(crate) const SUB_TASKS: [(&str, &str, &str); 7] = [
    ("TranscodeTaskSet", "Transcode", "TranscodeTask"),
    ("AnimatedGraphicTaskSet", "AnimatedGraphics", "AnimatedGraphicTask"),
    ("SnapshotByTimeOffsetTaskSet", "SnapshotByTimeOffset", "SnapshotByTimeOffsetTask"),
    ("SampleSnapshotTaskSet", "SampleSnapshot", "SampleSnapshotTask"),
    ("ImageSpriteTaskSet", "ImageSprites", "ImageSpriteTask"),
    ("CoverBySnapshotTaskSet", "CoverBySnapshot", "CoverBySnapshotTask"),
    ("AdaptiveDynamicStreamingTaskSet", "AdaptiveDynamicStreaming", "AdaptiveDynamicStreamingTask"),
];

/// A task flow on a medium.
#[derive(Clone, Debug)]
pub(crate) struct TaskFlow {
    pub(crate) task_id: String,
    pub(crate) priority: i64,
    pub(crate) notify_mode: TaskNotifyMode,
    pub(crate) session_context: String,
    pub(crate) session_id: String,
    pub(crate) sub_tasks: Vec<SubTask>,
}

impl TaskFlow {
    /// The tasks of every procedure: a transcode and a cover.
    pub(crate) fn usual() -> Vec<SubTask> {
        vec![
            SubTask { kind: "Transcode", definition: 100_030 },
            SubTask { kind: "CoverBySnapshot", definition: 10 },
        ]
    }
}

fn time(second: i64) -> String {
    jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn meta_data(medium: &Medium) -> Value {
    json!({
        "Size": medium.size, "Container": medium.media_type, "Bitrate": 0, "Height": 0, "Width": 0, "Duration": 0.0,
        "Rotate": 0, "VideoStreamSet": [], "AudioStreamSet": [], "VideoDuration": 0.0, "AudioDuration": 0.0,
        "Md5": medium.md5,
    })
}

fn event(event_type: &str, member: &str, body: &Value) -> String {
    format!(r#"{{"EventType":"{event_type}","{member}":{body}}}"#)
}

/// `NewFileUpload`.
pub(crate) fn new_file_upload(medium: &Medium) -> String {
    let created = time(medium.created_at);
    let body = json!({
        "FileId": medium.file_id,
        "MediaBasicInfo": {
            "Name": medium.name, "Description": "", "CreateTime": created, "UpdateTime": created,
            "ExpireTime": medium.expire_time, "ClassId": medium.class_id, "ClassName": "Other", "ClassPath": "Other",
            "CoverUrl": medium.cover_url, "Type": medium.media_type, "MediaUrl": medium.media_url,
            "SourceInfo": {
                "SourceType": "Upload", "SourceContext": medium.source_context, "LiveRecordInfo": null,
                "TrtcRecordInfo": null, "WebPageRecordInfo": null,
            },
            "StorageRegion": medium.storage_region, "StoragePath": format!("/{}", medium.place.key), "TagSet": [],
            "Vid": medium.file_id, "Category": category(&medium.media_type), "Status": "Normal",
            "StorageClass": "STANDARD",
        },
        "ProcedureTaskId": medium.procedure_task_id,
        "ReviewAudioVideoTaskId": "",
        "MetaData": meta_data(medium),
    });
    event("NewFileUpload", "FileUploadEvent", &body)
}

fn category(media_type: &str) -> &'static str {
    match media_type.to_ascii_lowercase().as_str() {
        "mp3" | "m4a" | "flac" | "ogg" | "wav" | "ra" | "aac" | "amr" => "Audio",
        "jpg" | "jpeg" | "png" | "gif" | "bmp" | "tiff" | "tif" | "ai" | "cdr" | "eps" => "Image",
        _ => "Video",
    }
}

/// `ProcedureStateChanged` by mode: never, once at the end, or after each task.
pub(crate) fn procedure_state_changed(medium: &Medium, flow: &TaskFlow, now: i64) -> Vec<String> {
    let count = flow.sub_tasks.len();
    let steps = match flow.notify_mode {
        TaskNotifyMode::None => 0..0,
        TaskNotifyMode::Finish => count..count + 1,
        TaskNotifyMode::Change => 1.min(count)..count + 1,
    };
    steps.map(|done| procedure_state(medium, flow, done, now)).collect()
}

fn procedure_state(medium: &Medium, flow: &TaskFlow, done: usize, now: i64) -> String {
    let finished = done == flow.sub_tasks.len();
    let parts = flow.sub_tasks.iter().enumerate();
    let results: Vec<Value> = parts.map(|(at, part)| result(medium, part, at < done, now)).collect();
    let body = json!({
        "TaskId": flow.task_id, "Status": if finished { "FINISH" } else { "PROCESSING" }, "ErrCode": 0,
        "Message": "SUCCESS", "FileId": medium.file_id, "FileName": medium.name, "FileUrl": medium.media_url,
        "MetaData": meta_data(medium), "MediaProcessResultSet": results, "AiContentReviewResultSet": [],
        "AiAnalysisResultSet": [], "AiRecognitionResultSet": [], "TasksPriority": flow.priority,
        "TasksNotifyMode": flow.notify_mode.name(), "SessionContext": flow.session_context,
        "SessionId": flow.session_id, "Operator": "System", "OperationType": "TSC",
    });
    event("ProcedureStateChanged", "ProcedureStateChangeEvent", &body)
}

fn result(medium: &Medium, part: &SubTask, done: bool, now: i64) -> Value {
    let folder = medium.media_url.rsplit_once('/').map_or("", |(folder, _)| folder);
    let output = match (done, part.kind) {
        (false, _) => Value::Null,
        (true, "Transcode") => json!({
            "Url": format!("{folder}/v.f{}.mp4", part.definition), "Size": medium.size, "Container": "mp4",
            "Height": 0, "Width": 0, "Bitrate": 0, "Md5": "", "Duration": 0.0, "VideoStreamSet": [],
            "AudioStreamSet": [], "Definition": part.definition, "DigitalWatermarkType": "None",
            "CopyRightWatermarkText": "", "BlindWatermarkDefinition": 0, "FileId": "",
        }),
        (true, "CoverBySnapshot") => json!({
            "CoverUrl": format!("{folder}/coverBySnapshot/coverBySnapshot_{}_0.jpg", part.definition),
        }),
        (true, "AdaptiveDynamicStreaming") => json!({
            "Definition": part.definition, "Package": "HLS", "Url": format!("{folder}/adp.{}.m3u8", part.definition),
        }),
        (true, _) => json!({ "Definition": part.definition }),
    };
    let mut result = json!({ "Type": part.kind });
    for (_, kind, member) in SUB_TASKS {
        result[member] = match kind == part.kind {
            true => json!({
                "Status": if done { "SUCCESS" } else { "PROCESSING" }, "ErrCodeExt": "", "ErrCode": 0,
                "Message": if done { "SUCCESS" } else { "" }, "Input": { "Definition": part.definition },
                "Output": output, "Progress": if done { 100 } else { 0 }, "BeginProcessTime": time(now),
                "FinishTime": if done { time(now) } else { String::new() },
            }),
            false => Value::Null,
        };
    }
    result
}
