//! What the client sends.

use std::io;

use bytes::Bytes;
use futures_util::stream;

use super::server::{Play, Server, answer};
use super::{BODY, PROOFS, content, large, soon, target};
use crate::cos::digest::PartDigests;
use crate::cos::{Client, Content, ListedPart, Options, StorageFailure, StorageHost};

const PATH: &str = "/dir/%E6%B5%8B%E8%AF%95%20a%2Bb%281%29.mp4";

#[tokio::test]
async fn a_part_is_signed_and_its_proofs_are_read() {
    let server = Server::always(answer("200 OK", PROOFS, "")).await;
    let client = server.client();
    let stored = soon(client.put_part(&target(), "U/1+x", 7, content(BODY))).await.unwrap();
    assert!(stored.agrees_with(&PartDigests::of(BODY)));
    assert!(!stored.agrees_with(&PartDigests::of(b"other")));
    assert_eq!((stored.crc64, stored.request_id.as_deref()), (Some(4_510_578_591_875_220_731), Some("R1")));
    let seen = &server.seen()[0];
    assert_eq!(seen.line, format!("PUT {PATH}?partNumber=7&uploadId=U%2F1%2Bx HTTP/1.1"));
    assert_eq!(seen.header("host"), Some("b-1250000000.cos.ap-guangzhou.myqcloud.com"));
    assert_eq!(seen.header("content-length"), Some("13"));
    assert_eq!(seen.header("content-md5"), Some("EI9SjrY7Zec08nrjMfX/qg=="));
    assert_eq!(seen.header("x-cos-security-token"), Some("exampleToken"));
    assert_eq!(seen.body, BODY);
    let age = vodrelay_host::wall_clock_ms() / 1_000 - seen.signed_at();
    assert!((0..=60).contains(&age), "{age}");
    soon(client.put_object(&target().at(StorageHost::Backup), content(BODY))).await.unwrap();
    let seen = &server.seen()[1];
    assert_eq!(seen.line, format!("PUT {PATH} HTTP/1.1"));
    assert_eq!(seen.header("host"), Some("b-1250000000.cos.ap-guangzhou.tencentcos.cn"));
    seen.signed_at();
}

#[tokio::test]
async fn a_large_part_arrives_whole_from_memory_and_from_a_stream() {
    let body = large(3);
    let digests = PartDigests::of(&body);
    let proofs = format!("ETag: {}\r\nx-cos-hash-crc64ecma: {}\r\n", digests.etag(), digests.crc64);
    let server = Server::always(answer("200 OK", &proofs, "")).await;
    let client = server.client();
    let whole = Content::bytes(Bytes::from(body.clone()), &digests);
    let pieces: Vec<io::Result<Bytes>> = body
        .chunks(70_001)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .chain([Ok(Bytes::new())])
        .collect();
    let streamed = Content::stream(body.len() as u64, stream::iter(pieces));
    for content in [whole, streamed] {
        let stored = soon(client.put_part(&target(), "U1", 1, content)).await.unwrap();
        assert!(stored.agrees_with(&digests));
    }
    for (seen, md5) in server.seen().iter().zip([true, false]) {
        assert_eq!(seen.header("content-length"), Some("3145728"));
        assert_eq!((seen.header("content-md5").is_some(), seen.header("transfer-encoding")), (md5, None));
        assert!(seen.body == body);
        seen.signed_at();
    }
}

#[tokio::test]
async fn a_source_that_fails_is_told_from_a_network_that_does() {
    let server = Server::always(answer("200 OK", PROOFS, "")).await;
    let client = server.client();
    let piece = || Ok(Bytes::from_static(b"0123456789"));
    let cases: [(Vec<io::Result<Bytes>>, &str); 3] = [
        (vec![piece()], "ends 10 bytes before"),
        (vec![piece(), piece(), piece()], "longer than"),
        (vec![piece(), Err(io::Error::other("bad sector"))], "bad sector"),
    ];
    for (pieces, words) in cases {
        let length = if pieces.len() == 3 { 25 } else { 20 };
        let content = Content::stream(length, stream::iter(pieces));
        let error = soon(client.put_part(&target(), "U1", 1, content)).await.unwrap_err();
        assert_eq!((error.failure, error.code.as_str()), (StorageFailure::BodyMismatch, "source"), "{error}");
        assert!(error.to_string().contains(words) && !error.try_other_host, "{error}");
    }
}

#[tokio::test]
async fn an_upload_is_begun_listed_and_aborted() {
    let part = |number: u32| {
        format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;e{number}&quot;</ETag><Size>1</Size></Part>"
        )
    };
    let page = |parts: &str, next: &str, truncated: &str| {
        let body = format!(
            "<ListPartsResult xmlns=\"x\">{parts}<NextPartNumberMarker>{next}</NextPartNumberMarker>\
             <IsTruncated>{truncated}</IsTruncated></ListPartsResult>"
        );
        answer("200 OK", "", &body)
    };
    let begun = "<InitiateMultipartUploadResult><UploadId>U1</UploadId></InitiateMultipartUploadResult>";
    let server = Server::start(move |number| match number {
        0 => answer("200 OK", "", begun),
        1 => page(&(part(1) + &part(2)), "2", "true"),
        2 => page(&part(5), "5", "True"),
        3 => page("", "0", "false"),
        _ => Play::Send(b"HTTP/1.1 204 No Content\r\nx-cos-request-id: R1\r\n\r\n".to_vec()),
    })
    .await;
    let client = server.client();
    let id = soon(client.initiate(&target())).await.unwrap();
    assert_eq!(id, "U1");
    let parts = soon(client.list_parts(&target(), &id)).await.unwrap();
    let listed = |number: u32| ListedPart { number, etag: format!("e{number}"), size: 1 };
    assert_eq!(parts, [listed(1), listed(2), listed(5)]);
    soon(client.abort(&target(), &id)).await.unwrap();
    let seen = server.seen();
    for request in &seen {
        request.signed_at();
    }
    assert_eq!(seen[0].line, format!("POST {PATH}?uploads HTTP/1.1"));
    assert_eq!(seen[0].header("content-length"), Some("0"));
    for (request, after) in seen[1..4].iter().zip([0, 2, 5]) {
        let query = format!("encoding-type=url&max-parts=1000&part-number-marker={after}&uploadId=U1");
        assert_eq!(request.line, format!("GET {PATH}?{query} HTTP/1.1"));
        assert_eq!(request.header("content-length"), None);
    }
    assert_eq!(seen[4].line, format!("DELETE {PATH}?uploadId=U1 HTTP/1.1"));
    assert_eq!(seen.len(), 5);
}

#[test]
fn only_this_machine_can_stand_in_for_the_service() {
    for (endpoint, words) in [
        ("https://example.com", "loopback"),
        ("http://10.0.0.1", "loopback"),
        ("https://127.0.0.1/path", "nothing may follow"),
    ] {
        let options = Options { cos_endpoint: Some(endpoint.parse().unwrap()), ..Options::default() };
        let error = Client::new(options).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(Client::new(Options::default()).is_ok());
}
