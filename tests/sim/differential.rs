//! The simulation's journal against the real one: the same random histories, over boots, wrong wall clocks, copies, pruned and
//! released events, and the same answers and rows.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tencent_vod_event::{Event, SubAppId};
use vodrelay::journal::{self as real, Options, Writer};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::{DeliveryId, EventId, Recorded};
use vodrelay_core::lease::Window;
use vodrelay_core::outcome::Problem;
use vodrelay_core::write::{FailedAttempt, LetGo, PullId, Pulled};
use vodrelay_testkit::asks::Asks as _;
use vodrelay_testkit::simulation::journal::{Boot, Journal};
use vodrelay_testkit::simulation::sabotage::Sabotage;

const HISTORIES: u64 = 120;
const STEPS: usize = 60;
const WINDOW: Window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };
const SUB_APPS: [SubAppId; 2] = [SubAppId(0), SubAppId(1_500_000_000)];
const DAY_MS: i64 = 86_400_000;

/// What both journals are at one moment.
#[derive(Clone)]
struct Kept {
    model: Journal,
    /// The real number of each event and delivery of the model, in the model's order.
    events: Vec<EventId>,
    deliveries: Vec<DeliveryId>,
    file: PathBuf,
}

/// A history: both journals, and the clocks of the host.
struct Pair {
    rng: fastrand::Rng,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    open: Option<(real::Journal, Writer)>,
    now: Kept,
    copy: Option<Kept>,
    boots: u64,
    boot: Boot,
    at: u64,
    wall: i64,
    answers: usize,
    log: Vec<String>,
}

impl Pair {
    fn new(seed: u64, bug: Option<Sabotage>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("journal.db");
        let model = Journal::new(bug);
        let mut pair = Self {
            rng: fastrand::Rng::with_seed(seed),
            folder,
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
            open: None,
            now: Kept { model, events: Vec::new(), deliveries: Vec::new(), file },
            copy: None,
            boots: 0,
            boot: Boot::default(),
            at: 1_000_000,
            wall: 1_700_000_000_000,
            answers: 0,
            log: Vec::new(),
        };
        pair.reboot();
        pair.start(false);
        pair
    }

    fn reboot(&mut self) {
        self.boots += 1;
        self.boot.number = self.boots;
        // The clock of the new boot is young, most often.
        self.boot.began = Moment(self.at - [0, 5_000, 40_000, self.at][self.rng.usize(0..4)]);
    }

    fn start(&mut self, is_copy: bool) {
        self.boot.opened = Moment(self.at);
        self.now.model.reopen(self.boot, is_copy);
        let opened = self.clock(self.at);
        let boot = real::Boot { id: format!("boot-{}", self.boot.number), opened };
        let options = Options { path: self.now.file.clone() };
        self.open = Some(real::Journal::open_in(&options, &boot).expect("the journal opens"));
    }

    fn stop(&mut self) {
        let (journal, writer) = self.open.take().expect("it is open");
        drop(journal);
        writer.join().expect("the writer ends well");
    }

    fn clock(&self, at: u64) -> Moment {
        Moment(at - self.boot.began.0)
    }

    fn wall(&self) -> WallTime {
        WallTime(self.wall + self.at.cast_signed())
    }

    fn real(&self) -> &real::Journal {
        &self.open.as_ref().expect("it is open").0
    }

    fn some_event(&mut self) -> Option<usize> {
        (!self.now.events.is_empty()).then(|| self.rng.usize(0..self.now.events.len()))
    }

    fn step(&mut self) -> Result<(), String> {
        self.at += [0, 200, 3_000, 30_000][self.rng.usize(0..4)];
        match self.rng.u8(0..30) {
            0..=11 => self.pull()?,
            12..=15 => self.publish(),
            16..=17 => self.confirm(),
            18 => self.let_go(),
            19 => self.attempt(),
            20 => self.park_or_release()?,
            21 => self.settle(),
            22 => self.settle_unpolled()?,
            23 => self.load()?,
            24 => self.prune()?,
            25 => self.keep_a_copy(),
            _ => self.restart(),
        }
        self.compare()
    }

