//! A sample body for every event type, written for this project after the data types of the API's model
//! (documents 266/31773 and 266/33433, and the official Python SDK 3.1.194, `EventContent` and its 37
//! bodies).
//!
//! White space outside strings is dropped when a sample is made, and `<name>` is replaced by a piece from
//! [`PIECES`], or by a value that depends on the sample's index.

/// One event type: its name, the member that holds its body, the body.
pub(super) struct Sample {
    pub(super) event_type: &'static str,
    pub(super) member: &'static str,
    pub(super) body: &'static str,
}

const fn sample(event_type: &'static str, member: &'static str, body: &'static str) -> Sample {
    Sample { event_type, member, body }
}

/// Parts that many bodies share.
pub(super) const PIECES: &[(&str, &str)] = &[
    ("ok", r#""ErrCode": 0, "ErrCodeExt": "", "Message": "SUCCESS""#),
    ("session", r#""SessionId": "<session_id>", "SessionContext": "<context>""#),
    (
        "meta",
        r#"{
            "Size": <size>, "Container": "mov,mp4,m4a,3gp,3g2,mj2", "Bitrate": <bitrate>, "Height": 1080,
            "Width": 1920, "Duration": <seconds>, "Rotate": 0,
            "VideoStreamSet": [{"Bitrate": <bitrate>, "Height": 1080, "Width": 1920, "Codec": "h264", "Fps": 25,
                "CodecTag": "avc1", "DynamicRangeInfo": {"Type": "SDR", "HDRType": ""}}],
            "AudioStreamSet": [{"Bitrate": 127756, "SamplingRate": 44100, "Codec": "aac"}],
            "VideoDuration": <seconds>, "AudioDuration": <seconds>, "Md5": "<md5>"
        }"#,
    ),
    (
        "basic",
        r#"{
            "Name": "<name>", "Description": "", "CreateTime": "<time>", "UpdateTime": "<later>",
            "ExpireTime": "9999-12-31T23:59:59Z", "ClassId": 0, "ClassName": "\u5176\u4ed6",
            "ClassPath": "\u5176\u4ed6", "CoverUrl": "", "Type": "mp4", "MediaUrl": "<url>/<short>.mp4",
            "SourceInfo": {"SourceType": "Upload", "SourceContext": "<context>", "LiveRecordInfo": null,
                "TrtcRecordInfo": null, "WebPageRecordInfo": null},
            "StorageRegion": "ap-chongqing", "StoragePath": "", "TagSet": [], "Vid": "<file>", "Category": "Video",
            "Status": "Normal", "StorageClass": "STANDARD"
        }"#,
    ),
    (
        "output_file",
        r#""FileType": "mp4", "FileUrl": "<url>/<short>.mp4", "FileId": "<file2>", "MediaName": "<name>",
            "ClassId": 0, "ExpireTime": "9999-12-31T23:59:59Z""#,
    ),
    (
        "generated_file",
        r#""StorageMode": "Permanent", "MediaName": "<name>", "ClassId": 0, "ExpireTime": "9999-12-31T23:59:59Z""#,
    ),
    (
        "transcoded",
        r#"{
        "Url": "<url>\/v.f100030.mp4", "Size": <size>, "Container": "mov,mp4,m4a,3gp,3g2,mj2", "Height": 720,
        "Width": 1280, "Bitrate": <bitrate>, "Md5": "<md5>", "Duration": <seconds>,
        "VideoStreamSet": [{"Bitrate": <bitrate>, "Codec": "h264", "Fps": 25, "Height": 720, "Width": 1280,
            "CodecTag": "avc1", "DynamicRangeInfo": null}],
        "AudioStreamSet": [{"Bitrate": 48491, "Codec": "aac", "SamplingRate": 44100}],
        "Definition": 100030, "DigitalWatermarkType": "None", "CopyRightWatermarkText": "",
        "BlindWatermarkDefinition": 0, "FileId": ""
    }"#,
    ),
];

