//! `/_emulator/…`: faults, settings, events and figures, for clients on this machine.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::conn::Peer;
use super::faults::Fault;
use super::http::{MAX_BODY_BYTES, read_in_time};
use super::queue::EventNo;
use super::state::{Cloud, SettingsPatch, SettingsShown, now_ms};

/// The routes below `/_emulator`.
pub(super) fn routes() -> Router<Arc<Cloud>> {
    Router::new()
        .route("/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/ledger", get(ledger))
        .route("/stats", get(stats))
        .route("/events", post(put_events))
        .route("/config", get(settings).post(change_settings))
        .route("/uploads", get(uploads))
        .layer(axum::middleware::from_fn(in_time))
        .layer(axum::middleware::from_fn(only_loopback))
}

/// A client here can read every event and break every request, so only this machine may connect.
async fn only_loopback(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    if peer.addr.ip().to_canonical().is_loopback() {
        return next.run(request).await;
    }
    refuse(StatusCode::FORBIDDEN, "the control endpoints answer to loopback addresses only")
}

/// Limits the time of a body. The listener has no such limit, because uploads can be slow.
async fn in_time(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match read_in_time(body, MAX_BODY_BYTES).await {
        Some(body) => next.run(Request::from_parts(parts, body.into())).await,
        None => refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or did not come in time"),
    }
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Response {
    #[derive(Serialize)]
    struct Refusal {
        error: String,
    }
    (status, Json(Refusal { error: message.into() })).into_response()
}

fn body_error(rejection: &JsonRejection) -> Response {
    refuse(rejection.status(), rejection.body_text())
}

async fn faults(State(cloud): State<Arc<Cloud>>) -> Json<Vec<Fault>> {
    Json(cloud.lock().faults.active())
}

async fn add_faults(
    State(cloud): State<Arc<Cloud>>,
    body: Result<Json<Box<RawValue>>, JsonRejection>,
) -> Result<Json<Vec<Fault>>, Response> {
    let Json(raw) = body.map_err(|rejection| body_error(&rejection))?;
    // One or a list. They are distinguished here, because an untagged enum would only report that neither
    // fits.
    let text = raw.get();
    let read = if text.starts_with('[') {
        serde_json::from_str(text)
    } else {
        serde_json::from_str(text).map(|one| vec![one])
    };
    let new: Vec<Fault> =
        read.map_err(|error| refuse(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let mut state = cloud.lock();
    for fault in new {
        state.faults.add(fault);
    }
    Ok(Json(state.faults.active()))
}

async fn clear_faults(State(cloud): State<Arc<Cloud>>) -> StatusCode {
    cloud.clear_faults();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfApp {
    sub_app_id: Option<u64>,
}

async fn ledger(State(cloud): State<Arc<Cloud>>, Query(of): Query<OfApp>) -> Response {
    let ledger = cloud.lock().ledger(of.sub_app_id);
    Json(ledger).into_response()
}

async fn stats(State(cloud): State<Arc<Cloud>>) -> Response {
    let stats = cloud.lock().stats();
    Json(stats).into_response()
}

async fn uploads(State(cloud): State<Arc<Cloud>>) -> Response {
    let report = cloud.lock().uploads();
    Json(report).into_response()
}

async fn settings(State(cloud): State<Arc<Cloud>>) -> Response {
    let state = cloud.lock();
    Json(SettingsShown::from(&state.settings)).into_response()
}

async fn change_settings(
    State(cloud): State<Arc<Cloud>>,
    body: Result<Json<SettingsPatch>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(patch) = body.map_err(|rejection| body_error(&rejection))?;
    let mut state = cloud.lock();
    let mut settings = state.settings.clone();
    patch
        .apply(&mut settings)
        .map_err(|error| refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("uploads: {error}")))?;
    state.set_settings(settings);
    Ok(Json(SettingsShown::from(&state.settings)).into_response())
}

/// What `trigger` sends.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewEvents {
    /// Into whose queue.
    #[serde(default)]
    pub sub_app_id: u64,
    /// Each without a handle, kept byte for byte.
    pub events: Vec<Box<RawValue>>,
}

/// The result.
#[derive(Debug, Deserialize, Serialize)]
pub struct Accepted {
    /// The numbers of the events in their queue, in the order of the request.
    pub numbers: Vec<u64>,
}

async fn put_events(
    State(cloud): State<Arc<Cloud>>,
    body: Result<Json<NewEvents>, JsonRejection>,
) -> Result<Json<Accepted>, Response> {
    let Json(new) = body.map_err(|rejection| body_error(&rejection))?;
    if let Some(at) = new.events.iter().position(|event| !event.get().starts_with('{')) {
        return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("events[{at}] is not an object")));
    }
    let now = now_ms();
    let mut state = cloud.lock();
    if !state.knows_app(new.sub_app_id) {
        let message = format!("this emulator has no sub-application {}", new.sub_app_id);
        return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let put = |event: Box<RawValue>| {
        let EventNo(number) = state.put(now, new.sub_app_id, Box::<str>::from(event));
        number
    };
    let numbers = new.events.into_iter().map(put).collect();
    cloud.changed.notify_waiters();
    Ok(Json(Accepted { numbers }))
}

/// For paths that are neither the API's nor ours.
pub(super) async fn not_found() -> Response {
    let page = "<html><body><h1>404 Not Found</h1>the API is at /, the controls are below /_emulator/</body></html>\n";
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/html")], page).into_response()
}
