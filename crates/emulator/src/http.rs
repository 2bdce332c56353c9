//! The API over HTTP: a request, an answer, and the active faults. And the requests of the web SDK.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use super::action::{Action, Service};
use super::api::{ApiError, Params, VERSION};
use super::conn::{Cut, Peer};
use super::faults::{AnswerFaults, Arrival, Early};
use super::state::{Cloud, now_ms, wall_ms};
use super::uploads::actions;
use super::uploads::parameters::MediaParameters;
use super::{auth, auth_v1, calls, uploads};

/// The largest body of a signed POST (the cloud's common documents).
pub(super) const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// Serves one request of the API.
pub(super) async fn api(
    State(cloud): State<Arc<Cloud>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Some(body) = read_in_time(body, MAX_BODY_BYTES).await else {
        let error =
            ApiError::new("RequestSizeLimitExceeded", "the body is larger than 10 MB, or was cut off");
        return fail(&cloud, error).response(0);
    };
    let request = ApiRequest::read(&parts, &body);
    let known = request.action().and_then(|name| Action::from_name(Service::Api, name));
    let (arrival, latency_ms) = {
        let mut guard = cloud.lock();
        let state = &mut *guard;
        state.count_call(known);
        let arrival = known.map(|action| state.faults.arrival(action, &mut state.rng)).unwrap_or_default();
        (arrival, state.settings.latency_ms)
    };
    let _pull = (known == Some(Action::PullEvents)).then(|| PullUnderWay::begin(&cloud));
    cloud.changed.notify_waiters();
    wait_ms(arrival.delay_ms.saturating_add(latency_ms)).await;

    let skew_ms = arrival.skew_ms;
    let answer = match early(&cloud, &arrival) {
        Some(End::Cut(how)) => return cut(&peer, how),
        Some(End::Response(response)) => return response,
        Some(End::Answer(answer)) => Ok(answer),
        None => take_effect(&cloud, &request, known, skew_ms).await,
    };
    let answer = answer.unwrap_or_else(|error| fail(&cloud, error));
    cloud.changed.notify_waiters();
    wait_ms(answer.faults.delay_ms).await;
    if answer.faults.lost {
        return cut(&peer, Cut::Close);
    }
    answer.response(skew_ms)
}

/// Counts a pull while it is in progress, also when its client disconnects.
struct PullUnderWay(Arc<Cloud>);

impl PullUnderWay {
    fn begin(cloud: &Arc<Cloud>) -> Self {
        cloud.lock().begin_pull();
        Self(cloud.clone())
    }
}

impl Drop for PullUnderWay {
    fn drop(&mut self) {
        self.0.lock().pulls_now -= 1;
        self.0.changed.notify_waiters();
    }
}

/// The content of the envelope.
pub(super) struct HttpAnswer {
    /// Members of `Response`, each with a comma after it.
    pub(super) members: Vec<u8>,
    pub(super) idle: bool,
    pub(super) faults: AnswerFaults,
}

impl HttpAnswer {
    pub(super) fn new(members: impl Into<Vec<u8>>) -> Self {
        Self { members: members.into(), idle: false, faults: AnswerFaults::default() }
    }

    /// The members of an object.
    fn of_value(value: &serde_json::Value) -> Self {
        let text = value.to_string();
        let inner = text.trim_start_matches('{').strip_suffix('}').unwrap_or_default();
        Self::new(if inner.is_empty() { String::new() } else { format!("{inner},") })
    }

    fn response(self, skew_ms: i64) -> Response {
        let mut body = Vec::with_capacity(self.members.len() + 80);
        body.extend_from_slice(b"{\"Response\":{");
        body.extend_from_slice(&self.members);
        body.extend_from_slice(b"\"RequestId\":\"");
        body.extend_from_slice(request_id().as_bytes());
        body.extend_from_slice(b"\"}}");
        let length = body.len();
        let body = if self.faults.truncated { half_of(body) } else { Body::from(body) };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        // With a charset the Python SDK takes an error for an empty success.
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if skew_ms != 0
            && let Ok(date) = HeaderValue::from_str(&http_date(wall_ms().saturating_add(skew_ms)))
        {
            headers.insert(header::DATE, date);
        }
        response
    }
}

/// The first half of a body, and then the end of the connection.
pub(super) fn half_of(mut body: Vec<u8>) -> Body {
    body.truncate(body.len() / 2);
    let parts = futures_util::stream::unfold(Some(body), |half| async move {
        match half {
            Some(half) => Some((Ok(half), None)),
            None => {
                // The written part must be sent before the connection breaks.
                wait_ms(20).await;
                Some((Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)), None))
            }
        }
    });
    Body::from_stream(parts)
}

pub(super) fn fail(cloud: &Cloud, error: ApiError) -> HttpAnswer {
    cloud.lock().count_error(&error.code);
    HttpAnswer::new(format!("\"Error\":{},", error.to_json()))
}

