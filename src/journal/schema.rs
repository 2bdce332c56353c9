//! Tables, views for people, and the migrations.

use rusqlite::{Connection, TransactionBehavior};

/// `vodr` marks the file as ours, so another program's database is not taken for a journal.
pub(super) const APPLICATION_ID: i64 = 0x766f_6472;

/// Version 1. The comments inside stay in the file, for those who read it with `.schema`.
///
/// The body has a table of its own: SQLite rewrites a whole row when one column changes. An event's row
/// changes several times, its body never.
const VERSION_1: &str = "
CREATE TABLE boot (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE event (
    id               INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice, not even after a row was pruned
    fingerprint_head INTEGER NOT NULL,                  -- the first 8 bytes, big-endian: a small key to search by
    fingerprint      BLOB    NOT NULL,
    occurrence       INTEGER NOT NULL,
    sub_app_id       INTEGER NOT NULL,
    event_type       TEXT,
    file_id          TEXT,
    task_id          TEXT,
    received_at      INTEGER NOT NULL,                  -- times are milliseconds since 1970, UTC
    published_at     INTEGER,
    confirmed_at     INTEGER,
    parked           INTEGER NOT NULL DEFAULT 0,
    attempts         INTEGER NOT NULL DEFAULT 0,        -- publishes that may have left the relay
    redeliveries     INTEGER NOT NULL DEFAULT 0,
    uncertain        INTEGER NOT NULL DEFAULT 0,        -- a publish may have reached the broker without an ack
    reason           TEXT,                              -- how the last publish failed, or why it is parked
    state            TEXT    NOT NULL GENERATED ALWAYS AS (
        CASE WHEN parked THEN 'parked'
             WHEN published_at IS NULL THEN 'received'
             WHEN confirmed_at IS NULL THEN 'published'
             ELSE 'confirmed' END) VIRTUAL
) STRICT;
CREATE INDEX event_by_fingerprint      ON event (fingerprint_head, occurrence);
CREATE INDEX event_open_by_fingerprint ON event (fingerprint_head) WHERE confirmed_at IS NULL;
CREATE INDEX event_open_by_sub_app     ON event (sub_app_id, received_at) WHERE confirmed_at IS NULL;
CREATE INDEX event_under_way           ON event (state) WHERE state <> 'confirmed';
CREATE INDEX event_in_doubt            ON event (received_at) WHERE uncertain;
CREATE INDEX event_by_received         ON event (received_at);
CREATE INDEX event_by_file             ON event (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX event_by_task             ON event (task_id) WHERE task_id IS NOT NULL;

CREATE TABLE content (
    event INTEGER PRIMARY KEY REFERENCES event (id) ON DELETE CASCADE,
    body  TEXT NOT NULL                                 -- byte for byte as the cloud sent it first
) STRICT;

CREATE TABLE delivery (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    event        INTEGER NOT NULL REFERENCES event (id) ON DELETE CASCADE,
    handle       TEXT,
    request_id   TEXT    NOT NULL,
    boot         INTEGER NOT NULL REFERENCES boot (id),
    sent_at      INTEGER NOT NULL,                      -- milliseconds on the boot clock of `boot`
    cutoff       INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    pulled_at    INTEGER NOT NULL,                      -- milliseconds since 1970, UTC
    lease_until  INTEGER NOT NULL,
    outcome      TEXT CHECK (outcome IN ('confirmed', 'refused', 'lost', 'settled')),
    confirmed_at INTEGER
) STRICT;
CREATE INDEX delivery_by_event ON delivery (event);

-- How many events are in each state, so that nobody has to count them.
CREATE TABLE tally (
    state  TEXT    PRIMARY KEY,
    events INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO tally VALUES ('received', 0), ('published', 0), ('confirmed', 0), ('parked', 0);
CREATE TRIGGER event_came AFTER INSERT ON event BEGIN
    UPDATE tally SET events = events + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER event_moved AFTER UPDATE OF published_at, confirmed_at, parked ON event WHEN OLD.state <> NEW.state BEGIN
    UPDATE tally SET events = events - 1 WHERE state = OLD.state;
    UPDATE tally SET events = events + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER event_went AFTER DELETE ON event BEGIN
    UPDATE tally SET events = events - 1 WHERE state = OLD.state;
END;

CREATE VIEW event_log AS
SELECT id,
       lower(hex(substr(fingerprint, 1, 16))) || CASE WHEN occurrence > 1 THEN '-' || occurrence ELSE '' END AS message_id,
       sub_app_id, event_type, file_id, task_id, state, occurrence, redeliveries, attempts, reason,
       strftime('%Y-%m-%dT%H:%M:%S', received_at / 1000, 'unixepoch') || printf('.%03dZ', received_at % 1000) AS received_at,
       strftime('%Y-%m-%dT%H:%M:%S', published_at / 1000, 'unixepoch') || printf('.%03dZ', published_at % 1000) AS published_at,
       strftime('%Y-%m-%dT%H:%M:%S', confirmed_at / 1000, 'unixepoch') || printf('.%03dZ', confirmed_at % 1000) AS confirmed_at,
       body
FROM event JOIN content ON content.event = event.id;

CREATE VIEW handle_log AS
SELECT handle, event AS event_id,
       strftime('%Y-%m-%dT%H:%M:%S', pulled_at / 1000, 'unixepoch') || printf('.%03dZ', pulled_at % 1000) AS pulled_at,
       strftime('%Y-%m-%dT%H:%M:%S', lease_until / 1000, 'unixepoch') || printf('.%03dZ', lease_until % 1000) AS lease_until,
       coalesce(outcome, CASE WHEN lease_until <= 1000 * CAST(strftime('%s', 'now') AS INTEGER) THEN 'lapsed' ELSE 'open' END) AS outcome,
       strftime('%Y-%m-%dT%H:%M:%S', confirmed_at / 1000, 'unixepoch') || printf('.%03dZ', confirmed_at % 1000) AS confirmed_at
FROM delivery;
";

/// Version 2 does less work for each event, and keeps it near the newest rows at any size of the journal.
///
/// - Most events are delivered once: the first delivery has its place in the event's row, and only others have rows of their
///   own. Events of version 1 keep theirs in `delivery`; nothing here rewrites a table.
/// - Two partial indexes stand for three. An event enters `event_unconfirmed` once and leaves it once.
/// - Files and tasks are found within a stretch of 512 events, so that the entries of new events are neighbours.
/// - The counts are written once for each transaction, by the writer.
const VERSION_2: &str = "
DROP TRIGGER event_came;
DROP TRIGGER event_moved;
DROP VIEW handle_log;
DROP INDEX event_open_by_fingerprint;
DROP INDEX event_open_by_sub_app;
DROP INDEX event_under_way;
DROP INDEX event_by_file;
DROP INDEX event_by_task;

-- An event's first delivery has the event's number; further ones take theirs from the same sequence.
UPDATE sqlite_sequence SET seq = (SELECT max(seq) FROM sqlite_sequence) WHERE name = 'event';
ALTER TABLE event ADD COLUMN handle              TEXT;
ALTER TABLE event ADD COLUMN request_id          TEXT;    -- empty: the first delivery is in delivery, too
ALTER TABLE event ADD COLUMN boot                INTEGER;
ALTER TABLE event ADD COLUMN sent_at             INTEGER; -- milliseconds on the boot clock of boot
ALTER TABLE event ADD COLUMN cutoff              INTEGER;
ALTER TABLE event ADD COLUMN arrived_at          INTEGER;
ALTER TABLE event ADD COLUMN lease_until         INTEGER; -- milliseconds since 1970, UTC
ALTER TABLE event ADD COLUMN outcome             INTEGER; -- 1 confirmed, 2 refused, 3 lost, 4 settled; small, because it comes later
ALTER TABLE event ADD COLUMN handle_confirmed_at INTEGER; -- when that was not what confirmed the event
ALTER TABLE event ADD COLUMN room                BLOB;    -- what the times take later, so that no row outgrows its page

-- Between them these have all events that are not done.
CREATE INDEX event_unconfirmed ON event (sub_app_id, received_at) WHERE confirmed_at IS NULL;
CREATE INDEX event_left        ON event (parked) WHERE confirmed_at IS NOT NULL AND (published_at IS NULL OR parked);
CREATE INDEX event_open_again  ON event (fingerprint_head) WHERE confirmed_at IS NULL AND occurrence > 1;
CREATE INDEX event_by_file     ON event (id / 512, file_id) WHERE file_id IS NOT NULL;
CREATE INDEX event_by_task     ON event (id / 512, task_id) WHERE task_id IS NOT NULL;

CREATE VIEW every_delivery AS
SELECT id, id AS event, handle, request_id, boot, sent_at, cutoff, arrived_at AS received_at, received_at AS pulled_at, lease_until,
       CASE outcome WHEN 1 THEN 'confirmed' WHEN 2 THEN 'refused' WHEN 3 THEN 'lost' WHEN 4 THEN 'settled' END AS outcome,
       CASE outcome WHEN 1 THEN coalesce(handle_confirmed_at, confirmed_at) END AS confirmed_at
FROM event WHERE request_id IS NOT NULL
UNION ALL
SELECT id, event, handle, request_id, boot, sent_at, cutoff, received_at, pulled_at, lease_until, outcome, confirmed_at
FROM delivery;

CREATE VIEW handle_log AS
SELECT handle, event AS event_id,
       strftime('%Y-%m-%dT%H:%M:%S', pulled_at / 1000, 'unixepoch') || printf('.%03dZ', pulled_at % 1000) AS pulled_at,
       strftime('%Y-%m-%dT%H:%M:%S', lease_until / 1000, 'unixepoch') || printf('.%03dZ', lease_until % 1000) AS lease_until,
       coalesce(outcome, CASE WHEN lease_until <= 1000 * CAST(strftime('%s', 'now') AS INTEGER) THEN 'lapsed' ELSE 'open' END) AS outcome,
       strftime('%Y-%m-%dT%H:%M:%S', confirmed_at / 1000, 'unixepoch') || printf('.%03dZ', confirmed_at % 1000) AS confirmed_at
FROM every_delivery;
";

/// Version 3 searches events by their time first: [`LatestTime`](tencent_vod_event::LatestTime) makes neighbours of the index
/// entries of events that happen together.
///
/// No row is rewritten here: `search` says how events of an earlier program are searched.
const VERSION_3: &str = "
ALTER TABLE event RENAME COLUMN fingerprint_head TO search_key;

-- What search_key is: the latest time that the event names << 32 | the first 4 bytes of its fingerprint.
CREATE TABLE search (
    eight_bytes_up_to INTEGER NOT NULL -- in events up to this number it is the first 8 bytes of the fingerprint
) STRICT;
INSERT INTO search SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event';
";

/// Version 4 distinguishes a copy from its original file: see `origin`. It keeps why an event was parked,
/// whatever happens to it later. No row is rewritten.
const VERSION_4: &str = "
-- Which file this was when a relay opened it last. A copy is another file, or says itself that it is one.
CREATE TABLE origin (
    device    INTEGER NOT NULL,
    inode     INTEGER NOT NULL,
    born      INTEGER,                            -- nanoseconds since 1970; empty where the file system does not tell
    is_backup INTEGER NOT NULL DEFAULT 0          -- set in the copies that vodrelay makes
) STRICT;

-- The times that this journal was opened as a copy. What became of the events up to that number since the copy was made is
-- not known: those that are not done are in doubt.
CREATE TABLE copied (
    up_to     INTEGER NOT NULL,                   -- the highest number of an event or a delivery then
    opened_at INTEGER NOT NULL                    -- milliseconds since 1970, UTC
) STRICT;

ALTER TABLE event ADD COLUMN parked_reason TEXT;  -- why it was parked last; a release and later attempts leave it

-- SQLite's integers have a sign. An id of 2^63 and more is shown as text, so that it is the number that the cloud knows.
DROP VIEW event_log;
CREATE VIEW event_log AS
SELECT id,
       lower(hex(substr(fingerprint, 1, 16))) || CASE WHEN occurrence > 1 THEN '-' || occurrence ELSE '' END AS message_id,
       CASE WHEN sub_app_id < 0 THEN printf('%llu', sub_app_id) ELSE sub_app_id END AS sub_app_id,
       event_type, file_id, task_id, state, occurrence, redeliveries, attempts, reason,
       strftime('%Y-%m-%dT%H:%M:%S', received_at / 1000, 'unixepoch') || printf('.%03dZ', received_at % 1000) AS received_at,
       strftime('%Y-%m-%dT%H:%M:%S', published_at / 1000, 'unixepoch') || printf('.%03dZ', published_at % 1000) AS published_at,
       strftime('%Y-%m-%dT%H:%M:%S', confirmed_at / 1000, 'unixepoch') || printf('.%03dZ', confirmed_at % 1000) AS confirmed_at,
       body,
       -- An event that an earlier program parked has its reason in one place only.
       coalesce(parked_reason, CASE WHEN parked THEN reason END) AS parked_message,
       CASE WHEN reason LIKE '% [VR-___]' THEN substr(reason, -7, 6) END AS error_code,
       CASE WHEN reason LIKE '% [VR-___]' THEN substr(reason, 1, length(reason) - 9) ELSE reason END AS message
FROM event JOIN content ON content.event = event.id;
";

/// Version 5 distinguishes an older state of the journal from the newest one: see `origin`.
const VERSION_5: &str = "
-- Grows at each start and at each clean end of a process that writes. The lock file has the same number: a journal whose number
-- is lower is an older copy that was written over the file.
ALTER TABLE origin ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
";

/// The highest number of the events and deliveries that a copy brought; 0 in an original journal.
pub(super) const COPIED_UP_TO: &str = "(SELECT coalesce(max(up_to), 0) FROM copied)";

/// The numbers of the unfinished events, in the words of the two indexes that contain exactly these.
pub(super) const NOT_DONE: &str = "
    SELECT id FROM event INDEXED BY event_unconfirmed WHERE confirmed_at IS NULL
    UNION ALL
    SELECT id FROM event INDEXED BY event_left WHERE confirmed_at IS NOT NULL AND (published_at IS NULL OR parked)";

/// Each entry leads from its index to the next version. Forward only. A released entry never changes.
const MIGRATIONS: [&str; 5] = [VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

/// The newest version of this program.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// The kind of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A journal of a version up to [`VERSION`]; 0 is an empty file.
    Version(i64),
    /// A journal of a later version.
    Newer(i64),
    /// Another program's database.
    Foreign,
}

/// Reads what the file is, without changing it.
pub(super) fn examine(conn: &Connection) -> rusqlite::Result<Found> {
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 && application == 0 {
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        return Ok(if tables == 0 { Found::Version(0) } else { Found::Foreign });
    }
    Ok(if application != APPLICATION_ID || version < 1 {
        Found::Foreign
    } else if version > VERSION {
        Found::Newer(version)
    } else {
        Found::Version(version)
    })
}

/// Brings a journal of version `from` to [`VERSION`], in one transaction.
pub(super) fn migrate(conn: &mut Connection, from: i64) -> rusqlite::Result<()> {
    if from == VERSION {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()
}
