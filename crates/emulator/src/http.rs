//! The API over HTTP: a request, an answer, and the active faults.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use super::api::{Action, ApiError, Params, VERSION};
use super::auth;
use super::conn::{Cut, Peer};
use super::faults::{AnswerFaults, Arrival, Early, IdleShape};
use super::queue::{Delivered, MAX_BATCH};
use super::state::{Cloud, now_ms, sleep_until_ms};

/// The largest body of a signed POST (the cloud's common documents).
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// Serves one request of the API.
pub(super) async fn api(
    State(cloud): State<Arc<Cloud>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        let error =
            ApiError::new("RequestSizeLimitExceeded", "the body is larger than 10 MB, or was cut off");
        return fail(&cloud, error).response(0);
    };
    let action = parts.headers.get("x-tc-action").and_then(|value| value.to_str().ok());
    let known = action.and_then(Action::from_name);
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
        None => match prepare(&cloud, &parts, &body, action, known, skew_ms) {
            Ok((action, params)) => act(&cloud, action, params).await,
            Err(error) => Err(error),
        },
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
struct HttpAnswer {
    /// Members of `Response`, each with a comma after it.
    members: Vec<u8>,
    idle: bool,
    faults: AnswerFaults,
}

impl HttpAnswer {
    fn new(members: impl Into<Vec<u8>>) -> Self {
        Self { members: members.into(), idle: false, faults: AnswerFaults::default() }
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
fn half_of(mut body: Vec<u8>) -> Body {
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

fn fail(cloud: &Cloud, error: ApiError) -> HttpAnswer {
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
        Early::Idle(shape) => End::Answer(idle(cloud, *shape)),
    })
}

fn html(status: u16) -> Response {
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

fn cut(peer: &Peer, how: Cut) -> Response {
    peer.cut(how);
    // Never seen: writing it ends the connection.
    Response::new(Body::empty())
}

/// All checks before a request has an effect, in the platform's order: the action, the version, the
/// signature, the limit, the parameters.
fn prepare(
    cloud: &Cloud,
    parts: &axum::http::request::Parts,
    body: &[u8],
    action: Option<&str>,
    known: Option<Action>,
    skew_ms: i64,
) -> Result<(Action, Params), ApiError> {
    let Some(name) = action else {
        return Err(ApiError::new("MissingParameter", "the header X-TC-Action is missing"));
    };
    let Some(action) = known else {
        let message =
            format!("{name} is not an action of this emulator: it knows of events, and of nothing else");
        return Err(ApiError::new("InvalidAction", message));
    };
    match parts.headers.get("x-tc-version").map(HeaderValue::as_bytes) {
        None => return Err(ApiError::new("MissingParameter", "the header X-TC-Version is missing")),
        Some(version) if version == VERSION.as_bytes() => {}
        Some(_) => {
            return Err(ApiError::new("NoSuchVersion", format!("{name} exists in version {VERSION} only")));
        }
    }
    let get = parts.method == Method::GET;
    if !get && parts.method != Method::POST {
        return Err(ApiError::new("UnsupportedProtocol", "the method is neither POST nor GET"));
    }
    let query = if get { parts.uri.query().unwrap_or_default() } else { "" };
    let credentials = cloud.lock().credentials.clone();
    let signed = auth::Signed { method: parts.method.as_str(), query, headers: &parts.headers, body };
    auth::check(&signed, &credentials, wall_ms().saturating_add(skew_ms).div_euclid(1_000))?;
    if !cloud.lock().within_limit(now_ms(), action) {
        let message = format!("more requests of {name} a second than this account may send");
        return Err(ApiError::new("RequestLimitExceeded", message));
    }
    let params = if get { Params::from_query(action, query) } else { Params::from_body(action, body) }?;
    if !cloud.lock().knows_app(params.sub_app_id) {
        let message = format!("there is no sub-application {}", params.sub_app_id);
        return Err(ApiError::new("InvalidParameterValue.SubAppId", message));
    }
    Ok((action, params))
}

/// Executes a request, and returns the faults of its answer.
async fn act(cloud: &Cloud, action: Action, params: Params) -> Result<HttpAnswer, ApiError> {
    let answer = match action {
        Action::PullEvents => pull(cloud, params.sub_app_id).await,
        other => describe_or_change(cloud, other, params)?,
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

fn describe_or_change(cloud: &Cloud, action: Action, params: Params) -> Result<HttpAnswer, ApiError> {
    match action {
        Action::PullEvents => Ok(HttpAnswer::new("")),
        Action::ConfirmEvents => confirm(cloud, &params),
        Action::DescribeEventsState => {
            let mut state = cloud.lock();
            let queue = &mut state.app(params.sub_app_id).queue;
            queue.advance(now_ms());
            Ok(HttpAnswer::new(format!("\"CountOfEventsToPull\":{},", queue.counts().visible)))
        }
        Action::DescribeEventConfig => {
            let mut state = cloud.lock();
            let config = &state.app(params.sub_app_id).config;
            Ok(HttpAnswer::new(format!(
                "\"Mode\":\"{}\",\"NotificationUrl\":{},\"UploadMediaCompleteEventSwitch\":\"{}\",\
                 \"DeleteMediaCompleteEventSwitch\":\"{}\",\"PersistenceCompleteEventSwitch\":\"{}\",",
                config.mode,
                serde_json::Value::from(config.notification_url.as_str()),
                config.upload_switch,
                config.delete_switch,
                config.persistence_switch,
            )))
        }
        Action::ModifyEventConfig => {
            let mut state = cloud.lock();
            let app = state.app(params.sub_app_id);
            // A held pull may find events under the new mode.
            app.wake.notify_waiters();
            let config = &mut app.config;
            let changes = [
                (&mut config.mode, params.mode),
                (&mut config.notification_url, params.notification_url),
                (&mut config.upload_switch, params.upload),
                (&mut config.delete_switch, params.delete),
                (&mut config.persistence_switch, params.persistence),
            ];
            for (value, new) in changes {
                if let Some(new) = new {
                    *value = new;
                }
            }
            Ok(HttpAnswer::new(""))
        }
    }
}

/// Takes events, or waits until there are some. A client that disconnects meanwhile takes nothing: this
/// future is dropped at one of its waits, and there is none between taking and answering.
async fn pull(cloud: &Cloud, sub_app_id: u64) -> HttpAnswer {
    let (wake, deadline_ms) = {
        let mut state = cloud.lock();
        let deadline_ms = now_ms().saturating_add(state.settings.hold_ms);
        (state.app(sub_app_id).wake.clone(), deadline_ms)
    };
    loop {
        let woken = wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let next_visible_at = {
            let mut state = cloud.lock();
            let taken = take(&mut state, sub_app_id);
            if !taken.is_empty() {
                return HttpAnswer::new(event_set(&taken));
            }
            state.app(sub_app_id).queue.next_visible_at()
        };
        if now_ms() >= deadline_ms {
            let shape = cloud.lock().settings.idle;
            return idle(cloud, shape);
        }
        let until = next_visible_at.map_or(deadline_ms, |next| next.min(deadline_ms));
        tokio::select! {
            () = woken => {}
            () = sleep_until_ms(Some(until)) => {}
        }
    }
}

fn take(state: &mut super::State, sub_app_id: u64) -> Vec<Delivered> {
    let now = now_ms();
    let app = state.app(sub_app_id);
    app.queue.advance(now);
    if app.config.mode == "PUSH" || app.queue.counts().visible == 0 {
        return Vec::new();
    }
    let faults = state.faults.delivery(&mut state.rng);
    let app = state.app(sub_app_id);
    let taken = app.queue.pull(now, MAX_BATCH, faults.style);
    if let Some(under) = faults.redelivered {
        for delivered in &taken {
            app.queue.force_redeliver(delivered.number, under);
        }
        app.wake.notify_waiters();
    }
    taken
}

fn event_set(taken: &[Delivered]) -> Vec<u8> {
    let bytes: usize = taken.iter().map(|d| d.body.len() + 64).sum();
    let mut members = Vec::with_capacity(bytes + 128);
    members.extend_from_slice(b"\"EventSet\":[");
    for (at, delivered) in taken.iter().enumerate() {
        if at > 0 {
            members.push(b',');
        }
        delivered.write_to(&mut members);
    }
    members.extend_from_slice(b"],");
    members
}

fn idle(cloud: &Cloud, shape: IdleShape) -> HttpAnswer {
    cloud.lock().idle += 1;
    let answer = match shape {
        IdleShape::Error => fail(cloud, ApiError::new("ResourceNotFound", "no event")),
        IdleShape::Null => HttpAnswer::new("\"EventSet\":null,"),
        IdleShape::Empty => HttpAnswer::new("\"EventSet\":[],"),
        IdleShape::Absent => HttpAnswer::new(""),
    };
    HttpAnswer { idle: true, ..answer }
}

fn confirm(cloud: &Cloud, params: &Params) -> Result<HttpAnswer, ApiError> {
    let handles = params.event_handles.as_deref().unwrap_or_default();
    let mut guard = cloud.lock();
    let state = &mut *guard;
    let apps = &state.apps;
    let is_first = || {
        let app = apps.get(&params.sub_app_id);
        app.is_some_and(|app| handles.iter().any(|handle| app.queue.is_first(handle)))
    };
    if state.faults.loses_confirm(is_first, &mut state.rng) {
        let faults = AnswerFaults { lost: true, ..AnswerFaults::default() };
        return Ok(HttpAnswer { faults, ..HttpAnswer::new("") });
    }
    let bad = state.faults.bad_handles(handles, &mut state.rng);
    let queue = &mut state.app(params.sub_app_id).queue;
    for handle in bad {
        queue.poison(&handle);
    }
    let result = queue.confirm(now_ms(), handles);
    match result.first_bad() {
        None => Ok(HttpAnswer::new("")),
        Some((at, verdict)) => {
            let message = format!("EventHandles.{at} cannot be confirmed: {}", verdict.reason());
            Err(ApiError::new("InvalidParameterValue", message))
        }
    }
}

async fn wait_ms(ms: u64) {
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
fn http_date(epoch_ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(epoch_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Milliseconds since the Unix epoch.
fn wall_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
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
