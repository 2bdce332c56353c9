//! The lines of the report, and what they add up to.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use vodrelay_core::error_code::ErrorCode;

use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::{Screen, printable};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum LineStatus {
    Ok,
    Warn,
    Fail,
}

impl LineStatus {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The colour's number in a terminal's escape sequence.
    fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Warn => 33,
            Self::Fail => 31,
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct CheckLine {
    status: LineStatus,
    part: &'static str,
    message: String,
    /// Its name in the catalogue: `docs/runbook.md` has a page for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
    /// Where in the configuration; also in the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl CheckLine {
    fn new(status: LineStatus, exit: Exit, part: &'static str, text: impl Into<String>) -> Self {
        // Text from outside may contain commands to a terminal.
        let message = printable(&text.into().replace(char::is_control, " "));
        Self { status, part, message, error_code: None, place: None, exit }
    }

    /// As required.
    pub(in crate::cli) fn ok(part: &'static str, text: impl Into<String>) -> Self {
        Self::new(LineStatus::Ok, Exit::Done, part, text)
    }

    /// The relay can work with it, but an operator should look at it.
    pub(in crate::cli) fn warn(part: &'static str, text: impl Into<String>) -> Self {
        Self::new(LineStatus::Warn, Exit::Done, part, text)
    }

    /// The configuration, the account or the topology must be changed.
    pub(in crate::cli) fn wrong(part: &'static str, text: impl Into<String>) -> Self {
        Self::new(LineStatus::Fail, Exit::Configuration, part, text)
    }

    /// It is out of reach right now.
    pub(in crate::cli) fn away(part: &'static str, text: impl Into<String>) -> Self {
        Self::new(LineStatus::Fail, Exit::Temporary, part, text)
    }

    /// Names the problem, where it has a name.
    pub(in crate::cli) fn error_code(self, code: impl Into<Option<ErrorCode>>) -> Self {
        Self { error_code: code.into(), ..self }
    }

    /// Names the place in the configuration.
    pub(in crate::cli) fn at(self, place: &str) -> Self {
        Self { place: Some(place.to_owned()), ..self }
    }
}

/// Prints lines as they come, and remembers the worst.
#[derive(Debug)]
pub(in crate::cli) struct CheckReport {
    json: bool,
    colour: bool,
    screen: Screen,
    exit: Exit,
}

impl CheckReport {
    pub(in crate::cli) fn new(json: bool) -> Self {
        // An empty NO_COLOR counts as unset (no-color.org).
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = io::stdout().is_terminal() && !unwanted;
        Self { json, colour, screen: Screen::of_stdout(), exit: Exit::Done }
    }

    /// Prints one line.
    pub(in crate::cli) fn add(&mut self, line: &CheckLine) -> Result<(), Failure> {
        self.exit = worse(self.exit, line.exit);
        let mut out = io::stdout().lock();
        let text = if self.json {
            serde_json::to_string(line).expect("words and strings are always JSON")
        } else {
            shown(line, self.colour, self.screen)
        };
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::stdout)
    }

    /// What all lines add up to.
    pub(in crate::cli) fn exit(&self) -> Exit {
        self.exit
    }
}

/// A problem that needs a change counts more than one that may pass.
fn worse(so_far: Exit, exit: Exit) -> Exit {
    if so_far == Exit::Configuration || exit == Exit::Done { so_far } else { exit }
}

fn shown(line: &CheckLine, colour: bool, screen: Screen) -> String {
    /// The column where the text begins. A line that is too long continues there.
    const INDENT: usize = 19;
    let CheckLine { status, part, message, error_code, .. } = line;
    let word = status.word();
    let code = error_code.map_or(String::new(), |code| format!(" [{code}]"));
    let plain = screen.wrapped_lines(&format!("{word:<4}  {part:<11}  {message}{code}"), INDENT);
    if colour {
        let rest = plain.strip_prefix(word).unwrap_or(&plain);
        format!("\x1b[{}m{word}\x1b[0m{rest}", status.colour())
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_changed_weighs_more_than_what_is_away() {
        let (ok, warn) = (CheckLine::ok("config", ""), CheckLine::warn("clock", ""));
        let (wrong, away) = (CheckLine::wrong("cloud", ""), CheckLine::away("broker", ""));
        let all = |lines: &[&CheckLine]| lines.iter().fold(Exit::Done, |exit, line| worse(exit, line.exit));
        assert_eq!(all(&[]), Exit::Done);
        assert_eq!(all(&[&ok, &warn]), Exit::Done);
        assert_eq!(all(&[&away, &ok, &warn]), Exit::Temporary);
        assert_eq!(all(&[&away, &wrong]), Exit::Configuration);
        assert_eq!(all(&[&wrong, &away]), Exit::Configuration);
    }

    #[test]
    fn lines_are_aligned_and_obeyed_by_no_terminal() {
        let line = CheckLine::warn("clock", "behind\x1b[2J\nby far");
        let screen = Screen::default();
        assert_eq!(shown(&line, false, screen), "warn  clock        behind [2J by far");
        assert_eq!(shown(&line, true, screen), "\x1b[33mwarn\x1b[0m  clock        behind [2J by far");
        assert_eq!(shown(&CheckLine::ok("credentials", "x"), false, screen), "ok    credentials  x");
        let narrow = Screen { width: Some(40), height: None };
        assert_eq!(
            shown(&CheckLine::ok("credentials", "one two three four five"), true, narrow),
            "\x1b[32mok\x1b[0m    credentials  one two three four\n                   five"
        );
    }

    #[test]
    fn json_names_the_place_where_there_is_one() {
        let json = |line: &CheckLine| serde_json::to_string(line).unwrap();
        assert_eq!(json(&CheckLine::ok("clock", "x")), r#"{"status":"ok","part":"clock","message":"x"}"#);
        assert_eq!(
            json(&CheckLine::wrong("config", "a:1: x").at("a:1").error_code(ErrorCode::ConfigurationWrong)),
            r#"{"status":"fail","part":"config","message":"a:1: x","error_code":"VR-101","place":"a:1"}"#
        );
    }
}
