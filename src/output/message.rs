//! What an event looks like on the wire: routing key, properties, headers and body.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Serialize;

use super::Message;
use crate::event::Event;

/// AMQP 0-9-1 counts a short string's length in one byte; routing keys and most properties are short strings.
const SHORT_STRING_MAX_BYTES: usize = 255;

/// Longer header values are left out: a property frame cannot be split, and a cut id would be a wrong id.
pub(super) const HEADER_VALUE_MAX_BYTES: usize = 4096;

/// What a message's body holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The cloud's bytes and nothing else.
    #[default]
    Event,
    /// A CloudEvents 1.0 envelope in JSON around the cloud's bytes.
    CloudEvents,
}

impl Format {
    /// The media type of such a body.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Event => "application/json",
            Self::CloudEvents => "application/cloudevents+json",
        }
    }

    /// The body of `message`.
    pub fn body(self, message: &Message) -> Bytes {
        match self {
            Self::Event => message.event.body.clone(),
            Self::CloudEvents => cloud_event(message),
        }
    }
}

/// Why a routing key template is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing to make a key of.
    #[error("the routing key is empty; the default is \"vod.{{sub_app_id}}.{{event_type}}\"")]
    Empty,
    /// A placeholder that nobody knows.
    #[error(
        "unknown placeholder {{{0}}} in the routing key; known are {{sub_app_id}}, {{event_type}}, {{file_id}} and {{task_id}}"
    )]
    UnknownPlaceholder(String),
    /// A brace without its partner.
    #[error("the routing key has a single brace at byte {0}; write a placeholder like {{event_type}}")]
    LoneBrace(usize),
    /// What no routing key can hold.
    #[error("the routing key holds a control character at byte {0}; remove it")]
    ControlCharacter(usize),
    /// No room for the data.
    #[error("the fixed text of the routing key has {0} bytes; a whole key has 255 at most, so shorten it")]
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

/// How an event's routing key is made, such as `vod.{sub_app_id}.{event_type}`.
///
/// Every part that comes from data is confined: whatever is not a letter, a digit, `_` or `-` of ASCII becomes `_`, so that
/// data can add no level to the key. A missing type is `unknown`, another missing part is `none`.
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

    /// The routing key of `event`, of 255 bytes at most. Where the data is too long for that, its longest parts are cut and
    /// the fixed text is not: a key has the levels of its template whatever the data says.
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

    /// The key with at most so many bytes of each part of the data.
    fn filled(&self, event: &Event, longest: usize) -> String {
        let mut key = String::with_capacity(64);
        for piece in &self.pieces {
            match (piece, part(piece, event)) {
                (Piece::Text(text), _) => key.push_str(text),
                // It is ASCII, so that it can be cut anywhere.
                (_, Some(part)) => key.push_str(&part[..part.len().min(longest)]),
                (_, None) => {}
            }
        }
        key
    }
}

/// What the data says for a piece; `None` for fixed text.
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

/// A header's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Header {
    Text(String),
    Number(i64),
    Flag(bool),
}

