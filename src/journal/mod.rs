//! The journal: the durable record of every event and every handle, and how far each got. One SQLite file, one writer.
//!
//! - `files`: the folder, the modes, the locks that keep a second relay out.
//! - `place`: whether the files are still at their names.
//! - `origin`: whether the journal is a copy of another one.
//! - `schema`: tables, views for people, migrations.
//! - `disk`: what is wrong with the disk when SQLite or the system fails.
//! - `reading`: opens the journal for reading, also where nothing can be written.
//! - `store`: the SQL of each request.
//! - `request` and `writer`: one thread owns the connection; many requests, one commit, and only then the replies.
//! - [`Together`]: several requests that share a commit for certain.
//! - `copy`: a copy of the file, made while the writer is at work.
//! - [`query`]: read-only access for the commands that show the journal.
//! - [`probe`]: a look at the path, the lock and the disk that leaves nothing behind.

mod copy;
mod damage;
mod disk;
mod files;
mod origin;
mod place;
pub mod probe;
mod progress;
pub mod query;
mod reading;
mod record;
mod request;
mod schema;
mod store;
mod tally;
mod together;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use tokio::sync::{mpsc, watch};

use crate::clock::{Moment, WallTime, boot_id};
use crate::descriptors;
use crate::error_code::ErrorCode;
use crate::event::{Event, SubAppId};
use crate::heartbeat::Heartbeat;
use crate::identity::{DeliveryId, EventId, Recorded};
use crate::lease::Lease;
use crate::outcome::JournalState;
use crate::times::Times;
pub use copy::{CopyError, Copying, Examined, Step, examine_copy};
use disk::Fault;
use request::{Request, Slot};
pub use together::Together;
use together::Way;
pub use writer::{WriteError, Writer};

/// Requests that wait for the writer; more than that, and callers wait before they are queued.
const QUEUED_REQUESTS: usize = 512;

/// Where the journal is.
#[derive(Clone, Debug)]
pub struct Options {
    /// The SQLite file; made when missing, with its folder.
    pub path: PathBuf,
}

/// Which boot of which host this process belongs to, as far as the journal has to know.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Its name: moments are comparable only within one boot.
    pub id: String,
    /// When this process opened the journal.
    pub opened: Moment,
}

impl Boot {
    /// The one of this process, now.
    pub fn this() -> Self {
        Self { id: boot_id(), opened: Moment::now() }
    }
}

/// Why the journal cannot be opened, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the journal {path} is in use by another relay (process {pid}): stop that one, or give this one a journal.path of its own"
    )]
    InUse {
        /// The journal.
        path: PathBuf,
        /// The process that holds the lock, as it wrote itself down.
        pid: String,
    },
    /// The path cannot hold a journal; an operator has to change the path, its owner or its modes.
    #[error("the journal {path} cannot be used: {problem}")]
    Unusable {
        /// The journal.
        path: PathBuf,
        /// What is wrong, and the next step.
        problem: String,
    },
    /// A newer version of the program wrote it.
    #[error(
        "the journal {path} has schema version {found}, and this vodrelay knows {known} at most: run the vodrelay that wrote it, or give this one another journal.path"
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// SQLite says that the file is damaged, or no database.
    #[error(
        "the journal {path} is damaged ({cause}): stop whatever writes to it, move it aside with its -wal and -shm files, restore a copy or start with a new one"
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
    },
    /// The process, or the host, has as many files open as it may.
    #[error("the journal {path} cannot be opened now ({cause}): {}", descriptors::NEXT_STEP)]
    Files {
        /// The journal.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// Something that may pass: a full disk, an I/O error, a lock that another program holds.
    #[error("the journal {path} cannot be opened now ({cause}): {next_step}")]
    Failed {
        /// The journal.
        path: PathBuf,
        /// SQLite's words.
        cause: rusqlite::Error,
        /// Its name in the catalogue.
        reason: ErrorCode,
        /// What to look at.
        next_step: &'static str,
    },
    /// The disk under the journal's files: it is full, mounted read-only, or fails. That may pass, too.
    #[error("the journal {path} cannot be used now: {problem}: {next_step}")]
    Disk {
        /// The journal.
        path: PathBuf,
        /// What failed, with the system's words.
        problem: String,
        /// Its name in the catalogue.
        reason: ErrorCode,
        /// What to look at.
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
            Self::Failed { reason, .. } | Self::Disk { reason, .. } => *reason,
        }
    }

    fn unusable(path: &Path, problem: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_owned(), problem: problem.into() }
    }

    /// The system refused something. The next step is the fault's where the disk is at fault, and `otherwise` else.
    fn refused(path: &Path, what: impl fmt::Display, error: &io::Error, otherwise: &str) -> Self {
        if descriptors::is_missing(error) {
            let cause = error.raw_os_error().map(io::Error::from_raw_os_error);
            let cause = cause.unwrap_or_else(|| io::Error::other(error.to_string()));
            return Self::Files { path: path.to_owned(), cause };
        }
        let problem = format!("{what} ({error})");
        match Fault::of(error) {
            Some(fault) => Self::faulty(path, problem, fault),
            None => Self::unusable(path, format!("{problem}: {otherwise}")),
        }
    }

    fn faulty(path: &Path, problem: impl Into<String>, fault: Fault) -> Self {
        Self::Disk {
            path: path.to_owned(),
            problem: problem.into(),
            reason: fault.error_code(),
            next_step: fault.next_step(),
        }
    }
}