    fn pull(&mut self) -> Result<(), String> {
        let sub_app = SUB_APPS[self.rng.usize(0..2)];
        let events: Vec<Arc<Event>> = (0..self.rng.usize(1..4))
            .map(|_| {
                let (says, handle) = (self.rng.u8(0..3), self.rng.u8(0..8));
                let handle = if handle == 7 { "null".to_owned() } else { format!("\"h{handle}\"") };
                let body = format!("{{\"EventHandle\":{handle},\"says\":{says}}}");
                Arc::new(Event::parse(sub_app, body.into()).expect("JSON"))
            })
            .collect();
        let took = if self.rng.u8(0..6) == 0 { self.rng.u64(0..60_000) } else { 100 };
        self.at += took;
        let (sent_at, received_at) = (self.at - took, self.at);
        let publish_now = self.rng.bool();
        let pulled_at = self.wall();
        self.answers += 1;
        let request_id: Arc<str> = format!("r{}", self.answers).into();
        self.log.push(format!("pull at {sent_at} {}", events.len()));
        let pulled = Pulled {
            pull: PullId(1),
            sub_app,
            request_id,
            events,
            lease: WINDOW.lease(Moment(sent_at)),
            received_at: Moment(received_at),
            pulled_at,
            publish_now,
        };
        let expected = self.now.model.record(&pulled);
        let lease = WINDOW.lease(self.clock(sent_at));
        let pulled = Pulled { lease, received_at: self.clock(received_at), ..pulled };
        let found = self.runtime.block_on(self.real().record(pulled)).expect("recorded");
        for (one, real) in expected.iter().zip(&found) {
            // A new number is told by the real journal; one that is known must be the same.
            let event = usize::try_from(one.event.0 - 1).expect("from 1");
            if event == self.now.events.len() {
                self.now.events.push(real.event);
            }
            let delivery = usize::try_from(one.delivery.0 - 1).expect("from 1");
            if delivery >= self.now.deliveries.len() {
                self.now.deliveries.resize(delivery + 1, DeliveryId(0));
            }
            self.now.deliveries[delivery] = real.delivery;
            let translated = Recorded { event: self.now.events[event], delivery: real.delivery, ..*one };
            if translated != *real {
                return Err(format!("recorded {real:?}, expected {translated:?}"));
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        let Some(event) = self.some_event() else { return };
        let (id, at) = (self.now.events[event], self.wall());
        self.log.push(format!("publish {}", id.0));
        if !self.now.model.rows[event].pruned {
            self.now.model.published(&[model_event(event)]);
        }
        self.runtime.block_on(self.real().published(vec![id], at)).expect("published");
    }

    fn some_deliveries(&mut self) -> Vec<usize> {
        let all = self.now.deliveries.len();
        let one = |rng: &mut fastrand::Rng| (all > 0).then(|| rng.usize(all.saturating_sub(20)..all));
        let mut some: Vec<usize> = (0..self.rng.usize(1..4)).filter_map(|_| one(&mut self.rng)).collect();
        some.sort_unstable();
        some.dedup();
        let rows = &self.now.model;
        some.retain(|at| !rows.rows[rows.deliveries[*at].row].pruned);
        some
    }

    fn confirm(&mut self) {
        let (some, at) = (self.some_deliveries(), self.wall());
        self.log.push(format!("confirm {some:?}"));
        self.now.model.confirmed(&model_deliveries(&some), at);
        let real = some.iter().map(|at| self.now.deliveries[*at]).collect();
        self.runtime.block_on(self.real().confirmed(real, at)).expect("confirmed");
    }

    fn let_go(&mut self) {
        let (some, lost) = (self.some_deliveries(), self.rng.bool());
        self.now.model.let_go(&model_deliveries(&some), lost);
        let real = some.iter().map(|at| self.now.deliveries[*at]).collect();
        let why = if lost { LetGo::Lost } else { LetGo::Refused };
        self.runtime.block_on(self.real().let_go(real, why)).expect("let go");
    }

    fn attempt(&mut self) {
        let Some(event) = self.some_event().filter(|at| !self.now.model.rows[*at].pruned) else { return };
        let uncertain = self.rng.bool();
        let problem = Problem::new(ErrorCode::PublishNacked, "no");
        let failed = |event| FailedAttempt { event, uncertain, problem: problem.clone() };
        self.now.model.attempts(&[failed(model_event(event))]);
        let real = failed(self.now.events[event]);
        self.runtime.block_on(self.real().failed(vec![real])).expect("counted");
    }

    fn park_or_release(&mut self) -> Result<(), String> {
        let Some(event) = self.some_event().filter(|at| !self.now.model.rows[*at].pruned) else {
            return Ok(());
        };
        let id = self.now.events[event];
        self.log.push(format!("park or release {}", id.0));
        if self.now.model.release(model_event(event)) {
            let released = self.runtime.block_on(self.real().release(id)).expect("asked");
            return if released { Ok(()) } else { Err("it is parked and was not released".to_owned()) };
        }
        let problem = Problem::new(ErrorCode::PublishReturned, "no");
        self.now.model.parked(&[(model_event(event), problem.clone())]);
        self.runtime.block_on(self.real().parked(vec![(id, problem)])).expect("parked");
        Ok(())
    }

    fn settle(&mut self) {
        let sub_app = SUB_APPS[self.rng.usize(0..2)];
        let before = (self.at - self.rng.u64(0..60_000)).max(self.boot.began.0);
        let at = self.wall();
        self.log.push(format!("settle {sub_app} before {before}"));
        self.now.model.settle(sub_app, Moment(before), at);
        let received_before = self.clock(before);
        self.runtime.block_on(self.real().settle(sub_app, received_before, at)).expect("settled");
    }

    fn settle_unpolled(&mut self) -> Result<(), String> {
        let polled: Vec<SubAppId> = SUB_APPS.into_iter().filter(|_| self.rng.bool()).collect();
        let before = self.wall() - Duration::from_millis(self.rng.u64(0..60_000));
        let at = self.wall();
        self.log.push(format!("settle what is not of {polled:?} and older than {before:?}"));
        let expected = self.now.model.settle_unpolled(&polled, before, at);
        let asked = self.real().settle_unpolled(polled.into(), before, at, 1_000);
        let found = self.runtime.block_on(asked).expect("settled");
        if expected == found { Ok(()) } else { Err(format!("settled {found}, expected {expected}")) }
    }

    fn load(&mut self) -> Result<(), String> {
        let after = if self.rng.bool() { None } else { self.some_event() };
        let limit = self.rng.u32(1..6);
        let model_after = after.map_or(EventId(0), model_event);
        let real_after = after.map_or(EventId(0), |at| self.now.events[at]);
        let expected = self.now.model.load(model_after, limit);
        let found = self.runtime.block_on(self.real().load(real_after, limit)).expect("loaded");
        self.log.push(format!("load {} of {limit}", found.len()));
        let expected: Vec<_> = expected
            .iter()
            .map(|one| {
                let at = usize::try_from(one.event.0 - 1).expect("from 1");
                let outgoing = &one.outgoing;
                (
                    self.now.events[at],
                    outgoing.occurrence,
                    outgoing.redelivered,
                    one.confirmed,
                    outgoing.request_id.clone(),
                )
            })
            .collect();
        let found: Vec<_> = found
            .into_iter()
            .map(|one| {
                let outgoing = one.outgoing;
                (one.event, outgoing.occurrence, outgoing.redelivered, one.confirmed, outgoing.request_id)
            })
            .collect();
        if expected == found { Ok(()) } else { Err(format!("loaded {found:?}, expected {expected:?}")) }
    }

    fn prune(&mut self) -> Result<(), String> {
        let before = self.wall() - Duration::from_millis(self.rng.u64(0..120_000));
        let expected = self.now.model.prune(before);
        let found = self.runtime.block_on(self.real().prune(before, 1_000)).expect("pruned");
        self.log.push(format!("prune {found}"));
        if expected == found { Ok(()) } else { Err(format!("pruned {found}, expected {expected}")) }
    }

    /// Keeps a copy of the file, to be restored later.
    fn keep_a_copy(&mut self) {
        self.stop();
        let file = self.folder.path().join("copy.db");
        fs::copy(&self.now.file, &file).expect("copied");
        self.copy = Some(Kept { file, ..self.now.clone() });
        self.log.push("a copy is kept".to_owned());
        self.start(false);
    }

    fn restart(&mut self) {
        self.stop();
        let mut is_copy = false;
        match self.rng.u8(0..6) {
            0 | 1 => {
                self.reboot();
                self.wall += [0, 0, -10_000, -45_000, -DAY_MS, DAY_MS][self.rng.usize(0..6)];
            }
            // Moved with cp.
            2 => {
                let aside = self.folder.path().join("aside.db");
                fs::rename(&self.now.file, &aside).expect("moved");
                fs::copy(&aside, &self.now.file).expect("copied");
                is_copy = true;
            }
            3 => {
                if let Some(copy) = self.copy.clone() {
                    let file = self.now.file.clone();
                    fs::rename(&file, self.folder.path().join("old.db")).expect("moved");
                    fs::copy(&copy.file, &file).expect("restored");
                    self.now = Kept { file, ..copy };
                    is_copy = true;
                }
            }
            _ => {}
        }
        self.log.push(format!("restart in boot {}, copy {is_copy}", self.boot.number));
        self.start(is_copy);
    }

    /// Whether the rows are the same.
    fn compare(&self) -> Result<(), String> {
        let found = rows(&self.now.file);
        for (at, row) in self.now.model.rows.iter().enumerate() {
            let expected = (!row.pruned).then(|| {
                let settled_or_confirmed = row.confirmed;
                let flags = [row.published, row.parked, settled_or_confirmed, row.uncertain];
                (row.occurrence, row.attempts, row.redeliveries, flags)
            });
            let id = self.now.events[at];
            if found.get(&id.0).copied() != expected {
                return Err(format!("event {} is {:?}, expected {expected:?}", id.0, found.get(&id.0)));
            }
        }
        let rows = self.now.model.rows.iter().filter(|row| !row.pruned).count();
        if rows == found.len() { Ok(()) } else { Err(format!("{} rows, expected {rows}", found.len())) }
    }
}

type Row = (u32, u32, u32, [bool; 4]);

fn rows(file: &Path) -> HashMap<i64, Row> {
    let conn = Connection::open(file).expect("it can be read");
    let mut statement = conn
        .prepare(
            "SELECT id, occurrence, attempts, redeliveries, published_at IS NOT NULL, parked, confirmed_at IS NOT NULL, uncertain
             FROM event",
        )
        .expect("SQL");
    let row = |row: &rusqlite::Row<'_>| {
        let flags = [row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
        Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?, flags)))
    };
    statement.query_map([], row).expect("rows").map(|row| row.expect("a row")).collect()
}

