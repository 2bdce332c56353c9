//! `/metrics`, `/livez` and `/readyz`. Nothing here changes anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_serve::{self, Limits};

use super::health::HealthVerdict;
use super::metrics::Metrics;

/// Enough for some scrapers and probes. Further connections cost no more than these.
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
    source: io::Error,
}

/// The owner of the address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nobody.
    No,
    /// A vodrelay, by its answer to `/livez`.
    ByRelay,
}

/// Whether [`spawn`] can have this address, for `vodrelay check`. It is bound for a moment and does not
/// listen, so a relay that starts at the same moment still gets it.
///
/// # Errors
///
/// [`ListenError`], as [`spawn`] would return it, unless a relay listens there.
pub async fn probe(address: SocketAddr) -> Result<Taken, ListenError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As a listener of tokio is bound: closed connections on this port do not prevent it.
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    match bind() {
        Ok(()) => Ok(Taken::No),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_relay(address).await => {
            Ok(Taken::ByRelay)
        }
        Err(source) => Err(ListenError { address, source }),
    }
}

/// Whether the listener there answers as [`livez`] does.
async fn is_relay(address: SocketAddr) -> bool {
    const ANSWER_LIMIT: Duration = Duration::from_secs(2);
    const ANSWER_MAX_BYTES: u64 = 4096;
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).contains("\"stuck_loops\""))
    };
    matches!(timeout(ANSWER_LIMIT, asked).await, Ok(Ok(true)))
}

#[derive(Clone)]
struct Pages {
    metrics: Metrics,
    verdict: watch::Receiver<Arc<HealthVerdict>>,
}

/// Serves until `stop` is cancelled. Returns the address too: the system chooses one for port 0.
///
/// # Errors
///
/// [`ListenError`].
pub async fn spawn(
    address: SocketAddr,
    metrics: Metrics,
    verdict: watch::Receiver<Arc<HealthVerdict>>,
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
        vodrelay_serve::serve(listener, pages, LIMITS, stop, |error| {
            tracing::warn!(error_code = %ErrorCode::ListenerFailed, %error, "no connection can be taken at http.listen now");
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
