//! Signatures of Tencent Cloud, as pure functions: for the side that signs, and for the side that verifies.
//!
//! - [`tc3`]: `TC3-HMAC-SHA256`, which signs a whole request to the API 3.0.
//! - [`v1`]: `HmacSHA1` and `HmacSHA256`, which sign the form parameters of a request of older SDKs.
//! - [`cos`]: the signature of requests to the object storage.
//! - [`upload`]: the signature with which a client uploads to VOD. Only its function `random` is not pure.
//! - [`bearer`]: the owner of a bearer token, in constant time. Only its constructor is not pure: it draws a key.
//! - [`encode`]: the percent-encoding that all of them use.
//! - [`Secret`]: a value that does not print.
//!
//! A request of `PullEvents`, signed. The headers that are signed are those that are sent:
//!
//! ```
//! use tencentcloud_signing::{Secret, tc3};
//!
//! let key = Secret::new("the secret key");
//! let body = br#"{"SubAppId":1}"#;
//! let request = tc3::Request {
//!     method: "POST",
//!     query: "",
//!     headers: &[("content-type", "application/json"), ("host", "vod.tencentcloudapi.com")],
//!     body,
//!     timestamp: 1_551_113_065,
//!     service: "vod",
//! };
//! let authorization = tc3::authorization("the secret id", key.expose(), &request);
//! assert!(authorization.starts_with("TC3-HMAC-SHA256 Credential=the secret id/2019-02-25/vod/tc3_request"));
//! assert_eq!(key.to_string(), "***");
//! ```
//!
//! A signature for a client, valid for one upload within ten minutes. The client sends it to VOD unchanged:
//!
//! ```
//! use tencentcloud_signing::upload::{self, Grant, Signature};
//!
//! let now = 1_571_215_095;
//! let grant = Grant {
//!     source_context: Some("user=17&order=4".to_owned()),
//!     one_time_valid: Some(true),
//!     ..Grant::new("the secret id", now, now + 600, upload::random()?)
//! };
//! let signature = grant.sign("the secret key")?;
//!
//! let read = Signature::parse(&signature)?;
//! assert!(read.verify("the secret key"));
//! assert_eq!(read.grant()?, grant);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A request to the object storage, signed as a client does, and verified as a server does:
//!
//! ```
//! use tencentcloud_signing::cos::{self, Authorization, KeyTime, Request};
//!
//! let sent = [
//!     ("Host", "bucket-1250000000.cos.ap-guangzhou.myqcloud.com"),
//!     ("Content-Length", "13"),
//!     ("User-Agent", "any"),
//!     (cos::SECURITY_TOKEN, "the token"),
//! ];
//! let signed: Vec<(&str, &str)> = sent.into_iter().filter(|(name, _)| cos::is_signed_header(name)).collect();
//! let request = Request { method: "PUT", path: "/folder/name with blanks", query: &[], headers: &signed };
//! let now = 1_700_000_000;
//! let time = KeyTime { start: now - 60, end: now + 900 };
//! let value = cos::authorization("the id", "the key", &request, time);
//!
//! let received = Request { headers: &sent, ..request };
//! let authorization = Authorization::parse(&value)?;
//! assert!(authorization.key_time.holds_at(now));
//! authorization.verify("the key", &received)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Form parameters under signature v1:
//!
//! ```
//! use tencentcloud_signing::v1::{self, Method, Request};
//!
//! let parameters = [("Action", "ApplyUpload"), ("SignatureMethod", "HmacSHA256"), ("MediaType", "mp4")];
//! let request = Request { method: "POST", host: "vod.tencentcloudapi.com", path: "/", parameters: &parameters };
//! let signature = v1::signature("the key", Method::HmacSha256, &request);
//! assert!(v1::verify("the key", Method::HmacSha256, &request, &signature));
//! ```

pub mod bearer;
pub mod cos;
mod digests;
mod percent;
mod secret;
pub mod tc3;
pub mod upload;
pub mod v1;

pub use percent::encode;
pub use secret::Secret;
