//! Times as people type them: in the form of journalctl in the host's time zone, or RFC 3339.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use vodrelay_core::clock::WallTime;

/// What `--help` says of a time.
pub(super) const TIMES: &str = "a time is 2026-01-31, \"2026-01-31 08:00\", 08:00, today, yesterday, now, 2h (ago), all in the host's time zone, or \
     2026-01-31T08:00:00Z";

/// Reads a time.
pub(super) fn time(text: &str) -> Result<WallTime, String> {
    at(text.trim(), &Zoned::now()).map(|time| WallTime(time.as_millisecond())).ok_or_else(|| TIMES.to_owned())
}

fn at(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let zone = now.time_zone();
    let midnight = |days: i64| now.checked_add(jiff::Span::new().days(days)).ok()?.start_of_day().ok();
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return midnight(0).map(|day| day.timestamp()),
        "yesterday" => return midnight(-1).map(|day| day.timestamp()),
        "tomorrow" => return midnight(1).map(|day| day.timestamp()),
        _ => {}
    }
    if let Some(age) = age(text) {
        return now.timestamp().checked_sub(age).ok();
    }
    let (text, zone) = match text.strip_suffix(" UTC") {
        Some(text) => (text, &TimeZone::UTC),
        None => (text, zone),
    };
    let local = match text.parse::<DateTime>() {
        Ok(local) => local,
        // A number alone would be an hour.
        Err(_) if text.contains(':') => {
            now.with_time_zone(zone.clone()).date().to_datetime(text.parse::<Time>().ok()?)
        }
        Err(_) => return None,
    };
    local.to_zoned(zone.clone()).ok().map(|time| time.timestamp())
}

/// An age: `2h`, `-2h`, `2h ago`, and `+2h` for the future.
fn age(text: &str) -> Option<SignedDuration> {
    let (text, ahead) = match (text.strip_prefix('+'), text.strip_prefix('-'), text.strip_suffix(" ago")) {
        (Some(text), ..) => (text, true),
        (_, Some(text), _) | (_, _, Some(text)) => (text, false),
        _ => (text, false),
    };
    let age = SignedDuration::try_from(Duration::from(text.parse::<humantime::Duration>().ok()?)).ok()?;
    Some(if ahead { -age } else { age })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_journalctl_reads_them() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let now = "2026-01-31T08:30:00Z".parse::<Timestamp>().unwrap().to_zoned(zone);
        for (text, expected) in [
            ("2019-02-25T16:44:25.007Z", "2019-02-25T16:44:25.007Z"),
            ("2019-02-26T00:44:25+08:00", "2019-02-25T16:44:25Z"),
            ("2019-02-26T00:44:25", "2019-02-25T16:44:25Z"),
            ("2019-02-26 00:44:25", "2019-02-25T16:44:25Z"),
            ("2019-02-26 00:44", "2019-02-25T16:44:00Z"),
            ("2019-02-26 00:44 UTC", "2019-02-26T00:44:00Z"),
            ("2019-02-26", "2019-02-25T16:00:00Z"),
            ("2019-02-26 UTC", "2019-02-26T00:00:00Z"),
            ("07:15", "2026-01-30T23:15:00Z"),
            ("07:15:30", "2026-01-30T23:15:30Z"),
            ("today", "2026-01-30T16:00:00Z"),
            ("yesterday", "2026-01-29T16:00:00Z"),
            ("tomorrow", "2026-01-31T16:00:00Z"),
            ("now", "2026-01-31T08:30:00Z"),
            ("2h", "2026-01-31T06:30:00Z"),
            ("-2h", "2026-01-31T06:30:00Z"),
            ("2h ago", "2026-01-31T06:30:00Z"),
            ("+90m", "2026-01-31T10:00:00Z"),
            ("3days 1h", "2026-01-28T07:30:00Z"),
        ] {
            assert_eq!(at(text, &now), Some(expected.parse().unwrap()), "{text}");
        }
        for wrong in ["", "17", "sometime", "2019-02-30", "25:00", "2h from now", "-+2h", "9999999999years"] {
            assert_eq!(at(wrong, &now), None, "{wrong}");
        }
        assert!(time("sometime").unwrap_err().contains("yesterday"));
    }
}
