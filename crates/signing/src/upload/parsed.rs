//! The reader of upload signatures.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Grant, InvalidGrant, PARAMETERS, TaskNotifyMode};
use crate::digests::hmac_sha1_is;
use crate::percent::decode_form;

const MAC_BYTES: usize = 20;

/// Why a text is not an upload signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASignature {
    /// It is not base64.
    #[error("it is not base64")]
    Base64,
    /// It is too short to hold a MAC and a parameter.
    #[error("it is too short to hold a MAC and parameters")]
    Short,
    /// The MAC is in hex instead of 20 bytes.
    #[error("its MAC is in hex; the format is the 20 bytes of the MAC, then the parameters")]
    HexMac,
    /// The bytes after the MAC are not text.
    #[error("the bytes after its MAC are not text")]
    NotText,
}

/// A parsed signature. Only [`Signature::verify`] proves that it is genuine.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    mac: [u8; MAC_BYTES],
    original: String,
}

impl std::fmt::Debug for Signature {
    /// A signature is a bearer token, so it does not print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signature(***)")
    }
}

impl Signature {
    /// Parses a signature.
    ///
    /// # Errors
    ///
    /// The reason why the text is not a signature.
    pub fn parse(text: &str) -> Result<Self, NotASignature> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| NotASignature::Base64)?;
        let (mac, original) = bytes.split_first_chunk::<MAC_BYTES>().ok_or(NotASignature::Short)?;
        if bytes.len() > 2 * MAC_BYTES && bytes[..2 * MAC_BYTES].iter().all(u8::is_ascii_hexdigit) {
            return Err(NotASignature::HexMac);
        }
        if original.is_empty() {
            return Err(NotASignature::Short);
        }
        let original = std::str::from_utf8(original).map_err(|_| NotASignature::NotText)?;
        Ok(Self { mac: *mac, original: original.to_owned() })
    }

    /// The signed text.
    pub fn original(&self) -> &str {
        &self.original
    }

    /// Whether it was made with this key. The comparison takes constant time.
    pub fn verify(&self, secret_key: &str) -> bool {
        hmac_sha1_is(secret_key.as_bytes(), self.original.as_bytes(), &self.mac)
    }

    /// The parameters in their order, decoded. A value that cannot be decoded stays encoded.
    pub fn parameters(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        let decoded = |text| decode_form(text).map_or(Cow::Borrowed(text), Cow::Owned);
        let pairs = self.raw_pairs().map(|(name, value)| (decoded(name), decoded(value)));
        pairs.collect()
    }

    /// The parameters in their order, encoded.
    pub(super) fn raw_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.original.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The value of a parameter; the first one, if it occurs twice.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let found = self.parameters().into_iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    }

    /// Its permissions.
    ///
    /// # Errors
    ///
    /// When it breaks a rule of the documents. This method compares no times with a clock.
    pub fn grant(&self) -> Result<Grant, InvalidGrant> {
        let parameters = self.parameters();
        for (at, (name, _)) in parameters.iter().enumerate() {
            if !PARAMETERS.contains(&name.as_ref()) {
                return Err(InvalidGrant::Unknown(shown(name)));
            }
            if parameters[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(InvalidGrant::Repeated(shown(name)));
            }
        }
        let text = |name: &'static str| {
            let found = parameters.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.to_string())
        };
        let required = |name| text(name).ok_or(InvalidGrant::Missing(name));
        let seconds = |name| number(name, &required(name)?, "a number of seconds");
        let grant = Grant {
            secret_id: required("secretId")?,
            current_time_stamp: seconds("currentTimeStamp")?,
            expire_time: seconds("expireTime")?,
            random: number("random", &required("random")?, "a number from 0 to 4294967295")?,
            class_id: optional_number("classId", text("classId"), "a number")?,
            procedure: text("procedure"),
            task_priority: optional_number("taskPriority", text("taskPriority"), "a number from -10 to 10")?,
            task_notify_mode: chosen(
                "taskNotifyMode",
                text("taskNotifyMode"),
                TaskNotifyMode::from_name,
                "Finish, Change or None",
            )?,
            source_context: text("sourceContext"),
            one_time_valid: chosen("oneTimeValid", text("oneTimeValid"), zero_or_one, "0 or 1")?,
            sub_app_id: optional_number("vodSubAppId", text("vodSubAppId"), "a number")?,
            session_context: text("sessionContext"),
            storage_region: text("storageRegion"),
        };
        grant.check()?;
        Ok(grant)
    }
}

fn zero_or_one(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn number<N: std::str::FromStr>(
    name: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<N, InvalidGrant> {
    value.parse().map_err(|_| InvalidGrant::Value { name, value: shown(value), expected })
}

fn optional_number<N: std::str::FromStr>(
    name: &'static str,
    value: Option<String>,
    expected: &'static str,
) -> Result<Option<N>, InvalidGrant> {
    value.map(|value| number(name, &value, expected)).transpose()
}

fn chosen<T>(
    name: &'static str,
    value: Option<String>,
    choose: impl Fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<Option<T>, InvalidGrant> {
    let wrong = |value: &str| InvalidGrant::Value { name, value: shown(value), expected };
    value.map(|value| choose(&value).ok_or_else(|| wrong(&value))).transpose()
}

/// The start of a foreign value, for a message.
fn shown(value: &str) -> String {
    value.chars().take(40).collect()
}
