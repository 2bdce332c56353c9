//! The text of a configuration file as TOML, with the lines of its parts. A syntax error leaves the rest readable.

use std::io;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file's text, taken apart. It borrows the text.
pub(super) struct TomlDocument<'a> {
    text: &'a str,
    table: Spanned<DeTable<'a>>,
    /// Syntax errors, by their lines.
    pub(super) errors: Vec<(usize, String)>,
}

/// The text of a file, or the line where it is no text and what is wrong with it. `None` is the file itself.
pub(super) fn text(read: io::Result<Vec<u8>>, other_file: &str) -> Result<String, (Option<usize>, String)> {
    let bytes = read.map_err(|error| {
        let message = format!(
            "cannot be read: {error}; check its path and permissions, or name another file with {other_file}"
        );
        (None, message)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + line_breaks(&error.as_bytes()[..valid]);
        (Some(line), "is not UTF-8; save the file as UTF-8".to_owned())
    })
}

impl<'a> TomlDocument<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let (table, syntax) = DeTable::parse_recoverable(text);
        let mut document = Self { text, table, errors: Vec::new() };
        for error in &syntax {
            // An error at the very end of the text, such as a bracket that never closes, is shown on the last line.
            let offset = error.span().map_or(0, |span| span.start).min(text.trim_end().len());
            let at = document.line(offset);
            // Later errors of a line mostly follow from the first.
            if document.is_damaged(at, at) {
                continue;
            }
            let message = if lacks_quotes(text.lines().nth(at - 1).unwrap_or_default()) {
                "not TOML: text and durations need quotes".to_owned()
            } else {
                let message = error.message().replace('\n', "; ");
                let key = error.span().and_then(|span| text.get(span)).unwrap_or_default();
                if message == "duplicate key" && !key.is_empty() {
                    format!("not TOML: duplicate key {:?}", word(key))
                } else {
                    format!("not TOML: {message}")
                }
            };
            document.errors.push((at, message));
        }
        document
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + line_breaks(&self.text.as_bytes()[..offset])
    }

    /// Whether one of these lines is not even TOML.
    pub(super) fn is_damaged(&self, first: usize, last: usize) -> bool {
        self.errors.iter().any(|(line, _)| (first..=last).contains(line))
    }

    /// The sections and the keys outside of sections, with their lines. A heading that is not TOML leaves its keys
    /// without a section. This is no error of the keys, so they are left out.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, usize, &DeValue<'a>)> {
        self.table.get_ref().iter().filter_map(|(name, content)| {
            let at = self.line(name.span().start);
            let heading =
                self.text.lines().nth(at - 1).is_some_and(|line| line.trim_start().starts_with('['));
            (heading || self.errors.is_empty()).then(|| (name.get_ref().as_ref(), at, content.get_ref()))
        })
    }

    /// The keys of a table, with their lines. The parser continues with invented values for a damaged line. They do not
    /// show what was meant, so they are left out.
    pub(super) fn keys<'d>(
        &'d self,
        table: &'d DeTable<'a>,
    ) -> impl Iterator<Item = (&'d str, usize, &'d DeValue<'a>)> {
        table.iter().filter_map(|(name, value)| {
            let (first, last) = (self.line(name.span().start), self.line(value.span().end));
            (!self.is_damaged(first, last)).then(|| (name.get_ref().as_ref(), first, value.get_ref()))
        })
    }
}

fn line_breaks(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// A name as an error shows it. A text that is not a name may be a value in the wrong place, such as a URL
/// with its password.
pub(super) fn word(name: &str) -> &str {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    if name.chars().all(plain) { name } else { "…" }
}

/// Whether a line looks like `level = info` or `window = 30s`, for which the parser's message is misleading.
fn lacks_quotes(line: &str) -> bool {
    let Some((_, value)) = line.split_once('=') else { return false };
    let value = value.split('#').next().unwrap_or_default().trim();
    value.contains(|c: char| c.is_alphabetic()) && !value.contains(['"', '\'', '[', ']', '{', '}', '='])
}
