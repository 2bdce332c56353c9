//! `Complete`, whose 200 says nothing yet.

use std::time::Duration;

use super::server::{Play, Server, answer, error};
use super::{soon, target};
use crate::cos::{Options, StorageError, StorageFailure, Stored};

const RESULT: &str = "<CompleteMultipartUploadResult xmlns=\"http://www.qcloud.com/document/product/436/7751\">\
    <Location>http://b/k</Location><Bucket>b</Bucket><Key>k</Key><ETag>&quot;ab-2&quot;</ETag></CompleteMultipartUploadResult>";
const ERROR: &str = "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>InternalError</Code><Message>m</Message>\
    <Resource>/k</Resource><RequestId>R1</RequestId><TraceId>T1</TraceId></Error>";

const PARTS: [(u32, &str); 2] = [(1, "aa"), (2, "\"bb\"")];

async fn complete(play: Play) -> Result<Stored, StorageError> {
    let server = Server::always(play).await;
    soon(server.client().complete(&target(), "U1", PARTS)).await
}

/// Headers of a chunked answer, blanks in chunks, and a document in another one.
fn dripped(blanks: usize, pause: Duration, document: &str) -> Play {
    let first = b"HTTP/1.1 200 OK\r\nx-cos-request-id: R1\r\nx-cos-hash-crc64ecma: 77\r\nTransfer-Encoding: chunked\r\n\r\n";
    let last = format!("{:x}\r\n{document}\r\n0\r\n\r\n", document.len());
    Play::Drip { first: first.to_vec(), blanks, pause, last: last.into_bytes() }
}

#[tokio::test]
async fn blanks_come_for_longer_than_a_request_may_stand_still() {
    let limit = Duration::from_secs(2);
    let server = Server::always(dripped(16, limit / 8, RESULT)).await;
    let client = crate::cos::Client::new(Options { complete_timeout: limit, ..server.options() }).unwrap();
    let began = tokio::time::Instant::now();
    let stored = soon(client.complete(&target(), "U1", PARTS)).await.unwrap();
    assert!(began.elapsed() >= limit);
    assert_eq!((stored.etag.as_str(), stored.crc64), ("ab-2", Some(77)));
    let seen = &server.seen()[0];
    assert_eq!(
        String::from_utf8_lossy(&seen.body),
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;aa&quot;</ETag></Part>\
         <Part><PartNumber>2</PartNumber><ETag>&quot;bb&quot;</ETag></Part></CompleteMultipartUpload>"
    );
    assert_eq!(seen.header("content-type"), Some("application/xml"));
    assert!(seen.header("content-md5").is_some());
    seen.signed_at();
}

#[tokio::test]
async fn many_blanks_are_not_kept() {
    let document = format!("{}{RESULT}", " ".repeat(9 << 20));
    let stored = complete(answer("200 OK", "", &document)).await.unwrap();
    assert_eq!((stored.etag.as_str(), stored.crc64), ("ab-2", None));
}

#[tokio::test]
async fn an_error_after_the_200_is_an_error() {
    for (code, failure) in [
        ("InternalError", StorageFailure::Retry { slow_down: false }),
        ("SlowDown", StorageFailure::Retry { slow_down: true }),
        ("NoSuchUpload", StorageFailure::NoSuchUpload),
        ("InvalidPart", StorageFailure::Refused),
    ] {
        let error =
            complete(dripped(3, Duration::ZERO, &ERROR.replace("InternalError", code))).await.unwrap_err();
        assert_eq!(
            (error.failure, error.status, error.may_have_acted),
            (failure, Some(200), true),
            "{error}"
        );
        assert_eq!((error.request_id.as_deref(), error.trace_id.as_deref()), (Some("R1"), Some("T1")));
    }
    let error = complete(error("404 Not Found", "NoSuchUpload", "gone", 0)).await.unwrap_err();
    assert_eq!((error.failure, error.may_have_acted), (StorageFailure::NoSuchUpload, false), "{error}");
}

#[tokio::test]
async fn a_200_that_does_not_say_how_it_ended_is_no_answer() {
    let without_etag = RESULT.replace("<ETag>&quot;ab-2&quot;</ETag>", "");
    let halved = &RESULT[..RESULT.len() / 2];
    for body in ["", "      ", "<html></html>", "{}", "<Error></Error>", &without_etag, halved] {
        let error = complete(answer("200 OK", "", body)).await.unwrap_err();
        assert_eq!(
            (error.failure, error.may_have_acted),
            (StorageFailure::Unanswered, true),
            "{body}: {error}"
        );
        assert!(error.to_string().contains("find out before"), "{error}");
    }
    let head = "HTTP/1.1 200 OK\r\nx-cos-request-id: R1\r\n";
    for cut in [
        format!("{head}Content-Length: 999\r\n\r\n{RESULT}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n"),
        // All of it is there, and still the connection is lost before the end.
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{RESULT}\r\n", RESULT.len()),
    ] {
        let error = complete(Play::SendAndClose(cut.into_bytes())).await.unwrap_err();
        assert_eq!(
            (error.failure, error.code.as_str()),
            (StorageFailure::Unanswered, "connection_lost"),
            "{error}"
        );
    }
}
