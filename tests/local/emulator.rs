//! The emulator, spoken to in raw HTTP: what it answers is checked without any client of ours in between.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tencent_vod_emulator::{
    Action, ConfirmVerdict, Credential, Emulator, EmulatorSettings, Fault, FaultKind, IdleShape, Options,
    QueueSettings, Redelivery,
};
use tencent_vod_emulator::{events, handles::HandleForm};
use tencentcloud_signing::Secret;
use tencentcloud_signing::tc3 as sign;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vodrelay::clock::Now as _;
use vodrelay_core::clock::WallTime;

/// Longer than anything here takes, shorter than anyone waits.
const SOON: Duration = Duration::from_secs(10);

const ID: &str = "AKIDofthetests";
const KEY: &str = "keyofthetests";

fn settings() -> EmulatorSettings {
    // No hold and no limit, unless a test is about them.
    EmulatorSettings { hold_ms: 0, requests_per_second: 0, ..EmulatorSettings::default() }
}

async fn start(settings: EmulatorSettings) -> Emulator {
    let credentials = vec![Credential::new(ID, KEY)];
    Emulator::start(Options { credentials, settings, ..Options::default() }).await.expect("a free port")
}

/// A request on its way to be sent; fields are what tests change.
struct Call {
    method: &'static str,
    target: String,
    action: String,
    version: &'static str,
    content_type: &'static str,
    /// The host as it is signed; the one that is sent is always the address.
    signed_host: Option<&'static str>,
    service: &'static str,
    signed_action: bool,
    unsigned_payload: bool,
    skew_seconds: i64,
    id: &'static str,
    key: &'static str,
    token: Option<&'static str>,
    authorization: Option<&'static str>,
    body: String,
}

impl Call {
    fn new(action: &str, body: impl Into<String>) -> Self {
        Self {
            method: "POST",
            target: "/".to_owned(),
            action: action.to_owned(),
            version: "2018-07-17",
            content_type: "application/json",
            signed_host: None,
            service: "vod",
            signed_action: false,
            unsigned_payload: false,
            skew_seconds: 0,
            id: ID,
            key: KEY,
            token: None,
            authorization: None,
            body: body.into(),
        }
    }

    fn pull() -> Self {
        Self::new("PullEvents", "{}")
    }

    fn confirm(handles: &[&str]) -> Self {
        Self::new("ConfirmEvents", json!({ "EventHandles": handles }).to_string())
    }

    fn bytes(&self, emulator: &Emulator) -> Vec<u8> {
        let address = emulator.addr().to_string();
        let timestamp = WallTime::now().0 / 1_000 + self.skew_seconds;
        let action = self.action.to_lowercase();
        let mut headers =
            vec![("content-type", self.content_type), ("host", self.signed_host.unwrap_or(&address))];
        if self.signed_action {
            headers.push(("x-tc-action", &action));
        }
        let request = sign::Request {
            method: self.method,
            query: self.target.split_once('?').map_or("", |(_, query)| query),
            headers: &headers,
            body: if self.unsigned_payload { sign::UNSIGNED_PAYLOAD } else { self.body.as_bytes() },
            timestamp,
            service: self.service,
        };
        let authorization = match self.authorization {
            Some(given) => given.to_owned(),
            None => sign::authorization(self.id, self.key, &request),
        };
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {}\r\nX-TC-Action: {}\r\nX-TC-Version: {}\r\n\
             X-TC-Timestamp: {timestamp}\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.method,
            self.target,
            self.content_type,
            self.action,
            self.version,
            self.body.len(),
        );
        if !authorization.is_empty() {
            text.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        if let Some(token) = self.token {
            text.push_str(&format!("X-TC-Token: {token}\r\n"));
        }
        if self.unsigned_payload {
            text.push_str("X-TC-Content-SHA256: UNSIGNED-PAYLOAD\r\n");
        }
        text.push_str("\r\n");
        text.push_str(&self.body);
        text.into_bytes()
    }

    async fn send(&self, emulator: &Emulator) -> Answer {
        let raw = exchange(emulator, &self.bytes(emulator)).await.expect("an answer");
        Answer::parse(&raw)
    }

