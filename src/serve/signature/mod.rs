//! The signature server of an app's backend: it gives named callers signatures that let their clients upload, and nothing else.
//!
//! The order for a request: how often its peer asks, its method, whose token it has, how often that caller asks, its body, the
//! caller's policy, the signature. So a body is read of known callers only, and whatever is refused costs little.
//!
//! `policy` decides and has no I/O. `SignatureService` holds what a reload replaces as a whole.

mod answer;
mod audit;
mod callers;
mod cors;
mod handler;
mod limits;
mod metrics;
mod pages;
mod peer;
mod policy;
mod request;
mod service;
mod signer;
mod template;

pub use audit::TARGET as AUDIT_TARGET;
pub use callers::{Caller, CallerOptions, Callers, DIRECTORY_VARIABLE, TokenError, TokenFile};
pub use cors::PageOrigin;
pub use handler::{PATH, limits, router};
pub use metrics::{METRICS, describe};
pub use pages::pages;
pub use policy::{Allowed, CallerPolicy, Choice, OneTimeRule, PolicyRefusal};
pub use request::{MAX_BODY, Wanted};
pub use service::{Current, ServerOptions, SignatureService};
pub use signer::{GrantSigner, Randoms, SignError, SignedGrant, TemporaryPair};
pub use template::{ContextTemplate, UnknownPlaceholder};
