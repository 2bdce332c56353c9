//! Something between the relay and RabbitMQ that breaks each connection in which certain bytes pass.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use vodrelay_testkit::broker::shared;
use vodrelay_testkit::world::World;

use super::program::{Program, relay};
use super::{in_time, put_events};

/// What it looks for.
const FORBIDDEN: &[u8] = b"this breaks the connection";

/// The way to a broker on this port.
struct Middlebox {
    port: u16,
    broken: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Middlebox {
    async fn start(broker: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broken = Arc::new(AtomicUsize::new(0));
        let counted = broken.clone();
        let task = tokio::spawn(async move {
            // Connections end with their task, and the tasks with this set.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, broker, counted.clone()));
            }
        });
        Self { port, broken, task }
    }

    fn broken(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Carries both ways until one side ends, or until the forbidden bytes come from the client.
async fn carry(mut client: TcpStream, broker: u16, broken: Arc<AtomicUsize>) {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).await.unwrap();
    let (mut up, mut down) = ([0; 16_384], [0; 16_384]);
    // The end of what passed, in case the bytes come in two parts.
    let mut passed = Vec::new();
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Some(length) = read.ok().filter(|length| *length > 0) else { return };
                passed.extend_from_slice(&up[..length]);
                if passed.windows(FORBIDDEN.len()).any(|part| part == FORBIDDEN) {
                    broken.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                passed.drain(..passed.len().saturating_sub(FORBIDDEN.len()));
                if server.write_all(&up[..length]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Some(length) = read.ok().filter(|length| *length > 0) else { return };
                if client.write_all(&down[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_breaks_the_connection_is_parked_and_its_neighbours_get_through() {
    let broker = shared().await;
    let middlebox = Middlebox::start(broker.port()).await;
    let url = broker.url().replace(&format!(":{}/", broker.port()), &format!(":{}/", middlebox.port));
    let world = World::new(&url, &[0]).await;
    put_events(&world, 0..20);
    let culprit = String::from_utf8_lossy(FORBIDDEN);
    world.emulator.put(0, format!("{{\"EventType\":\"FileDeleted\",\"Note\":\"{culprit}\"}}"));
    put_events(&world, 20..40);
    let program = Program::start(relay(world.environment()));
    // Within the time that the test has for anything, whatever the culprit does.
    world.until("the neighbours are confirmed", |state| state.counts(0).confirmed >= 40).await;
    program.logs("events parked").await;
    world.until_confirmed().await;
    // The way is as good as ever afterwards.
    let broken = middlebox.broken();
    put_events(&world, 40..60);
    world.until_confirmed().await;
    assert_eq!(middlebox.broken(), broken, "what is parked is not published");
    assert!((6..=12).contains(&broken), "{broken} connections broke");
    let log = program.drained().await;
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(told("events parked"), 1, "{log}");
    assert_eq!(told("publishing recovered"), 0, "{log}");
    let parked = "SELECT count(*) FROM event_log WHERE state = 'parked'";
    assert_eq!(world.figure(parked), 1);
    let why = "parked_message LIKE '%seems to break the connection%[VR-408]' AND event_type = 'FileDeleted'";
    assert_eq!(world.figure(&format!("{parked} AND {why}")), 1, "{log}");
    assert_eq!(world.figure("SELECT count(*) FROM event WHERE parked AND uncertain"), 1);
    // Each of the others is there, and each that is there twice is named.
    let (mut ids, mut again) = (BTreeSet::new(), BTreeSet::new());
    while ids.len() < 60 {
        for message in broker.drain(&world.queue, 60 - ids.len()).await {
            if !ids.insert(message.message_id()) {
                again.insert(message.message_id());
            }
        }
    }
    let named = world.uncertain_ids();
    assert!(again.is_subset(&named), "{again:?} {named:?}");
    in_time(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_never_says_that_publishes_work_again_when_events_were_only_parked() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    world.set("AMQP__QUEUE", "");
    world.set("RELAY__PUBLISH_ATTEMPTS", "2");
    let (connection, channel) = broker.channel().await;
    let name = world.config.amqp.exchange.clone();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = lapin::ExchangeKind::Topic;
    channel.exchange_declare(name.as_str().into(), kind, durable, FieldTable::default()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(world.queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    // The queue takes one type of events, and no other.
    let (options, key) = (QueueBindOptions::default(), "vod.*.NewFileUpload");
    let (queue, name) = (world.queue.as_str(), name.as_str());
    channel.queue_bind(queue.into(), name.into(), key.into(), options, FieldTable::default()).await.unwrap();
    let program = Program::start(relay(world.environment()));
    for number in 0..3 {
        world.emulator.put(0, format!("{{\"EventType\":\"Unbound\",\"n\":{number}}}"));
        world.emulator.put(0, tencent_vod_emulator::events::sample("NewFileUpload", number).unwrap());
    }
    world.until_confirmed().await;
    // Others get through when the last of them is parked already.
    world.emulator.put(0, tencent_vod_emulator::events::sample("NewFileUpload", 3).unwrap());
    world.until_confirmed().await;
    let log = program.drained().await;
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE state = 'parked'"), 3, "{log}");
    assert!(log.contains("publishes fail, and are repeated") && log.contains("events parked"), "{log}");
    for words in ["publishing recovered", "no publish is repeated"] {
        assert!(!log.contains(words), "{log}");
    }
    assert_eq!(broker.drain(&world.queue, 4).await.len(), 4);
    drop(connection);
}
