//! Read-only access, for the commands that show the journal.
//!
//! A reader with an open transaction keeps the WAL from being copied back. So everything here reads a page at
//! a time and ends its transaction in between.

mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ToSql;
use rusqlite::{Connection, named_params};
use tencent_vod_event::{Fingerprint, MessageId, SubAppId};
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use super::disk::DiskFault;
pub use super::event_state::{EventState, NoState};
use super::files;
use super::reading::{self, Reading};
use super::schema::{self, COPIED_UP_TO, Found};
use crate::clock::Now as _;
pub use rows::{Cursor, DeliveryRow, EventRow, ShownEvent};
use rows::{EVENT, delivery_row, event_row};
use vodrelay_host::regular_file;

/// A reader waits for a writer only in few cases, such as the recovery of a WAL.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The newest deliveries that [`JournalReader::show`] returns.
const SHOWN_DELIVERIES: u32 = 1_000;
/// The events that are listed for an ambiguous id.
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
    /// The disk under it is full, mounted read-only, or fails. That may pass.
    #[error("the journal {path} cannot be read now ({cause}): {next_step}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
        /// Its name in the catalogue.
        error_code: ErrorCode,
        /// Where to look.
        next_step: &'static str,
    },
    /// No event has this id.
    #[error(
        "no event in the journal has the id or message id {what:?}: look it up with `vodrelay events list`"
    )]
    NotFound {
        /// The given id.
        what: String,
    },
    /// Several events have a message id with this beginning.
    #[error("{what:?} begins several message ids ({}): give more of it, or the event's number", candidates.join(", "))]
    Ambiguous {
        /// The given id.
        what: String,
        /// Some of them.
        candidates: Vec<String>,
    },
}

/// Files and tasks are indexed in stretches of events. Each stretch of the journal is searched.
const IN_A_STRETCH: &str = "e.id / 512 IN (
    WITH RECURSIVE stretch (n) AS (
        SELECT (SELECT min(id) FROM event) / 512
        UNION ALL SELECT n + 1 FROM stretch WHERE n < (SELECT max(id) FROM event) / 512)
    SELECT n FROM stretch)";

/// Which events to list. All set conditions must hold.
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

/// A read-only connection to a journal, with or without a relay that writes to it.
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
        if let Some(kind) = regular_file::other_kind(path) {
            return Err(unreadable(format!("it is a {kind}: check journal.path")));
        }
        if let Some(pid) = files::used_by_another_name(path) {
            return Err(unreadable(files::another_name(path, &pid)));
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

    /// Up to `limit` events, newest first. The next page begins at the cursor of the last one.
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
            // By the index of the uncertain ones and those of the unfinished ones; no other row is read.
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

    /// One event, by its number, its message id, or the beginning of that. A number without an event is tried
    /// as the beginning of a message id.
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
            // A row can be pruned between the two reads.
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
                // The keys begin with a time that people do not type. All keys are searched; their index is
                // small enough.
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
            // A whole message id without a number names the first occurrence, and is not the beginning of
            // others.
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

/// Possible duplicates; in a copy, also everything that is still to be published.
const MAYBE_DUPLICATE: &str =
    "(e.uncertain OR (e.state = 'received' AND e.id <= (SELECT coalesce(max(up_to), 0) FROM copied)))";

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
            "it is damaged, or not a database: check journal.path"
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