    async fn code(&self, emulator: &Emulator) -> String {
        self.send(emulator).await.code()
    }
}

/// Everything that the server writes in answer to these bytes, until it closes the connection.
async fn exchange(emulator: &Emulator, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(emulator.addr()).await?;
    stream.write_all(request).await?;
    let mut raw = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut raw)).await.expect("an end within time")?;
    Ok(raw)
}

async fn control(emulator: &Emulator, method: &str, path: &str, body: &str) -> Answer {
    let request = format!(
        "{method} /_emulator{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    Answer::parse(&exchange(emulator, request.as_bytes()).await.expect("an answer"))
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8(raw.to_vec()).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn response(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.body));
        value["Response"].clone()
    }

    /// The error's code, or `ok`.
    fn code(&self) -> String {
        self.response()["Error"]["Code"].as_str().unwrap_or("ok").to_owned()
    }

    fn handles(&self) -> Vec<String> {
        let response = self.response();
        let events = response["EventSet"].as_array().cloned().unwrap_or_default();
        events.iter().map(|event| event["EventHandle"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

#[tokio::test]
async fn events_are_pulled_byte_for_byte_and_confirmed() {
    let emulator = start(settings()).await;
    let put: Vec<String> = events::EVENT_TYPES.iter().map(|t| events::sample(t, 7).unwrap()).collect();
    emulator.put_many(0, put.iter().map(String::as_str));
    let mut seen = Vec::new();
    loop {
        let answer = Call::pull().send(&emulator).await;
        if answer.code() == "ResourceNotFound" {
            break;
        }
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("date").is_some());
        let handles = answer.handles();
        assert!(handles.len() <= 16);
        for handle in &handles {
            let next = &put[seen.len()];
            let shown = format!("{{\"EventHandle\":\"{handle}\",{}", &next[1..]);
            assert!(answer.body.contains(&shown), "{shown} is not in the answer");
            seen.push(handle.clone());
        }
        let handles: Vec<&str> = handles.iter().map(String::as_str).collect();
        let confirmed = Call::confirm(&handles).send(&emulator).await;
        assert_eq!(confirmed.code(), "ok");
        assert!(confirmed.response()["RequestId"].as_str().unwrap().len() == 36);
    }
    assert_eq!(seen.len(), 37);
    let ledger = emulator.ledger(None);
    assert_eq!(ledger.unconfirmed().count(), 0);
    assert_eq!(ledger.with_verdict(ConfirmVerdict::Confirmed).count(), 37);
    assert!(ledger.calls_with_a_handle_twice().is_empty());
    assert_eq!(emulator.stats().events().confirmed, 37);
}

#[tokio::test]
async fn each_way_to_sign_that_a_client_uses_is_accepted() {
    let emulator = start(settings()).await;
    let ok = "ResourceNotFound";
    assert_eq!(Call::pull().code(&emulator).await, ok, "the Python and Go SDKs");
    let spaced = Call::new("PullEvents", "{\"SubAppId\": 0}");
    assert_eq!(spaced.code(&emulator).await, ok, "Python's spaces");
    let node = Call { signed_host: Some("127.0.0.1"), service: "127", ..Call::pull() };
    assert_eq!(node.code(&emulator).await, ok, "Node's host without port, and its service");
    let documents =
        Call { signed_action: true, content_type: "application/json; charset=utf-8", ..Call::pull() };
    assert_eq!(documents.code(&emulator).await, ok, "the documents' third header in lower case");
    let unsigned = Call { unsigned_payload: true, ..Call::pull() };
    assert_eq!(unsigned.code(&emulator).await, ok, "an unsigned payload");
    let get = Call {
        method: "GET",
        target: "/?SubAppId=5".to_owned(),
        content_type: "application/x-www-form-urlencoded",
        ..Call::new("PullEvents", "")
    };
    assert_eq!(get.code(&emulator).await, ok, "GET");
}

#[tokio::test]
async fn each_bad_request_has_its_code() {
    let emulator = start(EmulatorSettings { sub_app_ids: vec![5], ..settings() }).await;
    let many: Vec<&str> = std::iter::repeat_n("h", 17).collect();
    let cases = [
        (Call { id: "AKIDother", ..Call::pull() }, "AuthFailure.SecretIdNotFound"),
        (Call { key: "another", ..Call::pull() }, "AuthFailure.SignatureFailure"),
        (Call { service: "cvm", ..Call::pull() }, "AuthFailure.SignatureFailure"),
        (
            Call { signed_host: Some("vod.tencentcloudapi.com"), ..Call::pull() },
            "AuthFailure.SignatureFailure",
        ),
        (Call { token: Some("t"), ..Call::pull() }, "AuthFailure.TokenFailure"),
        (Call { skew_seconds: 400, ..Call::pull() }, "AuthFailure.SignatureExpire"),
        (Call { skew_seconds: -400, ..Call::pull() }, "AuthFailure.SignatureExpire"),
        (Call { authorization: Some(""), ..Call::pull() }, "AuthFailure.InvalidAuthorization"),
        (Call { authorization: Some("Basic eDp5"), ..Call::pull() }, "AuthFailure.InvalidAuthorization"),
        (Call { version: "2024-07-18", ..Call::pull() }, "NoSuchVersion"),
        (Call::new("DescribeMediaInfos", "{}"), "InvalidAction"),
        (Call { method: "PUT", ..Call::pull() }, "UnsupportedProtocol"),
        (Call::new("PullEvents", "{\"Limit\":100}"), "UnknownParameter"),
        (Call::new("PullEvents", "{\"SubAppId\":\"5\"}"), "InvalidParameter"),
        (Call::new("PullEvents", "{"), "InvalidRequest"),
        (Call::new("PullEvents", "{\"SubAppId\":6}"), "InvalidParameterValue.SubAppId"),
        (Call::new("PullEvents", "{\"SubAppId\":5}"), "ResourceNotFound"),
        (Call::new("ConfirmEvents", "{}"), "MissingParameter"),
        (Call::confirm(&[]), "InvalidParameterValue"),
        (Call::confirm(&many), "InvalidParameterValue"),
        (Call::confirm(&["nobody's"]), "InvalidParameterValue"),
    ];
    for (at, (call, code)) in cases.iter().enumerate() {
        let answer = call.send(&emulator).await;
        assert_eq!(answer.code(), *code, "case {at}");
        assert_eq!(answer.status, 200, "errors travel in the envelope");
    }
}

#[tokio::test]
async fn temporary_keys_need_their_token_and_keys_can_be_exchanged() {
    let emulator = start(settings()).await;
    let token = Some(Secret::new("t"));
    emulator.set_credentials(vec![Credential { token, ..Credential::new("AKIDnew", "new") }]);
    assert_eq!(Call::pull().code(&emulator).await, "AuthFailure.SecretIdNotFound");
    let call = |token| Call { id: "AKIDnew", key: "new", token, ..Call::pull() };
    assert_eq!(call(None).code(&emulator).await, "AuthFailure.TokenFailure");
    assert_eq!(call(Some("t")).code(&emulator).await, "ResourceNotFound");
}

#[tokio::test]
async fn a_held_pull_wakes_when_an_event_is_put() {
    let emulator = start(EmulatorSettings { hold_ms: 60_000, ..settings() }).await;
    let call = Call::pull();
    let (answer, ()) = tokio::join!(call.send(&emulator), async {
        emulator.wait_until(|state| state.stats().pulls_now == 1, SOON).await.unwrap();
        emulator.put(0, "{\"a\":1}");
    });
    assert_eq!(answer.handles().len(), 1);
    assert_eq!(emulator.stats().max_concurrent_pulls, 1);
}

#[tokio::test]
async fn a_held_pull_wakes_when_a_window_ends() {
    let queue = QueueSettings { window_ms: 100, ..QueueSettings::default() };
    let emulator = start(EmulatorSettings { hold_ms: 60_000, queue, ..settings() }).await;
    emulator.put(0, "{\"a\":1}");
    let first = Call::pull().send(&emulator).await.handles();
    let second = Call::pull().send(&emulator).await.handles();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second, "a new handle for each delivery");
    assert_eq!(Call::confirm(&[&first[0]]).code(&emulator).await, "InvalidParameterValue");
    assert_eq!(emulator.ledger(0).confirms[0].verdict, ConfirmVerdict::Late);
}

#[tokio::test]
async fn an_idle_pull_is_held_as_long_as_set() {
    let emulator = start(EmulatorSettings { hold_ms: 200, ..settings() }).await;
    let began = Instant::now();
    assert_eq!(Call::pull().code(&emulator).await, "ResourceNotFound");
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_client_that_leaves_takes_no_events_with_it() {
    let emulator = start(EmulatorSettings { hold_ms: 60_000, ..settings() }).await;
    let mut stream = TcpStream::connect(emulator.addr()).await.unwrap();
    stream.write_all(&Call::pull().bytes(&emulator)).await.unwrap();
    emulator.wait_until(|state| state.stats().pulls_now == 1, SOON).await.unwrap();
    drop(stream);
    emulator.wait_until(|state| state.stats().pulls_now == 0, SOON).await.unwrap();
    emulator.put(0, "{}");
    assert_eq!(emulator.stats().events().visible, 1);
}

#[tokio::test]
async fn nothing_to_pull_is_answered_in_every_shape() {
    let emulator = start(settings()).await;
    let shapes = [
        (IdleShape::Error, "\"Error\":{\"Code\":\"ResourceNotFound\",\"Message\":\"no event\"},"),
        (IdleShape::Null, "\"EventSet\":null,"),
        (IdleShape::Empty, "\"EventSet\":[],"),
        (IdleShape::Absent, ""),
    ];
    for (shape, members) in shapes {
        let expected = format!("{{\"Response\":{{{members}\"RequestId\":\"");
        emulator.change_settings(|settings| settings.idle = shape);
        let answer = Call::pull().send(&emulator).await;
        assert!(answer.body.starts_with(&expected), "{}", answer.body);

        // As a fault it hides what there is, at once.
        emulator.put(9, "{}");
        emulator.faults().add(Fault::once(FaultKind::Idle { shape }));
        let answer = Call::new("PullEvents", "{\"SubAppId\":9}").send(&emulator).await;
        assert!(answer.body.starts_with(&expected), "{}", answer.body);
    }
    assert_eq!(emulator.stats().idle, 8);
    assert_eq!(emulator.stats().queues[&9].deliveries, 0);
}

#[tokio::test]
async fn sub_applications_are_apart() {
    let emulator = start(settings()).await;
    emulator.put(1, "{\"a\":1}");
    assert_eq!(Call::pull().code(&emulator).await, "ResourceNotFound");
    let handle = Call::new("PullEvents", "{\"SubAppId\":1}").send(&emulator).await.handles().remove(0);
    assert_eq!(Call::confirm(&[&handle]).code(&emulator).await, "InvalidParameterValue");
    let confirm = json!({ "EventHandles": [handle], "SubAppId": 1 }).to_string();
    assert_eq!(Call::new("ConfirmEvents", confirm).code(&emulator).await, "ok");
}

#[tokio::test]
async fn the_state_and_the_configuration_can_be_read_and_changed() {
    let emulator = start(settings()).await;
    emulator.put_many(0, ["{}", "{}"]);
    let state = Call::new("DescribeEventsState", "{}").send(&emulator).await.response();
    assert_eq!(state["CountOfEventsToPull"], 2);
    let read = Call::new("DescribeEventConfig", "{}");
    let config = read.send(&emulator).await.response();
    assert_eq!((&config["Mode"], &config["UploadMediaCompleteEventSwitch"]), (&json!("PULL"), &json!("ON")));
    let change = json!({ "Mode": "PUSH", "NotificationUrl": "http://x/\"y\"", "UploadMediaCompleteEventSwitch": "OFF" });
    assert_eq!(Call::new("ModifyEventConfig", change.to_string()).code(&emulator).await, "ok");
    let config = read.send(&emulator).await.response();
    assert_eq!((&config["Mode"], &config["NotificationUrl"]), (&json!("PUSH"), &json!("http://x/\"y\"")));
    assert_eq!(config["UploadMediaCompleteEventSwitch"], "OFF");
    assert_eq!(config["DeleteMediaCompleteEventSwitch"], "ON", "what was not said stays");
    assert_eq!(Call::pull().code(&emulator).await, "ResourceNotFound", "under PUSH there is nothing to pull");
}

#[tokio::test]
async fn more_than_the_limit_is_refused() {
    let emulator = start(EmulatorSettings { requests_per_second: 2, ..settings() }).await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(Call::new("DescribeEventsState", "{}").code(&emulator).await);
    }
    assert_eq!(codes, ["ok", "ok", "RequestLimitExceeded"]);
    assert_eq!(emulator.stats().throttled, 1);
    assert_eq!(Call::pull().code(&emulator).await, "ResourceNotFound", "each API has its own limit");
}

#[tokio::test]
async fn faults_that_replace_the_answer_do_nothing_else() {
    let emulator = start(settings()).await;
    emulator.put(0, "{}");
    let error = |code: &str| FaultKind::Error { code: code.to_owned() };
    for (fault, code) in [
        (FaultKind::Throttle, "RequestLimitExceeded"),
        (error("InternalError"), "InternalError"),
        (error("AuthFailure.TokenFailure"), "AuthFailure.TokenFailure"),
    ] {
        emulator.faults().add(Fault::once(fault).on(Action::PullEvents));
        assert_eq!(Call::new("DescribeEventsState", "{}").code(&emulator).await, "ok");
        assert_eq!(Call::pull().code(&emulator).await, code);
    }
    emulator.faults().add(Fault::once(FaultKind::Html { status: 502 }));
    let answer = Call::pull().send(&emulator).await;
    assert_eq!((answer.status, answer.header("content-type")), (502, Some("text/html")));
    assert!(answer.body.starts_with("<html>"));
    emulator.faults().add(Fault::once(FaultKind::Rubbish));
    let answer = Call::pull().send(&emulator).await;
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_str::<Value>(&answer.body).is_err());
    emulator.faults().add(Fault::once(FaultKind::Reset));
    let error = exchange(&emulator, &Call::pull().bytes(&emulator)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(emulator.faults().active().is_empty());
    let events = emulator.stats().events();
    assert_eq!((events.visible, events.deliveries), (1, 0));
}

#[tokio::test]
async fn faults_after_the_effect_lose_the_answer_only() {
    let emulator = start(settings()).await;
    emulator.put_many(0, ["{\"a\":1}", "{\"a\":2}"]);
    emulator.faults().add(Fault::once(FaultKind::AnswerLost).on(Action::ConfirmEvents));
    emulator.faults().add(Fault::once(FaultKind::Truncated).on(Action::PullEvents));
    let raw = exchange(&emulator, &Call::pull().bytes(&emulator)).await.unwrap();
    let answer = Answer::parse(&raw);
    let promised: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert!(!answer.body.is_empty() && answer.body.len() < promised, "{} of {promised}", answer.body.len());
    assert_eq!(emulator.stats().events().hidden, 2);

    let handle = emulator.ledger(0).events[0].deliveries[0].handle.clone().unwrap();
    let raw = exchange(&emulator, &Call::confirm(&[&handle]).bytes(&emulator)).await.unwrap();
    assert!(raw.is_empty(), "no answer at all");
    assert_eq!(emulator.stats().events().confirmed, 1);
    assert_eq!(
        Call::confirm(&[&handle]).code(&emulator).await,
        "ok",
        "a repeat within the window is harmless"
    );
}

#[tokio::test]
async fn an_idle_answer_does_not_use_up_a_fault_that_concerns_events() {
    let emulator = start(settings()).await;
    emulator.faults().add(Fault::once(FaultKind::AnswerLost).on(Action::PullEvents));
    emulator.faults().add(Fault::once(FaultKind::NoHandle));
    assert_eq!(Call::pull().code(&emulator).await, "ResourceNotFound");
    assert_eq!(emulator.faults().active().len(), 2);
}

#[tokio::test]
async fn delays_come_before_the_effect_or_after_it() {
    let emulator = start(settings()).await;
    emulator.put(0, "{}");
    emulator.faults().add(Fault::once(FaultKind::Delay { ms: 50 }));
    let began = Instant::now();
    let handles = Call::pull().send(&emulator).await.handles();
    assert!(began.elapsed() >= Duration::from_millis(50));

    // Delays that nobody waits out, so that only their order against the effect decides.
    let confirm = Call::confirm(&[&handles[0]]);
    emulator.faults().add(Fault::once(FaultKind::Delay { ms: 60_000 }));
    tokio::select! {
        _ = confirm.send(&emulator) => panic!("an answer before the delay was over"),
        called = emulator.wait_until(|state| state.calls(Action::ConfirmEvents) == 1, SOON) => called.unwrap(),
    }
    assert_eq!(emulator.stats().events().confirmed, 0);
    emulator.faults().add(Fault::once(FaultKind::SlowAnswer { ms: 60_000 }));
    tokio::select! {
        _ = confirm.send(&emulator) => panic!("an answer before the delay was over"),
        confirmed = emulator.wait_until(|state| state.unconfirmed() == 0, SOON) => confirmed.unwrap(),
    }
}

#[tokio::test]
async fn events_come_again_early_under_a_new_or_the_same_handle() {
    let emulator = start(settings()).await;
    emulator.put(0, "{}");
    let mut handles = Vec::new();
    for under in [Redelivery::NewHandle, Redelivery::SameHandle] {
        emulator.faults().add(Fault::once(FaultKind::Redelivered { under }));
        handles.extend(Call::pull().send(&emulator).await.handles());
    }
    handles.extend(Call::pull().send(&emulator).await.handles());
    assert_ne!(handles[0], handles[1]);
    assert_eq!(handles[1], handles[2]);
    assert_eq!(Call::confirm(&[&handles[0]]).code(&emulator).await, "InvalidParameterValue");
    assert_eq!(Call::confirm(&[&handles[1]]).code(&emulator).await, "ok");
    assert_eq!(emulator.ledger(0).events[0].deliveries.len(), 3);

    let event = emulator.put(0, "{}");
    Call::pull().send(&emulator).await;
    assert!(emulator.redeliver(0, event, Redelivery::NewHandle));
    assert_eq!(Call::pull().send(&emulator).await.handles().len(), 1);
}

#[tokio::test]
async fn one_bad_handle_spoils_its_calls_and_no_others() {
    let emulator = start(settings()).await;
    emulator.put_many(0, ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]);
    let handles = Call::pull().send(&emulator).await.handles();
    let bad = FaultKind::BadHandle { handle: Some(handles[1].clone()) };
    emulator.faults().add(Fault::once(bad));
    let all: Vec<&str> = handles.iter().map(String::as_str).collect();
    assert_eq!(Call::confirm(&all).code(&emulator).await, "InvalidParameterValue");
    assert_eq!(emulator.stats().events().confirmed, 0);
    assert_eq!(Call::confirm(&[all[0], all[2]]).code(&emulator).await, "ok");
    assert_eq!(Call::confirm(&[all[1]]).code(&emulator).await, "InvalidParameterValue");
    emulator.faults().clear();
    assert_eq!(Call::confirm(&[all[1]]).code(&emulator).await, "ok");
}

