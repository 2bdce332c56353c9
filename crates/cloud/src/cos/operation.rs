//! The requests that the client makes.

use std::fmt;

/// A request to the object storage, by the documents' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Store an object in one request.
    PutObject,
    /// Begin a multipart upload.
    InitiateMultipartUpload,
    /// Store one part.
    UploadPart {
        /// From 1 to 10,000.
        number: u32,
    },
    /// Which parts are stored.
    ListParts,
    /// Make the object of its parts.
    CompleteMultipartUpload,
    /// Drop the parts.
    AbortMultipartUpload,
}

impl Operation {
    /// The name, fit to be a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::PutObject => "PutObject",
            Self::InitiateMultipartUpload => "InitiateMultipartUpload",
            Self::UploadPart { .. } => "UploadPart",
            Self::ListParts => "ListParts",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::AbortMultipartUpload => "AbortMultipartUpload",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UploadPart { number } => write!(f, "{} {number}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}
