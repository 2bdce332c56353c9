//! The latest time that an event names.
//!
//! Fingerprints are scattered: in an index by them alone, each new event would write a page of its own. The
//! time makes events that happen together neighbours. It is read from the canonical form, so equal events
//! have equal times. Its meaning does not matter. But the way of reading must never change, because journals
//! are searched by it.

use memchr::memmem;

/// A time to the second, as a number that grows with the time. 0 when the event names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LatestTime(pub u32);

/// A string's start, up to its `T`. The API's documents show the years 0000 and 9999 for missing times.
const DATE: &[u8; 11] = b"\"20dd-dd-dd";
/// What follows it.
const TIME: &[u8; 8] = b"dd:dd:dd";

impl LatestTime {
    /// The latest of all strings that begin with a date and a time in the form of ISO 8601. Its offset is
    /// ignored.
    pub(super) fn of(canonical: &[u8]) -> Self {
        let times = memmem::find_iter(canonical, &DATE[..3]).filter_map(|at| {
            let (date, rest) = canonical[at..].split_first_chunk()?;
            let time = rest.strip_prefix(b"T")?.first_chunk()?;
            (has_form(date, DATE) && has_form(time, TIME)).then(|| number(date, time))
        });
        times.max().unwrap_or_default()
    }
}

/// Whether the text has this form, with a digit for each `d`.
fn has_form<const N: usize>(text: &[u8; N], form: &[u8; N]) -> bool {
    text.iter().zip(form).all(|(byte, form)| if *form == b'd' { byte.is_ascii_digit() } else { byte == form })
}

/// Months of 32 days and years of 13 months: each real time has its own number, and no digits exceed 32 bits.
fn number(date: &[u8; 11], time: &[u8; 8]) -> LatestTime {
    let two = |tens: u8, ones: u8| u32::from(tens - b'0') * 10 + u32::from(ones - b'0');
    let parts = [
        (100, two(date[3], date[4])),
        (13, two(date[6], date[7])),
        (32, two(date[9], date[10])),
        (24, two(time[0], time[1])),
        (60, two(time[3], time[4])),
        (60, two(time[6], time[7])),
    ];
    LatestTime(parts.iter().fold(0, |number, (base, part)| number * base + part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> u32 {
        LatestTime::of(json.as_bytes()).0
    }

    #[test]
    fn the_latest_of_the_times_counts_wherever_it_stands() {
        let (begun, done) = (r#""2026-11-20T16:29:17Z""#, r#""2026-11-20T16:29:18.125+08:00""#);
        let late = of(&format!("[{done}]"));
        assert!(0 < of(&format!("[{begun}]")) && of(&format!("[{begun}]")) < late);
        assert_eq!(of(&format!(r#"{{"A":{{"B":{done}}},"C":{begun}}}"#)), late);
        assert_eq!(of(&format!(r#"{{"A":[{begun},{done},"T"]}}"#)), late);
    }

    #[test]
    fn what_stands_for_no_time_is_none() {
        for json in [
            "",
            "T",
            r#""T""#,
            r#""0000-00-00T00:00:00Z""#,
            r#""9999-12-31T23:59:59Z""#,
            r#""1970-01-01T00:00:00Z""#,
            r#""2026-11-20 16:29:17""#,
            r#""at 2026-11-20T16:29:17Z""#,
            r#""2026-11-20T16:29:1"#,
            r#"26-11-20T16:29:17Z"#,
        ] {
            assert_eq!(of(json), 0, "{json}");
        }
    }

    #[test]
    fn later_times_have_larger_numbers() {
        let times = [
            "2000-01-01T00:00:00",
            "2019-12-31T23:59:59",
            "2020-01-01T00:00:00",
            "2020-01-31T23:59:60",
            "2020-02-01T00:00:00",
            "2020-02-01T00:01:00",
            "2099-12-31T23:59:59",
            "2099-99-99T99:99:99",
        ]
        .map(|time| of(&format!("\"{time}\"")));
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    }

    #[test]
    fn journals_that_exist_are_searched_by_these_numbers() {
        assert_eq!(of(r#""2026-11-20T16:29:17Z""#), 966_702_557);
    }
}
