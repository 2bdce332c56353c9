//! The reader of `Authorization`. It verifies the parts of a request that the header lists.

use std::collections::BTreeMap;

use super::{ALGORITHM, KeyTime, Request, http_string, sign_key, string_of};
use crate::digests::hmac_sha1_is;
use crate::percent::encode;

/// The parsed header `Authorization`, or the same parameters of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The id of the key.
    pub secret_id: String,
    /// The period in which the signature is valid.
    pub sign_time: KeyTime,
    /// The period in which its key is valid: the same.
    pub key_time: KeyTime,
    /// The names of the signed headers.
    pub header_list: Vec<String>,
    /// The names of the signed parameters of the query.
    pub url_param_list: Vec<String>,
    /// In lower-case hex.
    pub signature: String,
}

/// Why a header is not an `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    /// A part is missing.
    #[error("Authorization has no {0}")]
    Missing(&'static str),
    /// A part occurs twice.
    #[error("Authorization has {0} twice")]
    Twice(&'static str),
    /// It has an unknown part.
    #[error("Authorization has {0:?}, which is no part of it")]
    Unknown(String),
    /// A time is not `start;end`.
    #[error("{0} is not start;end in seconds")]
    Time(&'static str),
    /// Another algorithm.
    #[error("q-sign-algorithm is {0:?}; there is only sha1")]
    Algorithm(String),
}

const PARTS: [&str; 7] = [
    "q-sign-algorithm",
    "q-ak",
    "q-sign-time",
    "q-key-time",
    "q-header-list",
    "q-url-param-list",
    "q-signature",
];

impl Authorization {
    /// Reads the header's value.
    ///
    /// # Errors
    ///
    /// Names the part that is missing, wrong or unknown.
    pub fn parse(value: &str) -> Result<Self, AuthorizationError> {
        let mut parts = BTreeMap::new();
        for part in value.trim().split('&') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(known) = PARTS.iter().find(|known| **known == name) else {
                return Err(AuthorizationError::Unknown(name.chars().take(40).collect()));
            };
            if parts.insert(*known, value).is_some() {
                return Err(AuthorizationError::Twice(known));
            }
        }
        let part = |name: &'static str| parts.get(name).copied().ok_or(AuthorizationError::Missing(name));
        let time = |name| KeyTime::parse(part(name)?).ok_or(AuthorizationError::Time(name));
        let list = |name| {
            let list = part(name)?;
            let names = list.split(';').filter(|name| !name.is_empty()).map(str::to_lowercase);
            Ok::<Vec<String>, AuthorizationError>(names.collect())
        };
        let algorithm = part("q-sign-algorithm")?;
        if algorithm != ALGORITHM {
            return Err(AuthorizationError::Algorithm(algorithm.chars().take(40).collect()));
        }
        Ok(Self {
            secret_id: part("q-ak").and_then(filled("q-ak"))?.to_owned(),
            sign_time: time("q-sign-time")?,
            key_time: time("q-key-time")?,
            header_list: list("q-header-list")?,
            url_param_list: list("q-url-param-list")?,
            signature: part("q-signature").and_then(filled("q-signature"))?.to_owned(),
        })
    }

    /// Verifies the signature over the headers and parameters in its lists. The request can have more, so a signed and an
    /// unsigned token both pass. The caller checks the times.
    ///
    /// # Errors
    ///
    /// The texts that the verifier computed, as COS answers them. They hold no secret.
    pub fn verify(&self, secret_key: &str, request: &Request<'_>) -> Result<(), Mismatch> {
        let (headers, query) =
            (pick(&self.header_list, request.headers), pick(&self.url_param_list, request.query));
        let covered = Request { headers: &headers, query: &query, ..*request };
        let http_string = http_string(&covered);
        let string_to_sign = string_of(&http_string, &self.sign_time.text());
        let key = sign_key(secret_key, &self.key_time.text());
        let given = hex::decode(&self.signature).unwrap_or_default();
        if hmac_sha1_is(key.as_bytes(), string_to_sign.as_bytes(), &given) {
            return Ok(());
        }
        let missing = |list: &[String], pairs: &[(&str, &str)]| -> Vec<String> {
            let there = |name: &&String| pairs.iter().any(|(key, _)| encode(key).to_lowercase() == **name);
            list.iter().filter(|name| !there(name)).cloned().collect()
        };
        let mut not_sent = missing(&self.header_list, request.headers);
        not_sent.extend(missing(&self.url_param_list, request.query));
        Err(Mismatch { string_to_sign, http_string, not_sent })
    }
}

fn filled(name: &'static str) -> impl Fn(&str) -> Result<&str, AuthorizationError> {
    move |value| if value.is_empty() { Err(AuthorizationError::Missing(name)) } else { Ok(value) }
}

/// The pairs whose names are on the list.
fn pick<'a>(list: &[String], pairs: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let on_list = |name: &str| list.iter().any(|listed| encode(name).to_lowercase() == *listed);
    pairs.iter().copied().filter(|(name, _)| on_list(name)).collect()
}

