//! The routing key of an event: a template from the configuration that the output fills.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use tencent_vod_event::Event;

/// AMQP 0-9-1 has one byte for the length of a short string. Routing keys and most properties are short
/// strings.
pub const SHORT_STRING_MAX_BYTES: usize = 255;

/// The placeholders of a template, without their braces.
pub const PLACEHOLDERS: [&str; 4] = ["sub_app_id", "event_type", "file_id", "task_id"];

/// Why a text is not a routing key template. The words follow the name of its key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// An empty template.
    #[error("must not be empty; the default is \"vod.{{sub_app_id}}.{{event_type}}\"")]
    Empty,
    /// An unknown placeholder.
    #[error(
        "has the unknown placeholder {{{0}}}; known are {{sub_app_id}}, {{event_type}}, {{file_id}}, {{task_id}}"
    )]
    UnknownPlaceholder(String),
    /// A brace without its partner.
    #[error("has a brace without its partner; placeholders look like {{event_type}}")]
    LoneBrace(usize),
    /// Characters that no routing key can contain.
    #[error("has a control character; remove it")]
    ControlCharacter(usize),
    /// No space for the data.
    #[error("has {0} bytes of fixed text, and a whole key has 255 at most; shorten it")]
    TooLong(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    SubAppId,
    EventType,
    FileId,
    TaskId,
}

/// The template of routing keys, such as `vod.{sub_app_id}.{event_type}`.
///
/// Every part from data is confined: everything but ASCII letters, digits, `_` and `-` becomes `_`. So data
/// cannot add a level to the key. A missing type is `unknown`, another missing part is `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingKeyTemplate {
    pieces: Vec<Piece>,
}

impl Default for RoutingKeyTemplate {
    fn default() -> Self {
        let text = |text: &str| Piece::Text(text.to_owned());
        Self { pieces: vec![text("vod."), Piece::SubAppId, text("."), Piece::EventType] }
    }
}

impl FromStr for RoutingKeyTemplate {
    type Err = TemplateError;

    fn from_str(template: &str) -> Result<Self, TemplateError> {
        if template.is_empty() {
            return Err(TemplateError::Empty);
        }
        if let Some(at) = template.find(char::is_control) {
            return Err(TemplateError::ControlCharacter(at));
        }
        let mut pieces = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            let at = template.len() - rest.len();
            let Some(brace) = rest.find(['{', '}']) else {
                pieces.push(Piece::Text(rest.to_owned()));
                break;
            };
            if brace > 0 {
                pieces.push(Piece::Text(rest[..brace].to_owned()));
            }
            let (name, after) = rest[brace..]
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .filter(|(name, _)| !name.contains('{'))
                .ok_or(TemplateError::LoneBrace(at + brace))?;
            pieces.push(match name {
                "sub_app_id" => Piece::SubAppId,
                "event_type" => Piece::EventType,
                "file_id" => Piece::FileId,
                "task_id" => Piece::TaskId,
                other => return Err(TemplateError::UnknownPlaceholder(other.to_owned())),
            });
            rest = after;
        }
        let template = Self { pieces };
        let fixed: usize = template.texts().map(str::len).sum();
        if fixed > SHORT_STRING_MAX_BYTES { Err(TemplateError::TooLong(fixed)) } else { Ok(template) }
    }
}

impl fmt::Display for RoutingKeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            f.write_str(match piece {
                Piece::Text(text) => text,
                Piece::SubAppId => "{sub_app_id}",
                Piece::EventType => "{event_type}",
                Piece::FileId => "{file_id}",
                Piece::TaskId => "{task_id}",
            })?;
        }
        Ok(())
    }
}

impl RoutingKeyTemplate {
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The routing key of `event`, of at most 255 bytes. Where the data is too long, its longest parts are
    /// cut and the fixed text is not: a key has the levels of its template, whatever the data contains.
    pub fn key(&self, event: &Event) -> String {
        let key = self.filled(event, usize::MAX);
        if key.len() <= SHORT_STRING_MAX_BYTES {
            return key;
        }
        let fixed: usize = self.texts().map(str::len).sum();
        let parts: Vec<usize> =
            self.pieces.iter().filter_map(|piece| part(piece, event)).map(|p| p.len()).collect();
        let data = |longest: usize| -> usize { parts.iter().map(|length| length.min(&longest)).sum() };
        let room = SHORT_STRING_MAX_BYTES.saturating_sub(fixed);
        let longest = (0..=room).rev().find(|longest| data(*longest) <= room).unwrap_or(0);
        self.filled(event, longest)
    }

