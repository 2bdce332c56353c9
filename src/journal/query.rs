//! Read-only access, for the commands that show the journal.
//!
//! A reader that keeps a transaction open keeps the WAL from being folded back, so that everything here reads a page at a
//! time and lets go in between.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ValueRef};
use rusqlite::{Connection, Row, named_params};
use serde::Serialize;
use tencent_vod_event::{Fingerprint, MessageId, SubAppId};
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use super::disk::DiskFault;
use super::files;
use super::reading::{self, Reading};
use super::schema::{self, COPIED_UP_TO, Found};
use crate::clock::Now as _;

/// A reader waits for a writer in few cases only, such as the recovery of a WAL.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Deliveries that [`JournalReader::show`] names: the newest ones.
const SHOWN_DELIVERIES: u32 = 1_000;
/// Events that an ambiguous id is answered with.
const CANDIDATES: u32 = 5;

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no such file.
    #[error(
        "there is no journal at {path}: check journal.path, or start `vodrelay run` once, which makes it"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is not a journal that this program can read.
    #[error("{path} cannot be read as a journal: {problem}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the next step.
        problem: String,
    },
    /// The disk under it: it is full, mounted read-only, or fails. That may pass.
    #[error("the journal {path} cannot be read now ({cause}): {next_step}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
        /// Its name in the catalogue.
        error_code: ErrorCode,
        /// What to look at.
        next_step: &'static str,
    },
    /// No event has this id.
    #[error(
        "no event in the journal has the id or message id {what:?}: look it up with `vodrelay events list`"
    )]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// Several events have a message id that begins like this.
    #[error("{what:?} begins several message ids ({}): give more of it, or the event's number", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// Some of them.
        candidates: Vec<String>,
    },
}

/// How far an event got.
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

/// A word that names no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of an event: received, published, confirmed or parked")]
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

/// Files and tasks are indexed within stretches of events: each that the journal knows is looked into.
const IN_A_STRETCH: &str = "e.id / 512 IN (
    WITH RECURSIVE stretch (n) AS (
        SELECT (SELECT min(id) FROM event) / 512
        UNION ALL SELECT n + 1 FROM stretch WHERE n < (SELECT max(id) FROM event) / 512)
    SELECT n FROM stretch)";

/// Which events to list; everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub state: Option<EventState>,
    /// With this `EventType`.
    pub event_type: Option<String>,
    /// From this sub-application.
    pub sub_app: Option<SubAppId>,
    /// About this file.
    pub file_id: Option<String>,
    /// About this task.
    pub task_id: Option<String>,
    /// Only events that may be in the queue more than once.
    pub maybe_duplicate: bool,
    /// Received at or after this time.
    pub since: Option<WallTime>,
    /// Received at or before this time.
    pub until: Option<WallTime>,
}

/// Where the next page begins: after this event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    received_at: WallTime,
    id: i64,
}

/// One event, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// The journal's number for it.
    pub id: i64,
    /// What consumers drop repeats by.
    pub message_id: String,
    /// The sub-application whose queue it came from.
    pub sub_app_id: u64,
    /// `EventType`.
    pub event_type: Option<String>,
    /// The file that it is about.
    pub file_id: Option<String>,
    /// The task that it is about.
    pub task_id: Option<String>,
    /// How far it got.
    pub state: EventState,
    /// The how-manieth event of its fingerprint.
    pub occurrence: u32,
    /// How often the cloud handed it over again.
    pub redeliveries: u32,
    /// How many publishes of it may have left the relay.
    pub attempts: u32,
    /// Whether it may be in the queue more than once.
    pub maybe_duplicate: bool,
    /// What is wrong with it: the code of how its last publish failed, or of why it is parked.
    pub error_code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// Why it was parked last; it stays after a release.
    pub parked_message: Option<String>,
    /// When it arrived first.
    pub received_at: WallTime,
    /// When the broker acked it.
    pub published_at: Option<WallTime>,
    /// When the cloud confirmed it, or was known to have forgotten it.
    pub confirmed_at: Option<WallTime>,
}

