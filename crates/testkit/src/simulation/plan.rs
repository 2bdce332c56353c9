//! What a seed decides before anything happens: the shape of the relay, of its events, and which faults it will meet.
//!
//! Swarm style: of each fault a seed has none, some or plenty. A seed with every fault at once hides what a seed with two
//! of them shows.

use std::time::Duration;

use tencent_vod_emulator::queue::{MixedConfirm, Redelivery};
use tencent_vod_event::SubAppId;
use vodrelay_core::lease::Window;
use vodrelay_core::machine::{ConfirmAfter, RelaySettings, Settings};

/// Everything that can go wrong, one switch each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Fault {
    /// A pull request never reaches the cloud.
    PullRequestLost,
    /// The cloud hands events out, and the answer never arrives.
    PullAnswerLost,
    /// The answer takes long, often longer than its lease.
    PullAnswerSlow,
    /// The cloud says that it is too much, whatever the rate.
    PullThrottled,
    /// The cloud refuses for a reason that only an operator can mend, for a while.
    PullRefused,
    /// A confirm never reaches the cloud.
    ConfirmRequestLost,
    /// The cloud forgets the events, and the answer never arrives.
    ConfirmAnswerLost,
    /// A confirm takes seconds on its way there or back.
    ConfirmSlow,
    /// The cloud says that it is too much, whatever the rate.
    ConfirmThrottled,
    /// The credentials, the clock or the account are wrong for a while.
    ConfirmDenied,
    /// The cloud says yes, and hands the events out again all the same.
    ConfirmForgotten,
    /// A handle that fails every request it is part of.
    HandlePoisoned,
    /// One handle for all events of a pull.
    HandleShared,
    /// Events without a handle.
    HandleMissing,
    /// Handles as bare numbers.
    HandleNumber,
    /// An event handed out again before its window ended, under the handle that it has.
    EarlySameHandle,
    /// The same, under a new handle.
    EarlyNewHandle,
    /// The broker nacks.
    Nack,
    /// The broker gives it back, for now.
    Return,
    /// The broker has it, and its answer is lost.
    UnknownStored,
    /// It is lost on the way to the broker.
    UnknownLost,
    /// Its answer is given up, and then the broker gets it.
    UnknownThenStored,
    /// The broker takes seconds.
    PublishSlow,
    /// The connection breaks: everything in flight is unknown, and the output is down for a while.
    ConnectionLost,
    /// The broker blocks publishes for a while.
    Blocked,
    /// Commits take seconds.
    CommitSlow,
    /// The journal cannot commit for a while.
    JournalDown,
    /// The shell is slow to look at its inputs.
    Stall,
    /// The process dies at a random moment.
    Crash,
    /// The process dies after some effects of a step are under way and before the others.
    CrashInStep,
    /// The process dies when the cloud has handed events out.
    CrashAfterHandOut,
    /// The process dies when the broker has stored an event.
    CrashAfterStore,
    /// The process dies when the journal has committed, before it is told.
    CrashAfterCommit,
    /// The process dies when the cloud has forgotten events.
    CrashAfterConfirm,
    /// The host sleeps.
    Suspend,
    /// Somebody sets the wall clock.
    WallJump,
    /// The relay is asked to drain, and started again.
    Drain,
    /// Other programs on the account ask so often that nothing is left for a while.
    OthersTakeAll,
    /// The host boots anew while no process runs.
    Reboot,
    /// The wall clock is another one after a boot.
    WallAfterReboot,
    /// The journal is moved with a copy while no process runs.
    JournalCopied,
    /// The configuration is read again at work, with other sub-applications.
    Reload,
    /// The next run has other sub-applications, and perhaps another proof for its confirms.
    OtherSettings,
    /// An older copy of the journal is restored while no process runs.
    JournalRestored,
    /// An event that breaks the connection each time it is published.
    EventBreaks,
    /// The exchange has no queue for a while.
    Unbound,
    /// Events that were parked are released while no process runs, after the broker was mended or not.
    Released,
}

