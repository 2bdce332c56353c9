//! The form of an event on the wire: routing key, properties, headers and body.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Serialize;
use vodrelay_core::outgoing::Outgoing;

use crate::routing_key::SHORT_STRING_MAX_BYTES;

/// Longer header values are omitted: a property frame cannot be split, and a cut id would be a wrong id.
pub(super) const HEADER_VALUE_MAX_BYTES: usize = 4096;

/// The format of a message's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFormat {
    /// The cloud's bytes alone.
    #[default]
    Event,
    /// A CloudEvents 1.0 envelope in JSON around the cloud's bytes.
    CloudEvents,
}

impl BodyFormat {
    /// The media type of such a body.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Event => "application/json",
            Self::CloudEvents => "application/cloudevents+json",
        }
    }

    /// The body of `message`.
    pub fn body(self, message: &Outgoing) -> Bytes {
        match self {
            Self::Event => message.event.body.clone(),
            Self::CloudEvents => cloud_event(message),
        }
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

/// The headers of `message`, in reading order. Values longer than `longest` bytes are omitted.
pub(super) fn headers(message: &Outgoing, longest: usize) -> impl Iterator<Item = (&'static str, Header)> {
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

/// The AMQP properties of `message`: persistent, and the same for every publish of it except the delivery's
/// own headers.
pub(super) fn properties(message: &Outgoing, format: BodyFormat, longest_header: usize) -> BasicProperties {
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

/// `text` as a short string, cut where it is too long, because the library panics there.
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

/// Structured mode of CloudEvents 1.0 ("JSON Event Format for CloudEvents", version 1.0.2). The specification
/// asks for a type that begins with a reversed domain name. The event's bytes are inserted as they are, never
/// parsed and written again.
fn cloud_event(message: &Outgoing) -> Bytes {
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
    use tencent_vod_event::{Event, MessageId, SubAppId};
    use vodrelay_core::clock::WallTime;

    fn event(json: &str) -> Event {
        Event::parse(SubAppId(7), Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    fn message(event: Event) -> Outgoing {
        Outgoing {
            message_id: MessageId::new(&event.fingerprint, 1),
            event: event.into(),
            occurrence: 1,
            redelivered: false,
            pulled_at: WallTime(1_551_113_065_007),
            request_id: "r".into(),
        }
    }

    #[test]
    fn a_short_string_is_cut_between_characters() {
        let long = format!(r#"{{"EventType":"{}"}}"#, "x".repeat(5_000));
        let message = message(event(&long));
        assert_eq!(
            properties(&message, BodyFormat::Event, 4096).kind().as_ref().unwrap().as_str().len(),
            255
        );
        assert_eq!(short(&"\u{4e2d}".repeat(100)).as_str().chars().count(), 85);
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
        let body = BodyFormat::CloudEvents.body(&message);
        let expected = format!(
            r#"{{"specversion":"1.0","id":"{}","source":"//vod.tencentcloudapi.com/sub-applications/7","type":"com.tencentcloud.vod.T","time":"2019-02-25T16:44:25.007Z","subject":"5","datacontenttype":"application/json","data":{json}}}"#,
            message.message_id
        );
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
    }
}