#[tokio::test]
async fn a_first_confirm_is_lost_before_it_takes_effect_and_the_one_after_the_redelivery_is_not() {
    let emulator = start(settings()).await;
    let event = emulator.put(0, "{}");
    emulator.faults().add(Fault::always(FaultKind::FirstConfirmLost));
    let first = Call::pull().send(&emulator).await.handles();
    for _ in 0..2 {
        let raw = exchange(&emulator, &Call::confirm(&[&first[0]]).bytes(&emulator)).await.unwrap();
        assert!(raw.is_empty(), "no answer at all");
        assert_eq!(emulator.stats().events().confirmed, 0);
    }
    assert!(emulator.redeliver(0, event, Redelivery::NewHandle));
    let second = Call::pull().send(&emulator).await.handles();
    assert_eq!(Call::confirm(&[&second[0]]).code(&emulator).await, "ok");
}

#[tokio::test]
async fn handles_can_be_shared_missing_bare_numbers_or_of_the_newer_form() {
    let emulator = start(settings()).await;
    emulator.put_many(0, ["{\"a\":1}", "{\"a\":2}"]);
    let pull_under = async |fault: FaultKind| {
        emulator.faults().add(Fault::once(FaultKind::Redelivered { under: Redelivery::NewHandle }));
        emulator.faults().add(Fault::once(fault));
        Call::pull().send(&emulator).await
    };
    let shared = pull_under(FaultKind::OneHandle).await.handles();
    assert_eq!(shared.len(), 2);
    assert_eq!(shared[0], shared[1]);
    let missing = pull_under(FaultKind::NoHandle).await;
    assert!(missing.body.contains("\"EventSet\":[{\"a\":1},{\"a\":2}]"), "{}", missing.body);
    let numeric = pull_under(FaultKind::NumericHandle).await.response();
    let number = numeric["EventSet"][0]["EventHandle"].as_u64().expect("a number");
    emulator.change_settings(|settings| settings.queue.form = HandleForm::Underscored);
    let newer = Call::pull().send(&emulator).await.handles();
    assert!(newer[0].contains("___"), "{newer:?}");
    assert_eq!(
        Call::confirm(&[&number.to_string()]).code(&emulator).await,
        "InvalidParameterValue",
        "superseded"
    );
    assert_eq!(Call::confirm(&[&newer[0], &newer[1]]).code(&emulator).await, "ok");
}

