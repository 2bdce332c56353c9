//! What a browser wants to hear before, and with, an answer from another origin. The web SDK uploads from a page that is
//! somebody else's.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

/// What a page may read of an answer.
const EXPOSED: &str = "ETag, Date, x-cos-request-id, x-cos-trace-id, x-cos-hash-crc64ecma, Content-Length";

/// The answer to a browser that asks before it sends.
pub(super) fn preflight(asked: &HeaderMap) -> Response {
    let mut answer = Response::default();
    let headers = answer.headers_mut();
    let methods = HeaderValue::from_static("GET, PUT, POST, DELETE, HEAD, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        wanted.unwrap_or(HeaderValue::from_static("authorization, content-type")),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    allow(&mut answer);
    answer
}

/// Lets any page read an answer. What is answered is for whoever has a signature; there are no cookies.
pub(super) fn allow(answer: &mut Response) {
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}
