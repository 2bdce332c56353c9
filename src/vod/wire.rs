//! Requests and answers as JSON. An event stays the slice of the answer that it came in.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use serde_json::value::RawValue;
use tracing::warn;

use super::classify::{Action, CallError};
use crate::event::{Event, EventHandle, SubAppId};
use crate::outcome::CallFailure;
use crate::reason::Reason;

/// The one error code that stands for an empty queue ("Getting started with event notifications", VOD documents).
const IDLE: &str = "ResourceNotFound";

/// The most events that an answer may bring. The cloud hands out 16 at a time; an event costs more memory here than the two
/// bytes that it can be written in.
const MOST_EVENTS: usize = 1024;

/// What a request says. The documents promise an error for members that the API does not know, so that there are no others.
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) handles: Option<&'a [EventHandle]>,
    pub(super) sub_app: SubAppId,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The default application is asked for by not naming one.
        let named = (self.sub_app != SubAppId(0)).then_some(self.sub_app.0);
        let length = usize::from(self.handles.is_some()) + usize::from(named.is_some());
        let mut body = serializer.serialize_struct("Body", length)?;
        if let Some(handles) = self.handles {
            let texts: Vec<&str> = handles.iter().map(|handle| &*handle.0).collect();
            body.serialize_field("EventHandles", &texts)?;
        }
        if let Some(sub_app) = named {
            body.serialize_field("SubAppId", &sub_app)?;
        }
        body.end()
    }
}

impl Body<'_> {
    pub(super) fn to_json(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("strings and numbers are always JSON")
    }
}

/// What one `PullEvents` brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The cloud's id of the request; empty when the answer has none.
    pub request_id: Arc<str>,
    /// The events; empty when nothing waits.
    pub events: Vec<Event>,
}

/// How the callbacks of one application are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventConfig {
    /// `PULL` or `PUSH`. Events can be pulled in mode `PULL` only.
    pub mode: Option<String>,
    /// Where `PUSH` sends events.
    pub notification_url: Option<String>,
    /// Whether finished uploads make events; `None` when the answer does not say `ON` or `OFF`.
    pub upload_media_complete: Option<bool>,
    /// Whether deletions make events.
    pub delete_media_complete: Option<bool>,
    /// Whether media made persistent make events.
    pub persistence_complete: Option<bool>,
    /// The cloud's id of the request; empty when the answer has none.
    pub request_id: Arc<str>,
}

/// An answer in its envelope: `{"Response":{..}}`, or an error in it.
#[derive(Debug)]
pub(super) struct Answer {
    action: Action,
    body: Bytes,
    /// The body as [`legible`] text of the same length, unless it is text as it came.
    mended: Option<String>,
    response: Response,
    pub(super) request_id: Option<String>,
    error: Option<(String, String)>,
}

impl Answer {
    /// Reads the envelope.
    ///
    /// # Errors
    ///
    /// A [`CallFailure::Transient`] of our own when `body` is no answer of this API.
    pub(super) fn read(action: Action, body: Bytes) -> Result<Self, CallError> {
        let (text, mended) = match std::str::from_utf8(&body) {
            Ok(text) => (text, None),
            Err(_) => ("", Some(legible(&body))),
        };
        let text = mended.as_deref().unwrap_or(text);
        let response = Response::read(action, text)?;
        let request_id = response.raw(text, "RequestId").and_then(scalar).filter(|id| !id.is_empty());
        // Whatever stands there but null is an error: no success is read out of a shape that nobody has seen yet.
        let error = response.raw(text, "Error").map(|raw| {
            let members: HashMap<String, &RawValue> = serde_json::from_str(raw).unwrap_or_default();
            let text =
                |name| members.get(name).filter(|raw| raw.get() != "null").and_then(|raw| scalar(raw.get()));
            (text("Code").unwrap_or_default(), text("Message").unwrap_or_else(|| "no message".to_owned()))
        });
        Ok(Self { action, body, mended, response, request_id, error })
    }

