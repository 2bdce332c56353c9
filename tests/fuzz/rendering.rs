//! What consumers get: routing keys, lines on standard output, CloudEvents.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tencent_vod_event::{Event, MessageId, SubAppId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vodrelay::config::Config;
use vodrelay::output::message::BodyFormat;
use vodrelay::output::stdout;
use vodrelay::routing_key::RoutingKeyTemplate;
use vodrelay_core::clock::WallTime;
use vodrelay_core::identity::EventId;
use vodrelay_core::outcome::PublishOutcome;
use vodrelay_core::outgoing::Outgoing;

use crate::harness::{cases, fuzz, rng};
use crate::json::{Json, event};

const PLACEHOLDERS: [&str; 4] = ["{sub_app_id}", "{event_type}", "{file_id}", "{task_id}"];

fn parse(sub_app: u64, text: impl Into<Bytes>) -> Event {
    Event::parse(SubAppId(sub_app), text.into()).unwrap()
}

/// Text that is mostly a template.
fn template() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(&PLACEHOLDERS[..]).prop_map(str::to_owned),
        2 => Just(".".to_owned()),
        2 => "[a-z.#*_ -]{0,12}",
        1 => any::<String>(),
        1 => "[{}a-z]{0,3}",
        1 => "[a-z.]{100,256}",
        1 => "[句柄é]{0,90}",
    ];
    prop::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat())
}

/// What data may say, long and short.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[A-Za-z0-9_-]{0,12}",
        1 => "[A-Za-z0-9.#*_-]{200,600}",
        1 => any::<String>(),
        1 => Just(String::new()),
    ]
}

/// The parts that the template is made of: fixed text, and places for data.
fn pieces(template: &str) -> Vec<Result<&str, usize>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let found = PLACEHOLDERS.iter().position(|placeholder| rest.starts_with(placeholder));
        match found {
            Some(at) => {
                pieces.push(Err(at));
                rest = &rest[PLACEHOLDERS[at].len()..];
            }
            None => {
                let end = rest.find('{').unwrap_or(rest.len());
                pieces.push(Ok(&rest[..end]));
                rest = &rest[end..];
            }
        }
    }
    pieces
}

/// Asserts what must hold for every key, by a reading of the template that is not the program's.
fn check_key(template: &str, event: &Event, data: [&str; 4]) {
    let key = template.parse::<RoutingKeyTemplate>().unwrap().key(event);
    let pieces = pieces(template);
    assert!(key.len() <= 255, "{} bytes: {template} {key}", key.len());
    let fixed: String = pieces.iter().filter_map(|piece| piece.ok()).collect();
    let count = |text: &str, c: char| text.matches(c).count();
    for special in ['.', '*', '#'] {
        assert_eq!(count(&key, special), count(&fixed, special), "{special}: {template} {key}");
    }
    assert!(!key.contains(char::is_control), "{key:?}");
    // Every piece is there, in its order: fixed text whole, data confined and cut only where it has to be.
    let confined = |(at, text): (usize, &str)| -> String {
        let missing = ["", "unknown", "none", "none"][at];
        if text.is_empty() { missing.to_owned() } else { text.chars().map(confine).collect() }
    };
    let data: Vec<String> = data.into_iter().enumerate().map(confined).collect();
    let whole: String =
        pieces.iter().map(|piece| piece.map_or_else(|at| data[at].as_str(), |text| text)).collect();
    if whole.len() <= 255 {
        assert_eq!(key, whole, "{template}");
        return;
    }
    let mut cut = 256;
    while cut > 0 {
        cut -= 1;
        let short: String = pieces
            .iter()
            .map(|piece| piece.map_or_else(|at| &data[at][..data[at].len().min(cut)], |t| t))
            .collect();
        if short.len() <= 255 {
            assert_eq!(key, short, "{template}: nothing is cut more than it must be");
            return;
        }
    }
    panic!("{template} has no room for itself");
}

fn confine(c: char) -> char {
    if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn a_key_has_the_shape_of_its_template_whatever_the_data(
        template in template(),
        sub_app in any::<u64>(),
        kind in part(),
        file in part(),
        task in part(),
        seed in any::<u64>(),
    ) {
        let parsed = template.parse::<RoutingKeyTemplate>();
        // What the configuration lets pass, the output takes.
        let variable = ("VODRELAY_AMQP__ROUTING_KEY".to_owned(), template.clone());
        let config = Config::from_variables(std::iter::once(variable));
        prop_assert!(config.is_err() || parsed.is_ok(), "{:?} {:?}", template, parsed);
        if let Ok(parsed) = parsed {
            prop_assert_eq!(parsed.to_string(), template.clone());
            let ids = [("FileId", &file), ("TaskId", &task)].map(|(k, v)| (k.to_owned(), Json::Text(v.clone())));
            let event = Json::Object(vec![
                ("EventType".to_owned(), Json::Text(kind.clone())),
                ("E".to_owned(), Json::Object(ids.into())),
            ]);
            let event = parse(sub_app, event.spelled(&mut rng(seed)));
            check_key(&template, &event, [&sub_app.to_string(), &kind, &file, &task]);
        }
    }
}

