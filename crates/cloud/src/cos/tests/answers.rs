//! What the client makes of answers, and of none.

use tokio::net::TcpListener;

use super::server::{Play, Server, answer, error, http};
use super::{BODY, PROOFS, content, large, soon, target};
use crate::cos::{Client, Options, StorageError, StorageFailure, Stored};

async fn put(play: Play) -> Result<Stored, StorageError> {
    let server = Server::always(play).await;
    let result = soon(server.client().put_part(&target(), "U1", 3, content(BODY))).await;
    assert_eq!(server.seen().len(), 1, "one call is one request");
    result
}

#[tokio::test]
async fn proofs_are_read_with_and_without_quotes_and_may_be_absent() {
    let etag = "108f528eb63b65e734f27ae331f5ffaa";
    for (headers, crc64) in [
        (PROOFS.to_owned(), Some(4_510_578_591_875_220_731)),
        (PROOFS.replace('"', ""), Some(4_510_578_591_875_220_731)),
        (format!("ETag: \"{etag}\"\r\n"), None),
        (format!("etag: {etag}\r\nx-cos-hash-crc64ecma: none\r\n"), None),
        (format!("ETag: \"{etag}\"\r\nx-cos-hash-crc64ecma: 18446744073709551615\r\n"), Some(u64::MAX)),
    ] {
        let stored = put(answer("200 OK", &headers, "")).await.unwrap();
        assert_eq!((stored.etag.as_str(), stored.crc64), (etag, crc64), "{headers}");
    }
    let error = put(answer("200 OK", "x-cos-hash-crc64ecma: 1\r\n", "")).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (StorageFailure::Unanswered, "no_answer"));
    assert!(error.may_have_acted && error.to_string().contains("no ETag"), "{error}");
}

#[tokio::test]
async fn an_error_of_the_service_is_told_with_its_ids() {
    use StorageFailure::{BodyMismatch, NoSuchUpload, Refused, Retry};
    for (status, code, failure, may_have_acted) in [
        ("503 Slow Down", "SlowDown", Retry { slow_down: true }, true),
        ("500 Oops", "InternalError", Retry { slow_down: false }, true),
        ("400 Bad Request", "RequestTimeout", Retry { slow_down: false }, false),
        ("400 Bad Request", "BadDigest", BodyMismatch, false),
        ("404 Not Found", "NoSuchUpload", NoSuchUpload, false),
        ("403 Forbidden", "AccessDenied", Refused, false),
    ] {
        let error = put(error(status, code, "Words of the service.", 0)).await.unwrap_err();
        assert_eq!((error.failure, error.may_have_acted), (failure, may_have_acted), "{error}");
        assert_eq!(error.status.map(|status| status.to_string()).as_deref(), status.split(' ').next());
        let told = error.to_string();
        let begin = "UploadPart 3 of b-1250000000/dir/测试 a+b(1).mp4 failed";
        let expected = format!("{begin} ({code}): Words of the service. [request R1, trace T1]; ");
        assert!(told.starts_with(&expected), "{told}");
        assert!(!error.try_other_host);
    }
}

#[tokio::test]
async fn what_does_not_come_from_the_service_can_be_tried_at_its_other_host() {
    let retry = StorageFailure::Retry { slow_down: false };
    for (status, code) in
        [("502 Bad Gateway", "http_502"), ("403 Forbidden", "http_403"), ("302 Found", "http_302")]
    {
        let error = put(Play::Send(http(status, "", "<html>a portal</html>"))).await.unwrap_err();
        assert_eq!(
            (error.failure, error.code.as_str(), error.try_other_host),
            (retry, code, true),
            "{error}"
        );
    }
    let error = put(answer("403 Forbidden", "", "")).await.unwrap_err();
    assert_eq!((error.failure, error.try_other_host), (StorageFailure::Refused, false), "{error}");
    let error = put(Play::Send(http("429 Too Many Requests", "", ""))).await.unwrap_err();
    assert_eq!(error.failure, StorageFailure::Retry { slow_down: true }, "{error}");
}

#[tokio::test]
async fn a_lost_connection_leaves_it_open_what_happened() {
    for bytes in [&b""[..], b"HTTP/1.1 200 OK\r\nETag", b"rubbish\r\n\r\n"] {
        let error = put(Play::SendAndClose(bytes.to_vec())).await.unwrap_err();
        assert_eq!(error.failure, StorageFailure::Unanswered, "{error}");
        assert_eq!(error.code, "connection_lost", "{error}");
        assert!(error.may_have_acted && error.try_other_host, "{error}");
    }
    let cut = b"HTTP/1.1 403 Forbidden\r\nx-cos-request-id: R1\r\nContent-Length: 90\r\n\r\n<Error><Code>Acc"
        .to_vec();
    let error = put(Play::SendAndClose(cut)).await.unwrap_err();
    assert_eq!((error.failure, error.status), (StorageFailure::Unanswered, Some(403)), "{error}");
    assert_eq!(error.request_id.as_deref(), Some("R1"));
}

#[tokio::test]
async fn a_request_that_did_not_leave_did_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let client = Client::new(Options { cos_endpoint: Some(endpoint), ..Options::default() }).unwrap();
    let error = soon(client.put_part(&target(), "U1", 1, content(BODY))).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (StorageFailure::Retry { slow_down: false }, "connect"));
    assert!(!error.may_have_acted && error.try_other_host, "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn an_answer_is_bounded() {
    let error = put(answer("403 Forbidden", "", &"x".repeat(65 * 1024))).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (StorageFailure::Unanswered, "too_large"), "{error}");
    let server =
        Server::always(answer("200 OK", "", &format!("<ListPartsResult>{}", "x".repeat(8 << 20)))).await;
    let error = soon(server.client().list_parts(&target(), "U1")).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (StorageFailure::Unanswered, "too_large"), "{error}");
    let server = Server::always(answer("200 OK", "", "<html></html>")).await;
    let error = soon(server.client().initiate(&target())).await.unwrap_err();
    assert_eq!(
        (error.failure, error.code.as_str()),
        (StorageFailure::Unanswered, "not_an_answer"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refusal_counts_before_the_body_is_read() {
    let Play::Send(refusal) = error("403 Forbidden", "AccessDenied", "Access Denied.", 0) else {
        unreachable!()
    };
    let server = Server::always(Play::Early(refusal)).await;
    let error = soon(server.client().put_part(&target(), "U1", 1, content(&large(16)))).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (StorageFailure::Refused, "AccessDenied"), "{error}");
}

#[tokio::test]
async fn what_the_service_computed_is_told_without_the_token() {
    let strings = "no</Message><StringToSign>sha1\n1;2\nab\n</StringToSign>\
                   <FormatString>put\n/k\n\nhost=h&amp;x-cos-security-token=exampleToken\n</FormatString><Message>no";
    let error = put(error("403 Forbidden", "SignatureDoesNotMatch", strings, 0)).await.unwrap_err();
    let signed = error.signed.clone().unwrap();
    assert_eq!(signed.string_to_sign, "sha1\n1;2\nab");
    assert_eq!(signed.format_string, "put\n/k\n\nhost=h&x-cos-security-token=***");
    assert!(!format!("{error:?} {error}").contains("exampleToken"));
}
