//! Signs what a policy grants: the key, the clock, and a number that no signature of before has.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use tencent_vod::Credentials;
use tencentcloud_signing::upload::{self, Grant, NoRandom};

use super::policy::{CallerPolicy, PolicyRefusal, Stamp};
use super::request::Wanted;

/// Random numbers that are remembered: those of the last minutes at the highest rate.
const REMEMBERED: usize = 65_536;

/// 2025-01-01. A clock before it is that of a host that has not set it yet.
const EARLIEST: i64 = 1_735_689_600;

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is refused.
    #[error(transparent)]
    Refused(#[from] PolicyRefusal),
    /// The host's clock is not set.
    #[error(
        "the host's clock says {0} s after 1970, which is before this program was written; set the clock"
    )]
    Clock(i64),
    /// There is no random number.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// A pair that cannot sign uploads.
#[derive(Debug, thiserror::Error)]
#[error(
    "the credentials in {0} are a temporary pair: a signature for uploads has no place for their token; give the key pair of a sub-user"
)]
pub struct TemporaryPair(String);

/// A signature and what it grants.
#[derive(Debug)]
pub struct SignedGrant {
    /// The signature, a bearer token.
    pub signature: String,
    /// What it grants.
    pub grant: Grant,
}

/// Signs with one pair of id and key.
#[derive(Debug)]
pub struct GrantSigner {
    credentials: Credentials,
}

impl GrantSigner {
    /// A signer with a lasting pair.
    ///
    /// # Errors
    ///
    /// When the pair is a temporary one.
    pub fn new(credentials: Credentials) -> Result<Self, TemporaryPair> {
        match credentials.token {
            Some(_) => Err(TemporaryPair(credentials.origin)),
            None => Ok(Self { credentials }),
        }
    }

    /// Whose pair it is.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Signs what the policy grants to this request.
    ///
    /// # Errors
    ///
    /// [`SignError`].
    pub fn sign(
        &self,
        policy: &CallerPolicy,
        caller: &str,
        wanted: Wanted,
        now: i64,
        randoms: &Randoms,
    ) -> Result<SignedGrant, SignError> {
        if now < EARLIEST {
            return Err(SignError::Clock(now));
        }
        let stamp = Stamp { secret_id: &self.credentials.secret_id, now, random: randoms.draw()? };
        let grant = policy.grant(caller, wanted, stamp)?;
        let signature = grant.sign(self.credentials.secret_key.expose()).map_err(PolicyRefusal::Invalid)?;
        Ok(SignedGrant { signature, grant })
    }
}

/// The random numbers of the last signatures. Two of one second with the same number would be one signature, and a one-time one
/// would be spent by the other's upload.
#[derive(Debug, Default)]
pub struct Randoms(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    order: VecDeque<u32>,
    known: HashSet<u32>,
}

impl Randoms {
    fn draw(&self) -> Result<u32, NoRandom> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let drawn = upload::random()?;
            if remembered.keep(drawn) {
                return Ok(drawn);
            }
        }
    }
}

impl Remembered {
    /// Remembers a number, and forgets the oldest. False when it is known.
    fn keep(&mut self, number: u32) -> bool {
        if !self.known.insert(number) {
            return false;
        }
        self.order.push_back(number);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use tencentcloud_signing::Secret;
    use tencentcloud_signing::upload::Signature;

    use super::*;

    fn credentials(token: Option<Secret>) -> Credentials {
        Credentials {
            secret_id: "AKIDexample".to_owned(),
            secret_key: Secret::new("the key"),
            token,
            expires_at: None,
            origin: "the test".to_owned(),
        }
    }

    #[test]
    fn signatures_of_one_second_differ_and_verify() {
        let (signer, randoms) = (GrantSigner::new(credentials(None)).unwrap(), Randoms::default());
        let signed: HashSet<String> = (0..1_000)
            .map(|_| {
                let signed =
                    signer.sign(&CallerPolicy::default(), "web", Wanted::default(), EARLIEST, &randoms);
                let SignedGrant { signature, grant } = signed.unwrap();
                let read = Signature::parse(&signature).unwrap();
                assert!(read.verify("the key"));
                assert_eq!(read.grant().unwrap(), grant);
                signature
            })
            .collect();
        assert_eq!(signed.len(), 1_000);
    }

    #[test]
    fn a_number_is_not_used_again_while_it_is_remembered() {
        let mut remembered = Remembered::default();
        assert!(remembered.keep(7) && !remembered.keep(7));
        (0..REMEMBERED as u32).for_each(|number| {
            remembered.keep(1_000 + number);
        });
        assert_eq!((remembered.order.len(), remembered.known.len()), (REMEMBERED, REMEMBERED));
        assert!(remembered.keep(7));
    }

    #[test]
    fn a_temporary_pair_and_a_clock_that_is_not_set_sign_nothing() {
        let told = GrantSigner::new(credentials(Some(Secret::new("hush")))).unwrap_err().to_string();
        assert!(told.contains("temporary pair") && !told.contains("hush"), "{told}");
        let signer = GrantSigner::new(credentials(None)).unwrap();
        let signed =
            signer.sign(&CallerPolicy::default(), "web", Wanted::default(), 86_400, &Randoms::default());
        assert!(matches!(signed, Err(SignError::Clock(86_400))));
    }
}
