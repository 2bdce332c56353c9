//! TC3-HMAC-SHA256, the signature of the cloud's API 3.0: pure arithmetic, for the side that signs and the side that checks.
//!
//! Algorithm and names: Tencent Cloud, "Signature v3" (API 3.0 common documents of every product).

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// The algorithm's name, as it stands in front of the string to sign and of the header.
pub const ALGORITHM: &str = "TC3-HMAC-SHA256";

/// What the cloud accepts in place of the body's digest: sign this literal as the body, and send it in the header
/// `X-TC-Content-SHA256`.
pub const UNSIGNED_PAYLOAD: &[u8] = b"UNSIGNED-PAYLOAD";

/// Everything that the signature of one request covers. The path is always `/`.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// `POST` or `GET`.
    pub method: &'a str,
    /// The canonical query string; empty for `POST`.
    pub query: &'a str,
    /// The signed headers: names in lower case and sorted, values as they are signed.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body's bytes as sent, or [`UNSIGNED_PAYLOAD`].
    pub body: &'a [u8],
    /// `X-TC-Timestamp`, in seconds since the Unix epoch.
    pub timestamp: i64,
    /// The service in the credential scope: `vod`.
    pub service: &'a str,
}

impl Request<'_> {
    /// `SignedHeaders`: the names, joined by semicolons.
    pub fn signed_headers(&self) -> String {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        names.join(";")
    }

    /// The credential scope, `date/service/tc3_request`.
    pub fn scope(&self) -> String {
        scope(&scope_date(self.timestamp), self.service)
    }
}

/// The three keys that lead from the secret key to the one that signs.
///
/// Each is as good as the secret key itself for as long as it is valid, so that the type does not print.
pub struct KeyChain {
    /// `SecretDate`.
    pub date: [u8; 32],
    /// `SecretService`.
    pub service: [u8; 32],
    /// `SecretSigning`.
    pub signing: [u8; 32],
}

impl KeyChain {
    /// Derives the keys of one UTC day and one service.
    pub fn derive(secret_key: &str, date: &str, service: &str) -> Self {
        let date = hmac_sha256(format!("TC3{secret_key}").as_bytes(), date.as_bytes());
        let service = hmac_sha256(&date, service.as_bytes());
        let signing = hmac_sha256(&service, b"tc3_request");
        Self { date, service, signing }
    }
}

/// The UTC day of a timestamp, `YYYY-MM-DD`. A timestamp outside the calendar counts as the epoch, and is refused by
/// whoever checks its age.
pub fn scope_date(timestamp: i64) -> String {
    Timestamp::from_second(timestamp).unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%d").to_string()
}

/// `CanonicalRequest`.
pub fn canonical_request(request: &Request<'_>) -> String {
    let mut headers = String::new();
    for (name, value) in request.headers {
        headers.push_str(name);
        headers.push(':');
        headers.push_str(value);
        headers.push('\n');
    }
    let (method, query, signed) = (request.method, request.query, request.signed_headers());
    format!("{method}\n/\n{query}\n{headers}\n{signed}\n{}", sha256_hex(request.body))
}

/// `StringToSign`.
pub fn string_to_sign(request: &Request<'_>) -> String {
    string_in_scope(&request.scope(), request)
}

fn string_in_scope(scope: &str, request: &Request<'_>) -> String {
    let digest = sha256_hex(canonical_request(request).as_bytes());
    format!("{ALGORITHM}\n{}\n{scope}\n{digest}", request.timestamp)
}

/// The signature, in lower-case hex.
pub fn signature(secret_key: &str, request: &Request<'_>) -> String {
    DayKey::derive(secret_key, request.timestamp, request.service).signature(request)
}

/// The value of the header `Authorization`.
pub fn authorization(secret_id: &str, secret_key: &str, request: &Request<'_>) -> String {
    DayKey::derive(secret_key, request.timestamp, request.service).authorization(secret_id, request)
}

/// What the requests of one UTC day to one service are signed with, so that it is derived once. It does not print, as
/// [`KeyChain`] does not.
pub struct DayKey {
    day: i64,
    scope: String,
    signing: [u8; 32],
}

impl DayKey {
    /// The key of the day of `timestamp`.
    pub fn derive(secret_key: &str, timestamp: i64, service: &str) -> Self {
        let date = scope_date(timestamp);
        let signing = KeyChain::derive(secret_key, &date, service).signing;
        Self { day: day(timestamp), scope: scope(&date, service), signing }
    }

