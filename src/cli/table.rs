//! The table of `events list`: its columns, and how they share the width of the screen.

use std::io::{self, Write};

use clap::ValueEnum;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use vodrelay_core::clock::WallTime;

use super::screen::{self, Screen};
use crate::journal::query::EventRow;

/// Digits of a message id that tell events apart in practice.
const SHORT_ID: usize = 8;
/// The widest column on any screen.
const WIDEST: usize = 48;

/// A column of `events list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// When it arrived, in the host's time zone
    Received,
    /// How long after that the broker acked it
    Published,
    /// How long after its arrival the cloud confirmed it
    Confirmed,
    /// received, published, confirmed or parked
    State,
    /// Its EventType
    Type,
    /// The file that it is about
    File,
    /// The task that it is about
    Task,
    /// The beginning of its message id; `events show` takes it
    Id,
    /// Its whole message id
    MessageId,
    /// The journal's number for it; `events release` takes it
    Number,
    /// Its sub-application
    SubApp,
    /// How many publishes of it may have left the relay
    Attempts,
    /// How often the cloud handed it over again
    Redeliveries,
    /// Whether it may be in the queue more than once
    Duplicate,
    /// The code of the last failed publish, or of why it is parked
    ErrorCode,
    /// The same in words
    Message,
}

/// The default columns.
pub(super) const USUAL: &[Column] =
    &[Column::Received, Column::Published, Column::State, Column::Type, Column::File, Column::Id];
/// The columns for parked events, which have one state and were not published.
pub(super) const PARKED: &[Column] =
    &[Column::Received, Column::Number, Column::Type, Column::Id, Column::ErrorCode, Column::Message];
/// All columns.
pub(super) const ALL: &[Column] = &[
    Column::Number,
    Column::State,
    Column::Type,
    Column::SubApp,
    Column::File,
    Column::Task,
    Column::Attempts,
    Column::Redeliveries,
    Column::Received,
    Column::Published,
    Column::Confirmed,
    Column::MessageId,
    Column::Duplicate,
    Column::ErrorCode,
    Column::Message,
];

impl Column {
    fn title(self, zone: &str) -> String {
        match self {
            Self::Received => format!("RECEIVED {zone}"),
            Self::Published => "PUBLISHED".into(),
            Self::Confirmed => "CONFIRMED".into(),
            Self::State => "STATE".into(),
            Self::Type => "TYPE".into(),
            Self::File => "FILE".into(),
            Self::Task => "TASK".into(),
            Self::Id => "ID".into(),
            Self::MessageId => "MESSAGE ID".into(),
            Self::Number => "NUMBER".into(),
            Self::SubApp => "SUB-APP".into(),
            Self::Attempts => "ATTEMPTS".into(),
            Self::Redeliveries => "REDELIVERIES".into(),
            Self::Duplicate => "DUPLICATE".into(),
            Self::ErrorCode => "ERROR CODE".into(),
            Self::Message => "MESSAGE".into(),
        }
    }

    /// The smallest width of the column; `None` when it is never cut.
    fn least(self) -> Option<usize> {
        match self {
            Self::Type | Self::Task => Some(8),
            Self::File => Some(12),
            Self::Message => Some(16),
            _ => None,
        }
    }

    fn cell(self, event: &EventRow, clock: &Clock) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        match self {
            Self::Received => clock.show(event.received_at),
            Self::Published => after(event.received_at, event.published_at),
            Self::Confirmed => after(event.received_at, event.confirmed_at),
            Self::State => event.state.to_string(),
            Self::Type => text(&event.event_type),
            Self::File => text(&event.file_id),
            Self::Task => text(&event.task_id),
            Self::Id => short_id(&event.message_id),
            Self::MessageId => event.message_id.clone(),
            Self::Number => event.id.to_string(),
            Self::SubApp => event.sub_app_id.to_string(),
            Self::Attempts => event.attempts.to_string(),
            Self::Redeliveries => event.redeliveries.to_string(),
            Self::Duplicate => if event.maybe_duplicate { "maybe" } else { "-" }.into(),
            Self::ErrorCode => text(&event.error_code),
            Self::Message => text(&event.message),
        }
    }
}

