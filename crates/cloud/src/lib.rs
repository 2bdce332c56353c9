//! A client of Tencent Cloud VOD's server API, version 2018-07-17: `PullEvents`, `ConfirmEvents`, `DescribeEventsState`,
//! `DescribeEventConfig`.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use tencent_vod::{Client, CredentialSource, Environment, Options};
//! use tencent_vod_event::SubAppId;
//!
//! // A local VOD. For the real one, write https://vod.tencentcloudapi.com, and leave the environment as it is.
//! let vod = tencent_vod_emulator::Emulator::start(Default::default()).await.expect("loopback can be listened on");
//! vod.put(0, r#"{"EventType":"NewFileUpload"}"#);
//! let key = vod.credential();
//!
//! tencent_vod::install_crypto_provider();
//! let mut options = Options::new(vod.endpoint().parse().expect("a URL"), CredentialSource::Env);
//! options.credentials.environment =
//!     Environment::fixed([("TENCENTCLOUD_SECRET_ID", key.secret_id), ("TENCENTCLOUD_SECRET_KEY", key.secret_key.expose().to_owned())]);
//! let client = Client::new(options).expect("options that can work");
//! let pull = client.pull_events(SubAppId(0)).await.expect("an answer");
//! assert_eq!(pull.events.len(), 1);
//! # });
//! ```
//!
//! In reading order: `signer` signs and caches a key (see [`tencentcloud_signing`]); `wire` is the form of
//! requests and answers; `classify` is the meaning of a failure; `credential_sources` and `role` find
//! `credentials`, and `credential_cache` renews them; `skew` measures the host's clock error; `transport` is
//! one exchange over HTTP; `observation` is what the client observes beside its results. This file puts them
//! together. A request is repeated at most once, at once, and only if the client can correct the cause: a
//! time stamp, or a key pair that was replaced. All other repeats are the caller's.

pub mod answers;
mod classify;
pub mod cos;
mod credential_cache;
mod credential_sources;
mod credentials;
mod observation;
mod role;
mod signer;
mod skew;
mod transport;
pub mod upload;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use tencent_vod_event::{EventHandle, SubAppId};
use tencentcloud_signing::tc3;
use url::Url;
use vodrelay_host::BootTime;

pub use classify::{Action, FailureKind, RequestError, classify};
use credential_cache::CredentialCache;
pub use credential_sources::{CredentialSource, Environment, Places};
pub use credentials::{Credentials, CredentialsError};
pub use observation::{ClientObserver, Observation};
use signer::Signer;
use skew::{Skew, SkewChange};
use transport::{Endpoint, HttpReply};
pub use transport::{SetupError, install_crypto_provider};
use wire::{ApiAnswer, Body};
pub use wire::{EventConfig, Pull};

/// The handle of [`Client::prove_confirm`]. The cloud's own handles are long and look random.
pub const MADE_UP_HANDLE: &str = "vodrelay-asks-whether-it-may-confirm";

const VERSION: &str = "2018-07-17";
const SERVICE: &str = "vod";
/// It is signed byte for byte, so it is set by hand. The SDKs send it without a character set too.
const JSON: &str = "application/json";

const ACTION: HeaderName = HeaderName::from_static("x-tc-action");
const API_VERSION: HeaderName = HeaderName::from_static("x-tc-version");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-tc-timestamp");
const REGION: HeaderName = HeaderName::from_static("x-tc-region");
const TOKEN: HeaderName = HeaderName::from_static("x-tc-token");

/// Connecting, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole pull. The cloud holds an idle poll for up to 5 s, and advises a time-out of 10 s.
pub const PULL_TIMEOUT: Duration = Duration::from_secs(15);
/// For a whole confirm, if its lease does not end sooner.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole call of the other kinds.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The client's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address of the API: HTTPS, or plain HTTP to a loopback address.
    pub endpoint: Url,
    /// `X-TC-Region`; the four calls do not need one.
    pub region: Option<String>,
    /// The source of the credentials.
    pub credentials: Places,
    /// Connecting, TLS included.
    pub connect_timeout: Duration,
    /// For a whole pull; longer than the cloud's hold.
    pub pull_timeout: Duration,
    /// For a whole confirm, if its lease does not end sooner.
    pub confirm_timeout: Duration,
    /// For a whole request of the other kinds.
    pub describe_timeout: Duration,
    /// `User-Agent`, for the cloud's side.
    pub user_agent: HeaderValue,
    /// The receiver of the client's observations.
    pub observer: ClientObserver,
}

