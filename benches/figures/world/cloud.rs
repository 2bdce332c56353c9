//! The emulated cloud, in a process of its own, and its controls.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::unistd::Pid;
use serde::Deserialize;

use super::process::Process;
use super::{Bench, STEP_LIMIT, until};

/// The key pair that the emulator accepts.
pub(crate) const CREDENTIALS: [(&str, &str); 2] =
    [("TENCENTCLOUD_SECRET_ID", "AKIDofthebenchmark"), ("TENCENTCLOUD_SECRET_KEY", "keyofthebenchmark")];

/// What one request of events may hold: the controls take 2 MB.
const REQUEST_BYTES: usize = 1 << 20;
const REQUEST_EVENTS: usize = 1_000;

/// How the cloud behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// The limit of each API; 0 is none.
    pub(crate) requests_per_second: u32,
    /// Added to every call.
    pub(crate) latency_ms: u64,
    /// How long a pull is held while there is nothing.
    pub(crate) hold_ms: u64,
}

impl Behaviour {
    /// No limit and no delay. Idle pulls are answered soon, so that a relay whose work is done need not wait to end.
    pub(crate) const UNLIMITED: Self = Self { requests_per_second: 0, latency_ms: 0, hold_ms: 500 };
}

/// A running emulator.
pub(crate) struct Cloud {
    process: Process,
    endpoint: String,
    client: reqwest::Client,
}

/// The events of one queue, or of all.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Counts {
    pub(crate) put: u64,
    pub(crate) confirmed: u64,
    pub(crate) deliveries: u64,
    pub(crate) redeliveries: u64,
}

/// What the emulator has counted.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Stats {
    calls: BTreeMap<String, u64>,
    pub(crate) throttled: u64,
    pub(crate) queues: BTreeMap<u64, Counts>,
}

impl Stats {
    /// Calls of all APIs, throttled ones included.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.values().sum()
    }

    /// The events of all queues together.
    pub(crate) fn events(&self) -> Counts {
        self.queues.values().fold(Counts::default(), |sum, counts| Counts {
            put: sum.put + counts.put,
            confirmed: sum.confirmed + counts.confirmed,
            deliveries: sum.deliveries + counts.deliveries,
            redeliveries: sum.redeliveries + counts.redeliveries,
        })
    }
}

impl Cloud {
    pub(crate) async fn start(bench: &Bench, behaviour: Behaviour) -> Self {
        let file = bench.folder().join("address");
        // Left behind by the emulator before this one.
        let _ = std::fs::remove_file(&file);
        let address_file = file.to_str().expect("the folder's name is text");
        let listen = ["emulate", "--json", "--listen", "127.0.0.1:0", "--address-file", address_file];
        let mut process = Process::start(bench, "emulator", &listen, CREDENTIALS);
        let address = until("the emulator's address", STEP_LIMIT, async || {
            process.assert_alive();
            // The line is there when its end is.
            std::fs::read_to_string(&file).ok().filter(|address| address.ends_with('\n'))
        })
        .await;
        let client = reqwest::Client::builder().no_proxy().timeout(STEP_LIMIT).build();
        let client = client.expect("an HTTP client can be made");
        let cloud = Self { process, endpoint: format!("http://{}", address.trim()), client };
        cloud.behave(behaviour).await;
        cloud
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// What a relay has to be configured with.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) async fn behave(&self, behaviour: Behaviour) {
        let Behaviour { requests_per_second, latency_ms, hold_ms } = behaviour;
        let settings = serde_json::json!({
            "requests_per_second": requests_per_second,
            "latency_ms": latency_ms,
            "hold_ms": hold_ms,
        });
        self.post("config", settings.to_string()).await;
    }

    /// Puts events into a sub-application's queue, in this order.
    pub(crate) async fn put(&self, sub_app: u64, events: impl IntoIterator<Item = String>) {
        let mut request = String::new();
        let mut count = 0;
        for event in events {
            if count == REQUEST_EVENTS || (count > 0 && request.len() + event.len() > REQUEST_BYTES) {
                self.put_request(sub_app, &request).await;
                request.clear();
                count = 0;
            }
            if count > 0 {
                request.push(',');
            }
            request += &event;
            count += 1;
        }
        if count > 0 {
            self.put_request(sub_app, &request).await;
        }
    }

    /// `events` are JSON objects with commas between them.
    async fn put_request(&self, sub_app: u64, events: &str) {
        self.post("events", format!("{{\"sub_app_id\":{sub_app},\"events\":[{events}]}}")).await;
    }

    async fn post(&self, path: &str, body: String) {
        let url = format!("{}/_emulator/{path}", self.endpoint);
        let request = self.client.post(url).header("content-type", "application/json").body(body);
        let answer = request.send().await.expect("the emulator answers");
        let status = answer.status();
        let text = answer.text().await.expect("the emulator answers");
        assert!(status.is_success(), "the emulator refused {path}: {status} {text}");
    }

    pub(crate) async fn stats(&self) -> Stats {
        let url = format!("{}/_emulator/stats", self.endpoint);
        let answer = self.client.get(url).send().await.expect("the emulator answers");
        let text = answer.text().await.expect("the emulator answers");
        serde_json::from_str(&text).expect("the emulator's figures are JSON")
    }

    /// Waits until so many events are confirmed, all queues together; fails when nothing moves for `limit`.
    pub(crate) async fn confirmed(&self, events: u64, limit: Duration) {
        let mut last = (0, std::time::Instant::now());
        loop {
            let confirmed = self.stats().await.events().confirmed;
            if confirmed >= events {
                return;
            }
            if confirmed > last.0 {
                last = (confirmed, std::time::Instant::now());
            }
            assert!(last.1.elapsed() < limit, "stuck at {confirmed} of {events} events");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
