//! The meaning of a failed request: the cloud's `Code`, by what the caller will do.
//!
//! The cloud's documents say to act on `Code`, and that `Message` is for people and not stable; HTTP 200 comes with errors
//! too ("Common error codes" of API 3.0, and the error list of each call).

use std::fmt;

use vodrelay_host::descriptors;

use crate::credentials::Credentials;

/// The requests that this client makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Take up to 16 events from the queue.
    PullEvents,
    /// Make the cloud forget the events behind up to 16 handles.
    ConfirmEvents,
    /// How many events wait; the figure is about three minutes late.
    DescribeEventsState,
    /// How the callbacks are configured.
    DescribeEventConfig,
    /// Where a file may be uploaded to, and with which temporary key.
    ApplyUpload,
    /// The file is there: make it a medium.
    CommitUpload,
    /// Which segments a playlist names.
    ParseStreamingManifest,
    /// Where an application can store.
    DescribeStorageRegions,
}

impl Action {
    /// The value of `X-TC-Action`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PullEvents => "PullEvents",
            Self::ConfirmEvents => "ConfirmEvents",
            Self::DescribeEventsState => "DescribeEventsState",
            Self::DescribeEventConfig => "DescribeEventConfig",
            Self::ApplyUpload => "ApplyUpload",
            Self::CommitUpload => "CommitUpload",
            Self::ParseStreamingManifest => "ParseStreamingManifest",
            Self::DescribeStorageRegions => "DescribeStorageRegions",
        }
    }
}

/// The kind of a failed request, by what the caller will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
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

impl FailureKind {
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
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// What the caller should do about it.
    pub failure: FailureKind,
    /// The cloud's `Code`, which starts with a capital, or one of our own words, which do not: `connect`,
    /// `tls`, `timeout`, `deadline`, `connection_lost`, `http_502`, `encoded`, `not_json`, `not_an_answer`,
    /// `too_large`, `credentials`, `no_code`. Bounded and printable: fit to be a metric's label.
    pub code: String,
    /// The cloud's words or ours, bounded and on one line.
    pub message: String,
    /// The cloud's id of the request; absent when the request never reached the platform.
    pub request_id: Option<String>,
    /// The call.
    pub action: Action,
    /// Whether the request may have had an effect. `false` only on proof: nothing was sent, or the cloud
    /// refused the request before any effect.
    pub may_have_acted: bool,
}

impl RequestError {
    /// An error in the cloud's envelope.
    pub(crate) fn from_cloud(action: Action, code: &str, message: &str, request_id: Option<String>) -> Self {
        let failure = classify(action, code);
        let at_the_door =
            matches!(failure, FailureKind::Throttled | FailureKind::Credentials | FailureKind::Clock);
        Self {
            failure,
            code: label(code),
            message: one_line(message),
            request_id,
            action,
            may_have_acted: !at_the_door,
        }
    }

    /// A failure that this client found, under one of our own words.
    pub(crate) fn own(action: Action, failure: FailureKind, code: &str, message: impl Into<String>) -> Self {
        let message = one_line(&message.into());
        Self { failure, code: code.to_owned(), message, request_id: None, action, may_have_acted: true }
    }

    /// The same, on proof that the request had no effect.
    pub(crate) fn not_acted(mut self) -> Self {
        self.may_have_acted = false;
        self
    }

    /// The same with the key, when the cloud refuses it: several sources can have one.
    pub(crate) fn about_key(mut self, credentials: &Credentials) -> Self {
        if self.failure == FailureKind::Credentials || self.is_denial() {
            self.message += &format!(" (the key {} from {})", credentials.masked_id(), credentials.origin);
        }
        self
    }

    /// Whether access management denied the call: the cloud knows the key, and the key lacks the right.
    pub fn is_denial(&self) -> bool {
        head(&self.code) == "UnauthorizedOperation" || is_cam_denial(&self.code)
    }