impl Options {
    /// The usual options.
    pub fn new(endpoint: Url, source: CredentialSource) -> Self {
        Self {
            endpoint,
            region: None,
            credentials: Places::new(source),
            connect_timeout: CONNECT_TIMEOUT,
            pull_timeout: PULL_TIMEOUT,
            confirm_timeout: CONFIRM_TIMEOUT,
            describe_timeout: DESCRIBE_TIMEOUT,
            user_agent: transport::USER_AGENT,
            observer: ClientObserver::default(),
        }
    }
}

/// The client. Clones share connections, credentials and the clock's error.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    region: Option<HeaderValue>,
    user_agent: HeaderValue,
    cache: Arc<CredentialCache>,
    signer: Signer,
    skew: Skew,
    observer: ClientObserver,
    pull_timeout: Duration,
    confirm_timeout: Duration,
    describe_timeout: Duration,
}

impl Client {
    /// Makes a client. It neither connects nor reads credentials yet.
    ///
    /// # Errors
    ///
    /// [`SetupError`] for options that cannot work.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        transport::check_endpoint(&options.endpoint)?;
        if !options.credentials.metadata_is_safe() {
            let cause =
                "keys are not taken over plain HTTP from anywhere but the vendor's address and this machine";
            return Err(SetupError::Setting { setting: "the metadata address", cause });
        }
        let region = match options.region.as_deref() {
            None | Some("") => None,
            Some(region) => Some(HeaderValue::from_str(region).map_err(|_| SetupError::Setting {
                setting: "the region",
                cause: "it has characters that no HTTP header can carry",
            })?),
        };
        let client = transport::client(&options.endpoint, options.connect_timeout)?;
        let host = transport::host_header(&options.endpoint).into();
        Ok(Self(Arc::new(Inner {
            endpoint: Endpoint { client, url: options.endpoint, host },
            region,
            cache: Arc::new(CredentialCache::new(options.credentials, options.observer.clone())),
            signer: Signer::default(),
            skew: Skew::default(),
            observer: options.observer,
            user_agent: options.user_agent,
            pull_timeout: options.pull_timeout,
            confirm_timeout: options.confirm_timeout,
            describe_timeout: options.describe_timeout,
        })))
    }

    /// Takes up to 16 events from the queue. Without an event the [`Pull`] is empty, in whatever form the
    /// cloud answers.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; if it may have acted, up to 16 events are hidden in the cloud until their window ends.
    pub async fn pull_events(&self, sub_app: SubAppId) -> Result<Pull, RequestError> {
        let deadline = BootTime::now() + self.0.pull_timeout;
        let body = Body { handles: None, sub_app };
        self.0.call(Action::PullEvents, body.sub_app, body.to_json(), deadline).await?.into_pull()
    }

    /// Makes the cloud forget the events behind `handles`: at most 16, none twice (the document of `ConfirmEvents`:
    /// "array length limit: 16"). The cloud reports nothing about single handles. Nothing leaves at or after
    /// `deadline`, and the call ends by then.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; [`FailureKind::Refused`] when the cloud rejects what it was sent.
    pub async fn confirm_events(
        &self,
        sub_app: SubAppId,
        handles: &[EventHandle],
        deadline: BootTime,
    ) -> Result<(), RequestError> {
        let deadline = deadline.min(BootTime::now() + self.0.confirm_timeout);
        let body = Body { handles: Some(handles), sub_app };
        self.0.call(Action::ConfirmEvents, body.sub_app, body.to_json(), deadline).await?.into_confirmed()
    }

    /// Calls `ConfirmEvents` with a handle of no delivery. The cloud's complaint about the handle proves that
    /// the key may call it, and touches no event.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; [`FailureKind::Refused`] is the expected answer, and proof.
    pub async fn prove_confirm(&self, sub_app: SubAppId) -> Result<(), RequestError> {
        let deadline = BootTime::now() + self.0.confirm_timeout;
        let handle = [EventHandle(MADE_UP_HANDLE.into())];
        let body = Body { handles: Some(&handle), sub_app };
        self.0.call(Action::ConfirmEvents, body.sub_app, body.to_json(), deadline).await?.into_confirmed()
    }

    /// How many events wait to be pulled. The cloud's documents call it approximate and about three minutes late.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn describe_events_state(&self, sub_app: SubAppId) -> Result<u64, RequestError> {
        let deadline = BootTime::now() + self.0.describe_timeout;
        let body = Body { handles: None, sub_app };
        self.0.call(Action::DescribeEventsState, body.sub_app, body.to_json(), deadline).await?.into_count()
    }

    /// How the callbacks are set up.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn describe_event_config(&self, sub_app: SubAppId) -> Result<EventConfig, RequestError> {
        let deadline = BootTime::now() + self.0.describe_timeout;
        let body = Body { handles: None, sub_app };
        self.0
            .call(Action::DescribeEventConfig, body.sub_app, body.to_json(), deadline)
            .await?
            .into_event_config()
    }

    /// The cloud's clock minus the host's in milliseconds, exact to about a second, from the last answer with
    /// a date.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.0.skew.measured_ms()
    }

    /// Reads the credentials now and uses them from now on: at a start, to fail early, and on an operator's
    /// request.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`]. The credentials in use stay.
    pub async fn refresh_credentials(&self) -> Result<Arc<Credentials>, CredentialsError> {
        self.0.cache.read_again().await
    }
}

