//! What the client meets beside its results: whoever uses it logs and counts it, in the words of their own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tencent_vod_event::SubAppId;

use crate::classify::{Action, RequestError};
use crate::credentials::{Credentials, CredentialsError};

/// Something that the client met.
#[derive(Debug)]
pub enum Observation<'a> {
    /// A request has ended, with its second try where it had one.
    RequestEnded {
        /// What was asked for.
        action: Action,
        /// For which application.
        sub_app: SubAppId,
        /// `Ok(true)` when an empty queue answered, `Ok(false)` for every other success.
        result: Result<bool, &'a RequestError>,
        /// The cloud's id of the request.
        request_id: Option<&'a str>,
        /// How long it took.
        elapsed: Duration,
    },
    /// The cloud refused the host's time stamps: requests are signed with the cloud's time from now on.
    ClockCorrected {
        /// The cloud's clock minus the host's, in milliseconds.
        by_ms: i64,
    },
    /// The host's clock fits the cloud's again: requests are signed with the host's time.
    ClockFits,
    /// Another key pair than before was read.
    CredentialsRead(&'a Credentials),
    /// Temporary credentials cannot be read again. The ones in use are valid for a few minutes yet.
    CredentialsNotRefreshed(&'a CredentialsError),
    /// The cloud refuses the credentials, and they cannot be read again.
    CredentialsNotReplaced(&'a CredentialsError),
}

/// Who is told of each [`Observation`], at once and in the task that met it: it must be quick.
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
