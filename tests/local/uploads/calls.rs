//! The calls of the API about media.

use serde_json::{Value, json};

use super::client::{World, code_of};

#[tokio::test]
async fn each_wrong_application_has_its_code() {
    let world = World::start(|uploads| uploads.procedures = vec!["Known".to_owned()]).await;
    let with = |name: &str, value: Value| {
        let mut parameters = json!({ "MediaType": "mp4" });
        parameters[name] = value;
        parameters
    };
    for (parameters, code) in [
        (json!({}), "MissingParameter"),
        (json!({ "MediaType": "" }), "MissingParameter"),
        (json!({ "MediaType": "a/../b" }), "InvalidParameterValue.MediaType"),
        (json!({ "MediaType": 4 }), "InvalidParameter"),
        (with("CoverType", "j.pg".into()), "InvalidParameterValue.CoverType"),
        (with("ExpireTime", "tomorrow".into()), "InvalidParameterValue.ExpireTime"),
        (with("SourceContext", "测".repeat(251).into()), "InvalidParameterValue"),
        (with("SourceContext", "测".repeat(250).into()), "ok"),
        (with("SessionContext", "x".repeat(1_001).into()), "InvalidParameterValue"),
        (with("SessionContext", "x".repeat(1_000).into()), "ok"),
        (with("StorageRegion", "ap-mars".into()), "InvalidParameterValue"),
        (with("Procedure", "Unknown".into()), "InvalidParameterValue"),
        (with("Procedure", "Known".into()), "ok"),
        (with("Film", "x".into()), "UnknownParameter"),
        (with("SubAppId", json!(-1)), "InvalidParameter"),
        (with("CoverType", Value::Null), "ok"),
    ] {
        assert_eq!(world.code("ApplyUpload", parameters.clone()).await, code, "{parameters}");
    }
    world.emulator.change_settings(|settings| settings.sub_app_ids = vec![7]);
    assert_eq!(world.code("ApplyUpload", with("SubAppId", json!(8))).await, "InvalidParameterValue.SubAppId");
    assert_eq!(world.code("CommitUpload", json!({})).await, "MissingParameter");
    let unknown = json!({ "VodSessionKey": "nobody's" });
    assert_eq!(world.code("CommitUpload", unknown).await, "InvalidParameterValue.VodSessionKey");
}

#[tokio::test]
async fn a_manifest_is_parsed_and_regions_are_described() {
    let world = World::start(|_| {}).await;
    let playlist = "#EXTM3U\n#EXTINF:10,\nseg 0.ts\n#EXTINF:10,\nsub/seg1.ts\n";
    let parsed = world.api("ParseStreamingManifest", json!({ "MediaManifestContent": playlist })).await;
    assert_eq!(parsed["MediaSegmentSet"], json!(["seg 0.ts", "sub/seg1.ts"]));
    let code = |content: &str, of: &str| {
        world.code("ParseStreamingManifest", json!({ "MediaManifestContent": content, "ManifestType": of }))
    };
    assert_eq!(code("seg.ts", "m3u8").await, "InvalidParameterValue.MediaManifestContent");
    assert_eq!(code(playlist, "pls").await, "InvalidParameterValue.ManifestType");
    assert_eq!(code("", "m3u8").await, "MissingParameter");

    let regions = world.api("DescribeStorageRegions", json!({})).await;
    let infos = regions["StorageRegionInfos"].as_array().unwrap();
    let opened: Vec<&Value> =
        infos.iter().filter(|info| info["Status"] == "opened").map(|info| &info["Region"]).collect();
    assert_eq!(opened, ["ap-guangzhou", "ap-singapore"]);
    let usual: Vec<&Value> =
        infos.iter().filter(|info| info["IsDefault"] == true).map(|info| &info["Region"]).collect();
    assert_eq!(usual, ["ap-guangzhou"]);
}