/// Where a test reads what the output wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn message(event: Event, seed: u64) -> Outgoing {
    let mut rng = rng(seed);
    let id = MessageId::new(&event.fingerprint, rng.u32(..));
    Outgoing {
        message_id: id,
        event: event.into(),
        occurrence: rng.u32(..),
        redelivered: rng.bool(),
        pulled_at: WallTime([0, i64::MAX, i64::MIN, rng.i64(..), 1_551_113_065_007][rng.usize(..5)]),
        request_id: ["", "r", "line\r\nbreak\u{2028}\"\\\0"][rng.usize(..3)].into(),
    }
}

/// What standard output gets for these messages.
fn lines(messages: &[Outgoing], format: BodyFormat) -> Vec<u8> {
    let written = Written::default();
    let writer = written.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let options = stdout::Options { routing_key: RoutingKeyTemplate::default(), format };
        let shutdown = CancellationToken::new();
        let (output, task) = stdout::spawn_to(options, writer, shutdown.clone());
        let (outcomes, mut told) = mpsc::unbounded_channel();
        for (number, message) in (1..).zip(messages) {
            output.publish(EventId(number), message.clone().into(), false, &outcomes);
        }
        let mut acked = Vec::new();
        while acked.len() < messages.len() {
            for (event, outcome) in told.recv().await.unwrap() {
                assert_eq!(outcome, PublishOutcome::Acked);
                acked.push(event.0);
            }
        }
        acked.sort_unstable();
        assert!(acked.iter().copied().eq((1..).take(messages.len())), "{acked:?}");
        shutdown.cancel();
        task.await.unwrap().unwrap();
    });
    written.0.lock().unwrap().clone()
}

#[derive(Deserialize)]
struct Line<'a> {
    message_id: String,
    routing_key: String,
    headers: Value,
    #[serde(borrow)]
    event: &'a RawValue,
}

#[derive(Deserialize)]
struct CloudEvent<'a> {
    specversion: String,
    id: String,
    source: String,
    r#type: String,
    time: String,
    datacontenttype: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn check_message(message: &Outgoing, line: &[u8]) {
    // Only bytes that the cloud sent can be no text; what is around them is.
    let text = String::from_utf8_lossy(line);
    let body = String::from_utf8_lossy(&message.event.body);
    assert_eq!(matches!(text, std::borrow::Cow::Owned(_)), matches!(body, std::borrow::Cow::Owned(_)));
    let line: Line<'_> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(line.event.get(), body.replace(['\r', '\n'], " ").trim_ascii());
    assert_eq!(line.message_id, message.message_id.as_str());
    assert_eq!(line.routing_key, RoutingKeyTemplate::default().key(&message.event));
    assert!(line.headers.is_object());
    let said = parse(message.event.sub_app.0, line.event.get().to_owned());
    let meant = parse(message.event.sub_app.0, body.into_owned());
    assert_eq!((said.fingerprint, said.handle), (meant.fingerprint, meant.handle));

    let bytes = BodyFormat::CloudEvents.body(message);
    let text = String::from_utf8_lossy(&bytes);
    let envelope: CloudEvent<'_> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(envelope.data.get(), String::from_utf8_lossy(&message.event.body).trim_ascii());
    let required = [envelope.id, envelope.source, envelope.r#type, envelope.time, envelope.datacontenttype];
    assert!(envelope.specversion == "1.0" && required.iter().all(|value| !value.is_empty()), "{text}");
    assert!(bytes.windows(message.event.body.len()).any(|part| part == message.event.body));
    assert_eq!(BodyFormat::Event.body(message), message.event.body);
}

/// One line for each message, and what it must say.
fn check_messages(messages: &[Outgoing]) {
    for format in [BodyFormat::Event, BodyFormat::CloudEvents] {
        let written = lines(messages, format);
        assert_eq!(written.last(), Some(&b'\n'));
        let written: Vec<&[u8]> = written[..written.len() - 1].split(|byte| *byte == b'\n').collect();
        assert_eq!(written.len(), messages.len());
        assert!(!written.iter().any(|line| line.contains(&b'\r')));
        for (message, line) in messages.iter().zip(written) {
            match format {
                BodyFormat::Event => check_message(message, line),
                BodyFormat::CloudEvents => {
                    let text = String::from_utf8_lossy(line);
                    let line: Line<'_> = serde_json::from_str(&text).unwrap();
                    assert!(serde_json::from_str::<CloudEvent<'_>>(line.event.get()).is_ok(), "{text}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn a_message_is_one_line_and_holds_its_event(
        events in prop::collection::vec(event(), 1..12),
        seed in any::<u64>(),
    ) {
        let mut rng = rng(seed);
        let messages: Vec<Outgoing> = events
            .iter()
            .map(|event| message(parse(rng.u64(..), event.spelled(&mut rng)), rng.u64(..)))
            .collect();
        check_messages(&messages);
    }
}

#[test]
fn mutated_events_are_one_line_too() {
    const BATCH: usize = 64;
    let mut batch = Vec::new();
    fuzz("events", &["\n", "\r", "\r\n", "\u{2028}", "\"", "\\", "\\n", "{", "}"], 6_000, |input| {
        let text = String::from_utf8_lossy(input);
        // As the answer's reader hands them on: JSON but for bytes that are not UTF-8.
        if serde_json::from_str::<&RawValue>(&text).is_ok() && !input.is_empty() {
            batch.push(message(parse(7, input.to_vec()), batch.len() as u64));
        }
        if batch.len() == BATCH {
            check_messages(&std::mem::take(&mut batch));
        }
    });
    assert!(
        batch.is_empty() || {
            check_messages(&batch);
            true
        }
    );
}
