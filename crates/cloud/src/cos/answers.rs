//! The readers of the service's documents, apart from the requests. Pure, so tests can run them on millions of inputs.

use super::documents::{self, CompleteAnswer, PartsPage};
use super::error::{AnswerIds, StorageError, StorageFailure};
use super::operation::Operation;
pub use super::xml::DocumentError;

/// The id of a multipart upload that has begun.
///
/// # Errors
///
/// [`DocumentError`].
pub fn initiated(body: &[u8]) -> Result<String, DocumentError> {
    documents::initiated(body)
}

/// One page of a list of parts, those with a number above `after`.
///
/// # Errors
///
/// [`DocumentError`].
pub fn parts_page(body: &[u8], after: u32) -> Result<PartsPage, DocumentError> {
    documents::parts_page(body, after)
}

/// The `ETag` of a completed upload, from the body of an answer with status 200.
///
/// # Errors
///
/// [`StorageError`]: the service's own, or that `body` does not say how it ended.
pub fn completed(body: &[u8]) -> Result<String, StorageError> {
    let about = (Operation::CompleteMultipartUpload, "an object");
    match documents::complete_answer(body) {
        Ok(CompleteAnswer::Completed { etag }) => Ok(etag),
        Ok(CompleteAnswer::Error(document)) => {
            Err(StorageError::from_service(about, (200, AnswerIds::default()), document))
        }
        Err(error) => {
            Err(StorageError::own(about, StorageFailure::Unanswered, "not_an_answer", &error.to_string()))
        }
    }
}
