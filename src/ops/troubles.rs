//! The last troubles, by code: every warning and error that the log has with a `code` is counted here, so that the metrics and
//! `status` name the same troubles as the log without a word in each place that tells one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::clock::WallTime;
use crate::reason::Reason;

/// A trouble that was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its code.
    pub code: String,
    /// How often since the start.
    pub times: u64,
    /// When it was told last.
    pub last: WallTime,
    /// Since when it is over. Absent while it lasts, and for what happens in a moment and does not last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_since: Option<WallTime>,
    /// The line that told it last.
    pub words: String,
}

static TOLD: Mutex<BTreeMap<String, Told>> = Mutex::new(BTreeMap::new());

/// The troubles told since the start, in the order of their codes.
pub fn told() -> Vec<Told> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

/// Says which troubles last now, so that it is known since when the others are over.
pub fn lasting(now: WallTime, reasons: &[Reason]) {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    for trouble in told.values_mut().filter(|trouble| lasts(&trouble.code)) {
        if reasons.iter().any(|reason| reason.code() == trouble.code) {
            trouble.over_since = None;
        } else {
            trouble.over_since.get_or_insert(now);
        }
    }
}

/// Whether a trouble keeps a stage from its work until it is over. All others are events.
fn lasts(code: &str) -> bool {
    let momentary = [Reason::NotUtf8, Reason::PublishUnanswered];
    let stage = ["VR-2", "VR-3", "VR-4"].iter().any(|begin| code.starts_with(begin));
    (stage && momentary.iter().all(|reason| reason.code() != code)) || code == Reason::LoopStuck.code()
}

/// Listens to the log.
pub(super) struct Collector;

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if !line.code.starts_with("VR-") {
            return;
        }
        metrics::counter!("vodrelay_troubles_total", "reason" => line.code.clone()).increment(1);
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        let code = line.code.clone();
        let entry = told.entry(code.clone()).or_insert(Told {
            code,
            times: 0,
            last: WallTime(0),
            over_since: None,
            words: String::new(),
        });
        entry.times += 1;
        entry.last = WallTime::now();
        entry.over_since = None;
        entry.words = line.words();
    }
}

/// The parts of a line that people read.
#[derive(Default)]
struct Line {
    code: String,
    message: String,
    why: String,
}

impl Line {
    fn words(self) -> String {
        if self.why.is_empty() { self.message } else { format!("{}: {}", self.message, self.why) }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let to = match field.name() {
            "code" => &mut self.code,
            "message" => &mut self.message,
            "reason" | "error" => &mut self.why,
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
            tracing::warn!(code = %crate::reason::Reason::SwitchUnreachable, reason = %"one", "unreachable");
            tracing::warn!(code = "VR-509", error = %"two", "unreachable");
            tracing::warn!(code = "ResourceNotFound", "the cloud's code, not ours");
        });
        let told: Vec<_> = told().into_iter().filter(|told| told.code == "VR-509").collect();
        assert_eq!((told[0].times, told[0].words.as_str()), (2, "unreachable: two"));
    }

    #[test]
    fn what_does_not_last_any_more_is_over_since_then() {
        let log = tracing_subscriber::registry().with(Collector);
        let tell = || tracing::warn!(code = %Reason::JournalLocked, reason = %"held", "down");
        let over = || told().into_iter().find(|told| told.code == "VR-205").unwrap().over_since;
        tracing::subscriber::with_default(log, || {
            tell();
            lasting(WallTime(1), &[Reason::JournalLocked]);
            assert_eq!(over(), None);
            lasting(WallTime(2), &[]);
            lasting(WallTime(3), &[Reason::DiskFull]);
            assert_eq!(over(), Some(WallTime(2)));
            tell();
            assert_eq!(over(), None, "it came again");
        });
        assert!(!lasts("VR-506") && !lasts("VR-408") && lasts("VR-401"));
    }
}
