//! The body of a request: bytes in memory with their MD5, or a stream whose length is known.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::digest::PartDigests;
use super::progress::ProgressWatch;
use super::traffic::Traffic;

/// A body goes out in pieces of this size, so that progress can be seen. It also bounds what the HTTP library buffers.
const PIECE: usize = 16 * 1024;

type Pieces = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// What a request sends.
pub struct Content {
    pub(crate) length: u64,
    pub(crate) md5: Option<[u8; 16]>,
    source: Source,
}

enum Source {
    Bytes(Bytes),
    /// The mutex is never locked: the HTTP library wants to share a body between threads, and a stream need not allow that.
    Stream(Mutex<Pieces>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("length", &self.length)
            .field("streamed", &matches!(self.source, Source::Stream(_)))
            .finish_non_exhaustive()
    }
}

impl Content {
    /// Bytes and their digests. The MD5 goes along as `Content-MD5`, so the service refuses what was damaged on its way.
    pub fn bytes(bytes: Bytes, digests: &PartDigests) -> Self {
        Self { length: bytes.len() as u64, md5: Some(digests.md5), source: Source::Bytes(bytes) }
    }

    /// No byte at all, for requests that have a length and no content.
    pub(crate) fn empty() -> Self {
        Self { length: 0, md5: None, source: Source::Bytes(Bytes::new()) }
    }

    /// A body that is too large for memory: exactly `length` bytes. What the service says of it has to be compared with the
    /// digests of what the stream gave.
    pub fn stream(length: u64, pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Self {
        Self { length, md5: None, source: Source::Stream(Mutex::new(Box::pin(pieces))) }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The same once more, if it can be sent again.
    pub(crate) fn again(&self) -> Option<Self> {
        match &self.source {
            Source::Bytes(bytes) => {
                Some(Self { length: self.length, md5: self.md5, source: Source::Bytes(bytes.clone()) })
            }
            Source::Stream(_) => None,
        }
    }

    /// As the HTTP library takes it.
    pub(crate) fn into_body(self, progress: Arc<ProgressWatch>, traffic: Arc<Traffic>) -> reqwest::Body {
        let (left, source, pending) = (self.length, self.source, Bytes::new());
        reqwest::Body::wrap(SentBody { left, source, pending, pause: None, progress, traffic })
    }
}

/// A body on its way.
struct SentBody {
    left: u64,
    source: Source,
    /// A piece of the stream that is not sent yet.
    pending: Bytes,
    /// Until the next piece may leave.
    pause: Option<Pin<Box<Sleep>>>,
    progress: Arc<ProgressWatch>,
    traffic: Arc<Traffic>,
}

impl SentBody {
    fn fail(&self, cause: String) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.progress.source_failed(cause.clone());
        Poll::Ready(Some(Err(std::io::Error::other(cause))))
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = &mut *self;
        // The library asks for more when it could write what it had.
        this.progress.moved();
        while this.pending.is_empty() {
            let next = match &mut this.source {
                Source::Bytes(bytes) => Some(Ok(std::mem::take(bytes))).filter(|_| this.left > 0),
                Source::Stream(stream) => {
                    let stream = stream.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
                    ready!(stream.as_mut().poll_next(context))
                }
            };
            match next {
                Some(Ok(piece)) if piece.len() as u64 > this.left => {
                    return this.fail("it is longer than was announced".to_owned());
                }
                Some(Ok(piece)) => this.pending = piece,
                Some(Err(error)) => return this.fail(error.to_string()),
                None if this.left > 0 => {
                    let cause = format!("it ends {} bytes before the length that was announced", this.left);
                    return this.fail(cause);
                }
                None => return Poll::Ready(None),
            }
        }
        let length = this.pending.len().min(PIECE);
        if this.pause.is_none()
            && let Some(at) = this.traffic.reserve(length)
        {
            this.progress.waits_until(at);
            this.pause = Some(Box::pin(tokio::time::sleep_until(at)));
        }
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        this.traffic.count(length);
        let piece = this.pending.split_to(length);
        this.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
