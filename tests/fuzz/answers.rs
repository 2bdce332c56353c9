//! The cloud's answers: every event byte for byte, or a clear error; in bounded memory and linear time.

use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tencent_vod::{Pull, RequestError, answers};
use tencent_vod_event::{Event, SubAppId};

use crate::harness::{cases, fuzz, rng};
use crate::json::{Json, event, json};

const APP: SubAppId = SubAppId(7);

/// What reading an answer may hold at one time: a multiple of the answer, and what its events need however short they are:
/// half a kilobyte for each of the 1,024 that there can be.
const MOST_BYTES_PER_BYTE: u64 = 32;
const MOST_BYTES_ANYHOW: u64 = 1024 * 512;

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "1",
    "-0",
    "1e999999",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\u{feff}",
    "{}",
    "[]",
    "\"Response\":",
    "\"EventSet\":",
    "\"EventSet\":null,",
    "\"EventHandle\":\"h\",",
    "\"EventHandle\":null",
    "\"Error\":{\"Code\":\"",
    "\"Error\":null,",
    "\"RequestId\":\"r\"",
    "ResourceNotFound",
    "\"FileId\":\"",
    "\"FileIdSet\":[",
    "\"EventType\":",
    "<html>",
    "\r\n",
    "é",
    "句",
];

fn pull(body: &Bytes) -> (Result<Pull, RequestError>, AllocationInfo) {
    let mut read = None;
    let body = body.clone();
    let memory = measure(|| read = Some(answers::pull(APP, body)));
    (read.unwrap(), memory)
}

fn assert_bounded(memory: AllocationInfo, length: usize, what: &str) {
    let most = MOST_BYTES_ANYHOW + MOST_BYTES_PER_BYTE * length as u64;
    assert!(memory.bytes_max <= most, "{what}: {} bytes for {length}", memory.bytes_max);
}

/// Errors are for people and for metrics: their words are known, and their text is one bounded line.
fn assert_clear(error: &RequestError) {
    let ours = ["not_json", "not_an_answer"].contains(&error.code.as_str());
    let code = &error.code;
    assert!(ours || (code.len() <= 100 && code.chars().all(|c| c.is_ascii_graphic())), "{code:?}");
    let message = &error.message;
    assert!(!message.is_empty() || !ours, "{error:?}");
    assert!(message.chars().count() <= 501 && !message.contains(char::is_control), "{message:?}");
}

/// What must hold for any answer whatsoever.
fn check(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let (read, memory) = pull(&body);
    assert_bounded(memory, input.len(), "an answer");
    let value: Option<Value> = serde_json::from_slice(input).ok();
    let response = value.as_ref().and_then(|value| value.get("Response")).filter(|r| r.is_object());
    match &read {
        Err(error) => {
            assert_clear(error);
            let promised = response.is_some_and(|response| {
                response.get("Error").is_none_or(Value::is_null)
                    && response.get("EventSet").and_then(Value::as_array).is_some_and(|set| set.len() <= 1024)
            });
            assert!(!promised, "{error}");
        }
        Ok(pull) => check_events(pull, &body, response),
    }
    for error in [
        answers::confirmed(body.clone()).err(),
        answers::count(body.clone()).err(),
        answers::event_config(body).err(),
    ] {
        error.iter().for_each(assert_clear);
    }
}

