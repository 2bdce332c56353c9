//! The errors of the object storage, with the status of each code.

use std::borrow::Cow;

/// An error of the object storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CosError {
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: Cow<'static, str>,
    /// `StringToSign` and `FormatString` of a signature that does not match.
    pub(crate) computed: Option<(String, String)>,
}

impl CosError {
    /// An error with the usual message of its code.
    pub(crate) fn new(code: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        let message = message_of(&code);
        Self { code, message: message.into(), computed: None }
    }

    pub(crate) fn with_message(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), message: message.into(), computed: None }
    }

    pub(crate) fn status(&self) -> u16 {
        status_of(&self.code)
    }
}

fn message_of(code: &str) -> &'static str {
    match code {
        "AccessDenied" => "Access Denied.",
        "NoSuchUpload" => {
            "The specified multipart upload does not exist. The upload ID might be invalid, or the multipart upload might have been aborted or completed."
        }
        "NoSuchKey" => "The specified key does not exist.",
        "NoSuchBucket" => "The specified bucket does not exist.",
        "InvalidPart" => "One or more of the specified parts could not be found.",
        "InvalidPartOrder" => "The list of parts was not in ascending order.",
        "EntityTooSmall" => "Your proposed upload is smaller than the minimum allowed object size.",
        "EntityTooLarge" => "Your proposed upload exceeds the maximum allowed object size.",
        "MalformedXML" => {
            "The XML you provided was not well-formed or did not validate against our published schema"
        }
        "XMLSizeLimit" => "The XML is too large.",
        "BadDigest" => "The Content-MD5 you specified did not match what we received.",
        "InvalidDigest" => "The Content-MD5 you specified is not valid.",
        "MissingContentLength" => "You must provide the Content-Length HTTP header.",
        "IncompleteBody" => {
            "You did not provide the number of bytes specified by the Content-Length HTTP header."
        }
        "RequestTimeout" => {
            "Your socket connection to the server was not read from or written to within the timeout period."
        }
        "MethodNotAllowed" => "The specified method is not allowed against this resource.",
        "ExpiredToken" => "The provided token has expired.",
        "InvalidAccessKeyId" => "The access key Id you provided does not exist in our records",
        "SignatureDoesNotMatch" => "The Signature you specified is invalid.",
        "RequestTimeTooSkewed" => {
            "The difference between the request time and the server's time is too large."
        }
        "InternalError" => "We encountered an internal error. Please try again.",
        "SlowDown" => "Reduce your request rate.",
        "ServiceUnavailable" => "Please reduce your request rate.",
        _ => "a fault that was asked for",
    }
}

fn status_of(code: &str) -> u16 {
    match code {
        "InternalError" => 500,
        "SlowDown" | "ServiceUnavailable" => 503,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed"
        | "Request has expired"
        | "InvalidObjectState" => 403,
        "NoSuchUpload" | "NoSuchKey" | "NoSuchBucket" => 404,
        "MethodNotAllowed" => 405,
        "PathConflict" | "UploadConflict" => 409,
        "MissingContentLength" => 411,
        "PaymentRequired" => 402,
        "UnavailableForLegalReasons" => 451,
        _ => 400,
    }
}
