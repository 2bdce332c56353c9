//! What failures mean to the plan.

use crate::cos::{StorageError, StorageFailure};
use crate::upload::api::UNKNOWN_SESSION;
use crate::upload::plan::{ApiFailure, StoreFailure};
use crate::{FailureKind, RequestError};

/// A failure of `ApplyUpload` or `CommitUpload`.
pub(super) fn api_failure(error: &RequestError) -> ApiFailure {
    match error.failure {
        _ if error.code == UNKNOWN_SESSION => ApiFailure::UnknownSession,
        FailureKind::Transient if error.may_have_acted => ApiFailure::Unanswered,
        FailureKind::Transient | FailureKind::Throttled => ApiFailure::Later,
        FailureKind::Credentials | FailureKind::Clock | FailureKind::Refused | FailureKind::Configuration => {
            ApiFailure::Refused
        }
    }
}

/// A failure of the object storage.
pub(super) fn store_failure(error: &StorageError) -> StoreFailure {
    match error.failure {
        // The stream from the file broke.
        _ if error.code == "source" => StoreFailure::File,
        StorageFailure::Retry { slow_down: true } => StoreFailure::SlowDown,
        StorageFailure::Retry { slow_down: false } if !error.may_have_acted => StoreFailure::Later,
        StorageFailure::Retry { slow_down: false } | StorageFailure::Unanswered => StoreFailure::Unanswered,
        // The file is read and looked at again for the next try.
        StorageFailure::BodyMismatch | StorageFailure::Conflict => StoreFailure::Later,
        StorageFailure::CredentialOver => StoreFailure::KeyOver,
        StorageFailure::NoSuchUpload => StoreFailure::NoSuchUpload,
        StorageFailure::Clock | StorageFailure::Refused => StoreFailure::Refused,
    }
}
