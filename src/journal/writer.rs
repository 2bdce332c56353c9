//! The one thread that writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::{JournalState, Problem};
use vodrelay_core::write::Written;

use super::OpenError;
use super::copy::{self, Copy};
use super::files::Lock;
use super::origin::Note;
use super::place::{Misplaced, Place};
use super::queue::{Asked, Queued};
use super::store::{Store, diagnosis, error_code, next_step};
use crate::failpoint;
use crate::heartbeat::Heartbeat;
use crate::latency::Latency;

/// A commit takes at most this many requests.
const BATCH: usize = 256;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a waiting writer checks whether a caller is left.
const LOOK_UP: Duration = Duration::from_millis(100);
/// How long a failing commit is still tried after the last caller has left.
const WAIT_AT_THE_END: Duration = Duration::from_secs(5);

/// Why the writer ended early.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Waiting does not help.
    #[error(
        "the journal {path} failed for good ({cause}): stop the relay, keep a copy of the file with its -wal, and check it with `PRAGMA integrity_check`"
    )]
    Fatal {
        /// The journal.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
    },
    /// The commit still failed when all callers had gone.
    #[error(
        "the last work of the relay could not be committed to the journal {path} ({cause}): {next_step}, then start the relay again; the cloud hands the missing events over again"
    )]
    GaveUp {
        /// The journal.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
        /// Its name in the catalogue.
        error_code: ErrorCode,
        /// Where to look.
        next_step: &'static str,
    },
    /// One of its files is no longer the one that SQLite has open.
    #[error("the files of the journal {path} were changed while the relay worked: {message}")]
    TakenApart {
        /// The journal.
        path: PathBuf,
        /// What happened, what was kept, and the next step.
        message: String,
    },
}

impl WriteError {
    /// Its name in the catalogue.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Fatal { cause, .. } => error_code(cause.sqlite_error_code()),
            Self::GaveUp { error_code, .. } => *error_code,
            Self::TakenApart { .. } => ErrorCode::JournalNotWritable,
        }
    }
}

/// The writer thread, to be joined at the end.
#[derive(Debug)]
#[must_use = "a writer that nobody joins can be cut off in the middle of a commit"]
pub struct Writer {
    thread: JoinHandle<Result<(), WriteError>>,
}

impl Writer {
    pub(super) fn start(
        store: Store,
        lock: Lock,
        path: PathBuf,
        configured: &Path,
        requests: mpsc::UnboundedReceiver<Queued>,
        times: Arc<Latency>,
        heartbeat: Heartbeat,
    ) -> Result<(Self, watch::Receiver<JournalState>), OpenError> {
        let (state, watched) = watch::channel(JournalState::Up);
        let place = Place::of(&path, configured, &store.conn)
            .map_err(|e| OpenError::unusable(&path, format!("it disappeared while it was opened ({e})")))?;
        let unusable = path.clone();
        let work = WriterWork { store, path, place, state, times, heartbeat };
        let thread = thread::Builder::new()
            .name("journal-writer".into())
            .spawn(move || {
                let ended = work.run(requests);
                let note = if ended.is_ok() { work.end_process() } else { None };
                // Not before the database is closed.
                drop(work);
                if let Some(note) = note {
                    // Without the note, the next start is like one after a crash.
                    let _ = lock.note(note);
                }
                drop(lock);
                ended
            })
            .map_err(|e| {
                OpenError::unusable(&unusable, format!("its writer thread cannot be started ({e})"))
            })?;
        Ok((Self { thread }, watched))
    }

    /// Waits until the writer has ended, which it does after the last [`super::Journal`] is dropped. Blocks.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when it ended early or left work undone.
    pub fn join(self) -> Result<(), WriteError> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct WriterWork {
    store: Store,
    path: PathBuf,
    place: Place,
    state: watch::Sender<JournalState>,
    times: Arc<Latency>,
    heartbeat: Heartbeat,
}

/// Why one attempt to commit failed.
#[derive(Debug)]
enum CommitError {
    Sqlite(rusqlite::Error),
    Misplaced(Misplaced),
}

impl From<rusqlite::Error> for CommitError {
    fn from(cause: rusqlite::Error) -> Self {
        Self::Sqlite(cause)
    }
}

impl From<Misplaced> for CommitError {
    fn from(misplaced: Misplaced) -> Self {
        Self::Misplaced(misplaced)
    }
}

/// What follows a round of work.
enum Next {
    /// No caller is left.
    End,
    /// More work, and no copy.
    Work,
    /// More work, and this copy beside it.
    Copy(copy::Begin),
}

impl WriterWork {
    fn run(&self, mut requests: mpsc::UnboundedReceiver<Queued>) -> Result<(), WriteError> {
        let mut next = Next::Work;
        loop {
            next = match next {
                Next::End => return Ok(()),
                Next::Work => self.serve(&mut requests, None)?,
                Next::Copy(begin) => begin
                    .run(&self.store.conn, |copy| self.serve(&mut requests, Some(copy)))?
                    .unwrap_or(Next::Work),
            }
        }
    }