    /// The member of the response that is there and not null.
    fn raw(&self, name: &str) -> Option<&str> {
        self.response.raw(self.text(), name)
    }

    fn member(&self, name: &str) -> Option<String> {
        self.raw(name).and_then(scalar)
    }

    fn text(&self) -> &str {
        self.mended.as_deref().or_else(|| std::str::from_utf8(&self.body).ok()).unwrap_or_default()
    }

    /// The cloud's error, if the answer is one.
    pub(super) fn error(&self) -> Option<CallError> {
        let (code, message) = self.error.as_ref()?;
        Some(CallError::from_cloud(self.action, code, message, self.request_id.clone()))
    }

    /// Whether the answer says that no event waits, in the form of an error.
    pub(super) fn is_idle(&self) -> bool {
        self.action == Action::PullEvents && self.error.as_ref().is_some_and(|(code, _)| code == IDLE)
    }

    /// The answer as that of `PullEvents`.
    pub(super) fn into_pull(self, sub_app: SubAppId) -> Result<Pull, CallError> {
        let request_id = self.shared_request_id();
        if self.is_idle() {
            return Ok(Pull { request_id, events: Vec::new() });
        }
        let elements = match &self.response.events {
            EventSet::List(elements) => elements.as_slice(),
            EventSet::Absent => &[],
            EventSet::Odd => {
                let message = format!("EventSet is not a list of at most {MOST_EVENTS} events");
                return Err(self.strange(&message));
            }
        };
        let events = elements.iter().enumerate().map(|(index, place)| {
            // The same place in what the cloud sent: a byte that is no text is carried like any other.
            let body = self.body.slice(place.clone());
            if self.mended.is_some() && std::str::from_utf8(&body).is_err() {
                warn!(code = %Reason::NotUtf8, index, %request_id, "an event is not UTF-8; it is carried byte for byte");
            }
            Event::parse(sub_app, body)
                .map_err(|error| self.strange(&format!("an element of EventSet cannot be read: {error}")))
        });
        let events = events.collect::<Result<_, _>>()?;
        Ok(Pull { request_id, events })
    }

    /// The answer as that of `ConfirmEvents`. Every answer of the platform has a request id; without one it proves nothing.
    pub(super) fn into_confirmed(self) -> Result<(), CallError> {
        match self.request_id {
            Some(_) => Ok(()),
            None => Err(self.strange("the answer has no RequestId")),
        }
    }

    /// The answer as that of `DescribeEventsState`.
    pub(super) fn into_count(self) -> Result<u64, CallError> {
        let count = self.raw("CountOfEventsToPull").and_then(|raw| raw.parse().ok());
        count.ok_or_else(|| self.strange("CountOfEventsToPull is not a count"))
    }

    /// The answer as that of `DescribeEventConfig`.
    pub(super) fn into_event_config(self) -> Result<EventConfig, CallError> {
        let switch = |name| match self.member(name).as_deref() {
            Some("ON") => Some(true),
            Some("OFF") => Some(false),
            _ => None,
        };
        Ok(EventConfig {
            mode: self.member("Mode"),
            notification_url: self.member("NotificationUrl"),
            upload_media_complete: switch("UploadMediaCompleteEventSwitch"),
            delete_media_complete: switch("DeleteMediaCompleteEventSwitch"),
            persistence_complete: switch("PersistenceCompleteEventSwitch"),
            request_id: self.shared_request_id(),
        })
    }

    fn shared_request_id(&self) -> Arc<str> {
        self.request_id.as_deref().unwrap_or_default().into()
    }

    fn strange(&self, message: &str) -> CallError {
        let mut error = CallError::own(self.action, CallFailure::Transient, "not_an_answer", message);
        error.request_id = self.request_id.clone();
        error
    }
}

/// The bytes with a `?` for every byte that is not UTF-8: text of the same length, in which everything stands at the same
/// place. JSON has such bytes in strings only, where they part nothing, so that what parts the events is still seen.
fn legible(body: &Bytes) -> String {
    let mut text = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text
}