impl Inner {
    async fn call(
        &self,
        action: Action,
        sub_app: SubAppId,
        body: Vec<u8>,
        deadline: BootTime,
    ) -> Result<ApiAnswer, RequestError> {
        let started = BootTime::now();
        let sent = AtomicBool::new(false);
        let result = if started >= deadline {
            Err(RequestError::own(
                action,
                FailureKind::Transient,
                "deadline",
                "the lease had no time left for it",
            )
            .not_acted())
        } else {
            before(deadline, self.attempts(action, sub_app, body, &sent)).await.unwrap_or_else(|| {
                let seconds = BootTime::now().since(started).as_secs_f64();
                let message = format!("no answer within {seconds:.1} s");
                let error = RequestError::own(action, FailureKind::Transient, "timeout", message);
                Err(if sent.load(Ordering::Relaxed) { error } else { error.not_acted() })
            })
        };
        let request_id = match &result {
            Ok(answer) => answer.request_id.as_deref(),
            Err(error) => error.request_id.as_deref(),
        };
        self.observer.observe(&Observation::RequestEnded {
            action,
            sub_app,
            result: result.as_ref().map(ApiAnswer::is_idle),
            request_id,
            elapsed: BootTime::now().since(started),
        });
        result
    }

    /// The request, and a second one if the client could correct the cause of the refusal.
    async fn attempts(
        &self,
        action: Action,
        sub_app: SubAppId,
        body: Vec<u8>,
        sent: &AtomicBool,
    ) -> Result<ApiAnswer, RequestError> {
        let body = Bytes::from(body);
        let (mut clock_mended, mut credentials_replaced) = (false, false);
        loop {
            let now = self.skew.timestamp(vodrelay_host::wall_clock_ms());
            let credentials = self.cache.get(now).await.map_err(|error| {
                RequestError::own(action, FailureKind::Credentials, "credentials", error.to_string())
                    .not_acted()
            })?;
            sent.store(true, Ordering::Relaxed);
            let (error, change) = match self.send(action, sub_app, body.clone(), &credentials).await? {
                Sent::Answered(answer) => return Ok(answer),
                Sent::Refused(error, change) => (error.about_key(&credentials), change),
            };
            let tried = match error.failure {
                FailureKind::Clock if change != SkewChange::None => &mut clock_mended,
                FailureKind::Credentials if self.cache.replace(&credentials).await => {
                    &mut credentials_replaced
                }
                _ => return Err(error),
            };
            if std::mem::replace(tried, true) {
                return Err(error);
            }
        }
    }

