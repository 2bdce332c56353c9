//! The journal: whatever an event's bytes are, they are kept, given back and shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tencent_vod_event::{Event, SubAppId};
use vodrelay::cli::events::{self, ShowArgs};
use vodrelay::clock::Now as _;
use vodrelay::journal::{Journal, Options};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::identity::EventId;
use vodrelay_core::lease::Window;
use vodrelay_core::write::{PullId, Pulled};
use vodrelay_testkit::asks::Asks as _;

use crate::harness::fuzz;

const WINDOW: Window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };

fn answer(events: Vec<Arc<Event>>) -> Pulled {
    let (now, wall) = (Moment::now(), WallTime::now());
    Pulled {
        pull: PullId(1),
        sub_app: SubAppId(7),
        request_id: "r".into(),
        lease: WINDOW.lease(now),
        received_at: now,
        pulled_at: wall,
        events,
        publish_now: false,
    }
}

#[test]
fn mutated_events_are_kept_byte_for_byte_and_can_be_shown() {
    const BATCH: usize = 16;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { path: folder.path().join("journal.db") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (journal, writer) = Journal::open(&options).unwrap();
    let (mut batch, mut kept) = (Vec::new(), BTreeMap::<EventId, Arc<Event>>::new());
    let mut record = |events: Vec<Arc<Event>>| {
        let recorded = runtime.block_on(journal.record(answer(events.clone()))).unwrap();
        for (recorded, event) in recorded.iter().zip(events) {
            // A later delivery of the same event may be spelled in another way: the first one is kept.
            kept.entry(recorded.event).or_insert(event);
        }
    };
    fuzz("events", &["\\u0000", "\\ud800", "\"", "{", "}", "1"], 1_000, |input| {
        let text = String::from_utf8_lossy(input);
        // All of them are held in memory at the end.
        if input.len() < 4_096 && serde_json::from_str::<&RawValue>(&text).is_ok() {
            batch.push(Arc::new(Event::parse(SubAppId(7), input.to_vec().into()).unwrap()));
        }
        if batch.len() == BATCH {
            record(std::mem::take(&mut batch));
        }
    });
    record(batch);
    drop(journal);
    writer.join().unwrap();

    let (journal, writer) = Journal::open(&options).unwrap();
    let loaded = runtime.block_on(journal.load(EventId(0), u32::MAX)).unwrap();
    assert_eq!(loaded.len(), kept.len());
    for loaded in &loaded {
        let event = &kept[&loaded.event];
        assert_eq!(loaded.outgoing.event.body, event.body);
        assert_eq!(loaded.outgoing.event.fingerprint, event.fingerprint);
        assert_eq!(loaded.outgoing.event.event_type, event.event_type);
    }
    for event in loaded.iter().take(100) {
        for json in [false, true] {
            let mut shown = Vec::new();
            let args = ShowArgs { id: event.event.0.to_string(), json };
            events::show(&options.path, &args, vodrelay::cli::screen::Screen::default(), &mut shown).unwrap();
            assert!(!json || serde_json::from_slice::<Shown<'_>>(&shown).is_ok(), "{}", shown.escape_ascii());
        }
    }
    drop(journal);
    writer.join().unwrap();
}

/// What programs read of an event that is shown.
#[derive(serde::Deserialize)]
struct Shown<'a> {
    #[serde(rename = "message_id")]
    _message_id: Value,
    #[serde(borrow, rename = "body")]
    _body: &'a RawValue,
}