/// `9f8e7d6c`, and `9f8e7d6c-2` for the second equal event.
fn short_id(message_id: &str) -> String {
    let (digits, occurrence) = match message_id.split_once('-') {
        Some((digits, occurrence)) => (digits, format!("-{occurrence}")),
        None => (message_id, String::new()),
    };
    format!("{}{occurrence}", digits.get(..SHORT_ID).unwrap_or(digits))
}

/// A moment as the time since the arrival.
fn after(received: WallTime, then: Option<WallTime>) -> String {
    let Some(then) = then else { return "-".into() };
    // The wall clock can be set back between the two.
    let ms = then.0.saturating_sub(received.0).max(0);
    let seconds = ms / 1_000;
    match seconds {
        0..10 => format!("+{seconds}.{:03}s", ms % 1_000),
        10..120 => format!("+{seconds}s"),
        120..7_200 => format!("+{}min", seconds / 60),
        7_200..172_800 => format!("+{}h", seconds / 3_600),
        _ => format!("+{}d", seconds / 86_400),
    }
}

/// Local time, as short as the screen needs.
#[derive(Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    year: i16,
    short: bool,
}

impl Clock {
    pub(super) fn new(short: bool) -> Self {
        let now = Zoned::now();
        Self { zone: now.time_zone().clone(), year: now.year(), short }
    }

    #[cfg(test)]
    fn utc(short: bool) -> Self {
        Self { zone: TimeZone::UTC, year: 2023, short }
    }

    fn zone_now(&self) -> String {
        let offset = self.zone.to_offset(Timestamp::now());
        if offset.is_zero() {
            return "UTC".into();
        }
        // `+0800`
        offset.to_string().replace(':', "").chars().take(5).collect()
    }

    fn show(&self, time: WallTime) -> String {
        let timestamp = Timestamp::from_millisecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH);
        let local = timestamp.to_zoned(self.zone.clone());
        let format = match (self.short, local.year() == self.year) {
            (false, _) => "%Y-%m-%d %H:%M:%S",
            (true, true) => "%m-%d %H:%M:%S",
            // The year is more useful than the time of day.
            (true, false) => "%Y-%m-%d",
        };
        local.strftime(format).to_string()
    }
}

/// Lines with the same column widths. Later pages keep the widths of the first.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    screen: Screen,
    clock: Clock,
    widths: Vec<usize>,
    gap: usize,
}

impl Table {
    pub(super) fn new(columns: &[Column], screen: Screen) -> Self {
        let clock = Clock::new(screen.width.is_some_and(|width| width < 100));
        Self::with_clock(columns, screen, clock)
    }

    fn with_clock(columns: &[Column], screen: Screen, clock: Clock) -> Self {
        Self { columns: columns.to_vec(), screen, clock, widths: Vec::new(), gap: 2 }
    }

    pub(super) fn write(&mut self, out: &mut impl Write, page: &[EventRow]) -> io::Result<()> {
        let rows: Vec<Vec<String>> = page
            .iter()
            .map(|event| self.columns.iter().map(|column| column.cell(event, &self.clock)).collect())
            .collect();
        if self.widths.is_empty() && !rows.is_empty() {
            let zone = self.clock.zone_now();
            let titles: Vec<_> = self.columns.iter().map(|column| column.title(&zone)).collect();
            self.lay_out(&titles, &rows);
            self.row(out, &titles)?;
        }
        rows.iter().try_for_each(|row| self.row(out, row))
    }

    fn lay_out(&mut self, titles: &[String], rows: &[Vec<String>]) {
        let cell = |row: &[String], n: usize| screen::width(&screen::cut(&row[n], WIDEST));
        self.widths = (0..self.columns.len())
            .map(|n| rows.iter().map(|row| cell(row, n)).max().unwrap_or(0).max(cell(titles, n)))
            .collect();
        let Some(screen) = self.screen.width else { return };
        let total = |widths: &[usize], gap| widths.iter().sum::<usize>() + gap * (widths.len() - 1);
        if total(&self.widths, self.gap) > screen {
            self.gap = 1;
        }
        while total(&self.widths, self.gap) > screen {
            let can_give = |n: &usize| self.columns[*n].least().is_some_and(|least| self.widths[*n] > least);
            // The column that is furthest above its smallest width.
            let above = |n: &usize| self.widths[*n] - self.columns[*n].least().unwrap_or(0);
            match (0..self.widths.len()).filter(can_give).max_by_key(above) {
                Some(n) => self.widths[n] -= 1,
                None => break,
            }
        }
    }

