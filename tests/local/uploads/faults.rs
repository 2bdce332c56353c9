//! The faults of the object storage, as a client meets them.

use std::time::{Duration, Instant};

use reqwest::Method;
use tencent_vod_emulator::{Action, Fault, FaultKind};

use super::client::{Applied, CosAnswer, CosCall, World};

/// A world with an upload of one part under way.
async fn begun() -> (World, Applied, String, Vec<(u32, String)>) {
    let world = World::start(|_| {}).await;
    let applied = world.apply_mp4().await;
    let id = world.initiate(&applied).await;
    let put = world.part(&applied, &id, 1, "abc").send().await;
    let parts = vec![(1, put.header("etag").to_owned())];
    (world, applied, id, parts)
}

fn put<'a>(world: &'a World, applied: &Applied) -> CosCall<'a> {
    world.cos(applied, Method::PUT, &applied.media).body("abc")
}

fn on(world: &World, fault: FaultKind) {
    world.emulator.faults().add(Fault::once(fault));
}

#[tokio::test]
async fn complete_answers_200_and_then_an_error_and_nothing_is_done() {
    let (world, applied, id, parts) = begun().await;
    on(&world, FaultKind::ErrorInOk { code: "InternalError".to_owned() });
    let answer = world.complete(&applied, &id, &parts).send().await;
    assert_eq!((answer.status, answer.code()), (200, "InternalError".to_owned()));
    assert!(world.emulator.uploads().objects.is_empty());
    assert_eq!(world.complete(&applied, &id, &parts).code().await, "ok");
}

#[tokio::test]
async fn complete_answers_200_at_once_and_spaces_before_the_result() {
    let (world, applied, id, parts) = begun().await;
    on(&world, FaultKind::Spaces { ms: 350 });
    let began = Instant::now();
    let mut answer = world.complete(&applied, &id, &parts).begin().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut text = String::new();
    while let Some(piece) = answer.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(began.elapsed() >= Duration::from_millis(350));
    assert!(text.starts_with("    <CompleteMultipartUploadResult"), "{text}");
}

#[tokio::test]
async fn an_answer_that_is_lost_after_complete_leaves_the_object_and_no_upload() {
    let (world, applied, id, parts) = begun().await;
    world.emulator.faults().add(Fault::once(FaultKind::AnswerLost).on(Action::CompleteMultipartUpload));
    assert!(world.complete(&applied, &id, &parts).try_send().await.is_err());
    assert_eq!(world.complete(&applied, &id, &parts).code().await, "NoSuchUpload");
    assert_eq!(world.emulator.uploads().objects.len(), 1);
}

#[tokio::test]
async fn every_third_request_is_refused_and_a_fault_can_begin_later() {
    let (world, applied, ..) = begun().await;
    let slow_down = FaultKind::Error { code: "SlowDown".to_owned() };
    world.emulator.faults().add(Fault::always(slow_down).on(Action::PutObject).every(3));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(put(&world, &applied).send().await.status);
    }
    assert_eq!(statuses, [200, 200, 503, 200, 200, 503]);
    world.emulator.faults().clear();
    let ended = FaultKind::Error { code: "ExpiredToken".to_owned() };
    world.emulator.faults().add(Fault::always(ended).after_ms(100));
    let mut before = 0;
    let ended = loop {
        let answer = put(&world, &applied).send().await;
        if answer.status != 200 {
            break answer;
        }
        before += 1;
    };
    assert!(before > 0);
    assert_eq!((ended.status, ended.code()), (400, "ExpiredToken".to_owned()));
}

#[tokio::test]
async fn a_connection_is_reset_in_the_body_and_the_part_is_not_there() {
    let (world, applied, id, _) = begun().await;
    on(&world, FaultKind::ResetInBody { bytes: 300_000 });
    let large = vec![1_u8; 4 * 1024 * 1024];
    assert!(world.part(&applied, &id, 2, large.clone()).try_send().await.is_err());
    assert_eq!(world.emulator.uploads().multipart[0].parts, [1]);
    assert_eq!(world.part(&applied, &id, 2, large).code().await, "ok");
}

