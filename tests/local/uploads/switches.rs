//! What the documents leave open: both readings of each question, the stricter one by default.

use reqwest::Method;
use serde_json::json;
use tencent_vod_emulator::{Policy, SignatureErrorForm, UploadSettings};

use super::client::{World, code_of};

fn change(world: &World, change: impl FnOnce(&mut UploadSettings)) {
    world.emulator.change_settings(|settings| change(&mut settings.uploads));
}

#[tokio::test]
async fn a_second_commit() {
    let world = World::start(|_| {}).await;
    let (applied, first) = world.uploaded(b"x", json!({ "MediaType": "mp4" })).await;
    assert_eq!(code_of(&world.commit(&applied).await), "InvalidParameterValue.VodSessionKey");
    change(&world, |uploads| uploads.repeated_commit = Policy::Accept);
    let second = world.commit(&applied).await;
    assert_eq!((&second["FileId"], &second["MediaUrl"]), (&first["FileId"], &first["MediaUrl"]));
    assert_eq!(world.events(0).await.len(), 1, "it happened once");
}

#[tokio::test]
async fn a_commit_before_everything_is_there() {
    let world = World::start(|_| {}).await;
    let applied = world.apply(json!({ "MediaType": "mp4", "CoverType": "jpg" })).await;
    assert_eq!(code_of(&world.commit(&applied).await), "ResourceNotFound");
    world.cos(&applied, Method::PUT, &applied.media).body("x").send().await;
    assert_eq!(code_of(&world.commit(&applied).await), "ResourceNotFound", "the cover is missing");
    change(&world, |uploads| uploads.commit_without_object = Policy::Accept);
    assert_eq!(code_of(&world.commit(&applied).await), "ok");
}

#[tokio::test]
async fn a_second_complete() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let id = world.initiate(&applied).await;
    let part = world.part(&applied, &id, 1, "x").send().await.header("etag").to_owned();
    let parts = [(1, part)];
    let first = world.complete(&applied, &id, &parts).send().await;
    assert_eq!(world.complete(&applied, &id, &parts).send().await.status, 404);
    change(&world, |uploads| uploads.repeated_complete = Policy::Accept);
    let second = world.complete(&applied, &id, &parts).send().await;
    assert_eq!((second.status, second.element("ETag")), (200, first.element("ETag")));
}

#[tokio::test]
async fn what_temporary_keys_may_do() {
    let world = World::start(|_| {}).await;
    let (applied, _) = world.uploaded(b"abc", json!({ "MediaType": "mp4" })).await;
    let head = || world.cos(&applied, Method::HEAD, &applied.media);
    let list = || world.cos(&applied, Method::GET, "").query("uploads", "").query("prefix", &applied.media);
    assert_eq!((head().send().await.status, list().send().await.status), (403, 200));
    change(&world, |uploads| {
        uploads.temporary_key_head = Policy::Accept;
        uploads.temporary_key_list_uploads = Policy::Refuse;
    });
    let answer = head().send().await;
    assert_eq!((answer.status, answer.header("content-length")), (200, "3"));
    assert_eq!(list().send().await.status, 403);
    change(&world, |uploads| uploads.temporary_keys = false);
    let answer = world.api("ApplyUpload", json!({ "MediaType": "mp4" })).await;
    assert!(answer["TempCertificate"].is_null() && !answer["StorageBucket"].is_null(), "{answer}");
}

#[tokio::test]
async fn how_the_storage_words_what_is_wrong_with_a_signature() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let wrong = || world.cos(&applied, Method::PUT, &applied.media).with(|call| call.key.push('x')).send();
    let by_code = wrong().await;
    assert_eq!(by_code.element("Code"), "SignatureDoesNotMatch");
    change(&world, |uploads| uploads.signature_error_form = SignatureErrorForm::Message);
    let by_message = wrong().await;
    let words = (by_message.element("Code"), by_message.element("Message"));
    assert_eq!(words, ("AccessDenied".to_owned(), "SignatureDoesNotMatch".to_owned()));
    assert_eq!((by_code.status, by_message.status), (403, 403));
}