/// The headers of `message`, in the order in which people read them. Values longer than `longest` bytes are left out.
pub(super) fn headers(message: &Message, longest: usize) -> impl Iterator<Item = (&'static str, Header)> {
    let event = &message.event;
    let text =
        move |text: &str| (!text.is_empty() && text.len() <= longest).then(|| Header::Text(text.to_owned()));
    let sub_app = match i64::try_from(event.sub_app.0) {
        Ok(id) => Header::Number(id),
        Err(_) => Header::Text(event.sub_app.to_string()),
    };
    [
        ("x-vod-sub-app-id", Some(sub_app)),
        ("x-vod-event-handle", event.handle.as_ref().and_then(|handle| text(&handle.0))),
        ("x-vod-fingerprint", Some(Header::Text(event.fingerprint.to_string()))),
        ("x-vod-occurrence", Some(Header::Number(message.occurrence.into()))),
        ("x-vod-redelivered", Some(Header::Flag(message.redelivered))),
        ("x-vod-pulled-at", Some(Header::Number(message.pulled_at.0))),
        ("x-vod-request-id", text(&message.request_id)),
        ("x-vod-file-id", event.file_id.as_deref().and_then(text)),
        ("x-vod-task-id", event.task_id.as_deref().and_then(text)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// The AMQP properties of `message`: persistent, and the same for every publish of it but for the delivery's own headers.
pub(super) fn properties(message: &Message, format: Format, longest_header: usize) -> BasicProperties {
    let value = |header| match header {
        Header::Text(text) => AMQPValue::LongString(text.into()),
        Header::Number(number) => AMQPValue::LongLongInt(number),
        Header::Flag(flag) => AMQPValue::Boolean(flag),
    };
    let headers = headers(message, longest_header).map(|(name, header)| (name.into(), value(header)));
    let table = FieldTable::from(headers.collect::<BTreeMap<_, _>>());
    const PERSISTENT: u8 = 2;
    let properties = BasicProperties::default()
        .with_message_id(short(message.message_id.as_str()))
        .with_app_id("vodrelay".into())
        .with_content_type(format.content_type().into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(u64::try_from(message.pulled_at.0.div_euclid(1000)).unwrap_or(0))
        .with_headers(table);
    match message.event.event_type.as_deref() {
        Some(event_type) => properties.with_type(short(event_type)),
        None => properties,
    }
}

/// `text` as a short string: cut where it is too long for one, because the library panics there.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::from(&text[..text.floor_char_boundary(SHORT_STRING_MAX_BYTES)])
}

/// The attributes of a CloudEvents 1.0 envelope; `data` comes after them.
#[derive(Serialize)]
struct Attributes<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    r#type: String,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    datacontenttype: &'static str,
}

/// Structured mode of CloudEvents 1.0 ("JSON Event Format for CloudEvents", version 1.0.2). The specification asks for a
/// type that begins with a reversed domain name. The event's bytes are put in as they are, never read and written again.
fn cloud_event(message: &Message) -> Bytes {
    let event = &message.event;
    let attributes = Attributes {
        specversion: "1.0",
        id: message.message_id.as_str(),
        source: format!("//vod.tencentcloudapi.com/sub-applications/{}", event.sub_app),
        r#type: format!("com.tencentcloud.vod.{}", event.event_type.as_deref().unwrap_or("unknown")),
        time: message.pulled_at.to_string(),
        subject: event.file_id.as_deref(),
        datacontenttype: "application/json",
    };
    let mut envelope = serde_json::to_vec(&attributes).expect("a struct of strings is always JSON");
    envelope.pop();
    envelope.reserve(event.body.len() + 9);
    envelope.extend_from_slice(b",\"data\":");
    envelope.extend_from_slice(&event.body);
    envelope.push(b'}');
    envelope.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use crate::event::{MessageId, SubAppId};

    fn event(json: &str) -> Event {
        Event::parse(SubAppId(7), Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    fn message(event: Event) -> Message {
        Message {
            message_id: MessageId::new(&event.fingerprint, 1),
            event: event.into(),
            occurrence: 1,
            redelivered: false,
            pulled_at: WallTime(1_551_113_065_007),
            request_id: "r".into(),
        }
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
        let message = message(event(&long));
        assert_eq!(properties(&message, Format::Event, 4096).kind().as_ref().unwrap().as_str().len(), 255);
        assert_eq!(short(&"\u{4e2d}".repeat(100)).as_str().chars().count(), 85);
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

    #[test]
    fn a_header_that_is_too_long_is_left_out_and_not_cut() {
        let json =
            format!(r#"{{"EventHandle":"{}","E":{{"FileId":"{}"}}}}"#, "h".repeat(4_097), "f".repeat(4_096));
        let message = message(event(&json));
        let names: Vec<&str> = headers(&message, HEADER_VALUE_MAX_BYTES).map(|(name, _)| name).collect();
        assert!(!names.contains(&"x-vod-event-handle") && names.contains(&"x-vod-file-id"), "{names:?}");
    }

    #[test]
    fn a_cloud_event_is_an_envelope_around_the_very_bytes() {
        let json = r#"{"EventType":"T", "n":1.0, "E":{"FileId":"5"}, "x":"\u0041"}"#;
        let message = message(event(json));
        let body = Format::CloudEvents.body(&message);
        let expected = format!(
            r#"{{"specversion":"1.0","id":"{}","source":"//vod.tencentcloudapi.com/sub-applications/7","type":"com.tencentcloud.vod.T","time":"2019-02-25T16:44:25.007Z","subject":"5","datacontenttype":"application/json","data":{json}}}"#,
            message.message_id
        );
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
    }
}
