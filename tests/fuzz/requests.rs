//! The emulator, over real sockets: whatever is sent, an answer in the envelope or a refusal, and nothing breaks.

use std::collections::BTreeMap;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tencent_vod_emulator::{Credential, Emulator, EmulatorSettings, Options};
use tencentcloud_signing::tc3 as sign;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use vodrelay::clock::Now as _;
use vodrelay_core::clock::WallTime;

use crate::harness::fuzz;

const HTTP: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "GET ",
    "POST ",
    "HEAD ",
    "DELETE ",
    "CONNECT ",
    "OPTIONS * ",
    " HTTP/1.1",
    " HTTP/1.0",
    "Host: x\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "X-TC-Action: PullEvents\r\n",
    "X-TC-Action: ConfirmEvents\r\n",
    "X-TC-Version: 2018-07-17\r\n",
    "X-TC-Timestamp: -9223372036854775808\r\n",
    "X-TC-Timestamp: 9223372036854775807\r\n",
    "Authorization: TC3-HMAC-SHA256 Credential=",
    "/tc3_request, SignedHeaders=",
    "Signature=",
    "content-type;host",
    "/_emulator/faults",
    "/_emulator/config",
    "/_emulator/events",
    "/_emulator/ledger?sub_app_id=",
    "/_emulator/stats",
    "?EventHandles.0=a",
    "&SubAppId=18446744073709551616",
    "%00",
    "%",
    "\u{e9}",
    "\0",
    "ffffffffffffffff\r\n",
];

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "1",
    "-1",
    "1e999999",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "9223372036854775807",
    "\\ud800",
    "\\u0000",
    "\"SubAppId\":",
    "\"EventHandles\":[\"h\"]",
    "\"ExtInfo\":\"\"",
    "\"Mode\":\"PUSH\"",
    "\"NotificationUrl\":\"\"",
    "\"events\":[{}]",
    "\"sub_app_id\":7",
    "\"fault\":",
    "\"throttle\"",
    "{\"delay\":{\"ms\":18446744073709551615}}",
    "{\"clock_skew\":{\"ms\":9223372036854775807}}",
    "{\"clock_skew\":{\"ms\":-9223372036854775808}}",
    "{\"slow_answer\":{\"ms\":1}}",
    "\"answer_lost\"",
    "\"truncated\"",
    "{\"html\":{\"status\":65535}}",
    "{\"error\":{\"code\":\"",
    "\"probability\":-1.5",
    "\"probability\":1e308",
    "\"count\":0",
    "\"action\":\"PullEvents\"",
    "\"latency_ms\":18446744073709551615",
    "\"hold_ms\":18446744073709551615",
    "\"window_ms\":18446744073709551615",
    "\"window_ms\":0",
    "\"retention_ms\":0",
    "\"retention_ms\":18446744073709551615",
    "\"requests_per_second\":4294967295",
    "\"sub_app_ids\":[7]",
];