    /// The commit of a clean end. Where it fails, there is nothing to note in the lock file.
    fn end_process(&self) -> Option<Note> {
        self.place.look(&self.store.conn).ok()?;
        let note = self.store.end_process().ok()?;
        self.place.look(&self.store.conn).ok()?;
        Some(note)
    }

    /// Works on the queue until the mode of work has to change.
    fn serve(
        &self,
        requests: &mut mpsc::UnboundedReceiver<Queued>,
        mut copy: Option<&mut Copy<'_>>,
    ) -> Result<Next, WriteError> {
        let mut batch: Vec<Asked> = Vec::with_capacity(BATCH);
        // The order is the promise: take the queue, run all of it in one transaction, commit with fsync, and
        // only then reply. A caller that has its reply can let the consequence leave the process.
        while let Some(first) = requests.blocking_recv() {
            let mut command = None;
            let mut queued = Some(first);
            while let Some(next) = queued {
                queued = match next {
                    Queued::Writes(more) => {
                        batch.extend(more);
                        if batch.len() < BATCH { requests.try_recv().ok() } else { None }
                    }
                    Queued::Copy(next) => {
                        command = Some(next);
                        None
                    }
                }
            }
            self.heartbeat.progress();
            if !batch.is_empty() {
                let written = self.commit_at_last(&batch, requests)?;
                for (asked, written) in batch.drain(..).zip(written) {
                    failpoint::reach("committed", asked.write.name());
                    // A caller that has left needs no answer.
                    let _ = asked.reply.send(written);
                }
            }
            let goes_on = match (command, &mut copy) {
                (Some(copy::CopyCommand::Begin(begin)), _) => {
                    self.heartbeat.rest();
                    return Ok(Next::Copy(begin));
                }
                (Some(copy::CopyCommand::Step(step)), Some(copy)) => copy.step(step),
                // The copy of this command has ended.
                (Some(copy::CopyCommand::Step(_) | copy::CopyCommand::End), None) | (None, None) => true,
                (Some(copy::CopyCommand::End) | None, Some(copy)) => copy.is_wanted(),
            };
            self.heartbeat.rest();
            if !goes_on {
                return Ok(Next::Work);
            }
        }
        Ok(Next::End)
    }

