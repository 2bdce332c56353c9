//! The journal on a real disk: what it decides, what it keeps, and how it behaves in trouble.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where it unwraps, and clippy sees no test in its helpers"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use tempfile::TempDir;
use tencent_vod_event::{Event, EventHandle, Fingerprint, SubAppId};
use tokio::sync::watch;
use vodrelay::cli::events::{self, ListArgs, ShowArgs};
use vodrelay::clock::Now as _;
use vodrelay::clock::boot_id;
use vodrelay::journal::query::{EventState, Filter, JournalReader, QueryError};
use vodrelay::journal::{Journal, OpenError, Options, WriteError, Writer};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::{DeliveryId, EventId, Progress, Recorded};
use vodrelay_core::lease::Window;
use vodrelay_core::outcome::{JournalState, Problem};
use vodrelay_core::outgoing::Outgoing;
use vodrelay_core::write::{FailedAttempt, LetGo, Loaded, PullId, Pulled, Summary};

mod apart;
mod origins;
mod shown;
mod versions;

use vodrelay_testkit::asks::Asks as _;

/// Nothing here takes this long unless it hangs.
const BOUND: Duration = Duration::from_secs(30);
const APP: SubAppId = SubAppId(7);
/// 2023-11-14T22:13:20Z: what the boot clock's zero is on the wall clock of these tests.
const EPOCH: i64 = 1_700_000_000_000;
const WINDOW: Window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };
/// How long a lease is in these tests, in milliseconds.
const LEASE: u64 = 27_000;

struct Desk {
    folder: TempDir,
    open: Option<(Journal, Writer)>,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self { folder: tempfile::tempdir().unwrap(), open: None };
        desk.start();
        desk
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    fn start(&mut self) {
        self.open = Some(Journal::open(&Options { path: self.path() }).unwrap());
    }

    /// As at the end of a process: the writer commits what is queued and closes the file.
    fn stop(&mut self) {
        let (journal, writer) = self.open.take().unwrap();
        drop(journal);
        writer.join().unwrap();
    }

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn journal(&self) -> &Journal {
        &self.open.as_ref().unwrap().0
    }

