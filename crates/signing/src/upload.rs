//! The signature with which a client uploads. The owner of the secret key makes it; it lists what the client may do.
//!
//! `base64(HMAC-SHA1(secret key, original) ‖ original)`, where `original` is a query string. It is a bearer token:
//! every holder can use it until it expires.
//!
//! Parameters and limits: Tencent Cloud VOD, "Signature for client upload".

mod findings;
mod parsed;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use self::findings::Finding;
pub use self::parsed::{NotASignature, Signature};
use crate::digests::hmac_sha1;
use crate::percent::encode;
use crate::tc3::sha256_hex;

/// The longest life, in seconds: 90 days.
pub const MAX_LIFE: i64 = 7_776_000;

/// The longest `sourceContext`, in characters.
pub const MAX_SOURCE_CONTEXT: usize = 250;

/// The longest `sessionContext`, in characters.
pub const MAX_SESSION_CONTEXT: usize = 1_000;

/// The highest `taskPriority`; the lowest is its negative.
pub const MAX_TASK_PRIORITY: i8 = 10;

/// Every parameter of the documents, in the order in which [`Grant::original`] writes them.
pub const PARAMETERS: [&str; 13] = [
    "secretId",
    "currentTimeStamp",
    "expireTime",
    "random",
    "classId",
    "procedure",
    "taskPriority",
    "taskNotifyMode",
    "sourceContext",
    "oneTimeValid",
    "vodSubAppId",
    "sessionContext",
    "storageRegion",
];

/// When a procedure sends events: `taskNotifyMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskNotifyMode {
    /// Once, at its end.
    Finish,
    /// After each of its tasks.
    Change,
    /// Never.
    None,
}

impl TaskNotifyMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Finish, Self::Change, Self::None];

    /// The value in the signature.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finish => "Finish",
            Self::Change => "Change",
            Self::None => "None",
        }
    }

    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// The permissions in a signature. Each parameter has one field, so it occurs once in the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `secretId`. It is readable in the signature.
    pub secret_id: String,
    /// `currentTimeStamp`: the time of signing, in seconds since the Unix epoch.
    pub current_time_stamp: i64,
    /// `expireTime`: the end of its life, in seconds since the Unix epoch; at most [`MAX_LIFE`] later.
    pub expire_time: i64,
    /// `random`: [`random`] makes one.
    pub random: u32,
    /// `classId`: the category of the media.
    pub class_id: Option<i64>,
    /// `procedure`: the task flow that starts after the upload.
    pub procedure: Option<String>,
    /// `taskPriority` of the procedure.
    pub task_priority: Option<i8>,
    /// `taskNotifyMode` of the procedure.
    pub task_notify_mode: Option<TaskNotifyMode>,
    /// `sourceContext`: comes back in the event of the upload.
    pub source_context: Option<String>,
    /// `oneTimeValid`: whether it is valid for one use only.
    pub one_time_valid: Option<bool>,
    /// `vodSubAppId`: the sub-application.
    pub sub_app_id: Option<u64>,
    /// `sessionContext`: comes back in the events of the procedure.
    pub session_context: Option<String>,
    /// `storageRegion`: where the media is stored.
    pub storage_region: Option<String>,
}

/// Why a grant is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrant {
    /// A parameter is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A parameter has an empty value.
    #[error("{0} is empty; leave it out instead")]
    Empty(&'static str),
    /// A parameter occurs twice.
    #[error("{0:?} stands more than once")]
    Repeated(String),
    /// A parameter that the documents do not have.
    #[error("{0:?} is no parameter of an upload signature")]
    Unknown(String),
    /// A value outside the parameter's values.
    #[error("{name} is {value:?}; it has to be {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// The start of its value.
        value: String,
        /// The valid values.
        expected: &'static str,
    },
    /// A text is too long. The code refuses it and never cuts it, because half of a context is another context.
    #[error("{name} has {characters} characters; {most} are allowed")]
    TooLong {
        /// The parameter.
        name: &'static str,
        /// Its length in characters.
        characters: usize,
        /// The limit.
        most: usize,
    },
    /// Its life is longer than [`MAX_LIFE`].
    #[error("expireTime is {0} s after currentTimeStamp; 7776000 s (90 days) are allowed")]
    LifeTooLong(i64),
    /// It ends before it begins.
    #[error("expireTime is not after currentTimeStamp")]
    NoLife,
}

