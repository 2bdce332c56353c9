//! One request, signed when it leaves, and signed once more when the service refuses the time that it was signed at.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderValue, USER_AGENT};
use tencentcloud_signing::encode;
use url::Url;

use super::content::Content;
use super::documents::{self, ErrorDocument};
use super::error::{StorageError, StorageFailure};
use super::exchange::{StorageAnswer, exchange};
use super::operation::Operation;
use super::progress::ProgressWatch;
use super::signed::Head;
use super::target::Target;
use super::traffic::Traffic;
use crate::observation::ClientObserver;
use crate::skew::{Skew, SkewChange, parse_date};

/// What every request to the service needs.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) http: reqwest::Client,
    pub(crate) endpoint: Option<Url>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) user_agent: HeaderValue,
    pub(crate) skew: Skew,
    pub(crate) observer: ClientObserver,
}

/// A request to be made.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    pub(crate) target: &'a Target,
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) content: Option<Content>,
    pub(crate) content_type: Option<&'static str>,
    /// How long it may stand still.
    pub(crate) limit: Duration,
}

/// A request that failed, and whether the clock has been corrected since it was signed.
struct FailedTry {
    error: StorageError,
    clock_corrected: bool,
}

impl From<StorageError> for FailedTry {
    fn from(error: StorageError) -> Self {
        Self { error, clock_corrected: false }
    }
}

impl Sender {
    /// Makes the request. An answer has a status of success.
    pub(crate) async fn send(&self, mut ask: Ask<'_>) -> Result<StorageAnswer, StorageError> {
        let content = ask.content.take();
        let again = match &content {
            None => Some(None),
            Some(content) => content.again().map(Some),
        };
        let FailedTry { error, clock_corrected } = match self.once(&ask, content).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        match again {
            Some(content) if clock_corrected => self.once(&ask, content).await.map_err(|failed| failed.error),
            // A stream cannot be sent twice. The next one will be signed with the right time.
            None if clock_corrected => {
                Err(StorageError { failure: StorageFailure::Retry { slow_down: false }, ..error })
            }
            _ => Err(error),
        }
    }

    async fn once(&self, ask: &Ask<'_>, content: Option<Content>) -> Result<StorageAnswer, FailedTry> {
        let object = ask.target.to_string();
        let about = (ask.operation, object.as_str());
        let unusable = |cause: &str| StorageError::own(about, StorageFailure::Refused, "bad_request", cause);
        let head = Head {
            method: ask.method.clone(),
            target: ask.target,
            query: ask.query,
            length: content.as_ref().map(Content::length),
            md5: content.as_ref().and_then(|content| content.md5),
            content_type: ask.content_type,
        };
        let url = head.url(self.endpoint.as_ref()).map_err(|error| unusable(&error.to_string()))?;
        let timestamp = self.skew.timestamp(vodrelay_host::wall_clock_ms());
        let headers = head
            .headers(timestamp)
            .map_err(|_| unusable("the key pair has a character that no header can carry"))?;
        let progress = Arc::new(ProgressWatch::new());
        let mut request = self.http.request(ask.method.clone(), url);
        request = request.headers(headers).header(USER_AGENT, self.user_agent.clone());
        if let Some(content) = content {
            request = request.body(content.into_body(Arc::clone(&progress), Arc::clone(&self.traffic)));
        }
        let answer = exchange(about, request, &progress, ask.limit).await?;
        if (200..300).contains(&answer.status) {
            self.observe_date(&answer);
            return Ok(answer);
        }
        let ids = (answer.status, answer.ids.clone());
        let error = match documents::error(&answer.body) {
            Ok(document) => StorageError::from_service(about, ids, masked(document, ask.target)),
            Err(_) => StorageError::from_status(about, ids),
        };
        Err(self.judge_clock(error, &answer, timestamp, ask.target))
    }

    /// Tells a wrong clock from a key pair that is over.
    fn judge_clock(
        &self,
        mut error: StorageError,
        answer: &StorageAnswer,
        timestamp: i64,
        target: &Target,
    ) -> FailedTry {
        let about_time = error.failure == StorageFailure::Clock || error.says_expired();
        let date = answer.date.as_deref().and_then(parse_date);
        let (true, Some(date)) = (about_time, date) else {
            self.observe_date(answer);
            // Without a date only the pair itself can tell.
            let lasts = target.credentials.expires_at.is_some_and(|end| end > timestamp);
            if about_time && lasts {
                error.failure = StorageFailure::Clock;
            }
            return error.into();
        };
        let change = self.skew.refused(timestamp, date, answer.arrived_ms);
        self.observer.observe_clock(change);
        let clock_corrected = change != SkewChange::None;
        if clock_corrected {
            error.failure = StorageFailure::Clock;
        }
        FailedTry { error, clock_corrected }
    }

    fn observe_date(&self, answer: &StorageAnswer) {
        if let Some(date) = answer.date.as_deref().and_then(parse_date) {
            self.observer.observe_clock(self.skew.observe(date, answer.arrived_ms));
        }
    }
}

/// The same without the token: it is a signed header, so the service shows it when a signature does not match.
pub(crate) fn masked(document: ErrorDocument, target: &Target) -> ErrorDocument {
    let Some(token) = target.credentials.token.as_ref().filter(|token| !token.expose().is_empty()) else {
        return document;
    };
    let encoded = encode(token.expose());
    let mask = |text: String| text.replace(&*encoded, "***").replace(token.expose(), "***");
    ErrorDocument {
        code: mask(document.code),
        message: mask(document.message),
        string_to_sign: mask(document.string_to_sign),
        format_string: mask(document.format_string),
        request_id: document.request_id,
        trace_id: document.trace_id,
    }
}