    /// An operator's own connection.
    fn sql(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    async fn record(&self, answer: Pulled) -> Vec<Recorded> {
        self.journal().record(answer).await.unwrap()
    }

    /// Records one delivery and says what it was taken for: its occurrence, and whether it is a redelivery.
    async fn pull(&self, at: u64, handle: &str, says: &str) -> (u32, bool) {
        let recorded = self.record(answer(at, &[(handle, says)])).await;
        (recorded[0].occurrence, recorded[0].redelivered)
    }

    async fn publish(&self, event: EventId) {
        self.journal().published(vec![event], WallTime(EPOCH + 500)).await.unwrap();
    }

    async fn confirm(&self, delivery: DeliveryId) {
        self.journal().confirmed(vec![delivery], WallTime(EPOCH + 1_007)).await.unwrap();
    }

    fn event_states(&self) -> Vec<String> {
        texts(&self.sql(), "SELECT state FROM event_log ORDER BY id")
    }

    fn outcomes(&self) -> Vec<String> {
        texts(&self.sql(), "SELECT outcome FROM handle_log")
    }
}

const NEW_1: (u32, bool) = (1, false);
const NEW_2: (u32, bool) = (2, false);
const AGAIN_1: (u32, bool) = (1, true);
const AGAIN_2: (u32, bool) = (2, true);

fn event(handle: &str, says: &str) -> Arc<Event> {
    let handle = if handle.is_empty() { "null".into() } else { format!("{handle:?}") };
    let json = format!(
        r#"{{"EventHandle":{handle},"EventType":"PullComplete","PullCompleteEvent":{{"TaskId":"t-{says}","FileId":"f-{says}"}}}}"#
    );
    Arc::new(Event::parse(APP, Bytes::from(json)).unwrap())
}

/// An answer whose pull was sent at `at` on the boot clock, and arrived 100 ms later.
fn answer(at: u64, events: &[(&str, &str)]) -> Pulled {
    let lease = WINDOW.lease(Moment(at));
    Pulled {
        pull: PullId(1),
        sub_app: APP,
        request_id: "r-1".into(),
        lease,
        received_at: Moment(at + 100),
        pulled_at: wall(at + 100),
        events: events.iter().map(|(handle, says)| event(handle, says)).collect(),
        publish_now: true,
    }
}

fn problem(message: &str) -> Problem {
    Problem::new(ErrorCode::PublishReturned, message)
}

fn wall(moment: u64) -> WallTime {
    WallTime(EPOCH + i64::try_from(moment).unwrap())
}

fn texts(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn number(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn until(
    state: &mut watch::Receiver<JournalState>,
    wanted: impl FnMut(&JournalState) -> bool,
) -> JournalState {
    tokio::time::timeout(BOUND, state.wait_for(wanted)).await.expect("in time").unwrap().clone()
}

fn is_down(state: &JournalState) -> bool {
    matches!(state, JournalState::Down(_))
}

// --- what two deliveries are: one test per row of the table in identity.rs, through the file ---

#[tokio::test]
async fn row_1_an_event_that_is_not_known_is_new() {
    let desk = Desk::new();
    let recorded = desk.record(answer(1_000, &[("h1", "a"), ("h2", "b")])).await;
    let new = |event, delivery| Recorded {
        event: EventId(event),
        delivery: DeliveryId(delivery),
        occurrence: 1,
        redelivered: false,
        progress: Progress::default(),
    };
    assert_eq!(recorded, [new(1, 1), new(2, 2)]);
}

#[tokio::test]
async fn row_2_an_unconfirmed_event_under_its_handle_comes_again() {
    let desk = Desk::new();
    assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
    assert_eq!(desk.pull(5_000, "h1", "a").await, AGAIN_1, "while its lease lives");
    assert_eq!(desk.pull(90_000, "h1", "a").await, AGAIN_1, "after its lease");
}

#[tokio::test]
async fn row_3_an_unconfirmed_event_whose_leases_lapsed_comes_again() {
    let desk = Desk::new();
    assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
    assert_eq!(desk.pull(LEASE - 100, "h2", "a").await, AGAIN_1, "the answer arrives just at the cutoff");
    assert_eq!(desk.pull(LEASE + 90_000, "", "a").await, AGAIN_1, "no handle says nothing else");
}

#[tokio::test]
async fn row_4_a_live_lease_under_another_handle_is_a_second_equal_event() {
    let desk = Desk::new();
    assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
    assert_eq!(desk.pull(LEASE - 101, "h2", "a").await, NEW_2, "the answer arrives just before the cutoff");
}

#[tokio::test]
async fn row_5_a_confirmed_event_under_another_handle_happened_again() {
    let desk = Desk::new();
    let first = desk.record(answer(0, &[("h1", "a")])).await[0];
    desk.confirm(first.delivery).await;
    assert_eq!(desk.pull(500, "h2", "a").await, NEW_2);
    assert_eq!(desk.pull(90_000, "h3", "a").await, AGAIN_2, "and that one is unconfirmed");
}

#[tokio::test]
async fn row_6_a_confirmed_event_under_its_handle_was_forgotten_by_the_cloud() {
    let desk = Desk::new();
    let first = desk.record(answer(0, &[("h1", "a")])).await[0];
    desk.publish(first.event).await;
    desk.confirm(first.delivery).await;
    let again = desk.record(answer(90_000, &[("h1", "a")])).await[0];
    assert_eq!((again.occurrence, again.redelivered), AGAIN_1);
    assert_eq!(again.event, first.event);
    assert_ne!(again.delivery, first.delivery);
    assert_eq!(again.progress, Progress { published: true, parked: false, confirmed: true });
}

#[tokio::test]
async fn row_6_holds_for_each_of_several_equal_events_under_one_handle() {
    let desk = Desk::new();
    let first = desk.record(answer(0, &[("h", "a"), ("h", "a")])).await;
    desk.journal().confirmed(first.iter().map(|r| r.delivery).collect(), wall(500)).await.unwrap();
    let again = desk.record(answer(90_000, &[("h", "a"), ("h", "a")])).await;
    let mut occurrences: Vec<_> = again.iter().map(|r| (r.occurrence, r.redelivered)).collect();
    occurrences.sort_unstable();
    assert_eq!(occurrences, [AGAIN_1, AGAIN_2]);
}

#[tokio::test]
async fn row_7_a_lost_confirm_is_a_redelivery_until_it_is_settled() {
    let desk = Desk::new();
    for (says, settled, expected) in [("a", false, AGAIN_1), ("b", true, NEW_2)] {
        let first = desk.record(answer(0, &[("h1", says)])).await[0];
        desk.publish(first.event).await;
        desk.journal().let_go(vec![first.delivery], LetGo::Lost).await.unwrap();
        if settled {
            assert_eq!(desk.journal().settle(APP, Moment(60_000), wall(65_000)).await, Ok(1));
        }
        assert_eq!(desk.pull(90_000, "h2", says).await, expected);
        desk.journal().settle(APP, Moment(u64::MAX >> 1), wall(99_000)).await.unwrap();
    }
}

/// While another relay holds the event, the queue looks idle, and the event then comes again: under another id, but named.
#[tokio::test]
async fn what_comes_after_a_settled_one_is_named_as_a_possible_duplicate() {
    let desk = Desk::new();
    for (says, answered) in [("a", false), ("b", true)] {
        let first = desk.record(answer(0, &[("h1", says)])).await[0];
        desk.publish(first.event).await;
        if answered {
            desk.journal().confirmed(vec![first.delivery], wall(5_000)).await.unwrap();
        } else {
            desk.journal().settle(APP, Moment(60_000), wall(65_000)).await.unwrap();
        }
        assert_eq!(desk.pull(90_000, "h2", says).await, NEW_2);
    }
    let named = "SELECT group_concat(occurrence) FROM event WHERE uncertain";
    let named: String = desk.sql().query_row(named, [], |row| row.get(0)).unwrap();
    assert_eq!(named, "2");
}

#[tokio::test]
async fn one_handle_on_two_different_events_merges_nothing() {
    let desk = Desk::new();
    let recorded = desk.record(answer(0, &[("h", "a"), ("h", "b")])).await;
    assert_ne!(recorded[0].event, recorded[1].event);
    assert!(recorded.iter().all(|r| !r.redelivered));
    assert_eq!(number(&desk.sql(), "SELECT count(*) FROM handle_log WHERE handle = 'h'"), 2);
}

#[tokio::test]
async fn two_equal_events_in_one_answer_are_two_and_both_are_known_again() {
    let desk = Desk::new();
    for (at, handles) in [(0, ["h1", "h2"]), (90_000, ["h3", "h4"]), (180_000, ["h5", "h5"])] {
        let recorded = desk.record(answer(at, &[(handles[0], "a"), (handles[1], "a")])).await;
        let taken: Vec<_> = recorded.iter().map(|r| (r.occurrence, r.redelivered)).collect();
        assert_eq!(taken, [(1, at > 0), (2, at > 0)], "at {at}");
    }
}

#[tokio::test]
async fn a_redelivery_is_known_after_a_restart_within_one_boot() {
    let mut desk = Desk::new();
    assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
    desk.restart();
    assert_eq!(desk.pull(1_000, "h2", "a").await, NEW_2, "the first lease still lives");
    desk.restart();
    assert_eq!(desk.pull(90_000, "h3", "a").await, AGAIN_1);
    assert_eq!(desk.pull(90_001, "h4", "a").await, AGAIN_2);
}

#[tokio::test]
async fn after_a_reboot_the_wall_clock_judges_the_leases() {
    let mut desk = Desk::new();
    assert_eq!(desk.pull(0, "h1", "a").await, NEW_1);
    assert_eq!(desk.pull(0, "h1", "b").await, NEW_1);
    desk.stop();
    desk.sql().execute("UPDATE boot SET name = 'an earlier one' WHERE name = ?1", [boot_id()]).unwrap();
    desk.start();
    // The boot clock began anew and says nothing about the lease.
    let mut live = answer(0, &[("h2", "a")]);
    live.pulled_at = wall(LEASE - 1);
    let mut lapsed = answer(0, &[("h2", "b")]);
    lapsed.pulled_at = wall(LEASE);
    assert!(!desk.record(live).await[0].redelivered);
    assert!(desk.record(lapsed).await[0].redelivered);
}

// --- how far an event got ---

#[tokio::test]
async fn the_views_have_exactly_these_columns_and_values() {
    let desk = Desk::new();
    let one = desk.record(answer(7, &[("h1", "a"), ("h2", "b"), ("", "c"), ("h4", "d")])).await;
    desk.record(answer(57, &[("h1", "a"), ("h5", "b")])).await;
    desk.publish(one[0].event).await;
    desk.confirm(one[0].delivery).await;
    desk.publish(one[1].event).await;
    desk.journal().let_go(vec![one[1].delivery], LetGo::Lost).await.unwrap();
    desk.journal().parked(vec![(one[3].event, problem("312 NO_ROUTE"))]).await.unwrap();
    desk.journal().let_go(vec![one[3].delivery], LetGo::Refused).await.unwrap();
    let sql = desk.sql();
    sql.execute("UPDATE event SET lease_until = ?1 WHERE id = 6", [WallTime::now().0 + 60_000]).unwrap();

    let columns =
        |view: &str| texts(&sql, &format!("SELECT name FROM pragma_table_info('{view}')")).join(" ");
    assert_eq!(
        columns("event_log"),
        "id message_id sub_app_id event_type file_id task_id state occurrence redeliveries attempts reason received_at published_at confirmed_at body parked_message error_code message"
    );
    assert_eq!(columns("handle_log"), "handle event_id pulled_at lease_until outcome confirmed_at");

    let events = texts(
        &sql,
        "SELECT concat_ws(' ', id, sub_app_id, event_type, file_id, task_id, state, occurrence, redeliveries, attempts,
                coalesce(reason, '-'), received_at, coalesce(published_at, '-'), coalesce(confirmed_at, '-'))
         FROM event_log ORDER BY id",
    );
    assert_eq!(
        events,
        [
            "1 7 PullComplete f-a t-a confirmed 1 1 1 - 2023-11-14T22:13:20.107Z 2023-11-14T22:13:20.500Z 2023-11-14T22:13:21.007Z",
            "2 7 PullComplete f-b t-b published 1 0 1 - 2023-11-14T22:13:20.107Z 2023-11-14T22:13:20.500Z -",
            "3 7 PullComplete f-c t-c received 1 0 1 - 2023-11-14T22:13:20.107Z - -",
            "4 7 PullComplete f-d t-d parked 1 0 1 312 NO_ROUTE [VR-406] 2023-11-14T22:13:20.107Z - -",
            "6 7 PullComplete f-b t-b received 2 0 1 - 2023-11-14T22:13:20.157Z - -",
        ]
    );
    let digest = event("h2", "b").fingerprint.to_string()[..32].to_owned();
    assert_eq!(
        texts(&sql, "SELECT message_id FROM event_log WHERE id IN (2, 6) ORDER BY id"),
        [digest.clone(), format!("{digest}-2")]
    );
    let body = String::from_utf8(event("h1", "a").body.to_vec()).unwrap();
    assert_eq!(texts(&sql, "SELECT body FROM event_log WHERE id = 1"), [body]);
    assert_eq!(texts(&sql, "SELECT DISTINCT typeof(body) FROM event_log"), ["text"]);

    let handles = texts(
        &sql,
        "SELECT concat_ws(' ', coalesce(handle, '-'), event_id, pulled_at,
                          CASE event_id WHEN 6 THEN '*' ELSE lease_until END, outcome, coalesce(confirmed_at, '-'))
         FROM handle_log",
    );
    assert_eq!(
        handles,
        [
            "h1 1 2023-11-14T22:13:20.107Z 2023-11-14T22:13:47.007Z confirmed 2023-11-14T22:13:21.007Z",
            "h2 2 2023-11-14T22:13:20.107Z 2023-11-14T22:13:47.007Z lost -",
            "- 3 2023-11-14T22:13:20.107Z 2023-11-14T22:13:47.007Z lapsed -",
            "h4 4 2023-11-14T22:13:20.107Z 2023-11-14T22:13:47.007Z refused -",
            "h5 6 2023-11-14T22:13:20.157Z * open -",
            "h1 1 2023-11-14T22:13:20.157Z 2023-11-14T22:13:47.057Z lapsed -",
        ]
    );
}

#[tokio::test]
async fn the_views_show_every_millisecond_exactly() {
    let desk = Desk::new();
    let recorded = desk.record(answer(0, &[("h", "a")])).await[0];
    let sql = desk.sql();
    for ms in (0..1_000).chain([EPOCH + 999, 1_551_113_065_007, 4_102_444_799_999]) {
        sql.execute("UPDATE event SET received_at = ?1 WHERE id = ?2", (ms, recorded.event.0)).unwrap();
        assert_eq!(texts(&sql, "SELECT received_at FROM event_log"), [WallTime(ms).to_string()]);
    }
}

#[tokio::test]
async fn the_body_is_kept_byte_for_byte() {
    let desk = Desk::new();
    let long = format!(r#"{{"EventHandle":"h3","x":"{}"}}"#, "長".repeat(400_000));
    let bodies = [
        r#"{ "EventHandle" : "h1",	"n": 12345678901234567890.10, "z": null, "é": "\u0000" }"#,
        r#"{"a":1,"a":2}"#,
        "17",
        &long,
    ];
    let mut answer = answer(0, &[]);
    answer.events = bodies
        .iter()
        .map(|b| Arc::new(Event::parse(APP, Bytes::copy_from_slice(b.as_bytes())).unwrap()))
        .collect();
    answer.publish_now = false;
    let events = answer.events.clone();
    desk.record(answer).await;
    assert_eq!(texts(&desk.sql(), "SELECT body FROM event_log ORDER BY id"), bodies);
    let loaded = desk.journal().load(EventId(0), 10).await.unwrap();
    let contents: Vec<_> = loaded.into_iter().map(|l| l.outgoing.event).collect();
    assert_eq!(contents, events);
}

#[tokio::test]
async fn attempts_are_counted_before_they_leave_and_doubt_stays() {
    let desk = Desk::new();
    let one = desk.record(answer(0, &[("h", "a")])).await[0];
    let attempt =
        |uncertain, reason: &str| FailedAttempt { event: one.event, uncertain, problem: problem(reason) };
    desk.journal().failed(vec![attempt(true, "no answer")]).await.unwrap();
    desk.journal().failed(vec![attempt(false, "nacked")]).await.unwrap();
    let row = "SELECT attempts || ' ' || uncertain || ' ' || reason FROM event";
    assert_eq!(texts(&desk.sql(), row), ["3 1 nacked [VR-406]"]);
}

#[tokio::test]
async fn what_a_process_left_unacked_is_in_doubt_for_the_next_one() {
    let mut desk = Desk::new();
    let sent = desk.record(answer(0, &[("h1", "acked"), ("h2", "unacked"), ("h3", "parked")])).await;
    let mut kept = answer(0, &[("h4", "never sent")]);
    kept.publish_now = false;
    desk.record(kept).await;
    desk.publish(sent[0].event).await;
    desk.journal().parked(vec![(sent[2].event, problem("unroutable"))]).await.unwrap();
    desk.restart();
    assert_eq!(texts(&desk.sql(), "SELECT task_id FROM event WHERE uncertain"), ["t-unacked"]);
}

#[tokio::test]
async fn a_time_of_confirm_or_ack_is_that_of_the_first() {
    let desk = Desk::new();
    let first = desk.record(answer(0, &[("h1", "a")])).await[0];
    let second = desk.record(answer(90_000, &[("h1", "a")])).await[0];
    for (delivery, at) in [(first.delivery, 1), (second.delivery, 2), (first.delivery, 3)] {
        desk.journal().confirmed(vec![delivery], wall(at)).await.unwrap();
        desk.journal().published(vec![first.event], wall(at)).await.unwrap();
    }
    let sql = desk.sql();
    let since = |column: &str, table: &str| {
        format!("SELECT {column} - {EPOCH} FROM {table} ORDER BY id DESC LIMIT 1")
    };
    assert_eq!(number(&sql, &since("confirmed_at", "event")), 1);
    assert_eq!(number(&sql, &since("published_at", "event")), 1);
    assert_eq!(number(&sql, &since("confirmed_at", "delivery")), 2);
}

#[tokio::test]
async fn confirmed_before_it_is_published_is_still_received() {
    let desk = Desk::new();
    let one = desk.record(answer(0, &[("h1", "a")])).await[0];
    desk.confirm(one.delivery).await;
    assert_eq!(desk.event_states(), ["received"]);
    let loaded = desk.journal().load(EventId(0), 10).await.unwrap();
    assert!(loaded[0].confirmed);
    desk.publish(one.event).await;
    assert_eq!(desk.event_states(), ["confirmed"]);
}

#[tokio::test]
async fn what_is_known_for_certain_of_a_handle_stays() {
    let desk = Desk::new();
    let one = desk.record(answer(0, &[("h1", "a")])).await[0];
    let say = |outcome| desk.journal().let_go(vec![one.delivery], outcome);
    say(LetGo::Lost).await.unwrap();
    say(LetGo::Refused).await.unwrap();
    assert_eq!(desk.outcomes(), ["refused"]);
    desk.confirm(one.delivery).await;
    say(LetGo::Lost).await.unwrap();
    assert_eq!(desk.outcomes(), ["confirmed"]);
}

#[tokio::test]
async fn a_parked_event_is_released_once_and_an_acked_one_is_not_parked() {
    let desk = Desk::new();
    let both = desk.record(answer(0, &[("h1", "a"), ("h2", "b")])).await;
    desk.publish(both[1].event).await;
    let why = |r: &Recorded| (r.event, problem("unroutable"));
    desk.journal().parked(both.iter().map(why).collect()).await.unwrap();
    assert_eq!(desk.event_states(), ["parked", "published"]);
    assert_eq!(desk.journal().release(both[0].event).await, Ok(true));
    assert_eq!(desk.journal().release(both[0].event).await, Ok(false));
    assert_eq!(desk.journal().release(both[1].event).await, Ok(false));
    assert_eq!(desk.journal().release(EventId(99)).await, Ok(false));
    let told = || {
        let sql = "SELECT concat_ws(' ', state, attempts, ifnull(message, '-'), parked_message) FROM event_log WHERE id = 1";
        texts(&desk.sql(), sql)
    };
    assert_eq!(told(), ["received 0 - unroutable [VR-406]"]);
    // What it was parked for is known after a later attempt has failed, and after it was published.
    let attempt = FailedAttempt { event: both[0].event, uncertain: false, problem: problem("nacked") };
    desk.journal().failed(vec![attempt]).await.unwrap();
    assert_eq!(told(), ["received 1 nacked unroutable [VR-406]"]);
    desk.publish(both[0].event).await;
    assert_eq!(told(), ["published 1 nacked unroutable [VR-406]"]);
    let shown = JournalReader::open(&desk.path()).unwrap().show("1").unwrap();
    assert_eq!(shown.event.parked_message.as_deref(), Some("unroutable [VR-406]"));
}

#[tokio::test]
async fn settling_takes_what_is_safe_here_and_was_not_handed_over_since() {
    let mut desk = Desk::new();
    let old = desk
        .record(answer(0, &[("h1", "published"), ("h2", "parked"), ("h3", "received"), ("h4", "again")]))
        .await;
    desk.record(answer(50_000, &[("h5", "again")])).await;
    for one in [old[0], old[3]] {
        desk.publish(one.event).await;
    }
    desk.journal().parked(vec![(old[1].event, problem("unroutable"))]).await.unwrap();
    let elsewhere = SubAppId(8);
    assert_eq!(desk.journal().settle(elsewhere, Moment(50_000), wall(60_000)).await, Ok(0));
    assert_eq!(
        desk.journal().settle(APP, Moment(100), wall(60_000)).await,
        Ok(0),
        "received at that very moment"
    );
    assert_eq!(desk.journal().settle(APP, Moment(50_000), wall(60_000)).await, Ok(2));
    assert_eq!(desk.journal().settle(APP, Moment(50_000), wall(70_000)).await, Ok(0));
    assert_eq!(desk.event_states(), ["confirmed", "parked", "received", "published"]);
    assert_eq!(desk.outcomes(), ["settled", "settled", "lapsed", "lapsed", "lapsed"]);
    assert_eq!(
        texts(&desk.sql(), "SELECT task_id FROM event WHERE confirmed_at IS NOT NULL"),
        ["t-published", "t-parked"]
    );
    // Another boot's deliveries are old, whatever their moments say.
    desk.stop();
    desk.sql().execute("UPDATE boot SET name = 'an earlier one'", []).unwrap();
    desk.start();
    assert_eq!(desk.journal().settle(APP, Moment(1), wall(80_000)).await, Ok(1));
    assert_eq!(desk.event_states(), ["confirmed", "parked", "received", "confirmed"]);
}

#[tokio::test]
async fn loading_pages_through_what_is_received_and_counts_the_attempt() {
    let desk = Desk::new();
    let mut kept = answer(0, &[("h1", "a"), ("h2", "b"), ("h3", "c"), ("h4", "d"), ("h5", "e")]);
    kept.publish_now = false;
    let all = desk.record(kept).await;
    assert_eq!(number(&desk.sql(), "SELECT sum(attempts) FROM event"), 0);
    desk.publish(all[1].event).await;
    desk.journal().parked(vec![(all[3].event, problem("unroutable"))]).await.unwrap();
    let page = |after: i64| desk.journal().load(EventId(after), 2);
    let ids = |loaded: &[Loaded]| loaded.iter().map(|l| l.event.0).collect::<Vec<_>>();
    assert_eq!(ids(&page(0).await.unwrap()), [1, 3]);
    assert_eq!(ids(&page(3).await.unwrap()), [5]);
    assert!(page(5).await.unwrap().is_empty());
    assert_eq!(ids(&page(0).await.unwrap()), [1, 3]);
    assert_eq!(number(&desk.sql(), "SELECT sum(attempts) FROM event"), 5);
}

#[tokio::test]
async fn a_loaded_event_carries_its_first_body_and_its_newest_delivery() {
    let desk = Desk::new();
    desk.record(answer(0, &[("h0", "a")])).await;
    let mut again = answer(90_000, &[("h1", "a")]);
    again.request_id = "r-2".into();
    desk.record(again).await;
    let loaded = desk.journal().load(EventId(0), 10).await.unwrap();
    assert_eq!(loaded[0].outgoing.event.handle, Some(EventHandle("h1".into())));
    assert_eq!(loaded[0].outgoing.event.body, event("h0", "a").body, "as it came first");
    let Outgoing { redelivered, request_id, occurrence, .. } = &loaded[0].outgoing;
    assert_eq!((*redelivered, &**request_id, *occurrence), (true, "r-2", 1));
}

#[tokio::test]
async fn the_summary_agrees_with_the_rows() {
    let desk = Desk::new();
    assert_eq!(desk.journal().summary(None).await, Ok(Summary::default()));
    let all = desk.record(answer(0, &[("h1", "a"), ("h2", "b"), ("h3", "c"), ("h4", "d")])).await;
    desk.record(answer(5_000, &[("h5", "e")])).await;
    for one in &all[..2] {
        desk.publish(one.event).await;
    }
    desk.confirm(all[0].delivery).await;
    desk.journal().parked(vec![(all[2].event, problem("unroutable"))]).await.unwrap();
    let summary = Summary {
        received: 2,
        published: 1,
        confirmed: 1,
        parked: 1,
        unconfirmed: 4,
        oldest_unconfirmed: Some(wall(100)),
        oldest_unpublished: Some(wall(100)),
        in_doubt: 0,
    };
    assert_eq!(desk.journal().summary(None).await, Ok(summary));
    // Whether or not the cloud still holds it.
    desk.confirm(all[3].delivery).await;
    assert_eq!(desk.journal().summary(None).await, Ok(Summary { unconfirmed: 3, ..summary }));
    desk.publish(all[3].event).await;
    let summary = Summary {
        received: 1,
        confirmed: 2,
        unconfirmed: 3,
        oldest_unpublished: Some(wall(5_100)),
        ..summary
    };
    assert_eq!(desk.journal().summary(None).await, Ok(summary));
    let sql = desk.sql();
    sql.execute("DELETE FROM event WHERE id = 1", []).unwrap();
    assert_eq!(desk.journal().summary(None).await, Ok(Summary { confirmed: 1, ..summary }));
    let differs = "SELECT count(*) FROM tally WHERE events <> (SELECT count(*) FROM event_log WHERE event_log.state = tally.state)";
    assert_eq!(number(&sql, differs), 0);
}

// --- one writer, many callers ---

#[tokio::test]
async fn concurrent_requests_share_their_commits() {
    let desk = Desk::new();
    let operator = desk.sql();
    operator.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = desk.journal().commits();
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let journal = desk.journal().clone();
            tokio::spawn(async move { journal.record(answer(0, &[("h", &n.to_string())])).await })
        })
        .collect();
    // Every task runs up to its wait for the reply before this one runs again.
    tokio::task::yield_now().await;
    operator.execute_batch("COMMIT").unwrap();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().len(), 1);
    }
    let commits = desk.journal().commits() - before;
    assert!((1..=3).contains(&commits), "{commits} commits");
    assert_eq!(number(&desk.sql(), "SELECT count(*) FROM event_log"), 100);
}

