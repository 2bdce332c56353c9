//! Maintenance of real journals, with schedules of every second.

mod backup;
mod running;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tencent_vod_event::Event;
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::identity::EventId;
use vodrelay_core::lease::Lease;
use vodrelay_core::write::{ConfirmedDelivery, PullId, Pulled, Write, Written};

use super::*;
use crate::clock::Now as _;
use crate::journal;

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

fn open(folder: &tempfile::TempDir) -> Journal {
    let options = journal::Options { path: folder.path().join("journal.db") };
    let (journal, writer) = Journal::open(&options).unwrap();
    drop(writer);
    journal
}

/// Records these events as ones of that age. The first of them are confirmed.
async fn record(journal: &Journal, numbers: std::ops::Range<usize>, confirmed: usize, age: Duration) {
    let at = WallTime::now() - age;
    let now = Moment::now();
    let padding = "x".repeat(1_000);
    let pulled = Pulled {
        pull: PullId(1),
        sub_app: SubAppId(0),
        request_id: "r".into(),
        lease: Lease { sent_at: now, cutoff: now + Duration::from_secs(27) },
        received_at: now,
        pulled_at: at,
        events: numbers
            .map(|n| {
                let json = format!(r#"{{"EventHandle":"h{n}","N":{n},"Padding":"{padding}"}}"#);
                Arc::new(Event::parse(SubAppId(0), Bytes::from(json)).unwrap())
            })
            .collect(),
        publish_now: true,
    };
    let lease = pulled.lease;
    let written = journal.ask(Write::Record(Arc::new(pulled))).await.unwrap();
    let Written::Recorded(_, recorded) = written else { unreachable!() };
    let done = recorded[..confirmed].iter();
    let events: Arc<[EventId]> = done.clone().map(|record| record.event).collect();
    journal.ask_at(Write::Published(events), at).await.unwrap();
    let deliveries = done.map(|record| ConfirmedDelivery {
        delivery: record.delivery,
        event: record.event,
        lease,
        received_at: now,
        confirmed_at: now,
    });
    journal.ask_at(Write::Confirmed(deliveries.collect()), at).await.unwrap();
}

#[tokio::test]
async fn confirmed_events_go_after_their_retention_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    record(&journal, 0..600, 590, 31 * DAY).await;
    assert_eq!(prune::run(&journal, RETENTION + 2 * DAY).await, Ok(0));
    assert_eq!(prune::run(&journal, RETENTION).await, Ok(590));
    let summary = journal.summary(None).await.unwrap();
    assert_eq!((summary.received, summary.confirmed), (10, 0));
}

#[tokio::test]
async fn the_room_of_pruned_events_goes_back_to_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    for hundred in 0..30 {
        record(&journal, hundred * 100..hundred * 100 + 100, 100, 31 * DAY).await;
    }
    assert_eq!(vacuum::run(&journal).await, Ok(0), "nothing is free yet");
    prune::run(&journal, RETENTION).await.unwrap();
    let reader = rusqlite::Connection::open(journal.path()).unwrap();
    let pages = |pragma: &str| -> u64 {
        reader.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    };
    let (before, free) = (pages("page_count"), pages("freelist_count"));
    assert!(free > 250, "more than a few steps: {free} of {before} pages");
    assert_eq!(vacuum::run(&journal).await, Ok(free));
    assert_eq!(pages("freelist_count"), 0);
    // Pages with the places of others go with them.
    assert!(pages("page_count") <= before - free, "{before} pages before, {free} of them free");
    let sound: String = reader.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[tokio::test]
async fn a_summary_is_of_what_was_done_since_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&folder);
    let at =
        |n| Figures { received: n, redelivered: 2 * n, published: 3 * n, confirmed: 4 * n, parked: 5 * n };
    let mut summary = DailySummary::new(at(1));
    assert_eq!(summary.run(&journal, [].into(), at(3)).await, Ok(at(2)));
    assert_eq!(summary.run(&journal, [].into(), at(3)).await, Ok(at(0)));
    assert_eq!(summary.run(&journal, [].into(), at(10)).await, Ok(at(7)));
}
