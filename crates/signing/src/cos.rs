//! The signature of requests to the object storage (COS, XML API): the client makes it, the server verifies it.
//!
//! Algorithm and names: Tencent Cloud COS, "Request signature".

mod authorization;

pub use self::authorization::{Authorization, AuthorizationError, Mismatch};
use crate::digests::{hmac_sha1, sha1_hex};
use crate::percent::encode;

/// The only algorithm there is.
pub const ALGORITHM: &str = "sha1";

/// The header that carries the token of a temporary key.
pub const SECURITY_TOKEN: &str = "x-cos-security-token";

/// The period in which a signature is valid, in seconds since the Unix epoch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTime {
    /// Its start.
    pub start: i64,
    /// Its end.
    pub end: i64,
}

impl KeyTime {
    /// The form in the header: `start;end`.
    pub fn text(self) -> String {
        format!("{};{}", self.start, self.end)
    }

    /// Reads `start;end`.
    pub fn parse(text: &str) -> Option<Self> {
        let (start, end) = text.split_once(';')?;
        Some(Self { start: start.parse().ok()?, end: end.parse().ok()? })
    }

    /// Whether the signature is valid at this second.
    pub fn holds_at(self, now: i64) -> bool {
        self.start <= now && now <= self.end
    }
}

/// The signed parts of one request. Names and values are decoded and in any order.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, in any case.
    pub method: &'a str,
    /// The path with its leading slash, **decoded**.
    pub path: &'a str,
    /// The parameters of the query; one without a value, such as `?uploads`, has an empty one.
    pub query: &'a [(&'a str, &'a str)],
    /// The signed headers. [`is_signed_header`] chooses them from the headers of a request.
    pub headers: &'a [(&'a str, &'a str)],
}

/// Whether a client signs this header: the host, the length and MD5 of the content, and all headers of COS, the token
/// included.
pub fn is_signed_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "host" | "content-length" | "content-md5") || name.starts_with("x-cos-")
}

/// Keys in lower case and encoded, values encoded, sorted by key.
fn canonical(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let encoded = pairs.iter().map(|(key, value)| (encode(key).to_lowercase(), encode(value).into_owned()));
    let mut encoded: Vec<(String, String)> = encoded.collect();
    encoded.sort();
    encoded
}

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join("&")
}

fn names(pairs: &[(String, String)]) -> String {
    let names: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    names.join(";")
}

/// `HttpString`, which COS returns as `FormatString` when a signature does not match. It holds no secret.
pub fn http_string(request: &Request<'_>) -> String {
    let (query, headers) = (canonical(request.query), canonical(request.headers));
    let method = request.method.to_ascii_lowercase();
    format!("{method}\n{}\n{}\n{}\n", request.path, joined(&query), joined(&headers))
}

/// `StringToSign`. It holds no secret.
pub fn string_to_sign(request: &Request<'_>, key_time: KeyTime) -> String {
    string_of(&http_string(request), &key_time.text())
}

fn string_of(http_string: &str, sign_time: &str) -> String {
    format!("{ALGORITHM}\n{sign_time}\n{}\n", sha1_hex(http_string.as_bytes()))
}

/// `SignKey`: its 40 hex characters are the key of the signature. Its holder can sign until the key time ends.
fn sign_key(secret_key: &str, key_time: &str) -> String {
    hex::encode(hmac_sha1(secret_key.as_bytes(), key_time.as_bytes()))
}

/// The signature, in lower-case hex.
pub fn signature(secret_key: &str, request: &Request<'_>, key_time: KeyTime) -> String {
    let key = sign_key(secret_key, &key_time.text());
    hex::encode(hmac_sha1(key.as_bytes(), string_to_sign(request, key_time).as_bytes()))
}

/// The value of the header `Authorization`.
pub fn authorization(secret_id: &str, secret_key: &str, request: &Request<'_>, key_time: KeyTime) -> String {
    let time = key_time.text();
    format!(
        "q-sign-algorithm={ALGORITHM}&q-ak={secret_id}&q-sign-time={time}&q-key-time={time}&q-header-list={}\
         &q-url-param-list={}&q-signature={}",
        names(&canonical(request.headers)),
        names(&canonical(request.query)),
        signature(secret_key, request, key_time),
    )
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// From the documents' examples, and from the official Python SDK run with a fixed clock; each says which.
    const VECTORS: &str = include_str!("../tests/cos.json");

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        name: String,
        #[serde(rename = "origin")]
        _origin: String,
        secret_key: String,
        key_time: String,
        method: String,
        path: String,
        query: Vec<(String, String)>,
        headers: Vec<(String, String)>,
        sign_key: Option<String>,
        http_string_sha1: Option<String>,
        header_list: String,
        url_param_list: String,
        signature: String,
    }

    fn pairs(list: &[(String, String)]) -> Vec<(&str, &str)> {
        list.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn every_vector_is_made_and_verified() {
        let vectors: Vec<Vector> = serde_json::from_str(VECTORS).unwrap();
        assert_eq!(vectors.len(), 6);
        for vector in &vectors {
            let name = &vector.name;
            let (query, headers) = (pairs(&vector.query), pairs(&vector.headers));
            let request =
                Request { method: &vector.method, path: &vector.path, query: &query, headers: &headers };
            let time = KeyTime::parse(&vector.key_time).unwrap();
            if let Some(expected) = &vector.sign_key {
                assert_eq!(&sign_key(&vector.secret_key, &vector.key_time), expected, "{name}");
            }
            if let Some(expected) = &vector.http_string_sha1 {
                assert_eq!(&sha1_hex(http_string(&request).as_bytes()), expected, "{name}");
            }
            assert_eq!(signature(&vector.secret_key, &request, time), vector.signature, "{name}");
            let made = authorization("the id", &vector.secret_key, &request, time);
            let read = Authorization::parse(&made).unwrap();
            assert_eq!(read.header_list.join(";"), vector.header_list, "{name}");
            assert_eq!(read.url_param_list.join(";"), vector.url_param_list, "{name}");
            assert_eq!(read.signature, vector.signature, "{name}");
            assert_eq!(read.verify(&vector.secret_key, &request), Ok(()), "{name}");
        }
    }

    #[test]
    fn the_client_signs_the_host_the_proofs_of_content_and_what_is_cos_s_own() {
        for signed in ["Host", "Content-Length", "content-md5", "x-cos-security-token", "X-COS-Traffic-Limit"]
        {
            assert!(is_signed_header(signed), "{signed}");
        }
        for free in ["user-agent", "content-type", "expect", "x-cosmos"] {
            assert!(!is_signed_header(free), "{free}");
        }
    }
}