#[tokio::test]
async fn what_was_answered_is_there_for_every_other_connection() {
    let desk = Desk::new();
    let other = desk.sql();
    for n in 0..50_i64 {
        desk.record(answer(0, &[("h", &n.to_string())])).await;
        assert_eq!(number(&other, "SELECT count(*) FROM event_log"), n + 1);
    }
    assert_eq!(texts(&other, "PRAGMA journal_mode"), ["wal"]);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_still_committed() {
    let mut desk = Desk::new();
    let mut call = Box::pin(desk.journal().record(answer(0, &[("h", "a")])));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    desk.restart();
    assert_eq!(desk.event_states(), ["received"]);
}

#[tokio::test]
async fn a_reader_with_an_open_transaction_holds_nobody_up() {
    let desk = Desk::new();
    desk.record(answer(0, &[("h", "a")])).await;
    let reader = desk.sql();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(number(&reader, "SELECT count(*) FROM event_log"), 1);
    for n in 0..100 {
        desk.record(answer(0, &[("h", &n.to_string())])).await;
    }
    assert_eq!(number(&reader, "SELECT count(*) FROM event_log"), 1, "one moment of the journal");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(number(&reader, "SELECT count(*) FROM event_log"), 101);
    assert_eq!(*desk.journal().state().borrow(), JournalState::Up);
}

// --- problem ---

#[tokio::test]
async fn an_operators_long_transaction_takes_the_journal_down_and_nothing_is_lost() {
    let desk = Desk::new();
    let mut state = desk.journal().state();
    let operator = desk.sql();
    operator.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let journal = desk.journal().clone();
            tokio::spawn(async move { journal.record(answer(0, &[("h", &n.to_string())])).await })
        })
        .collect();
    let JournalState::Down(problem) = until(&mut state, is_down).await else { unreachable!() };
    assert_eq!(problem.error_code.as_str(), "VR-205");
    let message = problem.message;
    assert!(message.contains("locked") && message.contains("end its transaction"), "{message}");
    assert!(tasks.iter().all(|task| !task.is_finished()), "nobody is answered before the commit");
    operator.execute_batch("ROLLBACK").unwrap();
    until(&mut state, |s| *s == JournalState::Up).await;
    for task in tasks {
        assert!(!task.await.unwrap().unwrap()[0].redelivered, "no try before counts");
    }
    assert_eq!(number(&desk.sql(), "SELECT count(*) FROM event_log"), 20);
}