    /// Commits the batch, however long the problem lasts.
    fn commit_at_last(
        &self,
        batch: &[Asked],
        requests: &mpsc::UnboundedReceiver<Queued>,
    ) -> Result<Vec<Written>, WriteError> {
        let mut pause = RETRY_MIN;
        let mut alone_since = None;
        loop {
            let cause = match self.commit(batch) {
                Ok(written) => {
                    self.up();
                    return Ok(written);
                }
                Err(cause) => cause,
            };
            let (problem, gave_up) = self.problem(cause)?;
            self.down(problem);
            let pause_now = pause / 2 + pause.mul_f64(fastrand::f64() / 2.0);
            if self.wait(pause_now, requests, &mut alone_since) {
                return Err(gave_up);
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// One try. Dropping the transaction on the way out rolls it back.
    fn commit(&self, batch: &[Asked]) -> Result<Vec<Written>, CommitError> {
        // Nothing is written where the next process would not find it.
        self.place.look(&self.store.conn)?;
        let began = Instant::now();
        let transaction = self.store.begin()?;
        let mut written = Vec::with_capacity(batch.len());
        for Asked { write, at, .. } in batch {
            written.push(self.store.execute(write, *at)?);
            failpoint::reach("committing", write.name());
        }
        self.store.finish()?;
        transaction.commit()?;
        // And a commit does not count when it went to such a place.
        self.place.look(&self.store.conn)?;
        // What changes nothing waits for no disk, and says nothing about one.
        if batch.iter().any(|asked| !asked.write.only_reads()) {
            self.times.record(&[began.elapsed()]);
        }
        Ok(written)
    }

    /// Logs a failure while it lasts. Decides whether the writer ends: when no caller waits any more, or at
    /// once when waiting does not help.
    fn problem(&self, cause: CommitError) -> Result<(Problem, WriteError), WriteError> {
        let path = self.path.clone();
        match cause {
            CommitError::Sqlite(cause) => {
                let code = cause.sqlite_error_code();
                if !may_pass(code) {
                    let problem = Problem::new(error_code(code), format!("failed for good: {cause}"));
                    return Err(self.failed(problem, WriteError::Fatal { path, cause }));
                }
                let (error_code, next_step) = diagnosis(&path, &cause);
                let problem = Problem::new(error_code, format!("{cause}: {next_step}"));
                Ok((problem, WriteError::GaveUp { path, cause, error_code, next_step }))
            }
            // It can be moved back.
            CommitError::Misplaced(Misplaced::Database) => {
                let message = format!(
                    "the file was moved or removed: {}",
                    next_step(Some(rusqlite::ErrorCode::ReadOnly))
                );
                let problem = Problem::new(ErrorCode::JournalNotWritable, message.as_str());
                Ok((problem, WriteError::TakenApart { path, message }))
            }
            CommitError::Misplaced(Misplaced::DatabaseCut) => {
                // The next process takes a file without content for a new journal, and removes the WAL. So
                // the content of the WAL is copied into the file, and stays in the WAL.
                let stays =
                    self.store.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).is_ok();
                let copied = self.store.fold_wal().unwrap_or(false);
                let message = format!(
                    "another program made it shorter; the content beyond that is lost{}; keep other programs from writing to it, check it with `PRAGMA integrity_check`, then start the relay again",
                    if stays && copied { ", except the content of the -wal file" } else { "" }
                );
                let problem = Problem::new(ErrorCode::JournalNotWritable, message.as_str());
                Err(self.failed(problem, WriteError::TakenApart { path, message }))
            }
            CommitError::Misplaced(Misplaced::Beside(suffix)) => self.rescue(suffix),
            CommitError::Misplaced(Misplaced::WalCut) => {
                // Its pages are gone. Copying zeros into the journal would damage it.
                let kept =
                    self.store.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).is_ok();
                let message = format!(
                    "another program made its -wal shorter, or wrote over it; what was committed there since the last checkpoint is lost{}; \
                     keep clean-up jobs out of its folder, check it with `PRAGMA integrity_check`, then start the relay again",
                    if kept { "" } else { ", and the journal may be damaged" }
                );
                let problem = Problem::new(ErrorCode::JournalNotWritable, message.as_str());
                Err(self.failed(problem, WriteError::TakenApart { path, message }))
            }
        }
    }

    /// A file beside the database was removed or replaced. SQLite still has the one with the commits open.
    /// They are copied into the database, where the next process finds them. Then this process ends, and the
    /// next one begins with files that belong together.
    fn rescue(&self, suffix: &'static str) -> Result<(Problem, WriteError), WriteError> {
        let path = self.path.clone();
        let found = format!("its {suffix} file was moved, removed or replaced");
        match self.store.fold_wal() {
            Ok(true) => {
                let message = format!(
                    "{found}; everything that was committed is in the journal itself now; keep clean-up jobs out of its folder, and start the relay again"
                );
                let problem = Problem::new(ErrorCode::JournalNotWritable, message.as_str());
                Err(self.failed(problem, WriteError::TakenApart { path, message }))
            }
            not_yet => {
                let why = match not_yet {
                    Err(cause) => cause.to_string(),
                    Ok(_) => "a program that reads the journal prevents it".to_owned(),
                };
                let message = format!(
                    "{found}, and the committed data cannot be copied into the journal itself yet ({why}): do not end the relay, which alone has it"
                );
                let problem = Problem::new(ErrorCode::JournalNotWritable, message.as_str());
                Ok((problem, WriteError::TakenApart { path, message }))
            }
        }
    }

    fn failed(&self, problem: Problem, ended: WriteError) -> WriteError {
        error!(error_code = %problem.error_code, path = %self.path.display(), error = %problem.message, "journal failed for good");
        self.state.send_replace(JournalState::Down(problem));
        ended
    }

    /// Waits for the back-off. True when all callers have been gone for so long that the work is given up.
    fn wait(
        &self,
        pause: Duration,
        requests: &mpsc::UnboundedReceiver<Queued>,
        alone_since: &mut Option<Instant>,
    ) -> bool {
        let until = Instant::now() + pause;
        loop {
            if requests.is_closed()
                && alone_since.get_or_insert_with(Instant::now).elapsed() >= WAIT_AT_THE_END
            {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // The writer waits for a disk that is away. That is not a standstill.
            self.heartbeat.progress();
            thread::sleep(left.min(LOOK_UP));
        }
    }

    fn up(&self) {
        let recovered = self.state.send_if_modified(|state| {
            let was_down = *state != JournalState::Up;
            *state = JournalState::Up;
            was_down
        });
        if recovered {
            info!(path = %self.path.display(), "journal commits again");
        }
    }

    fn down(&self, problem: Problem) {
        let state = JournalState::Down(problem.clone());
        let changed = self.state.send_if_modified(|was| {
            let changed = *was != state;
            *was = state;
            changed
        });
        if changed {
            error!(error_code = %problem.error_code, path = %self.path.display(), error = %problem.message, "journal cannot commit; its work is kept and tried again");
        }
    }
}

/// Whether it can pass or be repaired while the relay runs. Everything else is damage or a bug.
fn may_pass(code: Option<rusqlite::ErrorCode>) -> bool {
    matches!(
        code,
        Some(
            rusqlite::ErrorCode::DiskFull
                | rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::DatabaseBusy
                | rusqlite::ErrorCode::DatabaseLocked
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::ReadOnly
                | rusqlite::ErrorCode::PermissionDenied
                | rusqlite::ErrorCode::OutOfMemory
                | rusqlite::ErrorCode::FileLockingProtocolFailed
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Boot, Journal, Options, files};
    use tencent_vod_event::{Event, SubAppId};
    use vodrelay_core::clock::{Moment, WallTime};
    use vodrelay_core::lease::Window;
    use vodrelay_core::write::{PullId, Pulled, Write};

    const BOUND: Duration = Duration::from_secs(30);

    fn record(n: usize) -> Write {
        let body = format!(r#"{{"EventHandle":"h{n}","n":{n},"x":"{}"}}"#, "x".repeat(10_000));
        let window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };
        Write::Record(Arc::new(Pulled {
            pull: PullId(1),
            sub_app: SubAppId(0),
            request_id: "r".into(),
            events: vec![Arc::new(Event::parse(SubAppId(0), body.into()).unwrap())],
            lease: window.lease(Moment(0)),
            received_at: Moment(1),
            pulled_at: WallTime(0),
            publish_now: true,
        }))
    }

    /// SQLite's own limit on the size of the file gives the same error as a full disk.
    #[tokio::test]
    async fn a_full_disk_takes_the_journal_down_until_there_is_space_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let (journal, writer) = Journal::open(&Options { path: path.clone() }).unwrap();
        drop(journal);
        writer.join().unwrap();
        let operator = rusqlite::Connection::open(&path).unwrap();
        operator
            .execute_batch("CREATE TABLE ballast (x); INSERT INTO ballast VALUES (zeroblob(1000000))")
            .unwrap();
        let (lock, path) = files::prepare(&path).unwrap();
        let store = Store::open(&path, &Boot::this(), lock.noted()).unwrap();
        // No limit is below what the file has already.
        store.conn.execute_batch("PRAGMA max_page_count = 1").unwrap();
        let (journal, writer) = Journal::start(store, lock, path.clone(), &path).unwrap();
        let mut state = journal.state();
        let calls: Vec<_> = (0..10)
            .map(|n| {
                let journal = journal.clone();
                tokio::spawn(async move { journal.ask(record(n)).await })
            })
            .collect();
        let is_down = |s: &JournalState| matches!(s, JournalState::Down(_));
        let down = tokio::time::timeout(BOUND, state.wait_for(is_down)).await.unwrap().unwrap().clone();
        let JournalState::Down(problem) = down else { unreachable!() };
        assert_eq!(problem.error_code, ErrorCode::DiskFull);
        assert!(problem.message.contains("full") && problem.message.contains("free space"), "{problem}");
        operator.execute_batch("DROP TABLE ballast").unwrap();
        for call in calls {
            let written = tokio::time::timeout(BOUND, call).await.unwrap().unwrap().unwrap();
            let Written::Recorded(_, recorded) = written else { unreachable!() };
            assert!(!recorded[0].redelivered, "no try before counts");
        }
        assert_eq!(*state.borrow(), JournalState::Up);
        let events: i64 = operator.query_row("SELECT count(*) FROM event_log", [], |row| row.get(0)).unwrap();
        assert_eq!(events, 10);
        drop(journal);
        writer.join().unwrap();
    }

    #[test]
    fn damage_and_bugs_are_not_waited_out() {
        assert!(may_pass(Some(rusqlite::ErrorCode::DiskFull)));
        for code in [
            None,
            Some(rusqlite::ErrorCode::DatabaseCorrupt),
            Some(rusqlite::ErrorCode::NotADatabase),
            Some(rusqlite::ErrorCode::Unknown),
        ] {
            assert!(!may_pass(code), "{code:?}");
        }
    }
}
