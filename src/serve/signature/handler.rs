//! One request, from its head to its answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use futures_util::StreamExt as _;
use tracing::{error, warn};
use url::Host;
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_serve::Limits;

use super::answer::{self, Form, RequestProblem};
use super::callers::{Asker, Caller};
use super::cors::Asking;
use super::metrics::{self, NO_CALLER, RequestVerdict};
use super::request::{MAX_BODY, Wanted};
use super::service::{Current, SignatureService};
use super::signer::{SignError, SignedGrant};
use super::{audit, peer};
use crate::clock::Now as _;

/// Where signatures are asked for.
pub const PATH: &str = "/v1/upload-signature";

/// What a connection may cost. The request is small, and so is the answer.
pub fn limits(connections: usize) -> Limits {
    Limits {
        connections,
        head: Duration::from_secs(5),
        body: Duration::from_secs(5),
        life: Duration::from_secs(60),
    }
}

/// The server's one path.
pub fn router(service: Arc<SignatureService>) -> Router {
    Router::new().fallback(handle).with_state(service)
}

async fn handle(
    State(service): State<Arc<SignatureService>>,
    ConnectInfo(connection): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let current = service.current();
    let (head, body) = request.into_parts();
    let peer = peer::of(connection, &head.headers, &current.trusted_proxies);
    let asking = Asking::of(&head.headers, &current.cors_origins);
    let form = Form::of(&head.headers);
    let mut answer = if let Err(seconds) = current.peers.take(peer, Instant::now()) {
        metrics::count(NO_CALLER, RequestVerdict::Limited);
        answer::problem(form, &RequestProblem::limited(seconds))
    } else if head.uri.path() != PATH {
        answer::problem(form, &RequestProblem::NO_SUCH_PATH)
    } else if head.method == Method::OPTIONS {
        preflight(&asking)
    } else if head.method != Method::POST {
        answer::problem(form, &RequestProblem::METHOD)
    } else {
        let judged = Judged { service: &service, current: &current, peer, asking: &asking };
        match judged.answer(&head.headers, body).await {
            Ok(signed) => answer::signature(form, &signed),
            Err(problem) => answer::problem(form, &problem),
        }
    };
    asking.allow(answer.headers_mut());
    answer
}

/// What a browser asks before it lets a page ask.
fn preflight(asking: &Asking) -> Response {
    match asking {
        Asking::Allowed(_) => {
            let mut answer = answer::empty(StatusCode::NO_CONTENT);
            asking.allow_request(answer.headers_mut());
            answer
        }
        // The answer is the same for all others: who may ask is nobody's business.
        Asking::NoPage | Asking::Foreign => answer::empty(StatusCode::FORBIDDEN),
    }
}

/// A request that is judged.
struct Judged<'a> {
    service: &'a SignatureService,
    current: &'a Current,
    peer: IpAddr,
    asking: &'a Asking,
}

impl Judged<'_> {
    async fn answer(&self, headers: &HeaderMap, body: Body) -> Result<SignedGrant, RequestProblem> {
        let caller = match self.caller(headers) {
            Ok(caller) => caller,
            Err(problem) => {
                metrics::count(NO_CALLER, RequestVerdict::Unauthenticated);
                if let Some(requests) = self.service.strangers.happened(Instant::now()) {
                    warn!(
                        error_code = %ErrorCode::TokenRefused,
                        requests,
                        peer = %self.peer,
                        cause = problem.code,
                        "requests for upload signatures come from no known caller"
                    );
                }
                return Err(problem);
            }
        };
        let answered = self.answer_to(caller, headers, body).await;
        match &answered {
            Ok(signed) => {
                metrics::count(&caller.name, RequestVerdict::Granted);
                audit::granted(&caller.name, self.peer, signed);
            }
            Err(problem) => {
                metrics::count(&caller.name, problem.verdict);
                // A caller that asks too often would fill the log.
                if problem.verdict != RequestVerdict::Limited {
                    let status = problem.status.as_u16();
                    audit::refused(&caller.name, self.peer, status, problem.code, &problem.message);
                }
            }
        }
        answered
    }

    /// Whose request it is, by its head alone.
    fn caller(&self, headers: &HeaderMap) -> Result<&Caller, RequestProblem> {
        let token = match token(headers) {
            Ok(token) => token,
            Err(NotBearer) => return Err(RequestProblem::UNKNOWN_TOKEN),
        };
        match self.current.callers.of(token) {
            Asker::Known(caller) => Ok(caller),
            Asker::Unknown if token.is_some() => Err(RequestProblem::UNKNOWN_TOKEN),
            Asker::Unknown => Err(RequestProblem::NO_TOKEN),
            // Nothing but its address protects a listener without tokens, so that a page in a browser of this host must not
            // reach it: neither as itself, nor under a name of its own that leads here.
            Asker::Anonymous(_) if *self.asking == Asking::Foreign => Err(RequestProblem::FOREIGN_ORIGIN),
            Asker::Anonymous(_) if !is_for_loopback(headers) => Err(RequestProblem::FOREIGN_HOST),
            Asker::Anonymous(caller) => Ok(caller),
        }
    }

    async fn answer_to(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<SignedGrant, RequestProblem> {
        caller.rate.take(Instant::now()).map_err(RequestProblem::limited)?;
        let body = read(headers, body).await?;
        let wanted = Wanted::read(&body).map_err(|error| RequestProblem::not_a_request(error.to_string()))?;
        let now = WallTime::now().0 / 1_000;
        let signed =
            self.current.signer.sign(&caller.policy, &caller.name, wanted, now, &self.service.randoms);
        signed.map_err(|error| match error {
            SignError::Refused(refusal) => RequestProblem::refused(&refusal),
            SignError::Clock(_) | SignError::NoRandom(_) => {
                if let Some(requests) = self.service.failures.happened(Instant::now()) {
                    error!(error_code = %ErrorCode::CannotSign, requests, %error, "no upload signature can be made");
                }
                RequestProblem::CANNOT_SIGN
            }
        })
    }
}

/// A header that is there and brings no bearer token.
struct NotBearer;

/// The bearer token of a request. A header that is there twice could be read in two ways, and is none.
fn token(headers: &HeaderMap) -> Result<Option<&str>, NotBearer> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    if more.is_some() {
        return Err(NotBearer);
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(NotBearer)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(NotBearer);
    }
    Ok(Some(token.trim_start_matches(' ')))
}

/// Whether the request names this host by an address or a name that cannot be another's.
fn is_for_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    match Host::parse(name) {
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Ok(Host::Domain(name)) => name == "localhost",
        Err(_) => false,
    }
}

/// The body, which is small, JSON and in time.
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, RequestProblem> {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if header(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(RequestProblem::ENCODING);
    }
    let announced = header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(RequestProblem::TOO_LARGE);
    }
    let mut bytes = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| RequestProblem::NO_BODY)?;
        if bytes.len() + chunk.len() > MAX_BODY {
            return Err(RequestProblem::TOO_LARGE);
        }
        bytes.extend_from_slice(&chunk);
    }
    let media_type = header(CONTENT_TYPE).and_then(|value| value.split(';').next()).map(str::trim);
    match media_type {
        Some(media_type) if media_type.eq_ignore_ascii_case("application/json") => Ok(bytes),
        _ if bytes.is_empty() => Ok(bytes),
        _ => Err(RequestProblem::MEDIA_TYPE),
    }
}
