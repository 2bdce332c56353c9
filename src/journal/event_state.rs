//! The state of an event, as the journal names it.

use std::fmt;
use std::str::FromStr;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde::Serialize;

/// The state of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventState {
    /// Waits for its ack.
    Received,
    /// The broker has it; the cloud still holds it.
    Published,
    /// Done.
    Confirmed,
    /// Waits for an operator.
    Parked,
}

impl EventState {
    /// Every state, in the order of an event's life.
    pub const ALL: [Self; 4] = [Self::Received, Self::Published, Self::Confirmed, Self::Parked];

    /// The state's name in the journal's views.
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Published => "published",
            Self::Confirmed => "confirmed",
            Self::Parked => "parked",
        }
    }
}

impl fmt::Display for EventState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that is not a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a state of an event: received, published, confirmed or parked")]
pub struct NoState(String);

impl FromStr for EventState {
    type Err = NoState;
    fn from_str(name: &str) -> Result<Self, NoState> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| NoState(name.to_owned()))
    }
}

impl FromSql for EventState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}
