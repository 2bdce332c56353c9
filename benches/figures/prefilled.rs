//! Journals with millions of old events in them, made by bulk SQL in a file that the relay itself has begun.
//!
//! They are kept beside the build, because a large one takes minutes. A name says which schema it has, so that another
//! schema gets another file. Each run adds the events that it relays, until there are too many of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use vodrelay_testkit::broker::Broker;

use crate::SCRATCH;
use crate::world::cloud::{Behaviour, Cloud};
use crate::world::relay::{NO_LIMIT, Relay, Setup};
use crate::world::{Bench, disk};

/// What one event takes, with its indexes; measured, and rounded up. Sorting the indexes takes some more for a while.
const BYTES_PER_EVENT: u64 = 1_000;

/// What is left free for whoever else uses the disk.
const RESERVE_BYTES: u64 = 4 << 30;

/// The tables that grow with the events, and what each column of event number `n` holds. A column that is not here keeps
/// its default. Everything that looks random is: an index on it is as scattered as that of a real journal.
const TABLES: &[(&str, &[(&str, &str)])] = &[
    (
        "event",
        &[
            ("id", "n"),
            ("search_key", "{at} / 1000 - 946684800 << 32 | {head}"),
            ("fingerprint", "unhex(printf('%08x', {head}) || hex(randomblob(28)))"),
            ("occurrence", "1"),
            ("sub_app_id", "0"),
            ("event_type", "'NewFileUpload'"),
            ("file_id", "printf('52858907%011d', (n * 2654435761) % 100000000000)"),
            ("task_id", "printf('1256768367-procedurev2-%08x%08xt0', (n * 2654435761) % 4294967296, n)"),
            ("received_at", "{at}"),
            ("published_at", "{at} + 4"),
            ("confirmed_at", "{at} + 9"),
            ("attempts", "1"),
            ("handle", "printf('%019d', n)"),
            ("request_id", "lower(hex(randomblob(16)))"),
            ("boot", "(SELECT max(id) FROM boot)"),
            ("sent_at", "n"),
            ("cutoff", "n + 27000"),
            ("arrived_at", "n + 3"),
            ("lease_until", "{at} + 27000"),
            ("outcome", "1"),
        ],
    ),
    (
        "content",
        &[
            ("event", "n"),
            (
                "body",
                "'{\"EventHandle\":\"' || printf('%019d', n) || '\",\"EventType\":\"NewFileUpload\",\"FileUploadEvent\":{\"FileId\":\"'
                 || printf('52858907%011d', (n * 2654435761) % 100000000000) || '\",\"Context\":\"' || hex(randomblob(90)) || '\"}}'",
            ),
        ],
    ),
];

/// Scatters all numbers over 32 bits.
const HEAD: &str = "(n * 2654435761) % 4294967296";

/// Milliseconds since 1970: the events came over the last twenty days.
const AT: &str = "(unixepoch() * 1000 - 86400000 * 20 + n * 86400000 * 20 / ?1)";

/// A journal with so many confirmed events in it; `None`, when the disk has too little room for it.
pub(crate) async fn journal(bench: &Bench, broker: &Broker, events: u64) -> Option<PathBuf> {
    let fresh = begun_by_the_relay(bench, broker).await;
    let path = Path::new(SCRATCH).join(format!("journal-{}-{events}.db", schema_name(&fresh)));
    if path.exists() {
        if newest(&path) <= events + events / 5 {
            bench.say(&format!("{} is there already", path.display()));
            return Some(path);
        }
        fs::remove_file(&path).expect("a file can be removed");
    }
    let (needed, free) = (events * BYTES_PER_EVENT + RESERVE_BYTES, disk::free_bytes(Path::new(SCRATCH)));
    if free < needed {
        bench.say(&format!(
            "{events} old events are LEFT OUT: they want {} GB free, and the disk has {}",
            needed >> 30,
            free >> 30
        ));
        return None;
    }
    let began = Instant::now();
    fill(&fresh, events);
    fs::rename(&fresh, &path).expect("a file can be renamed");
    let megabytes = fs::metadata(&path).expect("the journal is there").len() >> 20;
    bench
        .say(&format!("{events} old events, {megabytes} MB, made in {:.0} s", began.elapsed().as_secs_f64()));
    Some(path)
}

