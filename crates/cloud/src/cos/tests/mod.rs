//! The client against a scripted server: what it sends, and what it makes of every kind of answer.

mod answers;
mod clock;
mod complete;
mod emulator;
mod requests;
mod server;
mod slow;

use std::time::Duration;

use bytes::Bytes;

use super::digest::PartDigests;
use super::target::tests::credentials;
use super::{Content, Target};

const PROOFS: &str =
    "ETag: \"108f528eb63b65e734f27ae331f5ffaa\"\r\nx-cos-hash-crc64ecma: 4510578591875220731\r\n";
const BODY: &[u8] = b"[Object Part]";

fn target() -> Target {
    Target::new("b-1250000000", "ap-guangzhou", "/dir/测试 a+b(1).mp4", credentials()).unwrap()
}

fn content(body: &[u8]) -> Content {
    Content::bytes(Bytes::copy_from_slice(body), &PartDigests::of(body))
}

/// A part of so many mebibytes.
fn large(mebibytes: usize) -> Vec<u8> {
    (0..mebibytes << 20).map(|at| (at >> 7) as u8).collect()
}

/// What a test that waits for nothing may take at most.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it ends long before")
}
