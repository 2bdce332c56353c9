//! A queue as the relay declares it, from the consumer's side.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer, ExchangeKind};
use tokio::time::timeout;
use vodrelay_testkit::broker::{Broker, Received};

use super::bounded;

/// Makes the exchange and the queue of this name, as the relay does.
pub(crate) async fn declare(channel: &Channel, name: &str) {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel
        .exchange_declare(name.into(), ExchangeKind::Topic, durable, none())
        .await
        .expect("an exchange can be declared");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut quorum = none();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(name.into(), durable, quorum).await.expect("a queue can be declared");
    channel
        .queue_bind(name.into(), name.into(), "vod.#".into(), QueueBindOptions::default(), none())
        .await
        .expect("a queue can be bound");
}

/// A consumer that needs not ack: the broker does with every message what it would do after an ack.
pub(crate) async fn consume(channel: &Channel, name: &str) -> Consumer {
    channel.basic_qos(1_000, BasicQosOptions::default()).await.expect("a prefetch can be set");
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    channel
        .basic_consume(name.into(), "".into(), options, FieldTable::default())
        .await
        .expect("a queue can be consumed")
}

/// Takes so many messages from a queue, in their order; fails when they do not come.
pub(crate) async fn each(broker: &Broker, name: &str, count: u64, mut take: impl FnMut(Received)) {
    let (connection, channel) = broker.channel().await;
    let mut consumer = consume(&channel, name).await;
    for taken in 0..count {
        let next = bounded(&format!("{taken} of {count} messages came"), consumer.next()).await;
        let delivery = next.expect("the queue goes on").expect("a message can be taken");
        take(Received {
            routing_key: delivery.routing_key.to_string(),
            properties: delivery.properties,
            body: delivery.data,
        });
    }
    close(connection).await;
}

/// As [`each`], all of them at once.
pub(crate) async fn take(broker: &Broker, name: &str, count: u64) -> Vec<Received> {
    let mut taken = Vec::new();
    each(broker, name, count, |message| taken.push(message)).await;
    taken
}

/// Removes the exchange and the queue of this name; says how many messages were left in it.
pub(crate) async fn delete(broker: &Broker, name: &str) -> u32 {
    let (connection, channel) = broker.channel().await;
    let left =
        bounded("a queue is deleted", channel.queue_delete(name.into(), QueueDeleteOptions::default()));
    let left = left.await.expect("a queue can be deleted");
    let gone = channel.exchange_delete(name.into(), ExchangeDeleteOptions::default());
    bounded("an exchange is deleted", gone).await.expect("an exchange can be deleted");
    close(connection).await;
    left
}

/// Says goodbye. lapin 4.12.3 sometimes drops the connection instead, and then waits for ever for an answer (seen right after
/// channels were dropped).
pub(crate) async fn close(connection: Connection) {
    let _ = timeout(Duration::from_secs(2), connection.close(200, "done".into())).await;
}
