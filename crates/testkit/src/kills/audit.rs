//! When all is over: the emulator's ledger, the broker's queue and the journals, held against each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use lapin::types::AMQPValue;
use tencent_vod::MADE_UP_HANDLE;
use tencent_vod_emulator::ledger::{ConfirmRecord, EventRecord};
use tencent_vod_emulator::{ConfirmVerdict, Ledger};

use super::process::Host;
use crate::broker::{Broker, Received};
use crate::world::{World, delivered};

/// How far a confirm may arrive behind the relay's cutoff, in milliseconds: the way of a request that left just before it.
/// The cloud's own window goes on for a second after the cutoff in these tests.
const ON_ITS_WAY: i64 = 250;

/// What was found besides that all is well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audit {
    /// Events that were put.
    pub events: usize,
    /// Messages beyond the first of each event.
    pub duplicates: usize,
    /// Those of them that another relay published than the first.
    pub across: usize,
    /// Deliveries beyond the first of each event.
    pub redeliveries: usize,
    /// When a confirm came nearest to its cutoff: milliseconds after it; negative is before.
    pub nearest_ms: i64,
}

/// One journal, as it is after the end.
pub struct Journal {
    /// State and attempts, by message id.
    pub events: BTreeMap<String, (String, u32)>,
    /// When its pull was sent and its cutoff, by handle.
    pub leases: HashMap<String, Vec<(i64, i64)>>,
    /// The answers that it recorded.
    pub requests: HashSet<String>,
    /// What the program itself names.
    pub maybe_duplicates: BTreeSet<String>,
}

impl Journal {
    fn read(host: &Host) -> Self {
        let file = rusqlite::Connection::open(host.journal()).unwrap();
        let sound: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        let mut events = BTreeMap::new();
        let mut rows = file.prepare("SELECT message_id, state, attempts FROM event_log").unwrap();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            events.insert(row.get(0).unwrap(), (row.get(1).unwrap(), row.get(2).unwrap()));
        }
        let (mut leases, mut requests) = (HashMap::<_, Vec<_>>::new(), HashSet::new());
        let mut rows =
            file.prepare("SELECT handle, request_id, sent_at, cutoff FROM every_delivery").unwrap();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            requests.insert(row.get(1).unwrap());
            let lease = (row.get(2).unwrap(), row.get(3).unwrap());
            leases.entry(row.get(0).unwrap()).or_default().push(lease);
        }
        Self { events, leases, requests, maybe_duplicates: host.maybe_duplicates() }
    }

    /// The latest cutoff that this handle had by then.
    fn cutoff(&self, confirm: &ConfirmRecord) -> Option<i64> {
        let leases = self.leases.get(&*confirm.handle)?;
        leases
            .iter()
            .filter(|(sent_at, _)| *sent_at <= confirm.at.cast_signed())
            .map(|(_, cutoff)| *cutoff)
            .max()
    }
}

/// What all ends hold after the end.
pub struct Evidence {
    pub ledger: Ledger,
    pub messages: Vec<Received>,
    pub journals: Vec<Journal>,
}

impl Evidence {
    /// Empties the queue, and reads the journals of relays that have ended.
    pub async fn gather(broker: &Broker, world: &World, hosts: &[Host]) -> Self {
        let ledger = world.emulator.ledger(None);
        let messages = broker.drain(&world.queue, ledger.events.len()).await;
        Self { ledger, messages, journals: hosts.iter().map(Journal::read).collect() }
    }

    /// How many messages are another relay's first of an event that one relay had published.
    fn across(&self) -> usize {
        let publisher = |message: &Received| {
            let request = text(message, "x-vod-request-id");
            self.journals.iter().position(|journal| journal.requests.contains(&request))
        };
        let by: BTreeSet<_> = self.messages.iter().map(|m| (m.message_id(), publisher(m))).collect();
        let ids: BTreeSet<_> = by.iter().map(|(id, _)| id).collect();
        by.len() - ids.len()
    }

    /// Everything that is wrong. Every event that was put must differ from every other.
    pub fn findings(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let carried = carried(&self.ledger, &self.messages, &mut wrong);
        check_messages(&self.ledger, &self.messages, &carried, &self.journals, &mut wrong);
        check_journals(&self.messages, &self.journals, &mut wrong);
        check_confirms(&self.ledger, &self.journals, &mut wrong);
        wrong
    }
}

/// Compares all ends, and panics when something is wrong.
pub async fn audit(broker: &Broker, world: &World, hosts: &[Host]) -> Audit {
    let evidence = Evidence::gather(broker, world, hosts).await;
    let mut wrong = evidence.findings();
    if !wrong.is_empty() {
        let count = wrong.len();
        wrong.truncate(10);
        panic!("{count} findings, among them:\n{}", wrong.join("\n"));
    }
    let across = evidence.across();
    let Evidence { ledger, messages, journals } = evidence;
    Audit {
        across,
        events: ledger.events.len(),
        duplicates: messages.len() - ledger.events.len(),
        redeliveries: ledger.events.iter().map(|event| event.deliveries.len() - 1).sum(),
        nearest_ms: check_confirms(&ledger, &journals, &mut Vec::new()),
    }
}

/// The messages of each event, by their place in the queue. Each body must be byte for byte one that was delivered.
fn carried(ledger: &Ledger, messages: &[Received], wrong: &mut Vec<String>) -> Vec<Vec<usize>> {
    let mut bodies = HashMap::new();
    for (index, event) in ledger.events.iter().enumerate() {
        for handle in event.deliveries.iter().filter_map(|delivery| delivery.handle.as_deref()) {
            bodies.insert(delivered(&event.json, handle).into_bytes(), index);
        }
    }
    let mut carried = vec![Vec::new(); ledger.events.len()];
    for (at, message) in messages.iter().enumerate() {
        match bodies.get(&message.body) {
            Some(index) => carried[*index].push(at),
            None => {
                wrong.push(format!("no delivery had this body: {}", String::from_utf8_lossy(&message.body)));
            }
        }
    }
    carried
}

