//! Signature v1 of the API, `HmacSHA1` and `HmacSHA256`: the signature is one of the form parameters. Older SDKs of the
//! vendor use it.
//!
//! Algorithm and names: Tencent Cloud, "Signature v1" (API 3.0 common documents of every product).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digests::{hmac_sha1, hmac_sha1_is, hmac_sha256, hmac_sha256_is};

/// The parameter with the signature. The signature does not cover it.
pub const SIGNATURE: &str = "Signature";

/// The parameter that names the method.
pub const SIGNATURE_METHOD: &str = "SignatureMethod";

/// The MAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// `HmacSHA1`, the default.
    #[default]
    HmacSha1,
    /// `HmacSHA256`.
    HmacSha256,
}

impl Method {
    /// The value of `SignatureMethod`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "HmacSHA1",
            Self::HmacSha256 => "HmacSHA256",
        }
    }

    /// The method of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::HmacSha1, Self::HmacSha256].into_iter().find(|method| method.name() == name)
    }
}

/// The signed parts of one request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `POST` or `GET`.
    pub method: &'a str,
    /// The host, as the client signs it.
    pub host: &'a str,
    /// The path: `/`.
    pub path: &'a str,
    /// The parameters, decoded, in any order. A `Signature` among them is ignored.
    pub parameters: &'a [(&'a str, &'a str)],
}

/// The signed text: method, host, path, and the sorted parameters with decoded values.
pub fn string_to_sign(request: &Request<'_>) -> String {
    let mut parameters: Vec<(&str, &str)> =
        request.parameters.iter().copied().filter(|(name, _)| *name != SIGNATURE).collect();
    parameters.sort_unstable();
    let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}{}{}?{}", request.method, request.host, request.path, parameters.join("&"))
}

/// The value of `Signature`: base64. The form encodes it like every other value.
pub fn signature(secret_key: &str, method: Method, request: &Request<'_>) -> String {
    let text = string_to_sign(request);
    match method {
        Method::HmacSha1 => STANDARD.encode(hmac_sha1(secret_key.as_bytes(), text.as_bytes())),
        Method::HmacSha256 => STANDARD.encode(hmac_sha256(secret_key.as_bytes(), text.as_bytes())),
    }
}

/// Whether a signature is correct for this request. The comparison takes constant time.
pub fn verify(secret_key: &str, method: Method, request: &Request<'_>, signature: &str) -> bool {
    let Ok(given) = STANDARD.decode(signature) else { return false };
    let text = string_to_sign(request);
    match method {
        Method::HmacSha1 => hmac_sha1_is(secret_key.as_bytes(), text.as_bytes(), &given),
        Method::HmacSha256 => hmac_sha256_is(secret_key.as_bytes(), text.as_bytes(), &given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";

    /// The documents' own example, with the given id.
    fn example(secret_id: &str) -> Vec<(&str, &str)> {
        vec![
            ("Action", "DescribeInstances"),
            ("SecretId", secret_id),
            ("Timestamp", "1465185768"),
            ("Nonce", "11886"),
            ("Region", "ap-guangzhou"),
            ("InstanceIds.0", "ins-09dx96dg"),
            ("Offset", "0"),
            ("Limit", "20"),
            ("Version", "2017-03-12"),
        ]
    }

    fn request<'a>(parameters: &'a [(&'a str, &'a str)]) -> Request<'a> {
        Request { method: "GET", host: "cvm.tencentcloudapi.com", path: "/", parameters }
    }

    #[test]
    fn the_documents_examples_agree() {
        let parameters = example("AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE");
        let request_with_key = request(&parameters);
        assert_eq!(
            string_to_sign(&request_with_key),
            "GETcvm.tencentcloudapi.com/?Action=DescribeInstances&InstanceIds.0=ins-09dx96dg&Limit=20&Nonce=11886\
             &Offset=0&Region=ap-guangzhou&SecretId=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE&Timestamp=1465185768\
             &Version=2017-03-12"
        );
        assert_eq!(signature(KEY, Method::HmacSha1, &request_with_key), "EliP9YW3pW28FpsEdkXt/+WcGeI=");
        assert_eq!(
            signature(KEY, Method::HmacSha256, &request_with_key),
            "bR/zQ3QqOmcEYeRv71IzG/NxfisUDgy9cqRMQC+UB5g="
        );
        // Newer pages mask the key pair and sign with the masked text.
        let masked = example("AKIDz8krbsJ5yKBZQpn74WFkmLPx3*******");
        let printed = signature("Gu5t9xGARNpq86cd98joQYCN3*******", Method::HmacSha1, &request(&masked));
        assert_eq!(printed, "zmmjn35mikh6pM3V7sUEuX4wyYM=");
    }

    #[test]
    fn a_signature_holds_for_its_own_request_only() {
        let parameters = example("id");
        for method in [Method::HmacSha1, Method::HmacSha256] {
            let good = signature(KEY, method, &request(&parameters));
            assert!(verify(KEY, method, &request(&parameters), &good));
            let mut carried = parameters.clone();
            carried.push((SIGNATURE, &good));
            assert!(verify(KEY, method, &request(&carried), &good), "it does not cover itself");
            assert!(!verify("another key", method, &request(&parameters), &good));
            assert!(!verify(KEY, method, &Request { method: "POST", ..request(&parameters) }, &good));
            assert!(!verify(KEY, method, &request(&parameters[1..]), &good));
            for wrong in ["", "*", &good[1..], "AAAA"] {
                assert!(!verify(KEY, method, &request(&parameters), wrong), "{wrong}");
            }
        }
        assert_eq!(Method::from_name("HmacSHA256"), Some(Method::HmacSha256));
        assert_eq!(Method::from_name("HmacMD5"), None);
    }
}