impl Fault {
    /// Each of them, in the order of their declaration.
    pub const ALL: [Fault; 47] = [
        Fault::PullRequestLost,
        Fault::PullAnswerLost,
        Fault::PullAnswerSlow,
        Fault::PullThrottled,
        Fault::PullRefused,
        Fault::ConfirmRequestLost,
        Fault::ConfirmAnswerLost,
        Fault::ConfirmSlow,
        Fault::ConfirmThrottled,
        Fault::ConfirmDenied,
        Fault::ConfirmForgotten,
        Fault::HandlePoisoned,
        Fault::HandleShared,
        Fault::HandleMissing,
        Fault::HandleNumber,
        Fault::EarlySameHandle,
        Fault::EarlyNewHandle,
        Fault::Nack,
        Fault::Return,
        Fault::UnknownStored,
        Fault::UnknownLost,
        Fault::UnknownThenStored,
        Fault::PublishSlow,
        Fault::ConnectionLost,
        Fault::Blocked,
        Fault::CommitSlow,
        Fault::JournalDown,
        Fault::Stall,
        Fault::Crash,
        Fault::CrashInStep,
        Fault::CrashAfterHandOut,
        Fault::CrashAfterStore,
        Fault::CrashAfterCommit,
        Fault::CrashAfterConfirm,
        Fault::Suspend,
        Fault::WallJump,
        Fault::Drain,
        Fault::OthersTakeAll,
        Fault::Reboot,
        Fault::WallAfterReboot,
        Fault::JournalCopied,
        Fault::Reload,
        Fault::OtherSettings,
        Fault::JournalRestored,
        Fault::EventBreaks,
        Fault::Unbound,
        Fault::Released,
    ];

    /// How likely it is where it can happen, per mille: when the seed has some of it, and when it has plenty.
    fn rates(self) -> (u16, u16) {
        match self {
            Fault::HandleShared | Fault::HandleNumber | Fault::Nack | Fault::Return => (50, 400),
            Fault::PullRefused | Fault::ConfirmDenied | Fault::CommitSlow | Fault::Stall => (10, 60),
            Fault::PullAnswerSlow => (50, 400),
            Fault::ConfirmForgotten | Fault::HandleMissing => (20, 150),
            Fault::CrashInStep | Fault::CrashAfterStore | Fault::CrashAfterCommit => (5, 40),
            Fault::CrashAfterHandOut | Fault::CrashAfterConfirm => (20, 150),
            // These come by the clock, not by the occasion: so many in a thousand seconds.
            Fault::Crash
            | Fault::ConnectionLost
            | Fault::Blocked
            | Fault::JournalDown
            | Fault::Suspend
            | Fault::WallJump
            | Fault::Drain
            | Fault::OthersTakeAll => (15, 80),
            Fault::EarlySameHandle | Fault::EarlyNewHandle => (50, 300),
            Fault::Reboot | Fault::WallAfterReboot => (300, 800),
            Fault::JournalCopied => (100, 300),
            Fault::Reload => (30, 120),
            Fault::OtherSettings => (300, 800),
            Fault::JournalRestored => (300, 700),
            Fault::EventBreaks => (10, 40),
            Fault::Unbound => (15, 40),
            Fault::Released => (300, 800),
            _ => (40, 250),
        }
    }

    /// Whether it comes by the clock.
    pub fn comes_by_the_clock(self) -> bool {
        matches!(
            self,
            Fault::Crash
                | Fault::ConnectionLost
                | Fault::Blocked
                | Fault::JournalDown
                | Fault::Suspend
                | Fault::WallJump
                | Fault::Drain
                | Fault::OthersTakeAll
                | Fault::EarlySameHandle
                | Fault::EarlyNewHandle
                | Fault::Reload
                | Fault::Unbound
        )
    }
}

/// What a seed is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Faults of every kind.
    Swarm,
    /// Bad events and bad handles among good ones and nothing else: nobody may wait for another (G6).
    BadNeighbours,
    /// The broker is away for long, and the journal's commit is proof enough: the cloud must not notice.
    BrokerAway,
    /// The exchange has no queue once, for a time that the seed says, and nothing else is wrong.
    Unbound,
    /// No fault at all.
    Calm,
}

/// How the cloud counts the requests of one API of the account. Not a fault: it goes on doing so when all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// It does not.
    Not,
    /// A bucket that holds a second's worth.
    Bucket,
    /// A count that begins anew each second.
    Window,
}

