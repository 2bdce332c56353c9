//! Holds the credentials, and renews them in time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vodrelay_host::BootTime;

use crate::credential_sources::Places;
use crate::credentials::{Credentials, CredentialsError};
use crate::observation::{ClientObserver, Observation};

/// Temporary credentials are renewed this long before they expire, as the vendor's SDKs do (Go, Python).
const REFRESH_AHEAD_SECONDS: i64 = 300;

/// How long a failed or useless renewal is not repeated while the credentials are still valid.
const REFRESH_PAUSE: Duration = Duration::from_secs(15);

/// The credentials in use. Tasks that need them during a reading wait for that reading.
#[derive(Debug)]
pub(crate) struct CredentialCache {
    places: Places,
    observer: ClientObserver,
    held: Mutex<Option<Arc<Credentials>>>,
    /// Held while the source is read.
    reading: tokio::sync::Mutex<LastReading>,
    /// The number of finished readings.
    ended: AtomicU64,
}

#[derive(Debug, Default)]
struct LastReading {
    /// The error of the last reading, if it failed.
    failed: Option<CredentialsError>,
    /// Before this moment, valid credentials are not refreshed.
    pause_until: Option<BootTime>,
}

impl CredentialCache {
    pub(crate) fn new(places: Places, observer: ClientObserver) -> Self {
        Self {
            places,
            observer,
            held: Mutex::new(None),
            reading: tokio::sync::Mutex::default(),
            ended: AtomicU64::new(0),
        }
    }

    /// The credentials to sign with at `now` (seconds since the Unix epoch, by the cloud's clock as far as it
    /// is known).
    ///
    /// Credentials that expire soon are renewed beside the request, which does not wait while they are valid.
    pub(crate) async fn get(self: &Arc<Self>, now: i64) -> Result<Arc<Credentials>, CredentialsError> {
        let held = self.held();
        if let Some(held) = held {
            let left = held.expires_at.map_or(i64::MAX, |at| at.saturating_sub(now));
            if left > REFRESH_AHEAD_SECONDS {
                return Ok(held);
            }
            if left > 0 {
                let cache = Arc::clone(self);
                tokio::spawn(async move { cache.refresh_quietly().await });
                return Ok(held);
            }
        }
        let ended = self.ended.load(Ordering::Acquire);
        let mut reading = self.reading.lock().await;
        // Another task may have read them meanwhile.
        if let Some(held) = self.held()
            && held.expires_at.is_none_or(|at| at > now)
        {
            return Ok(held);
        }
        // Or it may have failed: another attempt for each waiting task would not help.
        if let Some(error) = &reading.failed
            && self.ended.load(Ordering::Acquire) != ended
        {
            return Err(error.clone());
        }
        self.read(&mut reading).await
    }

    /// Reads the source again.
    pub(crate) async fn read_again(&self) -> Result<Arc<Credentials>, CredentialsError> {
        let mut reading = self.reading.lock().await;
        self.read(&mut reading).await
    }

    /// Reads the source again because the cloud did not accept `refused`. Whether there are other credentials now.
    pub(crate) async fn replace(&self, refused: &Credentials) -> bool {
        let mut reading = self.reading.lock().await;
        if self.held().is_some_and(|held| !held.same_pair(refused)) {
            return true;
        }
        let failed_before = reading.failed.is_some();
        match self.read(&mut reading).await {
            Ok(held) => !held.same_pair(refused),
            Err(error) => {
                if !failed_before {
                    self.observer.observe(&Observation::CredentialsNotReplaced(&error));
                }
                false
            }
        }
    }

    async fn refresh_quietly(&self) {
        // The holder of the lock does this very work.
        let Ok(mut reading) = self.reading.try_lock() else { return };
        if reading.pause_until.is_some_and(|until| BootTime::now() < until) {
            return;
        }
        let failed_before = reading.failed.is_some();
        if let Err(error) = self.read(&mut reading).await
            && !failed_before
        {
            self.observer.observe(&Observation::CredentialsNotRefreshed(&error));
        }
    }

    async fn read(&self, reading: &mut LastReading) -> Result<Arc<Credentials>, CredentialsError> {
        let result = self.places.read().await;
        self.ended.fetch_add(1, Ordering::AcqRel);
        reading.pause_until = Some(BootTime::now() + REFRESH_PAUSE);
        match result {
            Ok(credentials) => {
                reading.failed = None;
                let credentials = Arc::new(credentials);
                let before = self
                    .held
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .replace(Arc::clone(&credentials));
                if !before.is_some_and(|before| before.same_pair(&credentials)) {
                    reading.pause_until = None;
                    self.observer.observe(&Observation::CredentialsRead(&credentials));
                }
                Ok(credentials)
            }
            Err(error) => {
                reading.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn held(&self) -> Option<Arc<Credentials>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