/// How a request ends before it is processed.
enum End {
    Cut(Cut),
    Response(Response),
    Answer(HttpAnswer),
}

fn early(cloud: &Cloud, arrival: &Arrival) -> Option<End> {
    Some(match arrival.early.as_ref()? {
        Early::Reset => End::Cut(Cut::Reset),
        Early::Html(status) => End::Response(html(*status)),
        Early::Rubbish => {
            let mut response = Response::new(Body::from("{\"Response\":{\"EventSet\":[{\"EventHandle\":"));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            End::Response(response)
        }
        Early::Error(code) => {
            End::Answer(fail(cloud, ApiError::new(code.clone(), "a fault that was asked for")))
        }
        Early::Idle(shape) => End::Answer(calls::idle(cloud, *shape)),
    })
}

pub(super) fn html(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let text = status.canonical_reason().unwrap_or("Error");
    let page = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body><h1>{text}</h1></body>\r\n</html>\r\n"
    );
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

pub(super) fn cut(peer: &Peer, how: Cut) -> Response {
    peer.cut(how);
    // Never seen: writing it ends the connection.
    Response::new(Body::empty())
}

/// A request before its checks.
struct ApiRequest<'a> {
    parts: &'a axum::http::request::Parts,
    body: &'a [u8],
    /// The decoded parameters of a query, or of a form under signature v1.
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Whether it is signed by signature v1.
    v1: bool,
}

impl<'a> ApiRequest<'a> {
    fn read(parts: &'a axum::http::request::Parts, body: &'a [u8]) -> Self {
        let named = parts.headers.contains_key("x-tc-action");
        let form = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let form = form.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        let encoded = match (&parts.method, named) {
            (&Method::GET, _) => parts.uri.query().unwrap_or_default().as_bytes(),
            (_, false) if form => body,
            _ => b"",
        };
        let pairs: Vec<_> = url::form_urlencoded::parse(encoded).collect();
        let v1 = !named && pairs.iter().any(|(name, _)| name == "Action" || name == "Signature");
        Self { parts, body, pairs, v1 }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn common(&self, header: &str, parameter: &str) -> Option<&str> {
        match self.v1 {
            true => self.pairs.iter().find(|(name, _)| name == parameter).map(|(_, value)| value.as_ref()),
            false => self.header(header),
        }
    }

    fn action(&self) -> Option<&str> {
        self.common("x-tc-action", "Action")
    }

    /// The checks before a request takes effect, in the order of the platform: the action, the version, the
    /// signature, the rate limit.
    fn check(&self, cloud: &Cloud, known: Option<Action>, skew_ms: i64) -> Result<Action, ApiError> {
        let (what, at) = if self.v1 { ("parameter", "") } else { ("header", "X-TC-") };
        let Some(name) = self.action() else {
            return Err(ApiError::new("MissingParameter", format!("the {what} {at}Action is missing")));
        };
        let Some(action) = known else {
            let message = format!("{name} is not an action of this emulator: it knows of events and uploads");
            return Err(ApiError::new("InvalidAction", message));
        };
        match self.common("x-tc-version", "Version") {
            None => {
                return Err(ApiError::new("MissingParameter", format!("the {what} {at}Version is missing")));
            }
            Some(VERSION) => {}
            Some(_) => {
                return Err(ApiError::new(
                    "NoSuchVersion",
                    format!("{name} exists in version {VERSION} only"),
                ));
            }
        }
        let method = &self.parts.method;
        if method != Method::GET && method != Method::POST {
            return Err(ApiError::new("UnsupportedProtocol", "the method is neither POST nor GET"));
        }
        let credentials = cloud.lock().credentials.clone();
        let now = wall_ms().saturating_add(skew_ms).div_euclid(1_000);
        if self.v1 {
            let pairs: Vec<(&str, &str)> = self.pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
            auth_v1::check(
                method.as_str(),
                self.header("host").unwrap_or_default(),
                &pairs,
                &credentials,
                now,
            )?;
        } else {
            let query = if method == Method::GET { self.parts.uri.query().unwrap_or_default() } else { "" };
            let (headers, body) = (&self.parts.headers, self.body);
            auth::check(&auth::Signed { method: method.as_str(), query, headers, body }, &credentials, now)?;
        }
        if !cloud.lock().within_limit(now_ms(), action) {
            let message = format!("more requests of {name} a second than this account may make");
            return Err(ApiError::new("RequestLimitExceeded", message));
        }
        Ok(action)
    }

    /// The pairs without the common parameters of signature v1.
    fn own_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let common = |name: &str| self.v1 && auth_v1::COMMON.contains(&name);
        self.pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).filter(move |(name, _)| !common(name))
    }

    fn in_pairs(&self) -> bool {
        self.v1 || self.parts.method == Method::GET
    }

    /// The parameters of a request about events.
    fn params(&self, action: Action) -> Result<Params, ApiError> {
        if !self.in_pairs() {
            return Params::from_body(action, self.body);
        }
        Params::from_pairs(action, self.own_pairs().map(|(name, value)| (name.into(), value.into())))
    }

    /// The parameters of a request about media.
    fn parameters(&self) -> Result<MediaParameters, ApiError> {
        if !self.in_pairs() {
            return MediaParameters::from_json(self.body);
        }
        MediaParameters::from_pairs(self.own_pairs())
    }
}

