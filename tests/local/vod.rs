//! The API client against a scripted HTTP server: what it sends, byte for byte, and what it makes of every kind of answer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops right there, in its helpers too")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tencent_vod::{Client, CredentialSource, Environment, FailureKind, Options, RequestError};
use tencent_vod_event::{EventHandle, SubAppId};
use tencentcloud_signing::tc3 as sign;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use vodrelay::clock::Now as _;
use vodrelay_core::clock::WallTime;
use vodrelay_host::BootTime;
use vodrelay_testkit::authority::{self_signed, server};

const ID: &str = "AKIDexample";
const KEY: &str = "example-key";
const APP: SubAppId = SubAppId(1_500_000_001);
const OK: &str = r#"{"Response":{"RequestId":"r-1"}}"#;

/// One request as the server read it.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
    connection: usize,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} came twice");
        value
    }

    fn timestamp(&self) -> i64 {
        self.header("x-tc-timestamp").unwrap().parse().unwrap()
    }
}

/// What the server does with a request.
enum Play {
    /// Sends these bytes and reads on.
    Send(Vec<u8>),
    /// Sends these bytes and hangs up.
    SendAndClose(Vec<u8>),
    /// Says nothing for as long as the test lasts.
    Silence,
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn ok(body: &str) -> Play {
    Play::Send(http("200 OK", "Content-Type: application/json\r\n", body))
}

fn dated(body: &str, skew_seconds: i64) -> Play {
    let now = jiff::Timestamp::from_millisecond(WallTime::now().0 + skew_seconds * 1_000).unwrap();
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT");
    Play::Send(http("200 OK", &format!("Date: {date}\r\n"), body))
}

fn refusal(code: &str) -> String {
    format!(r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"no"}},"RequestId":"r-e"}}}}"#)
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers the n-th request (from 0) with `play(n, request)`.
    async fn start(play: impl Fn(usize, &Seen) -> Play + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let play = Arc::new(play);
        let (all, count) = (Arc::clone(&seen), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(converse(stream, connection, Arc::clone(&all), Arc::clone(&play)));
            }
        });
        Self { address, seen, connections }
    }

    fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.address)).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.url(), CredentialSource::Env);
        options.credentials.environment =
            Environment::fixed([("TENCENTCLOUD_SECRET_ID", ID), ("TENCENTCLOUD_SECRET_KEY", KEY)]);
        options
    }

    fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    all: Arc<Mutex<Vec<Seen>>>,
    play: Arc<impl Fn(usize, &Seen) -> Play>,
) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer, connection).await {
        let number = {
            let mut all = all.lock().unwrap();
            all.push(request.clone());
            all.len() - 1
        };
        match play(number, &request) {
            Play::Send(bytes) => stream.write_all(&bytes).await.unwrap(),
            Play::SendAndClose(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                return;
            }
            Play::Silence => {
                // Until the client hangs up.
                let _closed = stream.read(&mut [0; 1]).await;
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>, connection: usize) -> Option<Seen> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|l| l.split_once(": ").unwrap())
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    let end = head_end + 4 + length;
    while buffer.len() < end {
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "the request breaks off");
    }
    let body = String::from_utf8(buffer[head_end + 4..end].to_vec()).unwrap();
    buffer.drain(..end);
    Some(Seen { line, headers, body, connection })
}

fn handles(names: &[&str]) -> Vec<EventHandle> {
    names.iter().map(|name| EventHandle((*name).into())).collect()
}

fn soon() -> BootTime {
    BootTime::now() + Duration::from_secs(20)
}

