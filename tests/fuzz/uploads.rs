//! Uploads: the emulator's readers over real sockets, and the readers of signatures.

use std::collections::BTreeMap;

use tencentcloud_signing::cos::{self, Authorization, KeyTime};
use tencentcloud_signing::encode;
use tencentcloud_signing::upload::Signature;

use crate::harness::fuzz;
use crate::requests::{World, status, wall_seconds};

const HTTP: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "PUT ",
    "GET ",
    "HEAD ",
    "POST ",
    "DELETE ",
    "OPTIONS ",
    "/../",
    "%2e%2e/",
    "%00",
    "%ff",
    "?uploads",
    "?uploadId=U",
    "&partNumber=18446744073709551616",
    "&max-parts=0",
    "&part-number-marker=65535",
    "&key-marker=",
    "&delimiter=/",
    "&encoding-type=url",
    "Host: b-1.cos.ap-guangzhou.myqcloud.com\r\n",
    "Host: 127.0.0.1:1\r\n",
    "Content-Length: 5368709121\r\n",
    "Content-Length: -1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Content-MD5: =\r\n",
    "x-cos-traffic-limit: 1\r\n",
    "x-cos-security-token: t\r\n",
    "Origin: x\r\n",
    "Authorization: q-sign-algorithm=sha1&q-ak=",
    "&q-header-list=host;;x",
    "&q-key-time=1;",
    "Action=ApplyUpload&",
    "Signature=",
    "A.0.0.0=1&A.B=2&",
];

const XML: &[&str] = &[
    "<",
    ">",
    "</",
    "/>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<!DOCTYPE x>",
    "<?x?>",
    "&amp;",
    "&#x0;",
    "&#1114112;",
    "&none;",
    "<Part>",
    "</Part>",
    "<PartNumber>10001</PartNumber>",
    "<ETag>",
    "</CompleteMultipartUpload>",
    " xmlns=\"",
];

const QUERY: &[&str] = &[
    "&",
    "=",
    "%",
    "%2",
    "%26",
    "%00",
    "%ff",
    "+",
    ";",
    "secretId=",
    "random=-1",
    "expireTime=9223372036854775807",
    "currentTimeStamp=-9223372036854775808",
    "oneTimeValid=2",
    "taskPriority=-128",
    "q-signature=",
    "q-key-time=9223372036854775807;-1",
    "\u{e9}",
    "\0",
];

#[test]
fn any_bytes_to_the_storage_are_answered_or_refused() {
    let mut world = World::new();
    let mut statuses = BTreeMap::<u16, u64>::new();
    fuzz("storage", HTTP, 1_000, |input| {
        let answer = world.send(input);
        let status = status(&answer);
        *statuses.entry(status).or_default() += 1;
        let known =
            answer.is_empty() || [100, 200, 204, 505].contains(&status) || (400..500).contains(&status);
        assert!(known, "{}", answer.escape_ascii());
        world.still_good();
    });
    assert!(statuses.contains_key(&403), "the storage itself has answered: {statuses:?}");
    eprintln!("statuses: {statuses:?}");
}

#[test]
fn any_parameters_of_media_are_answered() {
    const ACTIONS: [&str; 5] =
        ["ApplyUpload", "CommitUpload", "ParseStreamingManifest", "DescribeStorageRegions", "ProcessMedia"];
    let mut world = World::new();
    let mut codes = BTreeMap::<String, u64>::new();
    fuzz(
        "media",
        &["{", "}", "[", "]", "\"", ":", ",", "null", "\\ud800", "<MPD>", "#EXTM3U\\n"],
        400,
        |input| {
            for action in ACTIONS {
                let response = world.call(action, input);
                let code = response.pointer("/Error/Code").map_or("ok", |code| code.as_str().unwrap());
                *codes.entry(code.to_owned()).or_default() += 1;
            }
            let head = format!(
                "POST /v3/index.php?Action=ApplyUploadUGC HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                input.len()
            );
            let answer = world.send(&[head.as_bytes(), input].concat());
            assert_eq!(status(&answer), 200, "{}", answer.escape_ascii());
            world.still_good();
        },
    );
    assert!(codes.contains_key("ok") && codes.contains_key("InvalidParameterValue.FileId"), "{codes:?}");
    eprintln!("codes: {codes:?}");
}