    fn row(&self, out: &mut impl Write, cells: &[String]) -> io::Result<()> {
        let mut line = String::new();
        for (n, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            let is_last = n + 1 == cells.len();
            let cell = match self.screen.width {
                // The last column gets the rest.
                Some(screen) if is_last => {
                    screen::cut(cell, screen.saturating_sub(screen::width(&line)).max(*width))
                }
                Some(_) => screen::cut(cell, *width),
                None => screen::printable(cell),
            };
            line.push_str(&cell);
            if !is_last {
                let pad = width.saturating_sub(screen::width(&cell)) + self.gap;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        // A screen that is too narrow for all columns.
        writeln!(out, "{}", self.screen.line(line.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::query::EventState;

    fn event(id: i64, text: &str) -> EventRow {
        EventRow {
            id,
            message_id: format!("{}-12", "9f8e7d6c".repeat(4)),
            sub_app_id: u64::MAX,
            event_type: Some(text.into()),
            file_id: Some(text.into()),
            task_id: None,
            state: EventState::Published,
            occurrence: 12,
            redeliveries: 0,
            attempts: 1,
            maybe_duplicate: true,
            error_code: Some("VR-406".into()),
            message: Some(text.into()),
            parked_message: None,
            received_at: WallTime(1_700_000_000_000),
            published_at: Some(WallTime(1_700_000_000_050)),
            confirmed_at: None,
        }
    }

    fn written(columns: &[Column], width: Option<usize>, page: &[EventRow]) -> String {
        let short = width.is_some_and(|width| width < 100);
        let screen = Screen { width, height: None };
        let mut table = Table::with_clock(columns, screen, Clock::utc(short));
        let mut out = Vec::new();
        table.write(&mut out, page).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_usual_columns_fit_a_usual_terminal() {
        let mut usual = event(1, "ProcedureStateChanged");
        usual.message_id = "9f8e7d6c".repeat(4);
        usual.file_id = Some("5285890784246869930".into());
        assert_eq!(
            written(USUAL, Some(80), &[usual.clone()]),
            "\
RECEIVED UTC   PUBLISHED STATE     TYPE             FILE                ID
11-14 22:13:20 +0.050s   published ProcedureStateC… 5285890784246869930 9f8e7d6c
"
        );
        assert_eq!(
            written(USUAL, None, &[usual]),
            "\
RECEIVED UTC         PUBLISHED  STATE      TYPE                   FILE                 ID
2023-11-14 22:13:20  +0.050s    published  ProcedureStateChanged  5285890784246869930  9f8e7d6c
"
        );
    }

    #[test]
    fn whatever_the_cells_hold_no_line_is_wider_than_the_screen() {
        let texts = [
            String::new(),
            "x".repeat(66_000),
            "\u{1b}[2J\0\u{202e}".repeat(5_000),
            "视".repeat(20_000),
            "e\u{301}\u{301}".repeat(9_000),
        ];
        let page: Vec<_> = (0..).zip(&texts).map(|(n, text)| event(i64::MAX - n, text)).collect();
        for columns in [USUAL, PARKED, ALL, &[Column::Message], &[Column::State]] {
            for width in [1, 20, 79, 80, 81, 200] {
                for line in written(columns, Some(width), &page).lines() {
                    assert!(screen::width(line) <= width, "{columns:?} {width}: {line:?}");
                    assert_eq!(line, screen::printable(line));
                }
            }
        }
        let wide = written(ALL, None, &page);
        assert!(wide.contains(&"x".repeat(66_000)), "nothing is cut where there is no screen");
        let narrow = wide.lines().map(screen::width).min().unwrap();
        assert!(narrow < 1_000, "and a long cell makes no other line long: {narrow}");
    }

    #[test]
    fn the_time_after_the_arrival_is_short() {
        let at = |ms| after(WallTime(0), Some(WallTime(ms)));
        for (ms, text) in [
            (-5, "+0.000s"),
            (9_999, "+9.999s"),
            (10_000, "+10s"),
            (120_000, "+2min"),
            (7_200_000, "+2h"),
            (900_000_000, "+10d"),
        ] {
            assert_eq!(at(ms), text);
        }
        assert_eq!(after(WallTime(0), None), "-");
    }
}
