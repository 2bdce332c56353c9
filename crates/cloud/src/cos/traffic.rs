//! How much all requests of a client send together, and how fast they may.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A count of what was sent, and a limit for it, shared by all that hold it. The service has a limit too
/// (`x-cos-traffic-limit`), but for each connection alone.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    bytes_per_second: Option<NonZeroU64>,
    /// When the next piece may leave.
    next: Mutex<Option<Instant>>,
}

impl Traffic {
    /// A count, and no limit.
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// A count, and at most so many bytes of bodies a second.
    pub fn limited(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second: Some(bytes_per_second), ..Self::default() }
    }

    /// How many bytes of bodies were given to connections, those that were sent more than once included.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Counts a piece.
    pub(crate) fn count(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Reserves the time of a piece, and returns when it may leave if that is not now.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<Instant> {
        let rate = self.bytes_per_second?.get();
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(rate);
        *next = Some(at + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)));
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_one_after_the_other_at_the_rate() {
        let traffic = Traffic::limited(NonZeroU64::new(1_000).expect("not zero"));
        let began = Instant::now();
        assert_eq!(traffic.reserve(500), None);
        let second = traffic.reserve(2_000).expect("the first one takes half a second");
        let third = traffic.reserve(1).expect("the second one takes two seconds");
        assert_eq!(third - second, Duration::from_secs(2));
        let wait = second - began;
        assert!(wait >= Duration::from_millis(500) && wait < Duration::from_secs(30), "{wait:?}");
        let free = Traffic::unlimited();
        assert_eq!((free.reserve(1 << 30), free.reserve(1 << 30)), (None, None));
    }
}
