//! The check of the signature of a request to the object storage, and of the permissions of its key.

use axum::http::HeaderMap;
use tencentcloud_signing::Secret;
use tencentcloud_signing::cos::{self, Authorization, Request};

use super::CosError;
use super::target::{Target, header};
use crate::action::Action;
use crate::state::State;
use crate::uploads::sessions::Access;
use crate::uploads::settings::{SignatureErrorForm, UploadSettings};

/// The largest clock difference, in seconds.
const MAX_SKEW: i64 = 900;

/// Checks the key, the times, the signature, the token and the key's permissions, in this order.
pub(crate) fn check(
    state: &State,
    method: &str,
    target: &Target,
    headers: &HeaderMap,
    now: i64,
) -> Result<(), CosError> {
    let settings = &state.settings.uploads;
    let form = |code: &'static str| of_signature(settings, code);
    let authorization = authorization(target, headers)?;
    let token = header(headers, cos::SECURITY_TOKEN).or_else(|| target.parameter(cos::SECURITY_TOKEN));
    let temporary = state.uploads.sessions.key(&authorization.secret_id);
    let permanent = state.credentials.iter().find(|pair| pair.secret_id == authorization.secret_id);
    let (secret_key, expected_token) = match (temporary, permanent) {
        (Some(key), _) => (&key.secret_key, Some(&key.token)),
        (None, Some(pair)) => (&pair.secret_key, pair.token.as_ref()),
        (None, None) => return Err(form("InvalidAccessKeyId")),
    };
    let times = [authorization.sign_time, authorization.key_time];
    if times.iter().any(|time| time.start.saturating_sub(now) > MAX_SKEW) {
        return Err(form("RequestTimeTooSkewed"));
    }
    if times.iter().any(|time| now > time.end) {
        return Err(form("Request has expired"));
    }
    verify(&authorization, secret_key, method, target, headers).map_err(|mismatch| CosError {
        computed: Some((mismatch.string_to_sign, mismatch.http_string)),
        ..form("SignatureDoesNotMatch")
    })?;
    if token != expected_token.map(Secret::expose) {
        return Err(CosError::with_message("AccessDenied", "the token is not the one of this key"));
    }
    let Some(key) = temporary else { return Ok(()) };
    if now >= key.expired_time {
        return Err(CosError::new("ExpiredToken"));
    }
    if is_allowed(target.action, settings) {
        let (prefix, place) = (target.parameter("prefix").unwrap_or_default(), target.place());
        let access = match target.action {
            Action::ListMultipartUploads => Access::List { bucket: &target.bucket, prefix },
            _ => Access::Object(&place),
        };
        if state.uploads.sessions.allows(key, access) {
            return Ok(());
        }
    }
    Err(CosError::new("AccessDenied"))
}

/// Whether temporary keys have this permission.
fn is_allowed(action: Action, settings: &UploadSettings) -> bool {
    match action {
        Action::HeadObject => settings.temporary_key_head.accepts(),
        Action::ListMultipartUploads => settings.temporary_key_list_uploads.accepts(),
        Action::GetObject => false,
        _ => true,
    }
}

/// An error of a signature, in the form of the settings.
fn of_signature(settings: &UploadSettings, code: &'static str) -> CosError {
    match (settings.signature_error_form, code) {
        (SignatureErrorForm::Message, _) | (_, "Request has expired") => {
            CosError::with_message("AccessDenied", code)
        }
        (SignatureErrorForm::Code, _) => CosError::new(code),
    }
}

fn authorization(target: &Target, headers: &HeaderMap) -> Result<Authorization, CosError> {
    let in_query: Vec<String> = target
        .query
        .iter()
        .filter(|(name, _)| name.starts_with("q-"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let value = match header(headers, "authorization") {
        Some(value) => value.to_owned(),
        None if !in_query.is_empty() => in_query.join("&"),
        None => return Err(CosError::new("AccessDenied")),
    };
    Authorization::parse(&value)
        .map_err(|error| CosError { message: error.to_string().into(), ..CosError::new("InvalidArgument") })
}

fn verify(
    authorization: &Authorization,
    secret_key: &Secret,
    method: &str,
    target: &Target,
    headers: &HeaderMap,
) -> Result<(), cos::Mismatch> {
    let query: Vec<(&str, &str)> = target
        .query
        .iter()
        .filter(|(name, _)| !name.starts_with("q-"))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let sent: Vec<(&str, &str)> = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?.trim())))
        .collect();
    let host = header(headers, "host").unwrap_or_default();
    let bare_host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let mut paths = vec![target.path.clone()];
    if target.by_path {
        // A client that addresses the bucket by path can sign the path at the bucket's own host.
        paths.push(format!("/{}", target.key));
    }
    let mut first_mismatch = None;
    for path in &paths {
        for host in [host, bare_host] {
            let headers: Vec<(&str, &str)> = sent
                .iter()
                .map(|(name, value)| (*name, if *name == "host" { host } else { *value }))
                .collect();
            let request = Request { method, path, query: &query, headers: &headers };
            match authorization.verify(secret_key.expose(), &request) {
                Ok(()) => return Ok(()),
                Err(mismatch) => first_mismatch = first_mismatch.or(Some(mismatch)),
            }
        }
    }
    match first_mismatch {
        Some(mismatch) => Err(mismatch),
        None => Ok(()),
    }
}
