//! One request over HTTP, and what its answer is, whatever it says.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{DATE, ETAG, HeaderMap};

use super::documents::unquoted;
use super::error::{AnswerIds, StorageError, StorageFailure};
use super::operation::Operation;
use super::progress::ProgressWatch;
use crate::transport::{NoAnswer, chain};

/// A list of 1,000 parts has some hundred kilobytes.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;
/// An error has some hundred bytes, and the strings of a signature.
const LARGEST_ERROR: usize = 64 * 1024;

/// Proof of what was stored: in decimal.
const CRC64: &str = "x-cos-hash-crc64ecma";

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct StorageAnswer {
    pub(crate) status: u16,
    pub(crate) ids: AnswerIds,
    /// Without quotes.
    pub(crate) etag: Option<String>,
    pub(crate) crc64: Option<u64>,
    pub(crate) date: Option<String>,
    /// When the headers arrived, in milliseconds since the Unix epoch.
    pub(crate) arrived_ms: i64,
    /// Without the blanks before it.
    pub(crate) body: Bytes,
}

/// Sends a request and reads the whole answer, for as long as bytes move: `limit` is how long none may.
pub(crate) async fn exchange(
    about: (Operation, &str),
    request: reqwest::RequestBuilder,
    progress: &Arc<ProgressWatch>,
    limit: Duration,
) -> Result<StorageAnswer, StorageError> {
    let whole = async {
        let response = request.send().await.map_err(|error| send_error(about, progress, &error))?;
        progress.moved();
        read(about, response, progress).await
    };
    let stalled = || {
        let seconds = limit.as_secs();
        let message = format!("no byte was sent or received for {seconds} s");
        let error = StorageError::own(about, StorageFailure::Unanswered, "stalled", &message);
        StorageError { try_other_host: true, ..error }
    };
    progress.watch(limit, whole).await.unwrap_or_else(|| Err(stalled()))
}

async fn read(
    about: (Operation, &str),
    mut response: reqwest::Response,
    progress: &ProgressWatch,
) -> Result<StorageAnswer, StorageError> {
    let arrived_ms = vodrelay_host::wall_clock_ms();
    let status = response.status();
    let headers = response.headers();
    let mut answer = StorageAnswer {
        status: status.as_u16(),
        ids: AnswerIds {
            request_id: text(headers, "x-cos-request-id").map(Into::into),
            trace_id: text(headers, "x-cos-trace-id").map(Into::into),
        },
        etag: text(headers, ETAG.as_str())
            .map(|etag| unquoted(&etag).to_owned())
            .filter(|etag| !etag.is_empty()),
        crc64: text(headers, CRC64).and_then(|crc64| crc64.parse().ok()),
        date: text(headers, DATE.as_str()),
        arrived_ms,
        body: Bytes::new(),
    };
    let largest = if status.is_success() { LARGEST_ANSWER } else { LARGEST_ERROR };
    let failed = |code: &str, message: &str| {
        StorageError::not_an_answer(about, (status.as_u16(), answer.ids.clone()), code, message)
    };
    let mut body = BytesMut::new();
    loop {
        let chunk = response.chunk().await;
        progress.moved();
        let chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => {
                return Err(failed("connection_lost", &format!("the answer broke off: {}", chain(&error))));
            }
        };
        // Blanks come for minutes while an upload is completed.
        let chunk = if body.is_empty() { chunk.trim_ascii_start() } else { &chunk[..] };
        if body.len() + chunk.len() > largest {
            return Err(failed("too_large", &format!("the answer is larger than {largest} bytes")));
        }
        body.extend_from_slice(chunk);
    }
    answer.body = body.freeze();
    Ok(answer)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.chars().take(200).collect())
}

/// A request without any answer.
fn send_error(about: (Operation, &str), progress: &ProgressWatch, error: &reqwest::Error) -> StorageError {
    let own = |failure, code, message: &str| StorageError::own(about, failure, code, message);
    if let Some(cause) = progress.source_failure() {
        return own(
            StorageFailure::BodyMismatch,
            "source",
            &format!("what was to be sent cannot be read: {cause}"),
        );
    }
    let host = error.url().and_then(|url| url.host_str()).unwrap_or_default();
    let why = NoAnswer::of(error);
    let failure = match why {
        NoAnswer::Untrusted | NoAnswer::NotBuilt => StorageFailure::Refused,
        NoAnswer::Tls | NoAnswer::Files | NoAnswer::NotConnected => {
            StorageFailure::Retry { slow_down: false }
        }
        NoAnswer::Lost => StorageFailure::Unanswered,
    };
    // Another host would not change these.
    let try_other_host = !matches!(why, NoAnswer::Files | NoAnswer::NotBuilt);
    StorageError { try_other_host, ..own(failure, why.code(), &format!("{host}: {}", chain(error))) }
}
