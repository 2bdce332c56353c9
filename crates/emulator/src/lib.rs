//! A local VOD that the vendor's own SDKs can talk to.
//!
//! It has its own reading of the documents. It shares only the signature with the client, so one misreading
//! is not made twice.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use tencent_vod_emulator::{Emulator, Options};
//!
//! let emulator = Emulator::start(Options::default()).await.expect("loopback can be listened on");
//! emulator.put(0, r#"{"EventType":"NewFileUpload"}"#);
//! println!("http://{} accepts {:?}", emulator.addr(), emulator.credential());
//! # });
//! ```
//!
//! In reading order:
//!
//! - [`queue`], with [`handles`] and [`ledger`]: one sub-application's queue, a pure model.
//! - `state`: all queues, the settings, the figures.
//! - [`faults`]: what can go wrong on request.
//! - `api`, `calls`, `auth`, `auth_v1`, `http`, `conn`: the calls, their signatures, their answers, their connections.
//! - [`uploads`]: applications, stored content and media, and the requests of the API and of the web SDK for them.
//! - `cos`: the object storage over HTTP.
//! - `dispatch`, with `cors`: the choice of the service for a request.
//! - `control`: `/_emulator/…`.
//! - [`events`]: samples of every event type.
//!
//! Not emulated: PUSH deliveries, the three minutes of delay of `DescribeEventsState`, decoding of media. Facts that need
//! a decoder are zero.

mod action;
mod api;
mod auth;
mod auth_v1;
mod calls;
mod conn;
pub mod control;
mod cors;
mod cos;
mod dispatch;
pub mod events;
pub mod faults;
pub mod handles;
mod http;
pub mod ledger;
pub mod queue;
mod samples;
mod state;
pub mod uploads;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use vodrelay_serve::Limits;

pub use self::action::{Action, Service};
pub use self::auth::Credential;
use self::conn::Listener;
pub use self::faults::{Fault, FaultKind, IdleShape};
pub use self::ledger::{ConfirmVerdict, Ledger};
pub use self::queue::{EventNo, QueueSettings, Redelivery};
use self::state::{Cloud, now_ms};
pub use self::state::{EmulatorSettings, EventConfig, State, Stats};
pub use self::uploads::report::{MediumReport, MultipartReport, ObjectReport, SessionReport, UploadReport};
pub use self::uploads::settings::{OneTime, Policy, SignatureErrorForm, UploadSettings};

/// Clients keep their connections for long, and each poll has one.
const LIMITS: Limits = Limits {
    connections: 1_000,
    head: Duration::from_secs(75),
    // No limit for a whole upload. The readers of bodies limit the pauses.
    body: Duration::from_secs(24 * 60 * 60),
    life: Duration::from_secs(24 * 60 * 60),
};

/// The settings of an emulator's start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether an address that other machines can reach is allowed.
    pub allow_remote: bool,
    /// The key pairs that are accepted; a throw-away pair is made when there is none.
    pub credentials: Vec<Credential>,
    /// The seed of handles and of the faults' probabilities.
    pub seed: u64,
    /// The first settings.
    pub settings: EmulatorSettings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            allow_remote: false,
            credentials: Vec::new(),
            seed: 1,
            settings: EmulatorSettings::default(),
        }
    }
}

/// Why an emulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not a loopback one.
    #[error(
        "refusing to listen on {0}, which other machines may reach; name a loopback address, or add --allow-remote"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be used.
    #[error("cannot listen on {addr}; name another address, or port 0 for a free one")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The condition did not hold in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} in vain; the emulator is at {stats:?}")]
pub struct WaitedInVain {
    /// For how long.
    pub waited: Duration,
    /// The progress until then.
    pub stats: Box<Stats>,
}

/// A running emulator. It ends when this is dropped, with every connection to it.
#[derive(Debug)]
pub struct Emulator {
    cloud: Arc<Cloud>,
    addr: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts an emulator on this runtime.
    ///
    /// # Errors
    ///
    /// When the address cannot be used, or reaches beyond loopback without permission.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let Options { listen, allow_remote, mut credentials, seed, settings } = options;
        if !allow_remote && !listen.ip().to_canonical().is_loopback() {
            return Err(StartError::NotLoopback(listen));
        }
        let tcp =
            TcpListener::bind(listen).await.map_err(|source| StartError::Listen { addr: listen, source })?;
        let addr = tcp.local_addr().map_err(|source| StartError::Listen { addr: listen, source })?;
        if credentials.is_empty() {
            credentials.push(Credential::throw_away());
        }
        let cloud = Arc::new(Cloud::new(State::new(seed, settings, credentials)));
        let app = Router::new()
            .route("/", any(http::api))
            .route("/v3/index.php", any(http::ugc))
            .nest("/_emulator", control::routes())
            .fallback(control::not_found)
            .layer(axum::middleware::from_fn_with_state(cloud.clone(), dispatch::dispatch))
            .with_state(cloud.clone());
        let listener = Listener { tcp, gone: cloud.gone.clone() };
        let gone = cloud.gone.clone();
        let task = tokio::spawn(async move {
            vodrelay_serve::serve(listener, app, LIMITS, gone, |error| {
                tracing::warn!(%error, "no connection can be taken now");
            })
            .await;
        });
        Ok(Self { cloud, addr, task: Some(task) })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as a client's endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The first key pair that it accepts.
    pub fn credential(&self) -> Credential {
        self.cloud.lock().credentials.first().cloned().unwrap_or_else(Credential::throw_away)
    }