/// The writer is gone: it met damage, or gave up at the end. Nothing that was answered with this is known to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal's writer has ended")]
pub struct Closed;

/// What one pull brought.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The sub-application that was asked.
    pub sub_app: SubAppId,
    /// The cloud's id of the answer.
    pub request_id: Arc<str>,
    /// The lease of every handle in it.
    pub lease: Lease,
    /// When the answer arrived.
    pub received_at: Moment,
    /// When the answer arrived, for people and headers.
    pub pulled_at: WallTime,
    /// The lease's cutoff on the wall clock, for people, and for a relay after a reboot.
    pub lease_until: WallTime,
    /// The events, in the answer's order.
    pub events: Vec<Arc<Event>>,
    /// Whether new events are published right after the commit: that first attempt is counted in the same commit.
    pub publish_now: bool,
}

/// One more publish of an event is about to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The event.
    pub event: EventId,
    /// Whether an earlier publish may have reached the broker although no ack came.
    pub uncertain: bool,
    /// How the earlier publish ended.
    pub reason: Arc<str>,
}

/// How a handle ended when it was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleOutcome {
    /// The cloud rejected the confirm.
    Refused,
    /// The confirm was sent and its answer lost.
    Lost,
}

/// An event that is handed out again to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The event.
    pub event: EventId,
    /// The how-manieth event of its fingerprint, from 1.
    pub occurrence: u32,
    /// How many publishes of it may have left the relay, the one that it is handed out for included.
    pub attempts: u32,
    /// Whether the cloud handed it over more than once.
    pub redelivered: bool,
    /// When its newest delivery arrived.
    pub pulled_at: WallTime,
    /// The cloud's id of the answer that brought its newest delivery.
    pub request_id: Arc<str>,
    /// The event as its first delivery brought it, with the handle of its newest one.
    pub content: Event,
    /// Whether the cloud has forgotten it already.
    pub confirmed: bool,
}

/// The journal in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that wait for their ack.
    pub received: u64,
    /// Events that the broker has and the cloud still holds.
    pub published: u64,
    /// Events that are done.
    pub confirmed: u64,
    /// Events that wait for an operator.
    pub parked: u64,
    /// Events of any state that the cloud still holds, as far as the journal knows.
    pub unconfirmed: u64,
    /// When the oldest of those arrived.
    pub oldest_unconfirmed: Option<WallTime>,
    /// When the oldest event arrived that waits for its ack.
    pub oldest_unpublished: Option<WallTime>,
    /// Events that are not done and came with a copy: what became of them after it was made is not known.
    pub in_doubt: u64,
}

/// What one step of giving free pages back did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacuumed {
    /// Pages that went back to the file system.
    pub given_back: u64,
    /// Pages that are still free.
    pub left: u64,
}

/// The way to the writer; clones share it.
///
/// Every method returns after the commit. A call that is dropped while it waits may still be committed. While the journal
/// is down, calls wait.
#[derive(Clone, Debug)]
pub struct Journal {
    way: Way,
    path: Arc<Path>,
    state: watch::Receiver<JournalState>,
    times: Arc<Times>,
    heartbeat: Heartbeat,
}

impl Journal {
    /// Opens or makes the journal, takes its lock, migrates it, and starts the writer thread. Blocks on the disk.
    ///
    /// The writer ends when the last clone of the journal is dropped and all that was queued is committed.
    ///
    /// # Errors
    ///
    /// [`OpenError`], by what can be done about it.
    pub fn open(options: &Options) -> Result<(Self, Writer), OpenError> {
        Self::open_in(options, &Boot::this())
    }

    /// The same for a boot that the caller says, as tests do.
    ///
    /// # Errors
    ///
    /// See [`Self::open`].
    pub fn open_in(options: &Options, boot: &Boot) -> Result<(Self, Writer), OpenError> {
        let (lock, path) = files::prepare(&options.path)?;
        let store = store::Store::open(&path, boot)?;
        let (requests, queue) = mpsc::channel(QUEUED_REQUESTS);
        let times = Arc::new(Times::of("vodrelay_journal_commit_seconds"));
        let heartbeat = Heartbeat::new("journal");
        let (writer, state) =
            Writer::start(store, lock, path.clone(), queue, times.clone(), heartbeat.clone())?;
        Ok((Self { way: Way::Writer(requests), path: path.into(), state, times, heartbeat }, writer))
    }

    /// Whether the last commit succeeded.
    pub fn state(&self) -> watch::Receiver<JournalState> {
        self.state.clone()
    }

