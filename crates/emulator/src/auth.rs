//! Whether a request is signed as the cloud requires, with exceptions for the cloud's own SDKs. Signature v1 is in `auth_v1`.

use axum::http::HeaderMap;
use tencentcloud_signing::Secret;
use tencentcloud_signing::tc3 as sign;

use super::api::ApiError;

/// A key pair that the emulator accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// `SecretId`.
    pub secret_id: String,
    /// `SecretKey`.
    pub secret_key: Secret,
    /// The token that must come with a temporary pair.
    pub token: Option<Secret>,
}

impl Credential {
    /// A permanent pair.
    pub fn new(secret_id: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { secret_id: secret_id.into(), secret_key: Secret::new(secret_key), token: None }
    }

    /// A new pair. It protects nothing: it is random enough for a test.
    pub fn throw_away() -> Self {
        let mut rng = fastrand::Rng::new();
        let mut letters = |n: usize| -> String { (0..n).map(|_| rng.alphanumeric()).collect() };
        Self::new(format!("AKID{}", letters(32)), letters(32))
    }
}

/// How far a time stamp may be off, in seconds (the cloud's "Signature v3" page: five minutes).
pub(super) const MAX_SKEW_SECONDS: i64 = 300;

/// The parts of a request that its signature covers.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// `Authorization`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Authorization<'a> {
    secret_id: &'a str,
    date: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

fn parse(value: &str) -> Option<Authorization<'_>> {
    let fields = value.strip_prefix(sign::ALGORITHM)?.strip_prefix(' ')?;
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for field in fields.split(',') {
        match field.trim().split_once('=')? {
            ("Credential", value) => credential = Some(value),
            ("SignedHeaders", value) => signed_headers = Some(value),
            ("Signature", value) => signature = Some(value),
            _ => return None,
        }
    }
    // The id comes first and could contain a slash itself.
    let mut scope = credential?.rsplitn(4, '/');
    let (end, service, date, secret_id) = (scope.next()?, scope.next()?, scope.next()?, scope.next()?);
    if end != "tc3_request" || secret_id.is_empty() {
        return None;
    }
    Some(Authorization { secret_id, date, service, signed_headers: signed_headers?, signature: signature? })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Checks the time stamp, the key, the signature and the token, in this order.
///
/// `now` is the server's clock in seconds since the Unix epoch.
pub(super) fn check(request: &Signed<'_>, credentials: &[Credential], now: i64) -> Result<(), ApiError> {
    let Some(value) = header(request.headers, "authorization") else {
        return Err(ApiError::new("AuthFailure.InvalidAuthorization", "the header Authorization is missing"));
    };
    let Some(authorization) = parse(value) else {
        return Err(ApiError::new(
            "AuthFailure.InvalidAuthorization",
            "the header Authorization has not the form of TC3-HMAC-SHA256",
        ));
    };
    let Some(timestamp) = header(request.headers, "x-tc-timestamp") else {
        return Err(ApiError::new("MissingParameter", "the header X-TC-Timestamp is missing"));
    };
    let Ok(timestamp) = timestamp.parse::<i64>() else {
        return Err(ApiError::new(
            "InvalidParameterValue",
            "the header X-TC-Timestamp is not a number of seconds",
        ));
    };
    let skew = now.saturating_sub(timestamp);
    if skew.saturating_abs() > MAX_SKEW_SECONDS {
        let message =
            format!("the time stamp is {skew} s off the server's clock; {MAX_SKEW_SECONDS} s are allowed");
        return Err(ApiError::new("AuthFailure.SignatureExpire", message));
    }
    let Some(credential) = credentials.iter().find(|c| c.secret_id == authorization.secret_id) else {
        return Err(ApiError::new("AuthFailure.SecretIdNotFound", "nobody has this SecretId"));
    };
    check_signature(request, credential, &authorization, timestamp)?;
    let token = header(request.headers, "x-tc-token").unwrap_or_default();
    let expected = credential.token.as_ref().map(Secret::expose).unwrap_or_default();
    if token != expected {
        return Err(ApiError::new("AuthFailure.TokenFailure", "the token is not the one of this SecretId"));
    }
    Ok(())
}