#[tokio::test]
async fn a_journal_that_was_moved_away_takes_no_more_until_it_is_back() {
    let desk = Desk::new();
    let mut state = desk.journal().state();
    let elsewhere = desk.folder.path().join("elsewhere.db");
    fs::rename(desk.path(), &elsewhere).unwrap();
    let journal = desk.journal().clone();
    let call = tokio::spawn(async move { journal.record(answer(0, &[("h", "a")])).await });
    let JournalState::Down(problem) = until(&mut state, is_down).await else { unreachable!() };
    assert_eq!(problem.error_code.as_str(), "VR-206");
    let message = problem.message;
    assert!(
        message.contains("the file was moved or removed: check that the journal is at its path"),
        "{message}"
    );
    fs::rename(&elsewhere, desk.path()).unwrap();
    assert_eq!(call.await.unwrap().unwrap().len(), 1);
    assert_eq!(desk.event_states(), ["received"]);
}

#[tokio::test]
async fn a_writer_that_nobody_needs_any_more_gives_up_after_a_while() {
    let mut desk = Desk::new();
    let operator = desk.sql();
    operator.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (journal, writer) = desk.open.take().unwrap();
    let mut state = journal.state();
    let call = tokio::spawn(async move { journal.record(answer(0, &[("h", "a")])).await });
    until(&mut state, is_down).await;
    call.abort();
    let ended = tokio::task::spawn_blocking(|| writer.join());
    let ended = tokio::time::timeout(BOUND, ended).await.expect("in time").unwrap();
    assert!(matches!(ended, Err(WriteError::GaveUp { .. })), "{ended:?}");
}

