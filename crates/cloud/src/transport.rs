//! One request over HTTP/1.1 and TLS, and the body of its answer.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderValue;
use reqwest::{StatusCode, redirect, retry};
use url::{Host, Url};
use vodrelay_host::descriptors;

use crate::classify::{Action, FailureKind, RequestError};

/// The default name of this client.
pub(crate) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tencent-vod/", env!("CARGO_PKG_VERSION")));

/// Connections are closed before the cloud closes them: a request on a closing connection fails without a
/// cause.
const POOL_IDLE: Duration = Duration::from_secs(10);

/// The idle connections that are kept: nearly as many as requests can be in flight. Without one, the next
/// request pays for a connection with its handshakes.
const POOL_SIZE: usize = 64;

const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// No answer of this API is near this: 16 events of 1 MB are 16 MiB.
const LARGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// Makes ring the crypto provider of the process, if none is set yet. HTTPS needs one. Calling this again is
/// harmless.
pub fn install_crypto_provider() {
    // It fails when there is one already, which is fine.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The endpoint cannot be used.
    #[error("the endpoint {endpoint} cannot be used: {cause}")]
    Endpoint {
        /// The endpoint.
        endpoint: Url,
        /// The problem, and the right form.
        cause: &'static str,
    },
    /// Another setting cannot be used.
    #[error("{setting} cannot be used: {cause}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// The problem.
        cause: &'static str,
    },
    /// TLS cannot be set up.
    #[error("no HTTPS client: {cause}; install the host's certificate store (package ca-certificates)")]
    Tls {
        /// The TLS library's message.
        cause: String,
    },
}

/// Whether a URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// An endpoint for signed requests: HTTPS, or plain HTTP to this machine. Nothing follows the host, because
/// the signature covers only the path `/`.
pub(crate) fn check_endpoint(endpoint: &Url) -> Result<(), SetupError> {
    let refuse = |cause| Err(SetupError::Endpoint { endpoint: without_password(endpoint), cause });
    match endpoint.scheme() {
        "https" => {}
        "http" if is_loopback(endpoint) => {}
        "http" => return refuse("http:// is for loopback addresses only; write https://"),
        _ => return refuse("write https://HOST"),
    }
    if !endpoint.username().is_empty() || endpoint.password().is_some() {
        return refuse(
            "it must not contain credentials; set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY",
        );
    }
    if endpoint.path() != "/" || endpoint.query().is_some() || endpoint.fragment().is_some() {
        return refuse("nothing may follow the host; write https://HOST");
    }
    Ok(())
}

fn without_password(endpoint: &Url) -> Url {
    let mut shown = endpoint.clone();
    let _kept = shown.set_username("");
    let _kept = shown.set_password(None);
    shown
}

/// The value of `Host`, with the port if it is not the scheme's own, as it is sent and signed.
pub(crate) fn host_header(endpoint: &Url) -> String {
    let host = endpoint.host_str().unwrap_or_default();
    match endpoint.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn builder(connect_timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(connect_timeout)
        .redirect(redirect::Policy::none())
        // A request is sent once for each decision. None is repeated automatically.
        .retry(retry::never().max_retries_per_request(0))
        .referer(false)
        .http1_only()
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE)
        .tcp_keepalive(TCP_KEEPALIVE)
}

/// A client for the endpoint.
pub(crate) fn client(endpoint: &Url, connect_timeout: Duration) -> Result<reqwest::Client, SetupError> {
    let built = if endpoint.scheme() == "https" {
        install_crypto_provider();
        let builder = builder(connect_timeout).https_only(true);
        // A proxy cannot reach this machine's loopback addresses.
        if is_loopback(endpoint) { builder.no_proxy().build() } else { builder.build() }
    } else {
        plain_client(connect_timeout)
    };
    built.map_err(|error| SetupError::Tls { cause: chain(&error) })
}

/// A client for plain HTTP without a proxy. It trusts no certificate, so it does not need the host's.
pub(crate) fn plain_client(connect_timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    install_crypto_provider();
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    builder(connect_timeout).no_proxy().tls_backend_preconfigured(tls).build()
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the answer broke off: {0}")]
    BrokeOff(String),
}

