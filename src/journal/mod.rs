//! The journal: the durable record of every event, every handle and their states. One SQLite file, one
//! writer.
//!
//! - `files`: the folder, the modes, the locks that keep a second relay out.
//! - `place`: whether the files are still at their names.
//! - `origin`: whether the journal is a copy of another one, or an older state of itself.
//! - `schema`: tables, views for people, migrations.
//! - `disk`: what is wrong with the disk when SQLite or the system fails.
//! - `reading`: opens the journal for reading, also where nothing can be written.
//! - `store`, `record` and `progress`: the SQL of each write; `execute` chooses it.
//! - `queue` and `writer`: one thread owns the connection; many writes, one commit, and only then the answers.
//! - `copy`: a copy of the file, made while the writer is at work.
//! - [`query`]: read-only access for the commands that show the journal.
//! - [`probe`]: a look at the path, the lock and the disk that leaves nothing behind.

mod copy;
mod damage;
mod disk;
mod event_state;
mod execute;
mod files;
mod origin;
mod place;
pub mod probe;
pub mod query;
mod queue;
mod reading;
mod record;
mod schema;
mod state_counts;
mod store;
mod transitions;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use tencent_vod_event::SubAppId;
use tokio::sync::{mpsc, watch};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::JournalState;
use vodrelay_core::write::{Summary, Write, Written};
use vodrelay_host::descriptors;

use crate::clock::Now as _;
use crate::clock::boot_id;
use crate::heartbeat::Heartbeat;
use crate::latency::Latency;
pub use copy::{CopyError, CopyStep, Copying, Examined, examine_copy};
use disk::DiskFault;
use files::Lock;
use queue::{Asked, Queued};
use store::Store;
pub use writer::{WriteError, Writer};

/// Where the journal is.
#[derive(Clone, Debug)]
pub struct Options {
    /// The SQLite file. It is created when missing, with its folder.
    pub path: PathBuf,
}

/// The boot and the host of this process, as far as the journal needs them.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Its name. Moments are comparable only within one boot.
    pub id: String,
    /// When this process opened the journal.
    pub opened: Moment,
}

impl Boot {
    /// That of this process, now.
    pub fn this() -> Self {
        Self { id: boot_id(), opened: Moment::now() }
    }
}

/// Why the journal cannot be opened, grouped by what can be done.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the journal {path} is in use by another relay (process {pid}): stop that one, or give this one a journal.path of its own"
    )]
    InUse {
        /// The journal.
        path: PathBuf,
        /// The number of the process that holds the lock, from its file.
        pid: String,
    },
    /// The path cannot hold a journal. An operator must change the path, its owner or its modes.
    #[error("the journal {path} cannot be used: {problem}")]
    Unusable {
        /// The journal.
        path: PathBuf,
        /// What is wrong, and the next step.
        problem: String,
    },
    /// A newer version of the program wrote it.
    #[error(
        "the journal {path} has schema version {found}, and this vodrelay reads at most {known}: run the vodrelay that wrote it, or give this one another journal.path"
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version of this program.
        known: i64,
    },
    /// SQLite says that the file is damaged or not a database.
    #[error(
        "the journal {path} is damaged ({cause}): stop every program that writes to it, move it aside with its -wal and -shm files, restore a copy or start with a new one"
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
    },
    /// The process or the host has reached its limit of open files.
    #[error("the journal {path} cannot be opened now ({cause}): {}", descriptors::NEXT_STEP)]
    Files {
        /// The journal.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// A problem that may pass: a full disk, an I/O error, a lock of another program.
    #[error("the journal {path} cannot be opened now ({cause}): {next_step}")]
    Failed {
        /// The journal.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
        /// Its name in the catalogue.
        error_code: ErrorCode,
        /// Where to look.
        next_step: &'static str,
    },
    /// The disk under the journal's files: it is full, mounted read-only, or fails. That may pass too.
    #[error("the journal {path} cannot be used now: {problem}: {next_step}")]
    Disk {
        /// The journal.
        path: PathBuf,
        /// What failed, with the system's words.
        problem: String,
        /// Its name in the catalogue.
        error_code: ErrorCode,
        /// Where to look.
        next_step: &'static str,
    },
}

impl OpenError {
    /// Its name in the catalogue.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::InUse { .. } => ErrorCode::JournalInUse,
            Self::Unusable { .. } | Self::Newer { .. } => ErrorCode::JournalUnusable,
            Self::Damaged { .. } => ErrorCode::JournalDamaged,
            Self::Files { .. } => ErrorCode::JournalNotWritable,
            Self::Failed { error_code, .. } | Self::Disk { error_code, .. } => *error_code,
        }
    }

    fn unusable(path: &Path, problem: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_owned(), problem: problem.into() }
    }

    /// The system refused something. The next step is the fault's if the disk is at fault, and `otherwise` if
    /// not.
    fn refused(path: &Path, what: impl fmt::Display, error: &io::Error, otherwise: &str) -> Self {
        if descriptors::is_missing(error) {
            let cause = error.raw_os_error().map(io::Error::from_raw_os_error);
            let cause = cause.unwrap_or_else(|| io::Error::other(error.to_string()));
            return Self::Files { path: path.to_owned(), cause };
        }
        let problem = format!("{what} ({error})");
        match DiskFault::of(error) {
            Some(fault) => Self::faulty(path, problem, fault),
            None => Self::unusable(path, format!("{problem}: {otherwise}")),
        }
    }

    fn faulty(path: &Path, problem: impl Into<String>, fault: DiskFault) -> Self {
        Self::Disk {
            path: path.to_owned(),
            problem: problem.into(),
            error_code: fault.error_code(),
            next_step: fault.next_step(),
        }
    }
}