fn model_event(at: usize) -> EventId {
    EventId(i64::try_from(at).expect("few") + 1)
}

fn model_deliveries(at: &[usize]) -> Vec<DeliveryId> {
    at.iter().map(|at| DeliveryId(i64::try_from(*at).expect("few") + 1)).collect()
}

/// The first history in which the two differ, with what led to it.
fn differs(histories: u64, bug: Option<Sabotage>) -> Option<String> {
    (0..histories).find_map(|seed| {
        let mut pair = Pair::new(seed, bug);
        (0..STEPS).find_map(|_| {
            let problem = pair.step().err()?;
            Some(format!("history {seed}: {problem}\n{}", pair.log.join("\n")))
        })
    })
}

#[test]
fn the_model_and_the_real_journal_say_the_same_of_every_history() {
    if let Some(problem) = differs(HISTORIES, None) {
        panic!("{problem}");
    }
}

#[test]
fn a_difference_between_the_two_is_seen() {
    for bug in [
        Sabotage::BootIgnored,
        Sabotage::WallBelieved,
        Sabotage::CopyNotNoticed,
        Sabotage::LateIsNew,
        Sabotage::FirstLapsedTaken,
        Sabotage::OneOccurrence,
        Sabotage::ReopenMarksNothing,
        Sabotage::UncertainForgotten,
        Sabotage::PruneForgetsConfirms,
        Sabotage::SettledIsNew,
        Sabotage::FirstDeliveryCounts,
        Sabotage::PolledIsSettled,
        Sabotage::ReleaseMarks,
        Sabotage::ReleaseUnmarks,
    ] {
        assert!(differs(HISTORIES, Some(bug)).is_some(), "{bug:?} is not seen");
    }
}
