//! A journal that an older program wrote, and counts that no trigger keeps.

use std::collections::BTreeSet;

use vodrelay::journal::query::EventRow;

use super::*;

const DIFFERS: &str = "SELECT count(*) FROM tally WHERE events <> (SELECT count(*) FROM event_log WHERE event_log.state = tally.state)";

#[tokio::test]
async fn a_journal_of_version_1_goes_on_as_one_of_version_2() {
    let mut desk = Desk::new();
    desk.stop();
    fs::remove_file(desk.path()).unwrap();
    let old = desk.sql();
    old.execute_batch(include_str!("../../fixtures/journal-v1.sql")).unwrap();
    let shown = |conn: &Connection| {
        let events = "SELECT id || message_id || state || occurrence || attempts || received_at
                             || coalesce(published_at, '-') || coalesce(confirmed_at, '-') || body FROM event_log ORDER BY id";
        let handles = "SELECT handle || event_id || pulled_at || outcome FROM handle_log ORDER BY handle";
        (texts(conn, events), texts(conn, handles))
    };
    let before = shown(&old);
    assert_eq!(number(&old, DIFFERS), 0);
    drop(old);

    desk.start();
    let sql = desk.sql();
    assert_eq!((number(&sql, "PRAGMA user_version"), number(&sql, DIFFERS)), (2, 0));
    assert_eq!(shown(&sql), before);
    assert_eq!(texts(&sql, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(number(&sql, "SELECT uncertain FROM event WHERE id = 1"), 1, "it may have left before");
    let loaded = desk.journal().load(EventId(0), 10).await.unwrap();
    assert_eq!(loaded.iter().map(|one| one.event).collect::<Vec<_>>(), [EventId(1)]);

    // On with each of them.
    desk.publish(EventId(1)).await;
    desk.confirm(DeliveryId(1)).await;
    desk.confirm(DeliveryId(2)).await;
    assert_eq!(desk.journal().release(EventId(4)).await, Ok(true));
    desk.publish(EventId(4)).await;
    assert_eq!(desk.event_states(), ["confirmed", "confirmed", "confirmed", "confirmed", "published"]);
    assert_eq!(number(&sql, DIFFERS), 0);
    let about = |filter| Reader::open(&desk.path()).unwrap().list(&filter, None, 10).unwrap();
    let ids = |rows: Vec<EventRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(about(Filter { file_id: Some("f-1".into()), ..Filter::default() })), [5, 3, 1]);
    assert_eq!(ids(about(Filter { task_id: Some("t-3".into()), ..Filter::default() })), [5, 3]);
}

#[tokio::test]
async fn the_counts_are_those_of_the_rows_whatever_happens_to_events() {
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut desk = Desk::new();
    let mut all: Vec<Recorded> = Vec::new();
    for step in 0..400_u64 {
        // Few contents, so that many come again, or happen again.
        let says = rng.u32(..40).to_string();
        match rng.u32(..8) {
            0..3 => {
                let handle = format!("h{step}");
                all.extend(desk.record(answer(step * 10_000, &[(&handle, &says)])).await);
                continue;
            }
            _ if all.is_empty() => continue,
            3 => desk.publish(rng.choice(&all).unwrap().event).await,
            4 => desk.confirm(rng.choice(&all).unwrap().delivery).await,
            5 => {
                let parked = vec![(rng.choice(&all).unwrap().event, format!("reason {step}"))];
                desk.journal().parked(parked).await.unwrap();
            }
            6 => _ = desk.journal().release(rng.choice(&all).unwrap().event).await.unwrap(),
            _ if rng.u32(..4) > 0 => {
                let before = Moment(rng.u64(..=step * 10_000));
                desk.journal().settle(APP, before, wall(step * 10_000)).await.unwrap();
            }
            _ if rng.bool() => {
                let before = wall(rng.u64(..=step * 10_000));
                desk.journal().prune(before, 3).await.unwrap();
                let left: BTreeSet<String> =
                    texts(&desk.sql(), "SELECT CAST(id AS TEXT) FROM event").into_iter().collect();
                all.retain(|one| left.contains(&one.event.0.to_string()));
            }
            _ => desk.restart(),
        }
        assert_eq!(number(&desk.sql(), DIFFERS), 0, "seed {seed}, step {step}");
    }
}

#[tokio::test]
async fn the_first_of_very_many_equal_events_under_way_is_still_known() {
    let desk = Desk::new();
    // Each while all others have live leases: none of them can be another one handed over again.
    for number in 0..60 {
        let (occurrence, redelivered) = desk.pull(number, &format!("h{number}"), "a").await;
        assert_eq!((u64::from(occurrence), redelivered), (number + 1, false));
    }
    // When their leases have lapsed, they come again in their order.
    for number in 1..=3 {
        let at = LEASE + 1_000 + u64::from(number);
        assert_eq!(desk.pull(at, &format!("again{number}"), "a").await, (number, true));
    }
    for id in [4, 5, 30] {
        desk.publish(EventId(id)).await;
        desk.confirm(DeliveryId(id)).await;
    }
    assert_eq!(desk.pull(LEASE + 2_000, "later", "a").await, (6, true), "four and five are done");
}

#[tokio::test]
async fn a_summary_counts_what_its_own_transaction_changed() {
    let desk = Desk::new();
    let operator = desk.sql();
    // While the writer waits for the lock, requests gather for one transaction.
    operator.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = desk.journal().commits();
    let first = desk.journal().record(answer(0, &[("h1", "a")]));
    let second = desk.journal().record(answer(10, &[("h2", "b")]));
    let summary = desk.journal().summary();
    let operator_ends = async {
        tokio::task::yield_now().await;
        operator.execute_batch("COMMIT").unwrap();
    };
    let (first, second, summary, ()) = tokio::join!(first, second, summary, operator_ends);
    assert_eq!((first.unwrap().len(), second.unwrap().len()), (1, 1));
    assert!(desk.journal().commits() - before <= 2);
    assert_eq!(summary.unwrap().received, 2);
    assert_eq!(number(&desk.sql(), DIFFERS), 0);
}
