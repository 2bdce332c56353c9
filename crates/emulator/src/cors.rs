//! Cross-origin headers. The web SDK uploads from pages of other origins.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

/// The headers that a page can read.
const EXPOSED: &str = "ETag, Date, x-cos-request-id, x-cos-trace-id, x-cos-hash-crc64ecma, Content-Length";

/// The answer to a preflight request.
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

/// Lets every page read an answer. Requests are authorized by signatures and never by cookies.
pub(super) fn allow(answer: &mut Response) {
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}