impl EventRow {
    /// Where the page after this event begins.
    pub fn cursor(&self) -> Cursor {
        Cursor { received_at: self.received_at, id: self.id }
    }
}

/// One delivery of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryRow {
    /// The cloud's receipt.
    pub handle: Option<String>,
    /// The cloud's id of the answer that brought it.
    pub request_id: String,
    /// When it arrived.
    pub pulled_at: WallTime,
    /// From when on it must not be confirmed.
    pub lease_until: WallTime,
    /// confirmed, refused, lost, settled, lapsed or open.
    pub outcome: String,
    /// When the cloud confirmed it.
    pub confirmed_at: Option<WallTime>,
}

/// An event with all that the journal knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEvent {
    /// The event.
    pub event: EventRow,
    /// Digest of what it says, in hex.
    pub fingerprint: String,
    /// Its deliveries, oldest first; of very many the newest thousand.
    pub deliveries: Vec<DeliveryRow>,
    /// The bytes that the cloud sent.
    pub body: Vec<u8>,
}

/// A read-only connection to a journal, whether or not a relay is writing to it.
#[derive(Debug)]
pub struct JournalReader {
    reading: Reading,
    path: PathBuf,
}

impl JournalReader {
    /// Opens the journal at `path`.
    ///
    /// # Errors
    ///
    /// [`QueryError::Missing`] or [`QueryError::Unreadable`].
    pub fn open(path: &Path) -> Result<Self, QueryError> {
        if !path.try_exists().unwrap_or(true) {
            return Err(QueryError::Missing { path: path.to_owned() });
        }
        let unreadable = |problem: String| QueryError::Unreadable { path: path.to_owned(), problem };
        if let Some(kind) = files::other_kind(path) {
            return Err(unreadable(format!("it is a {kind}: check journal.path")));
        }
        match reading::open(path, BUSY_TIMEOUT, schema::examine) {
            Ok((reading, Found::Version(schema::VERSION))) => Ok(Self { reading, path: path.to_owned() }),
            Ok((_, Found::Version(0))) => Err(unreadable("it is empty: start `vodrelay run` once".into())),
            Ok((_, Found::Version(old))) => Err(unreadable(format!(
                "it has the older schema version {old}: start `vodrelay run` once, which migrates it"
            ))),
            Ok((_, Found::Newer(new))) => Err(unreadable(format!(
                "it has the newer schema version {new}: use the vodrelay that wrote it"
            ))),
            Ok((_, Found::Foreign)) => {
                Err(unreadable("it is another program's database: check journal.path".into()))
            }
            Err(source) => Err(failed(path, source)),
        }
    }

