//! What proves content: the MD5 of one body, and the CRC-64 of a body or of a whole file.
//!
//! The service states the CRC-64/XZ in decimal in the header `x-cos-hash-crc64ecma` of `PUT Object`, `Upload Part` and
//! `Complete Multipart Upload`. The `ETag` of a part is its MD5 in hex. The `ETag` of a completed upload is opaque.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};

/// The checksum that the service computes.
const CRC: CrcAlgorithm = CrcAlgorithm::Crc64Xz;

/// Reads a body piece by piece, and knows its digests at the end.
#[derive(Clone)]
pub struct PartHasher {
    md5: Md5,
    crc64: crc_fast::Digest,
    length: u64,
}

impl Default for PartHasher {
    fn default() -> Self {
        Self { md5: Md5::new(), crc64: crc_fast::Digest::new(CRC), length: 0 }
    }
}

impl std::fmt::Debug for PartHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartHasher").field("length", &self.length).finish_non_exhaustive()
    }
}

impl PartHasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.md5.update(piece);
        self.crc64.update(piece);
        self.length += piece.len() as u64;
    }

    /// The digests of all that was taken.
    pub fn finish(self) -> PartDigests {
        PartDigests { md5: self.md5.finalize().into(), crc64: self.crc64.finalize(), length: self.length }
    }
}

/// The digests of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartDigests {
    /// The MD5. In hex it is the `ETag` of a part.
    pub md5: [u8; 16],
    /// The CRC-64/XZ.
    pub crc64: u64,
    /// How many bytes were read.
    pub length: u64,
}

impl PartDigests {
    /// The digests of a body that is in memory.
    pub fn of(body: &[u8]) -> Self {
        let mut hasher = PartHasher::default();
        hasher.update(body);
        hasher.finish()
    }

    /// The MD5 in lower-case hex, as an `ETag` has it.
    pub fn etag(&self) -> String {
        hex::encode(self.md5)
    }
}

/// The CRC-64 of a body that follows another one, from the checksum of each. For a whole file, start with 0 and take its parts
/// in their order.
pub fn combine(first: u64, second: u64, second_length: u64) -> u64 {
    crc_fast::checksum_combine(CRC, first, second, second_length)
}

/// The MD5 as the header `Content-MD5` has it.
pub(crate) fn content_md5(md5: &[u8; 16]) -> String {
    STANDARD.encode(md5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_documents() {
        let digests = PartDigests::of(b"[Object Part]");
        assert_eq!((digests.crc64, digests.length), (4_510_578_591_875_220_731, 13));
        assert_eq!(content_md5(&digests.md5), "EI9SjrY7Zec08nrjMfX/qg==");
        assert_eq!(digests.etag(), "108f528eb63b65e734f27ae331f5ffaa");
        assert_eq!(PartDigests::of(b"123456789").crc64, 11_051_210_869_376_104_954);
        let nothing = PartDigests::of(b"");
        assert_eq!((nothing.crc64, nothing.etag().as_str()), (0, "d41d8cd98f00b204e9800998ecf8427e"));
    }

    #[test]
    fn pieces_and_parts_come_to_the_same_as_the_whole() {
        let body: Vec<u8> =
            (0..100_003_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let whole = PartDigests::of(&body);
        for size in [1, 7, 4_096, 99_999, 100_003, 1 << 20] {
            let mut hasher = PartHasher::default();
            let mut combined = 0;
            for part in body.chunks(size) {
                hasher.update(part);
                combined = combine(combined, PartDigests::of(part).crc64, part.len() as u64);
            }
            assert_eq!(hasher.finish(), whole, "{size}");
            assert_eq!(combined, whole.crc64, "{size}");
        }
        assert_eq!(combine(whole.crc64, 0, 0), whole.crc64, "an empty part changes nothing");
    }
}
