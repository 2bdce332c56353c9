//! `events list` and `events show`: the events of the journal, with or without a running relay.

use std::io::{self, Write};
use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use serde_json::value::RawValue;
use tencent_vod_event::SubAppId;
use vodrelay_core::clock::WallTime;

use super::exit::{Exit, Failure};
use super::screen::{self, Screen, printable};
pub use super::table::Column;
use super::table::{self, Table};
use super::{release, when};
use crate::config::{Config, environment};
use crate::journal::query::{
    DeliveryRow, EventRow, EventState, Filter, JournalReader, QueryError, ShownEvent,
};

/// Events that are read and laid out together.
const PAGE: u32 = 200;
/// Levels of indent. Deeper levels look like the last one.
const DEEPEST_INDENT: usize = 40;

/// Look at the events in the journal
#[derive(Debug, clap::Subcommand)]
pub(super) enum EventsCommand {
    /// List events, the newest first
    List(ListArgs),
    /// Show one event with its deliveries and its body
    Show(ShowArgs),
    /// Let parked events be published again, after their cause was mended; the relay must be stopped
    Release(release::Args),
}

pub(super) fn run(command: &EventsCommand, config: Option<&Path>) -> Result<Exit, Failure> {
    let path = Config::load(config, environment())?.journal.path;
    let mut out = io::stdout().lock();
    match command {
        EventsCommand::List(args) => {
            let listed = list(&path, args, Screen::of_stdout(), &mut out)?;
            // Standard error may be closed; then there is no reader.
            if listed.more && !args.json {
                let _ = writeln!(io::stderr(), "there are more; --limit shows more of them");
            }
            if listed.events == 0 {
                let _ = writeln!(io::stderr(), "no event matches");
            }
        }
        EventsCommand::Show(args) => show(&path, args, Screen::of_stdout(), &mut out)?,
        EventsCommand::Release(args) => {
            drop(out);
            return release::run(args, &path);
        }
    }
    Ok(Exit::Done)
}

/// What `events list` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Only events in this state
    #[arg(long, value_parser = states())]
    pub state: Option<EventState>,
    /// Only events of this EventType
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Only events of this sub-application; 0 is the default application
    #[arg(long, value_name = "ID")]
    pub sub_app: Option<u64>,
    /// Only events about this file
    #[arg(long, value_name = "ID")]
    pub file_id: Option<String>,
    /// Only events about this task
    #[arg(long, value_name = "ID")]
    pub task_id: Option<String>,
    /// Only events that may be in the queue more than once
    #[arg(long)]
    pub maybe_duplicate: bool,
    /// Only events received then or later: 2026-01-31, "2026-01-31 08:00", 08:00, today, yesterday, 2h ago
    #[arg(long, value_name = "TIME", value_parser = when::time, allow_hyphen_values = true)]
    pub since: Option<WallTime>,
    /// Only events received then or earlier
    #[arg(long, value_name = "TIME", value_parser = when::time, allow_hyphen_values = true)]
    pub until: Option<WallTime>,
    /// At most this many events, the newest ones
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u64,
    /// Print all columns, and whole cells, however wide that is
    #[arg(long, conflicts_with = "json")]
    pub wide: bool,
    /// Print these columns
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', conflicts_with = "json")]
    pub columns: Vec<Column>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// What `events show` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The event's number, its message id, or the beginning of that
    #[arg(value_name = "ID|MESSAGE_ID")]
    pub id: String,
    /// Print one JSON object, with each token of the body as the cloud sent it
    #[arg(long)]
    pub json: bool,
}

/// Why nothing, or not everything, was printed.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The journal cannot answer.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Standard output is gone.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

impl From<EventsError> for Failure {
    fn from(error: EventsError) -> Self {
        match error {
            EventsError::Query(error) => {
                let (exit, error_code) = match &error {
                    QueryError::Disk { error_code, .. } => (Exit::Temporary, Some(*error_code)),
                    _ => (Exit::Failure, None),
                };
                Self::new(exit, error).error_code(error_code)
            }
            EventsError::Output(error) => Self::stdout(error),
        }
    }
}

/// How many events were printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a person should be told when there is more"]
pub struct Listed {
    /// Events printed.
    pub events: u64,
    /// Whether the limit held further events back.
    pub more: bool,
}

/// Prints the events that match, newest first.
///
/// # Errors
///
/// [`EventsError`].
pub fn list(
    journal_path: &Path,
    args: &ListArgs,
    screen: Screen,
    out: &mut impl Write,
) -> Result<Listed, EventsError> {
    let reader = JournalReader::open(journal_path)?;
    let filter = Filter {
        state: args.state,
        event_type: args.event_type.clone(),
        sub_app: args.sub_app.map(SubAppId),
        file_id: args.file_id.clone(),
        task_id: args.task_id.clone(),
        maybe_duplicate: args.maybe_duplicate,
        since: args.since,
        until: args.until,
    };
    let mut listed = Listed { events: 0, more: false };
    let columns = match (args.columns.as_slice(), args.state) {
        ([], _) if args.wide => table::ALL,
        ([], Some(EventState::Parked)) => table::PARKED,
        ([], _) => table::USUAL,
        (named, _) => named,
    };
    let mut table = Table::new(columns, if args.wide { Screen::default() } else { screen });
    let mut before = None;
    loop {
        let left = args.limit - listed.events;
        let wanted = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        // One more than requested shows whether there are more.
        let mut page = reader.list(&filter, before, wanted + 1)?;
        listed.more = page.len() > wanted as usize;
        page.truncate(wanted as usize);
        if args.json {
            for event in &page {
                write_json(out, event)?;
            }
        } else {
            table.write(out, &page)?;
        }
        listed.events += page.len() as u64;
        before = page.last().map(EventRow::cursor);
        if !listed.more || listed.events >= args.limit {
            out.flush()?;
            return Ok(listed);
        }
    }
}