/// A request to the storage, signed by the account's own key.
fn signed(world: &World, method: &str, query: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let credential = world.credential();
    let length = body.len().to_string();
    let host = "vodapguangzhou-1500004321.cos.ap-guangzhou.myqcloud.com";
    let headers = [("host", host), ("content-length", length.as_str())];
    let request = cos::Request { method, path: "/d/f.mp4", query, headers: &headers };
    let now = wall_seconds();
    let time = KeyTime { start: now - 60, end: now + 600 };
    let authorization =
        cos::authorization(&credential.secret_id, credential.secret_key.expose(), &request, time);
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let head = format!(
        "{method} /d/f.mp4?{} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nAuthorization: {authorization}\r\n\
         Connection: close\r\n\r\n",
        query.join("&")
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn any_list_of_parts_completes_the_upload_or_leaves_it() {
    let mut world = World::new();
    let begun = world.send(&signed(&world, "POST", &[("uploads", "")], b""));
    let begun = String::from_utf8(begun).unwrap();
    let begin = |text: &str| -> String {
        text.split("<UploadId>").nth(1).unwrap().split("</UploadId>").next().unwrap().to_owned()
    };
    let mut id = begin(&begun);
    let mut outcomes = BTreeMap::<u16, u64>::new();
    fuzz("completes", XML, 600, |input| {
        let part = signed(&world, "PUT", &[("partNumber", "1"), ("uploadId", &id)], b"abc");
        assert_eq!(status(&world.send(&part)), 200);
        let answer = world.send(&signed(&world, "POST", &[("uploadId", &id)], input));
        let status = status(&answer);
        *outcomes.entry(status).or_default() += 1;
        match status {
            200 => {
                let begun = world.send(&signed(&world, "POST", &[("uploads", "")], b""));
                id = begin(&String::from_utf8(begun).unwrap());
            }
            400 => {}
            _ => panic!("{}", answer.escape_ascii()),
        }
        world.still_good();
    });
    assert!(outcomes.contains_key(&200) && outcomes.contains_key(&400), "{outcomes:?}");
}

#[test]
fn any_upload_signature_is_read_or_refused() {
    use base64_of::encode as base64;

    let mut granted = 0_u64;
    fuzz("signatures", QUERY, 20_000, |input| {
        let text = String::from_utf8_lossy(input);
        let _refused = Signature::parse(&text);
        let Ok(signature) = Signature::parse(&base64(&[&[7; 20], input].concat())) else { return };
        assert!(!signature.verify("key"));
        let findings = signature.findings(1_571_215_095);
        let Ok(grant) = signature.grant() else {
            assert!(findings.iter().any(|finding| finding.refused()), "{text}: {findings:?}");
            return;
        };
        granted += 1;
        // What is read is written to something that is read as the same.
        let again = Signature::parse(&grant.sign("key").unwrap()).unwrap();
        assert!(again.verify("key"));
        assert_eq!(again.grant().unwrap(), grant);
    });
    assert!(granted > 0);
}

/// Base64 as the readers take it.
mod base64_of {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for at in 0..4 {
                let letter = LETTERS[(group >> (18 - 6 * at)) as usize & 63] as char;
                text.push(if at <= chunk.len() { letter } else { '=' });
            }
        }
        text
    }
}

#[test]
fn any_authorization_is_read_or_refused() {
    let headers = [("host", "h"), ("content-length", "3")];
    let request = cos::Request { method: "PUT", path: "/测", query: &[("uploads", "")], headers: &headers };
    fuzz("authorizations", QUERY, 20_000, |input| {
        let Ok(authorization) = Authorization::parse(&String::from_utf8_lossy(input)) else { return };
        assert!(authorization.verify("key", &request).is_err());
        let _holds = authorization.key_time.holds_at(i64::MAX);
    });
}
