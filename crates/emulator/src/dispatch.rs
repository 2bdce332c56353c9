//! The choice of the service for a request: the object storage by host or content, the others by path.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::conn::Peer;
use super::state::Cloud;
use super::{cors, cos};

/// The path of the web SDK's statistics.
const REPORTS: &str = "/ugcupload_new";

/// Sends a request to the object storage, or on to the routes.
pub(super) async fn dispatch(
    State(cloud): State<Arc<Cloud>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let control = request.uri().path().starts_with("/_emulator");
    let from_a_page = headers.contains_key(header::ORIGIN);
    let for_storage = cos::is_for_storage(request.method(), request.uri(), headers);
    if control && !for_storage {
        // The controls get no cross-origin headers: a browser on this machine could otherwise reach them for any page.
        return next.run(request).await;
    }
    let asks_before =
        request.method() == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if asks_before {
        return cors::preflight(headers);
    }
    let mut answer = if request.uri().path() == REPORTS {
        ().into_response()
    } else if for_storage {
        cos::http::serve(cloud, peer, request).await
    } else {
        next.run(request).await
    };
    if from_a_page {
        cors::allow(&mut answer);
    }
    answer
}
