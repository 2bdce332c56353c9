//! The signature that lets a client upload: what it grants, made by whoever has the secret key, and read again.
//!
//! `base64(HMAC-SHA1(secret key, original) ‖ original)`, where `original` is a query string. It is a bearer token: whoever has
//! it can do what it grants until it expires.
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

/// The longest life, in seconds: 90 days.
pub const MAX_LIFE: i64 = 7_776_000;

/// The longest `sourceContext`, in characters.
pub const MAX_SOURCE_CONTEXT: usize = 250;

/// The longest `sessionContext`, in characters.
pub const MAX_SESSION_CONTEXT: usize = 1_000;

/// The highest `taskPriority`; the lowest is its negative.
pub const MAX_TASK_PRIORITY: i8 = 10;

/// Every parameter of the documents, in the order in which they are written.
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
    /// Once, when all of it is done.
    Finish,
    /// Whenever something of it is done.
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

/// What a signature grants. Each parameter stands in it once, because it has one place here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `secretId`. Anybody can read it in the signature.
    pub secret_id: String,
    /// `currentTimeStamp`: when it was made, in seconds since the Unix epoch.
    pub current_time_stamp: i64,
    /// `expireTime`: until when it can be used, in seconds since the Unix epoch; at most [`MAX_LIFE`] later.
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
    /// `oneTimeValid`: whether it can be used once only.
    pub one_time_valid: Option<bool>,
    /// `vodSubAppId`: the sub-application.
    pub sub_app_id: Option<u64>,
    /// `sessionContext`: comes back in the events of the procedure.
    pub session_context: Option<String>,
    /// `storageRegion`: where the media is stored.
    pub storage_region: Option<String>,
}

/// Why a grant cannot be signed, or a signature grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrant {
    /// A parameter is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A parameter has no value; it is left out where nothing is meant.
    #[error("{0} is empty; leave it out instead")]
    Empty(&'static str),
    /// A parameter stands twice.
    #[error("{0:?} stands more than once")]
    Repeated(String),
    /// A parameter that the documents do not have.
    #[error("{0:?} is no parameter of an upload signature")]
    Unknown(String),
    /// A value that is none of those that the parameter has.
    #[error("{name} is {value:?}; it has to be {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// Its value, cut where it is very long.
        value: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// A text that is too long. It is not cut: half of a context is another context.
    #[error("{name} has {characters} characters; {most} are allowed")]
    TooLong {
        /// The parameter.
        name: &'static str,
        /// How many characters it has.
        characters: usize,
        /// How many it may have.
        most: usize,
    },
    /// It would hold for too long.
    #[error("expireTime is {0} s after currentTimeStamp; 7776000 s (90 days) are allowed")]
    LifeTooLong(i64),
    /// It would never hold.
    #[error("expireTime is not after currentTimeStamp")]
    NoLife,
}

impl Grant {
    /// A grant of what has to be granted, and nothing more.
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

    /// The text that is signed. Every value is encoded, so that none of them can bring in another parameter.
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

/// The operating system has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no random number")]
pub struct NoRandom(#[source] getrandom::Error);

/// A number for `random`, from the operating system: nobody can guess it, and two processes do not make the same ones.
///
/// # Errors
///
/// When the operating system has none.
pub fn random() -> Result<u32, NoRandom> {
    getrandom::u32().map_err(NoRandom)
}

#[cfg(test)]
mod tests;