    /// Up to `limit` events, newest first; the next page begins at the cursor of the last one.
    ///
    /// # Errors
    ///
    /// [`QueryError::Unreadable`].
    pub fn list(
        &self,
        filter: &Filter,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Vec<EventRow>, QueryError> {
        let state = filter.state.map(EventState::name);
        let sub_app = filter.sub_app.map(|s| s.0.cast_signed());
        let since = filter.since.map(|t| t.0);
        let until = filter.until.map(|t| t.0);
        let (received_at, id) = before.map_or((0, 0), |c| (c.received_at.0, c.id));
        let from = match filter.state {
            Some(EventState::Received | EventState::Published | EventState::Parked) => {
                format!("({}) AS n CROSS JOIN event AS e ON e.id = n.id", schema::NOT_DONE)
            }
            // By the index of the doubtful ones, and by those of what is not done: the rest is not looked at.
            Some(EventState::Confirmed) | None if filter.maybe_duplicate => format!(
                "(SELECT id FROM event WHERE uncertain UNION
                  SELECT id FROM ({}) WHERE id <= {COPIED_UP_TO}) AS n CROSS JOIN event AS e ON e.id = n.id",
                schema::NOT_DONE
            ),
            Some(EventState::Confirmed) | None => "event AS e".to_owned(),
        };
        let mut sql = format!("SELECT {EVENT} FROM {from} WHERE TRUE");
        let mut values: Vec<(&str, &dyn ToSql)> = vec![(":limit", &limit)];
        if let Some(wanted) = &state {
            sql += " AND e.state = :state";
            values.push((":state", wanted));
        }
        if let Some(wanted) = &filter.event_type {
            sql += " AND e.event_type = :event_type";
            values.push((":event_type", wanted));
        }
        if let Some(wanted) = &sub_app {
            sql += " AND e.sub_app_id = :sub_app";
            values.push((":sub_app", wanted));
        }
        if let Some(wanted) = &filter.file_id {
            sql += &format!(" AND e.file_id = :file AND {IN_A_STRETCH}");
            values.push((":file", wanted));
        }
        if let Some(wanted) = &filter.task_id {
            sql += &format!(" AND e.task_id = :task AND {IN_A_STRETCH}");
            values.push((":task", wanted));
        }
        if filter.maybe_duplicate {
            sql += &format!(" AND {MAYBE_DUPLICATE}");
        }
        if let Some(wanted) = &since {
            sql += " AND e.received_at >= :since";
            values.push((":since", wanted));
        }
        if let Some(wanted) = &until {
            sql += " AND e.received_at <= :until";
            values.push((":until", wanted));
        }
        if before.is_some() {
            sql += " AND (e.received_at, e.id) < (:received_at, :id)";
            values.push((":received_at", &received_at));
            values.push((":id", &id));
        }
        sql += " ORDER BY e.received_at DESC, e.id DESC LIMIT :limit";
        self.read(|conn| conn.prepare(&sql)?.query_map(&*values, event_row)?.collect())
    }

    /// One event, by its number, its message id, or the beginning of that. A number that no event has is tried as the
    /// beginning of a message id.
    ///
    /// # Errors
    ///
    /// [`QueryError::NotFound`], [`QueryError::Ambiguous`], or [`QueryError::Unreadable`].
    pub fn show(&self, what: &str) -> Result<ShownEvent, QueryError> {
        if let Ok(id) = what.parse::<i64>()
            && let Some(shown) = self.show_one(id)?
        {
            return Ok(shown);
        }
        let not_found = || QueryError::NotFound { what: what.to_owned() };
        let matching = match Prefix::parse(what) {
            Some(prefix) => self.matching(&prefix)?,
            None => return Err(not_found()),
        };
        match matching.as_slice() {
            [] => Err(not_found()),
            // A row can be pruned between the two looks.
            [(id, _)] => self.show_one(*id)?.ok_or_else(not_found),
            several => Err(QueryError::Ambiguous {
                what: what.to_owned(),
                candidates: several.iter().map(|(_, message_id)| message_id.clone()).collect(),
            }),
        }
    }

    /// How many events were received at this time or later.
    ///
    /// # Errors
    ///
    /// [`QueryError::Unreadable`].
    pub fn received_since(&self, time: WallTime) -> Result<u64, QueryError> {
        let count = "SELECT count(*) FROM event WHERE received_at >= ?1";
        let events: i64 = self.read(|conn| conn.query_row(count, [time.0], |row| row.get(0)))?;
        Ok(events.cast_unsigned())
    }

    /// How many events are in each state.
    ///
    /// # Errors
    ///
    /// [`QueryError::Unreadable`].
    pub fn count_by_state(&self) -> Result<Vec<(EventState, u64)>, QueryError> {
        self.read(|conn| {
            let mut statement = conn.prepare("SELECT events FROM tally WHERE state = ?1")?;
            EventState::ALL
                .into_iter()
                .map(|state| {
                    let events: i64 = statement.query_row([state.name()], |row| row.get(0))?;
                    Ok((state, events.try_into().unwrap_or(0)))
                })
                .collect()
        })
    }

