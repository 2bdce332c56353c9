//! Uploaded content: its digests, and its bytes within the memory limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use md5::{Digest as _, Md5};

/// Size and digests of some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) size: u64,
    pub(crate) md5: [u8; 16],
    /// CRC-64/XZ.
    pub(crate) crc64: u64,
}

/// Computes the digests of content in pieces.
pub(crate) struct Hasher {
    size: u64,
    md5: Md5,
    crc: Crc,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        Self { size: 0, md5: Md5::new(), crc: Crc::new(CrcAlgorithm::Crc64Xz) }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.md5.update(bytes);
        self.crc.update(bytes);
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn finish(self) -> Digests {
        Digests { size: self.size, md5: self.md5.finalize().into(), crc64: self.crc.finalize() }
    }
}

/// The CRC of two contents in sequence.
pub(crate) fn combine(first: u64, second: &Digests) -> u64 {
    crc_fast::checksum_combine(CrcAlgorithm::Crc64Xz, first, second.crc64, second.size)
}

/// The memory for all contents together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<AtomicU64>);

impl Memory {
    /// Reserves memory, if the total stays within the limit.
    pub(crate) fn reserve(&self, bytes: u64, limit: u64) -> Option<Reserved> {
        let taken = self.0.fetch_add(bytes, Ordering::AcqRel).saturating_add(bytes);
        // The drop returns it if the total is above the limit.
        let reserved = Reserved { memory: self.clone(), bytes };
        (taken <= limit).then_some(reserved)
    }

    /// The reserved bytes.
    pub(crate) fn taken(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Memory that is reserved until the drop of this value.
#[derive(Debug)]
pub(crate) struct Reserved {
    memory: Memory,
    bytes: u64,
}

impl Reserved {
    /// The reserved bytes.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Content in memory.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) bytes: Bytes,
    /// The reservation lives as long as the bytes.
    pub(crate) _reserved: Arc<Reserved>,
}

/// The content of one request.
pub(crate) struct Received {
    pub(crate) digests: Digests,
    pub(crate) kept: Option<Kept>,
    /// The MD5 of the file up to this part, if the reader computed it.
    pub(crate) whole: Option<Md5>,
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn digests(bytes: &[u8]) -> Digests {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn the_digests_are_those_of_the_documents() {
        assert_eq!(digests(b"123456789").crc64, 11_051_210_869_376_104_954);
        assert_eq!(digests(b"[Object Part]").crc64, 4_510_578_591_875_220_731);
        assert_eq!(digests(b"").crc64, 0);
        assert_eq!(hex::encode(digests(b"abc").md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(combine(digests(b"[Object").crc64, &digests(b" Part]")), digests(b"[Object Part]").crc64);
    }

    #[test]
    fn memory_is_given_back() {
        let memory = Memory::default();
        let first = memory.reserve(60, 100).unwrap();
        assert!(memory.reserve(41, 100).is_none());
        assert_eq!(memory.taken(), 60);
        let second = memory.reserve(40, 100).unwrap();
        drop(first);
        assert_eq!(memory.taken(), 40);
        drop(second);
        assert_eq!(memory.taken(), 0);
    }
}
