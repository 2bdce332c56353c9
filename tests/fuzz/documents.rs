//! The object storage's documents: what they say, or a clear error; in bounded memory.

use allocation_counter::measure;
use tencent_vod::cos::answers::{DocumentError, completed, initiated, parts_page};

use crate::harness::fuzz;

/// What reading a document may hold at one time: a multiple of it, and a little.
const MOST_BYTES_PER_BYTE: u64 = 16;
const MOST_BYTES_ANYHOW: u64 = 64 * 1024;

const TOKENS: &[&str] = &[
    "<",
    ">",
    "/>",
    "</",
    "&",
    "&amp;",
    "&quot;",
    "&#0;",
    "&#x110000;",
    "&e;",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?xml version='1.0'?>",
    "<!DOCTYPE a [<!ENTITY e \"x\">]>",
    "<a xmlns:a=\"b\">",
    "<Error>",
    "</Error>",
    "<Code>InternalError</Code>",
    "<ETag>",
    "</ETag>",
    "<Part>",
    "</Part>",
    "<PartNumber>1</PartNumber>",
    "<IsTruncated>true</IsTruncated>",
    "<UploadId>u</UploadId>",
    "\u{feff}",
    "        ",
];

fn check(input: &[u8]) {
    let mut read = None;
    let memory = measure(|| read = Some((initiated(input), parts_page(input, 0), completed(input))));
    let most = MOST_BYTES_ANYHOW + MOST_BYTES_PER_BYTE * input.len() as u64;
    assert!(memory.bytes_max <= most, "{} bytes for {}", memory.bytes_max, input.len());
    let (initiated, page, completed) = read.unwrap();
    let text = String::from_utf8_lossy(input);
    // A document is one thing only.
    let read = [initiated.is_ok(), page.is_ok(), completed.is_ok()];
    assert!(read.iter().filter(|read| **read).count() <= 1, "{read:?}");
    let clear = |error: &DocumentError| assert!(error.to_string().starts_with("the answer "), "{error}");
    match initiated {
        Ok(id) => assert!(!id.is_empty() && text.contains("UploadId")),
        Err(error) => clear(&error),
    }
    match page {
        Ok(page) => {
            assert!(page.parts.is_sorted_by(|one, other| one.number < other.number));
            assert!(
                page.parts.iter().all(|part| (1..=10_000).contains(&part.number) && !part.etag.is_empty())
            );
            assert!(page.next != Some(0));
        }
        Err(error) => clear(&error),
    }
    match completed {
        // The trap: an error under a 200 that is taken for a success.
        Ok(etag) => assert!(!etag.is_empty() && text.contains("CompleteMultipartUploadResult")),
        Err(error) => {
            assert!(error.code.len() <= 100 && error.code.chars().all(|c| c.is_ascii_graphic()), "{error:?}");
            assert!(error.message.chars().count() <= 501 && !error.message.contains(char::is_control));
            assert!(error.may_have_acted, "{error:?}");
        }
    }
}

#[test]
fn mutated_documents_of_the_object_storage_are_read_or_refused() {
    fuzz("documents", TOKENS, 8_000, check);
}