#[tokio::test]
async fn what_waiting_cannot_mend_ends_the_writer() {
    let mut desk = Desk::new();
    desk.sql().execute_batch("DROP VIEW event_log; DROP TABLE content").unwrap();
    let (journal, writer) = desk.open.take().unwrap();
    assert!(journal.record(answer(0, &[("h", "a")])).await.is_err());
    assert!(is_down(&journal.state().borrow()));
    let ended = writer.join();
    assert!(matches!(ended, Err(WriteError::Fatal { .. })), "{ended:?}");
    assert!(journal.summary(None).await.is_err(), "and later calls do not hang");
}

#[test]
fn a_second_relay_on_the_same_journal_is_refused_at_once() {
    let mut desk = Desk::new();
    let link = desk.folder.path().join("link.db");
    std::os::unix::fs::symlink(desk.path(), &link).unwrap();
    for path in [desk.path(), link] {
        let error = Journal::open(&Options { path }).unwrap_err();
        assert!(matches!(&error, OpenError::InUse { pid, .. } if *pid == std::process::id().to_string()));
        assert!(error.to_string().contains("journal.db is in use by another relay (process "), "{error}");
    }
    desk.restart();
}

#[test]
fn files_and_folders_are_made_for_owner_and_group_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/vodrelay/journal.db");
    let (journal, writer) = Journal::open(&Options { path: path.clone() }).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in ["journal.db", "journal.db-wal", "journal.db-shm", "journal.db.lock"] {
        let mode = mode(&path.with_file_name(name));
        assert_eq!((mode & 0o600, mode & 0o137), (0o600, 0), "{name}: {mode:o}");
    }
    for folder in [path.parent().unwrap(), path.parent().unwrap().parent().unwrap()] {
        let mode = mode(folder);
        assert_eq!((mode & 0o700, mode & 0o027), (0o700, 0), "{}: {mode:o}", folder.display());
    }
    drop(journal);
    writer.join().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (_journal, _writer) = Journal::open(&Options { path: path.clone() }).unwrap();
    assert_eq!(mode(&path), 0o640, "a copy that came with a wider mode");
}

