//! What of a file is sent, and what proves it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;

use super::{Hands, blocking};
use crate::cos::Content;
use crate::cos::digest::{PartDigests, PartHasher};
use crate::upload::plan::StoreFailure;
use crate::upload::source::{READ_BYTES, SourceError, SourceFile};

/// Larger parts are not held in memory, and go without `Content-MD5`.
const IN_MEMORY: u64 = 64 * 1024 * 1024;

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilePiece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl FilePiece {
    /// The bytes after the first `done`, as many as are read at a time; `None` at the end.
    fn next(self, done: u64) -> Option<(u64, usize)> {
        let length = READ_BYTES.min(self.length.saturating_sub(done));
        usize::try_from(length).ok().filter(|length| *length > 0).map(|length| (self.offset + done, length))
    }
}

impl Hands {
    /// A body with these bytes of a file, and their digests once it was sent.
    pub(super) async fn content(
        &self,
        file: &Arc<SourceFile>,
        piece: FilePiece,
    ) -> Result<(Content, Box<dyn FnOnce() -> PartDigests + Send>), StoreFailure> {
        if piece.length > IN_MEMORY {
            let hasher = Arc::new(Mutex::new(PartHasher::default()));
            let pieces = streamed(file, piece, Arc::clone(&hasher));
            let digests = move || hasher.lock().unwrap_or_else(PoisonError::into_inner).clone().finish();
            return Ok((Content::stream(piece.length, pieces), Box::new(digests)));
        }
        let length = usize::try_from(piece.length).map_err(|_| StoreFailure::Refused)?;
        let file = Arc::clone(file);
        let read = blocking(move || {
            let bytes = file.read(piece.offset, length)?;
            Ok((PartDigests::of(&bytes), Bytes::from(bytes)))
        });
        let (digests, bytes) = read.await.map_err(|error: SourceError| self.source_failed(&error))?;
        Ok((Content::bytes(bytes, &digests), Box::new(move || digests)))
    }

    /// The digests of these bytes, read and not sent.
    pub(super) async fn digests(
        &self,
        file: &Arc<SourceFile>,
        piece: FilePiece,
    ) -> Result<PartDigests, StoreFailure> {
        let file = Arc::clone(file);
        let read = blocking(move || file.digests(piece.offset, piece.length));
        read.await.map_err(|error| self.source_failed(&error))
    }
}

/// The bytes of a file as a stream, which feeds the hasher with what it gives.
fn streamed(
    file: &Arc<SourceFile>,
    piece: FilePiece,
    hasher: Arc<Mutex<PartHasher>>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let file = Arc::clone(file);
    stream::try_unfold(0, move |done| {
        let (file, hasher) = (Arc::clone(&file), Arc::clone(&hasher));
        async move {
            let Some((offset, length)) = piece.next(done) else { return Ok(None) };
            let bytes = blocking(move || file.read(offset, length)).await.map_err(std::io::Error::other)?;
            hasher.lock().unwrap_or_else(PoisonError::into_inner).update(&bytes);
            let done = done + bytes.len() as u64;
            Ok(Some((Bytes::from(bytes), done)))
        }
    })
}
