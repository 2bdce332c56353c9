//! Requests to the object storage: target, faults, signature, body, answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::body::{BodyEnd, Expected, MAX_BODY, content_md5, next, receive, small};
use super::target::{Target, header as text, target};
use super::{CosError, auth, xml};
use crate::action::Action;
use crate::conn::{Cut, Peer};
use crate::faults::{AnswerFaults, Arrival, Early, StorageFaults};
use crate::http::{cut, half_of, html, http_date, wait_ms};
use crate::state::{Cloud, wall_ms, wall_seconds};
use crate::uploads::sessions::bucket_of;
use crate::uploads::store::{Completed, MAX_PART};

/// The largest body of `CompleteMultipartUpload`. 10,000 parts need less than 1 MB.
const MAX_XML: usize = 2 * 1024 * 1024;

/// The limits of `x-cos-traffic-limit`, in bits a second.
const TRAFFIC_LIMITS: std::ops::RangeInclusive<u64> = 819_200..=838_860_800;

const CRC64: &str = "x-cos-hash-crc64ecma";

/// The result of a request.
pub(super) enum Outcome {
    /// An answer without a body.
    Empty(u16, Vec<(&'static str, String)>),
    /// An answer with a document.
    Document(String),
    /// An answer with content.
    Content(Vec<Bytes>, Vec<(&'static str, String)>),
    /// A completed upload, or an error after the start of the answer.
    Completed(Result<Completed, CosError>),
}

/// The end of a request without a result.
pub(super) enum StorageEnd {
    Error(CosError),
    Cut(Cut),
    Response(Response),
}

impl From<CosError> for StorageEnd {
    fn from(error: CosError) -> Self {
        Self::Error(error)
    }
}

impl From<BodyEnd> for StorageEnd {
    fn from(end: BodyEnd) -> Self {
        match end {
            BodyEnd::Refused(error) => Self::Error(error),
            BodyEnd::Reset => Self::Cut(Cut::Reset),
            BodyEnd::Gone => Self::Cut(Cut::Close),
        }
    }
}

/// A request and its faults.
pub(super) struct Exchange {
    pub(super) cloud: Arc<Cloud>,
    parts: Parts,
    pub(super) target: Target,
    pub(super) faults: StorageFaults,
}

/// Serves one request.
pub(crate) async fn serve(cloud: Arc<Cloud>, peer: Peer, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let head = parts.method == axum::http::Method::HEAD;
    let usual = bucket_of(cloud.lock().settings.uploads.storage_regions.first().map_or("", String::as_str));
    let target = match target(&parts.method, &parts.uri, &parts.headers, &usual) {
        Ok(target) => target,
        Err(error) => {
            cloud.lock().count_error(&error.code);
            return error_response(&error, parts.uri.path(), head, true);
        }
    };
    let action = target.action;
    let (arrival, latency_ms) = {
        let mut guard = cloud.lock();
        let state = &mut *guard;
        state.count_call(Some(action));
        (state.faults.arrival(action, &mut state.rng), state.settings.latency_ms)
    };
    cloud.changed.notify_waiters();
    wait_ms(arrival.delay_ms.saturating_add(latency_ms)).await;
    let mut exchange = Exchange { cloud: cloud.clone(), parts, target, faults: StorageFaults::default() };
    let mut body = body;
    let outcome = exchange.run(&arrival, &mut body).await;
    if matches!(outcome, Err(StorageEnd::Error(_))) {
        drain(body, &exchange.parts.headers).await;
    }
    cloud.changed.notify_waiters();
    let answered = match outcome {
        Ok(outcome) => exchange.answer(outcome),
        Err(StorageEnd::Error(error)) => {
            cloud.lock().count_error(&error.code);
            error_response(&error, &exchange.target.path, head, !exchange.faults.no_request_id)
        }
        Err(StorageEnd::Cut(how)) => return cut(&peer, how),
        Err(StorageEnd::Response(response)) => return response,
    };
    let faults = {
        let mut guard = cloud.lock();
        let state = &mut *guard;
        state.faults.answer(action, &mut state.rng)
    };
    finish(answered, faults, arrival.skew_ms, &peer).await
}

/// Reads and drops the rest of a body. Some senders read no answer before they have sent everything.
async fn drain(mut body: Body, headers: &HeaderMap) {
    const MOST: usize = 16 * 1024 * 1024;
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let drained = async {
        let mut read = 0;
        while read < MOST
            && let Ok(Some(piece)) = next(&mut body).await
        {
            read += piece.len();
        }
    };
    // A slow sender is cut off.
    let _ = tokio::time::timeout(Duration::from_secs(10), drained).await;
}

async fn finish(mut response: Response, faults: AnswerFaults, skew_ms: i64, peer: &Peer) -> Response {
    wait_ms(faults.delay_ms).await;
    if faults.lost {
        return cut(peer, Cut::Close);
    }
    if skew_ms != 0
        && let Ok(date) = HeaderValue::from_str(&http_date(wall_ms().saturating_add(skew_ms)))
    {
        response.headers_mut().insert(header::DATE, date);
    }
    if !faults.truncated {
        return response;
    }
    let (parts, body) = response.into_parts();
    let whole = axum::body::to_bytes(body, MAX_XML).await.unwrap_or_default();
    Response::from_parts(parts, half_of(whole.into()))
}

impl Exchange {
    async fn run(&mut self, arrival: &Arrival, body: &mut Body) -> Result<Outcome, StorageEnd> {
        match &arrival.early {
            Some(Early::Reset) => return Err(StorageEnd::Cut(Cut::Reset)),
            Some(Early::Html(status)) => return Err(StorageEnd::Response(html(*status))),
            Some(Early::Rubbish) => return Err(StorageEnd::Response(Response::new("<Error><Code".into()))),
            Some(Early::Error(code)) if code == "RequestLimitExceeded" => {
                return Err(CosError::new("SlowDown").into());
            }
            Some(Early::Error(code)) => return Err(CosError::new(code.clone()).into()),
            Some(Early::Idle(_)) | None => {}
        }
        let now = wall_seconds().saturating_add(arrival.skew_ms.div_euclid(1_000));
        {
            let mut guard = self.cloud.lock();
            let state = &mut *guard;
            auth::check(state, self.parts.method.as_str(), &self.target, &self.parts.headers, now)?;
            let begun_before =
                wall_ms().saturating_sub(state.settings.uploads.parts_seconds.saturating_mul(1_000));
            state.uploads.store.expire(begun_before);
            self.faults = state.faults.storage(self.target.action, &mut state.rng);
        }
        match self.target.action {
            Action::PutObject => self.put_object(std::mem::take(body)).await,
            Action::UploadPart => self.upload_part(std::mem::take(body)).await,
            Action::InitiateMultipartUpload => Ok(self.initiate()?),
            Action::ListParts => Ok(self.list_parts()?),
            Action::ListMultipartUploads => Ok(self.list_uploads()?),
            Action::CompleteMultipartUpload => self.complete(std::mem::take(body)).await,
            Action::AbortMultipartUpload => {
                let id = self.upload_id()?;
                self.cloud.lock().uploads.store.abort(&self.target.place(), &id)?;
                Ok(Outcome::Empty(204, Vec::new()))
            }
            _ => Ok(self.fetch()?),
        }
    }

    pub(super) fn upload_id(&self) -> Result<String, CosError> {
        let id = self.target.parameter("uploadId").filter(|id| !id.is_empty());
        id.map(str::to_owned).ok_or_else(|| CosError::new("NoSuchUpload"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        text(&self.parts.headers, name)
    }

    /// The checks before a body is read.
    fn expected(
        &self,
        whole: impl FnOnce(&crate::uploads::ObjectStore) -> Option<Md5>,
    ) -> Result<Expected, CosError> {
        let length = match self.header("content-length") {
            Some(length) => Some(length.parse::<u64>().map_err(|_| CosError::new("MissingContentLength"))?),
            None if self.parts.headers.contains_key("transfer-encoding") => None,
            None => return Err(CosError::new("MissingContentLength")),
        };
        if length.is_some_and(|length| length > MAX_BODY) {
            return Err(CosError::new("EntityTooLarge"));
        }
        let limit =
            self.header("x-cos-traffic-limit").or_else(|| self.target.parameter("x-cos-traffic-limit"));
        let bits = limit.map(|limit| limit.parse().ok().filter(|bits| TRAFFIC_LIMITS.contains(bits)));
        let bits = bits.map(|bits| {
            bits.ok_or_else(|| {
                CosError::with_message("InvalidArgument", "x-cos-traffic-limit is out of range")
            })
        });
        let bytes_per_second = bits.transpose()?.map(|bits: u64| bits / 8);
        let md5 = content_md5(self.header("content-md5"))?;
        let mut state = self.cloud.lock();
        let memory = state.settings.uploads.memory_bytes;
        let reserved = length.and_then(|length| state.uploads.store.reserve(length, memory));
        let whole = if reserved.is_none() { whole(&state.uploads.store) } else { None };
        Ok(Expected { md5, reserved, whole, bytes_per_second })
    }

    async fn put_object(&self, body: Body) -> Result<Outcome, StorageEnd> {
        let expected = self.expected(|_| None)?;
        let received = receive(body, expected, &self.faults).await?;
        let digests = received.digests;
        let mut state = self.cloud.lock();
        let keep = state.settings.uploads.keep_object_bytes;
        state.uploads.store.put(self.target.place(), received, keep);
        Ok(Outcome::Empty(200, self.proofs(&hex::encode(digests.md5), digests.crc64)))
    }

    async fn upload_part(&self, body: Body) -> Result<Outcome, StorageEnd> {
        let (place, id) = (self.target.place(), self.upload_id()?);
        let number = self.target.parameter("partNumber").and_then(|number| number.parse::<u16>().ok());
        let number = number.filter(|number| (1..=MAX_PART).contains(number));
        let number = number
            .ok_or_else(|| CosError::with_message("InvalidArgument", "partNumber is not from 1 to 10000"))?;
        // The check comes before the body, which can be gigabytes.
        self.cloud.lock().uploads.store.upload(&place, &id)?;
        let expected = self.expected(|store| store.whole_before(&place, &id, number))?;
        let received = receive(body, expected, &self.faults).await?;
        let digests = received.digests;
        self.cloud.lock().uploads.store.put_part(&place, &id, number, received, wall_ms())?;
        loop {
            // Hashing is slow, so it runs without the lock.
            let job = self.cloud.lock().uploads.store.hash_job(&place, &id);
            let Some(job) = job else { break };
            let hashed = job.run();
            let mut state = self.cloud.lock();
            let keep = state.settings.uploads.keep_object_bytes;
            state.uploads.store.hashed(&place, &id, hashed, keep);
        }
        Ok(Outcome::Empty(200, self.proofs(&hex::encode(digests.md5), digests.crc64)))
    }

    fn initiate(&self) -> Result<Outcome, CosError> {
        let place = self.target.place();
        let mut state = self.cloud.lock();
        let random = state.uploads.sessions.random();
        let id = state.uploads.store.initiate(place.clone(), wall_ms(), random)?;
        let mut content = String::new();
        xml::element(&mut content, "Bucket", &place.bucket);
        xml::element(&mut content, "Key", &place.key);
        xml::element(&mut content, "UploadId", &id);
        Ok(Outcome::Document(xml::document("InitiateMultipartUploadResult", &content)))
    }

    async fn complete(&self, body: Body) -> Result<Outcome, StorageEnd> {
        let body = small(body, MAX_XML, "XMLSizeLimit").await?;
        let md5 = content_md5(self.header("content-md5"))?;
        if md5.is_some_and(|md5| md5 != Md5::digest(&body)[..]) {
            return Err(CosError::new("BadDigest").into());
        }
        let (place, id) = (self.target.place(), self.upload_id()?);
        let listed = xml::complete_parts(&body)?;
        if let Some(code) = &self.faults.error_in_ok {
            return Ok(Outcome::Completed(Err(CosError::new(code.clone()))));
        }
        let (taken, keep) = {
            let mut state = self.cloud.lock();
            let settings = state.settings.uploads.clone();
            let repeated = state.uploads.store.completed(&place, &id).cloned();
            if let Some(completed) = repeated.filter(|_| settings.repeated_complete.accepts()) {
                return Ok(Outcome::Completed(Ok(completed)));
            }
            let store = &mut state.uploads.store;
            (store.take_complete(&place, &id, &listed, settings.min_part_bytes)?, settings.keep_object_bytes)
        };
        let (id, place, object) = taken.object(keep);
        let completed = self.cloud.lock().uploads.store.complete(id, place, object);
        Ok(Outcome::Completed(Ok(completed)))
    }

    fn fetch(&self) -> Result<Outcome, CosError> {
        let state = self.cloud.lock();
        let object = state.uploads.store.object(&self.target.place());
        let object = object.ok_or_else(|| CosError::new("NoSuchKey"))?;
        let proofs = self.proofs(&object.etag, object.crc64);
        if self.target.action == Action::HeadObject {
            let mut headers = proofs;
            headers.push(("content-length", object.size.to_string()));
            return Ok(Outcome::Empty(200, headers));
        }
        match object.pieces() {
            Some(pieces) => Ok(Outcome::Content(pieces, proofs)),
            None => {
                let message = "the object is too large to be kept here; its digests are";
                Err(CosError::with_message("InvalidObjectState", message))
            }
        }
    }

    /// The headers with the digests of the stored content.
    fn proofs(&self, etag: &str, crc64: u64) -> Vec<(&'static str, String)> {
        let mut headers = vec![("etag", self.quoted(etag))];
        headers.extend(self.crc64(crc64));
        headers
    }

    fn quoted(&self, etag: &str) -> String {
        if self.faults.bare_etag { etag.to_owned() } else { format!("\"{etag}\"") }
    }

    fn crc64(&self, crc64: u64) -> Option<(&'static str, String)> {
        let crc64 = if self.faults.wrong_crc64 { !crc64 } else { crc64 };
        (!self.faults.no_crc64).then(|| (CRC64, crc64.to_string()))
    }

    fn answer(&self, outcome: Outcome) -> Response {
        let with_id = !self.faults.no_request_id;
        match outcome {
            Outcome::Empty(status, headers) => respond(status, headers, Body::empty(), with_id),
            Outcome::Content(pieces, headers) => {
                let pieces = pieces.into_iter().map(Ok::<Bytes, std::convert::Infallible>);
                respond(200, headers, Body::from_stream(futures_util::stream::iter(pieces)), with_id)
            }
            Outcome::Document(document) => {
                let headers = vec![("content-type", "application/xml".to_owned())];
                respond(200, headers, format!("{}{document}", xml::DECLARATION).into(), with_id)
            }
            Outcome::Completed(completed) => self.completed(completed, with_id),
        }
    }

    /// The answer to `CompleteMultipartUpload`: 200 at once, spaces meanwhile, then the result.
    fn completed(&self, completed: Result<Completed, CosError>, with_id: bool) -> Response {
        let mut headers = vec![("content-type", "application/xml".to_owned())];
        let document = match &completed {
            Ok(completed) => {
                headers.extend(self.crc64(completed.crc64));
                let place = &completed.place;
                let mut content = String::new();
                let host = format!("{}.cos.myqcloud.com", place.bucket);
                xml::element(
                    &mut content,
                    "Location",
                    &format!("http://{host}/{}", xml::listed(&place.key, true)),
                );
                xml::element(&mut content, "Bucket", &place.bucket);
                xml::element(&mut content, "Key", &place.key);
                xml::element(&mut content, "ETag", &self.quoted(&completed.etag));
                xml::document("CompleteMultipartUploadResult", &content)
            }
            Err(error) => {
                self.cloud.lock().count_error(&error.code);
                xml::error(error, &self.target.path, &id(), &id())
            }
        };
        let spaces = self.faults.spaces_ms;
        let declares = spaces == 0 || self.cloud.lock().settings.uploads.declaration_after_spaces.accepts();
        let document = if declares { format!("{}{document}", xml::DECLARATION) } else { document };
        respond(200, headers, spaced(document, spaces), with_id)
    }
}

/// A body that begins with spaces, ten a second, for this time.
fn spaced(document: String, ms: u64) -> Body {
    const STEP: u64 = 100;
    let document = Bytes::from(document);
    let pieces = futures_util::stream::unfold((ms, Some(document)), |(left, document)| async move {
        if left > 0 {
            tokio::time::sleep(Duration::from_millis(left.min(STEP))).await;
            return Some((Bytes::from_static(b" "), (left.saturating_sub(STEP), document)));
        }
        document.map(|document| (document, (0, None)))
    });
    // A stream has no length, so the answer is chunked, as in the cloud.
    Body::from_stream(futures_util::StreamExt::map(pieces, Ok::<Bytes, std::convert::Infallible>))
}

/// A request id.
fn id() -> String {
    STANDARD.encode(fastrand::u128(..).to_be_bytes())
}

fn respond(status: u16, headers: Vec<(&'static str, String)>, body: Body, with_id: bool) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let ids = with_id.then(|| ("x-cos-request-id", id()));
    for (name, value) in headers.into_iter().chain(ids) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn error_response(error: &CosError, path: &str, head: bool, with_id: bool) -> Response {
    let (request_id, trace_id) = (id(), id());
    let document = xml::error(error, path, &request_id, &trace_id);
    let body = if head { Body::empty() } else { format!("{}{document}", xml::DECLARATION).into() };
    let mut headers = vec![("content-type", "application/xml".to_owned()), ("x-cos-trace-id", trace_id)];
    if with_id {
        headers.push(("x-cos-request-id", request_id));
    }
    respond(error.status(), headers, body, false)
}