#[test]
fn a_path_that_cannot_hold_a_journal_is_refused_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666)).unwrap();
    for (path, words) in [
        (folder.path().to_owned(), "it is a folder: set journal.path to a file in it"),
        (fifo.clone(), "it is a FIFO: set journal.path to a file of its own"),
        (socket, "it is a socket: set journal.path to a file of its own"),
        (file.join("journal.db"), "its folder cannot be made"),
        (PathBuf::from("/proc/vodrelay/journal.db"), "its folder cannot be made"),
        (PathBuf::from("/proc/vodrelay.db"), "it cannot be written"),
    ] {
        let looked = vodrelay::journal::probe::probe(&path).unwrap_err();
        assert_eq!(vodrelay::journal::probe::in_use_by(&path).ok().flatten(), None, "and does not block");
        if path.exists() {
            assert!(
                JournalReader::open(&path).unwrap_err().to_string().contains("it is a "),
                "{}",
                path.display()
            );
        }
        let error = Journal::open(&Options { path }).unwrap_err();
        assert!(matches!(error, OpenError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(looked.to_string().contains(words) || words.starts_with("its"), "{looked}");
    }
    assert_eq!(fs::metadata(&fifo).unwrap().permissions().mode() & 0o777, 0o666, "it is somebody else's");
    // Only looked at: a mistake here could change the host's own.
    let device = vodrelay::journal::probe::probe(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(device.ends_with("it is a device: set journal.path to a file of its own"), "{device}");
}

/// The relay looks at this number to know whether its figures are still right.
#[tokio::test]
async fn a_question_for_the_figures_is_no_commit_and_everything_else_is() {
    let desk = Desk::new();
    let commits = || desk.journal().commits();
    let before = commits();
    for _ in 0..3 {
        desk.journal().summary(None).await.unwrap();
    }
    assert_eq!(commits(), before);
    desk.record(answer(0, &[("h1", "a")])).await;
    assert_eq!(commits(), before + 1);
    desk.publish(EventId(1)).await;
    desk.journal().summary(None).await.unwrap();
    assert_eq!(commits(), before + 2);
}

#[test]
fn files_that_are_no_journal_of_ours_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| Journal::open(&Options { path: folder.path().join(name) }).unwrap_err();

    fs::write(
        folder.path().join("text"),
        "not a database, and long enough to be looked at as one".repeat(20),
    )
    .unwrap();
    assert!(matches!(open("text"), OpenError::Damaged { .. }));

    let foreign = Connection::open(folder.path().join("foreign")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1").unwrap();
    assert!(open("foreign").to_string().contains("another program's database"));
    assert_eq!(texts(&foreign, "SELECT name FROM sqlite_schema"), ["theirs"]);

    let path = folder.path().join("newer");
    let (journal, writer) = Journal::open(&Options { path: path.clone() }).unwrap();
    drop(journal);
    writer.join().unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = open("newer");
    assert!(matches!(error, OpenError::Newer { found: 99, known: 5, .. }), "{error:?}");
}

#[test]
fn an_empty_file_becomes_a_journal_and_an_old_one_stays_as_it_is() {
    let mut desk = Desk::new();
    let settings = |conn: &Connection| {
        (
            number(conn, "PRAGMA user_version"),
            number(conn, "PRAGMA application_id"),
            number(conn, "PRAGMA auto_vacuum"),
        )
    };
    assert_eq!(settings(&desk.sql()), (5, 0x766f_6472, 2));
    desk.stop();
    assert!(!desk.folder.path().join("journal.db-wal").exists(), "folded back at the end");
    let bytes = fs::read(desk.path()).unwrap();
    desk.start();
    desk.stop();
    assert_eq!(fs::read(desk.path()).unwrap().len(), bytes.len());
    fs::write(desk.path(), "").unwrap();
    desk.start();
    assert_eq!(settings(&desk.sql()), (5, 0x766f_6472, 2));
}