/// The signature does not match the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match the request")]
pub struct Mismatch {
    /// `StringToSign` as the verifier computes it.
    pub string_to_sign: String,
    /// `FormatString` as the verifier computes it.
    pub http_string: String,
    /// Names in the lists that the request does not have.
    pub not_sent: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::super::authorization;
    use super::*;

    const KEY: &str = "the secret key";
    const TIME: KeyTime = KeyTime { start: 100, end: 200 };

    const HEADERS: [(&str, &str); 3] =
        [("Host", "b-1.cos.r.myqcloud.com"), ("x-cos-security-token", "t/+="), ("Content-Length", "3")];

    const REQUEST: Request<'_> = Request {
        method: "PUT",
        path: "/目录/a b",
        query: &[("partNumber", "1"), ("uploadId", "U+1")],
        headers: &HEADERS,
    };

    #[test]
    fn what_is_not_on_the_list_is_not_covered_and_what_is_must_be_there() {
        let without_token = Request { headers: &HEADERS[..1], ..REQUEST };
        let read = Authorization::parse(&authorization("id", KEY, &without_token, TIME)).unwrap();
        assert_eq!(read.verify(KEY, &REQUEST), Ok(()), "an unsigned token may be added");
        let read = Authorization::parse(&authorization("id", KEY, &REQUEST, TIME)).unwrap();
        assert_eq!(read.verify(KEY, &REQUEST), Ok(()));
        let mismatch = read.verify(KEY, &without_token).unwrap_err();
        assert_eq!(mismatch.not_sent, ["content-length", "x-cos-security-token"]);
        assert!(!format!("{mismatch:?}").contains(KEY));
    }

    #[test]
    fn every_part_of_the_request_is_covered() {
        let read = Authorization::parse(&authorization("id", KEY, &REQUEST, TIME)).unwrap();
        let other_host = [("Host", "b-2.cos.r.myqcloud.com"), HEADERS[1], HEADERS[2]];
        let wrong = [
            Request { method: "POST", ..REQUEST },
            Request { path: "/%E7%9B%AE/a b", ..REQUEST },
            Request { path: "/目录/a+b", ..REQUEST },
            Request { query: &[("partNumber", "2"), ("uploadId", "U+1")], ..REQUEST },
            Request { query: &[("partNumber", "1")], ..REQUEST },
            Request { headers: &other_host, ..REQUEST },
        ];
        for request in wrong {
            assert!(read.verify(KEY, &request).is_err(), "{request:?}");
        }
        assert!(read.verify("another key", &REQUEST).is_err());
        let stretched = Authorization { key_time: KeyTime { end: 300, ..TIME }, ..read.clone() };
        assert!(stretched.verify(KEY, &REQUEST).is_err());
        let stretched = Authorization { sign_time: KeyTime { end: 300, ..TIME }, ..read };
        assert!(stretched.verify(KEY, &REQUEST).is_err());
    }

    #[test]
    fn each_wrong_header_is_told_by_its_fault() {
        let good = authorization("id", KEY, &REQUEST, TIME);
        let cases = [
            (String::new(), "which is no part of it"),
            (good.replace("q-ak=id", "q-ak="), "no q-ak"),
            (good.replace("&q-signature=", "&q-sig="), "no part of it"),
            (good.replace("q-sign-algorithm=sha1", "q-sign-algorithm=md5"), "only sha1"),
            (good.replace("q-key-time=100;200", "q-key-time=100"), "q-key-time is not"),
            (format!("{good}&q-ak=other"), "q-ak twice"),
            ("q-sign-algorithm=sha1".to_owned(), "has no q-"),
        ];
        for (value, words) in cases {
            let error = Authorization::parse(&value).unwrap_err().to_string();
            assert!(error.contains(words), "{value}: {error}");
        }
        assert!(!TIME.holds_at(99) && TIME.holds_at(100) && TIME.holds_at(200) && !TIME.holds_at(201));
    }
}
