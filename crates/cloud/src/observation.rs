//! The client's observations beside its results. The caller logs and counts them in its own words.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tencent_vod_event::SubAppId;

use crate::classify::{Action, RequestError};
use crate::credentials::{Credentials, CredentialsError};
use crate::skew::SkewChange;

/// An observation of the client.
#[derive(Debug)]
pub enum Observation<'a> {
    /// A request has ended, with its second attempt if there was one.
    RequestEnded {
        /// The action.
        action: Action,
        /// For which application.
        sub_app: SubAppId,
        /// `Ok(true)` when an empty queue answered, `Ok(false)` for every other success.
        result: Result<bool, &'a RequestError>,
        /// The cloud's id of the request.
        request_id: Option<&'a str>,
        /// Its duration.
        elapsed: Duration,
    },
    /// The cloud refused the host's time stamps. Requests are now signed with the cloud's time.
    ClockCorrected {
        /// The cloud's clock minus the host's, in milliseconds.
        by_ms: i64,
    },
    /// The host's clock is right again. Requests are signed with the host's time.
    ClockFits,
    /// A new key pair was read.
    CredentialsRead(&'a Credentials),
    /// Temporary credentials cannot be renewed. The ones in use are valid for some more minutes.
    CredentialsNotRefreshed(&'a CredentialsError),
    /// The cloud refuses the credentials, and they cannot be read again.
    CredentialsNotReplaced(&'a CredentialsError),
}

/// The receiver of each [`Observation`], called at once in the observing task: it must be quick.
#[derive(Clone)]
pub struct ClientObserver(Arc<dyn Fn(&Observation<'_>) + Send + Sync>);

impl ClientObserver {
    /// An observer that calls `told`.
    pub fn new(told: impl Fn(&Observation<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    pub(crate) fn observe(&self, observation: &Observation<'_>) {
        (self.0)(observation);
    }

    /// What an answer changed about the host's clock.
    pub(crate) fn observe_clock(&self, change: SkewChange) {
        match change {
            SkewChange::Corrected(by_ms) => self.observe(&Observation::ClockCorrected { by_ms }),
            SkewChange::Lifted => self.observe(&Observation::ClockFits),
            SkewChange::None | SkewChange::Known => {}
        }
    }
}

impl Default for ClientObserver {
    /// An observer that ignores everything.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for ClientObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientObserver")
    }
}
