//! The check of signature v1, which is one of the form parameters. The vendor's Node SDK for uploads uses it.

use tencentcloud_signing::Secret;
use tencentcloud_signing::v1::{self, Method, Request};

use super::api::ApiError;
use super::auth::{Credential, MAX_SKEW_SECONDS};

/// The common parameters of all actions.
pub(super) const COMMON: [&str; 11] = [
    "Action",
    "Version",
    "Region",
    "Timestamp",
    "Nonce",
    "SecretId",
    "Token",
    "SignatureMethod",
    "Signature",
    "Language",
    "RequestClient",
];

/// Checks the time stamp, the key, the signature and the token, in this order.
pub(super) fn check(
    method: &str,
    host: &str,
    parameters: &[(&str, &str)],
    credentials: &[Credential],
    now: i64,
) -> Result<(), ApiError> {
    let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let missing = |name: &str| ApiError::new("MissingParameter", format!("the parameter {name} is missing"));
    let required = |name| parameter(name).ok_or_else(|| missing(name));
    let timestamp: i64 = required("Timestamp")?
        .parse()
        .map_err(|_| ApiError::new("InvalidParameterValue", "Timestamp is not a number of seconds"))?;
    required("Nonce")?;
    let skew = now.saturating_sub(timestamp);
    if skew.saturating_abs() > MAX_SKEW_SECONDS {
        let message =
            format!("the time stamp is {skew} s off the server's clock; {MAX_SKEW_SECONDS} s are allowed");
        return Err(ApiError::new("AuthFailure.SignatureExpire", message));
    }
    let secret_id = required("SecretId")?;
    let Some(credential) = credentials.iter().find(|credential| credential.secret_id == secret_id) else {
        return Err(ApiError::new("AuthFailure.SecretIdNotFound", "nobody has this SecretId"));
    };
    let of_signature = |message: &str| ApiError::new("AuthFailure.SignatureFailure", message);
    let named = parameter(v1::SIGNATURE_METHOD).map_or(Some(Method::default()), Method::from_name);
    let named = named.ok_or_else(|| of_signature("SignatureMethod is neither HmacSHA1 nor HmacSHA256"))?;
    let signature = required(v1::SIGNATURE)?;
    let bare_host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_signed = |host| {
        let request = Request { method, host, path: "/", parameters };
        v1::verify(credential.secret_key.expose(), named, &request, signature)
    };
    if !is_signed(host) && !is_signed(bare_host) {
        return Err(of_signature("the signature is not the one that the server computes"));
    }
    let expected = credential.token.as_ref().map(Secret::expose).unwrap_or_default();
    if parameter("Token").unwrap_or_default() != expected {
        return Err(ApiError::new("AuthFailure.TokenFailure", "the token is not the one of this SecretId"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn code(change: impl FnOnce(&mut Vec<(&'static str, String)>), key: &str, host: &str) -> String {
        let mut parameters: Vec<(&str, String)> = vec![
            ("Action", "ApplyUpload".to_owned()),
            ("MediaName", "a b&=+测".to_owned()),
            ("Timestamp", NOW.to_string()),
            ("Nonce", "1".to_owned()),
            ("SecretId", "id".to_owned()),
            ("SignatureMethod", "HmacSHA256".to_owned()),
        ];
        change(&mut parameters);
        let signed: Vec<(&str, &str)> =
            parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let method = Method::from_name(
            signed.iter().find(|(n, _)| *n == "SignatureMethod").map_or("HmacSHA1", |p| p.1),
        );
        let request = Request { method: "POST", host, path: "/", parameters: &signed };
        let signature = v1::signature(key, method.unwrap_or_default(), &request);
        let mut sent = signed.clone();
        sent.push(("Signature", &signature));
        let credentials = [
            Credential::new("id", "key"),
            Credential { token: Some(Secret::new("t")), ..Credential::new("temporary", "key") },
        ];
        match check("POST", "127.0.0.1:8900", &sent, &credentials, NOW) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.code.into_owned(),
        }
    }

    #[test]
    fn a_good_request_passes_and_each_way_to_be_wrong_has_its_code() {
        let host = "127.0.0.1:8900";
        assert_eq!(code(|_| {}, "key", host), "ok");
        assert_eq!(code(|_| {}, "key", "127.0.0.1"), "ok");
        assert_eq!(code(|p| p.retain(|(name, _)| *name != "SignatureMethod"), "key", host), "ok");
        assert_eq!(code(|_| {}, "key", "vod.example"), "AuthFailure.SignatureFailure");
        assert_eq!(code(|_| {}, "other", host), "AuthFailure.SignatureFailure");
        assert_eq!(code(|p| p[5].1 = "HmacMD5".to_owned(), "key", host), "AuthFailure.SignatureFailure");
        assert_eq!(code(|p| p[2].1 = (NOW - 301).to_string(), "key", host), "AuthFailure.SignatureExpire");
        assert_eq!(code(|p| p[2].1 = "soon".to_owned(), "key", host), "InvalidParameterValue");
        assert_eq!(code(|p| p[4].1 = "nobody".to_owned(), "key", host), "AuthFailure.SecretIdNotFound");
        assert_eq!(code(|p| p[4].1 = "temporary".to_owned(), "key", host), "AuthFailure.TokenFailure");
        assert_eq!(code(|p| drop(p.remove(3)), "key", host), "MissingParameter");
    }
}
