//! A client of the object storage's XML API, as far as an upload needs it: one object in one request or in parts.
//!
//! `ApplyUpload` names the bucket, the region and the key, and lends a temporary key pair. One call here is one request; only a
//! time stamp that the service refuses is corrected once, at once. Every other retry, the order of the requests, and what a
//! lost answer means for the upload are the caller's.
//!
//! Sources: the service's documents "PUT Object", "Initiate Multipart Upload", "Upload Part", "List Parts", "Complete Multipart
//! Upload", "Abort Multipart Upload", "Request signature" and "Error codes"; where they are silent, the vendor's SDKs.
//!
//! In reading order: `target` is the object and who may write it; `content` is what is sent; `signed` is the head of a request;
//! `exchange` sends it at the pace of `traffic`, and `progress` ends it when it stands still; `attempt` signs it again when the clock was wrong; `documents`
//! is what comes back, read by `xml`; `error` is what a failure means; `client` has a function for each request; [`digest`]
//! proves content.

pub mod answers;
mod attempt;
mod client;
mod content;
pub mod digest;
mod documents;
mod error;
mod exchange;
mod operation;
mod progress;
mod signed;
mod target;
#[cfg(test)]
mod tests;
mod traffic;
mod xml;

pub use client::{COMPLETE_TIMEOUT, CONNECT_TIMEOUT, Client, Options, PROGRESS_TIMEOUT, Stored};
pub use content::Content;
pub use documents::{ListedPart, PartsPage};
pub use error::{SignedText, StorageError, StorageFailure, classify};
pub use operation::Operation;
pub use target::{StorageHost, Target, TargetError};
pub use traffic::Traffic;