/// The events are slices of the answer, in its order, with nothing between them but a comma; and they are what another
/// reader of JSON finds there, where that one can read it.
fn check_events(pull: &Pull, answer: &Bytes, response: Option<&Value>) {
    let at = |event: &Event| event.body.as_ptr().addr() - answer.as_ptr().addr();
    for pair in pull.events.windows(2) {
        let between = &answer[at(&pair[0]) + pair[0].body.len()..at(&pair[1])];
        assert_eq!(between.trim_ascii(), b",");
    }
    for event in &pull.events {
        let text = String::from_utf8_lossy(&event.body);
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok(), "{text}");
    }
    let Some(response) = response else { return };
    let empty = Vec::new();
    let set = response.get("EventSet").and_then(Value::as_array).unwrap_or(&empty);
    if response.get("Error").is_some_and(|error| !error.is_null()) {
        assert!(pull.events.is_empty(), "an error that brings events");
        return;
    }
    let read: Vec<Value> =
        pull.events.iter().map(|event| serde_json::from_slice(&event.body).unwrap()).collect();
    assert_eq!(read, *set);
    for (event, value) in pull.events.iter().zip(set) {
        let once = event.body.windows(11).filter(|part| part == b"EventHandle").count() == 1;
        // A name that is escaped would be another one to count.
        if once && !event.body.windows(2).any(|part| part == b"\\u") {
            let handle = value.get("EventHandle").and_then(Value::as_str).filter(|text| !text.is_empty());
            let is_text = value.get("EventHandle").is_some_and(Value::is_string);
            assert!(!is_text || event.handle.as_ref().map(|handle| &*handle.0) == handle);
        }
    }
}

#[test]
fn mutated_answers_bring_their_events_or_a_clear_error() {
    fuzz("answers", TOKENS, 8_000, check);
}

#[test]
fn mutated_events_are_read_or_refused() {
    fuzz("events", TOKENS, 8_000, |input| {
        let body = Bytes::copy_from_slice(input);
        let mut read = None;
        let memory = measure(|| read = Some(Event::parse(APP, body)));
        assert_bounded(memory, input.len(), "an event");
        let text = String::from_utf8_lossy(input);
        if serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok() {
            assert_eq!(read.unwrap().unwrap().body, input);
        }
        // In an answer an event does what it does alone, and its neighbours do what they do.
        if serde_json::from_slice::<&serde_json::value::RawValue>(input).is_ok() {
            let answer = [b"{\"Response\":{\"EventSet\":[{\"EventHandle\":\"a\"},", input, b",2]}}"].concat();
            let pull = answers::pull(APP, answer.into()).unwrap();
            assert_eq!(pull.events.len(), 3);
            assert_eq!(pull.events[1].body, input.trim_ascii());
        }
    });
}

/// An answer around events, with members around them that nobody asked for.
fn answer(events: &[Vec<u8>], around: &[(String, Json)], rng: &mut fastrand::Rng) -> Vec<u8> {
    let space = |rng: &mut fastrand::Rng| ["", " ", "\n", "\t \r\n"][rng.usize(..4)].as_bytes().to_vec();
    let mut set = b"\"EventSet\":[".to_vec();
    for (at, event) in events.iter().enumerate() {
        set.extend(if at > 0 { &b","[..] } else { b"" });
        set.extend([space(rng), event.clone(), space(rng)].concat());
    }
    set.push(b']');
    let mut members: Vec<Vec<u8>> = around
        .iter()
        .filter(|(name, _)| !["EventSet", "Error", "RequestId", "Response"].contains(&name.as_str()))
        .map(|(name, value)| format!("{}:{}", Json::Text(name.clone()).plain(), value.plain()).into_bytes())
        .collect();
    members.push(b"\"RequestId\":\"r\"".to_vec());
    // Of equal names the last counts, so that earlier ones are free to say anything.
    let mut decoys: Vec<Vec<u8>> = vec![b"\"EventSet\":[1,2]".to_vec(), b"\"EventSet\":7".to_vec()];
    decoys.truncate(rng.usize(..3));
    members.extend(decoys);
    rng.shuffle(&mut members);
    members.push(set);
    let envelope = [&space(rng)[..], b"{", &members.join(&b","[..]), b"}", &space(rng)].concat();
    let before: &[u8] = if rng.bool() { b"{\"Response\":null,\"a\":[{}]," } else { b"{" };
    [before, b"\"Response\":", &envelope, b"}", &space(rng)].concat()
}

