//! A clock that is wrong, and a key pair that is over.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;

use super::server::{Play, Server, answer, error};
use super::{BODY, PROOFS, content, soon, target};
use crate::cos::{Content, StorageFailure};
use crate::credentials::Credentials;

const HOUR: i64 = 3_600;

/// Refuses the first requests, and takes those that follow.
async fn refusing(times: usize, refusal: Play) -> Server {
    Server::start(move |number| if number < times { refusal.clone() } else { answer("200 OK", PROOFS, "") })
        .await
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_once_by_the_service_s_date() {
    for (code, message) in [
        ("RequestTimeTooSkewed", "The difference is too large."),
        ("AccessDenied", "RequestTimeTooSkewed"),
        ("AccessDenied", "Request has expired"),
    ] {
        let server = refusing(1, error("403 Forbidden", code, message, HOUR)).await;
        let client = server.client();
        soon(client.put_part(&target(), "U1", 1, content(BODY))).await.unwrap();
        let seen = server.seen();
        assert_eq!(seen.len(), 2, "{code}");
        assert!(seen.iter().all(|request| request.body == BODY), "{code}");
        let shift = seen[1].signed_at() - seen[0].signed_at();
        assert!((HOUR - 60..=HOUR + 60).contains(&shift), "{code}: {shift}");
        soon(client.abort(&target(), "U1")).await.unwrap();
        let shift = server.seen()[2].signed_at() - seen[0].signed_at();
        assert!((HOUR - 60..=HOUR + 120).contains(&shift), "the next one is right at once: {shift}");
        assert!(client.clock_skew_ms().unwrap().abs_diff(HOUR * 1_000) < 60_000);
    }
}

#[tokio::test]
async fn a_time_that_is_refused_again_is_not_sent_a_third_time() {
    let server = refusing(9, error("403 Forbidden", "RequestTimeTooSkewed", "", HOUR)).await;
    let error = soon(server.client().initiate(&target())).await.unwrap_err();
    assert_eq!((error.failure, server.seen().len()), (StorageFailure::Clock, 2), "{error}");
    assert!(error.to_string().contains("set the host's clock"), "{error}");
}

#[tokio::test]
async fn a_right_clock_tells_that_the_key_pair_is_over() {
    for (status, code, message) in [
        ("403 Forbidden", "AccessDenied", "Request has expired"),
        ("400 Bad Request", "ExpiredToken", "The provided token has expired."),
        ("403 Forbidden", "ExpiredToken", ""),
    ] {
        let server = refusing(9, error(status, code, message, 0)).await;
        let error = soon(server.client().put_part(&target(), "U1", 1, content(BODY))).await.unwrap_err();
        assert_eq!((error.failure, server.seen().len()), (StorageFailure::CredentialOver, 1), "{error}");
    }
    let server = refusing(9, error("403 Forbidden", "RequestTimeTooSkewed", "", 0)).await;
    let error = soon(server.client().put_part(&target(), "U1", 1, content(BODY))).await.unwrap_err();
    assert_eq!((error.failure, server.seen().len()), (StorageFailure::Clock, 1), "{error}");
}

#[tokio::test]
async fn without_a_date_the_end_of_the_key_pair_decides() {
    let body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    let server = Server::always(answer("403 Forbidden", "", body)).await;
    let now = vodrelay_host::wall_clock_ms() / 1_000;
    let mut target = target();
    for (expires_at, failure) in [
        (None, StorageFailure::CredentialOver),
        (Some(now - 1), StorageFailure::CredentialOver),
        (Some(now + HOUR), StorageFailure::Clock),
    ] {
        target.credentials = Arc::new(Credentials { expires_at, ..(*target.credentials).clone() });
        let error = soon(server.client().initiate(&target)).await.unwrap_err();
        assert_eq!(error.failure, failure, "{expires_at:?}");
    }
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_stream_is_not_sent_twice_and_the_next_one_is_signed_right() {
    let server = refusing(1, error("403 Forbidden", "RequestTimeTooSkewed", "", -HOUR)).await;
    let client = server.client();
    let streamed = || Content::stream(13, stream::iter([Ok(Bytes::from_static(BODY))]));
    let error = soon(client.put_part(&target(), "U1", 1, streamed())).await.unwrap_err();
    assert_eq!(error.failure, StorageFailure::Retry { slow_down: false }, "{error}");
    soon(client.put_part(&target(), "U1", 1, streamed())).await.unwrap();
    let seen = server.seen();
    let shift = seen[1].signed_at() - seen[0].signed_at();
    assert!((-HOUR - 60..=-HOUR + 60).contains(&shift), "{shift}");
}