    fn matching(&self, prefix: &Prefix) -> Result<Vec<(i64, String)>, QueryError> {
        self.read(|conn| {
            conn.prepare(
                // The keys begin with a time that nobody types: all of them are looked through, which their index is small enough for.
                "SELECT id, fingerprint, occurrence FROM event
                 WHERE id IN (SELECT id FROM event INDEXED BY event_by_fingerprint
                              WHERE search_key & 0xffffffff BETWEEN :low AND :high
                                 OR search_key >> 32 & 0xffffffff BETWEEN :low AND :high)
                   AND instr(lower(hex(fingerprint)), :digits) = 1
                   AND (:occurrence IS NULL OR occurrence = :occurrence)
                 ORDER BY id LIMIT :limit",
            )?
            .query_map(
                named_params! {
                    ":low": prefix.low, ":high": prefix.high, ":digits": prefix.digits,
                    ":occurrence": prefix.occurrence, ":limit": CANDIDATES,
                },
                |row| {
                    let id = MessageId::new(&Fingerprint(row.get(1)?), row.get(2)?);
                    Ok((row.get(0)?, id.to_string()))
                },
            )?
            .collect()
        })
    }

    fn show_one(&self, id: i64) -> Result<Option<ShownEvent>, QueryError> {
        self.read(|conn| {
            // One transaction: the event and its deliveries belong together.
            let tx = conn.unchecked_transaction()?;
            let sql = format!(
                "SELECT {EVENT}, c.body FROM event AS e JOIN content AS c ON c.event = e.id WHERE e.id = ?1"
            );
            let mut event = tx.prepare(&sql)?;
            let mut rows = event.query([id])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let deliveries = tx
                .prepare(
                    "SELECT * FROM (
                         SELECT d.id, d.handle, d.request_id, d.pulled_at, d.lease_until, d.confirmed_at,
                                coalesce(d.outcome, CASE WHEN d.lease_until <= ?3 THEN 'lapsed' ELSE 'open' END) AS outcome
                         FROM every_delivery AS d WHERE d.event = ?1 ORDER BY d.id DESC LIMIT ?2)
                     ORDER BY id",
                )?
                .query_map((id, SHOWN_DELIVERIES, WallTime::now().0), delivery_row)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Some(ShownEvent {
                event: event_row(row)?,
                fingerprint: Fingerprint(row.get("fingerprint")?).to_string(),
                body: row.get_ref("body")?.as_bytes()?.to_vec(),
                deliveries,
            }))
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, QueryError> {
        read(&self.reading.conn).map_err(|source| failed(&self.path, source))
    }
}

/// The beginning of a message id.
#[derive(Debug, PartialEq, Eq)]
struct Prefix {
    digits: String,
    /// The range of the first 4 bytes of the fingerprints that begin so.
    low: u32,
    high: u32,
    occurrence: Option<u32>,
}

impl Prefix {
    fn parse(text: &str) -> Option<Self> {
        let (digits, occurrence) = match text.split_once('-') {
            Some((digits, occurrence)) => (digits, Some(occurrence.parse().ok()?)),
            // A whole message id without a number is the first occurrence's, and no beginning of the others'.
            None => (text, (text.len() == 32).then_some(1)),
        };
        let digits = digits.to_ascii_lowercase();
        if digits.is_empty() || digits.len() > 32 {
            return None;
        }
        // Hex digits only; `from_str_radix` alone would take a sign.
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let start = &digits[..digits.len().min(8)];
        let end =
            |fill: &str| u32::from_str_radix(&format!("{start}{}", fill.repeat(8 - start.len())), 16).ok();
        Some(Self { low: end("0")?, high: end("f")?, digits, occurrence })
    }
}

/// The columns of [`EventRow`].
const EVENT: &str =
    "e.id, e.fingerprint, e.occurrence, e.sub_app_id, e.event_type, e.file_id, e.task_id, e.state,
    e.redeliveries, e.attempts, e.uncertain OR (e.state = 'received' AND e.id <= (SELECT coalesce(max(up_to), 0) FROM copied))
        AS maybe_duplicate, CASE WHEN e.reason LIKE '% [VR-___]' THEN substr(e.reason, -7, 6) END AS error_code,
    CASE WHEN e.reason LIKE '% [VR-___]' THEN substr(e.reason, 1, length(e.reason) - 9) ELSE e.reason END AS message,
    coalesce(e.parked_reason, CASE WHEN e.parked THEN e.reason END) AS parked_message,
    e.received_at, e.published_at, e.confirmed_at";

/// What can be there twice; in a copy, whatever is still to be published.
const MAYBE_DUPLICATE: &str =
    "(e.uncertain OR (e.state = 'received' AND e.id <= (SELECT coalesce(max(up_to), 0) FROM copied)))";

fn event_row(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let occurrence = row.get("occurrence")?;
    Ok(EventRow {
        id: row.get("id")?,
        message_id: MessageId::new(&Fingerprint(row.get("fingerprint")?), occurrence).to_string(),
        sub_app_id: row.get::<_, i64>("sub_app_id")?.cast_unsigned(),
        event_type: row.get("event_type")?,
        file_id: row.get("file_id")?,
        task_id: row.get("task_id")?,
        state: row.get("state")?,
        occurrence,
        redeliveries: row.get("redeliveries")?,
        attempts: row.get("attempts")?,
        maybe_duplicate: row.get("maybe_duplicate")?,
        error_code: row.get("error_code")?,
        message: row.get("message")?,
        parked_message: row.get("parked_message")?,
        received_at: WallTime(row.get("received_at")?),
        published_at: row.get::<_, Option<_>>("published_at")?.map(WallTime),
        confirmed_at: row.get::<_, Option<_>>("confirmed_at")?.map(WallTime),
    })
}

fn delivery_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        handle: row.get("handle")?,
        request_id: row.get("request_id")?,
        pulled_at: WallTime(row.get("pulled_at")?),
        lease_until: WallTime(row.get("lease_until")?),
        outcome: row.get("outcome")?,
        confirmed_at: row.get::<_, Option<_>>("confirmed_at")?.map(WallTime),
    })
}