/// Puts bytes that are not UTF-8 behind the first quote, if there is one: most likely into a string.
fn spoilt(event: String, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = event.into_bytes();
    const BAD: [&[u8]; 5] = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xd6\xd0", b"\xf0\x9f"];
    if let Some(quote) = bytes.iter().position(|byte| *byte == b'"') {
        bytes.splice(quote + 1..quote + 1, BAD[rng.usize(..BAD.len())].iter().copied());
    }
    bytes
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn an_answer_gives_exactly_its_events(
        events in prop::collection::vec((event(), 0_u8..4), 0..6),
        around in prop::collection::vec((any::<String>(), json()), 0..3),
        seed in any::<u64>(),
    ) {
        let mut rng = rng(seed);
        let events: Vec<Vec<u8>> = events
            .iter()
            .map(|(event, spoil)| {
                let spelled = event.spelled(&mut rng);
                if *spoil == 0 { spoilt(spelled, &mut rng) } else { spelled.into_bytes() }
            })
            .collect();
        let answer = answer(&events, &around, &mut rng);
        let pull = answers::pull(APP, answer.clone().into());
        let pull = pull.unwrap_or_else(|error| panic!("{error}: {}", answer.escape_ascii()));
        let bodies: Vec<&[u8]> = pull.events.iter().map(|event| &event.body[..]).collect();
        prop_assert_eq!(bodies, events);
        prop_assert_eq!(&*pull.request_id, "r");
    }
}

