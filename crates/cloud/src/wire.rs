//! Requests and answers as JSON. An event stays the slice of its answer.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use tencent_vod_event::{Document, DocumentReader, Event, EventHandle, Malformed, SubAppId, Value};

use crate::classify::{Action, FailureKind, RequestError};

/// The one error code that means an empty queue ("Getting started with event notifications", VOD documents).
const IDLE: &str = "ResourceNotFound";

/// The most events that an answer may bring. The cloud hands out 16 at a time. An event costs more memory
/// here than its shortest form of two bytes.
const MOST_EVENTS: usize = 1024;

/// The body of a request. The documents promise an error for unknown members, so there are no others.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a> {
    pub(crate) handles: Option<&'a [EventHandle]>,
    pub(crate) sub_app: SubAppId,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The default application is not named.
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
    pub(crate) fn to_json(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("strings and numbers are always JSON")
    }
}

/// The result of one `PullEvents`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The cloud's id of the request; empty when the answer has none.
    pub request_id: Arc<str>,
    /// The events; empty when nothing waits.
    pub events: Vec<Event>,
}

/// The callback settings of one application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventConfig {
    /// `PULL` or `PUSH`. Events can be pulled in mode `PULL` only.
    pub mode: Option<String>,
    /// The target of `PUSH`.
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
pub(crate) struct ApiAnswer {
    action: Action,
    body: Bytes,
    response: Response,
    pub(crate) request_id: Option<String>,
    error: Option<(String, String)>,
}

impl ApiAnswer {
    /// Reads the envelope, and the events that an answer to `PullEvents` brings from the queue of `sub_app`.
    ///
    /// # Errors
    ///
    /// A [`FailureKind::Transient`] of our own when `body` is not an answer of this API.
    pub(crate) fn read(action: Action, sub_app: SubAppId, body: Bytes) -> Result<Self, RequestError> {
        let own = |code, message: &str| RequestError::own(action, FailureKind::Transient, code, message);
        let response = Response::read(&body, (action == Action::PullEvents).then_some(sub_app))
            .map_err(|error| own("not_json", &format!("the answer is {error}")))?
            .ok_or_else(|| own("not_an_answer", "the answer has no object called Response"))?;
        let mut answer = Self { action, body, response, request_id: None, error: None };
        let request_id = answer.scalar("RequestId").filter(|id| !id.is_empty());
        // Any value there except null is an error: an unknown form is never a success.
        let error = answer.member("Error").map(|document| {
            let text = |name| document.root().member(name).and_then(scalar).map(Cow::into_owned);
            (text("Code").unwrap_or_default(), text("Message").unwrap_or_else(|| "no message".to_owned()))
        });
        answer.request_id = request_id;
        answer.error = error;
        Ok(answer)
    }

    /// The member of the response, if it exists and is not null.
    pub(crate) fn member(&self, name: &str) -> Option<Document<'_>> {
        let (_, place) = self.response.members.iter().rfind(|(key, _)| key == name.as_bytes())?;
        Document::parse(&self.body[place.clone()]).ok().filter(|document| !document.root().is_null())
    }

    /// Its text or literal, if it is neither an object nor a list.
    pub(crate) fn scalar(&self, name: &str) -> Option<String> {
        self.member(name).and_then(|document| scalar(document.root()).map(Cow::into_owned))
    }

    /// The cloud's error, if the answer is one.
    pub(crate) fn error(&self) -> Option<RequestError> {
        let (code, message) = self.error.as_ref()?;
        Some(RequestError::from_cloud(self.action, code, message, self.request_id.clone()))
    }

    /// Whether the answer says that no event waits, in the form of an error.
    pub(crate) fn is_idle(&self) -> bool {
        self.action == Action::PullEvents && self.error.as_ref().is_some_and(|(code, _)| code == IDLE)
    }

    /// The answer as that of `PullEvents`.
    pub(crate) fn into_pull(self) -> Result<Pull, RequestError> {
        let request_id = self.shared_request_id();
        if self.is_idle() {
            return Ok(Pull { request_id, events: Vec::new() });
        }
        let events = match self.response.events {
            EventSet::List(events) => events,
            EventSet::Absent => Vec::new(),
            EventSet::Odd => {
                let message = format!("EventSet is not a list of at most {MOST_EVENTS} events");
                return Err(self.strange(&message));
            }
        };
        Ok(Pull { request_id, events })
    }

    /// The answer as that of `ConfirmEvents`. Every answer of the platform has a request id. Without one it
    /// proves nothing.
    pub(crate) fn into_confirmed(self) -> Result<(), RequestError> {
        match self.request_id {
            Some(_) => Ok(()),
            None => Err(self.strange("the answer has no RequestId")),
        }
    }

    /// The answer as that of `DescribeEventsState`.
    pub(crate) fn into_count(self) -> Result<u64, RequestError> {
        let count =
            self.member("CountOfEventsToPull").and_then(|document| document.root().number()?.parse().ok());
        count.ok_or_else(|| self.strange("CountOfEventsToPull is not a count"))
    }

    /// The answer as that of `DescribeEventConfig`.
    pub(crate) fn into_event_config(self) -> Result<EventConfig, RequestError> {
        let switch = |name| match self.scalar(name).as_deref() {
            Some("ON") => Some(true),
            Some("OFF") => Some(false),
            _ => None,
        };
        Ok(EventConfig {
            mode: self.scalar("Mode"),
            notification_url: self.scalar("NotificationUrl"),
            upload_media_complete: switch("UploadMediaCompleteEventSwitch"),
            delete_media_complete: switch("DeleteMediaCompleteEventSwitch"),
            persistence_complete: switch("PersistenceCompleteEventSwitch"),
            request_id: self.shared_request_id(),
        })
    }

    fn shared_request_id(&self) -> Arc<str> {
        self.request_id.as_deref().unwrap_or_default().into()
    }

    pub(crate) fn strange(&self, message: &str) -> RequestError {
        let mut error = RequestError::own(self.action, FailureKind::Transient, "not_an_answer", message);
        error.request_id = self.request_id.clone();
        error
    }
}

