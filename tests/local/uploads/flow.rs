//! Whole uploads, from the application to the events.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{World, code_of};

/// CRC-64/XZ, bit by bit: as slow as can be, and nobody else's.
fn crc64(bytes: &[u8]) -> u64 {
    const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;
    !bytes.iter().fold(!0_u64, |crc, byte| {
        (0..8).fold(
            crc ^ u64::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 },
        )
    })
}

#[tokio::test]
async fn an_upload_with_a_cover_and_a_procedure_has_its_events() {
    let world = World::start(|_| {}).await;
    let context = "{\"user\":\"17\",\"名\":\" a&b=c+d \"}";
    let applied = world
        .apply(json!({
            "MediaType": "mp4", "MediaName": "动物 world", "CoverType": "jpg", "Procedure": "LongVideoPreset",
            "SourceContext": context, "SessionContext": "sess-1", "StorageRegion": "ap-singapore", "ClassId": 7,
            "SubAppId": 1_500_000_001_u64, "ExpireTime": "2030-01-01T00:00:00Z",
        }))
        .await;
    assert_eq!(applied.region, "ap-singapore");
    for (key, content) in [(&applied.media, "[Object Part]"), (&applied.cover, "picture")] {
        let put = world.cos(&applied, Method::PUT, key).body(content).send().await;
        assert_eq!(
            (put.status, put.header("x-cos-hash-crc64ecma")),
            (200, &*crc64(content.as_bytes()).to_string())
        );
        assert!(!put.header("x-cos-request-id").is_empty() && !put.header("date").is_empty());
    }
    let key = json!({ "VodSessionKey": applied.session, "SubAppId": 1_500_000_001_u64 });
    let committed = world.api("CommitUpload", key).await;
    let [upload, procedure] = &world.events(1_500_000_001).await[..] else { panic!("two events") };

    assert_eq!(upload["EventType"], "NewFileUpload");
    let event = &upload["FileUploadEvent"];
    let info = &event["MediaBasicInfo"];
    assert_eq!((&event["FileId"], &info["MediaUrl"]), (&committed["FileId"], &committed["MediaUrl"]));
    assert_eq!(info["CoverUrl"], committed["CoverUrl"]);
    assert_ne!(committed["CoverUrl"], "");
    assert_eq!((&event["MetaData"]["Size"], &info["StorageRegion"]), (&json!(13), &json!("ap-singapore")));
    assert_eq!(event["MetaData"]["Md5"], "108f528eb63b65e734f27ae331f5ffaa");
    assert_eq!(info["SourceInfo"]["SourceType"], "Upload");
    assert_eq!(info["SourceInfo"]["SourceContext"], context);
    assert_eq!(
        (&info["Name"], &info["Type"], &info["ClassId"]),
        (&json!("动物 world"), &json!("mp4"), &json!(7))
    );
    assert_eq!(info["ExpireTime"], "2030-01-01T00:00:00Z");

    assert_eq!(procedure["EventType"], "ProcedureStateChanged");
    let task = &procedure["ProcedureStateChangeEvent"];
    assert_eq!((&task["TaskId"], &task["FileId"]), (&event["ProcedureTaskId"], &committed["FileId"]));
    assert_eq!((&task["Status"], &task["SessionContext"]), (&json!("FINISH"), &json!("sess-1")));
    assert_eq!(world.emulator.content(&applied.bucket, &applied.media).unwrap(), b"[Object Part]");
}