    /// Signs and sends one request, and judges its answer.
    async fn send(
        &self,
        action: Action,
        sub_app: SubAppId,
        body: Bytes,
        credentials: &Arc<Credentials>,
    ) -> Result<Sent, RequestError> {
        let timestamp = self.skew.timestamp(vodrelay_host::wall_clock_ms());
        let headers = self.headers(action, &body, timestamp, credentials);
        let request = self.endpoint.client.post(self.endpoint.url.clone()).headers(headers).body(body);
        let HttpReply { status, date, arrived_ms, body } = transport::exchange(action, request).await?;
        let answer = match body.and_then(|body| ApiAnswer::read(action, sub_app, body)) {
            Ok(answer) => answer,
            // It is not from the API: only the status is known.
            Err(_) if !status.is_success() => return Err(transport::status_error(action, status)),
            Err(error) => return Err(error),
        };
        let error = answer.error().filter(|_| !answer.is_idle());
        let expired = error.as_ref().is_some_and(|error| error.failure == FailureKind::Clock);
        let change = match date.as_deref().and_then(skew::parse_date) {
            Some(date) if expired => self.skew.refused(timestamp, date, arrived_ms),
            Some(date) => self.skew.observe(date, arrived_ms),
            None => SkewChange::None,
        };
        self.observer.observe_clock(change);
        match error {
            Some(error) => Ok(Sent::Refused(error, change)),
            None if status.is_success() => Ok(Sent::Answered(answer)),
            None => Err(transport::status_error(action, status)),
        }
    }

    fn headers(
        &self,
        action: Action,
        body: &[u8],
        timestamp: i64,
        credentials: &Arc<Credentials>,
    ) -> HeaderMap {
        let signed = [("content-type", JSON), ("host", &*self.endpoint.host)];
        let request =
            tc3::Request { method: "POST", query: "", headers: &signed, body, timestamp, service: SERVICE };
        let authorization = self.signer.authorization(credentials, &request);
        let text =
            |text: &str| HeaderValue::from_str(text).expect("hosts and credentials are printable ASCII");
        let secret = |value: &str| {
            let mut value = text(value);
            value.set_sensitive(true);
            value
        };
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.insert(HOST, text(&self.endpoint.host));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(ACTION, HeaderValue::from_static(action.name()));
        headers.insert(API_VERSION, HeaderValue::from_static(VERSION));
        headers.insert(TIMESTAMP, HeaderValue::from(timestamp));
        if let Some(region) = &self.region {
            headers.insert(REGION, region.clone());
        }
        if let Some(token) = &credentials.token {
            headers.insert(TOKEN, secret(token.expose()));
        }
        headers.insert(AUTHORIZATION, secret(&authorization));
        headers
    }
}

/// The end of one answered request.
enum Sent {
    Answered(ApiAnswer),
    /// The cloud's error, and what the answer showed about the clock.
    Refused(RequestError, SkewChange),
}

/// Runs `future` until `deadline` and not one step further; `None` when that was not enough.
///
/// The boot clock is read before every step: the runtime's timers stop while the host sleeps, and a lease
/// does not.
async fn before<T>(deadline: BootTime, future: impl Future<Output = T>) -> Option<T> {
    let mut timer = pin!(tokio::time::sleep(deadline.since(BootTime::now())));
    let mut future = pin!(future);
    poll_fn(|context| {
        if BootTime::now() >= deadline || timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_step_is_made_at_or_after_the_deadline() {
        let deadline = BootTime::now() + Duration::from_millis(30);
        // It never waits, so only the check before each step can stop it.
        let restless = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(before::<()>(deadline, restless).await, None);
        assert!(BootTime::now() >= deadline);
        assert_eq!(before(BootTime { ms: 0 }, async { panic!("a step was made") }).await, None::<()>);
        assert_eq!(before(BootTime::now() + Duration::from_secs(60), async { 7 }).await, Some(7));
    }

    #[test]
    fn a_pull_outlasts_the_hold_of_the_cloud() {
        let options =
            Options::new(Url::parse("https://vod.tencentcloudapi.com").unwrap(), CredentialSource::Auto);
        assert!(options.pull_timeout >= Duration::from_secs(10));
        assert!(options.confirm_timeout < options.pull_timeout);
    }
}