    /// What an operator can do about it.
    pub fn next_step(&self) -> Option<&'static str> {
        let step = match (self.failure, self.code.as_str()) {
            (_, "credentials") => return None,
            (_, "FailedOperation.InvalidVodUser") => "activate VOD for the account that owns this key",
            (_, "FailedOperation.InvalidAccount" | "ResourceNotFound.UserNotExist") => {
                "check that the key belongs to the account that uses VOD"
            }
            (_, "FailedOperation.UserStatusInavlid" | "FailedOperation.UserStatusInvalid") => {
                "check the account's status and balance in the console"
            }
            (_, "InvalidParameterValue.SubAppId") => "check the sub-application ids in the configuration",
            (_, "IpInBlacklist" | "IpNotInWhitelist") => {
                "allow this host's address in the key's access settings in the console"
            }
            (_, "tls") => {
                "check the endpoint's name, the host's clock and its certificate store (package ca-certificates)"
            }
            (_, "files") => descriptors::NEXT_STEP,
            (_, "connect") => "check the endpoint, DNS, and proxies and firewalls between",
            (FailureKind::Credentials, _) => {
                "check that secret id, secret key and token belong together and are enabled"
            }
            (FailureKind::Clock, _) => "set the host's clock, and keep it set with NTP",
            (FailureKind::Configuration, _) if self.is_denial() => match self.action {
                Action::ApplyUpload | Action::CommitUpload => {
                    "grant the key vod:ApplyUpload and vod:CommitUpload"
                }
                Action::ParseStreamingManifest => "grant the key vod:ParseStreamingManifest",
                Action::DescribeStorageRegions => "grant the key vod:DescribeStorageRegions",
                Action::PullEvents
                | Action::ConfirmEvents
                | Action::DescribeEventsState
                | Action::DescribeEventConfig => {
                    "grant the key vod:PullEvents, vod:ConfirmEvents, vod:DescribeEventsState and vod:DescribeEventConfig"
                }
            },
            (FailureKind::Configuration, _) => {
                "check the endpoint and the sub-application ids in the configuration"
            }
            _ => return None,
        };
        Some(step)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({}): {}", self.action.name(), self.code, self.message)?;
        if let Some(id) = &self.request_id {
            write!(f, " [request {id}]")?;
        }
        match self.next_step() {
            Some(step) => write!(f, "; {step}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RequestError {}

/// The meaning of an error code for the caller: the exact code first, then the part up to the first dot.
///
/// Source of the codes: the common table of API 3.0 and the error lists of the four calls. Where they leave room:
///
/// - A denial by access management (`UnauthorizedOperation`) is [`FailureKind::Configuration`]: the cloud knew the key and
///   believed it, so that reading it again cannot help; only an operator can grant the right.
/// - `ConfirmEvents` does not say how it rejects a late or unknown handle, so that every complaint about the content, and
///   the plain `FailedOperation`, is [`FailureKind::Refused`] there: the caller halves the batch until the bad handle stands
///   alone. The documents' own number for it, 4000, is from API 2.0 and is taken for the same.
/// - An unknown code is [`FailureKind::Transient`]: trying again, slower and slower, is the reaction that loses nothing.
pub fn classify(action: Action, code: &str) -> FailureKind {
    let content = match action {
        Action::ConfirmEvents => FailureKind::Refused,
        // What an upload says is a person's choice, and no other attempt changes it.
        Action::ApplyUpload | Action::CommitUpload | Action::ParseStreamingManifest => FailureKind::Refused,
        Action::PullEvents
        | Action::DescribeEventsState
        | Action::DescribeEventConfig
        | Action::DescribeStorageRegions => FailureKind::Configuration,
    };
    match code {
        "AuthFailure.SignatureExpire" => return FailureKind::Clock,
        "FailedOperation.InvalidVodUser"
        | "FailedOperation.InvalidAccount"
        | "FailedOperation.UserStatusInavlid"
        | "FailedOperation.UserStatusInvalid"
        | "InvalidParameterValue.SubAppId"
        | "ResourceNotFound.UserNotExist" => return FailureKind::Configuration,
        _ if is_cam_denial(code) => return FailureKind::Configuration,
        _ => {}
    }
    match head(code) {
        "RequestLimitExceeded" | "LimitExceeded" => FailureKind::Throttled,
        "AuthFailure" => FailureKind::Credentials,
        "UnauthorizedOperation"
        | "InvalidAction"
        | "NoSuchProduct"
        | "NoSuchVersion"
        | "UnsupportedProtocol"
        | "UnsupportedRegion"
        | "UnsupportedOperation"
        | "ActionOffline"
        | "IpInBlacklist"
        | "IpNotInWhitelist" => FailureKind::Configuration,
        "InvalidParameter"
        | "InvalidParameterValue"
        | "MissingParameter"
        | "UnknownParameter"
        | "InvalidRequest"
        | "RequestSizeLimitExceeded"
        | "DryRunOperation"
        | "ResourceInUse"
        | "ResourceNotFound"
        | "4000" => content,
        "FailedOperation" if action == Action::ConfirmEvents => FailureKind::Refused,
        // InternalError, ServiceUnavailable, ResourceUnavailable, ResourceInsufficient, ResponseSizeLimitExceeded, the plain
        // FailedOperation, and whatever is new.
        _ => FailureKind::Transient,
    }
}

fn is_cam_denial(code: &str) -> bool {
    code == "AuthFailure.UnauthorizedOperation"
}

fn head(code: &str) -> &str {
    code.split_once('.').map_or(code, |(head, _)| head)
}

/// A code as a label. The cloud's text must not decide about a metric's cardinality or a log line's form.
fn label(code: &str) -> String {
    const LONGEST: usize = 100;
    let label: String = code.chars().filter(char::is_ascii_graphic).take(LONGEST).collect();
    if label.is_empty() { "no_code".to_owned() } else { label }
}

/// Text from outside on one bounded line.
pub(crate) fn one_line(text: &str) -> String {
    const LONGEST: usize = 500;
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = shown.clone().take(LONGEST).collect();
    if shown.count() > LONGEST {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::*;

    #[test]
    fn every_code_of_the_common_table_has_its_meaning() {
        // Code, its meaning for PullEvents, its meaning for ConfirmEvents.
        let table = [
            ("AuthFailure.InvalidSecretId", Credentials, Credentials),
            ("AuthFailure.SecretIdNotFound", Credentials, Credentials),
            ("AuthFailure.SignatureFailure", Credentials, Credentials),
            ("AuthFailure.TokenFailure", Credentials, Credentials),
            ("AuthFailure.MFAFailure", Credentials, Credentials),
            ("AuthFailure.InvalidAuthorization", Credentials, Credentials),
            ("AuthFailure.SomethingNew", Credentials, Credentials),
            ("AuthFailure", Credentials, Credentials),
            ("AuthFailure.SignatureExpire", Clock, Clock),
            ("AuthFailure.UnauthorizedOperation", Configuration, Configuration),
            ("UnauthorizedOperation", Configuration, Configuration),
            ("UnauthorizedOperation.CamNoAuth", Configuration, Configuration),
            ("RequestLimitExceeded", Throttled, Throttled),
            ("RequestLimitExceeded.UinLimitExceeded", Throttled, Throttled),
            ("RequestLimitExceeded.GlobalRegionUinLimitExceeded", Throttled, Throttled),
            ("RequestLimitExceeded.IPLimitExceeded", Throttled, Throttled),
            ("LimitExceeded", Throttled, Throttled),
            ("InternalError", Transient, Transient),
            ("InternalError.DBError", Transient, Transient),
            ("ServiceUnavailable", Transient, Transient),
            ("ResourceUnavailable", Transient, Transient),
            ("ResourceInsufficient", Transient, Transient),
            ("ResponseSizeLimitExceeded", Transient, Transient),
            ("FailedOperation", Transient, Refused),
            ("FailedOperation.SomethingNew", Transient, Refused),
            ("FailedOperation.InvalidVodUser", Configuration, Configuration),
            ("FailedOperation.InvalidAccount", Configuration, Configuration),
            ("FailedOperation.UserStatusInavlid", Configuration, Configuration),
            ("InvalidParameter", Configuration, Refused),
            ("InvalidParameterValue", Configuration, Refused),
            ("InvalidParameterValue.EventHandle", Configuration, Refused),
            ("InvalidParameterValue.SubAppId", Configuration, Configuration),
            ("MissingParameter", Configuration, Refused),
            ("UnknownParameter", Configuration, Refused),
            ("InvalidRequest", Configuration, Refused),
            ("RequestSizeLimitExceeded", Configuration, Refused),
            ("ResourceNotFound", Configuration, Refused),
            ("ResourceNotFound.UserNotExist", Configuration, Configuration),
            ("ResourceInUse", Configuration, Refused),
            ("DryRunOperation", Configuration, Refused),
            ("InvalidAction", Configuration, Configuration),
            ("NoSuchProduct", Configuration, Configuration),
            ("NoSuchVersion", Configuration, Configuration),
            ("UnsupportedProtocol", Configuration, Configuration),
            ("UnsupportedRegion", Configuration, Configuration),
            ("UnsupportedOperation", Configuration, Configuration),
            ("ActionOffline", Configuration, Configuration),
            ("IpInBlacklist", Configuration, Configuration),
            ("IpNotInWhitelist", Configuration, Configuration),
            ("4000", Configuration, Refused),
            ("SomethingNew", Transient, Transient),
            ("SomethingNew.WithAReason", Transient, Transient),
            ("requestlimitexceeded", Transient, Transient),
            ("", Transient, Transient),
        ];
        for (code, pull, confirm) in table {
            assert_eq!(classify(Action::PullEvents, code), pull, "PullEvents {code}");
            assert_eq!(classify(Action::DescribeEventConfig, code), pull, "DescribeEventConfig {code}");
            assert_eq!(classify(Action::ConfirmEvents, code), confirm, "ConfirmEvents {code}");
        }
    }

    #[test]
    fn an_error_reads_alone_and_ends_in_the_next_step() {
        let error = RequestError::from_cloud(
            Action::PullEvents,
            "UnauthorizedOperation",
            "no\nright",
            Some("r-1".into()),
        );
        assert_eq!(
            error.to_string(),
            "PullEvents failed (UnauthorizedOperation): no right [request r-1]; grant the key vod:PullEvents, \
             vod:ConfirmEvents, vod:DescribeEventsState and vod:DescribeEventConfig"
        );
    }

    #[test]
    fn only_what_was_turned_away_at_the_door_certainly_did_nothing() {
        let acted = |code| RequestError::from_cloud(Action::ConfirmEvents, code, "", None).may_have_acted;
        assert!(!acted("RequestLimitExceeded"));
        assert!(!acted("AuthFailure.SignatureFailure"));
        assert!(!acted("AuthFailure.SignatureExpire"));
        assert!(acted("InternalError"));
        assert!(acted("InvalidParameterValue"), "a mixed batch may have been confirmed in part");
    }

    #[test]
    fn text_from_outside_is_bounded() {
        let long = "x\u{7}é".repeat(1_000);
        let error = RequestError::from_cloud(Action::PullEvents, &long, &long, None);
        assert_eq!(error.code.len(), 100);
        assert_eq!(error.message.chars().count(), 501);
        assert!(!error.message.contains('\u{7}'));
    }
}