#[tokio::test]
async fn an_upload_in_parts_is_put_together_whatever_their_order() {
    let world = World::start(|uploads| uploads.min_part_bytes = 5).await;
    let applied = world.apply_mp4().await;
    let id = world.initiate(&applied).await;
    let contents = ["first ", "second ", "3"];
    let mut parts = Vec::new();
    for number in [3, 1, 2] {
        let content = contents[number as usize - 1];
        let put = world.part(&applied, &id, number, content).send().await;
        assert_eq!((put.status, put.text.as_str()), (200, ""));
        assert_eq!(put.header("x-cos-hash-crc64ecma"), crc64(content.as_bytes()).to_string());
        parts.push((number, put.header("etag").to_owned()));
    }
    parts.sort();
    let list = world.cos(&applied, Method::GET, &applied.media).query("uploadId", &id).send().await;
    assert_eq!(list.elements("PartNumber"), ["1", "2", "3"]);
    assert_eq!(list.elements("Size"), ["6", "7", "1"]);
    assert_eq!(list.element("IsTruncated"), "false");
    let etags: Vec<String> = list.elements("ETag").iter().map(|etag| etag.replace("&quot;", "\"")).collect();
    assert_eq!(etags, parts.iter().map(|(_, etag)| etag.clone()).collect::<Vec<_>>());

    let done = world.complete(&applied, &id, &parts).send().await;
    assert_eq!((done.status, done.element("Key")), (200, applied.media.clone()));
    assert!(done.element("ETag").ends_with("-3&quot;"), "{}", done.text);
    assert_eq!(done.header("x-cos-hash-crc64ecma"), crc64(b"first second 3").to_string());
    assert_eq!(world.emulator.content(&applied.bucket, &applied.media).unwrap(), b"first second 3");
    let committed = world.commit(&applied).await;
    let events = world.events(0).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["FileUploadEvent"]["FileId"], committed["FileId"]);
    assert_eq!(events[0]["FileUploadEvent"]["MetaData"]["Md5"], "453e0f0f3d025b04c60ef1668ddd9a04");
}

#[tokio::test]
async fn an_upload_that_was_cut_off_is_found_and_goes_on() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let id = world.initiate(&applied).await;
    let mib = vec![7_u8; 1024 * 1024];
    let first = world.part(&applied, &id, 1, mib.clone()).send().await.header("etag").to_owned();
    // As the SDKs do it: the newest upload of the key, and its parts.
    let uploads = world.cos(&applied, Method::GET, "").query("uploads", "").query("prefix", &applied.media);
    let uploads = uploads.query("encoding-type", "url").send().await;
    assert_eq!((uploads.element("Key"), uploads.element("UploadId")), (applied.media.clone(), id.clone()));
    assert_eq!(uploads.element("Encoding-Type"), "url");
    let second = world.part(&applied, &id, 2, "end").send().await.header("etag").to_owned();
    assert_eq!(world.complete(&applied, &id, &[(1, first), (2, second)]).code().await, "ok");
    let report = world.emulator.uploads();
    let object = &report.objects[0];
    assert_eq!((object.size, object.parts, object.parts_stored), (1024 * 1024 + 3, 2, 2));
    assert!(report.multipart.is_empty());
    let aborted = world.initiate(&applied).await;
    let abort = |id: &str| world.cos(&applied, Method::DELETE, &applied.media).query("uploadId", id);
    assert_eq!(abort(&aborted).send().await.status, 204);
    assert_eq!(abort(&aborted).code().await, "NoSuchUpload");
}

#[tokio::test]
async fn buckets_are_reached_by_host_with_or_without_port_and_by_path() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let address = world.emulator.addr().to_string();
    let put = || world.cos(&applied, Method::PUT, &applied.media).body("x");
    let host = applied.host();
    assert_eq!(put().code().await, "ok");
    assert_eq!(
        put().with(|call| call.host = host.replace("myqcloud.com", "tencentcos.cn")).code().await,
        "ok"
    );
    let with_port = |call: &mut super::client::CosCall<'_>| {
        call.host = format!("{host}:80");
        call.signed_host = Some(host.clone());
    };
    assert_eq!(put().with(with_port).code().await, "ok");
    // By path: with the bucket in it, and without, because there is only one of the region.
    let by_path = |call: &mut super::client::CosCall<'_>| {
        call.host = address.clone();
        call.path = format!("/{}/{}", applied.bucket, applied.media);
    };
    assert_eq!(put().with(by_path).code().await, "ok");
    assert_eq!(put().with(|call| call.host = address.clone()).code().await, "ok");
    assert_eq!(world.emulator.uploads().objects.len(), 1);
}

