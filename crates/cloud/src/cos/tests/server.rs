//! A server that does with each request what the test says, on loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tencentcloud_signing::cos::{Authorization, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::cos::target::tests::credentials;
use crate::cos::{Client, Options};

/// One request as the server read it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} came twice");
        value
    }

    /// When it was signed, by its own word. Fails unless the signature is right and covers what it has to.
    pub(super) fn signed_at(&self) -> i64 {
        let authorization = Authorization::parse(self.header("authorization").unwrap()).unwrap();
        let (method, rest) = self.line.split_once(' ').unwrap();
        let url = Url::parse("http://x").unwrap().join(rest.split_once(' ').unwrap().0).unwrap();
        let path = percent_decoded(url.path());
        let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let query: Vec<(&str, &str)> = query.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let request = Request { method, path: &path, query: &query, headers: &headers };
        authorization.verify(credentials().secret_key.expose(), &request).unwrap();
        for name in ["host", "content-length", "content-md5", "x-cos-security-token"] {
            let signed = authorization.header_list.iter().any(|listed| listed == name);
            assert_eq!(signed, self.header(name).is_some(), "{name}");
        }
        authorization.sign_time.start + 60
    }
}

fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            bytes.extend(hex::decode(&after[..2]).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Play {
    /// Reads the body, sends these bytes, and waits for the next request.
    Send(Vec<u8>),
    /// Reads the body, sends these bytes, and hangs up.
    SendAndClose(Vec<u8>),
    /// Reads the body, sends the first bytes, and then a blank in a chunk so often, and the last bytes.
    Drip { first: Vec<u8>, blanks: usize, pause: Duration, last: Vec<u8> },
    /// Reads the body by so much with a pause before each, then sends these bytes.
    ReadSlowly { step: usize, pause: Duration, then: Vec<u8> },
    /// Sends these bytes without reading the body.
    Early(Vec<u8>),
    /// Reads nothing of the body, and says nothing for as long as the test lasts.
    Silence,
}

pub(super) fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An answer of the service: it always has an id.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> Play {
    Play::Send(http(status, &format!("x-cos-request-id: R1\r\n{headers}"), body))
}

/// An error of the service, dated by so many seconds away from the host's clock.
pub(super) fn error(status: &str, code: &str, message: &str, skew_s: i64) -> Play {
    let now = jiff::Timestamp::from_millisecond(vodrelay_host::wall_clock_ms() + skew_s * 1_000).unwrap();
    let date = now.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\nx-cos-trace-id: T1\r\n");
    let body = format!(
        "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <Resource>/k</Resource><RequestId>R1</RequestId><TraceId>T1</TraceId></Error>"
    );
    answer(status, &date.to_string(), &body)
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Answers the n-th request (from 0) with `play(n)`.
    pub(super) async fn start(play: impl Fn(usize) -> Play + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (play, all) = (Arc::new(play), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&all), Arc::clone(&play)));
            }
        });
        Self { address, seen }
    }

    pub(super) async fn always(play: Play) -> Self {
        Self::start(move |_| play.clone()).await
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn options(&self) -> Options {
        let endpoint = Url::parse(&format!("http://{}", self.address)).unwrap();
        Options { cos_endpoint: Some(endpoint), ..Options::default() }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }
}

async fn converse(mut stream: TcpStream, all: Arc<Mutex<Vec<Seen>>>, play: Arc<impl Fn(usize) -> Play>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_head(&mut stream, &mut buffer).await {
        let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        let number = {
            let mut all = all.lock().unwrap();
            all.push(request);
            all.len() - 1
        };
        let play = play(number);
        let (step, pause) = match &play {
            Play::ReadSlowly { step, pause, .. } => (*step, *pause),
            Play::Early(_) | Play::Silence => (0, Duration::ZERO),
            _ => (64 * 1024, Duration::ZERO),
        };
        while step > 0 && buffer.len() < length {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let mut piece = vec![0; step];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(read) => buffer.extend_from_slice(&piece[..read]),
            }
        }
        let body = buffer.drain(..length.min(buffer.len())).collect();
        all.lock().unwrap()[number].body = body;
        let sent = match play {
            Play::Send(bytes) | Play::ReadSlowly { then: bytes, .. } => stream.write_all(&bytes).await,
            Play::SendAndClose(bytes) => {
                let _gone = stream.write_all(&bytes).await;
                let _gone = stream.shutdown().await;
                return;
            }
            Play::Drip { first, blanks, pause, last } => drip(&mut stream, first, blanks, pause, last).await,
            Play::Early(bytes) => {
                let _gone = stream.write_all(&bytes).await;
                std::future::pending().await
            }
            Play::Silence => std::future::pending().await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn drip(
    stream: &mut TcpStream,
    first: Vec<u8>,
    blanks: usize,
    pause: Duration,
    last: Vec<u8>,
) -> std::io::Result<()> {
    stream.write_all(&first).await?;
    for _ in 0..blanks {
        tokio::time::sleep(pause).await;
        stream.write_all(b"1\r\n \r\n").await?;
    }
    stream.write_all(&last).await
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
        }
    };
    let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_lowercase(), value.trim().to_owned())
    });
    Some(Seen { line, headers: headers.collect(), body: Vec::new() })
}
