//! The calls of the web SDK, under signatures for client uploads.

use reqwest::Method;
use serde_json::{Value, json};
use tencent_vod_emulator::{Action, Fault, FaultKind, OneTime};
use tencentcloud_signing::upload::{Grant, TaskNotifyMode, random};

use super::client::{Applied, ID, KEY, World, now};

fn grant() -> Grant {
    Grant::new(ID, now(), now() + 600, random().unwrap())
}

fn signed(grant: &Grant) -> String {
    grant.sign(KEY).unwrap()
}

fn one_time() -> Grant {
    Grant { one_time_valid: Some(true), ..grant() }
}

pub(crate) fn video(signature: &str) -> Value {
    json!({
        "signature": signature, "videoName": "film", "videoType": "mp4", "videoSize": 3, "uploadFromWeb": true,
    })
}

/// Where to upload, as the SDK reads it.
pub(crate) fn applied(answer: &Value) -> Applied {
    assert_eq!(answer["code"], 0, "{answer}");
    let data = &answer["data"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let key = |name: &str| text(&data[name]["storagePath"]).trim_start_matches('/').to_owned();
    let certificate = &data["tempCertificate"];
    Applied {
        bucket: format!("{}-{}", text(&data["storageBucket"]), data["storageAppId"]),
        region: text(&data["storageRegionV5"]),
        session: text(&data["vodSessionKey"]),
        media: key("video"),
        cover: key("cover"),
        id: text(&certificate["secretId"]),
        key: text(&certificate["secretKey"]),
        token: text(&certificate["token"]),
        expires: certificate["expiredTime"].as_i64().unwrap(),
    }
}

pub(crate) async fn put(world: &World, applied: &Applied, key: &str) -> String {
    world.cos(applied, Method::PUT, key).body("abc").code().await
}

#[tokio::test]
async fn a_page_uploads_a_film_with_its_cover_under_what_the_signature_grants() {
    let world = World::start(|_| {}).await;
    let grant = || Grant {
        procedure: Some("P".to_owned()),
        task_notify_mode: Some(TaskNotifyMode::Finish),
        source_context: Some("user=1&x".to_owned()),
        session_context: Some("s".to_owned()),
        sub_app_id: Some(1_500_000_001),
        storage_region: Some("ap-singapore".to_owned()),
        ..one_time()
    };
    let prepared = world.ugc("PrepareUploadUGC", json!({ "signature": signed(&grant()) })).await;
    assert_eq!(prepared["data"]["cosRegionList"].as_array().unwrap().len(), 2, "{prepared}");
    let mut parameters = video(&signed(&grant()));
    for (name, value) in [("coverName", json!("c")), ("coverType", json!("jpg")), ("coverSize", json!(3))] {
        parameters[name] = value;
    }
    let place = applied(&world.ugc("ApplyUploadUGC", parameters).await);
    assert_eq!(place.region, "ap-singapore");
    for key in [&place.media, &place.cover] {
        assert_eq!(put(&world, &place, key).await, "ok");
    }
    let commit = json!({ "signature": signed(&grant()), "vodSessionKey": place.session });
    let committed = world.ugc("CommitUploadUGC", commit).await;
    assert_eq!(committed["code"], 0, "{committed}");
    let events = world.events(1_500_000_001).await;
    let info = &events[0]["FileUploadEvent"]["MediaBasicInfo"];
    assert_eq!(events[0]["FileUploadEvent"]["FileId"], committed["data"]["fileId"]);
    assert_eq!(info["MediaUrl"], committed["data"]["video"]["url"]);
    assert_eq!(info["CoverUrl"], committed["data"]["cover"]["url"]);
    assert_eq!(info["SourceInfo"]["SourceContext"], "user=1&x");
    assert_eq!(events[1]["ProcedureStateChangeEvent"]["SessionContext"], "s");
}

#[tokio::test]
async fn each_signature_that_is_not_good_is_refused() {
    let world = World::start(|_| {}).await;
    let code = async |signature: &str| world.ugc("ApplyUploadUGC", video(signature)).await["code"].clone();
    assert_eq!(code(&signed(&grant())).await, 0);
    let expired = Grant { current_time_stamp: now() - 700, expire_time: now() - 100, ..grant() };
    let early = Grant { current_time_stamp: now() + 400, expire_time: now() + 900, ..grant() };
    let good = signed(&grant());
    let tampered = format!("{}{}", if good.starts_with('A') { 'B' } else { 'A' }, &good[1..]);
    for (signature, what) in [
        (signed(&expired), "expired"),
        (signed(&early), "made in the future"),
        (grant().sign("another key").unwrap(), "another key"),
        (Grant { secret_id: "nobody".to_owned(), ..grant() }.sign(KEY).unwrap(), "nobody's"),
        (tampered, "tampered with"),
        ("*".to_owned(), "no signature"),
    ] {
        assert_eq!(code(&signature).await, 1001, "{what}");
    }
    assert_eq!(code("").await, 1012);
    assert_eq!(world.ugc("ApplyUploadUGC", json!("text")).await["code"], 1002);
    let neither = json!({ "signature": signed(&grant()) });
    assert_eq!(world.ugc("ApplyUploadUGC", neither).await["code"], 1002);
    let mut hostile = video(&signed(&grant()));
    hostile["videoType"] = json!("a/../b");
    assert_eq!(world.ugc("ApplyUploadUGC", hostile).await["code"], 1002);
}

#[tokio::test]
async fn a_one_time_signature_is_spent_by_each_call_or_by_the_application_alone() {
    let world = World::start(|_| {}).await;
    let once = signed(&one_time());
    let prepare = async || world.ugc("PrepareUploadUGC", json!({ "signature": once })).await["code"].clone();
    let apply = async || world.ugc("ApplyUploadUGC", video(&once)).await;
    assert_eq!(prepare().await, 0);
    assert_eq!(prepare().await, 1001);
    assert_eq!(apply().await["code"], 1001);
    let again = signed(&grant());
    for _ in 0..2 {
        let code = world.ugc("PrepareUploadUGC", json!({ "signature": again })).await["code"].clone();
        assert_eq!(code, 0, "one that is not for one use");
    }
    let world = World::start(|uploads| uploads.one_time = OneTime::Apply).await;
    let prepare = async || world.ugc("PrepareUploadUGC", json!({ "signature": once })).await["code"].clone();
    assert_eq!((prepare().await, prepare().await), (json!(0), json!(0)));
    let place = applied(&world.ugc("ApplyUploadUGC", video(&once)).await);
    assert_eq!(world.ugc("ApplyUploadUGC", video(&once)).await["code"], 1001);
    assert_eq!(put(&world, &place, &place.media).await, "ok");
    // The Android client applies and commits with one signature.
    let commit = json!({ "signature": once, "vodSessionKey": place.session });
    assert_eq!(world.ugc("CommitUploadUGC", commit).await["code"], 0);
}

#[tokio::test]
async fn an_upload_goes_on_under_its_session_key_with_a_new_key_for_the_same_place() {
    let world = World::start(|_| {}).await;
    let first = applied(&world.ugc("ApplyUploadUGC", video(&signed(&grant()))).await);
    let resume = |session: &str, of: Grant| {
        world.ugc("ApplyUploadUGC", json!({ "signature": signed(&of), "vodSessionKey": session }))
    };
    let second = applied(&resume(&first.session, grant()).await);
    assert_eq!((&second.media, &second.session), (&first.media, &first.session));
    assert_ne!(second.id, first.id);
    for place in [&first, &second] {
        assert_eq!(put(&world, place, &first.media).await, "ok");
    }
    let other_app = Grant { sub_app_id: Some(7), ..grant() };
    assert_eq!(resume(&first.session, other_app).await["code"], 1005);
    assert_eq!(resume("nobody's", grant()).await["code"], 1005);
    world.emulator.change_settings(|settings| settings.uploads.session_seconds = 0);
    assert_eq!(resume(&first.session, grant()).await["code"], 1005, "a day is over");
    world.emulator.change_settings(|settings| settings.uploads.session_seconds = 86_400);
    let commit = || {
        world.ugc("CommitUploadUGC", json!({ "signature": signed(&grant()), "vodSessionKey": first.session }))
    };
    assert_eq!(commit().await["code"], 0);
    assert_eq!(commit().await["code"], 1005, "it was committed");
    assert_eq!(resume(&first.session, grant()).await["code"], 1005, "it was committed");
}

#[tokio::test]
async fn the_cover_of_a_medium_is_replaced() {
    let world = World::start(|_| {}).await;
    let (_, committed) = world.uploaded(b"abc", json!({ "MediaType": "mp4" })).await;
    world.events(0).await;
    let parameters = |file_id: &Value| {
        json!({
            "signature": signed(&grant()), "fileId": file_id, "coverName": "c", "coverType": "png", "coverSize": 3,
        })
    };
    let place = applied(&world.ugc("ApplyUploadUGC", parameters(&committed["FileId"])).await);
    assert_eq!(put(&world, &place, &place.cover).await, "ok");
    let commit = json!({ "signature": signed(&grant()), "vodSessionKey": place.session });
    let changed = world.ugc("CommitUploadUGC", commit).await;
    assert_eq!(changed["data"]["fileId"], committed["FileId"]);
    assert!(changed["data"]["cover"]["url"].as_str().unwrap().ends_with(".png"));
    assert!(world.events(0).await.is_empty(), "nothing new was uploaded");
    assert_eq!(world.ugc("ApplyUploadUGC", parameters(&json!("1"))).await["code"], 1002);
}

#[tokio::test]
async fn a_page_of_another_origin_is_let_through() {
    let world = World::start(|_| {}).await;
    let place = applied(&world.ugc("ApplyUploadUGC", video(&signed(&grant()))).await);
    let url = format!("{}/{}", world.emulator.endpoint(), place.media);
    let preflight = world.http.request(Method::OPTIONS, url).header("host", place.host());
    let preflight = preflight
        .header("origin", "https://page.example")
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization,x-cos-security-token,content-md5")
        .send()
        .await
        .unwrap();
    let header = |name: &str| preflight.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((preflight.status().as_u16(), header("access-control-allow-origin")), (200, "*".to_owned()));
    assert_eq!(header("access-control-allow-headers"), "authorization,x-cos-security-token,content-md5");
    let stored =
        world.cos(&place, Method::PUT, &place.media).header("origin", "https://page.example").body("abc");
    let stored = stored.send().await;
    assert_eq!((stored.status, stored.header("access-control-allow-origin")), (200, "*"));
    assert!(stored.header("access-control-expose-headers").contains("ETag"));
}

#[tokio::test]
async fn faults_strike_the_web_calls_too() {
    let world = World::start(|_| {}).await;
    let on = |fault: FaultKind| world.emulator.faults().add(Fault::once(fault).on(Action::ApplyUploadUGC));
    on(FaultKind::Error { code: "InternalError".to_owned() });
    assert_eq!(world.ugc("ApplyUploadUGC", video(&signed(&grant()))).await["code"], 500);
    on(FaultKind::AnswerLost);
    let url = format!("{}/v3/index.php?Action=ApplyUploadUGC", world.emulator.endpoint());
    assert!(world.http.post(url).body(video(&signed(&grant())).to_string()).send().await.is_err());
    assert_eq!(world.ugc("ApplyUploadUGC", video(&signed(&grant()))).await["code"], 0);
    assert_eq!(world.emulator.uploads().sessions.len(), 2, "a lost answer is no lost application");
}
