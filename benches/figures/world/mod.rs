//! What scenarios are made of: processes, a cloud, a broker, queues, events, and a relay that works off a backlog.

pub(crate) mod bare;
pub(crate) mod cloud;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod process;
pub(crate) mod queue;
pub(crate) mod relay;
pub(crate) mod run;

use std::path::Path;
use std::time::{Duration, Instant};

use vodrelay_testkit::broker::{self, Broker};
use vodrelay_testkit::process_group::ProcessGroup;

/// How long a start, an end or any other single step may take on a busy machine.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(120);

/// Where one scenario plays: its folder, and the leash of its processes. Both go with it.
pub(crate) struct Bench {
    name: &'static str,
    short: bool,
    began: Instant,
    // Dropped in this order: the processes before their folder.
    leash: ProcessGroup,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(name: &'static str, short: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("figures-").tempdir().expect("a folder can be made");
        assert!(
            !disk::is_memory(folder.path()),
            "the target folder is in memory, where a sync costs nothing"
        );
        Self { name, short, began: Instant::now(), leash: ProcessGroup::new(), folder }
    }

    /// How much of something a full run takes, or a short one.
    pub(crate) fn pick<T>(&self, full: T, short: T) -> T {
        if self.short { short } else { full }
    }

    /// Where files of this scenario can be put.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process group of the leash, for programs that are no [`process::Process`].
    pub(crate) fn group(&self) -> i32 {
        self.leash.group()
    }

    /// Tells whoever looks on how far this is.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("{:>6.1} s  {}: {what}", self.began.elapsed().as_secs_f64(), self.name);
    }

    /// The RabbitMQ node of all scenarios. One that kills it starts it again.
    pub(crate) async fn broker(&self) -> &'static Broker {
        broker::shared().await
    }
}

/// Waits for something that may take long, but not for ever.
pub(crate) async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(STEP_LIMIT, work).await;
    ended.unwrap_or_else(|_| panic!("waited {STEP_LIMIT:?} in vain: {what}"))
}

/// Waits until something is there, looking for it every few milliseconds.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
