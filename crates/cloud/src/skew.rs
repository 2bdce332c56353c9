//! The error of the host's wall clock against the cloud's, and when signatures must correct it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::fmt::rfc2822::DateTimeParser;

/// The cloud accepts time stamps within five minutes ("Signature v3": `AuthFailure.SignatureExpire`). A wrong
/// correction of this size is revised, long before it could be refused.
const TOLERATED_MS: i64 = 30_000;

/// The last measured error, and the correction in use.
///
/// A correction is made only after the cloud refused a time stamp: an answer's `Date` alone may come from a
/// cache.
#[derive(Debug, Default)]
pub(crate) struct Skew(Mutex<SkewState>);

#[derive(Clone, Copy, Debug, Default)]
struct SkewState {
    measured_ms: Option<i64>,
    correction_ms: i64,
}

/// The effect of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkewChange {
    /// Nothing.
    None,
    /// Time stamps are now shifted by this many milliseconds.
    Corrected(i64),
    /// The time stamp was wrong, but another request has corrected it already.
    Known,
    /// The host's clock is right again.
    Lifted,
}

impl Skew {
    /// The cloud's clock minus the host's, in milliseconds, by the last answer that had a date.
    pub(crate) fn measured_ms(&self) -> Option<i64> {
        self.state().measured_ms
    }

    /// The time to sign with, in seconds since the Unix epoch.
    pub(crate) fn timestamp(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(self.state().correction_ms).div_euclid(1_000)
    }

    /// Uses an answer with the date `date_ms` that arrived at `now_ms`.
    pub(crate) fn observe(&self, date_ms: i64, now_ms: i64) -> SkewChange {
        let measured = date_ms.saturating_sub(now_ms);
        let mut state = self.state();
        state.measured_ms = Some(measured);
        if state.correction_ms == 0 || measured.abs_diff(state.correction_ms) <= TOLERATED_MS.unsigned_abs() {
            return SkewChange::None;
        }
        state.set(measured)
    }

    /// Uses a refusal of a time stamp, in an answer with the date `date_ms` that arrived at `now_ms`. Unless
    /// it returns [`SkewChange::None`], the request can be repeated with a better one.
    pub(crate) fn refused(&self, used_timestamp: i64, date_ms: i64, now_ms: i64) -> SkewChange {
        let measured = date_ms.saturating_sub(now_ms);
        let mut state = self.state();
        state.measured_ms = Some(measured);
        // A right time stamp was refused for another reason, and would be refused again.
        if used_timestamp.saturating_mul(1_000).abs_diff(date_ms) <= TOLERATED_MS.unsigned_abs() {
            return SkewChange::None;
        }
        match state.set(measured) {
            SkewChange::None => SkewChange::Known,
            change => change,
        }
    }

    fn state(&self) -> MutexGuard<'_, SkewState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SkewState {
    fn set(&mut self, measured_ms: i64) -> SkewChange {
        let wanted = if measured_ms.abs() <= TOLERATED_MS { 0 } else { measured_ms };
        if wanted.abs_diff(self.correction_ms) <= TOLERATED_MS.unsigned_abs()
            && (wanted == 0) == (self.correction_ms == 0)
        {
            return SkewChange::None;
        }
        self.correction_ms = wanted;
        if wanted == 0 { SkewChange::Lifted } else { SkewChange::Corrected(wanted) }
    }
}

/// The moment of a `Date` header, in milliseconds since the Unix epoch. The header has whole seconds, cut
/// off. The middle of its second is the best guess.
pub(crate) fn parse_date(header: &str) -> Option<i64> {
    let date = DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(date.as_millisecond() + 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_551_113_065_250;
    const TRUE_MS: i64 = 1_551_113_065_500;

    #[test]
    fn dates_are_read_as_http_writes_them() {
        assert_eq!(parse_date("Mon, 25 Feb 2019 16:44:25 GMT"), Some(TRUE_MS));
        assert_eq!(parse_date("yesterday"), None);
        assert_eq!(parse_date(""), None);
    }

    #[test]
    fn a_skew_is_measured_but_not_acted_upon_until_the_cloud_objects() {
        let skew = Skew::default();
        assert_eq!(skew.measured_ms(), None);
        assert_eq!(skew.observe(TRUE_MS + 600_000, NOW), SkewChange::None);
        assert_eq!(skew.measured_ms(), Some(600_250));
        assert_eq!(skew.timestamp(NOW), 1_551_113_065);
        assert_eq!(skew.refused(1_551_113_065, TRUE_MS + 600_000, NOW), SkewChange::Corrected(600_250));
        assert_eq!(skew.timestamp(NOW), 1_551_113_665);
    }

    #[test]
    fn a_refusal_of_a_right_time_stamp_changes_nothing() {
        let skew = Skew::default();
        assert_eq!(skew.refused(1_551_113_065, TRUE_MS, NOW), SkewChange::None);
        assert_eq!(skew.timestamp(NOW), 1_551_113_065);
    }

    #[test]
    fn calls_that_were_refused_together_are_all_repeated() {
        let skew = Skew::default();
        let refused = || skew.refused(1_551_113_065, TRUE_MS - 600_000, NOW);
        assert_eq!((refused(), refused()), (SkewChange::Corrected(-599_750), SkewChange::Known));
    }

    #[test]
    fn a_correction_is_revised_when_the_clock_is_set() {
        let skew = Skew::default();
        skew.refused(1_551_113_065, TRUE_MS + 600_000, NOW);
        assert_eq!(skew.observe(TRUE_MS + 610_000, NOW), SkewChange::None, "small drifts are tolerated");
        assert_eq!(skew.observe(TRUE_MS + 700_000, NOW), SkewChange::Corrected(700_250));
        assert_eq!(skew.observe(TRUE_MS, NOW), SkewChange::Lifted);
        assert_eq!(skew.timestamp(NOW), 1_551_113_065);
        assert_eq!(skew.observe(TRUE_MS, NOW), SkewChange::None);
    }

    #[test]
    fn a_correction_that_the_cloud_refuses_is_lifted_and_the_call_repeated() {
        let skew = Skew::default();
        skew.refused(1_551_113_065, TRUE_MS + 600_000, NOW);
        // The operator set the host's clock: the corrected time stamp is now ten minutes ahead.
        assert_eq!(skew.refused(1_551_113_665, TRUE_MS, NOW), SkewChange::Lifted);
        assert_eq!(skew.timestamp(NOW), 1_551_113_065);
    }
}
