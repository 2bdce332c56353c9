//! What the broker takes from a publisher that does nothing else: the measure of the relay's throughput.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use nix::unistd::Pid;
use vodrelay_testkit::broker::{Broker, Received, unique};

use super::process::cpu_time;
use super::{bounded, queue};

/// How the bare loop publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Channels, each with one batch in flight.
    pub(crate) lanes: usize,
    /// Messages that are awaited together.
    pub(crate) batch: usize,
}

impl Shape {
    /// As the relay does by default.
    pub(crate) fn relay() -> Self {
        Self { lanes: vodrelay::output::amqp::Options::new(Vec::new()).lanes, batch: 16 }
    }
}

/// What a bare loop did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    pub(crate) events_per_second: f64,
    /// This process's own.
    pub(crate) cpu_us_per_event: f64,
    pub(crate) broker_cpu_us_per_event: f64,
}

/// Publishes these messages, as a relay has published them, to a fresh queue, and removes it. What counts is the time from
/// the first publish to the last confirm.
pub(crate) async fn publish(broker: &Broker, messages: &[Received], shape: Shape) -> Bare {
    let name = unique("bare");
    let (connection, channel) = broker.channel().await;
    queue::declare(&channel, &name).await;
    let mut lanes = Vec::new();
    for share in messages.chunks(messages.len().div_ceil(shape.lanes)) {
        let channel = connection.create_channel().await.expect("a channel can be opened");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms can be asked for");
        lanes.push((channel, name.clone(), share.to_vec()));
    }
    let cpu = || (cpu_time(Pid::this()), cpu_time(broker.pid()));
    let ((own_before, brokers_before), began) = (cpu(), Instant::now());
    let lanes = lanes.into_iter().map(|(channel, name, share)| {
        tokio::spawn(async move { lane(&channel, &name, share, shape.batch).await })
    });
    for ended in bounded("everything is published", join_all(lanes)).await {
        ended.expect("a lane ends well");
    }
    let (took, (own, brokers)) = (began.elapsed(), cpu());
    queue::close(connection).await;
    let stored = u64::from(queue::delete(broker, &name).await);
    assert_eq!(stored, messages.len() as u64, "the broker has what it confirmed");
    let events = messages.len() as f64;
    let us_per_event = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events;
    Bare {
        events_per_second: events / took.as_secs_f64(),
        cpu_us_per_event: us_per_event(own - own_before),
        broker_cpu_us_per_event: us_per_event(brokers - brokers_before),
    }
}

async fn lane(channel: &Channel, exchange: &str, messages: Vec<Received>, batch: usize) {
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let mut confirms = Vec::with_capacity(batch);
        for message in messages.by_ref().take(batch) {
            let Received { routing_key, properties, body } = message;
            let publish = channel
                .basic_publish(exchange.into(), routing_key.into(), mandatory, &body, properties)
                .await;
            confirms.push(publish.expect("a message can be published"));
        }
        for confirm in join_all(confirms).await {
            let confirm = confirm.expect("a publish is answered");
            assert!(matches!(confirm, Confirmation::Ack(None)), "{confirm:?}");
        }
    }
}