#[tokio::test]
async fn a_skewed_clock_shows_in_the_date_and_in_the_check() {
    let emulator = start(settings()).await;
    emulator.faults().add(Fault::always(FaultKind::ClockSkew { ms: 3_600_000 }));
    let answer = Call::pull().send(&emulator).await;
    assert_eq!(answer.code(), "AuthFailure.SignatureExpire");
    let corrected = Call { skew_seconds: 3_600, ..Call::pull() };
    assert_eq!(corrected.code(&emulator).await, "ResourceNotFound");
    let hour =
        |date: &str| date.split(' ').nth(4).map(|time| time.split(':').next().map(str::to_owned)).unwrap();
    emulator.faults().clear();
    let now = Call::pull().send(&emulator).await;
    assert_ne!(hour(answer.header("date").unwrap()), hour(now.header("date").unwrap()));
}

#[tokio::test]
async fn the_controls_do_over_http_what_tests_do_in_process() {
    let emulator = start(settings()).await;
    let put =
        control(&emulator, "POST", "/events", r#"{"sub_app_id":3,"events":[{"a": 1.0},{"a":2}]}"#).await;
    assert_eq!((put.status, put.body.as_str()), (200, r#"{"numbers":[1,2]}"#));
    let added = control(&emulator, "POST", "/faults", r#"[{"fault":"throttle","count":2}]"#).await;
    assert_eq!(added.body, r#"[{"fault":"throttle","count":2}]"#);
    assert_eq!(Call::pull().code(&emulator).await, "RequestLimitExceeded");
    assert_eq!(control(&emulator, "GET", "/faults", "").await.body, r#"[{"fault":"throttle","count":1}]"#);
    assert_eq!(control(&emulator, "DELETE", "/faults", "").await.status, 204);
    assert_eq!(Call::pull().code(&emulator).await, "ResourceNotFound");
    let config = control(&emulator, "POST", "/config", r#"{"idle":"empty","window_ms":50}"#).await;
    assert!(
        config.body.contains("\"idle\":\"empty\"") && config.body.contains("\"window_ms\":50"),
        "{}",
        config.body
    );
    let pulled = Call::new("PullEvents", "{\"SubAppId\":3}").send(&emulator).await;
    assert!(pulled.body.contains(",\"a\": 1.0},"), "{}", pulled.body);
    let ledger = control(&emulator, "GET", "/ledger?sub_app_id=3", "").await;
    let ledger: Value = serde_json::from_str(&ledger.body).unwrap();
    assert_eq!(ledger["events"][0]["json"], "{\"a\": 1.0}");
    assert_eq!(ledger["events"][1]["deliveries"].as_array().unwrap().len(), 1);
    let stats: Value = serde_json::from_str(&control(&emulator, "GET", "/stats", "").await.body).unwrap();
    assert_eq!((&stats["calls"]["PullEvents"], &stats["queues"]["3"]["put"]), (&json!(3), &json!(2)));

    for (method, path, body, status) in [
        ("POST", "/faults", r#"{"fault":"trottle"}"#, 422),
        ("POST", "/config", r#"{"window":5}"#, 422),
        ("POST", "/events", r#"{"events":[1]}"#, 422),
        ("POST", "/events", "{", 400),
        ("GET", "/nothing", "", 404),
    ] {
        assert_eq!(control(&emulator, method, path, body).await.status, status, "{method} {path} {body}");
    }
}

#[tokio::test]
async fn other_machines_are_let_in_only_on_request() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let error = Emulator::start(Options { listen, ..Options::default() }).await.unwrap_err();
    assert!(error.to_string().contains("refusing to listen on 0.0.0.0:0"), "{error}");
    let emulator =
        Emulator::start(Options { listen, allow_remote: true, ..Options::default() }).await.unwrap();
    assert_ne!(emulator.addr().port(), 0);
}

#[tokio::test]
async fn a_shutdown_cuts_held_polls_and_frees_the_address() {
    let emulator = start(EmulatorSettings { hold_ms: 60_000, ..settings() }).await;
    let addr = emulator.addr();
    let mut held = TcpStream::connect(addr).await.unwrap();
    held.write_all(&Call::pull().bytes(&emulator)).await.unwrap();
    let mut idle = TcpStream::connect(addr).await.unwrap();
    emulator.wait_until(|state| state.stats().pulls_now == 1, SOON).await.unwrap();
    tokio::time::timeout(SOON, emulator.shutdown()).await.expect("a shutdown within time");
    for stream in [&mut held, &mut idle] {
        let mut raw = Vec::new();
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut raw)).await.expect("an end within time");
        assert!(raw.is_empty());
    }
    let again = Emulator::start(Options { listen: addr, ..Options::default() }).await.unwrap();
    assert_eq!(again.addr(), addr);
}

#[tokio::test]
async fn waiting_in_vain_says_how_far_things_got() {
    let emulator = start(settings()).await;
    emulator.put(0, "{}");
    let error =
        emulator.wait_until(|state| state.unconfirmed() == 0, Duration::from_millis(30)).await.unwrap_err();
    assert!(error.to_string().contains("visible: 1"), "{error}");
}

#[tokio::test]
async fn trigger_puts_events_into_a_running_emulator() {
    use clap::Parser;
    use vodrelay::cli::exit::{Exit, Failure};
    use vodrelay::cli::trigger::{self, TriggerArgs, TriggerError};

    #[derive(Parser)]
    struct Wrapped {
        #[command(flatten)]
        args: TriggerArgs,
    }
    let emulator = start(settings()).await;
    let endpoint = emulator.endpoint();
    let args = |words: &[&str]| {
        Wrapped::try_parse_from(["trigger", "--to", &endpoint].iter().chain(words)).unwrap().args
    };
    trigger::run(args(&["upload", "--sub-app", "8"])).await.unwrap();
    // More bytes than the emulator reads at once, in fewer events than go in one request.
    trigger::run(args(&["upload", "--sub-app", "7", "--count", "490"])).await.unwrap();
    assert_eq!(emulator.ledger(7).events.len(), 980);
    trigger::run(args(&["FileDeleted", "--count", "1500", "--set", "Extra={\"n\": 1.0}"])).await.unwrap();
    let ledger = emulator.ledger(8);
    assert_eq!(ledger.events.len(), 2);
    assert!(ledger.events[0].json.starts_with("{\"EventType\":\"NewFileUpload\","));
    let ledger = emulator.ledger(0);
    assert_eq!(ledger.events.len(), 1500);
    assert!(ledger.events.iter().all(|event| event.json.ends_with(",\"Extra\":{\"n\": 1.0}}")));

    emulator.change_settings(|settings| settings.sub_app_ids = vec![8]);
    let error = trigger::run(args(&["upload", "--sub-app", "9"])).await.unwrap_err();
    assert!(error.to_string().contains("no sub-application 9"), "{error}");
    emulator.shutdown().await;
    let error = trigger::run(args(&["upload"])).await.unwrap_err();
    assert!(matches!(error, TriggerError::NoAnswer { .. }), "{error}");
    assert_eq!(Failure::from(error).exit(), Exit::Temporary);
}
