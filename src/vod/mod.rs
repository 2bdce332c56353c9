//! The client of the cloud's API: `PullEvents`, `ConfirmEvents`, `DescribeEventsState`, `DescribeEventConfig`, version
//! 2018-07-17.
//!
//! In reading order: `signer` signs with a key that it keeps (see [`tencentcloud_signing`]); `wire` is what requests and answers say;
//! `classify` is what a failure means; `places` and `role` find `credentials`, and `keeper` keeps them fresh; `skew` knows how
//! wrong the host's clock is; `transport` is one exchange over HTTP. This file puts them together. There is no retry here but
//! one, at once, for a reason that the client can mend itself: a time stamp to correct, or a key pair that has been replaced.

pub mod answers;
mod classify;
mod codes;
mod credential_cache;
mod credential_sources;
mod credentials;
mod role;
mod signer;
mod skew;
mod transport;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use tencent_vod_event::{EventHandle, SubAppId};
use tencentcloud_signing::tc3;
use tracing::{debug, info, warn};
use url::Url;
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::RequestFailure;

use crate::clock::Now as _;
pub use classify::{Action, RequestError, classify};
use codes::Codes;
use credential_cache::CredentialCache;
pub use credential_sources::{CredentialSource, Environment, Places};
pub use credentials::{Credentials, CredentialsError};
use signer::Signer;
use skew::{Skew, SkewChange};
use transport::{Endpoint, HttpReply};
pub use transport::{SetupError, install_crypto_provider};
use wire::{ApiAnswer, Body};
pub use wire::{EventConfig, Pull};

/// The most handles that one `ConfirmEvents` takes (its document: "array length limit: 16").
pub const MAX_HANDLES: usize = 16;

/// What [`Client::prove_confirm`] names as a handle. The cloud's own handles are long and look random.
pub const MADE_UP_HANDLE: &str = "vodrelay-asks-whether-it-may-confirm";

const VERSION: &str = "2018-07-17";
const SERVICE: &str = "vod";
/// Signed byte for byte, so that it is set by hand; the SDKs send it without a character set too.
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
/// A whole confirm, if its lease does not end sooner.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole call of the other kinds.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API is: HTTPS, or plain HTTP to a loopback address.
    pub endpoint: Url,
    /// `X-TC-Region`; the four calls do not need one.
    pub region: Option<String>,
    /// Where the credentials are.
    pub credentials: Places,
    /// Connecting, TLS included.
    pub connect_timeout: Duration,
    /// A whole pull; must be longer than the cloud's hold.
    pub pull_timeout: Duration,
    /// A whole confirm, if its lease does not end sooner.
    pub confirm_timeout: Duration,
    /// A whole call of the other kinds.
    pub describe_timeout: Duration,
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
        }
    }
}

/// The client. Clones share connections, credentials and what is known of the clock.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    region: Option<HeaderValue>,
    keeper: Arc<CredentialCache>,
    signer: Signer,
    skew: Skew,
    codes: Codes,
    pull_timeout: Duration,
    confirm_timeout: Duration,
    describe_timeout: Duration,
}

