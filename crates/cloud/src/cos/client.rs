//! The client: its options, and a function for each request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderValue;
use url::Url;

use super::attempt::{Ask, Sender, masked};
use super::content::Content;
use super::digest::PartDigests;
use super::documents::{self, CompleteAnswer, ListedPart, PartsPage};
use super::error::StorageError;
use super::exchange::StorageAnswer;
use super::operation::Operation;
use super::target::Target;
use super::traffic::Traffic;
use super::xml::DocumentError;
use crate::observation::ClientObserver;
use crate::skew::Skew;
use crate::transport::{self, SetupError};

/// Connecting, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may stand still.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long `Complete` may stand still. It usually sends blanks while it works.
pub const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);

/// The most parts on a page of `ListParts`.
const PAGE: &str = "1000";

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the object storage is, if it is on this machine: `http://127.0.0.1:PORT`. The header `Host` is the bucket's all
    /// the same. `None` for the service itself.
    pub cos_endpoint: Option<Url>,
    /// Connecting, TLS included.
    pub connect_timeout: Duration,
    /// How long no byte may be sent or received. The whole request has no limit, and waiting for the pace of `traffic` does
    /// not count. At the end of a body the kernel may hold what is still to be sent: some seconds of what the link carries.
    pub progress_timeout: Duration,
    /// The same for `Complete`.
    pub complete_timeout: Duration,
    /// Counts what is sent, and limits how fast, over all requests of all clients that share it.
    pub traffic: Arc<Traffic>,
    /// `User-Agent`: who asks, for the service's side.
    pub user_agent: HeaderValue,
    /// Who is told what the client learns about the clock.
    pub observer: ClientObserver,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cos_endpoint: None,
            connect_timeout: CONNECT_TIMEOUT,
            progress_timeout: PROGRESS_TIMEOUT,
            complete_timeout: COMPLETE_TIMEOUT,
            traffic: Arc::new(Traffic::unlimited()),
            user_agent: transport::USER_AGENT,
            observer: ClientObserver::default(),
        }
    }
}

/// What the service says that it stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Without quotes. Of an object in one request and of a part it is the MD5 in hex; of a completed upload it is opaque.
    pub etag: String,
    /// The CRC-64/XZ of the object or part. The service leaves it out at times: of a completed upload when a part has none.
    pub crc64: Option<u64>,
    /// The service's id of the request.
    pub request_id: Option<Box<str>>,
}

impl Stored {
    /// Whether the service stored what was sent, as far as it says it: by the `ETag` and the CRC-64 of one body. Of a completed
    /// upload only the CRC-64 can be compared.
    pub fn agrees_with(&self, sent: &PartDigests) -> bool {
        self.etag.eq_ignore_ascii_case(&sent.etag()) && self.crc64.is_none_or(|crc64| crc64 == sent.crc64)
    }
}

/// The client. Clones share connections and what is known of the clock.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientParts>);

#[derive(Debug)]
struct ClientParts {
    sender: Sender,
    progress_timeout: Duration,
    complete_timeout: Duration,
}

