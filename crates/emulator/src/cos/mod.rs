//! The object storage over HTTP: the part of the XML API of COS that uploads need.
//!
//! - `target`: bucket, key and action of a request.
//! - `auth`: the signature, and the permissions of its key.
//! - `body`: the reader of bodies, in pieces.
//! - `xml`: the documents of requests and answers.
//! - `lists`: pages of parts and uploads.
//! - `http`: the requests themselves.

mod auth;
mod body;
mod error;
pub(crate) mod http;
mod lists;
mod target;
mod xml;

pub(crate) use self::error::CosError;
pub(crate) use self::target::is_for_storage;
