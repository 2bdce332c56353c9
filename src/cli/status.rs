//! `status`: how the relay stands, asked from the running process, or read from the journal when there is none.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::exit::{Exit, Failure};
use crate::config::{Config, environment};
use crate::journal::query::Reader;
use crate::ops::status::ask;

/// How often `--watch` asks.
const PERIOD: Duration = Duration::from_secs(1);

/// Show how the running relay stands, or what is in the journal when none runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 every leg is ready, 75 the relay runs and some leg is not, 1 no relay runs.\n\
    Readers of the socket belong to the relay's group: `sudo -u vodrelay vodrelay status` always may."
)]
pub(super) struct Args {
    /// Print the JSON document, on one line
    #[arg(long)]
    json: bool,
    /// Ask again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(args: &Args, path: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(path, environment())?;
    super::runtime()?.block_on(async {
        loop {
            let (text, exit) = look(&config, args.json).await?;
            let mut out = io::stdout().lock();
            if args.watch && out.is_terminal() && !args.json {
                // Back to the top, and nothing left of the screen before.
                write!(out, "\x1b[H\x1b[2J").map_err(Failure::stdout)?;
            }
            writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).map_err(Failure::stdout)?;
            drop(out);
            if !args.watch {
                return Ok(exit);
            }
            tokio::time::sleep(PERIOD).await;
        }
    })
}

async fn look(config: &Config, json: bool) -> Result<(String, Exit), Failure> {
    if let Some(socket) = &config.status.socket {
        let asked = ask(socket).await.map_err(|error| {
            let next = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run it as the relay's user, as a member of its group, or as root"
                }
                _ => "try again; if it stays, look at the relay's log",
            };
            Failure::new(Exit::Failure, format!("{}: {error}", socket.display())).next(next)
        })?;
        if let Some(document) = asked {
            let parsed: Value = serde_json::from_str(&document).map_err(|error| {
                Failure::new(Exit::Failure, format!("{} is no relay's socket: {error}", socket.display()))
                    .next("check status.socket")
            })?;
            let exit = if parsed["ready"] == true { Exit::Done } else { Exit::Temporary };
            return Ok((if json { document } else { for_people(&parsed) }, exit));
        }
    }
    let counts = Reader::open(&config.journal.path).and_then(|reader| reader.count_by_state());
    let text = match (&counts, json) {
        (Ok(counts), true) => {
            let events: serde_json::Map<_, _> =
                counts.iter().map(|(state, events)| (state.name().to_owned(), (*events).into())).collect();
            serde_json::json!({ "running": false, "journal": events }).to_string()
        }
        (Err(error), true) => {
            serde_json::json!({ "running": false, "journal": null, "error": error.to_string() }).to_string()
        }
        (Ok(counts), false) => {
            let events: Vec<String> =
                counts.iter().map(|(state, events)| format!("{events} {state}")).collect();
            format!(
                "no relay runs here (it would answer at status.socket)\nin the journal: {}",
                events.join(", ")
            )
        }
        (Err(error), false) => format!("no relay runs here (it would answer at status.socket)\n{error}"),
    };
    Ok((text, Exit::Failure))
}

/// The document in lines.
fn for_people(document: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.chars().flat_map(escaped).collect(),
        Value::Null => "-".to_owned(),
        Value::Number(number) => {
            number.as_f64().filter(|n| n.fract() != 0.0).map_or(number.to_string(), |n| format!("{n:.1}"))
        }
        other => other.to_string(),
    };
    let at = |path: &str| text(document.pointer(path).unwrap_or(&Value::Null));
    let mut lines = vec![
        format!(
            "{}, up {} s, process {}, version {}",
            at("/state"),
            at("/uptime_s"),
            at("/pid"),
            at("/version")
        ),
        String::new(),
        format!("{:<9}{:<11}{:<8}{:>9}  {}", "LEG", "STATE", "CODE", "LAST", "SINCE"),
    ];
    let list = |path: &str| document.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    for leg in list("/legs") {
        let state = if leg["ready"] == true { "ready" } else { "NOT READY" };
        let last = if leg["age_s"].is_null() { "-".to_owned() } else { format!("{} s ago", leg["age_s"]) };
        let row = format!(
            "{:<9}{state:<11}{:<8}{last:>9}  {}",
            text(&leg["leg"]),
            text(&leg["reason"]),
            text(&leg["since"])
        );
        lines.push(row);
        if !leg["words"].is_null() {
            lines.push(format!("         {}", text(&leg["words"])));
        }
    }
    let row = |name: &str, values: &[(&str, &str)]| {
        let values: Vec<String> = values.iter().map(|(name, path)| format!("{} {name}", at(path))).collect();
        format!("{name:<11}{}", values.join(", "))
    };
    lines.extend([
        String::new(),
        row(
            "in flight",
            &[
                ("events", "/in_flight/events"),
                ("handles", "/in_flight/handles"),
                ("polls", "/in_flight/polls"),
            ],
        ),
        row(
            "a second",
            &[
                ("received", "/per_second/received"),
                ("published", "/per_second/published"),
                ("confirmed", "/per_second/confirmed"),
            ],
        ),
        row(
            "this run",
            &[
                ("deliveries", "/totals/deliveries"),
                ("redelivered", "/totals/redelivered"),
                ("published", "/totals/published"),
                ("confirmed", "/totals/confirmed"),
                ("parked", "/totals/parked"),
            ],
        ),
        row(
            "lease",
            &[
                ("s left at the least", "/lease/smallest_left_s"),
                ("s from pull to confirm (p99)", "/lease/pull_to_confirm_p99_s"),
            ],
        ),
        row(
            "journal",
            &[
                ("received", "/journal/received"),
                ("published", "/journal/published"),
                ("confirmed", "/journal/confirmed"),
                ("parked", "/journal/parked"),
                ("bytes", "/journal/bytes"),
            ],
        ),
        format!("{:<11}{}", "oldest", at("/journal/oldest_unconfirmed")),
    ]);
    for (title, path, row) in [
        ("TROUBLES SINCE THE START", "/troubles", ["code", "times", "last", "words"]),
        ("MAINTENANCE", "/maintenance", ["job", "last_result", "last_ended", "next"]),
    ] {
        let rows = list(path);
        if !rows.is_empty() {
            lines.extend([String::new(), title.to_owned()]);
        }
        for one in rows {
            lines.push(row.map(|name| text(&one[name])).join("  "));
        }
    }
    lines.join("\n")
}

/// What a terminal would take for a command is shown, not sent.
fn escaped(c: char) -> Vec<char> {
    if c.is_control() { c.escape_unicode().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_lines_and_no_escape_sequence_gets_through() {
        let document = serde_json::json!({
            "state": "idle", "ready": false, "uptime_s": 5, "pid": 7, "version": "1",
            "legs": [{"leg": "publish", "ready": false, "reason": "VR-401", "words": "no \u{1b}[2J", "since": "t", "age_s": 3}],
            "in_flight": {"events": 2}, "troubles": [{"code": "VR-401", "times": 2, "last": "t", "words": "w"}],
        });
        let text = for_people(&document);
        assert!(text.starts_with("idle, up 5 s, process 7, version 1\n"), "{text}");
        assert!(
            text.contains("publish  NOT READY  VR-401    3 s ago  t\n         no \\u{1b}[2J\n"),
            "{text}"
        );
        assert!(text.contains("in flight  2 events, - handles, - polls\n"), "{text}");
        assert!(text.ends_with("TROUBLES SINCE THE START\nVR-401  2  t  w"), "{text}");
    }
}