#[tokio::test]
async fn how_long_sessions_and_parts_live() {
    let world = World::start(|_| {}).await;
    let (applied, other) = (world.apply_mp4().await, world.apply_mp4().await);
    world.cos(&applied, Method::PUT, &applied.media).body("x").send().await;
    let id = world.initiate(&applied).await;
    change(&world, |uploads| uploads.session_seconds = 0);
    assert_eq!(code_of(&world.commit(&applied).await), "InvalidParameterValue.VodSessionKey");
    change(&world, |uploads| uploads.session_seconds = 86_400);
    assert_eq!(code_of(&world.commit(&applied).await), "ok");
    assert_eq!(world.part(&applied, &id, 1, "x").code().await, "ok");
    change(&world, |uploads| uploads.parts_seconds = -1);
    assert_eq!(world.part(&applied, &id, 1, "x").code().await, "NoSuchUpload");
    let other_app = json!({ "VodSessionKey": other.session, "SubAppId": 7 });
    assert_eq!(world.code("CommitUpload", other_app).await, "InvalidParameterValue.SubAppId");
}

#[tokio::test]
async fn where_a_medium_is_stored() {
    let world = World::start(|_| {}).await;
    let path = json!({ "MediaType": "mp4", "MediaStoragePath": "/dir/测试 a+b(1).mp4" });
    assert_eq!(world.code("ApplyUpload", path.clone()).await, "InvalidParameterValue.MediaStoragePath");
    change(&world, |uploads| uploads.media_storage_path = Policy::Accept);
    let (applied, committed) = world.uploaded(b"abc", path).await;
    assert_eq!(applied.media, "dir/测试 a+b(1).mp4");
    let url = committed["MediaUrl"].as_str().unwrap();
    assert!(url.ends_with("/dir/%E6%B5%8B%E8%AF%95%20a%2Bb%281%29.mp4"), "{url}");
    for path in ["dir/f.mp4", "/../f.mp4", "/a//f.mp4", "/a/./f.mp4", "/"] {
        let parameters = json!({ "MediaType": "mp4", "MediaStoragePath": path });
        assert_eq!(
            world.code("ApplyUpload", parameters).await,
            "InvalidParameterValue.MediaStoragePath",
            "{path}"
        );
    }
}

#[tokio::test]
async fn whether_a_source_context_comes_back_byte_for_byte() {
    let world = World::start(|_| {}).await;
    let parameters = json!({ "MediaType": "mp4", "SourceContext": " a " });
    let context = async || {
        world.uploaded(b"x", parameters.clone()).await;
        world.events(0).await[0].pointer("/FileUploadEvent/MediaBasicInfo/SourceInfo/SourceContext").cloned()
    };
    assert_eq!(context().await, Some(json!(" a ")));
    change(&world, |uploads| uploads.trim_source_context = true);
    assert_eq!(context().await, Some(json!("a")));
}

#[tokio::test]
async fn an_empty_sign_key() {
    let world = World::start(|_| {}).await;
    let set = |key: &str| world.code("ModifyEventConfig", json!({ "SignKey": key }));
    assert_eq!(set("abc123").await, "ok");
    assert_eq!(set("").await, "InvalidParameterValue");
    assert_eq!(set("not-plain").await, "InvalidParameterValue");
    assert_eq!(set(&"x".repeat(33)).await, "InvalidParameterValue");
    change(&world, |uploads| uploads.empty_sign_key = Policy::Accept);
    assert_eq!(set("").await, "ok");
}

#[tokio::test]
async fn a_declaration_after_spaces() {
    let world = World::start(|uploads| uploads.declaration_after_spaces = Policy::Accept).await;
    let applied = world.apply_mp4().await;
    let id = world.initiate(&applied).await;
    let part = world.part(&applied, &id, 1, "x").send().await.header("etag").to_owned();
    world
        .emulator
        .faults()
        .add(tencent_vod_emulator::Fault::once(tencent_vod_emulator::FaultKind::Spaces { ms: 10 }));
    let answer = world.complete(&applied, &id, &[(1, part)]).send().await;
    assert!(answer.text.starts_with(" <?xml "), "{}", answer.text);
}