/// Every type of the API's model that has a body, in the model's order of age and kind.
pub(super) const SAMPLES: &[Sample] = &[
    sample(
        "NewFileUpload",
        "FileUploadEvent",
        r#"{
        "FileId": "<file>", "MediaBasicInfo": <basic>, "ProcedureTaskId": "<procedure>",
        "ReviewAudioVideoTaskId": "", "MetaData": <meta>
    }"#,
    ),
    sample(
        "ProcedureStateChanged",
        "ProcedureStateChangeEvent",
        r#"{
        "TaskId": "<appid>-Procedure-<hex>t0", "Status": "FINISH", "ErrCode": 0, "Message": "SUCCESS",
        "FileId": "<file>", "FileName": "<name>", "FileUrl": "<url>/<short>.mp4", "MetaData": <meta>,
        "MediaProcessResultSet": [
            {"Type": "Transcode", "TranscodeTask": {"Status": "SUCCESS", <ok>,
                "Input": {"Definition": 100030, "WatermarkSet": [], "TraceWatermark": null,
                    "CopyRightWatermark": null, "MosaicSet": [], "StartTimeOffset": 0, "EndTimeOffset": 0},
                "Output": <transcoded>, "Progress": 100, "BeginProcessTime": "<time>", "FinishTime": "<later>"},
             "AnimatedGraphicTask": null, "SnapshotByTimeOffsetTask": null, "SampleSnapshotTask": null,
             "ImageSpriteTask": null, "CoverBySnapshotTask": null, "AdaptiveDynamicStreamingTask": null},
            {"Type": "CoverBySnapshot", "TranscodeTask": null, "AnimatedGraphicTask": null,
             "SnapshotByTimeOffsetTask": null, "SampleSnapshotTask": null, "ImageSpriteTask": null,
             "CoverBySnapshotTask": {"Status": "SUCCESS", <ok>,
                "Input": {"Definition": 10, "PositionType": "Time", "PositionValue": 1.0, "WatermarkSet": null},
                "Output": {"CoverUrl": "<url>\/coverBySnapshot\/coverBySnapshot_10_0.jpg"},
                "Progress": 100, "BeginProcessTime": "<time>", "FinishTime": "<later>"},
             "AdaptiveDynamicStreamingTask": null}
        ],
        "AiContentReviewResultSet": [], "AiAnalysisResultSet": [], "AiRecognitionResultSet": [],
        "TasksPriority": 0, "TasksNotifyMode": "Finish", "SessionContext": "<context>",
        "SessionId": "<session_id>", "Operator": "System", "OperationType": "TSC"
    }"#,
    ),
    sample(
        "FileDeleted",
        "FileDeleteEvent",
        r#"{
        "FileIdSet": ["<file>", "<file2>"],
        "FileDeleteResultInfo": [
            {"FileId": "<file>", "DeleteParts": []},
            {"FileId": "<file2>", "DeleteParts": [{"Type": "TranscodeFiles", "Definition": 0}]}
        ]
    }"#,
    ),
    sample(
        "PullComplete",
        "PullCompleteEvent",
        r#"{
        "TaskId": "<appid>-Pull-<hex>t0", "Status": "FINISH", "ErrCode": 0, "Message": "SUCCESS",
        "FileId": "<file>", "MediaBasicInfo": <basic>, "MetaData": <meta>, "FileUrl": "<url>/<short>.mp4",
        "ProcedureTaskId": "", "ReviewAudioVideoTaskId": "", <session>, "Progress": 100
    }"#,
    ),
    sample(
        "EditMediaComplete",
        "EditMediaCompleteEvent",
        r#"{
        "TaskId": "<appid>-EditMedia-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"InputType": "File", "StreamInfoSet": [], "FileInfoSet": [
            {"FileId": "<file>", "StartTimeOffset": 0, "EndTimeOffset": 12.5},
            {"FileId": "<file3>", "StartTimeOffset": 3.25, "EndTimeOffset": <seconds>}]},
        "Output": {<output_file>}, "MetaData": <meta>, "ProcedureTaskId": "", "ReviewAudioVideoTaskId": "", <session>
    }"#,
    ),
    sample(
        "SplitMediaComplete",
        "SplitMediaCompleteEvent",
        r#"{
        "TaskId": "<appid>-SplitMedia-<hex>t0", "Status": "FINISH", <ok>,
        "FileInfoSet": [{
            "Input": {"FileId": "<file>", "StartTimeOffset": 0, "EndTimeOffset": 10.5, "ProcedureName": "",
                "OutputConfig": {"MediaName": "<name>", "Type": "", "ClassId": 0, "ExpireTime": ""}},
            "Output": {"FileId": "<file2>", "MediaBasicInfo": <basic>},
            "ProcedureTaskId": "", "ReviewAudioVideoTaskId": ""
        }], "SessionContext": "<context>", "SessionId": "<session_id>", "Progress": 100
    }"#,
    ),
    sample(
        "ComposeMediaComplete",
        "ComposeMediaCompleteEvent",
        r#"{
        "TaskId": "<appid>-ComposeMedia-<hex>t0", "Status": "FINISH", "ErrCode": 0, "Message": "SUCCESS",
        "Progress": 100,
        "Input": {
            "Tracks": [{"Type": "Video", "TrackItems": [{"Type": "Video", "VideoItem": {"SourceMedia": "<file2>",
                "SourceMediaStartTime": 0, "Duration": 0}}]}],
            "Canvas": {"Color": "Black", "Width": 0, "Height": 0},
            "Output": {"FileName": "<name>", "Description": "", "ClassId": 0, "ExpireTime": "", "Container": "mp4",
                "VideoStream": {"Codec": "H.264", "Fps": 25}, "AudioStream": {"Codec": "AAC", "SampleRate": 44100},
                "RemoveVideo": 0, "RemoveAudio": 0}
        },
        "Output": {"FileType": "mp4", "FileId": <maybe_bare_file>, "FileUrl": "<url>/<short>.mp4",
            "MediaName": "<name>", "ClassId": 0, "ExpireTime": "9999-12-31T23:59:59Z"},
        "MetaData": <meta>, <session>
    }"#,
    ),
    sample(
        "RestoreMediaComplete",
        "RestoreMediaCompleteEvent",
        r#"{
        "FileId": "<file>", "OriginalStorageClass": "ARCHIVE", "TargetStorageClass": "STANDARD",
        "RestoreTier": "Standard", "RestoreDay": 0, "Status": 0, "Message": ""
    }"#,
    ),
    sample(
        "WechatMiniProgramPublishComplete",
        "WechatMiniProgramPublishCompleteEvent",
        r#"{
        "TaskId": "<appid>-WechatMiniProgramPublish-<hex>t0", "Status": "FINISH", "ErrCode": 0,
        "Message": "SUCCESS", "FileId": "<file>", "SourceDefinition": 0, "PublishResult": "Pass"
    }"#,
    ),
    sample(
        "RemoveWatermark",
        "RemoveWatermarkCompleteEvent",
        r#"{
        "TaskId": "<appid>-RemoveWatermark-<hex>t0", "Status": "FINISH", <ok>, "Input": {"FileId": "<file>"},
        "Output": {"FileId": "<file2>", "FileType": "mp4", "FileUrl": "<url>/<short>.mp4", "MediaName": "<name>",
            "MetaData": <meta>}, <session>
    }"#,
    ),
    sample(
        "RebuildMediaComplete",
        "RebuildMediaCompleteEvent",
        r#"{
        "TaskId": "<appid>-RebuildMedia-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"FileId": "<file>", "StartTimeOffset": 0, "EndTimeOffset": 0, "Definition": 0,
            "RepairInfo": {"Switch": "ON", "Type": "weak"}, "SuperResolutionInfo": null,
            "SharpInfo": {"Switch": "ON", "Intensity": 0.5},
            "TargetInfo": {"MediaName": "<name>", "Description": "", "ClassId": 0, "ExpireTime": "",
                "Container": "mp4", "VideoStream": null, "AudioStream": null, "RemoveVideo": 0, "RemoveAudio": 0}},
        "Output": {<output_file>}, "MetaData": <meta>, <session>
    }"#,
    ),
    sample(
        "ReviewAudioVideoComplete",
        "ReviewAudioVideoCompleteEvent",
        r#"{
        "TaskId": "<appid>-ReviewAudioVideo-<hex>t0", "Status": "FINISH", "ErrCodeExt": "", "Message": "SUCCESS",
        "Input": {"FileId": "<file>", "Definition": 10, "ReviewContents": ["Media", "Cover"]},
        "Output": {"Suggestion": "review", "Label": "Ad", "Form": "OCR",
            "SegmentSet": [{"StartTimeOffset": 3.2, "EndTimeOffset": 5.0, "Confidence": 91.0,
                "Suggestion": "review", "Label": "Ad", "SubLabel": "QRCode", "Form": "OCR",
                "AreaCoordSet": [34, 12, 200, 180], "Text": "", "KeywordSet": [],
                "Url": "<url>/review_<short>.jpg?t=<hex>&us=1&sign=<md5>", "PicUrlExpireTime": "<later>"}],
            "SegmentSetFileUrl": "", "SegmentSetFileUrlExpireTime": "",
            "CoverReviewResult": {"Suggestion": "pass", "Label": "", "Form": "", "SegmentSet": [],
                "SegmentSetFileUrl": "", "SegmentSetFileUrlExpireTime": ""}}, <session>
    }"#,
    ),
    sample(
        "ExtractTraceWatermarkComplete",
        "ExtractTraceWatermarkCompleteEvent",
        r#"{
        "TaskId": "<appid>-ExtractTraceWatermark-<hex>t0", "Status": "FINISH", <ok>,
        "Input": {"Url": "<url>/<short>.mp4", "FileId": "<file>"}, "Output": {"Uv": "<short>", "Uid": "<n>"}, <session>
    }"#,
    ),
    sample(
        "ExtractCopyRightWatermarkComplete",
        "ExtractCopyRightWatermarkCompleteEvent",
        r#"{
        "TaskId": "<appid>-ExtractCopyRightWatermark-<hex>t0", "Status": "FINISH", <ok>,
        "Input": {"Url": "<url>/<short>.mp4"}, "Output": {"Text": "© <name>"}, <session>
    }"#,
    ),
    sample(
        "DescribeFileAttributesComplete",
        "DescribeFileAttributesCompleteEvent",
        r#"{
        "TaskId": "<appid>-DescribeFileAttributes-<hex>t0", "Status": "SUCCESS", <ok>, "Progress": 100,
        "FileId": "<file>", "Output": {"Md5": "<md5>", "Sha1": "<md5><hex8>"}, <session>
    }"#,
    ),
    sample(
        "QualityInspectComplete",
        "QualityInspectCompleteEvent",
        r#"{
        "TaskId": "<appid>-QualityInspect-<hex>t0", "Status": "FINISH", "ErrCodeExt": "", "Message": "SUCCESS",
        "MetaData": <meta>, "Input": {"FileId": "<file>", "Definition": 50},
        "Output": {"NoAudio": 0, "NoVideo": 0, "QualityEvaluationScore": 71, "QualityInspectResultSet": [
            {"Type": "Blur", "SegmentSet": [{"StartTimeOffset": 1.04, "EndTimeOffset": 2.08, "Confidence": 88,
                "AreaCoordSet": []}], "SegmentSetFileUrl": "", "SegmentSetFileUrlExpireTime": ""}],
            "QualityEvaluationMeanOpinionScore": 3.9, "AestheticEvaluationScore": 60,
            "ContainerDiagnoseResultSet": [], "LLMDetectionReport": null}, <session>
    }"#,
    ),
    sample(
        "QualityEnhanceComplete",
        "QualityEnhanceCompleteEvent",
        r#"{
        "TaskId": "<appid>-QualityEnhance-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"FileId": "<file>", "Definition": 30010}, "Output": {<output_file>}, "MetaData": <meta>, <session>
    }"#,
    ),
    sample(
        "PersistenceComplete",
        "PersistenceCompleteEvent",
        r#"{
        "FileId": "<file>", "PersistenceSource": "Upload"
    }"#,
    ),
    sample(
        "ComplexAdaptiveDynamicStreamingComplete",
        "ComplexAdaptiveDynamicStreamingCompleteEvent",
        r#"{
        "TaskId": "<appid>-ComplexAdaptiveDynamicStreaming-<hex>t0", "Status": "FINISH",
        "ComplexAdaptiveDynamicStreamingTaskResultSet": [{"Status": "SUCCESS", "ErrCodeExt": "",
            "Message": "SUCCESS", "Progress": 100, "Input": {"StreamPara": {"Definition": 12}},
            "Output": {"Definition": 12, "Format": "HLS", "DrmType": "", "Url": "<url>/adp.12.m3u8"}}]
    }"#,
    ),
    sample(
        "ProcessMediaByMPSComplete",
        "ProcessMediaByMPSCompleteEvent",
        r#"{
        "TaskId": "<appid>-ProcessMediaByMPS-<hex>t0", "Status": "FINISH", "ErrCode": 0, "Message": "SUCCESS",
        "SubTaskSet": [{"TaskType": "AiAnalysis.DeLogo", "Status": "SUCCESS", "ErrCode": "", "Message": "SUCCESS",
            "Input": "{\"Definition\":25,\"ExtendedParameter\":\"{\\\"n\\\":<n>}\"}",
            "Output": {"OutputFiles": [{"FileType": "Video", "StorageMode": "Permanent", "FileId": "<file2>",
                "Url": "<url>/<short>.mp4", "Definition": "25", "ExpiredTime": 0}], "OutputText": ""}}]
    }"#,
    ),
    sample(
        "AigcImageTaskComplete",
        "AigcImageCompleteEvent",
        r#"{
        "TaskId": "<appid>-AigcImage-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"ModelName": "GEM", "ModelVersion": "2.5", "FileInfos": [{"Type": "File", "FileId": "<file>",
                "Url": "", "Base64": "", "Text": "", "ReferenceType": ""}],
            "Prompt": "a lighthouse at dawn, 第<n>幕", "NegativePrompt": "", "EnhancePrompt": "Disabled",
            "GenerationMode": "", "OutputConfig": {<generated_file>, "Resolution": "2K", "AspectRatio": "16:9"},
            "Seed": <n>, "SceneType": "", "ExtInfo": ""},
        "Output": {"FileInfos": [{<generated_file>, "FileType": "png", "FileUrl": "<url>/<short>.png",
            "FileId": "<file2>", "MetaData": null}]}, <session>
    }"#,
    ),
    sample(
        "AigcVideoTaskComplete",
        "AigcVideoCompleteEvent",
        r#"{
        "TaskId": "<appid>-AigcVideo-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"ModelName": "Hailuo", "ModelVersion": "02", "FileInfos": [], "SubjectInfos": [],
            "LastFrameFileId": "", "LastFrameUrl": "", "Prompt": "waves, slow \"dolly\" shot", "NegativePrompt": "",
            "EnhancePrompt": "Enabled", "GenerationMode": "", "OutputConfig": {<generated_file>, "Duration": 6.0,
                "Resolution": "768P", "AspectRatio": "", "AudioGeneration": "Disabled"},
            "InputRegion": "", "SceneType": "", "Seed": <n>, "ExtInfo": ""},
        "Output": {"FileInfos": [{<generated_file>, "FileType": "mp4", "FileUrl": "<url>/<short>.mp4",
                "FileId": "<file2>", "MetaData": <meta>, "UsageType": ""}], "ProcedureTaskIds": [],
            "Usage": {"InputTokens": 0, "ThoughtTokens": 0, "InputImageCount": 0, "InputSeconds": 0,
                "OutputSeconds": 6, "TotalSeconds": 6}}, <session>
    }"#,
    ),
    sample(
        "AigcHunyuan3DTaskComplete",
        "AigcHunyuan3DCompleteEvent",
        r#"{
        "TaskId": "<appid>-AigcHunyuan3D-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"ImageInfos": [{"Type": "File", "FileId": "<file>", "Url": ""}], "MultiViewImageInfos": [],
            "Prompt": "", "GenerateType": "Normal", "MeshInfos": [], "EnablePBR": "OFF", "FaceCount": 500000,
            "KeepUV": "OFF", "ResultFormat": "GLB", "Seed": <n>, "Style": "",
            "OutputConfig": {"StorageMode": "Temporary"}},
        "Output": {"FileInfos": [{"StorageMode": "Temporary", "ExpireTime": "<later>", "FileType": "GLB",
            "FileUrl": "<url>/<short>.glb", "PreviewFileUrl": "<url>/<short>.png"}]}, <session>
    }"#,
    ),
    sample(
        "DescribeAigcFaceInfoAsyncComplete",
        "DescribeAigcFaceInfoAsyncCompleteEvent",
        r#"{
        "TaskId": "<appid>-DescribeAigcFaceInfoAsync-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"FileInfos": [{"Type": "File", "FileId": "<file>", "Url": ""}]},
        "Output": {"FaceInfoSet": [{"SessionId": "<short>", "FaceInfoList": [{"FaceId": "<n>",
            "FaceImage": "<url>/face_0.jpg", "StartTime": 0, "EndTime": 5200}]}]}, <session>
    }"#,
    ),
    sample(
        "TranscodeComplete",
        "TranscodeCompleteEvent",
        r#"{
        "TaskId": "Transcode-<md5>", "ErrCode": 0, "Message": "SUCCESS", "FileId": "<file>", "FileName": "<name>",
        "Duration": 599, "CoverUrl": "<url>/640.jpg", "PlayInfoSet": [
            {"Url": "<url>/f0.mp4", "Definition": 0, "Bitrate": <bitrate>, "Height": 480, "Width": 640},
            {"Url": "<url>/f20.mp4", "Definition": 20, "Bitrate": 297656, "Height": 480, "Width": 640}]
    }"#,
    ),
    sample(
        "ConcatComplete",
        "ConcatCompleteEvent",
        r#"{
        "TaskId": "Concat-<md5>", "FileInfoSet": [
            {"ErrCode": 0, "Message": "", "FileId": "<file>", "FileUrl": "<url>/playlist.f6.m3u8", "FileType": "m3u8"},
            {"ErrCode": 0, "Message": "", "FileId": "<file2>", "FileUrl": "<url>/f0.mp4", "FileType": "mp4"}]
    }"#,
    ),
    sample(
        "ClipComplete",
        "ClipCompleteEvent",
        r#"{
        "TaskId": "clipVideo-<hex>", "SrcFileId": "<file2>", "FileInfo": {"ErrCode": 0, "Message": "",
            "FileId": "<file>", "FileUrl": "<url>/f0.mp4", "FileType": "mp4"}
    }"#,
    ),
    sample(
        "CreateImageSpriteComplete",
        "CreateImageSpriteCompleteEvent",
        r#"{
        "TaskId": "CreateImageSprite-<md5>", "ErrCode": 0, "Message": "", "FileId": "<file>", "Definition": 10,
        "TotalCount": 106, "ImageSpriteUrlSet": ["<url>/1.png", "<url>/2.png"], "WebVttUrl": "<url>/sprite.vtt"
    }"#,
    ),
    sample(
        "CreateSnapshotByTimeOffsetComplete",
        "SnapshotByTimeOffsetCompleteEvent",
        r#"{
        "TaskId": "CreateSnapshotByTimeOffset-<md5>", "FileId": "<file>", "Definition": 10, "SnapshotInfoSet": [
            {"ErrCode": 0, "TimeOffset": 10000, "Url": "<url>/1.png"},
            {"ErrCode": 0, "TimeOffset": 20000, "Url": "<url>/2.png"}]
    }"#,
    ),
    sample(
        "WechatPublishComplete",
        "WechatPublishCompleteEvent",
        r#"{
        "TaskId": "Wechat-<md5>", "Status": "FINISH", "ErrCode": 0, "Message": "SUCCESS", "FileId": "<file>",
        "Definition": 10, "SourceDefinition": 0, "WechatStatus": "SUCCESS", "WechatVid": "<short>", "WechatUrl": ""
    }"#,
    ),
    sample(
        "ReduceMediaBitrateComplete",
        "ReduceMediaBitrateCompleteEvent",
        r#"{
        "TaskId": "<appid>-ReduceMediaBitrate-<hex>t0", "Status": "FINISH", "FileId": "<file>",
        "FileName": "<name>", "FileUrl": "<url>/<short>.mp4", "MetaData": <meta>,
        "MediaProcessResultSet": [{"Type": "Transcode", "TranscodeTask": {"Status": "SUCCESS", "ErrCodeExt": "",
            "Message": "SUCCESS", "Input": {"Definition": 100030}, "Output": <transcoded>, "Progress": 100,
            "BeginProcessTime": "<time>", "FinishTime": "<later>"}, "AdaptiveDynamicStreamingTask": null}],
        "TasksPriority": 0, "TasksNotifyMode": "Finish", "SessionContext": "<context>", "SessionId": "<session_id>"
    }"#,
    ),
    sample(
        "MediaCastStatusChanged",
        "MediaCastStatusChangedEvent",
        r#"{
        "CastId": "<hex>", "Status": "Working"
    }"#,
    ),
    sample(
        "ExtractBlindWatermarkComplete",
        "ExtractBlindWatermarkComplete",
        r#"{
        "TaskId": "<appid>-ExtractBlindWatermark-<hex>t0", "Status": "FINISH", "ErrCode": 0, "Message": "SUCCESS",
        "InputInfo": {"Type": "File", "FileId": "<file>", "Url": ""}, "Type": "blind-basic", "IsDetected": true,
        "Result": "<short>", "ResultUV": "", "ExtractBlindWatermarkConfig": {"SegmentDuration": 5},
        "SessionContext": "<context>", "SessionId": "<session_id>"
    }"#,
    ),
    sample(
        "SceneAigcImageCompleteEvent",
        "SceneAigcImageCompleteEvent",
        r#"{
        "TaskId": "<appid>-SceneAigcImage-<hex>t0", "Status": "FINISH", "ErrCode": 0, "Message": "SUCCESS",
        "Progress": 100,
        "Input": {"SceneInfo": {"Type": "change_clothes", "ChangeClothesConfig": {"ClothesFileInfos": [
                {"Type": "File", "FileId": "<file3>", "Url": ""}], "Prompt": ""}},
            "FileInfos": [{"Type": "File", "FileId": "<file>", "Url": ""}],
            "OutputConfig": {<generated_file>, "AspectRatio": "", "EncodeConfig": null, "ImageWidth": 0,
                "ImageHeight": 0, "Resolution": ""}},
        "Output": {"FileInfos": [{<generated_file>, "FileType": "png", "FileUrl": "<url>/<short>.png",
            "FileId": "<file2>", "MetaData": null}]}, <session>
    }"#,
    ),
    sample(
        "ProcessImageAsyncCompleteEvent",
        "ProcessImageAsyncCompleteEvent",
        r#"{
        "EncodeConfig": {"Format": "JPEG", "Quality": 85},
        "EnhanceConfig": {"AdvancedSuperResolution": {"Switch": "ON", "Type": "standard", "Mode": "aspect",
            "Percent": 0, "Width": 0, "Height": 0, "LongSide": <n>, "ShortSide": 0}, "Denoise": null},
        "BeautyConfig": null, "AiCutOutConfig": null
    }"#,
    ),
    sample(
        "CreateAigcAdvancedCustomElementCompleteEvent",
        "CreateAigcAdvancedCustomElementCompleteEvent",
        r#"{
        "TaskId": "<appid>-CreateAigcAdvancedCustomElement-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"ElementName": "<short>", "ElementDescription": "", "ReferenceType": "image_refer",
            "ElementVoiceId": "", "ElementVideoList": "", "ElementImageList": "{\"frontal_image\":\"<url>\"}",
            "TagList": "[]"},
        "Output": {"InfoList": [{"ElementId": "<n>", "ElementInfo": "{\"status\":\"succeed\"}"}]}, <session>
    }"#,
    ),
    sample(
        "CreateAigcCustomVoiceCompleteEvent",
        "CreateAigcCustomVoiceCompleteEvent",
        r#"{
        "TaskId": "<appid>-CreateAigcCustomVoice-<hex>t0", "Status": "FINISH", <ok>, "Progress": 100,
        "Input": {"VoiceName": "<short>", "VoiceUrl": "<url>/voice.mp3", "VideoId": ""},
        "Output": {"InfoList": [{"VoiceId": "<n>", "VoiceInfo": "{\"status\":\"succeed\"}"}]}, <session>
    }"#,
    ),
];
