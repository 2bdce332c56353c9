//! The server's state: what a reload replaces, and what stays.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tencent_vod::CredentialSource;

use super::callers::Callers;
use super::cors::PageOrigin;
use super::limits::PeerRates;
use super::metrics;
use super::signer::{GrantSigner, Randoms};

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where requests for signatures come in.
    pub listen: SocketAddr,
    /// Where `/metrics` and `/livez` are; nowhere when empty.
    pub metrics_listen: Option<SocketAddr>,
    /// Where the signing key comes from.
    pub credentials: CredentialSource,
    /// The origins whose pages may read answers.
    pub cors_origins: Vec<PageOrigin>,
    /// The proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpAddr>,
    /// Connections at once.
    pub connections: usize,
    /// Requests a second of one peer.
    pub requests_per_second: u32,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9465)),
            metrics_listen: Some(SocketAddr::from(([127, 0, 0, 1], 9467))),
            credentials: CredentialSource::Auto,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            connections: 512,
            requests_per_second: 50,
        }
    }
}

/// What requests are judged by. A reload replaces it as a whole.
#[derive(Debug)]
pub struct Current {
    pub(super) callers: Callers,
    pub(super) signer: GrantSigner,
    pub(super) cors_origins: Vec<PageOrigin>,
    pub(super) trusted_proxies: Vec<IpAddr>,
    pub(super) peers: PeerRates,
}

impl Current {
    /// What the options say, with what was read for them.
    pub fn new(server: &ServerOptions, callers: Callers, signer: GrantSigner) -> Self {
        Self {
            callers,
            signer,
            cors_origins: server.cors_origins.clone(),
            trusted_proxies: server.trusted_proxies.clone(),
            peers: PeerRates::new(server.requests_per_second),
        }
    }

    /// Who may ask.
    pub fn callers(&self) -> &Callers {
        &self.callers
    }

    /// Who signs.
    pub fn signer(&self) -> &GrantSigner {
        &self.signer
    }
}

/// The server.
#[derive(Debug)]
pub struct SignatureService {
    current: RwLock<Arc<Current>>,
    pub(super) randoms: Randoms,
    pub(super) strangers: Seldom,
    pub(super) failures: Seldom,
}

impl SignatureService {
    /// A server that judges by this.
    pub fn new(current: Current) -> Self {
        let service = Self {
            current: RwLock::new(Arc::new(current)),
            randoms: Randoms::default(),
            strangers: Seldom::default(),
            failures: Seldom::default(),
        };
        service.expect();
        service
    }

    /// Judges by this from the next request on.
    pub fn replace(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        self.expect();
    }

    /// What requests are judged by now.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn expect(&self) {
        metrics::expect(metrics::NO_CALLER);
        self.current().callers.iter().for_each(|caller| metrics::expect(&caller.name));
    }
}

/// What outsiders can cause at will is told once a minute, with how often it happened.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    untold: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Seldom {
    const PERIOD: Duration = Duration::from_secs(60);

    /// Notes that it happened. How often since it was told last, when it is time to tell.
    pub(super) fn happened(&self, now: Instant) -> Option<u64> {
        let times = self.untold.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|at| now.saturating_duration_since(at) < Self::PERIOD) {
            return None;
        }
        *told = Some(now);
        self.untold.store(0, Ordering::Relaxed);
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_once_a_minute_with_its_number() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        let at = |seconds| seldom.happened(now + Duration::from_secs(seconds));
        assert_eq!((at(0), at(1), at(59), at(60), at(61)), (Some(1), None, None, Some(3), None));
    }
}