/// The object `Response`. The last of equal keys counts, as in most readers of JSON.
#[derive(Debug, Default)]
struct Response {
    /// All members except the events, with the positions of their values.
    members: Vec<(Vec<u8>, Range<usize>)>,
    events: EventSet,
}

/// The list of events in an answer.
#[derive(Debug, Default)]
enum EventSet {
    /// Missing, or null.
    #[default]
    Absent,
    List(Vec<Event>),
    /// Another type, or more than fits into memory.
    Odd,
}

impl Response {
    /// Reads an answer in one pass, because it can be long. `None` when it has no object `Response`. Events
    /// are read only if they come from the queue of a `sub_app`.
    fn read(answer: &Bytes, sub_app: Option<SubAppId>) -> Result<Option<Self>, Malformed> {
        let mut reader = DocumentReader::new(answer)?;
        let mut response = None;
        if reader.coming() == Some(b'{') {
            reader.members(|reader, name| {
                if name == b"Response" && reader.coming() == Some(b'{') {
                    response = Some(Self::members(reader, answer, sub_app)?);
                } else {
                    reader.value()?;
                    response = response.take().filter(|_| name != b"Response");
                }
                Ok(())
            })?;
        } else {
            reader.value()?;
        }
        reader.end()?;
        Ok(response)
    }

    fn members(
        reader: &mut DocumentReader<'_>,
        answer: &Bytes,
        sub_app: Option<SubAppId>,
    ) -> Result<Self, Malformed> {
        let mut response = Self::default();
        reader.members(|reader, name| {
            match sub_app {
                Some(sub_app) if name == b"EventSet" => {
                    response.events = EventSet::read(reader, answer, sub_app)?;
                }
                _ => {
                    let start = reader.at();
                    reader.value()?;
                    response.members.push((name.to_owned(), start..reader.at()));
                }
            }
            Ok(())
        })?;
        Ok(response)
    }
}

impl EventSet {
    fn read(reader: &mut DocumentReader<'_>, answer: &Bytes, sub_app: SubAppId) -> Result<Self, Malformed> {
        if reader.coming() != Some(b'[') {
            let is_null = reader.value()?.root().is_null();
            return Ok(if is_null { Self::Absent } else { Self::Odd });
        }
        let mut events = Vec::new();
        let mut too_many = false;
        reader.elements(|reader| {
            let start = reader.at();
            let document = reader.value()?;
            too_many |= events.len() == MOST_EVENTS;
            if !too_many {
                // A slice of the cloud's bytes, unchanged.
                events.push(Event::read(sub_app, answer.slice(start..reader.at()), &document));
            }
            Ok(())
        })?;
        Ok(if too_many { Self::Odd } else { Self::List(events) })
    }
}

/// A string's text, or the literal of a number or a truth value.
fn scalar(value: Value<'_>) -> Option<Cow<'_, str>> {
    value.text().or_else(|| value.number()).or_else(|| value.truth())
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: SubAppId = SubAppId(7);

    fn read(action: Action, body: impl AsRef<[u8]>) -> Result<ApiAnswer, RequestError> {
        ApiAnswer::read(action, APP, Bytes::copy_from_slice(body.as_ref()))
    }

    fn pull(body: impl AsRef<[u8]>) -> Result<Pull, RequestError> {
        let answer = read(Action::PullEvents, body)?;
        match answer.error() {
            Some(error) if !answer.is_idle() => Err(error),
            _ => answer.into_pull(),
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
        assert_eq!(pull(body).unwrap_err().failure, FailureKind::Configuration);
        let body = r#"{"Response":{"Error":{"Code":"ResourceNotFound","Message":"no event"}}}"#;
        let answer = read(Action::ConfirmEvents, body).unwrap();
        assert!(!answer.is_idle());
        assert_eq!(answer.error().unwrap().failure, FailureKind::Refused);
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
        let pull = ApiAnswer::read(Action::PullEvents, APP, body.clone()).unwrap().into_pull().unwrap();
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
        assert_eq!(&*pull.request_id, "r\u{fffd}");
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
            assert_eq!((error.code.as_str(), error.failure), (code, FailureKind::Transient), "{shown}");
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
