//! What is odd about a signature, for whoever wonders why it is refused, or what it lets others do.

use super::{InvalidGrant, MAX_LIFE, Signature};

/// Seconds from which on a number is taken for milliseconds: the year 5138 in seconds, and 1973 in milliseconds.
const MILLISECONDS: i64 = 100_000_000_000;

/// How far the clock of whoever signs may be ahead before it is worth a word, in seconds.
const CLOCK_AHEAD: i64 = 60;

/// A life that is longer than any upload needs, in seconds: a day.
const LONG_LIFE: i64 = 86_400;

/// A random number below this may be drawn from a small range. One of a good source is so small once in four thousand times.
const SMALL_RANDOM: u32 = 1 << 20;

/// Something odd about a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// It breaks a rule of the documents.
    #[error("{0}")]
    Invalid(#[from] InvalidGrant),
    /// It is over.
    #[error("it expired {0} s ago")]
    Expired(i64),
    /// It was made in the future: somebody's clock is wrong.
    #[error("it was made {0} s in the future; the clock of its maker is ahead, or this one is behind")]
    FromTheFuture(i64),
    /// A time is in milliseconds.
    #[error("{0} looks like milliseconds; it is in seconds")]
    Milliseconds(&'static str),
    /// A value is not encoded as a value of a query string.
    #[error("{0} is not percent-encoded")]
    NotEncoded(String),
    /// A parameter that does nothing without a procedure.
    #[error("{0} has no effect without procedure")]
    WithoutProcedure(&'static str),
    /// Whoever has it can use it for long.
    #[error("whoever has it can upload for {0} s after it was made; minutes are enough")]
    LongLife(i64),
    /// Its random number is small.
    #[error(
        "random is small; signatures of one second whose random numbers are equal are one, and a one-time one is spent by the other"
    )]
    SmallRandom,
}

impl Finding {
    /// Whether the cloud refuses it for that, by its documents.
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
    /// What is odd about it at this moment, in seconds since the Unix epoch. Whether its MAC is right is not among it: see
    /// [`Signature::verify`].
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
            // Said above, and better.
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
