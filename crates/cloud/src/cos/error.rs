//! What a failed request to the object storage means: the service's code, turned into what the caller will do about it.
//!
//! Source: "Error codes" and "403 error for COS access" of the object storage. The two disagree about `RequestTimeTooSkewed`,
//! `Request has expired`, `InvalidAccessKeyId` and `SignatureDoesNotMatch`: one lists them as codes, the other as the message
//! of the code `AccessDenied`. Both forms are read.

use std::fmt;

use super::documents::ErrorDocument;
use super::operation::Operation;
use crate::classify::one_line;

/// What kind of failure it is, by what the caller will do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageFailure {
    /// The service or the network failed, or the link is slow. The same request can be sent again after a moment; with
    /// `slow_down` fewer at a time.
    Retry {
        /// The service asks for fewer requests.
        slow_down: bool,
    },
    /// The service received another body than was announced. Read the file again and compare; if it has not changed, send again.
    BodyMismatch,
    /// The temporary key pair is over; the host's clock is right. A new one is needed.
    CredentialOver,
    /// The service refuses the time of the signature, and the client could not correct it.
    Clock,
    /// The multipart upload was aborted, completed, or never there. After an unanswered `Complete` it is probably completed.
    NoSuchUpload,
    /// Somebody else writes the same object. Try again once, after a while.
    Conflict,
    /// Nothing that the caller can send again would succeed.
    Refused,
    /// No whole answer came: the request may have taken effect.
    Unanswered,
}

impl StorageFailure {
    /// The failure's name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry { slow_down: false } => "retry",
            Self::Retry { slow_down: true } => "slow_down",
            Self::BodyMismatch => "body_mismatch",
            Self::CredentialOver => "credential_over",
            Self::Clock => "clock",
            Self::NoSuchUpload => "no_such_upload",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

impl fmt::Display for StorageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageError {
    /// What the caller should do about it.
    pub failure: StorageFailure,
    /// The service's `Code`, which starts with a capital, or one of our own stable words, which do not: `connect`, `tls`,
    /// `files`, `stalled`, `connection_lost`, `source`, `bad_request`, `no_answer`, `not_an_answer`, `too_large`, `http_502`.
    /// Bounded and printable: fit to be a metric's label.
    pub code: String,
    /// The service's words or ours, bounded and on one line.
    pub message: Box<str>,
    /// What was asked for.
    pub operation: Operation,
    /// Of which object: bucket and key.
    pub object: Box<str>,
    /// The HTTP status; absent without an answer. A `Complete` can fail with 200.
    pub status: Option<u16>,
    /// The service's id of the request, which its support asks for.
    pub request_id: Option<Box<str>>,
    /// The service's id of the error, which its support asks for.
    pub trace_id: Option<Box<str>>,
    /// Whether the request may have taken effect. `false` only on proof: it did not leave, or the service refused it.
    pub may_have_acted: bool,
    /// Whether the answer was not the service's own: the next try can use [`StorageHost::Backup`], as the vendor's SDKs do.
    ///
    /// [`StorageHost::Backup`]: super::StorageHost::Backup
    pub try_other_host: bool,
    /// What the service computed for a signature that does not match: for a debug line, several lines long, without secrets.
    pub signed: Option<Box<SignedText>>,
}

/// What the service computed when a signature did not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedText {
    /// `StringToSign`.
    pub string_to_sign: String,
    /// `FormatString`.
    pub format_string: String,
}

/// What an answer's headers tell about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerIds {
    pub(crate) request_id: Option<Box<str>>,
    pub(crate) trace_id: Option<Box<str>>,
}

impl StorageError {
    /// A failure that we found, under one of our own words.
    pub(crate) fn own(
        (operation, object): (Operation, &str),
        failure: StorageFailure,
        code: &str,
        message: &str,
    ) -> Self {
        Self {
            failure,
            code: code.to_owned(),
            message: one_line(message).into(),
            operation,
            object: object.into(),
            status: None,
            request_id: None,
            trace_id: None,
            may_have_acted: failure == StorageFailure::Unanswered,
            try_other_host: false,
            signed: None,
        }
    }