fn failed(path: &Path, source: rusqlite::Error) -> QueryError {
    if let Some(fault) = DiskFault::behind(path, &source) {
        return QueryError::Disk {
            path: path.to_owned(),
            cause: source,
            error_code: fault.error_code(),
            next_step: fault.next_step(),
        };
    }
    let next_step = match source.sqlite_error_code() {
        Some(
            rusqlite::ErrorCode::CannotOpen
            | rusqlite::ErrorCode::ReadOnly
            | rusqlite::ErrorCode::PermissionDenied,
        ) => "run the command as the relay's user, who can write to the journal's folder, or as root",
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            "another program holds it: try again"
        }
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            "it is damaged, or no database: check journal.path"
        }
        _ => "report this with the message above",
    };
    QueryError::Unreadable { path: path.to_owned(), problem: format!("{source}; {next_step}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_message_id_is_a_range_of_first_bytes() {
        let prefix = Prefix::parse("8A").unwrap();
        assert_eq!((prefix.digits.as_str(), prefix.occurrence), ("8a", None));
        assert_eq!((prefix.low, prefix.high), (0x8a00_0000, 0x8aff_ffff));
    }

    #[test]
    fn a_whole_message_id_names_one_occurrence() {
        let digits = "ab".repeat(16);
        assert_eq!(Prefix::parse(&digits).unwrap().occurrence, Some(1));
        assert_eq!(Prefix::parse(&format!("{digits}-3")).unwrap().occurrence, Some(3));
        assert_eq!(Prefix::parse("abababab-3").unwrap().occurrence, Some(3), "as `events list` shows it");
    }

    #[test]
    fn what_cannot_begin_a_message_id_is_refused() {
        for text in ["", "xyz", "+f", "ab-", "-2", "ab-x", &"a".repeat(33)] {
            assert_eq!(Prefix::parse(text), None, "{text}");
        }
    }
}
