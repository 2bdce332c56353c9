//! Requests that are wrong on purpose: each is refused with the code of the documents, and stores nothing.

use reqwest::Method;
use serde_json::json;
use tencentcloud_signing::cos::KeyTime;

use super::client::{Applied, CosCall, ID, KEY, World, now};

fn put<'a>(world: &'a World, applied: &Applied) -> CosCall<'a> {
    world.cos(applied, Method::PUT, &applied.media).body("abc")
}

#[tokio::test]
async fn each_wrong_signature_has_its_code() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let with = async |change: fn(&mut CosCall<'_>)| put(&world, &applied).with(change).code().await;
    assert_eq!(with(|call| call.key.push('x')).await, "SignatureDoesNotMatch");
    assert_eq!(with(|call| call.id.push('x')).await, "InvalidAccessKeyId");
    assert_eq!(with(|call| call.token = None).await, "AccessDenied");
    assert_eq!(with(|call| call.token = Some("other".to_owned())).await, "AccessDenied");
    let other_host =
        |call: &mut CosCall<'_>| call.signed_host = Some("other-1.cos.r.myqcloud.com".to_owned());
    assert_eq!(put(&world, &applied).with(other_host).code().await, "SignatureDoesNotMatch");
    let lapsed =
        put(&world, &applied).with(|call| call.time = KeyTime { start: now() - 900, end: now() - 1 });
    let lapsed = lapsed.send().await;
    assert_eq!((lapsed.status, lapsed.element("Message")), (403, "Request has expired".to_owned()));
    let skewed = |call: &mut CosCall<'_>| call.time = KeyTime { start: now() + 1_000, end: now() + 2_000 };
    assert_eq!(put(&world, &applied).with(skewed).code().await, "RequestTimeTooSkewed");
    let ahead = |call: &mut CosCall<'_>| call.time = KeyTime { start: now() + 600, end: now() + 2_000 };
    assert_eq!(put(&world, &applied).with(ahead).code().await, "ok", "fifteen minutes are allowed");
}

#[tokio::test]
async fn an_error_tells_what_the_server_computed_and_no_secret() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let answer = put(&world, &applied).with(|call| call.key.push('x')).send().await;
    assert_eq!(answer.status, 403);
    assert!(
        answer.element("FormatString").starts_with(&format!("put\n/{}\n\n", applied.media)),
        "{}",
        answer.text
    );
    assert!(answer.element("StringToSign").starts_with("sha1\n"));
    for name in ["Code", "Message", "Resource", "RequestId", "TraceId"] {
        assert!(!answer.element(name).is_empty(), "{name} in {}", answer.text);
    }
    assert_eq!(answer.header("x-cos-request-id"), answer.element("RequestId"));
    assert!(!answer.text.contains(&applied.key) && !answer.text.contains(KEY));
}

#[tokio::test]
async fn a_key_is_good_for_the_paths_that_were_applied_for_and_no_others() {
    let world = World::start(|_| {}).await;
    let (mine, other) = (world.apply_mp4().await, world.apply_mp4().await);
    let at = |key: &str| world.cos(&mine, Method::PUT, key).body("abc");
    let folder = mine.media.rsplit_once('/').unwrap().0;
    for key in
        [&other.media, &format!("{folder}/f1.mp4"), &format!("{}x", mine.media), "f0.mp4", "_emulator/stats"]
    {
        assert_eq!(at(key).code().await, "AccessDenied", "{key}");
    }
    // The client of these tests sends a path as it is; others would resolve it.
    for raw in [format!("/{folder}/../f0.mp4"), format!("/{folder}/%2e%2e/f0.mp4"), "/%00".to_owned()] {
        let host = mine.host();
        let request = format!(
            "PUT {raw} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\
             Authorization: q-sign-algorithm=sha1&q-ak=x\r\n\r\n"
        );
        let answer = world.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("InvalidURI"), "{raw}: {answer}");
    }
    let list = |prefix: &str| world.cos(&mine, Method::GET, "").query("uploads", "").query("prefix", prefix);
    assert_eq!(list(&mine.media).code().await, "ok");
    for prefix in ["", folder, &other.media] {
        assert_eq!(list(prefix).code().await, "AccessDenied", "{prefix:?}");
    }
    assert_eq!(world.cos(&mine, Method::GET, &mine.media).code().await, "AccessDenied");
    let elsewhere = |call: &mut CosCall<'_>| call.host = call.host.replace("vodap", "vodxp");
    assert_eq!(at(&mine.media).with(elsewhere).code().await, "AccessDenied");
    assert!(world.emulator.uploads().objects.is_empty());
    // The account's own key is good for everything.
    let own = |call: &mut CosCall<'_>| {
        (call.id, call.key, call.token) = (ID.to_owned(), KEY.to_owned(), None);
    };
    assert_eq!(at("any/where").with(own).code().await, "ok");
    assert_eq!(world.cos(&mine, Method::GET, "any/where").with(own).send().await.text, "abc");
}

