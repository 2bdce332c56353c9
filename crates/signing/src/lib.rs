//! Signatures of Tencent Cloud's API 3.0, as pure functions: for the side that signs, and for the side that checks.
//!
//! - [`tc3`]: `TC3-HMAC-SHA256`, which signs a whole request.
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

mod secret;
pub mod tc3;

pub use secret::Secret;
