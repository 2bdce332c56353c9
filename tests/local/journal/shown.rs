//! The commands that show the journal: `events list` and `events show`.

use vodrelay::cli::screen::Screen;

use super::*;
use crate::terminal::HOSTILE;

const SCREEN: Screen = Screen { width: Some(80), height: Some(24) };

fn list_args() -> ListArgs {
    ListArgs {
        state: None,
        event_type: None,
        sub_app: None,
        file_id: None,
        task_id: None,
        maybe_duplicate: false,
        since: None,
        until: None,
        limit: 50,
        wide: false,
        columns: Vec::new(),
        json: true,
    }
}

fn listed(path: &Path, args: &ListArgs) -> (String, events::Listed) {
    let mut out = Vec::new();
    let listed = events::list(path, args, SCREEN, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), listed)
}

fn listed_ids(path: &Path, args: &ListArgs) -> Vec<i64> {
    let (text, _) = listed(path, args);
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap();
    text.lines().map(id).collect()
}

#[tokio::test]
async fn listing_filters_and_pages_while_the_relay_runs_and_when_it_does_not() {
    let mut desk = Desk::new();
    let all = desk.record(answer(0, &[("h1", "a"), ("h2", "b"), ("h3", "c")])).await;
    desk.record(answer(10_000, &[("h4", "d")])).await;
    desk.publish(all[0].event).await;
    desk.confirm(all[0].delivery).await;
    desk.publish(all[1].event).await;
    let doubt = FailedAttempt { event: all[2].event, uncertain: true, problem: problem("no answer") };
    desk.journal().failed(vec![doubt]).await.unwrap();
    let text = |s: &str| Some(s.to_owned());
    for running in [true, false] {
        let path = desk.path();
        assert_eq!(listed_ids(&path, &list_args()), [4, 3, 2, 1]);
        for (args, expected) in [
            (ListArgs { state: Some(EventState::Confirmed), ..list_args() }, vec![1]),
            (ListArgs { state: Some(EventState::Received), ..list_args() }, vec![4, 3]),
            (ListArgs { state: Some(EventState::Parked), ..list_args() }, vec![]),
            (ListArgs { file_id: text("f-b"), ..list_args() }, vec![2]),
            (ListArgs { task_id: text("t-c"), state: Some(EventState::Received), ..list_args() }, vec![3]),
            (ListArgs { event_type: text("PullComplete"), limit: 2, ..list_args() }, vec![4, 3]),
            (ListArgs { event_type: text("NewFileUpload"), ..list_args() }, vec![]),
            (ListArgs { sub_app: Some(7), since: Some(wall(5_000)), ..list_args() }, vec![4]),
            (ListArgs { until: Some(wall(5_000)), ..list_args() }, vec![3, 2, 1]),
            (ListArgs { sub_app: Some(0), ..list_args() }, vec![]),
            (ListArgs { maybe_duplicate: true, ..list_args() }, vec![3]),
            (ListArgs { limit: 0, ..list_args() }, vec![]),
        ] {
            assert_eq!(listed_ids(&path, &args), expected, "running: {running}, {args:?}");
        }
        let counts = JournalReader::open(&path).unwrap().count_by_state().unwrap();
        assert_eq!(
            counts,
            [
                (EventState::Received, 2),
                (EventState::Published, 1),
                (EventState::Confirmed, 1),
                (EventState::Parked, 0)
            ]
        );
        if running {
            desk.stop();
        }
    }
    desk.start();
}

#[tokio::test]
async fn listing_goes_over_many_pages_without_a_gap() {
    let desk = Desk::new();
    // Equal times, so that the page ends fall between events of one millisecond.
    for _ in 0..5 {
        let names: Vec<_> =
            (0..100).map(|n| (format!("h{n}-{}", fastrand::u64(..)), n.to_string())).collect();
        let mut answer = answer(0, &names.iter().map(|(h, n)| (h.as_str(), n.as_str())).collect::<Vec<_>>());
        answer.publish_now = false;
        desk.record(answer).await;
    }
    let args = ListArgs { limit: 450, ..list_args() };
    assert_eq!(listed_ids(&desk.path(), &args), (51..=500).rev().collect::<Vec<_>>());
    assert_eq!(listed(&desk.path(), &args).1, events::Listed { events: 450, more: true });
    let all = ListArgs { limit: 500, ..list_args() };
    assert_eq!(listed(&desk.path(), &all).1, events::Listed { events: 500, more: false });
    let reader = JournalReader::open(&desk.path()).unwrap();
    let first = reader.list(&Filter::default(), None, 3).unwrap();
    let second = reader.list(&Filter::default(), first.last().map(|e| e.cursor()), 2).unwrap();
    assert_eq!(second.iter().map(|e| e.id).collect::<Vec<_>>(), [497, 496]);
}

