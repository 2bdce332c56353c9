//! The object storage over HTTP: the XML API of COS, as far as uploads need it.
//!
//! - `target`: what a request is for: bucket, key, operation.
//! - `auth`: its signature, and whether its key is good for it.
//! - `body`: what it sends, read piece by piece.
//! - `xml`: the documents that come in and go out.
//! - `lists`: parts and uploads, by the page.
//! - `http`: the way of a request through all of it.

mod auth;
mod body;
mod error;
pub(crate) mod http;
mod lists;
mod target;
mod xml;

pub(crate) use self::error::CosError;
pub(crate) use self::target::is_for_storage;
