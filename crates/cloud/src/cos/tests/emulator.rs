//! The client against the local VOD, which has its own reading of the documents.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tencent_vod_emulator::{Action, Emulator, Fault, FaultKind};
use tencent_vod_event::SubAppId;

use super::{large, soon};
use crate::cos::digest::{PartDigests, combine};
use crate::cos::{Client, Content, Operation, Options, StorageError, StorageFailure, Target};
use crate::upload::ApplyUpload;
use crate::{CredentialSource, Environment};

struct World {
    emulator: Emulator,
    client: Client,
    target: Target,
}

impl World {
    /// A local VOD, and an object that an upload was applied for.
    async fn start() -> Self {
        let emulator = Emulator::start(Default::default()).await.unwrap();
        let key = emulator.credential();
        let mut options = crate::Options::new(emulator.endpoint().parse().unwrap(), CredentialSource::Env);
        options.credentials.environment = Environment::fixed([
            ("TENCENTCLOUD_SECRET_ID", key.secret_id),
            ("TENCENTCLOUD_SECRET_KEY", key.secret_key.expose().to_owned()),
        ]);
        let apply = ApplyUpload { media_type: "mp4".to_owned(), ..ApplyUpload::default() };
        let applied = crate::Client::new(options).unwrap().apply_upload(SubAppId(0), &apply).await.unwrap();
        let credentials = Arc::new((&applied.credential).into());
        let target = Target::new(&applied.bucket, &applied.region, &applied.media_path, credentials).unwrap();
        let cos_endpoint = Some(emulator.endpoint().parse().unwrap());
        let client = Client::new(Options { cos_endpoint, ..Options::default() }).unwrap();
        Self { emulator, client, target }
    }

    fn once(&self, fault: FaultKind) {
        self.emulator.faults().add(Fault::once(fault));
    }

    async fn put(&self, id: &str, number: u32, body: &[u8]) -> Result<String, StorageError> {
        let digests = PartDigests::of(body);
        let content = Content::bytes(Bytes::copy_from_slice(body), &digests);
        let stored = soon(self.client.put_part(&self.target, id, number, content)).await?;
        assert!(stored.agrees_with(&digests));
        Ok(stored.etag)
    }
}

#[tokio::test]
async fn a_file_in_parts_is_the_object_that_was_meant() {
    let world = World::start().await;
    let (client, target) = (&world.client, &world.target);
    let body = large(3);
    let id = soon(client.initiate(target)).await.unwrap();
    assert_eq!(soon(client.list_parts(target, &id)).await.unwrap(), []);
    let mut parts = Vec::new();
    let mut crc64 = 0;
    for (number, part) in (1..).zip(body.chunks(1_200_000)) {
        parts.push((number, world.put(&id, number, part).await.unwrap()));
        crc64 = combine(crc64, PartDigests::of(part).crc64, part.len() as u64);
    }
    world.emulator.faults().add(Fault::always(FaultKind::OneItemAPage));
    let listed = soon(client.list_parts(target, &id)).await.unwrap();
    let pairs: Vec<(u32, String)> = listed.iter().map(|part| (part.number, part.etag.clone())).collect();
    assert_eq!(pairs, parts);
    assert_eq!(listed.iter().map(|part| part.size).sum::<u64>(), body.len() as u64);
    world.once(FaultKind::Spaces { ms: 300 });
    let pairs = || parts.iter().map(|(number, etag)| (*number, etag.as_str()));
    let stored = soon(client.complete(target, &id, pairs())).await.unwrap();
    assert_eq!(stored.crc64, Some(crc64));
    let objects = world.emulator.uploads().objects;
    assert_eq!(
        (objects.len(), objects[0].key.as_str(), objects[0].size),
        (1, target.key(), body.len() as u64)
    );
    assert_eq!(world.emulator.content(&objects[0].bucket, target.key()).as_deref(), Some(&body[..]));
    let error = soon(client.complete(target, &id, pairs())).await.unwrap_err();
    assert_eq!((error.failure, error.status), (StorageFailure::NoSuchUpload, Some(404)), "{error}");
}

#[tokio::test]
async fn one_request_stores_a_small_object_and_an_abort_leaves_nothing() {
    let world = World::start().await;
    let (client, target) = (&world.client, &world.target);
    for body in [&b""[..], b"x"] {
        let digests = PartDigests::of(body);
        let content = Content::bytes(Bytes::copy_from_slice(body), &digests);
        let stored = soon(client.put_object(target, content)).await.unwrap();
        assert!(stored.agrees_with(&digests));
        assert_eq!(world.emulator.uploads().objects[0].size, body.len() as u64);
    }
    let id = soon(client.initiate(target)).await.unwrap();
    world.put(&id, 1, b"x").await.unwrap();
    soon(client.abort(target, &id)).await.unwrap();
    assert_eq!(world.emulator.uploads().multipart.len(), 0);
    for result in [
        soon(client.abort(target, &id)).await.err(),
        world.put(&id, 1, b"x").await.err(),
        soon(client.list_parts(target, &id)).await.err(),
    ] {
        assert_eq!(result.unwrap().failure, StorageFailure::NoSuchUpload);
    }
}

