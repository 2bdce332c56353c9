//! An event: something that happened in VOD, as the bytes from the cloud.

mod canonical;
mod document;
mod latest;

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use document::Malformed;
pub use document::{Document, DocumentReader, Value};
pub use latest::LatestTime;

/// A sub-application; 0 is the account's default application, which requests do not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubAppId(pub u64);

impl fmt::Display for SubAppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The cloud's receipt for one delivery. Opaque: no length, no character set, and never an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventHandle(pub Arc<str>);

impl fmt::Display for EventHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Digest of what an event says, without its handle: SHA-256 over the sub-application id in decimal, a line
/// feed, and the event's canonical form. Equal events have equal fingerprints, so it is not an identity
/// either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        f.write_str(hex_digits(&self.0, &mut digits))
    }
}

/// The hex digits of `bytes`; `digits` has twice their length.
fn hex_digits<'a>(bytes: &[u8], digits: &'a mut [u8]) -> &'a str {
    hex::encode_to_slice(bytes, digits).expect("two digits a byte");
    std::str::from_utf8(digits).expect("digits are ASCII")
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id by which consumers drop repeats: the same for every publish of one occurrence, on every relay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// The id of the `occurrence`-th event (from 1) with this fingerprint.
    pub fn new(fingerprint: &Fingerprint, occurrence: u32) -> Self {
        let mut digits = [0; 32];
        let digest = hex_digits(&fingerprint.0[..16], &mut digits);
        if occurrence <= 1 { Self(digest.into()) } else { Self(format!("{digest}-{occurrence}").into()) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One event as one delivery brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The sub-application whose queue it came from.
    pub sub_app: SubAppId,
    /// The event's JSON, byte for byte as the cloud sent it.
    pub body: Bytes,
    /// The handle of this delivery. An event without one is carried and cannot be confirmed. A value that is
    /// not text (invalid UTF-8, a lone surrogate) could not be sent back unchanged, so it counts as none.
    pub handle: Option<EventHandle>,
    /// `EventType`, if the event has one.
    pub event_type: Option<Arc<str>>,
    /// The `FileId` of the event's body, by its literal text, if there is just one.
    pub file_id: Option<Arc<str>>,
    /// The `TaskId` of the event's body, by its literal text.
    pub task_id: Option<Arc<str>>,
    /// What the event says.
    pub fingerprint: Fingerprint,
    /// The latest time that the event names.
    pub latest_time: LatestTime,
}

impl Event {
    /// Reads one element of an `EventSet`. Anything that is JSON is an event: an unknown type, unknown
    /// members, no type, no handle, not even an object. Strings may hold bytes that are not UTF-8: they are
    /// bytes too.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when `body` is not one JSON value.
    pub fn parse(sub_app: SubAppId, body: Bytes) -> Result<Self, Malformed> {
        let document = Document::parse(&body)?;
        Ok(Self::read(sub_app, body.clone(), &document))
    }

    /// The event in `body`, from which `document` was read.
    pub fn read(sub_app: SubAppId, body: Bytes, document: &Document<'_>) -> Self {
        let root = document.root();
        let handle = root.member("EventHandle").and_then(handle_text).map(|h| EventHandle((*h).into()));
        let event_type = root.member("EventType").and_then(|v| v.text()).filter(|t| !t.is_empty());
        let contents = || root.elements().filter(|value| value.key().is_some() && value.is_object());
        let file_id = contents().find_map(|value| {
            value.member("FileId").and_then(scalar_text).or_else(|| {
                let mut ids = value.member("FileIdSet")?.elements();
                let only = ids.next()?;
                if ids.next().is_some() { None } else { scalar_text(only) }
            })
        });
        let task_id = contents().find_map(|value| value.member("TaskId").and_then(scalar_text));
        let mut said = Vec::with_capacity(32 + body.len());
        writeln!(said, "{sub_app}").expect("a Vec takes whatever is written");
        document.write_canonical(&mut said, "EventHandle");
        Self {
            sub_app,
            handle,
            event_type: event_type.map(|text| (*text).into()),
            file_id: file_id.map(|text| (*text).into()),
            task_id: task_id.map(|text| (*text).into()),
            fingerprint: Fingerprint(Sha256::digest(&said).into()),
            latest_time: LatestTime::of(&said),
            body,
        }
    }
}

/// A handle, if it can be sent back unchanged.
fn handle_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value.string() {
        Some(Cow::Borrowed(text)) => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Some(Cow::Owned(text)) => String::from_utf8(text).ok().map(Cow::Owned),
        None => value.number(),
    }
    .filter(|text| !text.is_empty())
}