/// Panics in the emulator. Its tasks run on this runtime, where a panic would only look like a lost connection.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|place| place.file().to_owned()).unwrap_or_default();
            // The mistakes of other tests are theirs.
            if !place.contains("tests/fuzz") {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

/// One at a time, because the count of panics is one for all.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) struct World {
    runtime: Runtime,
    emulator: Emulator,
    settings: EmulatorSettings,
    inputs: u64,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    pub(crate) fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        count_panics();
        PANICS.store(0, Ordering::SeqCst);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut settings =
            EmulatorSettings { hold_ms: 0, requests_per_second: 0, ..EmulatorSettings::default() };
        settings.queue.window_ms = 0;
        let options = Options { settings: settings.clone(), ..Options::default() };
        let emulator = runtime.block_on(Emulator::start(options)).unwrap();
        Self { runtime, emulator, settings, inputs: 0, _alone: alone }
    }

    /// What comes back for these bytes, until the emulator closes or takes too long: a fault may make it.
    pub(crate) fn send(&self, request: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let mut stream = TcpStream::connect(self.emulator.addr()).await.unwrap();
            let mut answer = Vec::new();
            let exchange = async {
                // It may have heard enough before the end, and hang up.
                let _heard = stream.write_all(request).await;
                let _heard = stream.shutdown().await;
                let _cut_off = stream.read_to_end(&mut answer).await;
            };
            let _too_long = timeout(Duration::from_millis(200), exchange).await;
            answer
        })
    }

    fn signed(&self, action: &str, body: &[u8]) -> Vec<u8> {
        let timestamp = wall_seconds();
        let host = self.emulator.addr().to_string();
        let credential = self.emulator.credential();
        let headers = [("content-type", "application/json"), ("host", host.as_str())];
        let request =
            sign::Request { method: "POST", query: "", headers: &headers, body, timestamp, service: "vod" };
        let authorization =
            sign::authorization(&credential.secret_id, credential.secret_key.expose(), &request);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nX-TC-Action: {action}\r\n\
             X-TC-Version: 2018-07-17\r\nX-TC-Timestamp: {timestamp}\r\nAuthorization: {authorization}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    pub(crate) fn credential(&self) -> Credential {
        self.emulator.credential()
    }

    /// The members of `Response` in the answer to a signed call.
    pub(crate) fn call(&self, action: &str, body: &[u8]) -> Value {
        let answer = self.send(&self.signed(action, body));
        envelope(&answer).unwrap_or_else(|| panic!("{action}: {}", answer.escape_ascii()))
    }

    /// Undoes what an input may have switched, and asks for the emulator's health: no panic, and good calls are served.
    pub(crate) fn still_good(&mut self) {
        self.emulator.faults().clear();
        let settings = self.settings.clone();
        self.emulator.change_settings(|changed| *changed = settings);
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "the emulator panicked");
        self.inputs += 1;
        if self.inputs % 64 != 1 {
            return;
        }
        // A queue of its own: an input may have set another one to PUSH.
        let app = 1_000_000_000_000 + self.inputs;
        let body = format!(r#"{{"SubAppId":{app}}}"#);
        self.emulator.put(app, r#"{"EventType":"T"}"#);
        let pulled = self.call("PullEvents", body.as_bytes());
        assert_eq!(pulled["EventSet"].as_array().map(Vec::len), Some(1), "{pulled}");
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn wall_seconds() -> i64 {
    WallTime::now().0 / 1_000
}

/// The members of `Response`, if the answer is one in the envelope.
fn envelope(answer: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return None;
    }
    let mut value: Value = serde_json::from_str(body).ok()?;
    let response = value.get_mut("Response")?.take();
    response.get("RequestId")?.as_str().filter(|id| id.len() == 36)?;
    Some(response)
}

/// The status of an answer; 0 when there is none.
pub(crate) fn status(answer: &[u8]) -> u16 {
    let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok()).unwrap_or(0)
}

#[test]
fn any_bytes_are_answered_or_refused() {
    let mut world = World::new();
    let mut statuses = BTreeMap::<u16, u64>::new();
    fuzz("requests", HTTP, 1_500, |input| {
        let answer = world.send(input);
        let status = status(&answer);
        *statuses.entry(status).or_default() += 1;
        // Nothing at all is said to a request that does not end; 100 asks for the rest of one.
        let known =
            answer.is_empty() || [100, 200, 204, 505].contains(&status) || (400..500).contains(&status);
        assert!(known, "{}", answer.escape_ascii());
        world.still_good();
    });
    eprintln!("statuses: {statuses:?}");
}

#[test]
fn any_parameters_are_answered_in_the_envelope() {
    const ACTIONS: [&str; 6] = [
        "PullEvents",
        "ConfirmEvents",
        "DescribeEventsState",
        "DescribeEventConfig",
        "ModifyEventConfig",
        "Rest",
    ];
    let mut world = World::new();
    let mut codes = BTreeMap::<String, u64>::new();
    fuzz("parameters", JSON, 600, |input| {
        for action in ACTIONS {
            let response = world.call(action, input);
            let code = response.pointer("/Error/Code").map_or("ok", |code| code.as_str().unwrap());
            *codes.entry(code.to_owned()).or_default() += 1;
        }
        world.still_good();
    });
    // Past the signature: the parameters themselves were read.
    assert!(codes.contains_key("ok") && codes.contains_key("InvalidRequest"), "{codes:?}");
    assert!(!codes.keys().any(|code| code.starts_with("AuthFailure")), "{codes:?}");
    eprintln!("codes: {codes:?}");
}

#[test]
fn any_controls_are_taken_or_refused_and_the_calls_after_them_answered() {
    let mut world = World::new();
    let mut statuses = BTreeMap::<(&str, u16), u64>::new();
    fuzz("controls", JSON, 400, |input| {
        for path in ["faults", "config", "events"] {
            let head = format!(
                "POST /_emulator/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                input.len()
            );
            let answer = world.send(&[head.as_bytes(), input].concat());
            let status = status(&answer);
            assert!(status == 200 || (400..500).contains(&status), "{}", answer.escape_ascii());
            *statuses.entry((path, status)).or_default() += 1;
            if status != 200 {
                continue;
            }
            // Under faults a call may be slow, cut or refused; what must not happen is a panic.
            world.emulator.put(0, "{}");
            for (action, body) in [("PullEvents", "{}"), ("ConfirmEvents", r#"{"EventHandles":["h"]}"#)] {
                world.send(&world.signed(action, body.as_bytes()));
            }
            world.still_good();
        }
    });
    eprintln!("statuses: {statuses:?}");
}