fn check_signature(
    request: &Signed<'_>,
    credential: &Credential,
    authorization: &Authorization<'_>,
    timestamp: i64,
) -> Result<(), ApiError> {
    let fail = |message: String| Err(ApiError::new("AuthFailure.SignatureFailure", message));
    let date = sign::scope_date(timestamp);
    if authorization.date != date {
        return fail(format!(
            "the scope's date {} is not the time stamp's in UTC, {date}",
            authorization.date
        ));
    }
    let host = header(request.headers, "host").unwrap_or_default();
    // The Node SDK takes the endpoint's first label for the service: `127` on loopback.
    let first_label = host.split(['.', ':']).next().unwrap_or_default();
    if authorization.service != "vod" && authorization.service != first_label {
        return fail(format!("the scope's service {} is not vod", authorization.service));
    }
    let mut signed: Vec<(&str, &str)> = Vec::with_capacity(3);
    for name in authorization.signed_headers.split(';') {
        let Some(value) = header(request.headers, name) else {
            return fail(format!("the signed header {name} was not sent"));
        };
        signed.push((name, value));
    }
    for required in ["content-type", "host"] {
        if !signed.iter().any(|(name, _)| *name == required) {
            return fail(format!("the header {required} has to be signed"));
        }
    }
    let unsigned = header(request.headers, "x-tc-content-sha256") == Some("UNSIGNED-PAYLOAD");
    let body = if unsigned { sign::UNSIGNED_PAYLOAD } else { request.body };
    let matches = |headers: &[(&str, &str)]| {
        let (method, query, service) = (request.method, request.query, authorization.service);
        let request = sign::Request { method, query, headers, body, timestamp, service };
        sign::signature(credential.secret_key.expose(), &request) == authorization.signature
    };
    // The SDKs sign values as they are; the current documents want them in lower case.
    let lower: Vec<String> = signed.iter().map(|(_, value)| value.to_lowercase()).collect();
    let lower: Vec<(&str, &str)> = signed.iter().zip(&lower).map(|((n, _), v)| (*n, v.as_str())).collect();
    // Node sends the port and signs the host without it.
    let bare_host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    if matches(&signed)
        || matches(&lower)
        || matches(&with_host(&signed, bare_host))
        || matches(&with_host(&lower, bare_host))
    {
        return Ok(());
    }
    fail("the signature is not the one that the server computes".to_owned())
}

fn with_host<'a>(headers: &[(&'a str, &'a str)], host: &'a str) -> Vec<(&'a str, &'a str)> {
    headers.iter().map(|&(name, value)| (name, if name == "host" { host } else { value })).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    // From the cloud's public "Signature v3" documents, as the official Python SDK signs them with a fixed clock.
    const ID: &str = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE";
    const KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";
    const NOW: i64 = 1_551_113_065;
    const PULL: &str = "0161a06c8bf56f03d47cafe6ca8375f6cdb9c8256d171627b9f7054e9708daa9";

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn authorization(id: &str, scope: &str, signed: &str, signature: &str) -> String {
        format!(
            "TC3-HMAC-SHA256 Credential={id}/{scope}/tc3_request, SignedHeaders={signed}, Signature={signature}"
        )
    }

    fn sdk_headers(authorization: &str) -> HeaderMap {
        headers(&[
            ("content-type", "application/json"),
            ("host", "vod.tencentcloudapi.com"),
            ("x-tc-timestamp", "1551113065"),
            ("authorization", authorization),
        ])
    }

    fn code(headers: &HeaderMap, credential: &Credential, now: i64) -> String {
        let request = Signed { method: "POST", query: "", headers, body: b"{}" };
        match check(&request, std::slice::from_ref(credential), now) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.code.into_owned(),
        }
    }

    #[test]
    fn a_public_vector_is_accepted_and_each_way_to_be_wrong_has_its_code() {
        let pair = Credential::new(ID, KEY);
        let scope = "2019-02-25/vod";
        let good = sdk_headers(&authorization(ID, scope, "content-type;host", PULL));
        assert_eq!(code(&good, &pair, NOW), "ok");
        assert_eq!(code(&good, &pair, NOW + 300), "ok");
        assert_eq!(code(&good, &pair, NOW + 301), "AuthFailure.SignatureExpire");
        assert_eq!(code(&good, &pair, NOW - 301), "AuthFailure.SignatureExpire");
        assert_eq!(code(&good, &Credential::new("AKIDother", KEY), NOW), "AuthFailure.SecretIdNotFound");
        assert_eq!(code(&good, &Credential::new(ID, "another key"), NOW), "AuthFailure.SignatureFailure");
        let temporary = Credential { token: Some(Secret::new("t")), ..pair.clone() };
        assert_eq!(code(&good, &temporary, NOW), "AuthFailure.TokenFailure");

        let mut with_token = good.clone();
        with_token.insert("x-tc-token", HeaderValue::from_static("t"));
        assert_eq!(code(&with_token, &temporary, NOW), "ok");
        assert_eq!(code(&with_token, &pair, NOW), "AuthFailure.TokenFailure");

        for (scope, signed) in [
            ("2019-02-24/vod", "content-type;host"),
            ("2019-02-25/cvm", "content-type;host"),
            ("2019-02-25/vod", "host"),
            ("2019-02-25/vod", "content-type;host;x-tc-action"),
        ] {
            let wrong = sdk_headers(&authorization(ID, scope, signed, PULL));
            assert_eq!(code(&wrong, &pair, NOW), "AuthFailure.SignatureFailure", "{scope} {signed}");
        }
        for wrong in ["", "Basic eDp5", "TC3-HMAC-SHA256 Credential=a/b", "TC3-HMAC-SHA256 Credential=a, b"] {
            assert_eq!(code(&sdk_headers(wrong), &pair, NOW), "AuthFailure.InvalidAuthorization", "{wrong}");
        }
    }

    #[test]
    fn an_id_with_a_slash_is_taken_whole() {
        let value = authorization("a/b", "2019-02-25/vod", "content-type;host", "00");
        assert_eq!(parse(&value).unwrap().secret_id, "a/b");
    }
}
