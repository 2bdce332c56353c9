//! A limit on standing still: a slow request may take hours, as long as bytes move.

use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When bytes of one request moved last, and what became of its body.
#[derive(Debug)]
pub(crate) struct ProgressWatch {
    began: Instant,
    /// In milliseconds since it began.
    last_ms: AtomicU64,
    /// Why the body could not be sent, if its source is to blame.
    source: OnceLock<String>,
}

impl ProgressWatch {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0), source: OnceLock::new() }
    }

    /// Bytes moved just now.
    pub(crate) fn moved(&self) {
        self.waits_until(Instant::now());
    }

    /// Nothing will be sent before `moment`, and that is meant so.
    pub(crate) fn waits_until(&self, moment: Instant) {
        let ms = u64::try_from((moment - self.began).as_millis()).unwrap_or(u64::MAX);
        self.last_ms.fetch_max(ms, Ordering::Relaxed);
    }

    pub(crate) fn source_failed(&self, cause: String) {
        let _first = self.source.set(cause);
    }

    /// Why the source of the body is to blame, if it is.
    pub(crate) fn source_failure(&self) -> Option<&str> {
        self.source.get().map(String::as_str)
    }

    fn stalled_at(&self, limit: Duration) -> Instant {
        self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + limit
    }

    /// Runs `future` for as long as bytes move; `None` when none has for `limit`.
    pub(crate) async fn watch<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        loop {
            let stalled_at = self.stalled_at(limit);
            tokio::select! {
                biased;
                done = &mut future => return Some(done),
                () = tokio::time::sleep_until(stalled_at) => {}
            }
            if self.stalled_at(limit) <= Instant::now() {
                return None;
            }
        }
    }
}
