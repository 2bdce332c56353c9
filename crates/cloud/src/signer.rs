//! Signs requests, and caches the key of the day: deriving it costs more than signing.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tencentcloud_signing::tc3::{DayKey, Request};

use crate::credentials::Credentials;

/// Signs with the credentials of a request.
#[derive(Default)]
pub(crate) struct Signer(Mutex<Option<(Arc<Credentials>, DayKey)>>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(***)")
    }
}

impl Signer {
    /// The value of the header `Authorization`.
    pub(crate) fn authorization(&self, credentials: &Arc<Credentials>, request: &Request<'_>) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Replaced credentials are different ones, even with equal values.
        let fits = |(of, key): &(Arc<Credentials>, DayKey)| {
            Arc::ptr_eq(of, credentials) && key.covers(request.timestamp)
        };
        let kept = match &mut *kept {
            Some(kept) if fits(kept) => kept,
            other => {
                let key = DayKey::derive(credentials.secret_key.expose(), request.timestamp, request.service);
                other.insert((Arc::clone(credentials), key))
            }
        };
        kept.1.authorization(&credentials.secret_id, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tencentcloud_signing::tc3 as sign;

    #[test]
    fn the_key_that_is_kept_is_of_this_day_and_of_these_credentials() {
        let credentials =
            |key: &str| Arc::new(Credentials::new("a test".into(), "id".into(), key.into(), None).unwrap());
        let (one, other) = (credentials("key-1"), credentials("key-2"));
        let signer = Signer::default();
        // A corrected clock may go back too.
        for timestamp in [1_767_225_598, 1_767_225_599, 1_767_225_600, 1_767_225_599] {
            for credentials in [&one, &other, &one] {
                let headers = [("host", "vod.tencentcloudapi.com")];
                let request = Request {
                    method: "POST",
                    query: "",
                    headers: &headers,
                    body: b"{}",
                    timestamp,
                    service: "vod",
                };
                let expected =
                    sign::authorization(&credentials.secret_id, credentials.secret_key.expose(), &request);
                assert_eq!(signer.authorization(credentials, &request), expected);
            }
        }
        assert_eq!(format!("{signer:?}"), "Signer(***)");
    }
}