/// Bodies of about `size` bytes that cost as much as they can.
fn hostile(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let wrap = |events: String| format!(r#"{{"Response":{{"EventSet":[{events}],"RequestId":"r"}}}}"#);
    let many = |part: &str| part.repeat(size / part.len());
    let pairs = |open: &str, close: &str| {
        let depth = size / (open.len() + close.len());
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    let names = |name: fn(usize) -> String| {
        let count = size / (name(0).len() + 3);
        format!("{{{}}}", (0..count).map(|n| format!("{}:1", name(n))).collect::<Vec<_>>().join(","))
    };
    let text = [
        ("scalars in one event", wrap(format!("[{}1]", many("1,")))),
        ("empty objects in one event", wrap(format!("[{}1]", many("{},")))),
        ("scalar events", wrap(format!("{}1", many("1,")))),
        ("members of no name", wrap(format!("{{{}\"a\":1}}", many("\"\":1,")))),
        ("members of one name", wrap(format!("{{{}\"a\":1}}", many("\"EventHandle\":\"h\",")))),
        ("null members", wrap(format!("{{{}\"a\":1}}", many("\"FileId\":null,")))),
        ("members in reverse", wrap(names(|n| format!("\"{:08}\"", 99_999_999 - n)))),
        ("escaped members in reverse", wrap(names(|n| format!("\"\\u0061{:08}\"", 99_999_999 - n)))),
        ("objects with a file", wrap(names(|n| format!("\"{n:08}\":{{\"FileIdSet\":[1,2]}},\"x{n:08}\"")))),
        ("members of the envelope", format!("{{\"Response\":{{{}\"EventSet\":[]}}}}", many("\"\":1,"))),
        ("envelopes", format!("{{{}\"Response\":{{}}}}", many("\"Response\":{\"EventSet\":[{}]},"))),
        ("event sets", format!("{{\"Response\":{{{}\"a\":1}}}}", many("\"EventSet\":[{}],"))),
        ("nested arrays", wrap(pairs("[", "]"))),
        ("nested objects", wrap(pairs("{\"\":", "}"))),
        ("nested unsorted objects", wrap(pairs("{\"b\":1,\"a\":", "}"))),
        ("nesting around the answer", pairs("[", "]")),
        ("nesting in the envelope", format!("{{\"Response\":{{\"x\":{}}}}}", pairs("[", "]"))),
        ("nesting that does not end", wrap(many("["))),
        ("objects that do not end", many("{\"Response\":")),
        ("a long text", wrap(format!("\"{}\"", many("x")))),
        ("a text of escapes", wrap(format!("\"{}\"", many("\\u0001")))),
        ("a text of line breaks", wrap(format!("\"{}\"", many("\\n")))),
        ("a text of lone surrogates", wrap(format!("\"{}\"", many("\\ud800")))),
        ("a text that does not end", format!("{{\"Response\":\"{}", many("\\\""))),
        ("a long number", wrap(many("1"))),
        ("a long key", wrap(format!("{{\"b\":1,\"\\u0061{}\":1}}", many("x")))),
        ("a long handle", wrap(format!("{{\"EventHandle\":\"{}\"}}", many("\\n")))),
        (
            "a long error",
            format!("{{\"Response\":{{\"Error\":{{\"Code\":\"{0}\",\"Message\":\"{0}\"}}}}}}", many("é")),
        ),
        ("white space", format!("{}{{\"Response\":{{}}}}", many(" "))),
        ("documents", many("{\"Response\":{\"EventSet\":[]}}")),
    ];
    let bytes = [
        ("zeros", vec![0; size]),
        ("bytes that are no text", vec![0xff; size]),
        (
            "a text of bytes that are no text",
            [b"{\"Response\":{\"EventSet\":[\"", &vec![0xff; size][..], b"\"]}}"].concat(),
        ),
    ];
    text.map(|(name, text)| (name, text.into_bytes())).into_iter().chain(bytes).collect()
}

/// The time that this thread has been at work, whoever else is on the machine.
fn worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

#[test]
fn cost_grows_with_the_size_and_no_faster() {
    const TIMES: usize = 8;
    let (small, large) = (hostile(32 * 1024), hostile(TIMES * 32 * 1024));
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        let (small, large) = (Bytes::from(small), Bytes::from(large));
        let cost = |body: &Bytes| {
            let began = worked();
            let (read, memory) = pull(body);
            assert_bounded(memory, body.len(), name);
            read.iter().for_each(|pull| check_lengths(pull, body));
            read.err().iter().for_each(assert_clear);
            (memory, worked() - began)
        };
        let ((few, short), (many, long)) = (cost(&small), cost(&large));
        // Eight times as much may cost sixteen times as much, and not sixty-four.
        let factor = 2 * TIMES as u64;
        assert!(many.count_total <= factor * few.count_total + 64, "{name}: {few:?} {many:?}");
        assert!(many.bytes_total <= factor * few.bytes_total + 4_096, "{name}: {few:?} {many:?}");
        let limit = 4 * TIMES as u32 * short + Duration::from_millis(50);
        assert!(long <= limit, "{name}: {short:?} for {}, {long:?} for {}", small.len(), large.len());
    }
}

fn check_lengths(pull: &Pull, answer: &Bytes) {
    assert!(pull.events.iter().map(|event| event.body.len()).sum::<usize>() <= answer.len());
}

#[test]
fn ten_megabytes_and_a_hundred_thousand_levels_are_read_or_refused_in_bounded_memory() {
    const DEPTH: usize = 100_000;
    let filled = |length: usize| "x".repeat(length);
    let event =
        |n: usize| format!(r#"{{"EventHandle":"h{n}","EventType":"T","Blob":"{}"}}"#, filled(640_000));
    let deep = format!(r#"{{"EventHandle":"d","D":{}1{}}}"#, "[{\"a\":".repeat(DEPTH), "}]".repeat(DEPTH));
    let events: Vec<String> = (0..16).map(event).collect();
    let around = |events: &[String]| format!(r#"{{"Response":{{"EventSet":[{}]}}}}"#, events.join(","));
    for (events, what) in [(events, "ten megabytes"), (vec![event(1), deep, event(2)], "deep nesting")] {
        let body = Bytes::from(around(&events));
        let (read, memory) = pull(&body);
        assert_bounded(memory, body.len(), what);
        let read = read.unwrap().events;
        assert!(read.iter().map(|event| &event.body[..]).eq(events.iter().map(String::as_bytes)), "{what}");
        assert!(read.iter().all(|event| event.handle.is_some()), "{what}");
    }
    let around = Bytes::from(format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH)));
    assert_eq!(pull(&around).0.unwrap_err().code, "not_an_answer");
    let megabytes = Bytes::from(filled(10_000_000));
    let (read, memory) = pull(&megabytes);
    assert_bounded(memory, megabytes.len(), "rubbish");
    assert_eq!(read.unwrap_err().code, "not_json");
}