#[tokio::test]
async fn a_list_for_people_fits_the_screen() {
    let desk = Desk::new();
    let all = desk.record(answer(0, &[("h1", "a"), ("h2", "a-long-name")])).await;
    desk.journal().parked(vec![(all[1].event, problem("312\u{1b}NO_ROUTE"))]).await.unwrap();
    let id = |says| event("", says).fingerprint.to_string()[..32].to_owned();
    let list = |args| listed(&desk.path(), &args).0;
    let people = ListArgs { json: false, ..list_args() };
    let columns = vec![events::Column::Number, events::Column::State, events::Column::File];
    assert_eq!(
        list(ListArgs { columns, ..people.clone() }),
        "NUMBER  STATE     FILE\n2       parked    f-a-long-name\n1       received  f-a\n"
    );
    let text = list(people.clone());
    assert_eq!(text.lines().count(), 3);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains(&format!("f-a-long-name  {}", &id("a-long-name")[..8])), "{text}");
    let parked = list(ListArgs { state: Some(EventState::Parked), ..people.clone() });
    assert!(parked.ends_with("312\\u{1b}NO_ROUTE\n"), "{parked}");
    let wide = list(ListArgs { wide: true, ..people });
    assert!(wide.contains(&id("a")) && wide.contains("t-a-long-name"), "{wide}");
}

