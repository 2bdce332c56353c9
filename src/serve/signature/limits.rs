//! How often callers and peers may ask. Each has a bucket that holds what may be asked at once, and fills again in a second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Peers that are remembered. One that is forgotten begins anew, so this bounds memory and not much else.
const MOST_PEERS: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct RateBucket {
    left: f64,
    at: Instant,
}

impl RateBucket {
    /// Takes one request out. Otherwise: in how many seconds there is one.
    fn take(&mut self, per_second: f64, now: Instant) -> Result<(), u64> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        self.left = (self.left + gained).min(per_second);
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        let seconds = ((1.0 - self.left) / per_second).ceil();
        // Not negative, and at most one, because no limit is below one a second.
        Err(if seconds > 1.0 { seconds as u64 } else { 1 })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bucket of a caller.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    bucket: Mutex<RateBucket>,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, bucket: Mutex::new(RateBucket { left: per_second, at: Instant::now() }) }
    }

    /// Takes one request. Otherwise: after how many seconds to try again.
    pub(super) fn take(&self, now: Instant) -> Result<(), u64> {
        lock(&self.bucket).take(self.per_second, now)
    }
}

/// The buckets of those who send requests, by their addresses.
#[derive(Debug)]
pub(super) struct PeerRates {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, RateBucket>>,
}

impl PeerRates {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Takes one request. Otherwise: after how many seconds to try again.
    pub(super) fn take(&self, peer: IpAddr, now: Instant) -> Result<(), u64> {
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= MOST_PEERS && !buckets.contains_key(&network(peer)) {
            // Those that are full again say nothing.
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at).as_secs_f64() < 1.0);
            if buckets.len() >= MOST_PEERS {
                // So many in one second: whoever is new waits.
                return Err(1);
            }
        }
        let full = RateBucket { left: self.per_second, at: now };
        buckets.entry(network(peer)).or_insert(full).take(self.per_second, now)
    }
}

/// What one user has of addresses: one of IPv4, and a network of 64 bits of IPv6.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_in_a_second() {
        let (rate, start) = (Rate::new(3), Instant::now());
        let taken = |at: Duration| (0..10).take_while(|_| rate.take(start + at).is_ok()).count();
        assert_eq!(taken(Duration::from_millis(10)), 3);
        assert_eq!(rate.take(start + Duration::from_millis(10)), Err(1));
        assert_eq!(taken(Duration::from_millis(700)), 2);
        assert_eq!(taken(Duration::from_secs(3_600)), 3);
        // A clock that is behind gives nothing and takes nothing.
        assert_eq!(taken(Duration::from_secs(10)), 0);
    }

    #[test]
    fn peers_have_buckets_of_their_own_and_a_network_of_ipv6_has_one() {
        let (rates, now) = (PeerRates::new(1), Instant::now());
        let take = |peer: &str| rates.take(peer.parse().unwrap(), now);
        assert_eq!((take("192.0.2.1"), take("192.0.2.2")), (Ok(()), Ok(())));
        assert_eq!(take("::ffff:192.0.2.1"), Err(1));
        assert_eq!((take("2001:db8:0:1::1"), take("2001:db8:0:1:ffff::2")), (Ok(()), Err(1)));
        assert_eq!(take("2001:db8:0:2::1"), Ok(()));
    }

    #[test]
    fn peers_that_are_remembered_are_bounded() {
        let (rates, now) = (PeerRates::new(1), Instant::now());
        let peer = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..20_000 {
            let _ = rates.take(peer(number), now);
        }
        assert_eq!(lock(&rates.buckets).len(), MOST_PEERS);
        let later = now + Duration::from_secs(2);
        assert_eq!(rates.take(peer(19_999), later), Ok(()));
        assert_eq!(lock(&rates.buckets).len(), 1);
    }
}
