//! The object that a request is about, where it is, and who asks.

use std::fmt;
use std::sync::Arc;

use tencentcloud_signing::encode;

use crate::credentials::Credentials;
use crate::upload::TempCredential;

/// The longest key in bytes ("Object overview" of the object storage).
const LONGEST_KEY: usize = 850;

/// Under which name the service is asked. Both lead to the same bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageHost {
    /// `myqcloud.com`, the documents' name.
    #[default]
    Usual,
    /// `tencentcos.cn`, which the vendor's SDKs try when the usual name brings no answer of the service.
    Backup,
}

impl StorageHost {
    fn suffix(self) -> &'static str {
        match self {
            Self::Usual => "myqcloud.com",
            Self::Backup => "tencentcos.cn",
        }
    }
}

/// An object of a bucket, with the key pair that may write it. Clones are cheap.
#[derive(Clone)]
pub struct Target {
    bucket: Arc<str>,
    region: Arc<str>,
    key: Arc<str>,
    /// Signs the requests; of a temporary pair its token goes along.
    pub credentials: Arc<Credentials>,
    /// Under which name the service is asked.
    pub host: StorageHost,
}

impl From<&TempCredential> for Credentials {
    fn from(lent: &TempCredential) -> Self {
        Self {
            secret_id: lent.secret_id.clone(),
            secret_key: lent.secret_key.clone(),
            token: Some(lent.token.clone()),
            expires_at: Some(lent.expires_at),
            origin: "ApplyUpload".to_owned(),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("object", &self.to_string())
            .field("host", &self.host_name())
            .field("credentials", &self.credentials)
            .finish()
    }
}

impl fmt::Display for Target {
    /// Bucket and key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key.escape_debug())
    }
}

/// Why no request can be about an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} cannot be used: {cause}; see what the cloud answered to ApplyUpload")]
pub struct TargetError {
    what: &'static str,
    value: String,
    cause: &'static str,
}

impl Target {
    /// An object by its bucket (`name-1250000000`), its region (`ap-guangzhou`), and its key, with or without a leading slash.
    ///
    /// # Errors
    ///
    /// [`TargetError`] for names that would lead the request, and with it the key pair's token, to another host or object.
    pub fn new(
        bucket: &str,
        region: &str,
        key: &str,
        credentials: Arc<Credentials>,
    ) -> Result<Self, TargetError> {
        let refuse = |what, value: &str, cause| {
            Err(TargetError { what, value: value.chars().take(100).collect(), cause })
        };
        for (what, value) in [("the bucket", bucket), ("the region", region)] {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if value.is_empty() || !value.bytes().all(plain) {
                return refuse(what, value, "it is not made of small letters, digits and hyphens");
            }
            if value.len() > 63 || value.starts_with('-') || value.ends_with('-') {
                return refuse(what, value, "it is no label of a host name");
            }
        }
        let key = key.strip_prefix('/').unwrap_or(key);
        if key.is_empty() {
            return refuse("the key", key, "it is empty");
        }
        if key.len() > LONGEST_KEY {
            return refuse("the key", key, "it is longer than 850 bytes");
        }
        // URLs have no such segments: whoever reads one takes it for a step.
        if key.split('/').any(|part| matches!(part, "." | "..")) || key.contains('\0') {
            return refuse("the key", key, "it has a segment of dots only, or a zero byte");
        }
        Ok(Self {
            bucket: bucket.into(),
            region: region.into(),
            key: key.into(),
            credentials,
            host: StorageHost::Usual,
        })
    }

    /// The same object under another name of the service.
    pub fn at(&self, host: StorageHost) -> Self {
        Self { host, ..self.clone() }
    }

    /// The key, without a leading slash.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value of `Host`.
    pub(crate) fn host_name(&self) -> String {
        format!("{}.cos.{}.{}", self.bucket, self.region, self.host.suffix())
    }

    /// The decoded path, as it is signed.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.key)
    }

    /// The path as it is sent. A raw `+` would be read as a blank there, so everything that can be encoded is.
    pub(crate) fn encoded_path(&self) -> String {
        let parts: Vec<_> = self.key.split('/').map(encode).collect();
        format!("/{}", parts.join("/"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tencentcloud_signing::Secret;

    use super::*;

    pub(crate) fn credentials() -> Arc<Credentials> {
        Arc::new(Credentials {
            secret_id: "exampleId".into(),
            secret_key: Secret::new("exampleKey"),
            token: Some(Secret::new("exampleToken")),
            expires_at: None,
            origin: "the test".into(),
        })
    }

    #[test]
    fn an_object_has_a_host_and_a_path_in_two_forms() {
        let target =
            Target::new("b-12", "ap-guangzhou", "/dir/测试 a+b(1).mp4", credentials()).expect("usual names");
        assert_eq!(target.host_name(), "b-12.cos.ap-guangzhou.myqcloud.com");
        assert_eq!(target.at(StorageHost::Backup).host_name(), "b-12.cos.ap-guangzhou.tencentcos.cn");
        assert_eq!(target.path(), "/dir/测试 a+b(1).mp4");
        assert_eq!(target.encoded_path(), "/dir/%E6%B5%8B%E8%AF%95%20a%2Bb%281%29.mp4");
        assert_eq!(target.to_string(), "b-12/dir/测试 a+b(1).mp4");
        let shown = format!("{target:?}");
        assert!(!shown.contains("exampleToken") && !shown.contains("exampleKey"), "{shown}");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(851);
        for (bucket, region, key, words) in [
            ("b.evil.example/-1", "r", "k", "the bucket"),
            ("", "r", "k", "the bucket"),
            ("B-1", "r", "k", "the bucket"),
            ("-b", "r", "k", "the bucket"),
            ("b-1", "r.example.com#", "k", "the region"),
            ("b-1", "r:80", "k", "the region"),
            ("b-1", "r", "", "the key"),
            ("b-1", "r", "/", "the key"),
            ("b-1", "r", "a/../b", "the key"),
            ("b-1", "r", "./b", "the key"),
            ("b-1", "r", "a\0b", "the key"),
            ("b-1", "r", &long, "850 bytes"),
        ] {
            let error = Target::new(bucket, region, key, credentials()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(error.len() < 300, "{error}");
        }
        for key in ["a//b", "...", "a/..b", "a%2e/b"] {
            assert!(Target::new("b-1", "r", key, credentials()).is_ok(), "{key}");
        }
    }
}