/// The writer has ended: it met damage, or gave up at the end. A write with this answer may or may not be
/// committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal's writer has ended")]
pub struct Closed;

/// The sender to the writer; clones share it.
///
/// The queue to the writer has no bound of its own. The core bounds the relay's writes, and every other
/// caller waits for an answer before its next write.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: mpsc::UnboundedSender<Queued>,
    path: Arc<Path>,
    state: watch::Receiver<JournalState>,
    times: Arc<Latency>,
    heartbeat: Heartbeat,
}

impl Journal {
    /// Opens or creates the journal, takes its lock, migrates it, and starts the writer thread. Blocks on the
    /// disk.
    ///
    /// The writer ends when the last clone of the journal is dropped and all that was queued is committed.
    ///
    /// # Errors
    ///
    /// [`OpenError`], grouped by what can be done.
    pub fn open(options: &Options) -> Result<(Self, Writer), OpenError> {
        Self::open_in(options, &Boot::this())
    }

    /// The same for a boot that the caller gives, as tests do.
    ///
    /// # Errors
    ///
    /// See [`Self::open`].
    pub fn open_in(options: &Options, boot: &Boot) -> Result<(Self, Writer), OpenError> {
        let (lock, path) = files::prepare(&options.path)?;
        let store = Store::open(&path, boot, lock.noted())?;
        // Without the note, fewer copies are recognised: the next start is like one after a crash.
        let _ = lock.note(store.note);
        Self::start(store, lock, path, &options.path)
    }

    fn start(
        store: Store,
        lock: Lock,
        path: PathBuf,
        configured: &Path,
    ) -> Result<(Self, Writer), OpenError> {
        let (queue, queued) = mpsc::unbounded_channel();
        let times = Arc::new(Latency::of("vodrelay_journal_commit_seconds"));
        let heartbeat = Heartbeat::new("journal");
        let (writer, state) =
            Writer::start(store, lock, path.clone(), configured, queued, times.clone(), heartbeat.clone())?;
        Ok((Self { queue, path: path.into(), state, times, heartbeat }, writer))
    }

    /// Whether the last commit succeeded.
    pub fn state(&self) -> watch::Receiver<JournalState> {
        self.state.clone()
    }

    /// The file's path, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the journal on its disk, with its WAL. Blocks for a moment.
    pub fn bytes(&self) -> u64 {
        // By their names alone: opening and closing a database's file outside SQLite drops SQLite's locks.
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        bytes(&self.path) + bytes(&files::beside(&self.path, "-wal"))
    }

    /// How long transactions take, from the first statement to the end of the sync.
    pub fn commit_times(&self) -> Arc<Latency> {
        Arc::clone(&self.times)
    }

    /// The writer's heartbeat.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// How many transactions that may have changed something were committed since the journal was opened.
    pub fn commits(&self) -> u64 {
        self.times.count()
    }

    /// Asks for these writes, in their order, in one transaction. Each has the time of what it records. The
    /// answers go to `written`, in the same order and after the commit. While commits fail, they wait. A
    /// writer that has ended gives no answers.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub fn write(
        &self,
        writes: impl IntoIterator<Item = (Write, WallTime)>,
        written: &mpsc::UnboundedSender<Written>,
    ) -> Result<(), Closed> {
        let asked = writes.into_iter().map(|(write, at)| Asked { write, at, reply: written.clone() });
        self.queue.send(Queued::Writes(asked.collect())).map_err(|_| Closed)
    }

    /// Asks for one write, and waits for its answer. A caller that stops waiting does not take the write
    /// back.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn ask(&self, write: Write) -> Result<Written, Closed> {
        self.ask_at(write, WallTime::now()).await
    }

    /// The same for a fact of this time.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn ask_at(&self, write: Write, at: WallTime) -> Result<Written, Closed> {
        let (reply, mut written) = mpsc::unbounded_channel();
        self.write([(write, at)], &reply)?;
        drop(reply);
        written.recv().await.ok_or(Closed)
    }

    /// The journal in figures, see [`Write::Summarise`]; reads counters, not events.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn summary(&self, polled: Option<Arc<[SubAppId]>>) -> Result<Summary, Closed> {
        match self.ask(Write::Summarise(polled)).await? {
            Written::Summary(summary) => Ok(summary),
            other => unreachable!("a summary is answered by {other:?}"),
        }
    }

    /// Begins a copy of the journal in the file `to`, which must exist and be empty. One copy can be made at
    /// a time: another one ends it.
    ///
    /// # Errors
    ///
    /// [`CopyError`].
    pub async fn copy(&self, to: PathBuf) -> Result<Copying, CopyError> {
        Copying::begin(self.queue.clone(), to).await
    }
}
