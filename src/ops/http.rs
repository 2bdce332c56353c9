//! `/metrics`, `/livez` and `/readyz`. Nothing here changes anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::health::Verdict;
use super::metrics::Metrics;
use crate::reason::Reason;
use crate::serve::{self, Limits};

/// Enough for some scrapers and probes. What others open beside them costs no more than these.
const LIMITS: Limits = Limits {
    connections: 32,
    head: Duration::from_secs(10),
    body: Duration::from_secs(5),
    life: Duration::from_secs(300),
};

/// The listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} (http.listen): {source}; free the port, choose another, or set http.listen = \"\""
)]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

#[derive(Clone)]
struct Pages {
    metrics: Metrics,
    verdict: watch::Receiver<Arc<Verdict>>,
}

/// Serves until `stop` is cancelled. Returns the address too: a port of 0 is one that the system chooses.
///
/// # Errors
///
/// [`ListenError`].
pub async fn spawn(
    address: SocketAddr,
    metrics: Metrics,
    verdict: watch::Receiver<Arc<Verdict>>,
    stop: CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let pages = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Pages { metrics, verdict });
    let task = tokio::spawn(async move {
        serve::serve(listener, pages, LIMITS, stop, |error| {
            tracing::warn!(code = %Reason::ListenerFailed, %error, "no connection can be taken at http.listen now");
        })
        .await;
    });
    Ok((bound, task))
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], pages.metrics.render()).into_response()
}

async fn livez(State(pages): State<Pages>) -> Response {
    let verdict = Arc::clone(&pages.verdict.borrow());
    let status = if verdict.live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "live": verdict.live, "stuck_loops": verdict.stuck_loops })))
        .into_response()
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let verdict = Arc::clone(&pages.verdict.borrow());
    let status = if verdict.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(&*verdict)).into_response()
}
