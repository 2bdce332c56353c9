//! Finds the events of an upload in the journal, and the medium of an upload whose commit was not answered.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tencent_vod::upload::record::UploadRecord;
use tencent_vod::upload::source::SourceFile;
use tencent_vod_event::SubAppId;
use vodrelay_core::clock::WallTime;

use super::begin::say;
use super::source_failure;
use crate::app::unwound;
use crate::cli::exit::{Exit, Failure};
use crate::config::Config;
use crate::journal::query::{EventRow, EventState, Filter, JournalReader, QueryError};

/// How often the journal is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The events of a file that are looked at.
const MOST: u32 = 100;
/// The uploads among which one is looked for.
const CANDIDATES: u32 = 1_000;
/// Clocks differ.
const BEFORE: Duration = Duration::from_secs(120);

/// Waits until the journal has the events of an upload, and shows each once.
pub(super) async fn events(
    config: &Config,
    file_id: &str,
    procedure: bool,
    began_ms: i64,
    limit: Duration,
) -> Result<(), Failure> {
    let (began, path) = (Instant::now(), config.journal.path.clone());
    let mut shown: Vec<(i64, EventState)> = Vec::new();
    loop {
        let rows = of_file(path.clone(), file_id.to_owned()).await;
        // The relay may be about to start for the first time: a journal that cannot be read is told when the time is over.
        let (rows, unreadable) = match rows {
            Ok(rows) => (rows, None),
            Err(QueryError::Missing { .. }) => (Vec::new(), None),
            Err(error) => (Vec::new(), Some(error)),
        };
        for row in &rows {
            if !shown.contains(&(row.id, row.state)) {
                shown.push((row.id, row.state));
                say(&line(row, began_ms));
            }
        }
        let done = |name: &str| {
            rows.iter()
                .any(|row| row.event_type.as_deref() == Some(name) && row.state != EventState::Received)
        };
        if done("NewFileUpload") && (!procedure || done("ProcedureStateChanged")) {
            return Ok(());
        }
        if began.elapsed() >= limit {
            if let Some(error) = unreadable {
                return Err(Failure::new(Exit::Failure, error));
            }
            let missing = if done("NewFileUpload") { "ProcedureStateChanged" } else { "NewFileUpload" };
            return Err(Failure::new(
                Exit::Temporary,
                format!("the medium {file_id} is there, and its {missing} event was not published within {} s", limit.as_secs()),
            )
            .next(format!(
                "see that the relay runs with this configuration (`vodrelay status`), and look again: `vodrelay events list --file-id {file_id}`"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn line(row: &EventRow, began_ms: i64) -> String {
    let after = (row.received_at.0 - began_ms) as f64 / 1_000.0;
    let event_type = row.event_type.as_deref().unwrap_or("an event without a type");
    let problem = row.error_code.as_deref().map(|code| format!(" [{code}]")).unwrap_or_default();
    format!("  {after:>7.1} s  {event_type} {}{problem}, message id {}", row.state.name(), row.message_id)
}

async fn of_file(path: PathBuf, file_id: String) -> Result<Vec<EventRow>, QueryError> {
    unwound(
        tokio::task::spawn_blocking(move || {
            let filter = Filter { file_id: Some(file_id), ..Filter::default() };
            let mut rows = JournalReader::open(&path)?.list(&filter, None, MOST)?;
            rows.reverse();
            Ok(rows)
        })
        .await,
    )
}

/// The medium that an upload became, by size, MD5 and name of its `NewFileUpload` event; `None` when the journal has none.
pub(super) async fn find(config: &Config, record: &UploadRecord) -> Result<Option<String>, Failure> {
    let (path, record) = (config.journal.path.clone(), record.clone());
    unwound(
        tokio::task::spawn_blocking(move || {
            let Ok(reader) = JournalReader::open(&path) else { return Ok(None) };
            let since = WallTime(record.began_at * 1_000) - BEFORE;
            let filter = Filter {
                event_type: Some("NewFileUpload".to_owned()),
                sub_app: Some(SubAppId(record.sub_app)),
                since: Some(since),
                ..Filter::default()
            };
            let failed = |error: QueryError| Failure::new(Exit::Failure, error);
            let mut md5 = None;
            for row in reader.list(&filter, None, CANDIDATES).map_err(failed)? {
                let shown = reader.show(&row.id.to_string()).map_err(failed)?;
                let Ok(body) = serde_json::from_slice::<Value>(&shown.body) else { continue };
                let event = &body["FileUploadEvent"];
                let size = event["MetaData"]["Size"].as_u64();
                let name = event["MediaBasicInfo"]["Name"].as_str();
                if size != Some(record.identity.size) || name != record.apply.media_name.as_deref() {
                    continue;
                }
                let ours = match &md5 {
                    Some(md5) => md5,
                    None => md5.insert(digest(&record)?),
                };
                if event["MetaData"]["Md5"].as_str().is_some_and(|theirs| theirs.eq_ignore_ascii_case(ours)) {
                    return Ok(row.file_id);
                }
            }
            Ok(None)
        })
        .await,
    )
}

fn digest(record: &UploadRecord) -> Result<String, Failure> {
    let file = SourceFile::open(&record.path).map_err(source_failure)?;
    Ok(file.digests(0, file.identity().size).map_err(source_failure)?.etag())
}