    /// The file, without symbolic links in its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes the journal takes on its disk, with its WAL. Blocks for a moment.
    pub fn bytes(&self) -> u64 {
        // By their names alone: whoever opens and closes a database's file besides SQLite takes SQLite's locks away.
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut wal = self.path.as_os_str().to_owned();
        wal.push("-wal");
        bytes(&self.path) + bytes(Path::new(&wal))
    }

    /// How long transactions take, from the first statement to the end of the sync.
    pub fn commit_times(&self) -> Arc<Times> {
        Arc::clone(&self.times)
    }

    /// The writer's sign of life.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// How many transactions were committed since the journal was opened.
    pub fn commits(&self) -> u64 {
        self.times.quantiles().count
    }

    /// Judges and records the events of one answer; one result per event, in the same order.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn record(&self, answer: Answer) -> Result<Vec<Recorded>, Closed> {
        self.ask(|slot| Request::Record(answer, slot)).await
    }

    /// Counts further attempts to publish; to be awaited before they leave the process.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn attempts(&self, attempts: Vec<Attempt>) -> Result<(), Closed> {
        self.ask(|slot| Request::Attempts(attempts, slot)).await
    }

    /// The broker acked these events, at these times.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn published(&self, events: Vec<(EventId, WallTime)>) -> Result<(), Closed> {
        self.ask(|slot| Request::Published(events, slot)).await
    }

    /// The relay gives these events up, for these reasons.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn parked(&self, events: Vec<(EventId, String)>) -> Result<(), Closed> {
        self.ask(|slot| Request::Parked(events, slot)).await
    }

    /// The cloud confirmed these deliveries; their events count as confirmed from the first time on.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn confirmed(&self, deliveries: Vec<DeliveryId>, at: WallTime) -> Result<(), Closed> {
        self.ask(|slot| Request::Confirmed(deliveries, at, slot)).await
    }

    /// These deliveries ended without a confirm.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn handle_outcome(
        &self,
        deliveries: Vec<DeliveryId>,
        outcome: HandleOutcome,
    ) -> Result<(), Closed> {
        self.ask(|slot| Request::HandleOutcome(deliveries, outcome, slot)).await
    }

    /// The cloud proved that it holds nothing of `sub_app` that was delivered before `received_before`: what is published
    /// or parked and was not handed over since counts as confirmed. Returns how many events that settled.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn settle(
        &self,
        sub_app: SubAppId,
        received_before: Moment,
        at: WallTime,
    ) -> Result<u64, Closed> {
        self.ask(|slot| Request::Settle { sub_app, received_before, at, slot }).await
    }

    /// Hands out up to `limit` received events with ids above `after`, ascending, to be published. The attempt is counted
    /// in the same commit.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn load(&self, after: EventId, limit: u32) -> Result<Vec<Loaded>, Closed> {
        self.ask(|slot| Request::Load { after, limit, slot }).await
    }

    /// Makes a parked event a received one, with all its attempts before it. False when it is not parked.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn release(&self, event: EventId) -> Result<bool, Closed> {
        self.ask(|slot| Request::Release(event, slot)).await
    }

    /// Forgets up to `limit` confirmed events that were received and confirmed before `before`, the oldest first, with their
    /// deliveries. Returns how many it forgot. An event that was pruned is a new one when the cloud hands it over again.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn prune(&self, before: WallTime, limit: u32) -> Result<u64, Closed> {
        self.ask(|slot| Request::Prune { before, limit, slot }).await
    }

    /// Gives up to `pages` free pages of the file, but one at least, back to the file system.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn vacuum(&self, pages: u32) -> Result<Vacuumed, Closed> {
        self.ask(|slot| Request::Vacuum { pages, slot }).await
    }

    /// Begins a copy of the journal in the file `to`, which must be there and empty. One copy can be made at a time: another
    /// one ends it.
    ///
    /// # Errors
    ///
    /// [`CopyError`].
    pub async fn copy(&self, to: PathBuf) -> Result<Copying, CopyError> {
        Copying::begin(self.way.writer().clone(), to).await
    }

    /// The same as [`Self::settle`] by the calendar, for sub-applications that nobody polls, so that no idle answer comes: what
    /// was handed over last before `received_before` counts as confirmed, because the cloud deletes an event after four
    /// days. Settles up to `limit` events, and returns how many.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn settle_unpolled(
        &self,
        polled: Arc<[SubAppId]>,
        received_before: WallTime,
        at: WallTime,
        limit: u32,
    ) -> Result<u64, Closed> {
        self.ask(|slot| Request::SettleUnpolled { polled, received_before, at, limit, slot }).await
    }

    /// The journal in figures; reads counters, not events.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn summary(&self) -> Result<Summary, Closed> {
        self.ask(|slot| Request::Summary(None, slot)).await
    }

    /// The same; what is unconfirmed is told of these sub-applications. Nothing can confirm the other ones.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn summary_of(&self, polled: Arc<[SubAppId]>) -> Result<Summary, Closed> {
        self.ask(|slot| Request::Summary(Some(polled), slot)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Slot<T>) -> Request) -> Result<T, Closed> {
        let (slot, answer) = Slot::new();
        self.way.take(request(slot)).await?;
        answer.await.map_err(|_| Closed)
    }
}
