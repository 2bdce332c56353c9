//! What the journal costs for each event, and whether it costs more the larger it is.
//!
//! `cargo bench --bench journal -- events=200000 prefilled=1000000` drives the real journal without a cloud or a broker:
//! answers of 16 events are recorded, published and confirmed, many at a time, so that they share commits as in the relay.
//! Compare runs with each other, not with other machines. In `folder` the journal stays, and later runs begin with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tencent_vod_event::{Event, EventHandle, Fingerprint, LatestTime, SubAppId};
use vodrelay::clock::Now as _;
use vodrelay::journal::{Journal, Options, Writer};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::lease::Window;
use vodrelay_core::write::{PullId, Pulled};
use vodrelay_testkit::asks::Asks as _;

type Failure = Box<dyn std::error::Error>;

const APP: SubAppId = SubAppId(0);
const WINDOW: Window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };
/// What one pull brings at most.
const EVENTS_PER_ANSWER: usize = 16;
/// Rows are made faster in larger answers.
const EVENTS_PER_PREFILLED_ANSWER: usize = 512;

struct Arguments {
    events: u64,
    prefilled: u64,
    /// Answers in flight.
    in_flight: u64,
    body_bytes: usize,
    prefilled_body_bytes: usize,
    folder: Option<PathBuf>,
}

impl Arguments {
    fn parse() -> Result<Self, Failure> {
        let mut parsed = Self {
            events: 100_000,
            prefilled: 0,
            in_flight: 64,
            body_bytes: 1_024,
            prefilled_body_bytes: 1_024,
            folder: None,
        };
        // Cargo adds a `--bench` of its own.
        for argument in std::env::args().skip(1).filter(|a| a != "--bench") {
            match argument.split_once('=') {
                Some(("events", n)) => parsed.events = n.parse()?,
                Some(("prefilled", n)) => parsed.prefilled = n.parse()?,
                Some(("in_flight", n)) => parsed.in_flight = n.parse()?,
                Some(("body", n)) => parsed.body_bytes = n.parse()?,
                Some(("prefilled_body", n)) => parsed.prefilled_body_bytes = n.parse()?,
                Some(("folder", path)) => parsed.folder = Some(path.into()),
                _ => {
                    return Err(
                        format!("{argument:?} is no argument: see Arguments in benches/journal.rs").into()
                    );
                }
            }
        }
        Ok(parsed)
    }
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse()?;
    let scratch = tempfile::tempdir_in(".")?;
    let folder = arguments.folder.clone().unwrap_or_else(|| scratch.path().to_owned());
    let path = folder.join("journal.db");
    // The relay's own runtime has more threads; one is enough to ask, and takes no time from the writer.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let present = fill(&runtime, &path, &arguments)?;
    let began = Instant::now();
    let (journal, writer) = Journal::open(&Options { path })?;
    let opened_in = began.elapsed();
    println!("{present} rows, opened in {} ms", opened_in.as_millis());
    let before = Meter::read()?;
    let commits = journal.commits();
    let life = life(&journal, arguments.events, arguments.in_flight, EVENTS_PER_ANSWER, arguments.body_bytes);
    runtime.block_on(life)?;
    let commits = journal.commits() - commits;
    before.report(arguments.events, commits)?;
    end(journal, writer)
}

/// Makes the rows that are missing. Returns how many there are.
fn fill(runtime: &tokio::runtime::Runtime, path: &Path, arguments: &Arguments) -> Result<u64, Failure> {
    let (journal, writer) = Journal::open(&Options { path: path.to_owned() })?;
    let present = runtime.block_on(journal.summary(None))?.confirmed;
    let missing = arguments.prefilled.saturating_sub(present);
    if missing > 0 {
        let size = arguments.prefilled_body_bytes;
        runtime.block_on(life(&journal, missing, 16, EVENTS_PER_PREFILLED_ANSWER, size))?;
    }
    end(journal, writer)?;
    Ok(present + missing)
}

fn end(journal: Journal, writer: Writer) -> Result<(), Failure> {
    drop(journal);
    Ok(writer.join()?)
}

