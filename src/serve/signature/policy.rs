//! What a caller may have in a signature. It decides and does nothing else: values in, values out.

use std::time::Duration;

use tencentcloud_signing::upload::{Grant, InvalidGrant, TaskNotifyMode};

use super::request::Wanted;
use super::template::ContextTemplate;

/// What a caller may choose of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    /// The value that always stands in the signature, whatever the request says.
    pub fixed: Option<T>,
    /// What the request may say.
    pub allowed: Allowed<T>,
}

/// The values that a request may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed<T> {
    /// These; none at all when the list is empty.
    These(Vec<T>),
    /// Any value.
    Any,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Self { fixed: None, allowed: Allowed::These(Vec::new()) }
    }
}

impl<T: Clone + PartialEq> Choice<T> {
    /// The value for the signature.
    fn decide(&self, name: &'static str, wanted: Option<T>) -> Result<Option<T>, PolicyRefusal> {
        if let Some(fixed) = &self.fixed {
            return Ok(Some(fixed.clone()));
        }
        match (&self.allowed, wanted) {
            (_, None) => Ok(None),
            (Allowed::Any, wanted) => Ok(wanted),
            (Allowed::These(values), Some(value)) if values.contains(&value) => Ok(Some(value)),
            (Allowed::These(values), Some(_)) if values.is_empty() => Err(PolicyRefusal::NotChosenHere(name)),
            (Allowed::These(_), Some(_)) => Err(PolicyRefusal::NotAllowed(name)),
        }
    }
}

/// Whether a signature can be used once only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OneTimeRule {
    /// It never can; a request that wants it is refused, because it would get less than it asks for.
    #[default]
    Never,
    /// Always, whatever the request says.
    Always,
    /// As the request says.
    Request,
}

/// What one caller may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerPolicy {
    /// `vodSubAppId`; 0 is the default application, which has no parameter.
    pub sub_app_id: Choice<u64>,
    /// `procedure`.
    pub procedure: Choice<String>,
    /// `classId`.
    pub class_id: Choice<i64>,
    /// `storageRegion`.
    pub storage_region: Choice<String>,
    /// `taskPriority`.
    pub task_priority: Choice<i8>,
    /// `taskNotifyMode`.
    pub task_notify_mode: Choice<TaskNotifyMode>,
    /// `sourceContext`.
    pub source_context: ContextTemplate,
    /// `sessionContext`.
    pub session_context: ContextTemplate,
    /// `oneTimeValid`.
    pub one_time: OneTimeRule,
    /// How long a signature holds when the request does not say.
    pub expiry: Duration,
    /// How long it may hold at most.
    pub expiry_max: Duration,
}

impl Default for CallerPolicy {
    /// Nothing may be chosen but the contexts, and a signature holds for ten minutes.
    fn default() -> Self {
        Self {
            sub_app_id: Choice::default(),
            procedure: Choice::default(),
            class_id: Choice::default(),
            storage_region: Choice::default(),
            task_priority: Choice::default(),
            task_notify_mode: Choice::default(),
            source_context: ContextTemplate::of_the_request(),
            session_context: ContextTemplate::of_the_request(),
            one_time: OneTimeRule::Never,
            expiry: Duration::from_secs(600),
            expiry_max: Duration::from_secs(600),
        }
    }
}

/// Why a request gets no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    /// The caller's policy has no choice for the parameter.
    #[error("{0} is not chosen by this caller; leave it out")]
    NotChosenHere(&'static str),
    /// The value is none of those that the policy allows.
    #[error("{0} has a value that this caller may not have")]
    NotAllowed(&'static str),
    /// The signature would hold for too long.
    #[error("ttl is {wanted} s; this caller may ask for {most} s at most")]
    TooLong {
        /// What was asked for.
        wanted: u64,
        /// What is allowed.
        most: u64,
    },
    /// A signature for one use was asked for, and there are none.
    #[error("oneTimeValid is not offered to this caller; leave it out, or have its policy changed")]
    NotOnce,
    /// A context without which the signature would not tell who uploads.
    #[error("{0} is missing; this caller has to say it")]
    Missing(&'static str),
    /// What the documents of the cloud do not allow.
    #[error(transparent)]
    Invalid(InvalidGrant),
}

impl PolicyRefusal {
    /// The member of the request that is the cause, if it is one.
    pub fn parameter(&self) -> Option<&'static str> {
        match self {
            Self::NotChosenHere(name) | Self::NotAllowed(name) | Self::Missing(name) => Some(name),
            Self::TooLong { .. } => Some("ttl"),
            Self::NotOnce => Some("oneTimeValid"),
            Self::Invalid(
                InvalidGrant::Empty(name)
                | InvalidGrant::TooLong { name, .. }
                | InvalidGrant::Value { name, .. },
            ) => Some(name),
            Self::Invalid(_) => None,
        }
    }

    /// Whether the request is wrong for everybody. Otherwise it is this caller's policy that refuses.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Invalid(_))
    }
}

/// Who signs, when, and with which number.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The signing key's id.
    pub secret_id: &'a str,
    /// Seconds since the Unix epoch.
    pub now: i64,
    /// The signature's `random`.
    pub random: u32,
}

impl CallerPolicy {
    /// What the signature for this request grants.
    ///
    /// # Errors
    ///
    /// Why the request is refused.
    pub fn grant(&self, caller: &str, wanted: Wanted, stamp: Stamp<'_>) -> Result<Grant, PolicyRefusal> {
        let life = wanted.ttl.unwrap_or(self.expiry.as_secs());
        let most = self.expiry_max.as_secs();
        if life > most {
            return Err(PolicyRefusal::TooLong { wanted: life, most });
        }
        // It is at most what the policy has, which is far from the end of the numbers.
        let expires = stamp.now.saturating_add(i64::try_from(life).unwrap_or(i64::MAX));
        let grant = Grant {
            class_id: self.class_id.decide("classId", wanted.class_id)?,
            procedure: self.procedure.decide("procedure", wanted.procedure)?,
            task_priority: self.task_priority.decide("taskPriority", wanted.task_priority)?,
            task_notify_mode: self.task_notify_mode.decide("taskNotifyMode", wanted.task_notify_mode)?,
            source_context: self.source_context.fill("sourceContext", caller, wanted.source_context)?,
            one_time_valid: self.one_time(wanted.one_time_valid)?,
            sub_app_id: self.sub_app_id.decide("subAppId", wanted.sub_app_id)?.filter(|id| *id != 0),
            session_context: self.session_context.fill("sessionContext", caller, wanted.session_context)?,
            storage_region: self.storage_region.decide("storageRegion", wanted.storage_region)?,
            ..Grant::new(stamp.secret_id, stamp.now, expires, stamp.random)
        };
        grant.check().map_err(PolicyRefusal::Invalid)?;
        Ok(grant)
    }

    fn one_time(&self, wanted: Option<bool>) -> Result<Option<bool>, PolicyRefusal> {
        match (self.one_time, wanted) {
            (OneTimeRule::Always, _) => Ok(Some(true)),
            (OneTimeRule::Request, wanted) => Ok(wanted),
            (OneTimeRule::Never, Some(true)) => Err(PolicyRefusal::NotOnce),
            (OneTimeRule::Never, _) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