#[tokio::test]
async fn a_body_in_chunks_and_an_empty_one_are_stored() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let chunked = world.cos(&applied, Method::PUT, &applied.media).header("transfer-encoding", "chunked");
    let pieces = b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n";
    let answer = chunked.with(|call| call.length = None).raw(pieces).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(
        world.emulator.content(&applied.bucket, &applied.media),
        None,
        "its size was not known before"
    );
    assert_eq!(world.emulator.uploads().objects[0].size, 11);
    let empty = world.cos(&applied, Method::PUT, &applied.media).send().await;
    assert_eq!((empty.status, empty.header("x-cos-hash-crc64ecma")), (200, "0"));
}

#[tokio::test]
async fn what_is_large_is_not_kept_and_its_digests_are_right() {
    let world = World::start(|uploads| {
        uploads.memory_bytes = 1024 * 1024;
        uploads.keep_object_bytes = 1024;
    })
    .await;
    let content = vec![b'a'; 32 * 1024 * 1024];
    let (applied, _) = world.uploaded(&content, json!({ "MediaType": "mp4" })).await;
    let in_parts = world.apply_mp4().await;
    let id = world.initiate(&in_parts).await;
    let mut parts = Vec::new();
    for (number, part) in (1..).zip(content.chunks(12 * 1024 * 1024)) {
        let put = world.part(&in_parts, &id, number, part).send().await;
        parts.push((number, put.header("etag").to_owned()));
    }
    assert_eq!(world.complete(&in_parts, &id, &parts).code().await, "ok");
    let report = world.emulator.uploads();
    assert_eq!(report.memory_bytes, 0);
    let [whole, together] = &report.objects[..] else { panic!("two objects") };
    assert_eq!((whole.md5.clone(), &whole.crc64), (together.md5.clone(), &together.crc64));
    assert_eq!(whole.md5.as_deref(), Some("bc3d7c2ff64219e33239f2e13c2d21db"));
    assert!(!whole.kept && !together.kept);
    assert_eq!(world.emulator.content(&applied.bucket, &applied.media), None);
}

#[tokio::test]
async fn ten_thousand_parts_are_listed_by_the_page_and_put_together() {
    let world = World::start(|uploads| uploads.min_part_bytes = 1).await;
    let applied = world.apply_mp4().await;
    let id = world.initiate(&applied).await;
    let mut parts = Vec::with_capacity(10_000);
    for number in 1..=10_000_u32 {
        let put = world.part(&applied, &id, number, number.to_string()).send().await;
        parts.push((number, put.header("etag").to_owned()));
    }
    assert_eq!(world.part(&applied, &id, 10_001, "x").code().await, "InvalidArgument");
    assert_eq!(world.part(&applied, &id, 0, "x").code().await, "InvalidArgument");
    let mut marker = "0".to_owned();
    let mut pages = Vec::new();
    loop {
        let list = world.cos(&applied, Method::GET, &applied.media).query("uploadId", &id);
        let list = list.query("part-number-marker", &marker).send().await;
        pages.push(list.elements("PartNumber").len());
        if list.element("IsTruncated") == "false" {
            break;
        }
        marker = list.element("NextPartNumberMarker");
    }
    assert_eq!(pages, [1_000; 10]);
    assert_eq!(world.complete(&applied, &id, &parts).code().await, "ok");
    let whole: String = (1..=10_000_u32).map(|number| number.to_string()).collect();
    assert_eq!(world.emulator.content(&applied.bucket, &applied.media).unwrap(), whole.as_bytes());
}

#[tokio::test]
async fn an_upload_has_no_event_where_its_switch_is_off_and_as_many_as_the_mode_asks_for() {
    let world = World::start(|_| {}).await;
    world.emulator.change_event_config(0, |config| config.upload_switch = "OFF".to_owned());
    let types = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["EventType"].as_str().unwrap().to_owned()).collect()
    };
    world.uploaded(b"x", json!({ "MediaType": "mp4" })).await;
    assert_eq!(types(&world.events(0).await), [""; 0]);
    let (_, committed) = world.uploaded(b"x", json!({ "MediaType": "mp4", "Procedure": "P" })).await;
    assert_eq!(code_of(&committed), "ok");
    assert_eq!(types(&world.events(0).await), ["ProcedureStateChanged"]);
}
