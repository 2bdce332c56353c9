//! The last problems by code. Every warning and error of the log with an `error_code` is counted here, so
//! metrics and `status` name the same problems as the log without code in each place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use crate::clock::Now as _;

/// A problem that was logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoggedProblem {
    /// Its code in the catalogue.
    pub error_code: String,
    /// The number since the start.
    pub times: u64,
    /// The time of the last line.
    pub last: WallTime,
    /// The time from which it is over. `None` while it lasts, and for problems of a moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_since: Option<WallTime>,
    /// The last line about it.
    pub message: String,
}

static LOGGED: Mutex<BTreeMap<String, LoggedProblem>> = Mutex::new(BTreeMap::new());

/// The problems since the start, in the order of their codes.
pub fn logged() -> Vec<LoggedProblem> {
    LOGGED.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

/// Sets the problems that last now, which gives the others the time of their end.
pub fn lasting(now: WallTime, codes: &[ErrorCode]) {
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    for problem in logged.values_mut().filter(|problem| lasts(&problem.error_code)) {
        if codes.iter().any(|code| code.as_str() == problem.error_code) {
            problem.over_since = None;
        } else {
            problem.over_since.get_or_insert(now);
        }
    }
}

/// Whether a problem keeps a stage from its work until it is over. All others are momentary.
fn lasts(code: &str) -> bool {
    let momentary = [ErrorCode::NotUtf8, ErrorCode::PublishUnanswered];
    let stage = ["VR-2", "VR-3", "VR-4"].iter().any(|begin| code.starts_with(begin));
    (stage && momentary.iter().all(|other| other.as_str() != code)) || code == ErrorCode::LoopStuck.as_str()
}

/// Receives the lines of the log.
pub(super) struct Collector;

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = ProblemLine::default();
        event.record(&mut line);
        if !line.error_code.starts_with("VR-") {
            return;
        }
        metrics::counter!("vodrelay_problems_total", "error_code" => line.error_code.clone()).increment(1);
        let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        let error_code = line.error_code.clone();
        let entry = logged.entry(error_code.clone()).or_insert(LoggedProblem {
            error_code,
            times: 0,
            last: WallTime(0),
            over_since: None,
            message: String::new(),
        });
        entry.times += 1;
        entry.last = WallTime::now();
        entry.over_since = None;
        entry.message = line.text();
    }
}

/// The readable parts of a line.
#[derive(Default)]
struct ProblemLine {
    error_code: String,
    message: String,
    error: String,
}

impl ProblemLine {
    fn text(self) -> String {
        if self.error.is_empty() { self.message } else { format!("{}: {}", self.message, self.error) }
    }
}

impl Visit for ProblemLine {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let to = match field.name() {
            "error_code" => &mut self.error_code,
            "message" => &mut self.message,
            "error" => &mut self.error,
            _ => return,
        };
        *to = format!("{value:?}");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn what_is_told_with_a_code_is_counted_under_it() {
        let log = tracing_subscriber::registry().with(Collector);
        tracing::subscriber::with_default(log, || {
            tracing::warn!(error_code = %vodrelay_core::error_code::ErrorCode::SwitchUnreachable, error = %"one", "unreachable");
            tracing::warn!(error_code = "VR-509", error = %"two", "unreachable");
            tracing::warn!(error_code = "ResourceNotFound", "the cloud's code, not ours");
        });
        let logged: Vec<_> = logged().into_iter().filter(|problem| problem.error_code == "VR-509").collect();
        assert_eq!((logged[0].times, logged[0].message.as_str()), (2, "unreachable: two"));
    }

    #[test]
    fn what_does_not_last_any_more_is_over_since_then() {
        let log = tracing_subscriber::registry().with(Collector);
        let tell = || tracing::warn!(error_code = %ErrorCode::JournalLocked, error = %"held", "down");
        let over = || logged().into_iter().find(|problem| problem.error_code == "VR-205").unwrap().over_since;
        tracing::subscriber::with_default(log, || {
            tell();
            lasting(WallTime(1), &[ErrorCode::JournalLocked]);
            assert_eq!(over(), None);
            lasting(WallTime(2), &[]);
            lasting(WallTime(3), &[ErrorCode::DiskFull]);
            assert_eq!(over(), Some(WallTime(2)));
            tell();
            assert_eq!(over(), None, "it came again");
        });
        assert!(!lasts("VR-506") && !lasts("VR-408") && lasts("VR-401"));
    }
}