#[tokio::test]
async fn proofs_are_wrong_bare_or_absent() {
    let (world, applied, ..) = begun().await;
    let struck = async |fault: FaultKind| -> CosAnswer {
        on(&world, fault);
        put(&world, &applied).send().await
    };
    let good = put(&world, &applied).send().await;
    assert_eq!(good.header("etag"), "\"900150983cd24fb0d6963f7d28e17f72\"");
    assert_eq!(struck(FaultKind::BareEtag).await.header("etag"), "900150983cd24fb0d6963f7d28e17f72");
    let crc64 = |answer: &CosAnswer| answer.header("x-cos-hash-crc64ecma").to_owned();
    let wrong = struck(FaultKind::WrongCrc64).await;
    assert!(!crc64(&wrong).is_empty() && crc64(&wrong) != crc64(&good));
    assert_eq!(crc64(&struck(FaultKind::NoCrc64).await), "");
    assert_eq!(struck(FaultKind::NoRequestId).await.header("x-cos-request-id"), "");
    let flipped = struck(FaultKind::BitFlip).await;
    assert!(flipped.header("etag") != good.header("etag") && crc64(&flipped) != crc64(&good));
    assert_eq!(world.emulator.content(&applied.bucket, &applied.media).unwrap(), b"`bc");
}

#[tokio::test]
async fn lists_have_one_item_a_page() {
    let (world, applied, id, _) = begun().await;
    world.part(&applied, &id, 2, "abc").send().await;
    on(&world, FaultKind::OneItemAPage);
    let list = world.cos(&applied, Method::GET, &applied.media).query("uploadId", &id).send().await;
    assert_eq!((list.elements("Part").len(), list.element("NextPartNumberMarker")), (1, "1".to_owned()));
    assert_eq!(list.element("IsTruncated"), "true");
    world.initiate(&applied).await;
    on(&world, FaultKind::OneItemAPage);
    let uploads =
        || world.cos(&applied, Method::GET, "").query("uploads", "").query("prefix", &applied.media);
    let first = uploads().send().await;
    assert_eq!((first.elements("Upload").len(), first.element("IsTruncated")), (1, "true".to_owned()));
    let (key, upload) = (first.element("NextKeyMarker"), first.element("NextUploadIdMarker"));
    let second = uploads().query("key-marker", &key).query("upload-id-marker", &upload).send().await;
    assert_eq!((second.elements("Upload").len(), second.element("IsTruncated")), (1, "false".to_owned()));
    assert_ne!(first.element("UploadId"), second.element("UploadId"));
}

#[tokio::test]
async fn a_slow_reader_and_a_wrong_clock() {
    let (world, applied, ..) = begun().await;
    on(&world, FaultKind::SlowRead { bytes_per_second: 10 });
    let began = Instant::now();
    assert_eq!(put(&world, &applied).code().await, "ok");
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    on(&world, FaultKind::ClockSkew { ms: 3_600_000 });
    let late = put(&world, &applied).send().await;
    assert_eq!((late.status, late.element("Message")), (403, "Request has expired".to_owned()));
    on(&world, FaultKind::ClockSkew { ms: -3_600_000 });
    assert_eq!(put(&world, &applied).code().await, "RequestTimeTooSkewed");
}

#[tokio::test]
async fn the_faults_of_the_api_strike_the_storage_too() {
    let (world, applied, ..) = begun().await;
    on(&world, FaultKind::Throttle);
    assert_eq!(put(&world, &applied).send().await.status, 503);
    on(&world, FaultKind::Html { status: 502 });
    assert_eq!(put(&world, &applied).send().await.status, 502);
    on(&world, FaultKind::Reset);
    assert!(put(&world, &applied).try_send().await.is_err());
    on(&world, FaultKind::Truncated);
    let list = world.cos(&applied, Method::GET, "").query("uploads", "").query("prefix", &applied.media);
    assert!(list.try_send().await.is_err());
    assert_eq!(put(&world, &applied).code().await, "ok");
    assert!(world.emulator.faults().active().is_empty());
}