impl Grant {
    /// A grant with the required parameters only.
    pub fn new(secret_id: impl Into<String>, current_time_stamp: i64, expire_time: i64, random: u32) -> Self {
        Self {
            secret_id: secret_id.into(),
            current_time_stamp,
            expire_time,
            random,
            class_id: None,
            procedure: None,
            task_priority: None,
            task_notify_mode: None,
            source_context: None,
            one_time_valid: None,
            sub_app_id: None,
            session_context: None,
            storage_region: None,
        }
    }

    /// Checks every limit of the documents.
    ///
    /// # Errors
    ///
    /// Names the parameter that breaks one.
    pub fn check(&self) -> Result<(), InvalidGrant> {
        let life = self.expire_time.saturating_sub(self.current_time_stamp);
        if life <= 0 {
            return Err(InvalidGrant::NoLife);
        }
        if life > MAX_LIFE {
            return Err(InvalidGrant::LifeTooLong(life));
        }
        let texts = [
            ("secretId", Some(&self.secret_id), usize::MAX),
            ("procedure", self.procedure.as_ref(), usize::MAX),
            ("sourceContext", self.source_context.as_ref(), MAX_SOURCE_CONTEXT),
            ("sessionContext", self.session_context.as_ref(), MAX_SESSION_CONTEXT),
            ("storageRegion", self.storage_region.as_ref(), usize::MAX),
        ];
        for (name, text, most) in texts {
            let Some(text) = text else { continue };
            let characters = text.chars().count();
            if characters == 0 {
                return Err(InvalidGrant::Empty(name));
            }
            if characters > most {
                return Err(InvalidGrant::TooLong { name, characters, most });
            }
        }
        match self.task_priority {
            Some(priority) if priority.unsigned_abs() > MAX_TASK_PRIORITY.unsigned_abs() => {
                Err(InvalidGrant::Value {
                    name: "taskPriority",
                    value: priority.to_string(),
                    expected: "a number from -10 to 10",
                })
            }
            _ => Ok(()),
        }
    }

    /// The signed text. Every value is encoded, so no value can add a parameter.
    pub fn original(&self) -> String {
        let values = [
            Some(self.secret_id.clone()),
            Some(self.current_time_stamp.to_string()),
            Some(self.expire_time.to_string()),
            Some(self.random.to_string()),
            self.class_id.map(|id| id.to_string()),
            self.procedure.clone(),
            self.task_priority.map(|priority| priority.to_string()),
            self.task_notify_mode.map(|mode| mode.name().to_owned()),
            self.source_context.clone(),
            self.one_time_valid.map(|once| u8::from(once).to_string()),
            self.sub_app_id.map(|id| id.to_string()),
            self.session_context.clone(),
            self.storage_region.clone(),
        ];
        let given = PARAMETERS.iter().zip(&values).filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        pairs.join("&")
    }

    /// The signature, as a client sends it.
    ///
    /// # Errors
    ///
    /// When the grant breaks a limit of the documents: see [`Grant::check`].
    pub fn sign(&self, secret_key: &str) -> Result<String, InvalidGrant> {
        self.check()?;
        Ok(seal(secret_key, &self.original()))
    }
}

fn seal(secret_key: &str, original: &str) -> String {
    let mut bytes = hmac_sha1(secret_key.as_bytes(), original.as_bytes()).to_vec();
    bytes.extend_from_slice(original.as_bytes());
    STANDARD.encode(bytes)
}

/// The operating system returned no random number.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no random number")]
pub struct NoRandom(#[source] getrandom::Error);

impl NoRandom {
    pub(crate) fn from_source(source: getrandom::Error) -> Self {
        Self(source)
    }
}

/// A number for `random`, from the operating system, so that nobody can guess it.
///
/// # Errors
///
/// When the operating system returns none.
pub fn random() -> Result<u32, NoRandom> {
    getrandom::u32().map_err(NoRandom)
}

/// Names a signature where it must not stand itself, such as in a log: its SHA-256, in lower-case hex.
pub fn digest(signature: &str) -> String {
    sha256_hex(signature.as_bytes())
}

#[cfg(test)]
mod tests;
