//! `status`: the state of the relay, from the running process, or from the journal when none runs.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::exit::{Exit, Failure};
use super::screen::{Screen, printable, printable_json};
use super::status_screen::for_people;
use crate::config::{Config, environment};
use crate::journal::query::JournalReader;
use crate::ops::status::ask;

/// How often `--watch` asks.
const PERIOD: Duration = Duration::from_secs(1);

/// Show how the running relay stands, or what is in the journal when none runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 every stage is ready, 75 the relay runs and some stage is not, 1 no relay runs.\n\
    Readers of the socket belong to the relay's group: `sudo -u vodrelay vodrelay status` always may."
)]
pub(super) struct Args {
    /// Print the JSON document, on one line
    #[arg(long)]
    json: bool,
    /// Print whole lines and all problems, however much that is
    #[arg(long)]
    wide: bool,
    /// Ask again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(args: &Args, path: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(path, environment())?;
    super::runtime()?.block_on(async {
        loop {
            let (text, exit) = look(&config, args).await?;
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

async fn look(config: &Config, args: &Args) -> Result<(String, Exit), Failure> {
    let json = args.json;
    let screen = if args.wide { Screen::default() } else { Screen::of_stdout() };
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
            return Ok((if json { printable_json(&document) } else { for_people(&parsed, screen) }, exit));
        }
    }
    let counts = JournalReader::open(&config.journal.path).and_then(|reader| reader.count_by_state());
    if json {
        let document = match &counts {
            Ok(counts) => {
                let events: serde_json::Map<_, _> = counts
                    .iter()
                    .map(|(state, events)| (state.name().to_owned(), (*events).into()))
                    .collect();
                serde_json::json!({ "running": false, "journal": events })
            }
            Err(error) => {
                serde_json::json!({ "running": false, "journal": null, "error": error.to_string() })
            }
        };
        return Ok((printable_json(&document.to_string()), Exit::Failure));
    }
    let place = match &config.status.socket {
        Some(socket) => format!("no relay runs here: no answer at {} (status.socket)", socket.display()),
        None => "status.socket is empty: a relay that runs here cannot be asked".to_owned(),
    };
    let journal = match counts {
        Ok(counts) => {
            let events: Vec<String> =
                counts.iter().map(|(state, events)| format!("{events} {state}")).collect();
            format!("in the journal {}: {}", config.journal.path.display(), events.join(", "))
        }
        Err(error) => error.to_string(),
    };
    let lines = [place, journal].map(|line| screen.wrapped_lines(&printable(&line), 2));
    Ok((lines.join("\n"), Exit::Failure))
}