fn shown(path: &Path, id: &str, json: bool) -> String {
    let mut out = Vec::new();
    events::show(path, &ShowArgs { id: id.into(), json }, SCREEN, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn one_event_is_shown_with_everything() {
    let desk = Desk::new();
    let mut odd = answer(0, &[]);
    let body = r#"{"EventHandle":"h1", "EventType":"Odd","n":1.0,"big":12345678901234567890123,"n":2}"#;
    odd.events = vec![Arc::new(Event::parse(APP, Bytes::from(body)).unwrap())];
    let one = desk.record(odd).await[0];
    desk.publish(one.event).await;
    desk.confirm(one.delivery).await;
    let fingerprint = texts(&desk.sql(), "SELECT lower(hex(fingerprint)) FROM event").remove(0);
    let message_id = &fingerprint[..32];
    let json = shown(&desk.path(), "1", true);
    assert_eq!(
        json,
        format!(
            r#"{{"id":1,"message_id":"{message_id}","sub_app_id":7,"event_type":"Odd","file_id":null,"task_id":null,"state":"confirmed","occurrence":1,"redeliveries":0,"attempts":1,"maybe_duplicate":false,"error_code":null,"message":null,"parked_message":null,"received_at":"2023-11-14T22:13:20.100Z","published_at":"2023-11-14T22:13:20.500Z","confirmed_at":"2023-11-14T22:13:21.007Z","fingerprint":"{fingerprint}","deliveries":[{{"handle":"h1","request_id":"r-1","pulled_at":"2023-11-14T22:13:20.100Z","lease_until":"2023-11-14T22:13:47.000Z","outcome":"confirmed","confirmed_at":"2023-11-14T22:13:21.007Z"}}],"body":{body}}}
"#
        )
    );
    for id in [message_id, &message_id[..9], &message_id.to_uppercase()] {
        assert_eq!(shown(&desk.path(), id, true), json, "{id}");
    }
    let people = shown(&desk.path(), "1", false);
    for part in [
        "state           confirmed\n",
        "  confirmed\n    handle h1\n    request r-1\n",
        "  \"big\": 12345678901234567890123,\n  \"n\": 2\n}\n",
    ] {
        assert!(people.contains(part), "{part:?} in {people}");
    }
}

#[tokio::test]
async fn what_cannot_be_shown_is_explained() {
    let desk = Desk::new();
    desk.record(answer(0, &[("h1", "a"), ("h2", "a")])).await;
    let message_id = event("", "a").fingerprint.to_string()[..32].to_owned();
    let reader = JournalReader::open(&desk.path()).unwrap();
    assert_eq!(reader.show(&message_id).unwrap().event.id, 1);
    assert_eq!(reader.show(&format!("{message_id}-2")).unwrap().event.id, 2);
    let ambiguous = reader.show(&message_id[..20]).unwrap_err();
    assert!(matches!(&ambiguous, QueryError::Ambiguous { candidates, .. } if candidates.len() == 2));
    assert!(ambiguous.to_string().contains(&format!("({message_id}, {message_id}-2)")), "{ambiguous}");
    for what in ["99", "-1", "", "zz", "0000000000000000", &format!("{message_id}-3")] {
        assert!(matches!(reader.show(what), Err(QueryError::NotFound { .. })), "{what}");
    }
    let nowhere = desk.folder.path().join("none.db");
    let error = JournalReader::open(&nowhere).unwrap_err();
    assert!(error.to_string().ends_with("start `vodrelay run` once, which makes it"), "{error}");
    assert!(!nowhere.exists(), "looking makes nothing");
    let error = JournalReader::open(desk.folder.path()).unwrap_err();
    assert!(error.to_string().contains("it is a folder"), "{error}");
    fs::write(&nowhere, "").unwrap();
    assert!(JournalReader::open(&nowhere).unwrap_err().to_string().contains("it is empty"));
}

/// SQLite looks for the WAL beside the name that it is given: by a hard link it finds the file without what is newest.
#[tokio::test]
async fn a_journal_at_work_is_not_read_by_another_name() {
    let mut desk = Desk::new();
    desk.record(answer(0, &[("h1", "a")])).await;
    let hard = desk.folder.path().join("hard.db");
    fs::hard_link(desk.path(), &hard).unwrap();
    let soft = desk.folder.path().join("soft.db");
    std::os::unix::fs::symlink(&hard, &soft).unwrap();
    let read = JournalReader::open(&hard).unwrap_err().to_string();
    for told in [
        read,
        JournalReader::open(&soft).unwrap_err().to_string(),
        vodrelay::journal::probe::probe(&hard).unwrap_err().to_string(),
    ] {
        let words =
            format!("process {} has it open by another of its names (hard links)", std::process::id());
        assert!(told.contains(&words) && told.contains("set journal.path to that one"), "{told}");
    }
    assert_eq!(
        JournalReader::open(&desk.path()).unwrap().list(&Filter::default(), None, 9).unwrap().len(),
        1
    );
    assert!(!desk.folder.path().join("hard.db-wal").exists(), "nothing was made by that name");
    desk.stop();
    JournalReader::open(&hard).unwrap();
}

#[tokio::test]
async fn hostile_events_leave_every_line_printable_and_within_the_screen() {
    let desk = Desk::new();
    let long = serde_json::Value::from(HOSTILE.repeat(66_000 / HOSTILE.chars().count()));
    let events = [
        format!(
            r#"{{"EventHandle":{long},"EventType":{long},"FileUploadEvent":{{"FileId":{long},"TaskId":{long}}}}}"#
        ),
        r#"{"EventHandle":"h"}"#.to_owned(),
        r#"{"EventHandle":5,"EventType":17,"FileUploadEvent":{"FileId":18446744073709551615}}"#.to_owned(),
        // As they are, where JSON lets them stand.
        "{\"EventHandle\":\"r\",\n\t\"EventType\":\"\u{7f}\u{9b}\u{202e}\u{e0001}\"}".to_owned(),
    ];
    let mut hostile = answer(0, &[]);
    hostile.request_id = HOSTILE.into();
    hostile.events =
        events.map(|event| Arc::new(Event::parse(SubAppId(u64::MAX), Bytes::from(event)).unwrap())).into();
    let all = desk.record(hostile).await;
    let parked = all.iter().take(2).map(|recorded| (recorded.event, problem(&HOSTILE.repeat(1_000))));
    desk.journal().parked(parked.collect()).await.unwrap();

    let shown = texts(&desk.sql(), "SELECT DISTINCT sub_app_id FROM event_log");
    assert_eq!(shown, ["18446744073709551615"], "SQLite's integers have a sign");

    let path = desk.path();
    let program = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vodrelay"))
            .args(arguments)
            .env_clear()
            .env("VODRELAY_JOURNAL__PATH", &path)
            .env("VODRELAY_STATUS__SOCKET", desk.folder.path().join("none.sock"))
            .env("COLUMNS", "80")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for line in text.lines() {
            // Nothing is invisible, and nothing is changed by being made visible.
            assert_eq!(line, vodrelay::cli::screen::printable(line), "{arguments:?}");
            let is_json = arguments.contains(&"--json") || arguments.contains(&"--wide");
            assert!(is_json || vodrelay::cli::screen::width(line) <= 80, "{arguments:?}: {line}");
        }
        (output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in [
        &["events", "list"][..],
        &["events", "list", "--wide"],
        &["events", "list", "--json"],
        &["events", "list", "--state", "parked"],
        &["events", "list", "--columns", "type,error-code,message,task,message-id,sub-app"],
        &["events", "show", "1"],
        &["events", "show", "2"],
        &["events", "show", "3", "--json"],
        &["events", "show", "4"],
        &["events", "show", "4", "--json"],
        &["check", "--offline"],
    ] {
        let (exit, text, error) = program(arguments);
        assert_eq!((exit, error.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(!text.is_empty(), "{arguments:?}");
    }
    for id in 1..=4 {
        let (_, json, _) = program(&["events", "show", &id.to_string(), "--json"]);
        assert_eq!(json.lines().count(), 1, "one object, one line");
        let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
        let body: String = desk
            .sql()
            .query_row("SELECT body FROM content WHERE event = ?1", [id], |row| row.get(0))
            .unwrap();
        assert_eq!(shown["body"], serde_json::from_str::<serde_json::Value>(&body).unwrap());
    }
    let (exit, text, _) = program(&["status"]);
    assert_eq!((exit, text.contains("2 parked")), (Some(1), true), "{text}");
    let (exit, text, error) = program(&["events", "list", "--type", "no such type"]);
    assert_eq!((exit, text.as_str(), error.trim()), (Some(0), "", "no event matches"));
}
