//! Bucket, key and action of a request to the object storage, from its method, host, path and query.

use axum::http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use super::CosError;
use crate::action::Action;
use crate::uploads::store::ObjectKey;

/// The suffixes of the storage's own hosts.
const SUFFIXES: [&str; 2] = [".myqcloud.com", ".tencentcos.cn"];

/// The longest key, in bytes.
const MAX_KEY: usize = 850;

/// The target of a request.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) action: Action,
    pub(crate) bucket: String,
    /// Without a leading slash; empty for the bucket itself.
    pub(crate) key: String,
    /// Whether the host does not name the bucket.
    pub(crate) by_path: bool,
    /// The path of the request, decoded, with its leading slash.
    pub(crate) path: String,
    /// The query, decoded.
    pub(crate) query: Vec<(String, String)>,
}

impl Target {
    pub(crate) fn place(&self) -> ObjectKey {
        ObjectKey { bucket: self.bucket.clone(), key: self.key.clone() }
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A header's value as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// The host of a request, without its port.
fn host_of<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> &'a str {
    let host = header(headers, "host").or_else(|| uri.authority().map(|authority| authority.as_str()));
    let host = host.unwrap_or_default();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Bucket and region of a host such as `name-1250000000.cos.ap-guangzhou.myqcloud.com`.
fn bucket_of_host(host: &str) -> Option<&str> {
    let name = SUFFIXES.iter().find_map(|suffix| host.strip_suffix(suffix))?;
    let (bucket, service) = name.split_once('.')?;
    let service = service.strip_prefix("cos")?;
    let is_service = service.is_empty() || service.starts_with('.') || service.starts_with('-');
    (is_service && is_bucket(bucket)).then_some(bucket)
}

/// Whether a name has the form of a bucket: letters, digits, hyphens, and the account's number at the end.
fn is_bucket(name: &str) -> bool {
    let Some((before, number)) = name.rsplit_once('-') else { return false };
    let letters = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !before.is_empty()
        && before.bytes().all(letters)
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a request is for the object storage, not for the API or the controls.
pub(crate) fn is_for_storage(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    if bucket_of_host(host_of(headers, uri)).is_some() {
        return true;
    }
    if uri.path().starts_with("/_emulator") || uri.path() == "/v3/index.php" {
        return false;
    }
    let signed = header(headers, "authorization").is_some_and(|value| value.starts_with("q-sign-algorithm="))
        || uri.query().is_some_and(|query| query.contains("q-sign-algorithm="));
    let first = uri.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    signed || is_bucket(first) || (uri.path() != "/" && matches!(*method, Method::PUT | Method::DELETE))
}

/// Reads the target of a request. `bucket` is the default if neither host nor path names one.
pub(crate) fn target(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    bucket: &str,
) -> Result<Target, CosError> {
    let invalid = |message: &'static str| CosError::with_message("InvalidURI", message);
    let decoded = percent_decode_str(uri.path()).decode_utf8();
    let path = decoded.map_err(|_| invalid("the path is not UTF-8"))?.into_owned();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let whole = path.strip_prefix('/').unwrap_or(&path);
    let (bucket, key, by_path) = match bucket_of_host(host_of(headers, uri)) {
        Some(of_host) => (of_host.to_owned(), whole.to_owned(), false),
        None => {
            let (first, rest) = whole.split_once('/').unwrap_or((whole, ""));
            let (bucket, key) = if is_bucket(first) { (first, rest) } else { (bucket, whole) };
            (bucket.to_owned(), key.to_owned(), true)
        }
    };
    if key.len() > MAX_KEY {
        return Err(CosError::with_message("KeyTooLong", "Your key is too long."));
    }
    if key.contains('\0') || key.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(invalid("the key leads elsewhere"));
    }
    let has = |name: &str| query.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    let action = match (method.as_str(), key.is_empty()) {
        ("GET", true) if has("uploads") => Action::ListMultipartUploads,
        ("HEAD", true) => Action::HeadObject,
        ("GET", false) if has("uploadId") => Action::ListParts,
        ("GET", false) => Action::GetObject,
        ("HEAD", false) => Action::HeadObject,
        ("PUT", false) if has("uploadId") || has("partNumber") => Action::UploadPart,
        ("PUT", false) => Action::PutObject,
        ("POST", false) if has("uploads") => Action::InitiateMultipartUpload,
        ("POST", false) if has("uploadId") => Action::CompleteMultipartUpload,
        ("DELETE", false) if has("uploadId") => Action::AbortMultipartUpload,
        _ => return Err(CosError::new("MethodNotAllowed")),
    };
    Ok(Target { action, bucket, key, by_path, path, query })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(method: &str, uri: &str, host: &str) -> Result<(Action, String, String), String> {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_str(host).unwrap());
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let target = target(&method, &uri.parse().unwrap(), &headers, "usual-1");
        target
            .map(|target| (target.action, target.bucket, target.key))
            .map_err(|error| error.code.into_owned())
    }

    #[test]
    fn buckets_are_named_by_the_host_by_the_path_or_not_at_all() {
        let good = |action, bucket: &str, key: &str| Ok((action, bucket.to_owned(), key.to_owned()));
        let host = "b-x-12.cos.ap-guangzhou.myqcloud.com";
        assert_eq!(read("PUT", "/d/f%20%2B.mp4", host), good(Action::PutObject, "b-x-12", "d/f +.mp4"));
        assert_eq!(
            read("PUT", "/a-1/f", host),
            good(Action::PutObject, "b-x-12", "a-1/f"),
            "only one of both"
        );
        let with_port = "b-12.cos.ap-guangzhou.tencentcos.cn:8900";
        assert_eq!(read("POST", "/f?uploads", with_port), good(Action::InitiateMultipartUpload, "b-12", "f"));
        assert_eq!(
            read("PUT", "/a-1/f?partNumber=1&uploadId=U", "127.0.0.1:1"),
            good(Action::UploadPart, "a-1", "f")
        );
        assert_eq!(read("GET", "/d/f?uploadId=U", "localhost"), good(Action::ListParts, "usual-1", "d/f"));
        assert_eq!(
            read("GET", "/?uploads&prefix=x", "[::1]:9"),
            good(Action::ListMultipartUploads, "usual-1", "")
        );
        assert_eq!(read("DELETE", "/f?uploadId=U", host), good(Action::AbortMultipartUpload, "b-x-12", "f"));
        assert_eq!(read("POST", "/f?uploadId=U", host), good(Action::CompleteMultipartUpload, "b-x-12", "f"));
    }

    #[test]
    fn keys_that_lead_elsewhere_and_what_is_no_operation_are_refused() {
        let host = "b-12.cos.ap-guangzhou.myqcloud.com";
        for uri in ["/a/../b", "/%2e%2e/b", "/a/%2E", "/a%00b", "/%ff"] {
            assert_eq!(read("PUT", uri, host), Err("InvalidURI".to_owned()), "{uri}");
        }
        let long = format!("/{}", "x".repeat(851));
        assert_eq!(read("PUT", &long, host), Err("KeyTooLong".to_owned()));
        for (method, uri) in [("PUT", "/"), ("DELETE", "/f"), ("POST", "/f"), ("GET", "/"), ("PATCH", "/f")] {
            assert_eq!(read(method, uri, host), Err("MethodNotAllowed".to_owned()), "{method} {uri}");
        }
    }

    #[test]
    fn the_api_and_the_controls_are_not_the_storage() {
        let is = |method: Method, uri: &str, host: &str, authorization: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_str(host).unwrap());
            headers.insert("authorization", HeaderValue::from_str(authorization).unwrap());
            is_for_storage(&method, &uri.parse().unwrap(), &headers)
        };
        let cos = "q-sign-algorithm=sha1&q-ak=x";
        assert!(!is(Method::POST, "/", "127.0.0.1:1", "TC3-HMAC-SHA256 x"));
        assert!(!is(Method::POST, "/", "vod.tencentcloudapi.com", "TC3-HMAC-SHA256 x"));
        assert!(!is(Method::POST, "/_emulator/faults", "127.0.0.1:1", cos));
        assert!(!is(Method::POST, "/v3/index.php?Action=ApplyUploadUGC", "vod2.qcloud.com", ""));
        assert!(!is(Method::GET, "/favicon.ico", "127.0.0.1:1", ""));
        assert!(is(Method::GET, "/?uploads", "127.0.0.1:1", cos));
        assert!(is(Method::PUT, "/d/f", "127.0.0.1:1", ""));
        assert!(is(Method::PUT, "/_emulator/faults", "b-1.cos.r.myqcloud.com", ""));
    }
}