/// Prints one event with its deliveries and its body.
///
/// # Errors
///
/// [`EventsError`].
pub fn show(
    journal_path: &Path,
    args: &ShowArgs,
    screen: Screen,
    out: &mut impl Write,
) -> Result<(), EventsError> {
    let shown = JournalReader::open(journal_path)?.show(&args.id)?;
    if args.json {
        show_json(&shown, out)?
    } else {
        out.write_all(screen.wrapped_lines(&show_people(&shown), 4).as_bytes())?
    }
    Ok(out.flush()?)
}

fn show_json(shown: &ShownEvent, out: &mut impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Object<'a> {
        #[serde(flatten)]
        event: &'a EventRow,
        fingerprint: &'a str,
        deliveries: &'a [DeliveryRow],
        body: &'a RawValue,
    }
    // Raw: a parsed body would lose digits, order and repeated keys. Bytes that are not UTF-8 cannot stand in
    // JSON.
    let body = String::from_utf8_lossy(&shown.body);
    let body = serde_json::from_str(&body)?;
    write_json(
        out,
        &Object { event: &shown.event, fingerprint: &shown.fingerprint, deliveries: &shown.deliveries, body },
    )
}

fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", screen::printable_json(&serde_json::to_string(value)?))
}

/// The event in lines, each of them printable.
fn show_people(shown: &ShownEvent) -> String {
    let event = &shown.event;
    let text = |value: &Option<String>| value.as_deref().map_or_else(|| "-".into(), printable);
    let time = |value: Option<WallTime>| value.map_or_else(|| "-".into(), |t| t.to_string());
    let duplicate = if event.maybe_duplicate {
        "yes: a publish may have reached the broker without an ack"
    } else {
        "no"
    };
    // A parked event has this in the line above.
    let was_parked = match event.state {
        EventState::Parked => "-".to_owned(),
        _ => text(&event.parked_message),
    };
    let facts = [
        ("event", event.id.to_string()),
        ("message id", event.message_id.clone()),
        ("fingerprint", shown.fingerprint.clone()),
        ("occurrence", event.occurrence.to_string()),
        ("sub-application", event.sub_app_id.to_string()),
        ("type", text(&event.event_type)),
        ("file", text(&event.file_id)),
        ("task", text(&event.task_id)),
        ("state", event.state.to_string()),
        ("error code", text(&event.error_code)),
        ("message", text(&event.message)),
        ("was parked", was_parked),
        ("attempts", event.attempts.to_string()),
        ("redeliveries", event.redeliveries.to_string()),
        ("maybe duplicate", duplicate.to_owned()),
        ("received", event.received_at.to_string()),
        ("published", time(event.published_at)),
        ("confirmed", time(event.confirmed_at)),
    ];
    let mut lines: Vec<String> = facts.map(|(name, value)| format!("{name:<16}{value}")).into();
    lines.extend([String::new(), "deliveries".to_owned()]);
    lines.extend(shown.deliveries.iter().map(|delivery| {
        format!(
            "  {}  until {}  {}\n    handle {}\n    request {}",
            delivery.pulled_at,
            delivery.lease_until,
            delivery.outcome,
            text(&delivery.handle),
            printable(&delivery.request_id),
        )
    }));
    lines.extend([String::new(), "body".to_owned()]);
    lines.extend(indented(&String::from_utf8_lossy(&shown.body)).split('\n').map(printable));
    lines.push(String::new());
    lines.join("\n")
}

/// JSON with line breaks and indents. Every token stays as it was.
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut tokens = json.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        // Text can nest as deep as it is long. An indent for each level would take quadratic space.
        out.extend(std::iter::repeat_n("  ", depth.min(DEEPEST_INDENT)));
    };
    while let Some(c) = tokens.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = tokens.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(tokens.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                out.push(c);
                while tokens.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = tokens.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

fn states() -> impl TypedValueParser<Value = EventState> {
    PossibleValuesParser::new(EventState::ALL.map(EventState::name))
        .try_map(|name| name.parse::<EventState>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_changes_white_space_only() {
        let raw = r#"{"a":[1.0,{"b":"x, \"y\": {"}],"e":{ },"n":12345678901234567890123, "f":[]}"#;
        let expected = "{\n  \"a\": [\n    1.0,\n    {\n      \"b\": \"x, \\\"y\\\": {\"\n    }\n  ],\n  \"e\": {},\n  \"n\": 12345678901234567890123,\n  \"f\": []\n}";
        assert_eq!(indented(raw), expected);
        for odd in ["null", "]", "{", "\"\\", "", "[[[["] {
            indented(odd);
        }
    }
}