    /// An answer that is not one of the service, or not a whole one.
    pub(crate) fn not_an_answer(
        about: (Operation, &str),
        (status, ids): (u16, AnswerIds),
        code: &str,
        message: &str,
    ) -> Self {
        let try_other_host = ids.request_id.is_none();
        let error = Self::own(about, StorageFailure::Unanswered, code, message);
        Self {
            status: Some(status),
            request_id: ids.request_id,
            trace_id: ids.trace_id,
            try_other_host,
            ..error
        }
    }

    /// An error that the service spelled out.
    pub(crate) fn from_service(
        about: (Operation, &str),
        (status, ids): (u16, AnswerIds),
        document: ErrorDocument,
    ) -> Self {
        let failure = classify(status, &document.code, &document.message);
        let error = Self::own(about, failure, &label(&document.code), &document.message);
        let signed =
            SignedText { string_to_sign: document.string_to_sign, format_string: document.format_string };
        let computed = !signed.string_to_sign.is_empty() || !signed.format_string.is_empty();
        Self {
            status: Some(status),
            try_other_host: ids.request_id.is_none(),
            request_id: ids.request_id.or(document.request_id),
            trace_id: ids.trace_id.or(document.trace_id),
            may_have_acted: !(300..500).contains(&status),
            signed: computed.then(|| Box::new(signed)),
            ..error
        }
    }

    /// An error without a document of the service: the status is all that can be told.
    pub(crate) fn from_status(about: (Operation, &str), (status, ids): (u16, AnswerIds)) -> Self {
        // Whatever stands between, it is not the service that refuses.
        let foreign = ids.request_id.is_none();
        let failure = if foreign && status != 429 {
            StorageFailure::Retry { slow_down: false }
        } else {
            classify(status, "", "")
        };
        let message = if foreign {
            format!("HTTP {status} from something between this host and the object storage")
        } else {
            format!("HTTP {status} without an error of the object storage")
        };
        Self {
            status: Some(status),
            request_id: ids.request_id,
            trace_id: ids.trace_id,
            may_have_acted: status >= 500,
            try_other_host: foreign,
            ..Self::own(about, failure, &format!("http_{status}"), &message)
        }
    }

    /// Whether the service says that the signature's time is over: a matter of the clock, or of the key pair.
    pub(crate) fn says_expired(&self) -> bool {
        mentions(&self.code, &self.message, EXPIRED)
    }