/// What the object `Response` says, as places in the text. Members that nobody asks for are never looked into, however
/// deep they nest. The last of equal keys counts, as in most readers of JSON.
#[derive(Debug, Default)]
struct Response {
    members: Vec<(String, Range<usize>)>,
    events: EventSet,
}

/// The list of events in an answer.
#[derive(Debug, Default)]
enum EventSet {
    /// Not there, or null.
    #[default]
    Absent,
    /// Where each event stands.
    List(Vec<Range<usize>>),
    /// Something else, or more than there is memory for.
    Odd,
}

impl Response {
    fn read(action: Action, text: &str) -> Result<Self, CallError> {
        let own = |code, message: String| CallError::own(action, CallFailure::Transient, code, message);
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = Part { text, role: Role::Envelope }.deserialize(&mut reader);
        match read.and_then(|shape| reader.end().map(|()| shape)) {
            Ok(Shape::Object(response)) => Ok(response),
            Ok(_) => Err(own("not_an_answer", "the answer has no object called Response".to_owned())),
            Err(error) => Err(own("not_json", format!("the answer is not JSON: {error}"))),
        }
    }

    /// A member that is there and not null.
    fn raw<'t>(&self, text: &'t str, name: &str) -> Option<&'t str> {
        let (_, place) = self.members.iter().rfind(|(key, _)| key == name)?;
        text.get(place.clone()).filter(|raw| *raw != "null")
    }
}

/// A string's text, or a scalar's literal.
fn scalar(raw: &str) -> Option<String> {
    if raw.starts_with(['{', '[']) {
        return None;
    }
    Some(serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned()))
}

/// Reads an answer in one pass, because it can be long.
#[derive(Clone, Copy)]
struct Part<'t> {
    /// The whole answer.
    text: &'t str,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The whole: the shape of its member `Response` is what is wanted.
    Envelope,
    Response,
    EventSet,
}

/// What a part turned out to be.
enum Shape {
    Object(Response),
    List(EventSet),
    Null,
    Other,
}