impl Client {
    /// Makes a client; does not connect yet.
    ///
    /// # Errors
    ///
    /// [`SetupError`] for an endpoint that is not on this machine, or where TLS cannot be set up.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        if let Some(endpoint) = &options.cos_endpoint {
            transport::check_endpoint(endpoint)?;
            if !transport::is_loopback(endpoint) {
                let cause = "another place than the service's own is for loopback addresses only";
                return Err(SetupError::Endpoint { endpoint: endpoint.clone(), cause });
            }
        }
        let service = Url::parse("https://myqcloud.com").expect("it is a URL");
        let reached = options.cos_endpoint.as_ref().unwrap_or(&service);
        let sender = Sender {
            http: transport::client(reached, options.connect_timeout)?,
            endpoint: options.cos_endpoint,
            traffic: options.traffic,
            user_agent: options.user_agent,
            skew: Skew::default(),
            observer: options.observer,
        };
        let (progress_timeout, complete_timeout) = (options.progress_timeout, options.complete_timeout);
        Ok(Self(Arc::new(ClientParts { sender, progress_timeout, complete_timeout })))
    }

    /// Stores an object in one request, of at most 5 GB. One under the same key is replaced.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub async fn put_object(&self, target: &Target, content: Content) -> Result<Stored, StorageError> {
        let ask = self.ask(Operation::PutObject, Method::PUT, target, &[]);
        self.store(Ask { content: Some(content), ..ask }).await
    }

    /// Begins a multipart upload, and returns its id. Its parts cost storage until it is completed or aborted.
    ///
    /// # Errors
    ///
    /// [`StorageError`]. When no answer came, an upload may exist whose id nobody knows.
    pub async fn initiate(&self, target: &Target) -> Result<String, StorageError> {
        let operation = Operation::InitiateMultipartUpload;
        let ask = self.ask(operation, Method::POST, target, &[("uploads", "")]);
        let answer = self.0.sender.send(Ask { content: Some(Content::empty()), ..ask }).await?;
        let read = documents::initiated(&answer.body);
        read.map_err(|error| not_an_answer(operation, target, answer, &error))
    }

    /// Stores one part. `number` is from 1 to 10,000; all parts but the last have 1 MB to 5 GB. A part that is sent again
    /// replaces the one before.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub async fn put_part(
        &self,
        target: &Target,
        upload_id: &str,
        number: u32,
        content: Content,
    ) -> Result<Stored, StorageError> {
        let text = number.to_string();
        let query = [("partNumber", text.as_str()), ("uploadId", upload_id)];
        let ask = self.ask(Operation::UploadPart { number }, Method::PUT, target, &query);
        self.store(Ask { content: Some(content), ..ask }).await
    }

    /// All parts that are stored, in the order of their numbers: one request for each thousand.
    ///
    /// # Errors
    ///
    /// [`StorageError`] of the first request that fails.
    pub async fn list_parts(
        &self,
        target: &Target,
        upload_id: &str,
    ) -> Result<Vec<ListedPart>, StorageError> {
        let (mut parts, mut after) = (Vec::new(), Some(0));
        while let Some(number) = after {
            let page = self.list_parts_page(target, upload_id, number).await?;
            parts.extend(page.parts);
            after = page.next;
        }
        Ok(parts)
    }

    /// One page of the parts that are stored: those with a number above `after`.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub async fn list_parts_page(
        &self,
        target: &Target,
        upload_id: &str,
        after: u32,
    ) -> Result<PartsPage, StorageError> {
        let (operation, marker) = (Operation::ListParts, after.to_string());
        // Encoded keys keep the answer well-formed, whatever a key is made of.
        let query = [
            ("encoding-type", "url"),
            ("max-parts", PAGE),
            ("part-number-marker", &marker),
            ("uploadId", upload_id),
        ];
        let answer = self.0.sender.send(self.ask(operation, Method::GET, target, &query)).await?;
        let read = documents::parts_page(&answer.body, after);
        read.map_err(|error| not_an_answer(operation, target, answer, &error))
    }

    /// Makes the object of its parts: pairs of number and `ETag` in the order of the numbers, at least one. Quotes around an
    /// `ETag` do not matter.
    ///
    /// The service answers 200 before it knows how it ends. What follows may take minutes, and may be an error.
    ///
    /// # Errors
    ///
    /// [`StorageError`]. After one that may have acted, [`NoSuchUpload`](super::StorageFailure::NoSuchUpload) probably means that the object is there.
    pub async fn complete(
        &self,
        target: &Target,
        upload_id: &str,
        parts: impl IntoIterator<Item = (u32, &str)>,
    ) -> Result<Stored, StorageError> {
        let operation = Operation::CompleteMultipartUpload;
        let body = Bytes::from(documents::complete_request(parts));
        let digests = PartDigests::of(&body);
        let query = [("uploadId", upload_id)];
        let answer = self
            .0
            .sender
            .send(Ask {
                content: Some(Content::bytes(body, &digests)),
                content_type: Some("application/xml"),
                limit: self.0.complete_timeout,
                ..self.ask(operation, Method::POST, target, &query)
            })
            .await?;
        match documents::complete_answer(&answer.body) {
            Ok(CompleteAnswer::Completed { etag }) => {
                Ok(Stored { etag, crc64: answer.crc64, request_id: answer.ids.request_id })
            }
            Ok(CompleteAnswer::Error(document)) => {
                let about = (operation, &*target.to_string());
                let ids = (answer.status, answer.ids);
                Err(StorageError::from_service(about, ids, masked(document, target)))
            }
            Err(error) => Err(not_an_answer(operation, target, answer, &error)),
        }
    }

    /// Drops a multipart upload with its parts. Those under way fail.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; [`NoSuchUpload`](super::StorageFailure::NoSuchUpload) when it is gone already.
    pub async fn abort(&self, target: &Target, upload_id: &str) -> Result<(), StorageError> {
        let query = [("uploadId", upload_id)];
        let ask = self.ask(Operation::AbortMultipartUpload, Method::DELETE, target, &query);
        self.0.sender.send(ask).await.map(drop)
    }

    /// The service's clock minus the host's, in milliseconds, good to about a second: by the last answer that had a date.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.0.sender.skew.measured_ms()
    }

    fn ask<'a>(
        &self,
        operation: Operation,
        method: Method,
        target: &'a Target,
        query: &'a [(&'a str, &'a str)],
    ) -> Ask<'a> {
        let limit = self.0.progress_timeout;
        Ask { operation, method, target, query, content: None, content_type: None, limit }
    }

    /// Sends content. An answer without an `ETag` does not say that anything was stored.
    async fn store(&self, ask: Ask<'_>) -> Result<Stored, StorageError> {
        let (operation, target) = (ask.operation, ask.target);
        let answer = self.0.sender.send(ask).await?;
        match answer.etag.clone() {
            Some(etag) => Ok(Stored { etag, crc64: answer.crc64, request_id: answer.ids.request_id }),
            None => Err(not_an_answer(operation, target, answer, &DocumentError::Missing("ETag"))),
        }
    }
}

/// A success that does not say what it has to.
fn not_an_answer(
    operation: Operation,
    target: &Target,
    answer: StorageAnswer,
    error: &DocumentError,
) -> StorageError {
    let object = target.to_string();
    let code = if answer.body.is_empty() { "no_answer" } else { "not_an_answer" };
    let message = format!("HTTP {}: {error}", answer.status);
    StorageError::not_an_answer((operation, &object), (answer.status, answer.ids), code, &message)
}