#[tokio::test]
async fn a_request_is_what_the_api_documents_and_nothing_else() {
    let server = Server::start(|_, _| ok(OK)).await;
    let mut options = server.options();
    options.region = Some("ap-guangzhou".to_owned());
    let client = Client::new(options).unwrap();
    let before = WallTime::now().0 / 1_000;
    client.pull_events(SubAppId(0)).await.unwrap();
    client.pull_events(APP).await.unwrap();
    client.confirm_events(APP, &handles(&["a", "句柄"]), soon()).await.unwrap();
    client.confirm_events(SubAppId(0), &handles(&["b"]), soon()).await.unwrap();
    client.describe_event_config(APP).await.unwrap();
    let after = WallTime::now().0 / 1_000;

    let seen = server.seen();
    let sent: Vec<(&str, &str)> =
        seen.iter().map(|s| (s.header("x-tc-action").unwrap(), s.body.as_str())).collect();
    assert_eq!(
        sent,
        [
            ("PullEvents", "{}"),
            ("PullEvents", r#"{"SubAppId":1500000001}"#),
            ("ConfirmEvents", r#"{"EventHandles":["a","句柄"],"SubAppId":1500000001}"#),
            ("ConfirmEvents", r#"{"EventHandles":["b"]}"#),
            ("DescribeEventConfig", r#"{"SubAppId":1500000001}"#),
        ]
    );
    let host = server.address.to_string();
    for request in &seen {
        assert_eq!(request.line, "POST / HTTP/1.1");
        let mut names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "authorization",
                "content-length",
                "content-type",
                "host",
                "user-agent",
                "x-tc-action",
                "x-tc-region",
                "x-tc-timestamp",
                "x-tc-version"
            ]
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("host"), Some(host.as_str()));
        assert_eq!(request.header("x-tc-version"), Some("2018-07-17"));
        assert_eq!(request.header("x-tc-region"), Some("ap-guangzhou"));
        assert_eq!(request.header("user-agent"), Some(concat!("tencent-vod/", env!("CARGO_PKG_VERSION"))));
        let timestamp = request.timestamp();
        assert!((before..=after).contains(&timestamp));
        let expected = sign::Request {
            method: "POST",
            query: "",
            headers: &[("content-type", "application/json"), ("host", &host)],
            body: request.body.as_bytes(),
            timestamp,
            service: "vod",
        };
        assert_eq!(request.header("authorization"), Some(sign::authorization(ID, KEY, &expected).as_str()));
    }
}

#[tokio::test]
async fn calls_share_a_connection() {
    let server = Server::start(|_, _| ok(OK)).await;
    let client = server.client();
    for _ in 0..3 {
        client.clone().pull_events(APP).await.unwrap();
    }
    assert_eq!(server.seen().iter().map(|s| s.connection).collect::<Vec<_>>(), [0, 0, 0]);
}

#[tokio::test]
async fn events_arrive_as_they_were_sent_even_in_pieces() {
    const EVENT: &str = r#"{ "EventHandle":"h1","EventType":"NewFileUpload","FileUploadEvent":{"FileId":5285485487985271490}, "X":null}"#;
    let body = format!(r#"{{"Response":{{"EventSet":[{EVENT},{{"EventHandle":"h2"}}],"RequestId":"r-7"}}}}"#);
    let server = Server::start(move |_, _| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in body.as_bytes().chunks(7) {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        Play::Send(bytes)
    })
    .await;
    let pull = server.client().pull_events(APP).await.unwrap();
    assert_eq!(&*pull.request_id, "r-7");
    assert_eq!(
        pull.events.iter().map(|e| e.body.as_ref()).collect::<Vec<_>>(),
        [EVENT.as_bytes(), br#"{"EventHandle":"h2"}"#]
    );
    assert_eq!(pull.events[0].handle, Some(EventHandle("h1".into())));
    assert_eq!(pull.events[0].sub_app, APP);
}

#[tokio::test]
async fn counts_and_idle_polls_are_answers() {
    let server = Server::start(|n, _| match n {
        0 => ok(r#"{"Response":{"CountOfEventsToPull":41,"RequestId":"r"}}"#),
        _ => ok(&refusal("ResourceNotFound")),
    })
    .await;
    let client = server.client();
    assert_eq!(client.describe_events_state(APP).await.unwrap(), 41);
    let pull = client.pull_events(APP).await.unwrap();
    assert!(pull.events.is_empty());
    assert_eq!(&*pull.request_id, "r-e");
    assert_eq!(client.describe_events_state(APP).await.unwrap_err().failure, FailureKind::Configuration);
}

/// Pulls once, and gives back the failure.
async fn failed_pull(play: impl Fn() -> Play + Send + Sync + 'static) -> RequestError {
    let server = Server::start(move |_, _| play()).await;
    let error = server.client().pull_events(APP).await.unwrap_err();
    assert_eq!(server.seen().len(), 1, "{error}");
    error
}

#[tokio::test]
async fn what_is_not_from_the_api_is_named_by_its_kind() {
    use FailureKind::{Throttled, Transient};
    const HTML: &str = "<html><body>Bad Gateway</body></html>";
    for (status, failure, code) in [
        ("502 Bad Gateway", Transient, "http_502"),
        ("503 Service Unavailable", Transient, "http_503"),
        ("404 Not Found", Transient, "http_404"),
        ("429 Too Many Requests", Throttled, "http_429"),
        ("200 OK", Transient, "not_json"),
    ] {
        let error = failed_pull(move || Play::Send(http(status, "Content-Type: text/html\r\n", HTML))).await;
        assert_eq!((error.failure, error.code.as_str()), (failure, code));
        assert!(error.may_have_acted, "{error}");
    }
    let success_in_a_failure = failed_pull(|| Play::Send(http("500 Internal Server Error", "", OK))).await;
    assert_eq!(success_in_a_failure.code, "http_500");
    let truncated = failed_pull(|| {
        Play::SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Response\":{".to_vec())
    })
    .await;
    assert_eq!((truncated.failure, truncated.code.as_str()), (Transient, "connection_lost"));
    let hung_up = failed_pull(|| Play::SendAndClose(Vec::new())).await;
    assert_eq!((hung_up.failure, hung_up.code.as_str()), (Transient, "connection_lost"));
    assert!(hung_up.may_have_acted);
    let huge =
        failed_pull(|| Play::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 70000000\r\n\r\n{".to_vec())).await;
    assert_eq!((huge.failure, huge.code.as_str()), (Transient, "too_large"));
    let no_text =
        failed_pull(|| Play::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\"\xff\"".to_vec())).await;
    assert_eq!((no_text.failure, no_text.code.as_str()), (Transient, "not_an_answer"));
}

#[tokio::test]
async fn an_encoded_answer_is_named_and_whoever_encodes_it_is_looked_for() {
    // `printf '{}' | gzip -n`, with its header and without.
    const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0\x43\xbf\xa6\xa3\x02\0\0\0";
    let failed = |status: &'static str, header: &'static str| {
        failed_pull(move || {
            let head = format!("HTTP/1.1 {status}\r\n{header}Content-Length: {}\r\n\r\n", GZIP.len());
            Play::Send([head.as_bytes(), GZIP].concat())
        })
    };
    for (header, name) in
        [("Content-Encoding: gzip\r\n", "gzip"), ("", "gzip"), ("Content-Encoding: br\r\n", "br")]
    {
        let error = failed("200 OK", header).await;
        assert_eq!((error.failure, error.code.as_str()), (FailureKind::Transient, "encoded"));
        let words = format!(
            "PullEvents failed (encoded): HTTP 200 OK: the answer is encoded with {name}, which this client did not request; turn that off in the proxy or gateway before the endpoint"
        );
        assert_eq!(error.to_string(), words);
    }
    // The status says more than the encoding of a gateway's page.
    assert_eq!(failed("403 Forbidden", "Content-Encoding: gzip\r\n").await.code, "http_403");
    // A wrong header over plain JSON is no hindrance.
    let server = Server::start(|_, _| Play::Send(http("200 OK", "Content-Encoding: gzip\r\n", OK))).await;
    server.client().pull_events(APP).await.unwrap();
}

#[tokio::test]
async fn the_envelope_speaks_louder_than_the_status() {
    for status in ["200 OK", "400 Bad Request", "403 Forbidden", "500 Internal Server Error"] {
        let error = failed_pull(move || {
            Play::Send(http(status, "", &refusal("RequestLimitExceeded.UinLimitExceeded")))
        })
        .await;
        assert_eq!(error.failure, FailureKind::Throttled);
        assert_eq!(error.code, "RequestLimitExceeded.UinLimitExceeded");
        assert_eq!(error.request_id.as_deref(), Some("r-e"));
        assert!(!error.may_have_acted);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let error = failed_pull(|| Play::Send(http("302 Found", "Location: http://127.0.0.1:1/\r\n", ""))).await;
    assert_eq!((error.failure, error.code.as_str()), (FailureKind::Transient, "http_302"));
}

#[tokio::test]
async fn a_confirm_that_is_not_answered_ends_by_its_deadline() {
    let server = Server::start(|_, _| Play::Silence).await;
    let client = server.client();
    let started = Instant::now();
    let deadline = BootTime::now() + Duration::from_millis(300);
    let error = client.confirm_events(APP, &handles(&["h"]), deadline).await.unwrap_err();
    assert!(BootTime::now() >= deadline);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!((error.failure, error.code.as_str()), (FailureKind::Transient, "timeout"));
    assert!(error.may_have_acted);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_by_its_time_out() {
    let server = Server::start(|_, _| Play::Silence).await;
    let mut options = server.options();
    let time_out = Duration::from_millis(200);
    (options.pull_timeout, options.confirm_timeout, options.describe_timeout) =
        (time_out, time_out, time_out);
    let client = Client::new(options).unwrap();
    let started = Instant::now();
    let pull = client.pull_events(APP).await.unwrap_err();
    let confirm = client.confirm_events(APP, &handles(&["h"]), soon()).await.unwrap_err();
    let state = client.describe_events_state(APP).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    for error in [pull, confirm, state] {
        assert_eq!((error.failure, error.code.as_str()), (FailureKind::Transient, "timeout"));
        assert!(error.may_have_acted);
    }
}

#[tokio::test]
async fn nothing_leaves_after_the_deadline() {
    let server = Server::start(|_, _| ok(OK)).await;
    let client = server.client();
    for deadline in [BootTime { ms: 0 }, BootTime::now()] {
        let error = client.confirm_events(APP, &handles(&["h"]), deadline).await.unwrap_err();
        assert_eq!((error.failure, error.code.as_str()), (FailureKind::Transient, "deadline"));
        assert!(!error.may_have_acted);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nobody_there_is_a_failure_to_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut options = Options::new(Url::parse(&format!("http://{address}")).unwrap(), CredentialSource::Env);
    options.credentials.environment =
        Environment::fixed([("TENCENTCLOUD_SECRET_ID", ID), ("TENCENTCLOUD_SECRET_KEY", KEY)]);
    let error = Client::new(options).unwrap().pull_events(APP).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (FailureKind::Transient, "connect"));
    assert!(!error.may_have_acted);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_peer_that_never_greets_is_a_failure_to_connect() {
    // It accepts the connection, and then says nothing to the TLS greeting.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut options = Options::new(Url::parse(&format!("https://{address}")).unwrap(), CredentialSource::Env);
    options.connect_timeout = Duration::from_millis(200);
    options.credentials.environment =
        Environment::fixed([("TENCENTCLOUD_SECRET_ID", ID), ("TENCENTCLOUD_SECRET_KEY", KEY)]);
    let started = Instant::now();
    let error = Client::new(options).unwrap().pull_events(APP).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!((error.failure, error.code.as_str()), (FailureKind::Transient, "connect"), "{error}");
    assert!(!error.may_have_acted);
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_and_the_call_repeated_at_once() {
    let server = Server::start(|_, request| {
        let wrong_by = WallTime::now().0 / 1_000 + 600 - request.timestamp();
        dated(if wrong_by.abs() > 300 { refused_for_time() } else { OK }, 600)
    })
    .await;
    let client = server.client();
    assert_eq!(client.clock_skew_ms(), None);
    client.confirm_events(APP, &handles(&["h"]), soon()).await.unwrap();
    assert_eq!(server.seen().len(), 2);
    let skew = client.clock_skew_ms().unwrap();
    assert!((598_000..=602_000).contains(&skew), "{skew}");
    client.pull_events(APP).await.unwrap();
    assert_eq!(server.seen().len(), 3, "the correction is kept");
}

#[tokio::test]
async fn a_correction_goes_when_the_clock_is_set() {
    // The first two answers come from a cloud that is ten minutes ahead, the others from one that agrees with the host.
    let server = Server::start(|n, request| {
        let ahead = if n < 2 { 600 } else { 0 };
        let wrong_by = WallTime::now().0 / 1_000 + ahead - request.timestamp();
        dated(if wrong_by.abs() > 300 { refused_for_time() } else { OK }, ahead)
    })
    .await;
    let client = server.client();
    client.pull_events(APP).await.unwrap();
    client.pull_events(APP).await.unwrap();
    client.pull_events(APP).await.unwrap();
    assert_eq!(server.seen().len(), 5);
    assert!(client.clock_skew_ms().unwrap().abs() <= 2_000);
}

#[tokio::test]
async fn a_refused_time_stamp_is_not_repeated_for_nothing() {
    for skew in [None, Some(0), Some(600)] {
        let server = Server::start(move |_, _| match skew {
            Some(skew) => dated(refused_for_time(), skew),
            None => ok(refused_for_time()),
        })
        .await;
        let error = server.client().pull_events(APP).await.unwrap_err();
        assert_eq!(error.failure, FailureKind::Clock);
        assert!(error.to_string().contains("NTP"), "{error}");
        // Only a date that differs is a reason to try once more; and once it is.
        assert_eq!(server.seen().len(), if skew == Some(600) { 2 } else { 1 }, "{skew:?}");
    }
}

fn refused_for_time() -> &'static str {
    r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureExpire","Message":"expired"},"RequestId":"r-x"}}"#
}

/// Variables that a test changes while the client runs.
#[derive(Clone, Default)]
struct Variables(Arc<Mutex<Vec<(String, String)>>>);

impl Variables {
    fn set(&self, pairs: &[(&str, &str)]) {
        *self.0.lock().unwrap() = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    }

    fn environment(&self) -> Environment {
        let variables = self.clone();
        Environment::lookup(move |name| {
            let all = variables.0.lock().unwrap();
            all.iter().find(|(n, _)| n == name).map(|(_, value)| value.into())
        })
    }
}

#[tokio::test]
async fn refused_credentials_are_read_again_once() {
    let variables = Variables::default();
    variables.set(&[("TENCENTCLOUD_SECRET_ID", "old"), ("TENCENTCLOUD_SECRET_KEY", "old")]);
    let rotated = variables.clone();
    let server = Server::start(move |_, request| {
        if request.header("authorization").unwrap().contains("Credential=new/") {
            return ok(OK);
        }
        rotated.set(&[
            ("TENCENTCLOUD_SECRET_ID", "new"),
            ("TENCENTCLOUD_SECRET_KEY", "new"),
            ("TENCENTCLOUD_SESSION_TOKEN", "new-token"),
        ]);
        ok(&refusal("AuthFailure.SecretIdNotFound"))
    })
    .await;
    let mut options = server.options();
    options.credentials.environment = variables.environment();
    let client = Client::new(options).unwrap();
    client.pull_events(APP).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].header("x-tc-token"), None);
    assert_eq!(seen[1].header("x-tc-token"), Some("new-token"));
}

#[tokio::test]
async fn refused_credentials_that_stay_the_same_are_an_error() {
    let server = Server::start(|_, _| ok(&refusal("AuthFailure.SignatureFailure"))).await;
    let client = server.client();
    let error = client.pull_events(APP).await.unwrap_err();
    assert_eq!(error.failure, FailureKind::Credentials);
    assert_eq!(server.seen().len(), 1);
    assert!(error.to_string().contains("belong together"), "{error}");
    let key = format!("(the key {}*** from the environment)", &ID[..8]);
    assert!(error.message.ends_with(&key) && !error.message.contains(ID), "{error}");
    assert!(!format!("{error:?} {client:?}").contains(KEY));
}

#[tokio::test]
async fn no_credentials_is_said_before_anything_is_sent() {
    let server = Server::start(|_, _| ok(OK)).await;
    let mut options = server.options();
    options.credentials.environment = Environment::fixed([("TENCENTCLOUD_SECRET_ID", ID)]);
    let client = Client::new(options).unwrap();
    let error = client.pull_events(APP).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (FailureKind::Credentials, "credentials"));
    assert!(!error.may_have_acted);
    assert!(error.message.contains("TENCENTCLOUD_SECRET_KEY is not"), "{error}");
    assert_eq!(client.refresh_credentials().await.unwrap_err().to_string(), error.message);
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

/// The metadata service: the list of roles, and the n-th pair (from 0) of the one role, valid for `valid_for(n)` seconds.
async fn metadata(valid_for: impl Fn(usize) -> Option<i64> + Send + Sync + 'static) -> Server {
    let pairs = AtomicUsize::new(0);
    Server::start(move |_, request| match request.line.as_str() {
        "GET /roles/ HTTP/1.1" => ok("relay\n"),
        "GET /roles/relay HTTP/1.1" => {
            let n = pairs.fetch_add(1, Ordering::SeqCst);
            let Some(seconds) = valid_for(n) else { return Play::Send(http("500 Oops", "", "")) };
            let expires_at = WallTime::now().0 / 1_000 + seconds;
            ok(&format!(
                r#"{{"TmpSecretId":"tmp{n}","TmpSecretKey":"k{n}","ExpiredTime":{expires_at},"Token":"t{n}","Code":"Success"}}"#
            ))
        }
        other => panic!("{other}"),
    })
    .await
}

fn role_client(server: &Server, metadata: &Server) -> Client {
    let mut options = server.options();
    options.credentials.source = CredentialSource::CvmRole;
    options.credentials.metadata = metadata.url().join("/roles/").unwrap();
    Client::new(options).unwrap()
}

fn tokens(server: &Server) -> Vec<String> {
    server.seen().iter().map(|s| s.header("x-tc-token").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_role_is_asked_once_however_many_call() {
    let (server, metadata) = (Server::start(|_, _| ok(OK)).await, metadata(|_| Some(7_200)).await);
    let client = role_client(&server, &metadata);
    let calls = (0..8).map(|_| client.pull_events(APP));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(tokens(&server), vec!["t0"; 8]);
    assert!(server.seen()[0].header("authorization").unwrap().contains("Credential=tmp0/"));
    assert_eq!(metadata.seen().len(), 2);
}

#[tokio::test]
async fn temporary_credentials_are_refreshed_before_they_expire() {
    let (server, metadata) =
        (Server::start(|_, _| ok(OK)).await, metadata(|n| Some(if n == 0 { 299 } else { 7_200 })).await);
    let client = role_client(&server, &metadata);
    client.pull_events(APP).await.unwrap();
    // The refresh goes on beside the calls, which use the pair that is still valid until it is done.
    let fresh = async {
        loop {
            client.pull_events(APP).await.unwrap();
            if tokens(&server).last().is_some_and(|token| token == "t1") {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), fresh).await.unwrap();
    client.pull_events(APP).await.unwrap();
    assert_eq!(metadata.seen().len(), 4, "two pairs were read, no more");
}

#[tokio::test]
async fn a_failed_refresh_keeps_what_is_still_valid() {
    let (server, metadata) =
        (Server::start(|_, _| ok(OK)).await, metadata(|n| (n == 0).then_some(200)).await);
    let client = role_client(&server, &metadata);
    let failed = async {
        while metadata.seen().len() < 4 {
            client.pull_events(APP).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), failed).await.unwrap();
    for _ in 0..10 {
        client.pull_events(APP).await.unwrap();
    }
    assert!(tokens(&server).iter().all(|token| token == "t0"));
    assert_eq!(metadata.seen().len(), 4, "a failure is not tried again at once");
}

#[tokio::test]
async fn expired_credentials_are_never_sent() {
    let (server, metadata) =
        (Server::start(|_, _| ok(OK)).await, metadata(|n| Some(if n == 0 { -1 } else { 7_200 })).await);
    let client = role_client(&server, &metadata);
    client.refresh_credentials().await.unwrap();
    client.pull_events(APP).await.unwrap();
    assert_eq!(tokens(&server), ["t1"]);
}

#[tokio::test]
async fn waiting_for_credentials_ends_at_the_deadline_too() {
    let server = Server::start(|_, _| ok(OK)).await;
    let metadata = Server::start(|_, _| Play::Silence).await;
    let client = role_client(&server, &metadata);
    let started = Instant::now();
    let deadline = BootTime::now() + Duration::from_millis(200);
    let error = client.confirm_events(APP, &handles(&["h"]), deadline).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(error.code, "timeout");
    assert!(!error.may_have_acted);
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    let options = Options::new(Url::parse("http://vod.tencentcloudapi.com").unwrap(), CredentialSource::Env);
    let error = Client::new(options).unwrap_err().to_string();
    assert!(error.contains("http://vod.tencentcloudapi.com") && error.contains("write https://"), "{error}");
    let mut options = Options::new(Url::parse("http://127.0.0.1:1").unwrap(), CredentialSource::CvmRole);
    options.credentials.metadata = Url::parse("http://10.0.0.1/").unwrap();
    let error = Client::new(options).unwrap_err().to_string();
    assert!(error.contains("metadata"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let tls = server(self_signed("127.0.0.1"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut connection = rustls::ServerConnection::new(Arc::new(tls)).unwrap();
        // Until the client has seen the certificate and hangs up.
        while connection.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
        connection.is_handshaking()
    });
    let mut options = Options::new(Url::parse(&format!("https://{address}")).unwrap(), CredentialSource::Env);
    options.credentials.environment =
        Environment::fixed([("TENCENTCLOUD_SECRET_ID", ID), ("TENCENTCLOUD_SECRET_KEY", KEY)]);
    let error = Client::new(options).unwrap().pull_events(APP).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (FailureKind::Configuration, "tls"), "{error}");
    assert!(!error.may_have_acted);
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(server.join().unwrap(), "the handshake went on");
}

/// A proxy cannot reach this machine's own addresses. Variables of this process cannot be set in a test, so that another
/// process runs two of these with them.
#[test]
fn loopback_addresses_need_no_proxy() {
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "vod::calls_share_a_connection", "vod::a_role_is_asked_once_however_many_call"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        // Nobody listens there.
        again.env(name, "http://127.0.0.1:1");
    }
    let output = again.env_remove("no_proxy").env_remove("NO_PROXY").output().unwrap();
    let talk = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && talk.contains("2 passed"), "{talk}");
}