/// All that a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What it is about.
    pub theme: Theme,
    /// How many relays, each with its own journal, pull from the same queues.
    pub relays: usize,
    /// Whose queues.
    pub sub_apps: Vec<SubAppId>,
    /// The proof that a confirm needs.
    pub confirm_after: ConfirmAfter,
    /// The cloud's window and the margin.
    pub window: Window,
    /// Events that are held at once.
    pub max_in_flight: usize,
    /// Publishes before an event is parked.
    pub publish_attempts: u32,
    /// Requests per second, as the relay is told.
    pub requests_per_second: u32,
    /// How the cloud counts them.
    pub counting: Counting,
    /// Requests per second, as the cloud accepts them.
    pub accepted_per_second: u32,
    /// How many events are put.
    pub events: usize,
    /// How long the safety phase lasts, in milliseconds; events are put during its first three quarters.
    pub safety_ms: u64,
    /// How many in a thousand events equal an earlier one.
    pub equal_per_mille: u16,
    /// How many in a thousand have no queue to go to.
    pub unroutable_per_mille: u16,
    /// How many in a thousand the broker refuses.
    pub refused_per_mille: u16,
    /// How many in a thousand are no JSON objects, so that no handle ever stands on them.
    pub bare_per_mille: u16,
    /// How long the cloud holds a poll while there is nothing.
    pub hold_ms: u64,
    /// After so long the client gives a pull up.
    pub pull_timeout_ms: u64,
    /// The longest way that a slow request takes.
    pub slow_ms: u64,
    /// Under which handle an event comes again.
    pub redelivery: Redelivery,
    /// What a bad handle does to its neighbours.
    pub mixed: MixedConfirm,
    /// Whether the cloud refuses a second confirm.
    pub refuse_repeats: bool,
    /// How wrong the hosts' wall clocks are from the beginning.
    pub wall_offset_ms: i64,
    /// Whether a second queue on the exchange stores what the first one nacks.
    pub second_queue: bool,
    /// When the exchange loses its queue in a seed that is about that, and for how long, in milliseconds.
    pub unbound_ms: (u64, u64),
    rates: [u16; Fault::ALL.len()],
}