#[tokio::test]
async fn a_manifest_s_key_is_good_for_its_folder_and_nothing_above_it() {
    let world = World::start(|_| {}).await;
    let applied = world.apply(json!({ "MediaType": "m3u8" })).await;
    let folder = applied.media.rsplit_once('/').unwrap().0;
    let at = |key: String| world.cos(&applied, Method::PUT, &key).body("abc").code();
    assert_eq!(at(format!("{folder}/sub/seg 0.ts")).await, "ok");
    assert_eq!(at(format!("{folder}//x")).await, "AccessDenied");
    assert_eq!(at(format!("{folder}x/seg.ts")).await, "AccessDenied");
    assert_eq!(at("seg.ts".to_owned()).await, "AccessDenied");
}

#[tokio::test]
async fn content_that_is_not_what_was_said_is_not_stored() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let md5 = |value: &str| put(&world, &applied).header("content-md5", value).code();
    assert_eq!(md5("kAFQmDzST7DWlj99KOF/cw==").await, "BadDigest");
    assert_eq!(md5("kAFQ").await, "InvalidDigest");
    assert!(world.emulator.uploads().objects.is_empty());
    assert_eq!(md5("kAFQmDzST7DWlj99KOF/cg==").await, "ok");
    assert_eq!(put(&world, &applied).header("x-cos-traffic-limit", "819199").code().await, "InvalidArgument");
    assert_eq!(put(&world, &applied).header("x-cos-traffic-limit", "838860800").code().await, "ok");
    // Neither a length nor chunks, and a length beyond 5 GB: both are refused before anything is read.
    let answer = put(&world, &applied).with(|call| call.length = None).raw(b"").await;
    assert!(answer.contains(" 411 ") && answer.contains("MissingContentLength"), "{answer}");
    let answer = put(&world, &applied).with(|call| call.length = Some(5_368_709_121)).raw(b"").await;
    assert!(answer.contains(" 400 ") && answer.contains("EntityTooLarge"), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_cut_off_stores_nothing() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let id = world.initiate(&applied).await;
    let cut = world.part(&applied, &id, 1, "").with(|call| call.length = Some(1_000));
    let answer = cut.raw(b"some of it").await;
    assert!(!answer.contains("200 OK"), "{answer}");
    let list = world.cos(&applied, Method::GET, &applied.media).query("uploadId", &id).send().await;
    assert_eq!((list.status, list.elements("Part").len()), (200, 0));
}

#[tokio::test]
async fn each_wrong_complete_has_its_code_and_leaves_the_parts() {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let id = world.initiate(&applied).await;
    let mut parts = Vec::new();
    for number in [1, 2] {
        let put = world.part(&applied, &id, number, "abc").send().await;
        parts.push((number, put.header("etag").to_owned()));
    }
    let reversed: Vec<(u32, String)> = parts.iter().rev().cloned().collect();
    let other = vec![(1, "\"00\"".to_owned())];
    let absent = vec![(3, parts[0].1.clone())];
    for (list, code) in [
        (&reversed, "InvalidPartOrder"),
        (&other, "InvalidPart"),
        (&absent, "InvalidPart"),
        (&parts, "EntityTooSmall"),
        (&Vec::new(), "MalformedXML"),
    ] {
        assert_eq!(world.complete(&applied, &id, list).code().await, code);
    }
    let complete = |body: Vec<u8>| {
        world.cos(&applied, Method::POST, &applied.media).query("uploadId", &id).body(body).code()
    };
    assert_eq!(complete(b"<Complete".to_vec()).await, "MalformedXML");
    assert_eq!(complete(vec![b' '; 3 * 1024 * 1024]).await, "XMLSizeLimit");
    assert_eq!(world.complete(&applied, "other", &parts).code().await, "NoSuchUpload");
    let report = world.emulator.uploads();
    assert_eq!((report.multipart[0].parts.clone(), report.objects.len()), (vec![1, 2], 0));
    assert_eq!(world.complete(&applied, &id, &parts[..1]).code().await, "ok", "the last part may be small");
}

#[tokio::test]
async fn a_key_that_is_over_stores_nothing() {
    let world = World::start(|uploads| uploads.credential_seconds = 0).await;
    let applied = world.apply_mp4().await;
    let answer = put(&world, &applied).send().await;
    assert_eq!((answer.status, answer.code()), (400, "ExpiredToken".to_owned()));
    assert!(applied.expires <= now());
}

#[tokio::test]
async fn the_controls_are_not_for_pages_and_not_behind_the_storage() {
    let world = World::start(|_| {}).await;
    let url = format!("{}/_emulator/stats", world.emulator.endpoint());
    let answer = world.http.get(&url).header("origin", "https://page.example").send().await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    let preflight = world.http.request(Method::OPTIONS, &url).header("origin", "https://page.example");
    let preflight = preflight.header("access-control-request-method", "POST").send().await.unwrap();
    assert!(!preflight.headers().contains_key("access-control-allow-origin"));
}