/// Reads a body, up to `limit` bytes.
pub(crate) async fn read_body(answer: &mut reqwest::Response, limit: u64) -> Result<Bytes, BodyError> {
    let announced = answer.content_length().unwrap_or(0);
    if announced > limit {
        return Err(BodyError::TooLarge { limit });
    }
    let mut body = BytesMut::with_capacity(usize::try_from(announced.min(1 << 20)).unwrap_or(0));
    while let Some(chunk) = answer.chunk().await.map_err(|error| BodyError::BrokeOff(chain(&error)))? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(BodyError::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// An answer over HTTP.
pub(crate) struct HttpReply {
    pub(crate) status: StatusCode,
    /// The header `Date`.
    pub(crate) date: Option<String>,
    /// When the headers arrived. A held poll is dated at its end, so the middle of the request would be
    /// seconds off.
    pub(crate) arrived_ms: i64,
    pub(crate) body: Result<Bytes, RequestError>,
}

/// Sends a request and reads the whole answer.
pub(crate) async fn exchange(
    action: Action,
    request: reqwest::RequestBuilder,
) -> Result<HttpReply, RequestError> {
    let mut answer = request.send().await.map_err(|error| send_error(action, &error))?;
    let arrived_ms = vodrelay_host::wall_clock_ms();
    let status = answer.status();
    let date = answer.headers().get(reqwest::header::DATE).and_then(|value| value.to_str().ok());
    let date = date.map(str::to_owned);
    let announced = answer.headers().get(reqwest::header::CONTENT_ENCODING).cloned();
    let body = read_body(&mut answer, LARGEST_ANSWER).await.map_err(|error| {
        let code = match error {
            BodyError::TooLarge { .. } => "too_large",
            BodyError::BrokeOff(_) => "connection_lost",
        };
        RequestError::own(action, FailureKind::Transient, code, format!("HTTP {status}: {error}"))
    });
    let body = body.and_then(|body| match encoding(announced.as_ref(), &body) {
        None => Ok(body),
        Some(name) => Err(RequestError::own(
            action,
            FailureKind::Transient,
            "encoded",
            format!(
                "HTTP {status}: the answer is encoded with {name}, which this client did not request; turn that off in the proxy or gateway before the endpoint"
            ),
        )),
    });
    Ok(HttpReply { status, date, arrived_ms, body })
}

/// The encoding of a body, by its header or by its first bytes.
fn encoding(announced: Option<&HeaderValue>, body: &[u8]) -> Option<String> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let announced = announced.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_lowercase());
    match announced.as_deref() {
        // A body of plain JSON with that header only has a wrong header.
        _ if body.starts_with(b"{") => None,
        Some("" | "identity") | None => body.starts_with(&GZIP).then(|| "gzip".to_owned()),
        Some(name) => Some(name.escape_debug().to_string()),
    }
}

/// An answer that is not the API's, by its HTTP status.
pub(crate) fn status_error(action: Action, status: StatusCode) -> RequestError {
    let failure =
        if status == StatusCode::TOO_MANY_REQUESTS { FailureKind::Throttled } else { FailureKind::Transient };
    let code = format!("http_{}", status.as_u16());
    RequestError::own(action, failure, &code, format!("HTTP {status} without an answer of the API"))
}

/// A request without an answer.
fn send_error(action: Action, error: &reqwest::Error) -> RequestError {
    // The outer two layers only say that a request failed.
    let cause = error.source().and_then(StdError::source).map_or_else(|| chain(error), chain);
    let host = error.url().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    let own = |failure, code| RequestError::own(action, failure, code, format!("{host}: {cause}"));
    let why = NoAnswer::of(error);
    match why {
        NoAnswer::Untrusted | NoAnswer::NotBuilt => own(FailureKind::Configuration, why.code()).not_acted(),
        NoAnswer::Tls | NoAnswer::Files | NoAnswer::NotConnected => {
            own(FailureKind::Transient, why.code()).not_acted()
        }
        NoAnswer::Lost if error.is_timeout() => own(FailureKind::Transient, "timeout"),
        NoAnswer::Lost => own(FailureKind::Transient, why.code()),
    }
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The server's certificate is not trusted. That does not pass.
    Untrusted,
    /// TLS failed in another way. That may pass.
    Tls,
    /// No file could be opened for the connection.
    Files,
    /// No connection was made.
    NotConnected,
    /// The request could not be built.
    NotBuilt,
    /// The connection was lost after that: the request may have taken effect.
    Lost,
}