impl Plan {
    /// What this seed decides.
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5157_a1f1_ab1e_0001);
        // What came later has its own chance, so that the seeds keep their meaning.
        let mut newest = fastrand::Rng::with_seed(seed ^ 0x5157_a1f1_ab1e_07a3);
        let theme = match rng.u8(0..20) {
            0 => Theme::Calm,
            1 => Theme::BrokerAway,
            2 | 3 => Theme::BadNeighbours,
            _ if newest.u8(0..25) == 0 => Theme::Unbound,
            _ => Theme::Swarm,
        };
        let swarm = theme == Theme::Swarm;
        let relays = if swarm && rng.u8(0..8) == 0 { 2 } else { 1 };
        let mut rates = [0; Fault::ALL.len()];
        // How full of faults this seed is at all.
        let density = rng.u8(10..=80);
        let mut later = fastrand::Rng::with_seed(seed ^ 0x5157_a1f1_ab1e_0002);
        for fault in Fault::ALL {
            let (some, plenty) = fault.rates();
            let (rng, density) = match fault as usize {
                newer if newer >= Fault::EventBreaks as usize => (&mut newest, 25),
                newer if newer >= Fault::Reboot as usize => (&mut later, 25),
                _ => (&mut rng, density),
            };
            let drawn = if rng.u8(0..100) >= density {
                0
            } else if rng.bool() {
                some
            } else {
                plenty
            };
            rates[fault as usize] = if swarm { drawn } else { 0 };
        }
        if theme == Theme::BadNeighbours {
            rates[Fault::HandlePoisoned as usize] = 60;
            rates[Fault::EventBreaks as usize] = [0, 0, 15, 50][newest.usize(0..4)];
        }
        if theme == Theme::BrokerAway {
            // It was in trouble before.
            rates[Fault::PublishSlow as usize] = 500;
            rates[Fault::Nack as usize] = 500;
        }
        let bare_per_mille = if swarm && rng.u8(0..10) == 0 { 30 } else { 0 };
        let redelivery = if rng.u8(0..3) == 0 { Redelivery::SameHandle } else { Redelivery::NewHandle };
        if bare_per_mille > 0 || redelivery == Redelivery::SameHandle {
            // A confirm deletes all events of a shared handle: also those on which the relay cannot see it, and those that
            // come again under it in another answer, which may be lost. No relay can know, so that one handle stands on the
            // events of one answer here, and never comes again.
            rates[Fault::HandleShared as usize] = 0;
        }
        let bad = matches!(theme, Theme::Swarm | Theme::BadNeighbours) && rng.u8(0..3) > 0;
        let length = [(30, 3), (30, 3), (30, 10), (12, 2)][rng.usize(0..4)];
        let requests_per_second = [100, 100, 20, 5][rng.usize(0..if swarm { 4 } else { 2 })];
        // As much as the relay was told, or much less: often in a swarm, and where nothing else goes wrong.
        let percent = match theme {
            Theme::Swarm | Theme::Calm => [100, 50, 30, 10][rng.usize(0..4)],
            Theme::BadNeighbours | Theme::BrokerAway | Theme::Unbound => 100,
        };
        let unbound_for = [3_000, 20_000, 55_000, 200_000, 700_000][newest.usize(0..5)];
        let unbound_ms = (newest.u64(0..30_000), unbound_for);
        let mut plan = Self {
            seed,
            theme,
            relays,
            sub_apps: (0..[1_u64, 1, 2, 3][rng.usize(0..4)]).map(|n| SubAppId(n * 1_500_000_000)).collect(),
            confirm_after: match rng.bool() {
                true if theme != Theme::BrokerAway => ConfirmAfter::Publish,
                _ => ConfirmAfter::Journal,
            },
            window: Window { length: Duration::from_secs(length.0), margin: Duration::from_secs(length.1) },
            max_in_flight: match theme {
                Theme::Swarm => [16, 24, 64, 256, 1024][rng.usize(0..5)],
                Theme::BrokerAway => [64, 128, 256][rng.usize(0..3)],
                Theme::BadNeighbours | Theme::Unbound | Theme::Calm => 1024,
            },
            publish_attempts: if theme == Theme::Unbound { 5 } else { rng.u32(1..=5) },
            requests_per_second,
            counting: [Counting::Not, Counting::Bucket, Counting::Window][rng.usize(0..3)],
            accepted_per_second: (requests_per_second * percent / 100).max(1),
            events: if theme == Theme::BrokerAway { 200 } else { [8, 20, 40, 80, 160][rng.usize(0..5)] },
            safety_ms: match theme {
                Theme::Unbound => unbound_for + 60_000,
                _ => [20_000, 60_000, 150_000][rng.usize(0..3)],
            },
            equal_per_mille: [0, 100, 500][rng.usize(0..3)],
            unroutable_per_mille: if bad { [0, 20, 150][rng.usize(0..3)] } else { 0 },
            refused_per_mille: if bad { [0, 20, 150][rng.usize(0..3)] } else { 0 },
            bare_per_mille,
            hold_ms: [0, 1_000, 5_000][rng.usize(0..3)],
            pull_timeout_ms: if rng.u8(0..4) == 0 { 60_000 } else { 15_000 },
            slow_ms: [1_500, 4_000][rng.usize(0..2)],
            redelivery,
            mixed: if rng.bool() { MixedConfirm::DeleteGood } else { MixedConfirm::RefuseAll },
            refuse_repeats: rng.bool(),
            wall_offset_ms: 0,
            second_queue: rng.bool(),
            unbound_ms,
            rates,
        };
        if plan.relays > 1 && plan.max_in_flight < 64 {
            // Each hands them to the other under new numbers, until one of them has no room for anything else.
            plan.set(Fault::EventBreaks, 0);
        }
        plan
    }

    /// How likely a fault is where it can happen, per mille.
    pub fn rate(&self, fault: Fault) -> u16 {
        self.rates[fault as usize]
    }

    /// Makes a fault this likely, per mille.
    pub fn set(&mut self, fault: Fault, per_mille: u16) {
        self.rates[fault as usize] = per_mille;
    }

    /// The core's settings for a relay that is started with this seed of its own.
    pub fn settings(&self, seed: u64) -> Settings {
        Settings {
            sub_apps: self.sub_apps.clone(),
            window: self.window.length,
            requests_per_second: self.requests_per_second,
            relay: RelaySettings {
                confirm_after: self.confirm_after,
                lease_margin: self.window.margin,
                max_in_flight: self.max_in_flight,
                publish_attempts: self.publish_attempts,
                ..RelaySettings::default()
            },
            seed,
        }
    }
}
