//! A signature server as a process of its own, and a client that sends exactly what a test says.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tencentcloud_signing::upload::Signature;

use crate::child::Relay;

pub(super) const LIMIT: Duration = Duration::from_secs(30);
pub(super) const ID: &str = "AKIDexample0123456789";
/// Of all characters that a key can have.
pub(super) const KEY: &str = r#"Key"planted\5f3a/+=<&'"#;
pub(super) const TOKEN: &str = "planted-token~web/0123456789+abcdef=";
pub(super) const OTHER_TOKEN: &str = "planted.token-app_0123456789-abcdefgh";

pub(super) struct Server {
    pub(super) process: Relay,
    pub(super) folder: TempDir,
    pub(super) address: SocketAddr,
    pub(super) metrics: SocketAddr,
}

/// The folder with a file, tokens and what a server writes, before there is a server.
pub(super) struct Place(pub(super) TempDir);

impl Place {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("credentials")).unwrap();
        let place = Self(folder);
        for (name, text) in [("secret_id", ID), ("secret_key", KEY), ("web", TOKEN), ("app", OTHER_TOKEN)] {
            place.credential(name, text);
        }
        place
    }

    pub(super) fn credential(&self, name: &str, text: &str) {
        fs::write(self.0.path().join("credentials").join(name), format!("{text}\n")).unwrap();
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.path().join("signature.toml")
    }

    /// Writes the file: `more` goes into `[server]`, and below it `callers`.
    pub(super) fn write(&self, more: &str, callers: &str) {
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\ncredentials = \"systemd\"\n{more}\n{callers}"
        );
        fs::write(self.file(), text).unwrap();
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
        command
            .args(["signature", "serve", "--file"])
            .arg(self.file())
            .args(arguments)
            .env_clear()
            .env("CREDENTIALS_DIRECTORY", self.0.path().join("credentials"))
            .stdin(Stdio::null());
        command
    }

    pub(super) fn start(self) -> Server {
        let mut command = self.command(&[]);
        command.stdout(File::create(self.0.path().join("out")).unwrap());
        command.stderr(File::create(self.0.path().join("log")).unwrap());
        let process = Relay(command.spawn().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { process, folder: self.0, address: nowhere, metrics: nowhere };
        let line = server.logged("upload signatures are served");
        server.address = line["address"].as_str().unwrap().parse().unwrap();
        server.metrics = line["metrics"].as_str().unwrap().parse().unwrap();
        server
    }
}

/// What one caller may have: the lines of its table.
pub(super) fn caller(name: &str, policy: &str) -> String {
    format!("[[callers]]\nname = \"{name}\"\ntokens = [\"{name}\"]\nrequests_per_second = 10000\n{policy}\n")
}

impl Server {
    pub(super) fn start(more: &str, callers: &str) -> Self {
        let place = Place::new();
        place.write(&format!("requests_per_second = 10000\n{more}"), callers);
        place.start()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Waits for a line of the log with these words, and returns the last such line.
    pub(super) fn logged(&mut self, words: &str) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let log = self.log();
            let line = log.lines().rfind(|line| line.contains(words) && line.ends_with('}'));
            if let Some(line) = line {
                return serde_json::from_str(line).unwrap();
            }
            assert!(self.process.0.try_wait().unwrap().is_none(), "the server has ended:\n{log}");
            assert!(Instant::now() < deadline, "{words:?} is not logged:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes the file anew, and lets the server read it. Returns the line that says what came of it.
    pub(super) fn reload(&mut self, more: &str, callers: &str, words: &str) -> Value {
        let log = self.log().len();
        let place = Place(std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()));
        place.write(&format!("requests_per_second = 10000\n{more}"), callers);
        self.folder = place.0;
        self.process.signal(Signal::SIGHUP);
        let deadline = Instant::now() + LIMIT;
        while !self.log()[log..].contains(words) {
            assert!(Instant::now() < deadline, "{words:?} is not logged:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.logged(words)
    }

    pub(super) fn ends_well(mut self) -> String {
        self.process.signal(Signal::SIGTERM);
        assert_eq!(self.process.wait().code(), Some(0), "{}", self.log());
        self.log()
    }

    /// Sends these bytes, and reads until the server closes the connection.
    pub(super) fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = connect(self.address);
        // It may answer, and close, before all is sent.
        let _ = stream.write_all(bytes);
        answer(&mut stream)
    }

    /// Asks for a signature in JSON, with these headers besides.
    pub(super) fn ask(&self, headers: &[&str], body: &str) -> Answer {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!(
            "POST /v1/upload-signature HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.address,
            body.len()
        );
        self.send(request.as_bytes())
    }

    /// Asks as the caller `web`.
    pub(super) fn web(&self, body: &str) -> Answer {
        self.ask(&[&bearer(TOKEN)], body)
    }

    pub(super) fn metrics_page(&self) -> String {
        let mut stream = connect(self.metrics);
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        answer(&mut stream).body
    }
}

pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

pub(super) fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is the end of it, too.
    let _ = stream.read_to_end(&mut bytes);
    Answer::read(&bytes)
}

/// An answer, taken apart. The status is 0 when there was none.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands twice: {}", self.head);
        value
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The status, and the code and the parameter of the error.
    pub(super) fn error(&self) -> (u16, String, Option<String>) {
        let error = self.json()["error"].clone();
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        let parameter = error["parameter"].as_str().map(str::to_owned);
        (self.status, error["code"].as_str().unwrap_or_default().to_owned(), parameter)
    }

    /// The signature, which verifies, and which the answer describes.
    pub(super) fn signature(&self) -> Signature {
        assert_eq!(self.status, 200, "{self:?}");
        let json = self.json();
        let signature = Signature::parse(json["signature"].as_str().unwrap()).unwrap();
        assert!(signature.verify(KEY), "{self:?}");
        let grant = signature.grant().unwrap();
        assert_eq!(grant.secret_id, ID);
        assert_eq!(json["expireTime"], grant.expire_time);
        assert_eq!(json["currentTimeStamp"], grant.current_time_stamp);
        assert_eq!(json["oneTimeValid"], grant.one_time_valid.unwrap_or(false));
        assert_eq!(json["subAppId"], grant.sub_app_id.unwrap_or(0));
        assert_eq!(json.as_object().unwrap().len(), 5);
        signature
    }
}