impl Client {
    /// Makes a client; neither connects nor reads credentials yet.
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
            keeper: Arc::new(CredentialCache::new(options.credentials)),
            signer: Signer::default(),
            skew: Skew::default(),
            codes: Codes::default(),
            pull_timeout: options.pull_timeout,
            confirm_timeout: options.confirm_timeout,
            describe_timeout: options.describe_timeout,
        })))
    }

    /// Takes up to 16 events from the queue. No event at the moment is an empty [`Pull`], in whatever form the cloud says it.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; if it may have acted, up to 16 events are hidden in the cloud until their window ends.
    pub async fn pull_events(&self, sub_app: SubAppId) -> Result<Pull, RequestError> {
        let deadline = Moment::now() + self.0.pull_timeout;
        let body = Body { handles: None, sub_app };
        self.0.call(Action::PullEvents, body, deadline).await?.into_pull()
    }

    /// Makes the cloud forget the events behind `handles`: at most [`MAX_HANDLES`], none twice. The cloud says nothing about
    /// single handles. Nothing leaves at or after `deadline`, and the call ends by then.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; [`RequestFailure::Refused`] when the cloud rejects what it was sent.
    pub async fn confirm_events(
        &self,
        sub_app: SubAppId,
        handles: &[EventHandle],
        deadline: Moment,
    ) -> Result<(), RequestError> {
        let deadline = deadline.min(Moment::now() + self.0.confirm_timeout);
        let body = Body { handles: Some(handles), sub_app };
        self.0.call(Action::ConfirmEvents, body, deadline).await?.into_confirmed()
    }

    /// Calls `ConfirmEvents` with a handle that no delivery has: whatever the cloud says of the handle proves that the key may
    /// call it, and no event is touched.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; [`RequestFailure::Refused`] is the answer to be expected, and proof as well.
    pub async fn prove_confirm(&self, sub_app: SubAppId) -> Result<(), RequestError> {
        let deadline = Moment::now() + self.0.confirm_timeout;
        let handle = [EventHandle(MADE_UP_HANDLE.into())];
        let body = Body { handles: Some(&handle), sub_app };
        self.0.call(Action::ConfirmEvents, body, deadline).await?.into_confirmed()
    }

    /// How many events wait to be pulled. The cloud's documents call it approximate and about three minutes late.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn describe_events_state(&self, sub_app: SubAppId) -> Result<u64, RequestError> {
        let deadline = Moment::now() + self.0.describe_timeout;
        let body = Body { handles: None, sub_app };
        self.0.call(Action::DescribeEventsState, body, deadline).await?.into_count()
    }

    /// How the callbacks are set up.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn describe_event_config(&self, sub_app: SubAppId) -> Result<EventConfig, RequestError> {
        let deadline = Moment::now() + self.0.describe_timeout;
        let body = Body { handles: None, sub_app };
        self.0.call(Action::DescribeEventConfig, body, deadline).await?.into_event_config()
    }

    /// The cloud's clock minus the host's, in milliseconds, good to about a second: by the last answer that had a date.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.0.skew.measured_ms()
    }

    /// Reads the credentials now, and uses them from now on: at start, to fail early, and when an operator says so.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`]; the credentials in use, if there are any, stay.
    pub async fn refresh_credentials(&self) -> Result<Arc<Credentials>, CredentialsError> {
        self.0.keeper.read_again().await
    }
}

impl Inner {
    async fn call(
        &self,
        action: Action,
        body: Body<'_>,
        deadline: Moment,
    ) -> Result<ApiAnswer, RequestError> {
        let started = Moment::now();
        let sent = AtomicBool::new(false);
        let result = if started >= deadline {
            Err(RequestError::own(
                action,
                RequestFailure::Transient,
                "deadline",
                "no time was left to send it",
            )
            .not_acted())
        } else {
            before(deadline, self.attempts(action, body, &sent)).await.unwrap_or_else(|| {
                let seconds = Moment::now().since(started).as_secs_f64();
                let message = format!("no answer within {seconds:.1} s");
                let error = RequestError::own(action, RequestFailure::Transient, "timeout", message);
                Err(if sent.load(Ordering::Relaxed) { error } else { error.not_acted() })
            })
        };
        let elapsed_ms = Moment::now().since(started).as_millis();
        let (code, request_id) = match &result {
            Ok(answer) => (if answer.is_idle() { "idle" } else { "ok" }, answer.request_id.as_deref()),
            Err(error) => (error.code.as_str(), error.request_id.as_deref()),
        };
        metrics::counter!("vodrelay_api_requests_total", "action" => action.name(), "code" => self.codes.label(code)).increment(1);
        debug!(action = action.name(), sub_app = body.sub_app.0, code, request_id, elapsed_ms, "call");
        result
    }