#[tokio::test]
async fn a_transcode_can_be_asked_for_after_the_upload() {
    let world = World::start(|_| {}).await;
    let (_, committed) = world.uploaded(b"abc", json!({ "MediaType": "mp4" })).await;
    let file_id = committed["FileId"].as_str().unwrap();
    world.events(0).await;
    let process = |more: Value| {
        let mut parameters = json!({
            "FileId": file_id,
            "MediaProcessTask": {
                "TranscodeTaskSet": [{ "Definition": 100_030 }, { "Definition": 100_040 }],
                "CoverBySnapshotTaskSet": [{ "Definition": 10, "PositionType": "Time", "PositionValue": 1 }],
            },
        });
        for (name, value) in more.as_object().unwrap() {
            parameters[name] = value.clone();
        }
        world.api("ProcessMedia", parameters)
    };
    let answer = process(json!({ "SessionContext": "c", "SessionId": "s", "TasksPriority": 3 })).await;
    let [event] = &world.events(0).await[..] else { panic!("one event") };
    let task = &event["ProcedureStateChangeEvent"];
    assert_eq!((&task["TaskId"], &task["FileId"]), (&answer["TaskId"], &committed["FileId"]));
    assert_eq!((&task["SessionContext"], &task["SessionId"]), (&json!("c"), &json!("s")));
    let results = task["MediaProcessResultSet"].as_array().unwrap();
    let kinds: Vec<(&Value, &Value)> = results
        .iter()
        .map(|result| {
            (&result["Type"], result.pointer("/TranscodeTask/Input/Definition").unwrap_or(&Value::Null))
        })
        .collect();
    let (transcode, cover) = (json!("Transcode"), json!("CoverBySnapshot"));
    let (first, second) = (json!(100_030), json!(100_040));
    assert_eq!(kinds, [(&transcode, &first), (&transcode, &second), (&cover, &Value::Null)]);

    assert_eq!(code_of(&process(json!({ "SessionId": "s" })).await), "InvalidParameterValue.SessionId");
    process(json!({ "TasksNotifyMode": "Change" })).await;
    let events = world.events(0).await;
    let states: Vec<&Value> =
        events.iter().map(|event| &event["ProcedureStateChangeEvent"]["Status"]).collect();
    assert_eq!(states, ["PROCESSING", "PROCESSING", "FINISH"]);
    process(json!({ "TasksNotifyMode": "None" })).await;
    assert!(world.events(0).await.is_empty());

    for (more, code) in [
        (json!({ "FileId": "1" }), "InvalidParameterValue.FileId"),
        (json!({ "SubAppId": 9 }), "InvalidParameterValue.FileId"),
        (json!({ "TasksPriority": 11 }), "InvalidParameterValue"),
        (json!({ "TasksNotifyMode": "Often" }), "InvalidParameterValue"),
        (json!({ "SessionId": "x".repeat(51) }), "InvalidParameterValue"),
        (json!({ "MediaProcessTask": { "Transcode": [] } }), "UnknownParameter"),
        (json!({ "MediaProcessTask": { "TranscodeTaskSet": [{}] } }), "InvalidParameter"),
        (json!({ "MediaProcessTask": [] }), "InvalidParameter"),
    ] {
        assert_eq!(code_of(&process(more.clone()).await), code, "{more}");
    }
}

#[tokio::test]
async fn a_procedure_takes_as_long_as_it_is_told_to() {
    let world = World::start(|uploads| uploads.procedure_ms = 100).await;
    world.uploaded(b"abc", json!({ "MediaType": "mp4", "Procedure": "P" })).await;
    let soon = std::time::Duration::from_secs(10);
    world.emulator.wait_until(|state| state.counts(0).put == 2, soon).await.unwrap();
    let kinds: Vec<Value> = world.events(0).await.iter().map(|event| event["EventType"].clone()).collect();
    assert_eq!(kinds, ["NewFileUpload", "ProcedureStateChanged"]);
}

#[tokio::test]
async fn signature_v1_is_as_good_as_the_other() {
    let world = World::start(|_| {}).await;
    let answer =
        world.v1("ApplyUpload", &[("MediaType", "mp4"), ("MediaName", "a b&=+测"), ("ClassId", "3")]).await;
    assert_eq!(code_of(&answer), "ok", "{answer}");
    assert!(answer["MediaStoragePath"].as_str().unwrap().ends_with("/f0.mp4"), "{answer}");
    let code = async |action: &str, own: &[(&str, &str)]| code_of(&world.v1(action, own).await);
    assert_eq!(code("ApplyUpload", &[("MediaType", "mp4"), ("Film", "x")]).await, "UnknownParameter");
    assert_eq!(code("ApplyUpload", &[("MediaType", "mp4"), ("ClassId", "three")]).await, "InvalidParameter");
    assert_eq!(code("PullEvents", &[]).await, "ResourceNotFound");
    assert_eq!(code("ConfirmEvents", &[("EventHandles.0", "nobody's")]).await, "InvalidParameterValue");
    assert_eq!(code("NoAction", &[]).await, "InvalidAction");
    let unsigned = world.http.post(world.emulator.endpoint());
    let unsigned = unsigned.header("content-type", "application/x-www-form-urlencoded");
    let unsigned = unsigned.body("Action=ApplyUpload&Version=2018-07-17&MediaType=mp4&Timestamp=1&Nonce=1");
    let text = unsigned.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("AuthFailure.SignatureExpire"), "{text}");
}
