//! A journal that an older program wrote, and counts that no trigger keeps.

use std::collections::BTreeSet;

use vodrelay::journal::query::EventRow;

use super::*;

const DIFFERS: &str = "SELECT count(*) FROM tally WHERE events <> (SELECT count(*) FROM event_log WHERE event_log.state = tally.state)";

#[tokio::test]
async fn a_journal_of_version_1_goes_on_as_one_of_this_version() {
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
    assert_eq!((number(&sql, "PRAGMA user_version"), number(&sql, DIFFERS)), (5, 0));
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
    let about = |filter| JournalReader::open(&desk.path()).unwrap().list(&filter, None, 10).unwrap();
    let ids = |rows: Vec<EventRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(about(Filter { file_id: Some("f-1".into()), ..Filter::default() })), [5, 3, 1]);
    assert_eq!(ids(about(Filter { task_id: Some("t-3".into()), ..Filter::default() })), [5, 3]);

    // New numbers are beyond those of the old events and of the old deliveries.
    let used = number(&sql, "SELECT max(seq) FROM sqlite_sequence");
    let new = desk.record(answer(1_000_000, &[("h-new", "new")])).await[0];
    assert_eq!((new.event.0, new.delivery.0), (used + 1, used + 1));
    desk.publish(new.event).await;
    desk.confirm(new.delivery).await;
    assert_eq!(texts(&sql, "SELECT outcome FROM handle_log WHERE handle = 'h-new'"), ["confirmed"]);
    assert_eq!(shown(&sql).1.len(), before.1.len() + 1);

    // What the old events are searched by is not what new ones are searched by; both are found.
    let mut again = answer(20_000_000, &[("h-again", "again")]);
    let mut fingerprint = [0; 32];
    fingerprint[7] = 3;
    again.events =
        vec![Arc::new(Event { fingerprint: Fingerprint(fingerprint), ..Event::clone(&again.events[0]) })];
    let again = desk.record(again).await[0];
    assert_eq!((again.event, again.occurrence, again.redelivered), (EventId(5), 2, true));
    let show = |what: &str| JournalReader::open(&desk.path()).unwrap().show(what).unwrap().event.id;
    assert_eq!(show(&format!("{:016}{:016}", 2, 0)), 2);
    let newest = &texts(&sql, "SELECT message_id FROM event_log ORDER BY id DESC LIMIT 1")[0];
    assert_eq!((show(newest), show(&newest[..10])), (new.event.0, new.event.0));
}

#[tokio::test]
async fn first_deliveries_and_further_ones_are_confirmed_together() {
    let desk = Desk::new();
    desk.record(answer(0, &[("h1", "a"), ("h2", "b"), ("h3", "c")])).await;
    let again = desk.record(answer(LEASE + 1_000, &[("h4", "b"), ("h5", "d")])).await;
    assert_eq!(again.iter().map(|one| (one.event.0, one.delivery.0)).collect::<Vec<_>>(), [(2, 4), (5, 5)]);
    for id in [1, 2, 5] {
        desk.publish(EventId(id)).await;
    }
    // The third is confirmed before it is published, as with `confirm_after = "journal"`.
    let all = [5, 4, 3, 1].map(DeliveryId).to_vec();
    desk.journal().confirmed(all.clone(), wall(40_000)).await.unwrap();
    desk.journal().confirmed(all, wall(50_000)).await.unwrap();
    assert_eq!(desk.event_states(), ["confirmed", "confirmed", "received", "confirmed"]);
    let handles = |desk: &Desk| {
        let sql = "SELECT concat_ws(' ', handle, event_id, outcome, substr(confirmed_at, 18)) FROM handle_log ORDER BY handle";
        texts(&desk.sql(), sql)
    };
    assert_eq!(
        handles(&desk),
        [
            "h1 1 confirmed 00.000Z",
            "h2 2 lapsed",
            "h3 3 confirmed 00.000Z",
            "h4 2 confirmed 00.000Z",
            "h5 5 confirmed 00.000Z"
        ]
    );
    // The answer to the first confirm of the second event comes late: the event's time stays, the handle has its own.
    desk.confirm(DeliveryId(2)).await;
    assert_eq!(handles(&desk)[1], "h2 2 confirmed 21.007Z");
    assert_eq!(number(&desk.sql(), DIFFERS), 0);
    desk.publish(EventId(3)).await;
    assert_eq!(desk.event_states()[2], "confirmed");
}

#[tokio::test]
async fn what_is_under_way_is_found_by_small_indexes_alone() {
    let desk = Desk::new();
    desk.record(answer(0, &[("h1", "a")])).await;
    let sql = desk.sql();
    for (looked_for, found_by) in [
        (
            "SELECT id FROM event WHERE id / 512 = 0 AND file_id = 'f'",
            "event_by_file (<expr>=? AND file_id=?)",
        ),
        (
            "SELECT id FROM event WHERE id / 512 = 0 AND task_id = 't'",
            "event_by_task (<expr>=? AND task_id=?)",
        ),
        (
            "SELECT id FROM event WHERE sub_app_id = 7 AND confirmed_at IS NULL",
            "event_unconfirmed (sub_app_id=?)",
        ),
    ] {
        let plan = sql
            .query_row(&format!("EXPLAIN QUERY PLAN {looked_for}"), [], |row| row.get::<_, String>(3))
            .unwrap();
        assert!(plan.contains(found_by), "{looked_for}: {plan}");
    }
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
                let parked = vec![(rng.choice(&all).unwrap().event, problem(&format!("message {step}")))];
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
    let summary = desk.journal().summary(None);
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
