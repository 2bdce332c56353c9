//! A pair of id and key, and why there is none.

use std::fmt;

use tencentcloud_signing::Secret;

/// A pair of id and key, with its token. It prints only the head of its id.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `SecretId`.
    pub secret_id: String,
    /// `SecretKey`.
    pub secret_key: Secret,
    /// The token of a temporary pair.
    pub token: Option<Secret>,
    /// When a temporary pair expires, in seconds since the Unix epoch, if that is known.
    pub expires_at: Option<i64>,
    /// Its source.
    pub origin: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("secret_id", &self.masked_id())
            .field("temporary", &self.token.is_some())
            .field("expires_at", &self.expires_at)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The head of the id: enough to tell two keys apart.
    pub fn masked_id(&self) -> String {
        let head: String = self.secret_id.chars().take(8).collect();
        format!("{head}***")
    }

    /// Whether both are the same pair for the cloud.
    pub(crate) fn same_pair(&self, other: &Self) -> bool {
        (&self.secret_id, &self.secret_key, &self.token)
            == (&other.secret_id, &other.secret_key, &other.token)
    }

    /// Takes a pair that was found at `origin`. A character that cannot be in a header or a key is refused: a
    /// copied blank is hard to see and leads to a wrong signature.
    pub(crate) fn new(
        origin: String,
        id: String,
        key: String,
        token: Option<String>,
    ) -> Result<Self, CredentialsError> {
        let unusable = |name: &str, cause: String| CredentialsError::Unusable {
            origin: origin.clone(),
            cause: format!("the {name} {cause}"),
        };
        for (name, value) in [("secret id", Some(&id)), ("secret key", Some(&key)), ("token", token.as_ref())]
        {
            let Some(value) = value else { continue };
            if value.is_empty() {
                return Err(unusable(name, "is empty".to_owned()));
            }
            if let Some(at) = value.chars().position(|c| c.is_whitespace()) {
                return Err(unusable(name, format!("has a blank or line break at character {}", at + 1)));
            }
            if !value.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(unusable(name, "has a character outside printable ASCII".to_owned()));
            }
        }
        Ok(Self {
            secret_id: id,
            secret_key: Secret::new(key),
            token: token.map(Secret::new),
            expires_at: None,
            origin,
        })
    }
}

/// No credentials: the attempts, their errors, and the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The selected source has none.
    #[error("no credentials in {origin}: {cause}; {next_step}")]
    Absent {
        /// The places that were read.
        origin: String,
        /// What is missing.
        cause: String,
        /// What to do.
        next_step: &'static str,
    },
    /// They exist and cannot be used.
    #[error("the credentials in {origin} cannot be used: {cause}; correct them there")]
    Unusable {
        /// The place where they were found.
        origin: String,
        /// What is wrong.
        cause: String,
    },
    /// No source has any.
    #[error(
        "no credentials found:\n  {};\nset TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY, or write \
         ~/.tencentcloud/credentials, or give the CVM a role, or use systemd's LoadCredential=secret_id and secret_key",
        tried.join(";\n  ")
    )]
    NoneFound {
        /// Each source with its cause.
        tried: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(id: &str, key: &str, token: Option<&str>) -> Result<Credentials, String> {
        Credentials::new("the test".into(), id.into(), key.into(), token.map(Into::into))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn blanks_are_named_and_never_shown() {
        for (id, key, token, words) in [
            (" id", "key", None, "the secret id has a blank or line break at character 1"),
            ("id ", "key", None, "the secret id has a blank or line break at character 3"),
            ("id", "k\ney", None, "the secret key has a blank or line break at character 2"),
            ("id", "key\u{a0}", None, "the secret key has a blank or line break at character 4"),
            ("id", "key\r", Some("t"), "the secret key has a blank or line break at character 4"),
            ("id", "key", Some("t t"), "the token has a blank or line break at character 2"),
            ("id", "schlüssel", None, "the secret key has a character outside printable ASCII"),
            ("id", "key\0", None, "the secret key has a character outside printable ASCII"),
            ("", "key", None, "the secret id is empty"),
            ("id", "", None, "the secret key is empty"),
        ] {
            let error = new(id, key, token).unwrap_err();
            assert_eq!(
                error,
                format!("the credentials in the test cannot be used: {words}; correct them there")
            );
        }
    }

    #[test]
    fn credentials_print_neither_key_nor_token() {
        let credentials = new("AKIDz8krbsJ5yKBZ", "the-key", Some("the-token")).unwrap();
        let shown = format!("{credentials:?}");
        assert!(shown.contains("AKIDz8kr***") && !shown.contains("the-"), "{shown}");
        assert!(!shown.contains("AKIDz8krb"), "{shown}");
    }

    #[test]
    fn a_pair_is_the_same_whatever_its_origin_and_expiry() {
        let one = new("id", "key", Some("t")).unwrap();
        let other = Credentials { origin: "elsewhere".into(), expires_at: Some(1), ..one.clone() };
        assert!(one.same_pair(&other));
        assert!(!one.same_pair(&new("id", "key", None).unwrap()));
        assert!(!one.same_pair(&new("id", "key2", Some("t")).unwrap()));
    }
}
