//! How a publish or a request to the cloud can end: types that the adapters and the core share.

use std::fmt;
use std::sync::Arc;

use crate::error_code::ErrorCode;

/// A problem of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its stable name.
    pub error_code: ErrorCode,
    /// The message of this case, for people, with the next step.
    pub message: Arc<str>,
}

impl Problem {
    /// A problem with this message.
    pub fn new(error_code: ErrorCode, message: impl Into<Arc<str>>) -> Self {
        Self { error_code, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.error_code)
    }
}

/// The outcome of one publish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an outcome that nobody looks at is a lost event"]
pub enum PublishOutcome {
    /// The broker has it: it acked a persistent, mandatory publish and did not return it.
    Acked,
    /// The broker takes no responsibility. One of several queues may have stored it: a repeat is possible.
    Nacked,
    /// No queue is bound for it: the broker returned it.
    Returned {
        /// AMQP reply code (312 is NO_ROUTE).
        code: u16,
        /// The broker's words.
        text: Arc<str>,
    },
    /// The broker closed the channel because of this publish.
    ChannelError {
        /// AMQP reply code (403, 404, 406 ...).
        code: u16,
        /// The broker's words.
        text: Arc<str>,
    },
    /// No answer: it may or may not be stored. It must be published again under the same message id.
    Unknown {
        /// Why there is no answer.
        message: Arc<str>,
        /// Whether another message of the batch was refused, so the cause must be found by publishing alone.
        suspect: bool,
    },
    /// It never left this process.
    Unsent,
}

impl PublishOutcome {
    /// The outcome's name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Nacked => "nacked",
            Self::Returned { .. } => "returned",
            Self::ChannelError { .. } => "channel_error",
            Self::Unknown { .. } => "unknown",
            Self::Unsent => "unsent",
        }
    }

    /// Whether the broker answered.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Acked | Self::Nacked | Self::Returned { .. } | Self::ChannelError { .. } => true,
            Self::Unknown { .. } | Self::Unsent => false,
        }
    }

    /// Why the broker does not have it, if it refused it or did not answer.
    pub fn error_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Acked | Self::Unsent => None,
            Self::Nacked => Some(ErrorCode::PublishNacked),
            Self::Returned { .. } => Some(ErrorCode::PublishReturned),
            Self::ChannelError { .. } => Some(ErrorCode::PublishRefused),
            Self::Unknown { .. } => Some(ErrorCode::PublishUnanswered),
        }
    }
}

/// Whether the output can take events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputState {
    /// Connected, topology proven, not blocked.
    Up,
    /// The broker refuses publishes for now (`connection.blocked`): a memory or disk alarm.
    Blocked(Problem),
    /// Not connected, or the topology is wrong.
    Down(Problem),
}

/// Whether the journal can commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// The last commit succeeded.
    Up,
    /// Commits fail (disk full, I/O error); the writer keeps its work and tries again.
    Down(Problem),
}

/// The kind of a failed request to the cloud, by what the caller will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestFailure {
    /// Too many requests: slow down.
    Throttled,
    /// The cloud does not accept the credentials.
    Credentials,
    /// The signature's time stamp is out of bounds.
    Clock,
    /// The network or the cloud failed. The request may or may not have had an effect.
    Transient,
    /// The cloud understood the request and rejects its content.
    Refused,
    /// The account or the configuration is wrong. It needs an operator.
    Configuration,
}

impl RequestFailure {
    /// The failure's name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Credentials => "credentials",
            Self::Clock => "clock",
            Self::Transient => "transient",
            Self::Refused => "refused",
            Self::Configuration => "configuration",
        }
    }

    /// The problem of a lasting failure.
    pub fn error_code(self) -> ErrorCode {
        match self {
            Self::Throttled => ErrorCode::Throttled,
            Self::Credentials => ErrorCode::CredentialsRejected,
            Self::Clock => ErrorCode::ClockWrong,
            Self::Transient => ErrorCode::CloudUnreachable,
            Self::Refused => ErrorCode::RequestRejected,
            Self::Configuration => ErrorCode::AccountWrong,
        }
    }
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