/// Brings so many events through the journal, from their record to their confirm.
async fn life(
    journal: &Journal,
    events: u64,
    in_flight: u64,
    per_answer: usize,
    body_bytes: usize,
) -> Result<(), Failure> {
    let left = Arc::new(AtomicU64::new(events));
    let body = Bytes::from(format!("{{\"x\":\"{}\"}}", "x".repeat(body_bytes.saturating_sub(8))));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (journal, left, body) = (journal.clone(), Arc::clone(&left), body.clone());
        tasks.spawn(async move {
            let take = |left| Some(u64::saturating_sub(left, per_answer as u64));
            while let Ok(left) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                && left > 0
            {
                let events = per_answer.min(usize::try_from(left).unwrap_or(per_answer));
                let recorded = journal.record(answer(events, &body)).await?;
                let now = WallTime::now();
                journal.published(recorded.iter().map(|r| r.event).collect(), now).await?;
                journal.confirmed(recorded.iter().map(|r| r.delivery).collect(), WallTime::now()).await?;
            }
            Ok::<_, vodrelay::journal::Closed>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn answer(events: usize, body: &Bytes) -> Pulled {
    let now = Moment::now();
    let lease = WINDOW.lease(now);
    Pulled {
        pull: PullId(1),
        sub_app: APP,
        request_id: format!("{:032x}", fastrand::u128(..)).into(),
        lease,
        received_at: now,
        pulled_at: WallTime::now(),
        events: (0..events).map(|_| event(body)).collect(),
        publish_now: true,
    }
}

/// Events that name the same second.
const A_SECOND: u32 = 100;

/// How many there were.
static EVENTS: AtomicU32 = AtomicU32::new(0);

/// An event with a body that is everybody's: nothing is parsed here, and the journal reads no body.
fn event(body: &Bytes) -> Arc<Event> {
    let mut fingerprint = [0; 32];
    fastrand::fill(&mut fingerprint);
    Arc::new(Event {
        sub_app: APP,
        body: body.clone(),
        handle: Some(EventHandle(format!("{:064x}", fastrand::u128(..)).into())),
        event_type: Some("ProcedureStateChanged".into()),
        file_id: Some(fastrand::u64(1 << 62..1 << 63).to_string().into()),
        task_id: Some(format!("1400000000-procedurev2-{:032x}", fastrand::u128(..)).into()),
        fingerprint: Fingerprint(fingerprint),
        latest_time: LatestTime(EVENTS.fetch_add(1, Ordering::Relaxed) / A_SECOND),
    })
}

/// What the process has used so far.
struct Meter {
    at: Instant,
    cpu: Duration,
    /// Through system calls, to and from any file: the WAL, and the database in checkpoints.
    read_bytes: u64,
    written_bytes: u64,
}

impl Meter {
    fn read() -> Result<Self, Failure> {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let io = std::fs::read_to_string("/proc/self/io")?;
        Ok(Self {
            at: Instant::now(),
            cpu: Duration::new(cpu.tv_sec.try_into()?, cpu.tv_nsec.try_into()?),
            read_bytes: figure(&io, "rchar")?,
            written_bytes: figure(&io, "wchar")?,
        })
    }

    fn report(&self, events: u64, commits: u64) -> Result<(), Failure> {
        let now = Self::read()?;
        let status = std::fs::read_to_string("/proc/self/status")?;
        let each = |total: f64| total / events as f64;
        println!(
            "{:.0} events/s, {:.2} us of CPU, {:.0} bytes written and {:.0} read for each; {commits} commits of {:.0} events; peak {} MiB",
            events as f64 / (now.at - self.at).as_secs_f64(),
            each((now.cpu - self.cpu).as_secs_f64() * 1e6),
            each((now.written_bytes - self.written_bytes) as f64),
            each((now.read_bytes - self.read_bytes) as f64),
            events as f64 / commits as f64,
            figure(&status, "VmHWM")? / 1_024,
        );
        Ok(())
    }
}

/// A figure of a file in `/proc`.
fn figure(text: &str, name: &str) -> Result<u64, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("no such figure")?;
    Ok(number.parse()?)
}
