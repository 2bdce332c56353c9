//! What the signature server counts.

use metrics::{Unit, counter, describe_counter, describe_gauge};

use crate::ops::metrics::MetricKind;

/// The metrics of this server, with their meanings. Those of the process itself, `vodrelay_build_info`, `vodrelay_problems_total`,
/// `vodrelay_reloads_total` and `vodrelay_log_lines_dropped_total` are as the relay has them.
pub const METRICS: &[(&str, MetricKind, &str)] = &[(
    "vodrelay_signature_requests_total",
    MetricKind::Counter,
    "Requests for upload signatures by caller and verdict",
)];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestVerdict {
    Granted,
    Refused,
    Invalid,
    Unauthenticated,
    Limited,
    Failed,
}

impl RequestVerdict {
    /// Those of a request whose caller is known.
    const OF_CALLERS: [Self; 5] = [Self::Granted, Self::Refused, Self::Invalid, Self::Limited, Self::Failed];
    /// Those of any other.
    const OF_NOBODY: [Self; 2] = [Self::Unauthenticated, Self::Limited];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

/// The caller of a request that no caller was found for.
pub(super) const NO_CALLER: &str = "";

/// Says what each metric means.
pub fn describe() {
    for (name, kind, meaning) in METRICS {
        match kind {
            MetricKind::Counter => describe_counter!(*name, Unit::Count, *meaning),
            MetricKind::Gauge | MetricKind::Histogram => describe_gauge!(*name, Unit::Count, *meaning),
        }
    }
}

/// Makes the series of a caller, so that a first event is seen as an increase.
pub(super) fn expect(caller: &str) {
    let verdicts =
        if caller == NO_CALLER { &RequestVerdict::OF_NOBODY[..] } else { &RequestVerdict::OF_CALLERS };
    for verdict in verdicts {
        counted(caller, *verdict).increment(0);
    }
}

pub(super) fn count(caller: &str, verdict: RequestVerdict) {
    counted(caller, verdict).increment(1);
}

fn counted(caller: &str, verdict: RequestVerdict) -> metrics::Counter {
    counter!("vodrelay_signature_requests_total", "caller" => caller.to_owned(), "verdict" => verdict.name())
}