    /// The key with at most this many bytes of each part of the data.
    fn filled(&self, event: &Event, longest: usize) -> String {
        let mut key = String::with_capacity(64);
        for piece in &self.pieces {
            match (piece, part(piece, event)) {
                (Piece::Text(text), _) => key.push_str(text),
                // It is ASCII, so it can be cut anywhere.
                (_, Some(part)) => key.push_str(&part[..part.len().min(longest)]),
                (_, None) => {}
            }
        }
        key
    }
}

/// The data for a placeholder; `None` for fixed text.
fn part<'a>(piece: &Piece, event: &'a Event) -> Option<Cow<'a, str>> {
    match piece {
        Piece::Text(_) => None,
        Piece::SubAppId => Some(Cow::Owned(event.sub_app.to_string())),
        Piece::EventType => Some(confined(event.event_type.as_deref(), "unknown")),
        Piece::FileId => Some(confined(event.file_id.as_deref(), "none")),
        Piece::TaskId => Some(confined(event.task_id.as_deref(), "none")),
    }
}

fn confined<'a>(part: Option<&'a str>, missing: &'a str) -> Cow<'a, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match part {
        None | Some("") => Cow::Borrowed(missing),
        Some(part) if part.bytes().all(|byte| plain(char::from(byte))) => Cow::Borrowed(part),
        Some(part) => part.chars().map(|c| if plain(c) { c } else { '_' }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use tencent_vod_event::SubAppId;

    fn event(json: &str) -> Event {
        Event::parse(SubAppId(7), Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    fn key(template: &str, json: &str) -> String {
        template.parse::<RoutingKeyTemplate>().unwrap().key(&event(json))
    }

    const FULL: &str = r#"{"EventType":"PullComplete","E":{"FileId":"5","TaskId":"1-Pull-2"}}"#;

    #[test]
    fn a_template_is_filled_from_the_event() {
        assert_eq!(RoutingKeyTemplate::default().key(&event(FULL)), "vod.7.PullComplete");
        assert_eq!(key("vod.{sub_app_id}.{event_type}", FULL), "vod.7.PullComplete");
        assert_eq!(key("{task_id}/{file_id}", FULL), "1-Pull-2/5");
        assert_eq!(key("plain", FULL), "plain");
        assert_eq!(key("{event_type}.{file_id}.{task_id}", "{}"), "unknown.none.none");
    }

    #[test]
    fn data_adds_no_level_to_a_key() {
        let hostile = r#"{"EventType":"a.b#*c\u4e2d d-e_f","E":{"FileId":"../x"}}"#;
        assert_eq!(key("vod.{event_type}.{file_id}", hostile), "vod.a_b__c__d-e_f.___x");
    }

    #[test]
    fn a_key_never_exceeds_a_short_string() {
        let long = format!(r#"{{"EventType":"{}"}}"#, "x".repeat(5_000));
        assert_eq!(key("vod.{event_type}.{event_type}", &long).len(), 255);
        assert_eq!(
            key("vod.{event_type}.{sub_app_id}.{file_id}", &long),
            format!("vod.{}.7.none", "x".repeat(244))
        );
    }

    #[test]
    fn a_template_shows_itself_as_it_was_written() {
        for template in ["vod.{sub_app_id}.{event_type}", "x", "{file_id}{task_id}-"] {
            assert_eq!(template.parse::<RoutingKeyTemplate>().unwrap().to_string(), template);
        }
        assert_eq!(RoutingKeyTemplate::default(), "vod.{sub_app_id}.{event_type}".parse().unwrap());
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_reason() {
        let refused = |template: &str| template.parse::<RoutingKeyTemplate>().unwrap_err();
        assert_eq!(refused(""), TemplateError::Empty);
        assert_eq!(refused("vod.{type}"), TemplateError::UnknownPlaceholder("type".to_owned()));
        assert_eq!(refused("vod.{}"), TemplateError::UnknownPlaceholder(String::new()));
        assert_eq!(refused("vod.{event_type"), TemplateError::LoneBrace(4));
        assert_eq!(refused("{file_id}}"), TemplateError::LoneBrace(9));
        assert_eq!(refused("{a{file_id}"), TemplateError::LoneBrace(0));
        assert_eq!(refused("vod.\n"), TemplateError::ControlCharacter(4));
        assert_eq!(refused(&"x".repeat(256)), TemplateError::TooLong(256));
        assert!(refused("{type}").to_string().contains("{event_type}"));
    }
}