#[tokio::test]
async fn each_fault_of_a_part_is_what_it_is() {
    use StorageFailure::{CredentialOver, Refused, Retry, Unanswered};
    let world = World::start().await;
    let id = soon(world.client.initiate(&world.target)).await.unwrap();
    let error = |code: &str| FaultKind::Error { code: code.to_owned() };
    let retry = Retry { slow_down: false };
    for (fault, failure, may_have_acted) in [
        (error("SlowDown"), Retry { slow_down: true }, true),
        (error("InternalError"), retry, true),
        (error("RequestTimeout"), retry, false),
        (error("BadDigest"), StorageFailure::BodyMismatch, false),
        (error("ExpiredToken"), CredentialOver, false),
        (error("AccessDenied"), Refused, false),
        (FaultKind::Throttle, Retry { slow_down: true }, true),
        (FaultKind::Html { status: 502 }, retry, true),
        (FaultKind::Reset, Unanswered, true),
        (FaultKind::AnswerLost, Unanswered, true),
        (FaultKind::Rubbish, Unanswered, true),
        (FaultKind::ResetInBody { bytes: 1_000 }, Unanswered, true),
    ] {
        world.once(fault.clone());
        let error = world.put(&id, 1, &large(1)).await.unwrap_err();
        assert_eq!((error.failure, error.may_have_acted), (failure, may_have_acted), "{fault:?}: {error}");
        assert_eq!(error.operation, Operation::UploadPart { number: 1 });
        world.put(&id, 1, b"x").await.unwrap();
    }
    for fault in [FaultKind::BareEtag, FaultKind::NoCrc64, FaultKind::NoRequestId] {
        world.once(fault);
        world.put(&id, 1, b"x").await.unwrap();
    }
    let digests = PartDigests::of(b"x");
    for fault in [FaultKind::WrongCrc64, FaultKind::BitFlip] {
        world.once(fault.clone());
        let content = Content::bytes(Bytes::from_static(b"x"), &digests);
        match soon(world.client.put_part(&world.target, &id, 1, content)).await {
            Ok(stored) => assert!(!stored.agrees_with(&digests), "{fault:?}"),
            Err(error) => assert_eq!(error.failure, StorageFailure::BodyMismatch, "{fault:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn each_fault_of_a_complete_is_what_it_is() {
    let world = World::start().await;
    let (client, target) = (&world.client, &world.target);
    let id = soon(client.initiate(target)).await.unwrap();
    let etag = world.put(&id, 1, b"x").await.unwrap();
    let complete = || soon(client.complete(target, &id, [(1, etag.as_str())]));
    let internal = "InternalError".to_owned();
    world.once(FaultKind::ErrorInOk { code: internal });
    let error = complete().await.unwrap_err();
    let retry = StorageFailure::Retry { slow_down: false };
    assert_eq!((error.failure, error.status, error.may_have_acted), (retry, Some(200), true), "{error}");
    let error =
        soon(client.complete(target, &id, [(1, "0123456789abcdef0123456789abcdef")])).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (StorageFailure::Refused, "InvalidPart"), "{error}");
    world.emulator.faults().add(Fault::once(FaultKind::AnswerLost).on(Action::CompleteMultipartUpload));
    let error = complete().await.unwrap_err();
    assert_eq!((error.failure, error.may_have_acted), (StorageFailure::Unanswered, true), "{error}");
    let error = complete().await.unwrap_err();
    assert_eq!(error.failure, StorageFailure::NoSuchUpload, "it was completed: {error}");
    assert_eq!(world.emulator.uploads().objects.len(), 1);
}

#[tokio::test]
async fn a_wrong_clock_is_found_and_corrected() {
    use tencent_vod_emulator::SignatureErrorForm;
    for form in [SignatureErrorForm::Code, SignatureErrorForm::Message] {
        for hours in [1, -20] {
            let world = World::start().await;
            world.emulator.change_settings(|settings| settings.uploads.signature_error_form = form);
            world.emulator.faults().add(Fault::always(FaultKind::ClockSkew { ms: hours * 3_600_000 }));
            let result = soon(world.client.initiate(&world.target)).await;
            let skew = Duration::from_millis(world.client.clock_skew_ms().unwrap().unsigned_abs());
            assert!(
                skew.as_secs().abs_diff(hours.unsigned_abs() * 3_600) < 60,
                "{form:?} {hours} h: {skew:?}"
            );
            // By the cloud's clock the pair that was lent for half an hour may be over by now.
            let failure = result.err().map(|error| error.failure);
            let expected = (hours > 0).then_some(StorageFailure::CredentialOver);
            assert_eq!(failure, expected, "{form:?} {hours} h");
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_what_was_signed() {
    let mut world = World::start().await;
    let mut wrong = (*world.target.credentials).clone();
    wrong.secret_key = tencentcloud_signing::Secret::new("another key");
    world.target.credentials = Arc::new(wrong);
    let error = soon(world.client.initiate(&world.target)).await.unwrap_err();
    assert_eq!(error.failure, StorageFailure::Refused, "{error}");
    let signed = error.signed.clone().unwrap();
    assert!(signed.format_string.starts_with("post\n/"), "{signed:?}");
    let token = world.target.credentials.token.as_ref().unwrap().expose().to_owned();
    assert!(!format!("{error:?}").contains(&token), "the token is not told");
}