    /// Accepts these key pairs, and no others, from now on.
    pub fn set_credentials(&self, credentials: Vec<Credential>) {
        self.cloud.lock().credentials = credentials.into();
    }

    /// Puts an event: its JSON without a handle.
    pub fn put(&self, sub_app_id: u64, json: impl Into<Arc<str>>) -> EventNo {
        let number = self.cloud.lock().put(now_ms(), sub_app_id, json);
        self.cloud.changed.notify_waiters();
        number
    }

    /// Puts events at one moment, in their order.
    pub fn put_many<J: Into<Arc<str>>>(
        &self,
        sub_app_id: u64,
        events: impl IntoIterator<Item = J>,
    ) -> Vec<EventNo> {
        let now = now_ms();
        let numbers = {
            let mut state = self.cloud.lock();
            events.into_iter().map(|json| state.put(now, sub_app_id, json)).collect()
        };
        self.cloud.changed.notify_waiters();
        numbers
    }

    /// Makes an event that was handed out visible again at once. Returns whether it was hidden.
    pub fn redeliver(&self, sub_app_id: u64, event: EventNo, under: Redelivery) -> bool {
        let was_hidden = {
            let mut state = self.cloud.lock();
            let app = state.app(sub_app_id);
            let was_hidden = app.queue.force_redeliver(event, under);
            app.wake.notify_waiters();
            was_hidden
        };
        self.cloud.changed.notify_waiters();
        was_hidden
    }

    /// The faults.
    pub fn faults(&self) -> FaultSwitch<'_> {
        FaultSwitch { cloud: &self.cloud }
    }

    /// Changes the settings of the running emulator.
    pub fn change_settings(&self, change: impl FnOnce(&mut EmulatorSettings)) {
        let mut state = self.cloud.lock();
        let mut settings = state.settings.clone();
        change(&mut settings);
        state.set_settings(settings);
    }

    /// Changes how a sub-application is notified.
    pub fn change_event_config(&self, sub_app_id: u64, change: impl FnOnce(&mut EventConfig)) {
        change(&mut self.cloud.lock().app(sub_app_id).config);
    }

    /// The memory of one queue, or of all.
    pub fn ledger(&self, sub_app_id: impl Into<Option<u64>>) -> Ledger {
        self.cloud.lock().ledger(sub_app_id.into())
    }

    /// The state of uploads.
    pub fn uploads(&self) -> UploadReport {
        self.cloud.lock().uploads()
    }

    /// The content of an object, if the emulator keeps it.
    pub fn content(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let place = uploads::store::ObjectKey { bucket: bucket.to_owned(), key: key.to_owned() };
        self.cloud.lock().uploads.store.object(&place)?.content()
    }

    /// The figures so far.
    pub fn stats(&self) -> Stats {
        self.cloud.lock().stats()
    }

    /// Waits until a condition holds. The condition is evaluated at each change, and must not block.
    ///
    /// # Errors
    ///
    /// When the time-out passes first.
    pub async fn wait_until(
        &self,
        condition: impl Fn(&State) -> bool,
        timeout: Duration,
    ) -> Result<(), WaitedInVain> {
        if self.cloud.wait_until(timeout, condition).await {
            return Ok(());
        }
        Err(WaitedInVain { waited: timeout, stats: Box::new(self.stats()) })
    }

    /// Ends it, cuts every connection, and waits until the address is free.
    pub async fn shutdown(mut self) {
        self.cloud.gone.cancel();
        if let Some(task) = self.task.take() {
            // It ends once its connections have ended: all received the same signal.
            if task.await.is_err() {
                tracing::error!("the emulator's server panicked");
            }
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.cloud.gone.cancel();
    }
}

/// The faults of a running emulator.
#[derive(Debug)]
pub struct FaultSwitch<'a> {
    cloud: &'a Cloud,
}

impl FaultSwitch<'_> {
    /// Adds one to the active faults.
    pub fn add(&self, fault: Fault) {
        self.cloud.lock().faults.add(fault);
    }

    /// Removes all, and repairs bad handles.
    pub fn clear(&self) {
        self.cloud.clear_faults();
    }

    /// The active ones, without those that are used up.
    pub fn active(&self) -> Vec<Fault> {
        self.cloud.lock().faults.active()
    }
}