/// Carries out a request.
async fn take_effect(
    cloud: &Arc<Cloud>,
    request: &ApiRequest<'_>,
    known: Option<Action>,
    skew_ms: i64,
) -> Result<HttpAnswer, ApiError> {
    let action = request.check(cloud, known, skew_ms)?;
    let answer = if action.is_about_media() {
        let parameters = request.parameters()?;
        HttpAnswer::of_value(&actions::act(cloud, action, &parameters)?)
    } else {
        let params = request.params(action)?;
        if !cloud.lock().knows_app(params.sub_app_id) {
            let message = format!("there is no sub-application {}", params.sub_app_id);
            return Err(ApiError::new("InvalidParameterValue.SubAppId", message));
        }
        calls::act(cloud, action, params).await?
    };
    // A lost idle answer loses nothing, so the fault waits for an answer that matters.
    if answer.idle || answer.faults.lost {
        return Ok(answer);
    }
    let mut guard = cloud.lock();
    let state = &mut *guard;
    let faults = state.faults.answer(action, &mut state.rng);
    Ok(HttpAnswer { faults, ..answer })
}

/// Serves one request of the web SDK.
pub(super) async fn ugc(
    State(cloud): State<Arc<Cloud>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Some(body) = read_in_time(body, MAX_BODY_BYTES).await else { return html(413) };
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let name = query.into_iter().find(|(name, _)| name == "Action").map(|(_, value)| value);
    let Some(action) = name.and_then(|name| Action::from_name(Service::Ugc, &name)) else { return html(404) };
    let (arrival, latency_ms) = {
        let mut guard = cloud.lock();
        let state = &mut *guard;
        state.count_call(Some(action));
        (state.faults.arrival(action, &mut state.rng), state.settings.latency_ms)
    };
    wait_ms(arrival.delay_ms.saturating_add(latency_ms)).await;
    let done = match &arrival.early {
        Some(Early::Reset) => return cut(&peer, Cut::Reset),
        Some(Early::Html(status)) => return html(*status),
        Some(Early::Rubbish) => return json_response(b"{\"code\":".to_vec()),
        Some(Early::Error(code)) => Err((500, code.clone())),
        Some(Early::Idle(_)) | None => {
            uploads::ugc::act(&cloud, action, &body).map_err(|error| (error.code, error.message))
        }
    };
    cloud.changed.notify_waiters();
    let body = match done {
        Ok(data) => serde_json::json!({ "code": 0, "message": "success", "data": data }),
        Err((code, message)) => {
            cloud.lock().count_error(&format!("ugc {code}"));
            serde_json::json!({ "code": code, "message": message, "data": {} })
        }
    };
    let faults = {
        let mut guard = cloud.lock();
        let state = &mut *guard;
        state.faults.answer(action, &mut state.rng)
    };
    wait_ms(faults.delay_ms).await;
    if faults.lost {
        return cut(&peer, Cut::Close);
    }
    json_response(body.to_string().into_bytes())
}

fn json_response(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The body, if it arrives in time and is not too large.
pub(super) async fn read_in_time(body: Body, most: usize) -> Option<Bytes> {
    const LIMIT: Duration = Duration::from_secs(30);
    tokio::time::timeout(LIMIT, axum::body::to_bytes(body, most)).await.ok()?.ok()
}

pub(super) async fn wait_ms(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// A random UUID, as every answer of the platform carries one.
fn request_id() -> String {
    let bits = fastrand::u128(..);
    let (a, b, c) = ((bits >> 96) as u32, (bits >> 80) as u16, (bits >> 64) as u16 & 0x0fff);
    let (d, e) = ((bits >> 48) as u16 & 0x3fff | 0x8000, bits as u64 & 0xffff_ffff_ffff);
    format!("{a:08x}-{b:04x}-4{c:03x}-{d:04x}-{e:012x}")
}

/// The form of dates in HTTP headers (RFC 9110, 5.6.7).
pub(super) fn http_date(epoch_ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(epoch_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_form_of_http() {
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn request_ids_are_random_uuids() {
        let id = request_id();
        assert_eq!(id.len(), 36);
        assert_eq!((&id[14..15], id.matches('-').count()), ("4", 4));
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
        assert_ne!(id, request_id());
    }
}
