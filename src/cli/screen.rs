//! Text for a terminal: nothing from outside that a terminal would obey, and no line wider than the terminal.

use std::io::{self, IsTerminal};

use terminal_size::terminal_size_of;
use unicode_width::UnicodeWidthChar;

/// The size of a terminal that does not report one.
const USUAL_WIDTH: usize = 80;
const USUAL_HEIGHT: usize = 24;

/// Combining marks that stay on one character. A text can contain any number of them.
const MARKS: usize = 4;

/// The limits of the place where a command's output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns; `None` when no line has to be cut.
    pub width: Option<usize>,
    /// Lines; `None` without a limit.
    pub height: Option<usize>,
}

impl Screen {
    /// The screen of standard output. A file or a pipe has no limits, unless `COLUMNS` in the environment sets one.
    pub fn of_stdout() -> Self {
        let variable = |name| std::env::var(name).ok()?.parse().ok().filter(|value| *value > 0);
        let out = io::stdout();
        if !out.is_terminal() {
            return Self { width: variable("COLUMNS"), height: None };
        }
        let size = terminal_size_of(&out);
        Self {
            width: size.map(|(w, _)| w.0.into()).or_else(|| variable("COLUMNS")).or(Some(USUAL_WIDTH)),
            height: size.map(|(_, h)| h.0.into()).or_else(|| variable("LINES")).or(Some(USUAL_HEIGHT)),
        }
    }

    /// A line that is cut at the screen's width.
    pub fn line(self, text: &str) -> String {
        match self.width {
            Some(width) => cut(text, width),
            None => printable(text),
        }
    }

    /// Printable lines that continue in the next line at the screen's width, behind `indent` spaces.
    pub fn wrapped_lines(self, text: &str, indent: usize) -> String {
        match self.width {
            Some(width) => wrap(text, width, indent),
            None => text.to_owned(),
        }
    }
}

/// Whether a terminal may obey this character, or show the following text in another place or order.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Marks and overrides of the text's direction.
            '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
            // Ends of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // Invisible: two texts that look the same would differ.
            | '\u{AD}' | '\u{180E}' | '\u{200B}' | '\u{2060}'..='\u{2065}' | '\u{206A}'..='\u{206F}' | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// The text with every character visible that a terminal would obey: `\u{1b}` for an escape.
pub fn printable(text: &str) -> String {
    if !text.chars().any(is_hostile) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// JSON with the same meaning, without a character that a terminal would obey. Between the tokens of JSON
/// there are only control characters. All others are in strings, where an escape means the same.
pub fn printable_json(json: &str) -> String {
    if !json.chars().any(is_hostile) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '\t' | '\n' | '\r' => out.push(' '),
            c if is_hostile(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// The width of a printable text in columns.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text, printable and at most `max` columns wide. A cut text ends with `…`.
pub fn cut(text: &str, max: usize) -> String {
    let mut out = String::new();
    let (mut used, mut marks) = (0, 0);
    // The end of the text when the sign for the cut must also fit.
    let mut end = 0;
    for c in text.chars() {
        let before = out.len();
        if is_hostile(c) {
            out.extend(c.escape_unicode());
        } else {
            let wide = c.width().unwrap_or(0);
            marks = if wide == 0 { marks + 1 } else { 0 };
            if marks <= MARKS {
                out.push(c);
            }
        }
        used += width(&out[before..]);
        if used > max {
            out.truncate(end);
            if max > 0 {
                out.push('…');
            }
            return out;
        }
        if used < max {
            end = out.len();
        }
    }
    out
}

/// Breaks a printable line between words, or inside a word that is longer than a line.
fn wrap(text: &str, max: usize, indent: usize) -> String {
    let indent = if indent + 20 > max { 0 } else { indent };
    let mut out = String::with_capacity(text.len() + text.len() / max.max(1) * (indent + 1));
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
        }
        // `used`: columns of this line; `space`: the last possible break, and the columns up to there.
        let (mut used, mut space) = (0, None);
        for c in line.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide > max && used > 0 {
                // A wide character may not fit behind the word that it belongs to.
                let fits = |(_, columns): &(usize, usize)| indent + used - columns + wide <= max;
                let (at, columns) = space.take().filter(fits).unwrap_or((out.len(), used));
                if c == ' ' {
                    out.push('\n');
                    out.extend(std::iter::repeat_n(' ', indent));
                    used = indent;
                    continue;
                }
                let rest = out.split_off(at);
                out.truncate(out.trim_end_matches(' ').len());
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent));
                out.push_str(&rest);
                used = indent + used - columns;
            }
            out.push(c);
            used += wide;
            if c == ' ' && used > indent {
                space = Some((out.len(), used));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}\nc é"), "a\\u{1b}[31mb\\u{9b}\\u{a}c é");
        for c in "\0\u{7f}\u{85}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\u{2028}\u{61c}".chars() {
            assert_eq!(printable(&c.to_string()), c.escape_unicode().to_string());
        }
        assert_eq!(printable("视频 🎬"), "视频 🎬");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let json = "{\"a\":\n \"x\u{7f}\u{9b}\u{202e}\u{e0001}é\",\t\"b\":1.0}";
        let shown = printable_json(json);
        assert_eq!(shown, "{\"a\":  \"x\\u007f\\u009b\\u202e\\udb40\\udc01é\", \"b\":1.0}");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(json), parse(&shown));
    }

    #[test]
    fn a_cut_text_is_as_wide_as_it_may_be_and_says_so() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("abcd", 1), "…");
        assert_eq!(cut("abcd", 0), "");
        assert_eq!(cut("视频视频", 5), "视频…");
        assert_eq!(cut("视频视频", 6), "视频…", "no half of a wide character");
        assert_eq!(cut("a\u{1b}b", 4), "a…", "no half of an escape");
        assert_eq!(cut(&format!("e{}x", "\u{301}".repeat(66_000)), 5), "e\u{301}\u{301}\u{301}\u{301}x");
    }

    #[test]
    fn long_lines_break_between_words_and_long_words_anywhere() {
        let screen = Screen { width: Some(30), height: None };
        let text = "one two three four five six seven eight nine ten";
        assert_eq!(screen.wrapped_lines(text, 4), "one two three four five six\n    seven eight nine ten");
        let long = "x".repeat(70);
        assert_eq!(
            screen.wrapped_lines(&format!("a {long}"), 2),
            format!("a {}\n  {}\n  {}", "x".repeat(28), "x".repeat(28), "x".repeat(14))
        );
        for width in 1..60 {
            let screen = Screen { width: Some(width), height: None };
            for text in [text, "  aaa   bbb  视频视频视频视频视频视频视频视频视频", &long] {
                for line in screen.wrapped_lines(text, 8).lines() {
                    assert!(super::width(line) <= width.max(2), "{width}: {line:?}");
                }
            }
        }
    }
}