    /// What to do about it.
    pub fn next_step(&self) -> Option<&'static str> {
        let step = match (self.failure, self.code.as_str()) {
            (_, "tls") => {
                "check the host's clock, its certificate store (package ca-certificates), and what stands in between"
            }
            (_, "files") => vodrelay_host::descriptors::NEXT_STEP,
            (_, "connect") => "check DNS, and what stands between this host and the object storage",
            (_, "source") => "read the file again: it may have changed",
            (_, "PaymentRequired" | "UnavailableForLegalReasons") => {
                "check the account's status and balance in the console"
            }
            (StorageFailure::Retry { slow_down: true }, _) => "send fewer requests at a time",
            (StorageFailure::Retry { .. }, _) => "send it again after a moment",
            (StorageFailure::BodyMismatch, _) => "read the part again: the file may have changed",
            (StorageFailure::CredentialOver, _) => "start the upload anew: a key pair is good for one upload",
            (StorageFailure::Clock, _) => "set the host's clock, and keep it set with NTP",
            (StorageFailure::NoSuchUpload, _) => "start the upload anew, unless it was being completed",
            (StorageFailure::Conflict, _) => "see who else writes this object; then try again",
            (StorageFailure::Unanswered, _) => "it may have taken effect: find out before it is sent again",
            (StorageFailure::Refused, _) if self.is_denial() => {
                "start the upload anew; if that is refused too, report it with the ids of the request"
            }
            (StorageFailure::Refused, _) => "report it with the ids of the request",
        };
        Some(step)
    }

    fn is_denial(&self) -> bool {
        matches!(self.code.as_str(), "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch")
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} failed ({}): {}", self.operation, self.object, self.code, self.message)?;
        match (&self.request_id, &self.trace_id) {
            (Some(request), Some(trace)) => write!(f, " [request {request}, trace {trace}]")?,
            (Some(request), None) => write!(f, " [request {request}]")?,
            (None, Some(trace)) => write!(f, " [trace {trace}]")?,
            (None, None) => {}
        }
        match self.next_step() {
            Some(step) => write!(f, "; {step}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StorageError {}

const EXPIRED: &str = "Request has expired";

/// Whether a word stands as the code, or in the message of `AccessDenied`.
fn mentions(code: &str, message: &str, word: &str) -> bool {
    let squeezed = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    };
    let word = squeezed(word);
    squeezed(code) == word || (code == "AccessDenied" && squeezed(message).contains(&word))
}

/// What an answer means, by its status, its code and its message.
///
/// An unknown code follows its status: of 5xx another try is worth its while, and so it is inside a 200; a 4xx is final.
pub fn classify(status: u16, code: &str, message: &str) -> StorageFailure {
    match code {
        "InternalError" | "ServiceUnavailable" => return StorageFailure::Retry { slow_down: false },
        "SlowDown" => return StorageFailure::Retry { slow_down: true },
        // The link is slow: another try is worth its while, although it is a 4xx.
        "RequestTimeout" | "UserNetworkTooSlow" | "IncompleteBody" => {
            return StorageFailure::Retry { slow_down: false };
        }
        "BadDigest" | "InvalidDigest" | "EntitySizeNotMatch" => return StorageFailure::BodyMismatch,
        "ExpiredToken" => return StorageFailure::CredentialOver,
        "NoSuchUpload" => return StorageFailure::NoSuchUpload,
        "PathConflict" | "UploadConflict" => return StorageFailure::Conflict,
        _ if mentions(code, message, EXPIRED) => return StorageFailure::CredentialOver,
        _ if mentions(code, message, "RequestTimeTooSkewed") => return StorageFailure::Clock,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "EntityTooSmall"
        | "InvalidPart"
        | "InvalidPartOrder"
        | "MalformedXML"
        | "XMLSizeLimit"
        | "EntityTooLarge"
        | "KeyTooLong"
        | "MissingContentLength"
        | "MethodNotAllowed"
        | "PaymentRequired"
        | "UnavailableForLegalReasons"
        | "InvalidArgument"
        | "NoSuchBucket" => return StorageFailure::Refused,
        _ => {}
    }
    match status {
        429 => StorageFailure::Retry { slow_down: true },
        408 | 200..=299 | 500.. => StorageFailure::Retry { slow_down: false },
        409 => StorageFailure::Conflict,
        _ => StorageFailure::Refused,
    }
}

/// A code as a label: what the service sends is not ours to trust with a metric's cardinality or a log line's shape.
fn label(code: &str) -> String {
    const LONGEST: usize = 100;
    let label: String = code.chars().filter(char::is_ascii_graphic).take(LONGEST).collect();
    if label.is_empty() { "no_code".to_owned() } else { label }
}

#[cfg(test)]
mod tests {
    use super::StorageFailure::*;
    use super::*;

    /// One row for each line of the table of codes, and for each form in which it can come.
    const TABLE: &[(u16, &str, &str, StorageFailure)] = &[
        (500, "InternalError", "", Retry { slow_down: false }),
        (503, "ServiceUnavailable", "", Retry { slow_down: false }),
        (503, "SlowDown", "", Retry { slow_down: true }),
        (502, "", "", Retry { slow_down: false }),
        (504, "SomethingNew", "", Retry { slow_down: false }),
        (200, "InternalError", "", Retry { slow_down: false }),
        (200, "ServiceUnavailable", "", Retry { slow_down: false }),
        (200, "SlowDown", "", Retry { slow_down: true }),
        (200, "SomethingNew", "", Retry { slow_down: false }),
        (200, "InvalidPart", "", Refused),
        (200, "NoSuchUpload", "", NoSuchUpload),
        (
            400,
            "RequestTimeout",
            "Your socket connection to the server was not read from or written to within the timeout period",
            Retry { slow_down: false },
        ),
        (400, "UserNetworkTooSlow", "", Retry { slow_down: false }),
        (400, "IncompleteBody", "", Retry { slow_down: false }),
        (408, "", "", Retry { slow_down: false }),
        (429, "", "", Retry { slow_down: true }),
        (400, "BadDigest", "", BodyMismatch),
        (400, "InvalidDigest", "", BodyMismatch),
        (400, "EntitySizeNotMatch", "", BodyMismatch),
        (400, "ExpiredToken", "", CredentialOver),
        (403, "ExpiredToken", "", CredentialOver),
        (403, "AccessDenied", "Request has expired", CredentialOver),
        (403, "AccessDenied", "Request has expired.", CredentialOver),
        (403, "Request has expired", "", CredentialOver),
        (403, "RequestHasExpired", "", CredentialOver),
        (403, "RequestTimeTooSkewed", "", Clock),
        (403, "AccessDenied", "RequestTimeTooSkewed", Clock),
        (403, "AccessDenied", "Access Denied.", Refused),
        (403, "AccessDenied", "", Refused),
        (403, "InvalidAccessKeyId", "", Refused),
        (403, "AccessDenied", "InvalidAccessKeyId", Refused),
        (403, "SignatureDoesNotMatch", "Request has expired", Refused),
        (403, "AccessDenied", "SignatureDoesNotMatch", Refused),
        (404, "NoSuchUpload", "", NoSuchUpload),
        (404, "NoSuchBucket", "", Refused),
        (404, "", "", Refused),
        (400, "EntityTooSmall", "", Refused),
        (400, "InvalidPart", "", Refused),
        (400, "InvalidPartOrder", "", Refused),
        (400, "MalformedXML", "", Refused),
        (400, "XMLSizeLimit", "", Refused),
        (400, "EntityTooLarge", "", Refused),
        (400, "KeyTooLong", "", Refused),
        (400, "SomethingNew", "", Refused),
        (409, "PathConflict", "", Conflict),
        (409, "UploadConflict", "", Conflict),
        (409, "SomethingNew", "", Conflict),
        (411, "MissingContentLength", "", Refused),
        (405, "MethodNotAllowed", "", Refused),
        (451, "UnavailableForLegalReasons", "", Refused),
        (451, "", "", Refused),
        (402, "PaymentRequired", "", Refused),
        (301, "PermanentRedirect", "", Refused),
    ];

    #[test]
    fn every_code_of_the_documents_has_its_meaning() {
        for (status, code, message, expected) in TABLE {
            assert_eq!(classify(*status, code, message), *expected, "{status} {code} {message}");
        }
    }

    #[test]
    fn an_error_names_the_thing_the_cause_and_the_next_step() {
        let document = ErrorDocument {
            code: "SignatureDoesNotMatch".into(),
            message: "The Signature you specified is invalid.\nSee the log".into(),
            string_to_sign: "sha1\n1;2\nab\n".into(),
            format_string: "put\n/k\n\nhost=h\n".into(),
            trace_id: Some("T2".into()),
            ..ErrorDocument::default()
        };
        let ids = AnswerIds { request_id: Some("R1".into()), trace_id: None };
        let about = (Operation::UploadPart { number: 3 }, "b-1/dir/f0.mp4");
        let error = StorageError::from_service(about, (403, ids), document);
        assert_eq!(
            error.to_string(),
            "UploadPart 3 of b-1/dir/f0.mp4 failed (SignatureDoesNotMatch): The Signature you specified is invalid. See the log \
             [request R1, trace T2]; start the upload anew; if that is refused too, report it with the ids of the request"
        );
        assert_eq!(error.signed.map(|signed| signed.string_to_sign).as_deref(), Some("sha1\n1;2\nab\n"));
        assert!(!error.may_have_acted && !error.try_other_host);
    }

    #[test]
    fn what_the_service_did_not_answer_can_be_tried_elsewhere() {
        let about = (Operation::PutObject, "b-1/k");
        let foreign = StorageError::from_status(about, (403, AnswerIds::default()));
        assert_eq!((foreign.failure, foreign.try_other_host), (Retry { slow_down: false }, true));
        let ids = AnswerIds { request_id: Some("R1".into()), trace_id: None };
        let own = StorageError::from_status(about, (403, ids));
        assert_eq!((own.failure, own.try_other_host), (Refused, false));
    }
}
