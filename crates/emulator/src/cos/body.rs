//! The reader of bodies. It reads in pieces, so 5 GB need no more memory than 5 kB unless the content is kept.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use tokio::time::Instant;

use super::CosError;
use crate::faults::StorageFaults;
use crate::uploads::content::{Hasher, Kept, Received, Reserved};

/// The longest pause of a sender.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The largest object of a single PUT, and the largest part: 5 GB.
pub(crate) const MAX_BODY: u64 = 5 * 1024 * 1024 * 1024;

/// The facts about a body before it is read.
pub(crate) struct Expected {
    /// `Content-MD5`, decoded.
    pub(crate) md5: Option<Vec<u8>>,
    /// The memory in which the content is kept, if there is enough.
    pub(crate) reserved: Option<Reserved>,
    /// The MD5 of the preceding parts, if the reader continues it.
    pub(crate) whole: Option<Md5>,
    /// The largest speed.
    pub(crate) bytes_per_second: Option<u64>,
}

/// Why a body was not read to its end.
pub(crate) enum BodyEnd {
    /// The sender gets an error.
    Refused(CosError),
    /// A fault resets the connection here.
    Reset,
    /// The sender is gone.
    Gone,
}

impl From<CosError> for BodyEnd {
    fn from(error: CosError) -> Self {
        Self::Refused(error)
    }
}

/// Reads `Content-MD5`.
pub(crate) fn content_md5(value: Option<&str>) -> Result<Option<Vec<u8>>, CosError> {
    let Some(value) = value else { return Ok(None) };
    let decoded = STANDARD.decode(value).ok().filter(|bytes| bytes.len() == 16);
    decoded.map(Some).ok_or_else(|| CosError::new("InvalidDigest"))
}

/// Reads a body to its end.
pub(crate) async fn receive(
    mut body: Body,
    expected: Expected,
    faults: &StorageFaults,
) -> Result<Received, BodyEnd> {
    let began = Instant::now();
    let mut hasher = Hasher::new();
    let mut kept = expected.reserved.as_ref().map(|reserved| BytesMut::with_capacity(reserved.bytes()));
    let mut whole = expected.whole.clone();
    let mut flip = faults.bit_flip;
    while let Some(mut piece) = next(&mut body).await? {
        if std::mem::take(&mut flip) && !piece.is_empty() {
            piece = flipped(&piece);
        }
        hasher.update(&piece);
        if hasher.size() > MAX_BODY {
            return Err(CosError::new("EntityTooLarge").into());
        }
        if let Some(whole) = &mut whole {
            whole.update(&piece);
        }
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(&piece);
        }
        if faults.reset_after.is_some_and(|bytes| hasher.size() >= bytes) {
            return Err(BodyEnd::Reset);
        }
        let speed = [expected.bytes_per_second, faults.bytes_per_second].into_iter().flatten().min();
        if let Some(due) = speed.and_then(|speed| due(hasher.size(), speed)) {
            tokio::time::sleep_until(began + due).await;
        }
    }
    let digests = hasher.finish();
    if expected.md5.is_some_and(|md5| md5 != digests.md5) {
        return Err(CosError::new("BadDigest").into());
    }
    let keep = |(bytes, reserved): (BytesMut, Reserved)| Kept {
        bytes: bytes.freeze(),
        _reserved: Arc::new(reserved),
    };
    Ok(Received { digests, kept: kept.zip(expected.reserved).map(keep), whole })
}

/// The earliest time for so many bytes.
fn due(bytes: u64, per_second: u64) -> Option<Duration> {
    Some(Duration::from_micros(bytes.checked_mul(1_000_000)? / per_second.max(1)))
}

/// The next piece; `None` at the end.
pub(super) async fn next(body: &mut Body) -> Result<Option<Bytes>, BodyEnd> {
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx));
    match tokio::time::timeout(MAX_PAUSE, frame).await {
        Err(_) => Err(CosError::new("RequestTimeout").into()),
        Ok(None) => Ok(None),
        Ok(Some(Err(_))) => Err(BodyEnd::Gone),
        // Trailers are ignored.
        Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
    }
}

fn flipped(piece: &[u8]) -> Bytes {
    let mut piece = piece.to_vec();
    if let Some(first) = piece.first_mut() {
        *first ^= 1;
    }
    piece.into()
}

/// Reads a small body whole.
pub(crate) async fn small(mut body: Body, most: usize, too_large: &'static str) -> Result<Bytes, BodyEnd> {
    let mut whole = BytesMut::new();
    while let Some(piece) = next(&mut body).await? {
        if whole.len() + piece.len() > most {
            return Err(CosError::new(too_large).into());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uploads::content::Memory;

    fn expected() -> Expected {
        Expected { md5: None, reserved: None, whole: None, bytes_per_second: None }
    }

    #[tokio::test]
    async fn a_body_is_kept_where_there_is_memory_and_hashed_in_any_case() {
        let memory = Memory::default();
        let reserved = memory.reserve(3, 3);
        let received =
            receive("abc".into(), Expected { reserved, ..expected() }, &StorageFaults::default()).await;
        let received = received.ok().unwrap();
        assert_eq!(received.kept.as_ref().unwrap().bytes, "abc");
        assert_eq!(memory.taken(), 3);
        drop(received);
        assert_eq!(memory.taken(), 0);
        let whole = Some(Md5::new());
        let received =
            receive("abc".into(), Expected { whole, ..expected() }, &StorageFaults::default()).await;
        let received = received.ok().unwrap();
        assert!(received.kept.is_none());
        assert_eq!(received.whole.unwrap().finalize()[..], received.digests.md5);
    }

    #[tokio::test]
    async fn a_wrong_digest_and_a_flipped_bit_are_noticed() {
        let md5 = content_md5(Some("kAFQmDzST7DWlj99KOF/cg==")).unwrap();
        let none = StorageFaults::default();
        assert!(receive("abc".into(), Expected { md5: md5.clone(), ..expected() }, &none).await.is_ok());
        let flipped = StorageFaults { bit_flip: true, ..StorageFaults::default() };
        let bad = receive("abc".into(), Expected { md5, ..expected() }, &flipped).await;
        assert!(matches!(bad, Err(BodyEnd::Refused(error)) if error.code == "BadDigest"));
        for wrong in ["", "abc", "*", "YWJj"] {
            assert_eq!(content_md5(Some(wrong)).unwrap_err().code, "InvalidDigest", "{wrong}");
        }
        assert_eq!(content_md5(None), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_pauses_is_told_so_and_a_slow_one_is_not() {
        let slow = |seconds: u64| {
            let pieces = futures_util::stream::unfold(3_u32, move |left| async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Some((Ok::<_, std::io::Error>("abc"), left.checked_sub(1)?))
            });
            Body::from_stream(pieces)
        };
        let none = StorageFaults::default();
        assert_eq!(receive(slow(29), expected(), &none).await.ok().unwrap().digests.size, 9);
        let paused = receive(slow(31), expected(), &none).await;
        assert!(matches!(paused, Err(BodyEnd::Refused(error)) if error.code == "RequestTimeout"));
    }

    #[test]
    fn speed_is_bytes_by_seconds() {
        assert_eq!(due(3_000, 1_000), Some(Duration::from_secs(3)));
        assert_eq!(due(u64::MAX, 1), None);
        assert_eq!(due(5, 0), Some(Duration::from_secs(5)));
    }
}