impl Part<'_> {
    fn place(self, raw: &RawValue) -> Range<usize> {
        let start = raw.get().as_ptr().addr() - self.text.as_ptr().addr();
        start..start + raw.get().len()
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::Other;
        let mut response = Response::default();
        while let Some(key) = map.next_key::<String>()? {
            match (self.role, key.as_str()) {
                (Role::Envelope, "Response") => {
                    shape = map.next_value_seed(Part { role: Role::Response, ..self })?;
                }
                (Role::Response, "EventSet") => {
                    response.events = match map.next_value_seed(Part { role: Role::EventSet, ..self })? {
                        Shape::List(events) => events,
                        Shape::Null => EventSet::Absent,
                        Shape::Object(_) | Shape::Other => EventSet::Odd,
                    };
                }
                (Role::Response, _) => {
                    let place = self.place(map.next_value()?);
                    response.members.push((key, place));
                }
                (Role::Envelope | Role::EventSet, _) => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(if self.role == Role::Response { Shape::Object(response) } else { shape })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        let mut elements = Vec::new();
        while self.role == Role::EventSet
            && elements.len() < MOST_EVENTS
            && let Some(element) = list.next_element()?
        {
            elements.push(self.place(element));
        }
        let mut rest = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            rest = true;
        }
        Ok(match self.role {
            Role::EventSet if rest => Shape::List(EventSet::Odd),
            Role::EventSet => Shape::List(EventSet::List(elements)),
            Role::Envelope | Role::Response => Shape::Other,
        })
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: SubAppId = SubAppId(7);

    fn read(action: Action, body: impl AsRef<[u8]>) -> Result<Answer, CallError> {
        Answer::read(action, Bytes::copy_from_slice(body.as_ref()))
    }

    fn pull(body: impl AsRef<[u8]>) -> Result<Pull, CallError> {
        let answer = read(Action::PullEvents, body)?;
        match answer.error() {
            Some(error) if !answer.is_idle() => Err(error),
            _ => answer.into_pull(APP),
        }
    }

    fn bodies(pull: &Pull) -> Vec<&str> {
        pull.events.iter().map(|e| std::str::from_utf8(&e.body).unwrap()).collect()
    }

    #[test]
    fn requests_have_no_member_that_the_api_does_not_know() {
        let json = |handles, sub_app| String::from_utf8(Body { handles, sub_app }.to_json()).unwrap();
        assert_eq!(json(None, SubAppId(0)), "{}");
        assert_eq!(json(None, SubAppId(1_500_000_001)), r#"{"SubAppId":1500000001}"#);
        let handles = [EventHandle("a\"句柄".into()), EventHandle("b".into())];
        assert_eq!(json(Some(&handles), SubAppId(0)), r#"{"EventHandles":["a\"句柄","b"]}"#);
        assert_eq!(
            json(Some(&handles[1..]), SubAppId(u64::MAX)),
            r#"{"EventHandles":["b"],"SubAppId":18446744073709551615}"#
        );
    }

    #[test]
    fn every_idle_shape_is_an_empty_pull() {
        for body in [
            r#"{"Response":{"Error":{"Code":"ResourceNotFound","Message":"no event"},"RequestId":"r"}}"#,
            r#"{"Response":{"Error":{"Message":"anything","Code":"ResourceNotFound"},"EventSet":null,"RequestId":"r"}}"#,
            r#"{"Response":{"EventSet":null,"RequestId":"r"}}"#,
            r#"{"Response":{"EventSet":[],"RequestId":"r"}}"#,
            r#"{"Response":{"Error":null,"EventSet":[ ],"RequestId":"r"}}"#,
            "{\"Response\":{\"RequestId\":\"r\"}}\n",
        ] {
            assert_eq!(pull(body).unwrap(), Pull { request_id: "r".into(), events: vec![] }, "{body}");
        }
        assert_eq!(&*pull(r#"{"Response":{}}"#).unwrap().request_id, "");
    }

    #[test]
    fn only_the_plain_code_means_idle_and_only_for_a_pull() {
        let body = r#"{"Response":{"Error":{"Code":"ResourceNotFound.UserNotExist","Message":"no event"}}}"#;
        assert_eq!(pull(body).unwrap_err().failure, CallFailure::Configuration);
        let body = r#"{"Response":{"Error":{"Code":"ResourceNotFound","Message":"no event"}}}"#;
        let answer = read(Action::ConfirmEvents, body).unwrap();
        assert!(!answer.is_idle());
        assert_eq!(answer.error().unwrap().failure, CallFailure::Refused);
    }

    #[test]
    fn events_keep_their_bytes_and_share_the_answer() {
        let first =
            r#"{ "EventHandle" : 8078360634045903972, "FileUploadEvent":{"FileId":5285485487985271490} }"#;
        let second =
            r#"{"EventHandle":"h2","EventType":"New\u0046ile","EventType":"NewFileUpload","X":null,"X":1.0}"#;
        let body = Bytes::from(format!(
            "{{\"Response\": {{\"Extra\":{{\"a\":[1]}},\"EventSet\":[ {first} ,\n{second}],\"RequestId\":\"r\"}},\"More\":1}}"
        ));
        let pull = Answer::read(Action::PullEvents, body.clone()).unwrap().into_pull(APP).unwrap();
        assert_eq!(bodies(&pull), [first, second]);
        let range = body.as_ptr_range();
        assert!(pull.events.iter().all(|e| range.contains(&e.body.as_ptr())), "slices, not copies");
        assert_eq!(pull.events[0].handle, Some(EventHandle("8078360634045903972".into())));
        assert_eq!(pull.events[0].file_id.as_deref(), Some("5285485487985271490"));
        assert_eq!(pull.events[0].event_type, None);
        assert_eq!(pull.events[0].sub_app, APP);
    }

    #[test]
    fn elements_that_are_no_objects_are_carried_too() {
        let pull = pull(r#"{"Response":{"EventSet":[null,1,"x",[],{}]}}"#).unwrap();
        assert_eq!(bodies(&pull), ["null", "1", "\"x\"", "[]", "{}"]);
        assert!(pull.events.iter().all(|e| e.handle.is_none()));
    }

    #[test]
    fn an_event_of_one_megabyte_arrives_whole() {
        let event = format!(r#"{{"EventHandle":"h","Blob":"{}"}}"#, "é".repeat(500_000));
        let pull = pull(format!(r#"{{"Response":{{"EventSet":[{event}]}}}}"#)).unwrap();
        assert_eq!(bodies(&pull), [event]);
    }

    #[test]
    fn a_deep_event_harms_neither_itself_nor_its_siblings() {
        const DEPTH: usize = 100_000;
        let deep = format!(r#"{{"EventHandle":"deep","D":{}{}}}"#, "[".repeat(DEPTH), "]".repeat(DEPTH));
        let objects = format!(r#"{{"D":{}1{}}}"#, "{\"a\":".repeat(DEPTH), "}".repeat(DEPTH));
        let body = format!(
            r#"{{"Deep":{0},"Response":{{"Deep":{0},"EventSet":[{{"EventHandle":"h1"}},{deep},{objects},{{"EventHandle":"h2"}}]}}}}"#,
            format_args!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH)),
        );
        let pull = pull(body).unwrap();
        assert_eq!(bodies(&pull), [r#"{"EventHandle":"h1"}"#, &deep, &objects, r#"{"EventHandle":"h2"}"#]);
        assert_eq!(pull.events[1].handle, Some(EventHandle("deep".into())));
    }

    #[test]
    fn bytes_that_are_no_text_are_carried_and_harm_no_sibling() {
        let good = br#"{"EventHandle":"h1","x":"\u53e5"}"#.as_slice();
        let odd = b"{\"EventHandle\":\"h2\",\"x\":\"\xd6\xd0\xff \xed\xa0\x80\"}".as_slice();
        let no_handle = b"{\"EventHandle\":\"\xff\",\"x\":1}".as_slice();
        let last = r#"{"EventHandle":"h4","x":"句柄"}"#.as_bytes();
        let set = [good, odd, no_handle, last].join(&b","[..]);
        let body = [b"{\"Response\":{\"EventSet\":[", &set[..], b"],\"RequestId\":\"r\xff\"}}"].concat();
        let pull = pull(body).unwrap();
        let bodies: Vec<&[u8]> = pull.events.iter().map(|event| &event.body[..]).collect();
        assert_eq!(bodies, [good, odd, no_handle, last]);
        let handles: Vec<Option<&str>> =
            pull.events.iter().map(|event| event.handle.as_ref().map(|handle| &*handle.0)).collect();
        assert_eq!(handles, [Some("h1"), Some("h2"), None, Some("h4")]);
        assert_eq!(&*pull.request_id, "r?");
    }

    #[test]
    fn an_answer_brings_no_more_events_than_there_is_memory_for() {
        let answer = |events: usize| {
            format!(r#"{{"Response":{{"EventSet":[{}1]}}}}"#, "1,".repeat(events.saturating_sub(1)))
        };
        assert_eq!(pull(answer(MOST_EVENTS)).unwrap().events.len(), MOST_EVENTS);
        assert_eq!(pull(answer(MOST_EVENTS + 1)).unwrap_err().code, "not_an_answer");
    }

    #[test]
    fn of_equal_keys_in_the_envelope_the_last_counts() {
        let body =
            r#"{"Response":1,"Response":{"RequestId":"a","EventSet":[1],"EventSet":[2],"RequestId":"b"}}"#;
        let pull = pull(body).unwrap();
        assert_eq!((bodies(&pull), &*pull.request_id), (vec!["2"], "b"));
    }

    #[test]
    fn what_is_no_answer_has_a_stable_name() {
        let whole = r#"{"Response":{"EventSet":[{"EventHandle":"h"}],"RequestId":"r"}}"#;
        for end in 0..whole.len() {
            assert_eq!(pull(&whole[..end]).unwrap_err().code, "not_json", "cut at {end}");
        }
        for (body, code) in [
            (&b"{\"Response\":{\"RequestId\":\"r\"}\xff}"[..], "not_json"),
            (b"\xef\xbb\xbf{\"Response\":{}}", "not_json"),
            (b"<html>502 Bad Gateway</html>", "not_json"),
            (b"{\"Response\":{}} trailing", "not_json"),
            (b"{}", "not_an_answer"),
            (b"[]", "not_an_answer"),
            (b"null", "not_an_answer"),
            (b"{\"Response\":null}", "not_an_answer"),
            (b"{\"Response\":[]}", "not_an_answer"),
            (b"{\"code\":4000,\"message\":\"API 2.0\"}", "not_an_answer"),
            (b"{\"Response\":{\"EventSet\":{}}}", "not_an_answer"),
            (b"{\"Response\":{\"EventSet\":\"x\"}}", "not_an_answer"),
        ] {
            let error = pull(body).unwrap_err();
            let shown = String::from_utf8_lossy(body);
            assert_eq!((error.code.as_str(), error.failure), (code, CallFailure::Transient), "{shown}");
            assert!(error.may_have_acted, "{shown}");
        }
    }

    #[test]
    fn errors_survive_odd_shapes() {
        for (body, code, message) in [
            (r#"{"Error":{"Code":"InternalError","Message":"m","More":{}}}"#, "InternalError", "m"),
            (r#"{"Error":{"Code":"InternalError"}}"#, "InternalError", "no message"),
            (r#"{"Error":{"Code":4000,"Message":17}}"#, "4000", "17"),
            (r#"{"Error":{}}"#, "no_code", "no message"),
            (r#"{"Error":"InternalError"}"#, "no_code", "no message"),
            (r#"{"Error":[]}"#, "no_code", "no message"),
        ] {
            let answer = read(Action::ConfirmEvents, format!(r#"{{"Response":{body}}}"#)).unwrap();
            let error = answer.error().unwrap();
            assert_eq!((error.code.as_str(), error.message.as_str()), (code, message), "{body}");
        }
    }

    #[test]
    fn a_confirm_is_believed_only_with_a_request_id() {
        let confirm = |body| read(Action::ConfirmEvents, body).unwrap().into_confirmed();
        assert_eq!(confirm(r#"{"Response":{"RequestId":"r"}}"#), Ok(()));
        for body in
            [r#"{"Response":{}}"#, r#"{"Response":{"RequestId":""}}"#, r#"{"Response":{"RequestId":null}}"#]
        {
            assert_eq!(confirm(body).unwrap_err().code, "not_an_answer", "{body}");
        }
    }

    #[test]
    fn counts_and_settings_are_read() {
        let count = |body: &str| read(Action::DescribeEventsState, body).unwrap().into_count();
        assert_eq!(count(r#"{"Response":{"CountOfEventsToPull":12}}"#).unwrap(), 12);
        assert_eq!(count(r#"{"Response":{"CountOfEventsToPull":null}}"#).unwrap_err().code, "not_an_answer");
        assert_eq!(count(r#"{"Response":{"CountOfEventsToPull":-1}}"#).unwrap_err().code, "not_an_answer");
        let body = r#"{"Response":{"Mode":"PULL","NotificationUrl":"","UploadMediaCompleteEventSwitch":"ON",
            "DeleteMediaCompleteEventSwitch":"OFF","PersistenceCompleteEventSwitch":null,"RequestId":"r"}}"#;
        let config = read(Action::DescribeEventConfig, body).unwrap().into_event_config().unwrap();
        assert_eq!(
            config,
            EventConfig {
                mode: Some("PULL".into()),
                notification_url: Some(String::new()),
                upload_media_complete: Some(true),
                delete_media_complete: Some(false),
                persistence_complete: None,
                request_id: "r".into(),
            }
        );
    }
}
