//! Findings about a signature: why the cloud refuses it, and what is risky about it.

use super::{InvalidGrant, MAX_LIFE, Signature};

/// A larger number counts as milliseconds. It is the year 5138 in seconds, and 1973 in milliseconds.
const MILLISECONDS: i64 = 100_000_000_000;

/// A signer's clock that is further ahead is a finding, in seconds.
const CLOCK_AHEAD: i64 = 60;

/// A longer life is a finding, in seconds.
const LONG_LIFE: i64 = 86_400;

/// A smaller random number is a finding. A good source returns one once in 4,096 draws.
const SMALL_RANDOM: u32 = 1 << 20;

/// A finding about a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// It breaks a rule of the documents.
    #[error("{0}")]
    Invalid(#[from] InvalidGrant),
    /// It is expired.
    #[error("it expired {0} s ago")]
    Expired(i64),
    /// Its time of signing is in the future.
    #[error("it was made {0} s in the future; the signer's clock is ahead, or this clock is behind")]
    FromTheFuture(i64),
    /// A time is in milliseconds.
    #[error("{0} looks like milliseconds; it is in seconds")]
    Milliseconds(&'static str),
    /// A value is not percent-encoded.
    #[error("{0} is not percent-encoded")]
    NotEncoded(String),
    /// A parameter has no effect without a procedure.
    #[error("{0} has no effect without procedure")]
    WithoutProcedure(&'static str),
    /// Its life is long.
    #[error("every holder can upload for {0} s; some minutes are enough")]
    LongLife(i64),
    /// Its random number is small.
    #[error("random is small; two signatures of one second can be equal, and one use spends both")]
    SmallRandom,
}

impl Finding {
    /// Whether the cloud refuses the signature, by its documents.
    pub fn refused(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::Expired(_) | Self::Milliseconds(_) => true,
            Self::FromTheFuture(_)
            | Self::NotEncoded(_)
            | Self::WithoutProcedure(_)
            | Self::LongLife(_)
            | Self::SmallRandom => false,
        }
    }
}

impl Signature {
    /// The findings at this moment, in seconds since the Unix epoch. They do not include the MAC, which
    /// [`Signature::verify`] checks.
    pub fn findings(&self, now: i64) -> Vec<Finding> {
        let mut findings = Vec::new();
        let times = ["currentTimeStamp", "expireTime"].map(|name| (name, self.number(name)));
        let in_milliseconds =
            times.map(|(name, time)| time.is_some_and(|t| t >= MILLISECONDS).then_some(name));
        findings.extend(in_milliseconds.into_iter().flatten().map(Finding::Milliseconds));
        if findings.is_empty() {
            findings.extend(self.findings_of_time(now, times[0].1, times[1].1));
        }
        for (name, value) in self.raw_pairs() {
            let odd = |c: char| c == '=' || !c.is_ascii_graphic();
            if value.contains(odd) {
                findings.push(Finding::NotEncoded(name.chars().take(40).collect()));
            }
        }
        if self.parameter("procedure").is_none() {
            let alone = ["taskPriority", "taskNotifyMode", "sessionContext"];
            let given = alone.into_iter().filter(|name| self.parameter(name).is_some());
            findings.extend(given.map(Finding::WithoutProcedure));
        }
        match self.grant() {
            // Milliseconds are the cause, and are reported above.
            Err(InvalidGrant::LifeTooLong(_) | InvalidGrant::NoLife)
                if findings.iter().any(|finding| matches!(finding, Finding::Milliseconds(_))) => {}
            Err(invalid) => findings.push(invalid.into()),
            Ok(grant) if grant.random < SMALL_RANDOM => findings.push(Finding::SmallRandom),
            Ok(_) => {}
        }
        findings
    }

    fn findings_of_time(&self, now: i64, made: Option<i64>, expires: Option<i64>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(ago) = expires.map(|expires| now.saturating_sub(expires)).filter(|ago| *ago >= 0) {
            findings.push(Finding::Expired(ago));
        }
        if let Some(ahead) = made.map(|made| made.saturating_sub(now)).filter(|ahead| *ahead > CLOCK_AHEAD) {
            findings.push(Finding::FromTheFuture(ahead));
        }
        if let (Some(made), Some(expires)) = (made, expires) {
            let life = expires.saturating_sub(made);
            if (LONG_LIFE + 1..=MAX_LIFE).contains(&life) {
                findings.push(Finding::LongLife(life));
            }
        }
        findings
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.parameter(name)?.parse().ok()
    }
}