    /// The call, and once more if the client could mend what the cloud refused it for.
    async fn attempts(
        &self,
        action: Action,
        body: Body<'_>,
        sent: &AtomicBool,
    ) -> Result<ApiAnswer, RequestError> {
        let (sub_app, body) = (body.sub_app, Bytes::from(body.to_json()));
        let (mut clock_mended, mut credentials_replaced) = (false, false);
        loop {
            let now = self.skew.timestamp(WallTime::now());
            let credentials = self.keeper.get(now).await.map_err(|error| {
                RequestError::own(action, RequestFailure::Credentials, "credentials", error.to_string())
                    .not_acted()
            })?;
            sent.store(true, Ordering::Relaxed);
            let (error, change) = match self.send(action, sub_app, body.clone(), &credentials).await? {
                Sent::Answered(answer) => return Ok(answer),
                Sent::Refused(error, change) => (error.about_key(&credentials), change),
            };
            let tried = match error.failure {
                RequestFailure::Clock if change != SkewChange::None => &mut clock_mended,
                RequestFailure::Credentials if self.keeper.replace(&credentials).await => {
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
        let timestamp = self.skew.timestamp(WallTime::now());
        let headers = self.headers(action, &body, timestamp, credentials);
        let request = self.endpoint.client.post(self.endpoint.url.clone()).headers(headers).body(body);
        let HttpReply { status, date, arrived, body } = transport::exchange(action, request).await?;
        let answer = match body.and_then(|body| ApiAnswer::read(action, sub_app, body)) {
            Ok(answer) => answer,
            // Whatever it is, it is not from the API: the status is all that can be told.
            Err(_) if !status.is_success() => return Err(transport::status_error(action, status)),
            Err(error) => return Err(error),
        };
        let error = answer.error().filter(|_| !answer.is_idle());
        let expired = error.as_ref().is_some_and(|error| error.failure == RequestFailure::Clock);
        let change = match date.as_deref().and_then(skew::parse_date) {
            Some(date) if expired => self.skew.refused(timestamp, date, arrived),
            Some(date) => self.skew.observe(date, arrived),
            None => SkewChange::None,
        };
        log_clock(change);
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

/// How one request of a call ended, if it was answered.
enum Sent {
    Answered(ApiAnswer),
    /// The cloud's error, and what the answer told about the clock.
    Refused(RequestError, SkewChange),
}

fn log_clock(change: SkewChange) {
    match change {
        SkewChange::Corrected(by_ms) => warn!(
            error_code = %ErrorCode::ClockWrong,
            skew_seconds = by_ms / 1_000,
            "the host's clock is wrong, and the cloud refuses its time stamps; requests are signed with the cloud's time \
             from now on; set the host's clock, and keep it set with NTP"
        ),
        SkewChange::Lifted => info!("the host's clock fits the cloud's again; requests are signed with it"),
        SkewChange::None | SkewChange::Known => {}
    }
}

/// Runs `future` until `deadline` and not one step further; `None` when that was not enough.
///
/// The boot clock is asked before every step: the runtime's timers stand still while the host sleeps, and a lease does not.
async fn before<T>(deadline: Moment, future: impl Future<Output = T>) -> Option<T> {
    let mut timer = pin!(tokio::time::sleep(deadline.since(Moment::now())));
    let mut future = pin!(future);
    poll_fn(|context| {
        if Moment::now() >= deadline || timer.as_mut().poll(context).is_ready() {
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
        let deadline = Moment::now() + Duration::from_millis(30);
        // It never rests, so that only the check before each step can stop it.
        let restless = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(before::<()>(deadline, restless).await, None);
        assert!(Moment::now() >= deadline);
        assert_eq!(before(Moment(0), async { panic!("a step was made") }).await, None::<()>);
        assert_eq!(before(Moment::now() + Duration::from_secs(60), async { 7 }).await, Some(7));
    }

    #[test]
    fn a_pull_outlasts_the_hold_of_the_cloud() {
        let options =
            Options::new(Url::parse("https://vod.tencentcloudapi.com").unwrap(), CredentialSource::Auto);
        assert!(options.pull_timeout >= Duration::from_secs(10));
        assert!(options.confirm_timeout < options.pull_timeout);
    }
}