impl NoAnswer {
    /// Why, by the HTTP library's error.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(_)) => return Self::Untrusted,
            Some(_) => return Self::Tls,
            None => {}
        }
        // The resolver does not say why it has no address.
        if descriptors::is_missing(error) || (error.is_connect() && descriptors::are_used_up()) {
            Self::Files
        } else if error.is_connect() {
            Self::NotConnected
        } else if error.is_builder() {
            Self::NotBuilt
        } else {
            Self::Lost
        }
    }

    /// The word for it in errors and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Untrusted | Self::Tls => "tls",
            Self::Files => "files",
            Self::NotConnected => "connect",
            Self::NotBuilt => "bad_request",
            Self::Lost => "connection_lost",
        }
    }
}

/// The TLS library's error in the chain of causes. An I/O error hides its source from `source`.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        if let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(tls) = tls_error(inner)
        {
            return Some(tls);
        }
        next = cause.source();
    }
    None
}

/// An error and its causes on one line, without causes that the text has already named.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// The endpoint's client, and what all requests share.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) client: reqwest::Client,
    pub(crate) url: Url,
    pub(crate) host: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for good in [
            "https://vod.tencentcloudapi.com",
            "https://vod.intl.tencentcloudapi.com/",
            "http://127.0.0.1:8900",
            "http://127.8.9.10",
            "http://[::1]:8900",
            "http://localhost:8900",
            "https://127.0.0.1:8900",
        ] {
            assert!(check_endpoint(&url(good)).is_ok(), "{good}");
        }
        for (bad, words) in [
            ("http://vod.tencentcloudapi.com", "loopback"),
            ("http://10.0.0.1", "loopback"),
            ("http://127.0.0.1.example.com", "loopback"),
            ("http://localhost.example.com", "loopback"),
            ("http://[::ffff:10.0.0.1]", "loopback"),
            ("ftp://127.0.0.1", "https://HOST"),
            ("https://id:key@vod.tencentcloudapi.com", "credentials"),
            ("https://vod.tencentcloudapi.com/v2", "nothing may follow"),
            ("https://vod.tencentcloudapi.com/?a=b", "nothing may follow"),
        ] {
            let error = check_endpoint(&url(bad)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("key@"), "{error}");
        }
    }

    #[test]
    fn an_encoded_answer_is_known_by_its_header_or_its_first_bytes() {
        let encoding = |announced: Option<&'static str>, body: &[u8]| {
            super::encoding(announced.map(HeaderValue::from_static).as_ref(), body)
        };
        assert_eq!(encoding(None, b"{}"), None);
        assert_eq!(encoding(None, b"<html>"), None);
        assert_eq!(encoding(Some("identity"), b"<html>"), None);
        assert_eq!(encoding(Some("gzip"), b"{}"), None);
        assert_eq!(encoding(Some("GZIP"), &[0x1f, 0x8b, 8]).as_deref(), Some("gzip"));
        assert_eq!(encoding(None, &[0x1f, 0x8b, 8]).as_deref(), Some("gzip"));
        assert_eq!(encoding(Some("br"), &[0x8b, 2, 0x80]).as_deref(), Some("br"));
    }

    #[test]
    fn the_host_is_signed_with_its_port_unless_that_is_the_usual_one() {
        for (endpoint, host) in [
            ("https://vod.tencentcloudapi.com", "vod.tencentcloudapi.com"),
            ("https://VOD.tencentcloudapi.com:443/", "vod.tencentcloudapi.com"),
            ("http://127.0.0.1:8900", "127.0.0.1:8900"),
            ("http://127.0.0.1:443", "127.0.0.1:443"),
            ("http://[::1]:8900", "[::1]:8900"),
        ] {
            assert_eq!(host_header(&url(endpoint)), host);
        }
    }
}
