//! How many bytes a second leave.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A limit that all parts share.
#[derive(Debug)]
pub(super) struct Pacer {
    bytes_per_second: u64,
    /// When the bytes that were let through so far are paid for.
    paid_at: Mutex<Instant>,
}

impl Pacer {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: Mutex::new(Instant::now()) }
    }

    /// Waits until so many more bytes may leave.
    pub(super) async fn take(&self, bytes: usize) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let at = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*paid_at).max(Instant::now());
            *paid_at = at + cost;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_parts_together_keep_to_the_rate() {
        let (pacer, began) = (Pacer::new(1_000), Instant::now());
        for _ in 0..10 {
            tokio::join!(pacer.take(100), pacer.take(100));
        }
        // The last bytes leave when those before are paid for.
        assert_eq!(began.elapsed().as_millis(), 1_900);
    }
}
