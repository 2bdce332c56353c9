//! Pages of which origins may read answers. Exact origins only: a wildcard would let every page on the internet ask.

use std::str::FromStr;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN,
};
use axum::http::{HeaderMap, HeaderValue};
use url::Url;

/// An origin as a browser writes it: scheme, host, and the port where it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOrigin(String);

/// A text that is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnOrigin {
    /// A wildcard.
    #[error("cannot have a \"*\": write each origin whose pages may ask, like \"https://app.example\"")]
    Wildcard,
    /// Something else.
    #[error("is no origin; write it as a browser does, like \"https://app.example\"")]
    Other,
    /// An origin that is written in another way.
    #[error("is never sent so by a browser; write {0:?}")]
    Otherwise(String),
}

impl FromStr for PageOrigin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        if text.contains('*') {
            return Err(NotAnOrigin::Wildcard);
        }
        let url = Url::parse(text).map_err(|_| NotAnOrigin::Other)?;
        if !["http", "https"].contains(&url.scheme()) || url.path() != "/" || url.query().is_some() {
            return Err(NotAnOrigin::Other);
        }
        let origin = url.origin().ascii_serialization();
        if origin == text { Ok(Self(origin)) } else { Err(NotAnOrigin::Otherwise(origin)) }
    }
}

/// What a request says of its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// It comes from no page.
    NoPage,
    /// It comes from a page of an allowed origin.
    Allowed(HeaderValue),
    /// It comes from another page.
    Foreign,
}

impl Asking {
    pub(super) fn of(headers: &HeaderMap, allowed: &[PageOrigin]) -> Self {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Self::NoPage,
            (Some(one), None) if allowed.iter().any(|origin| one == origin.0.as_str()) => {
                Self::Allowed(one.clone())
            }
            _ => Self::Foreign,
        }
    }

    /// Lets the page read the answer, if it may.
    pub(super) fn allow(&self, answer: &mut HeaderMap) {
        if let Self::Allowed(origin) = self {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
        }
    }

    /// Answers what a browser asks before it sends the request itself. Cookies are not allowed: nothing here looks at them.
    pub(super) fn allow_request(&self, answer: &mut HeaderMap) {
        if let Self::Allowed(_) = self {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
            answer.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("authorization, content-type"),
            );
            answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_a_browser_sends_it() {
        for right in [
            "https://app.example",
            "http://localhost:8080",
            "https://[::1]:1",
            "https://xn--bcher-kva.example",
        ] {
            assert!(right.parse::<PageOrigin>().is_ok(), "{right}");
        }
        for (wrong, words) in [
            ("*", "write each origin"),
            ("https://*.example", "write each origin"),
            ("https://app.example/", "write \"https://app.example\""),
            ("https://App.example", "write \"https://app.example\""),
            ("https://app.example:443", "write \"https://app.example\""),
            ("https://bücher.example", "write \"https://xn--bcher-kva.example\""),
            ("https://user@app.example", "write \"https://app.example\""),
            ("https://app.example/path", "is no origin"),
            ("app.example", "is no origin"),
            ("null", "is no origin"),
            ("file:///x", "is no origin"),
        ] {
            let told = wrong.parse::<PageOrigin>();
            assert!(told.clone().is_err_and(|error| error.to_string().contains(words)), "{wrong}: {told:?}");
        }
    }
}