fn check_messages(
    ledger: &Ledger,
    messages: &[Received],
    carried: &[Vec<usize>],
    journals: &[Journal],
    wrong: &mut Vec<String>,
) {
    let mut owners = BTreeMap::new();
    for (event, places) in ledger.events.iter().zip(carried) {
        let history = || history(event, places.iter().map(|at| &messages[*at]), journals);
        let Some(first) = places.first() else {
            wrong.push(format!("lost: {}", history()));
            continue;
        };
        let id = messages[*first].message_id();
        if places.iter().any(|at| messages[*at].message_id() != id) || id.contains('-') {
            wrong.push(format!("a repeat under another id, or an event taken for another: {}", history()));
        }
        if owners.insert(id.clone(), event.number).is_some() {
            wrong.push(format!("two events under one id: {}", history()));
        }
        for journal in journals {
            let of_this = |at: &&usize| journal.requests.contains(&text(&messages[**at], "x-vod-request-id"));
            let copies = places.iter().filter(of_this).count();
            let attempts = journal.events.get(&id).map_or(0, |(_, attempts)| *attempts);
            if copies > attempts as usize {
                wrong.push(format!("{copies} copies of {attempts} attempts on record: {}", history()));
            }
            if copies > 1 && !journal.maybe_duplicates.contains(&id) {
                wrong.push(format!("a repeat that is not named: {}", history()));
            }
        }
        let known = |at: &usize| {
            let request = text(&messages[*at], "x-vod-request-id");
            journals.iter().filter(|journal| journal.requests.contains(&request)).count() == 1
        };
        if !places.iter().all(known) {
            wrong.push(format!("published from an answer that no journal has: {}", history()));
        }
    }
}

fn check_journals(messages: &[Received], journals: &[Journal], wrong: &mut Vec<String>) {
    let queued: BTreeSet<String> = messages.iter().map(Received::message_id).collect();
    let journalled: BTreeSet<&String> = journals.iter().flat_map(|journal| journal.events.keys()).collect();
    for id in queued.iter().collect::<BTreeSet<_>>().symmetric_difference(&journalled) {
        wrong.push(format!("only at one end, the queue's or the journals': {id}"));
    }
    for (id, (state, _)) in journals.iter().flat_map(|journal| &journal.events) {
        if state != "confirmed" {
            wrong.push(format!("{id} is still {state} in its journal"));
        }
    }
}

/// Says when a confirm came nearest to its cutoff.
fn check_confirms(ledger: &Ledger, journals: &[Journal], wrong: &mut Vec<String>) -> i64 {
    for event in ledger.unconfirmed() {
        wrong.push(format!("unconfirmed: {}", event.json));
    }
    for call in ledger.calls_with_a_handle_twice() {
        wrong.push(format!("a handle twice in one call: {call:?}"));
    }
    let mut nearest = i64::MIN;
    for confirm in &ledger.confirms {
        // The relay asks on an idle queue whether it may confirm: no delivery has this handle.
        if *confirm.handle == *MADE_UP_HANDLE {
            continue;
        }
        if matches!(
            confirm.verdict,
            ConfirmVerdict::Late | ConfirmVerdict::Unknown | ConfirmVerdict::Superseded
        ) {
            wrong.push(format!("{confirm:?}"));
        }
        let Some(cutoff) = journals.iter().filter_map(|journal| journal.cutoff(confirm)).max() else {
            wrong.push(format!("confirmed, and its delivery is in no journal: {confirm:?}"));
            continue;
        };
        let after = confirm.at.cast_signed() - cutoff;
        nearest = nearest.max(after);
        if after > ON_ITS_WAY {
            wrong.push(format!("after the cutoff by {after} ms: {confirm:?}"));
        }
    }
    nearest
}

/// A header's text, or nothing.
fn text(message: &Received, header: &str) -> String {
    match message.header(header) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        Some(AMQPValue::ShortString(text)) => text.to_string(),
        _ => String::new(),
    }
}

/// Everything that is known of one event, in the order of time at each end.
fn history<'a>(
    event: &EventRecord,
    messages: impl Iterator<Item = &'a Received>,
    journals: &[Journal],
) -> String {
    let mut told = format!("event {} of sub-application {}\n", event.number.0, event.sub_app_id);
    let _ = writeln!(told, "  put at {}, confirmed at {:?}", event.put_at, event.confirmed_at);
    for delivery in &event.deliveries {
        let handle = delivery.handle.as_deref().unwrap_or_default();
        let holders = journals.iter().enumerate().filter(|(_, journal)| journal.leases.contains_key(handle));
        let holders: Vec<usize> = holders.map(|(number, _)| number).collect();
        let _ = writeln!(told, "  delivered at {} as {handle}, known to journals {holders:?}", delivery.at);
    }
    for message in messages {
        let (id, handle) = (message.message_id(), text(message, "x-vod-event-handle"));
        let _ = writeln!(told, "  message {id} of the delivery as {handle}");
        for (number, journal) in journals.iter().enumerate() {
            if let Some((state, attempts)) = journal.events.get(&id) {
                let _ = writeln!(told, "    journal {number}: {state} after {attempts} attempts");
            }
        }
    }
    told
}

/// One figure from a journal.
pub fn figure(journal: &Path, sql: &str) -> i64 {
    let file = rusqlite::Connection::open(journal).unwrap();
    file.query_row(sql, [], |row| row.get(0)).unwrap()
}
