//! Answers: JSON, or plain text where the client wants it. None of them may be kept by anybody on the way.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::metrics::RequestVerdict;
use super::policy::PolicyRefusal;
use super::signer::SignedGrant;

/// How the client wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Text,
}

impl Form {
    /// The first of the two that `Accept` names; JSON when it names none.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let ranges = lines.flat_map(|line| line.split(','));
        let named = ranges.filter_map(|range| match range.split(';').next().unwrap_or_default().trim() {
            "text/plain" => Some(Self::Text),
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            _ => None,
        });
        named.into_iter().next().unwrap_or(Self::Json)
    }
}

/// Why there is no signature.
#[derive(Clone, Debug)]
pub(super) struct RequestProblem {
    pub(super) status: StatusCode,
    /// For programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: Cow<'static, str>,
    pub(super) verdict: RequestVerdict,
    /// The member of the request that is the cause.
    parameter: Option<&'static str>,
    retry_after: Option<u64>,
}

impl RequestProblem {
    pub(super) const NO_SUCH_PATH: Self = Self::fixed(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here; POST to /v1/upload-signature",
        RequestVerdict::Invalid,
    );
    pub(super) const METHOD: Self = Self::fixed(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "a signature is asked for by POST",
        RequestVerdict::Invalid,
    );
    pub(super) const NO_TOKEN: Self = Self::fixed(
        StatusCode::UNAUTHORIZED,
        "token_missing",
        "send the caller's token: Authorization: Bearer TOKEN",
        RequestVerdict::Unauthenticated,
    );
    pub(super) const UNKNOWN_TOKEN: Self = Self::fixed(
        StatusCode::UNAUTHORIZED,
        "token_unknown",
        "no caller has this token",
        RequestVerdict::Unauthenticated,
    );
    pub(super) const FOREIGN_ORIGIN: Self = Self::fixed(
        StatusCode::FORBIDDEN,
        "origin_not_allowed",
        "pages of this origin may not ask; server.cors_origins names those that may",
        RequestVerdict::Unauthenticated,
    );
    pub(super) const FOREIGN_HOST: Self = Self::fixed(
        StatusCode::FORBIDDEN,
        "host_not_allowed",
        "a listener without tokens answers for a loopback address and for localhost only",
        RequestVerdict::Unauthenticated,
    );
    pub(super) const TOO_LARGE: Self = Self::fixed(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        "the body has more than 8192 bytes",
        RequestVerdict::Invalid,
    );
    pub(super) const NO_BODY: Self = Self::fixed(
        StatusCode::REQUEST_TIMEOUT,
        "body_incomplete",
        "the body did not come in time, or not at all",
        RequestVerdict::Invalid,
    );
    pub(super) const MEDIA_TYPE: Self = Self::fixed(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "media_type",
        "send the body as Content-Type: application/json",
        RequestVerdict::Invalid,
    );
    pub(super) const ENCODING: Self = Self::fixed(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content_encoding",
        "send the body without a Content-Encoding",
        RequestVerdict::Invalid,
    );
    pub(super) const CANNOT_SIGN: Self = Self::fixed(
        StatusCode::INTERNAL_SERVER_ERROR,
        "cannot_sign",
        "the server cannot sign now; its log says why",
        RequestVerdict::Failed,
    );

    const fn fixed(
        status: StatusCode,
        code: &'static str,
        message: &'static str,
        verdict: RequestVerdict,
    ) -> Self {
        Self { status, code, message: Cow::Borrowed(message), verdict, parameter: None, retry_after: None }
    }

    pub(super) fn limited(seconds: u64) -> Self {
        let fixed = Self::fixed(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "too many requests; wait for as long as Retry-After says",
            RequestVerdict::Limited,
        );
        Self { retry_after: Some(seconds), ..fixed }
    }

    pub(super) fn not_a_request(message: String) -> Self {
        let fixed = Self::fixed(StatusCode::BAD_REQUEST, "body_invalid", "", RequestVerdict::Invalid);
        Self { message: message.into(), ..fixed }
    }

    pub(super) fn refused(refusal: &PolicyRefusal) -> Self {
        let (status, code, verdict) = if refusal.is_invalid() {
            (StatusCode::BAD_REQUEST, "parameter_invalid", RequestVerdict::Invalid)
        } else {
            (StatusCode::FORBIDDEN, "parameter_not_allowed", RequestVerdict::Refused)
        };
        Self {
            message: refusal.to_string().into(),
            parameter: refusal.parameter(),
            ..Self::fixed(status, code, "", verdict)
        }
    }
}

/// The answer with a signature.
pub(super) fn signature(form: Form, signed: &SignedGrant) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct GrantedBody<'a> {
        signature: &'a str,
        expire_time: i64,
        current_time_stamp: i64,
        one_time_valid: bool,
        sub_app_id: u64,
    }
    let body = match form {
        Form::Text => signed.signature.clone(),
        Form::Json => json(&GrantedBody {
            signature: &signed.signature,
            expire_time: signed.grant.expire_time,
            current_time_stamp: signed.grant.current_time_stamp,
            one_time_valid: signed.grant.one_time_valid.unwrap_or(false),
            sub_app_id: signed.grant.sub_app_id.unwrap_or(0),
        }),
    };
    with_body(StatusCode::OK, form, body)
}

/// The answer that says why there is none.
pub(super) fn problem(form: Form, problem: &RequestProblem) -> Response {
    #[derive(Serialize)]
    struct ProblemBody<'a> {
        error: ErrorObject<'a>,
    }
    #[derive(Serialize)]
    struct ErrorObject<'a> {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        parameter: Option<&'a str>,
    }
    let RequestProblem { status, code, message, parameter, retry_after, .. } = problem;
    let body = match form {
        Form::Text => format!("{message}\n"),
        Form::Json => json(&ProblemBody { error: ErrorObject { code, message, parameter: *parameter } }),
    };
    let mut answer = with_body(*status, form, body);
    let headers = answer.headers_mut();
    match *status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        }
        _ => {}
    }
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    answer
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Origin, Accept"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn with_body(status: StatusCode, form: Form, body: String) -> Response {
    let mut answer = empty(status);
    let media_type = match form {
        Form::Json => "application/json",
        Form::Text => "text/plain; charset=utf-8",
    };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    *answer.body_mut() = Body::from(body);
    answer
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a struct of texts and numbers is JSON")
}