/// A string's text, or a number's literal text; documents print some ids as bare numbers beyond 2^53. Empty is absent.
fn scalar_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    value.text().or_else(|| value.number()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event {
        Event::parse(SubAppId(7), Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    #[test]
    fn the_usual_event_gives_up_its_ids_and_keeps_its_bytes() {
        let json = r#"{"EventHandle":"h1","EventType":"PullComplete",
            "PullCompleteEvent":{"TaskId":"t-1","FileId":"5285485487985271487","Progress":100}, "FileUploadEvent":null}"#;
        let event = event(json);
        assert_eq!(event.handle, Some(EventHandle("h1".into())));
        assert_eq!(event.event_type.as_deref(), Some("PullComplete"));
        assert_eq!(event.task_id.as_deref(), Some("t-1"));
        assert_eq!(event.file_id.as_deref(), Some("5285485487985271487"));
        assert_eq!(event.body, json.as_bytes());
    }

    #[test]
    fn a_number_keeps_its_literal_text_as_an_id() {
        let event = event(r#"{"EventHandle":123,"X":{"FileId":5285485487985271490}}"#);
        assert_eq!(event.file_id.as_deref(), Some("5285485487985271490"));
        assert_eq!(event.handle, Some(EventHandle("123".into())));
        assert_eq!(event.event_type, None);
    }

    #[test]
    fn one_deleted_file_is_named_and_many_are_not() {
        let one = event(r#"{"FileDeleteEvent":{"FileIdSet":["a"]}}"#);
        let two = event(r#"{"FileDeleteEvent":{"FileIdSet":["a","b"]}}"#);
        assert_eq!((one.file_id.as_deref(), two.file_id.as_deref()), (Some("a"), None));
    }

    #[test]
    fn anything_that_is_json_is_an_event() {
        for json in ["null", "[]", "\"x\"", "17", "{}", r#"{"EventHandle":null,"EventType":7}"#] {
            let event = event(json);
            assert_eq!((event.handle, event.event_type), (None, None), "{json}");
        }
        assert!(Event::parse(SubAppId(0), Bytes::from_static(b"{\"a\":}")).is_err());
    }

    #[test]
    fn a_handle_that_is_no_text_is_none_and_the_event_is_one() {
        assert_eq!(event(r#"{"EventHandle":"\ud800","EventType":"T"}"#).handle, None);
        let body = Bytes::from_static(b"{\"EventHandle\":\"\xff\",\"EventType\":\"T\xff\",\"x\":\"\xfe\"}");
        let event = Event::parse(SubAppId(7), body.clone()).unwrap();
        assert_eq!((event.handle, event.event_type.as_deref(), event.body), (None, Some("T\u{fffd}"), body));
    }

    #[test]
    fn the_fingerprint_ignores_the_handle_order_white_space_and_nulls_and_nothing_else() {
        let first = event(r#"{"EventHandle":"h1","EventType":"T","A":{"x":1,"y":[1,2,null]},"B":null}"#);
        let again = event(
            r#"{ "A" : {"y":[1, 2,null], "z": null, "\u0078":1}, "EventType":"T", "EventHandle":"h2" }"#,
        );
        assert_eq!(first.fingerprint, again.fingerprint);
        for other in [
            r#"{"EventType":"T","A":{"x":1.0,"y":[1,2,null]}}"#,
            r#"{"EventType":"T","A":{"x":1,"y":[2,1,null]}}"#,
            r#"{"EventType":"T","A":{"x":1,"y":[1,2]}}"#,
            r#"{"EventType":"T","A":{"x":"1","y":[1,2,null]}}"#,
            r#"{"EventType":"T","A":{"x":1,"y":[1,2,null],"EventHandle":"h1"}}"#,
        ] {
            assert_ne!(first.fingerprint, event(other).fingerprint, "{other}");
        }
        let elsewhere = Event::parse(SubAppId(8), first.body.clone()).unwrap();
        assert_ne!(first.fingerprint, elsewhere.fingerprint);
    }

    #[test]
    fn the_fingerprint_can_be_recomputed_with_a_shell() {
        // printf '7\n{"A":{"x":1},"EventType":"T"}' | sha256sum
        let event = event(r#"{"EventType":"T","EventHandle":"h","A":{"x":1}}"#);
        assert_eq!(
            event.fingerprint.to_string(),
            "b35da7d676ad0341faa83c0657462b00006f98ee879b7783e953db8023c73eb9"
        );
    }

    #[test]
    fn message_ids_name_the_occurrence_from_the_second_on() {
        let fingerprint = Fingerprint([0xab; 32]);
        assert_eq!(MessageId::new(&fingerprint, 1).as_str(), "ab".repeat(16));
        assert_eq!(MessageId::new(&fingerprint, 3).as_str(), format!("{}-3", "ab".repeat(16)));
    }
}
