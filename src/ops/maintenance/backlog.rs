//! The number of events that wait in the cloud, by its own count, which is about three minutes late.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tencent_vod::{Client, FailureKind, RequestError};
use tencent_vod_event::SubAppId;
use tokio::sync::watch;
use tracing::{info, warn};
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use super::JobFailure;
use crate::clock::Now as _;

/// The pause between two requests: the API's quota is the account's, and other programs may need it.
const PAUSE: Duration = Duration::from_millis(100);

/// The cloud's last answers, shared with observers.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<BTreeMap<SubAppId, (u64, WallTime)>>>);

impl Waiting {
    /// The total of waiting events, and the time of the oldest of these answers. `None` when nothing is
    /// known.
    pub fn total(&self) -> Option<(u64, WallTime)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = known.values().map(|(_, at)| *at).min()?;
        Some((known.values().fold(0, |sum: u64, (events, _)| sum.saturating_add(*events)), since))
    }

    /// `None` when it is no longer known.
    fn set(&self, sub_app: SubAppId, events: Option<u64>) {
        let value = events.map_or(f64::NAN, |events| events as f64);
        gauge!("vodrelay_backlog_events", "sub_app" => sub_app.to_string()).set(value);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match events {
            Some(events) => known.insert(sub_app, (events, WallTime::now())),
            None => known.remove(&sub_app),
        };
    }
}

/// Asks for each sub-application in turn.
#[derive(Debug)]
pub(super) struct BacklogJob {
    client: Client,
    waiting: Waiting,
    sub_apps: watch::Receiver<Vec<SubAppId>>,
    /// The sub-applications of the last run.
    known: Vec<SubAppId>,
    /// The failure of the last run that was logged.
    failing: Option<String>,
}

impl BacklogJob {
    pub(super) fn new(client: Client, sub_apps: watch::Receiver<Vec<SubAppId>>, waiting: Waiting) -> Self {
        Self { client, waiting, sub_apps, known: Vec::new(), failing: None }
    }

    pub(super) async fn run(&mut self) -> Result<(), JobFailure> {
        let now = self.sub_apps.borrow().clone();
        // An unknown figure is no number: for sub-applications that a reload removed, and for those that
        // fail.
        self.known
            .iter()
            .filter(|sub_app| !now.contains(sub_app))
            .for_each(|sub_app| self.waiting.set(*sub_app, None));
        self.known.clone_from(&now);
        let mut failed = None;
        for (at, sub_app) in now.iter().enumerate() {
            if at > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.client.describe_events_state(*sub_app).await {
                Ok(events) => self.waiting.set(*sub_app, Some(events)),
                Err(error) => {
                    let goes_on = is_its_own(&error);
                    failed.get_or_insert((*sub_app, error));
                    if !goes_on {
                        // The others would fail as well, each after its time-out.
                        now[at..].iter().for_each(|sub_app| self.waiting.set(*sub_app, None));
                        break;
                    }
                    self.waiting.set(*sub_app, None);
                }
            }
        }
        self.tell(failed)
    }

    /// Logs the first failure and the recovery, not each attempt.
    fn tell(&mut self, failed: Option<(SubAppId, RequestError)>) -> Result<(), JobFailure> {
        let Some((sub_app, error)) = failed else {
            if self.failing.take().is_some() {
                info!("the cloud reports the waiting events again");
            }
            return Ok(());
        };
        if self.failing.as_deref() != Some(error.code.as_str()) {
            warn!(
                error_code = %ErrorCode::Maintenance,
                %sub_app,
                %error,
                "the cloud does not report how many events wait; events are still relayed"
            );
            self.failing = Some(error.code.clone());
        }
        Err(JobFailure::Failed(format!("sub-application {sub_app}: {error}")))
    }
}

/// Whether a failure concerns one sub-application, so that others are worth asking.
fn is_its_own(error: &RequestError) -> bool {
    match error.failure {
        FailureKind::Refused | FailureKind::Configuration => true,
        FailureKind::Throttled | FailureKind::Credentials | FailureKind::Clock | FailureKind::Transient => {
            false
        }
    }
}
