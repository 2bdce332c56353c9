//! Schedules: cron expressions with seconds, in UTC.

use std::fmt;

use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds};
use vodrelay_core::clock::WallTime;

use crate::clock::Now as _;

/// An expression of six fields: second, minute, hour, day of the month, month, day of the week. A seventh, for the year, may
/// follow.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
}

/// Why a text is not an expression, in words that continue the name of its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

impl Cron {
    /// Reads an expression by the rules of the scheduler.
    ///
    /// # Errors
    ///
    /// [`CronError`] for a text that is not one, and for one without a future time.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let text = text.trim();
        let fields = text.split_whitespace().count();
        if !(6..=7).contains(&fields) {
            return Err(CronError(format!("must have six fields, not {fields}")));
        }
        // For impossible characters the parser's message is useless: it repeats some of them.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == ' ' || "*/,-?#+".contains(c);
        if !text.chars().all(plain) {
            return Err(CronError("is not a cron expression".to_owned()));
        }
        let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
        let pattern = parser.parse(text).map_err(|error| {
            CronError(format!("is not a cron expression ({})", error.to_string().trim_end_matches('.')))
        })?;
        let cron = Self { text: text.to_owned(), pattern };
        match cron.next_after(WallTime::now()) {
            Some(_) => Ok(cron),
            None => Err(CronError("names no future time".to_owned())),
        }
    }

    /// The first time after `moment`; `None` when there is none.
    pub fn next_after(&self, moment: WallTime) -> Option<WallTime> {
        // Whole seconds: the search would carry a fraction into its result.
        let moment: DateTime<Utc> = DateTime::from_timestamp(moment.0.div_euclid(1_000), 0)?;
        let next = self.pattern.find_next_occurrence(&moment, false).ok()?;
        Some(WallTime(next.timestamp_millis()))
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> WallTime {
        WallTime(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
    }

    #[test]
    fn the_next_time_is_the_first_one_after_the_moment_in_utc() {
        let nightly = Cron::parse("0 30 3 * * *").unwrap();
        assert_eq!(nightly.next_after(at("2026-11-20T03:29:59.999Z")), Some(at("2026-11-20T03:30:00Z")));
        assert_eq!(nightly.next_after(at("2026-11-20T03:30:00Z")), Some(at("2026-11-21T03:30:00Z")));
        let sundays = Cron::parse(" 0 0 0 * * SUN ").unwrap();
        assert_eq!(sundays.next_after(at("2026-11-20T12:00:00Z")), Some(at("2026-11-22T00:00:00Z")));
        assert_eq!(sundays.as_str(), "0 0 0 * * SUN");
    }

    #[test]
    fn what_rings_never_is_refused() {
        for (text, words) in [
            ("", "must have six fields, not 0"),
            ("17 * * * *", "must have six fields, not 5"),
            ("@daily", "must have six fields, not 1"),
            ("0 0 0 * * a@b", "is not a cron expression"),
            ("0 61 * * * *", "is not a cron expression ("),
            ("0 0 x * * *", "is not a cron expression ("),
            ("0 0 0 30 2 *", "names no future time"),
            ("0 0 0 1 1 * 2020", "names no future time"),
        ] {
            let error = Cron::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(words) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
