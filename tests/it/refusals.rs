//! Events that a real RabbitMQ does not take, or takes and does not say so.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::timeout;
use vodrelay_testkit::broker::{LIMIT, shared};
use vodrelay_testkit::world::World;

fn event(number: u64) -> String {
    tencent_vod_emulator::events::sample("NewFileUpload", number).unwrap()
}

async fn exchange(channel: &lapin::Channel, name: &str) {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = lapin::ExchangeKind::Topic;
    channel.exchange_declare(name.into(), kind, durable, FieldTable::default()).await.unwrap();
}

async fn queue(channel: &lapin::Channel, name: &str, arguments: FieldTable) {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), durable, arguments).await.unwrap();
}

async fn bind(channel: &lapin::Channel, queue: &str, exchange: &str) {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), "vod.#".into(), options, FieldTable::default())
        .await
        .unwrap();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, held).await.unwrap_or_else(|_| panic!("{what}: not within the time"));
}

/// RabbitMQ stores a message in one queue and nacks it because another one is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_nacked_for_a_second_full_queue_is_named_as_a_possible_duplicate() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    world.config.amqp.queue = String::new();
    let (connection, channel) = broker.channel().await;
    let name = world.config.amqp.exchange.clone();
    exchange(&channel, &name).await;
    queue(&channel, &world.queue, FieldTable::default()).await;
    bind(&channel, &world.queue, &name).await;
    let mut limits = FieldTable::default();
    limits.insert("x-max-length".into(), AMQPValue::LongInt(1));
    limits.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let full = format!("{}.full", world.queue);
    queue(&channel, &full, limits).await;
    bind(&channel, &full, &name).await;
    world.emulator.put(0, event(0));
    world.emulator.put(0, event(1));
    let running = world.start().await;
    let watch = running.watch();
    let nacks = |n: u64| {
        let watch = watch.clone();
        move || watch.snapshot().publishes.get("nacked").is_some_and(|nacked| *nacked >= n)
    };
    until("the full queue nacks", nacks(3)).await;
    assert_eq!(
        world.figure("SELECT count(*) FROM event WHERE uncertain AND published_at IS NULL"),
        1,
        "the event that was nacked is named, and the other is not"
    );
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE state = 'parked'"), 0);
    // Room for the other one.
    channel.queue_purge(full.as_str().into(), Default::default()).await.unwrap();
    world.until_confirmed().await;
    running.drain().cancel();
    running.wait().await.unwrap();
    let messages = broker.drain(&world.queue, 4).await;
    let ids: std::collections::BTreeSet<String> = messages
        .iter()
        .map(|message| message.properties.message_id().as_ref().unwrap().to_string())
        .collect();
    assert_eq!(ids.len(), 2, "the copies have the event's id");
    assert_eq!(world.figure("SELECT count(*) FROM event WHERE uncertain AND published_at IS NOT NULL"), 1);
    drop(connection);
}

/// An exchange without a binding parks nothing: publishing is not ready, pulling rests, and a binding ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_without_a_binding_parks_nothing_and_rests_until_there_is_one() {
    let broker = shared().await;
    for confirm_after in [vodrelay::config::ConfirmAfter::Publish, vodrelay::config::ConfirmAfter::Journal] {
        let mut world = World::new(&broker.url(), &[0]).await;
        world.config.amqp.queue = String::new();
        world.config.relay.confirm_after = confirm_after;
        let (connection, channel) = broker.channel().await;
        let name = world.config.amqp.exchange.clone();
        exchange(&channel, &name).await;
        queue(&channel, &world.queue, FieldTable::default()).await;
        for number in 0..40 {
            world.emulator.put(0, event(number));
        }
        let running = world.start().await;
        let watch = running.watch();
        until("nothing is routable", || watch.snapshot().load.unroutable_since.is_some()).await;
        until("each was returned twice", || {
            watch.snapshot().publishes.get("returned").is_some_and(|returned| *returned >= 80)
        })
        .await;
        assert!(watch.snapshot().load.paused, "{:?}", watch.snapshot());
        assert!(watch.status().contains("VR-406"), "{}", watch.status());
        assert_eq!(watch.snapshot().parked, 0);
        bind(&channel, &world.queue, &name).await;
        until("all are acked", || watch.snapshot().publishes.get("acked").is_some_and(|acked| *acked == 40))
            .await;
        assert_eq!(watch.snapshot().load.unroutable_since, None);
        world.until_confirmed().await;
        running.drain().cancel();
        running.wait().await.unwrap();
        assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE state = 'parked'"), 0);
        assert_eq!(broker.drain(&world.queue, 40).await.len(), 40);
        drop(connection);
    }
}