/// Lets a relay keep these events for as long as the file is kept.
pub(crate) fn keep(setup: &mut Setup) {
    setup.set("JOURNAL__RETENTION", "3650d");
}

async fn begun_by_the_relay(bench: &Bench, broker: &Broker) -> PathBuf {
    let path = bench.folder().join("fresh.db");
    let cloud = Cloud::start(bench, Behaviour::UNLIMITED).await;
    let mut setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    setup.journal(&path);
    let mut relay = Relay::start(bench, &setup);
    relay.ready().await;
    relay.drained().await;
    path
}

/// Its version and, because a schema may change before its version is released, a digest of it.
fn schema_name(path: &Path) -> String {
    let journal = Connection::open(path).expect("a journal can be opened");
    let version: i64 =
        journal.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a journal has a version");
    let texts = strings(&journal, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name");
    let digest = hex::encode(Sha256::digest(texts.join("\n")));
    format!("v{version}-{}", &digest[..8])
}

/// The number of the newest event, and so the number of all, because none was pruned.
fn newest(path: &Path) -> u64 {
    let journal = Connection::open(path).expect("a journal can be opened");
    let newest = journal.query_row("SELECT max(id) FROM event", [], |row| row.get::<_, i64>(0));
    newest.expect("a journal has events").cast_unsigned()
}

fn fill(path: &Path, events: u64) {
    let journal = Connection::open(path).expect("a journal can be opened");
    // Nobody needs a journal that is half filled.
    journal
        .execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF;
             PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -500000;",
        )
        .expect("a journal can be set up");
    let known = |table: &str| {
        TABLES.iter().any(|(name, _)| *name == table)
            || ["boot", "copied", "delivery", "origin", "search", "tally"].contains(&table)
    };
    for table in
        strings(&journal, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    {
        assert!(known(&table), "the generator of old events does not know the table {table}");
    }
    let dressing =
        "FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY type, rowid";
    let dressed = strings(&journal, &format!("SELECT sql {dressing}"));
    for undress in strings(&journal, &format!("SELECT 'DROP ' || type || ' ' || name {dressing}")) {
        journal.execute_batch(&undress).expect("an index or a trigger can be dropped");
    }
    let count = i64::try_from(events).expect("not that many");
    for (table, columns) in TABLES {
        let insert = insert(&journal, table, columns);
        journal.execute(&insert, params![count]).unwrap_or_else(|error| panic!("{error}: {insert}"));
    }
    journal
        .execute("UPDATE tally SET events = events + ?1 WHERE state = 'confirmed'", params![count])
        .expect("the tally counts");
    for dress in dressed {
        journal.execute_batch(&dress).expect("an index or a trigger can be made");
    }
    // The relay finds it as it left it.
    journal
        .execute_batch("PRAGMA locking_mode = NORMAL; PRAGMA journal_mode = WAL;")
        .expect("a journal can be set up");
}

/// One statement that fills a table with the events 1 to `?1`.
fn insert(journal: &Connection, table: &str, columns: &[(&str, &str)]) -> String {
    let there = strings(journal, &format!("SELECT name FROM pragma_table_xinfo('{table}') WHERE hidden = 0"));
    let needed = strings(
        journal,
        &format!(
            "SELECT name FROM pragma_table_xinfo('{table}') WHERE hidden = 0 AND \"notnull\" AND dflt_value IS NULL"
        ),
    );
    for column in needed {
        let known = columns.iter().any(|(name, _)| *name == column);
        assert!(known, "the generator of old events does not know the column {table}.{column}");
    }
    let columns = columns.iter().filter(|(name, _)| there.iter().any(|column| column == name));
    let (names, values): (Vec<&str>, Vec<String>) =
        columns.map(|(name, value)| (*name, value.replace("{head}", HEAD).replace("{at}", AT))).unzip();
    format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
         INSERT INTO {table} ({}) SELECT {} FROM numbers",
        names.join(", "),
        values.join(", ")
    )
}

fn strings(journal: &Connection, sql: &str) -> Vec<String> {
    let mut statement = journal.prepare(sql).expect("the statement is SQL");
    let rows = statement.query_map([], |row| row.get(0)).expect("a journal can be read");
    rows.collect::<Result<_, _>>().expect("a journal can be read")
}