    /// Whether it signs requests of that time.
    pub fn covers(&self, timestamp: i64) -> bool {
        self.day == day(timestamp)
    }

    fn signature(&self, request: &Request<'_>) -> String {
        hex::encode(hmac_sha256(&self.signing, string_in_scope(&self.scope, request).as_bytes()))
    }

    /// The value of the header `Authorization`, for a request of this day and this service.
    pub fn authorization(&self, secret_id: &str, request: &Request<'_>) -> String {
        format!(
            "{ALGORITHM} Credential={secret_id}/{}, SignedHeaders={}, Signature={}",
            self.scope,
            request.signed_headers(),
            self.signature(request),
        )
    }
}

fn day(timestamp: i64) -> i64 {
    timestamp.div_euclid(86_400)
}

fn scope(date: &str, service: &str) -> String {
    format!("{date}/{service}/tc3_request")
}

/// SHA-256, in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// The numbers are from Tencent Cloud's public "Signature v3" pages, from the official Python SDK run with a fixed
    /// clock, and, where marked so, computed from the algorithm.
    const VECTORS: &str = include_str!("../tests/tc3.json");

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(rename = "source")]
        _source: String,
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        name: String,
        #[serde(rename = "origin")]
        _origin: String,
        secret_id: String,
        secret_key: String,
        timestamp: i64,
        date: String,
        service: String,
        method: String,
        canonical_uri: String,
        query: String,
        headers_signed: Vec<(String, String)>,
        body: String,
        hashed_payload: String,
        canonical_request: String,
        hashed_canonical_request: String,
        string_to_sign: String,
        secret_date_hex: String,
        secret_service_hex: String,
        secret_signing_hex: String,
        signature: String,
        authorization: String,
    }

    #[test]
    fn every_intermediate_of_every_vector_agrees() {
        let file: File = serde_json::from_str(VECTORS).unwrap();
        assert_eq!(file.vectors.len(), 19);
        for vector in &file.vectors {
            let name = &vector.name;
            let headers: Vec<(&str, &str)> =
                vector.headers_signed.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let request = Request {
                method: &vector.method,
                query: &vector.query,
                headers: &headers,
                body: vector.body.as_bytes(),
                timestamp: vector.timestamp,
                service: &vector.service,
            };
            assert_eq!(vector.canonical_uri, "/", "{name}");
            assert_eq!(scope_date(vector.timestamp), vector.date, "{name}");
            assert_eq!(sha256_hex(vector.body.as_bytes()), vector.hashed_payload, "{name}");
            let canonical = canonical_request(&request);
            assert_eq!(canonical, vector.canonical_request, "{name}");
            assert_eq!(sha256_hex(canonical.as_bytes()), vector.hashed_canonical_request, "{name}");
            assert_eq!(string_to_sign(&request), vector.string_to_sign, "{name}");
            let keys = KeyChain::derive(&vector.secret_key, &vector.date, &vector.service);
            assert_eq!(hex::encode(keys.date), vector.secret_date_hex, "{name}");
            assert_eq!(hex::encode(keys.service), vector.secret_service_hex, "{name}");
            assert_eq!(hex::encode(keys.signing), vector.secret_signing_hex, "{name}");
            assert_eq!(signature(&vector.secret_key, &request), vector.signature, "{name}");
            assert_eq!(
                authorization(&vector.secret_id, &vector.secret_key, &request),
                vector.authorization,
                "{name}"
            );
        }
    }

    #[test]
    fn the_scope_changes_at_midnight_utc_and_nowhere_else() {
        assert_eq!(scope_date(1_767_225_599), "2025-12-31");
        assert_eq!(scope_date(1_767_225_600), "2026-01-01");
        assert_eq!(scope_date(0), "1970-01-01");
        assert_eq!(scope_date(i64::MAX), "1970-01-01");
    }

    proptest::proptest! {
        #[test]
        fn a_day_has_one_scope_date(day in 0_i64..40_000, second in 0_i64..86_400) {
            let midnight = day * 86_400;
            assert_eq!(scope_date(midnight), scope_date(midnight + second));
            assert_ne!(scope_date(midnight), scope_date(midnight - 1));
        }
    }
}
