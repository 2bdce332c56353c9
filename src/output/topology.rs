//! The exchange and the queue: declared, or proven to exist.

use std::fmt;

use lapin::options::{ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::amqp::{Options, Topology};
use super::message::short;
use super::refusal::{is_limit, words};

/// An object of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    Exchange(String),
    Queue(String),
    Binding(String),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(name) => write!(f, "the exchange \"{name}\""),
            Self::Queue(name) => write!(f, "the queue \"{name}\""),
            Self::Binding(name) => write!(f, "the binding of the queue \"{name}\""),
        }
    }
}

/// Why the topology is wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopologyError {
    #[error("{thing} does not exist; create it, or set topology = \"declare\"")]
    Missing { thing: Thing, text: String },
    #[error(
        "{thing} exists with other properties ({text}); name another one, or set topology = \"verify\" to use it as it is"
    )]
    Different { thing: Thing, text: String },
    #[error(
        "the user may not use {thing} ({text}); grant the permission, or create it yourself and set topology = \"verify\""
    )]
    Forbidden { thing: Thing, text: String },
    #[error(
        "the user may not write to {thing} ({text}), and every publish needs that; grant it: rabbitmqctl set_permissions"
    )]
    MayNotWrite { thing: Thing, text: String },
    #[error(
        "the user may not bind {thing} ({text}); grant it to write to the queue and to read the exchange, or bind the queue yourself and set amqp.queue = \"\""
    )]
    MayNotBind { thing: Thing, text: String },
    #[error(
        "{thing} cannot be declared: {text}; names that begin with \"amq.\" are RabbitMQ's own: choose another name"
    )]
    Reserved { thing: Thing, text: String },
    #[error(
        "{thing} cannot be declared: {text}; raise the limit of the virtual host: rabbitmqctl set_vhost_limits"
    )]
    QueueLimit { thing: Thing, text: String },
    #[error(
        "{thing} is internal, and RabbitMQ lets no client publish to it; name another one in amqp.exchange"
    )]
    Internal { thing: Thing },
    #[error("the broker refuses {thing} ({text}); see its log")]
    Refused { thing: Thing, text: String },
    #[error("no more channels: {0}; raise the user's limit: rabbitmqctl set_user_limits")]
    ChannelLimit(String),
    #[error("cannot prove {thing}: {text}")]
    Unanswered { thing: Thing, text: String },
    #[error("cannot open a channel: {0}")]
    NoChannel(lapin::Error),
}

pub(super) fn refused(thing: Thing) -> impl FnOnce(lapin::Error) -> TopologyError {
    move |error| match error.kind() {
        ErrorKind::ProtocolError(refusal) => {
            let text = words(&error);
            match refusal.get_id() {
                404 => TopologyError::Missing { thing, text },
                406 if text.contains("inequivalent arg 'internal'") => TopologyError::Internal { thing },
                // RabbitMQ says "inequivalent arg 'durable' ..."; no other answer is about properties.
                406 if text.contains("inequivalent arg") => TopologyError::Different { thing, text },
                406 if is_limit(&text) => TopologyError::QueueLimit { thing, text },
                405 | 406 => TopologyError::Refused { thing, text },
                403 if text.contains("reserved prefix") => TopologyError::Reserved { thing, text },
                403 => TopologyError::Forbidden { thing, text },
                _ => TopologyError::Unanswered { thing, text },
            }
        }
        _ => TopologyError::Unanswered { thing, text: error.to_string() },
    }
}

/// A binding has no rights and no name of its own; the queue and the exchange have.
fn not_bound(error: TopologyError, options: &Options) -> TopologyError {
    match error {
        TopologyError::Forbidden { text, .. } => {
            TopologyError::MayNotBind { thing: Thing::Queue(options.queue.clone()), text }
        }
        TopologyError::Missing { thing: Thing::Binding(_), text } => {
            // It was deleted after its declaration.
            let thing = if text.contains("no queue") {
                Thing::Queue(options.queue.clone())
            } else {
                Thing::Exchange(options.exchange.clone())
            };
            TopologyError::Missing { thing, text }
        }
        other => other,
    }
}

/// Declares or verifies everything on a channel of its own, because a refusal closes the channel.
pub(super) async fn prove(connection: &Connection, options: &Options) -> Result<(), TopologyError> {
    let channel = channel(connection).await?;
    match options.topology {
        Topology::Verify => {
            exchange_exists(&channel, options).await?;
            if !options.queue.is_empty() {
                queue_exists(&channel, options).await?;
            }
        }
        Topology::Declare => {
            declare_exchange(&channel, options).await?;
            if !options.queue.is_empty() {
                declare_queue(&channel, options).await?;
                let binding = Thing::Binding(options.queue.clone());
                let (queue, exchange) = (short(&options.queue), short(&options.exchange));
                let bind = channel.queue_bind(
                    queue,
                    exchange,
                    short(&options.binding_key),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                bind.await.map_err(refused(binding)).map_err(|error| not_bound(error, options))?;
            }
        }
    }
    channel.close(200, "proven".into()).await.map_err(TopologyError::NoChannel)
}

pub(super) async fn channel(connection: &Connection) -> Result<Channel, TopologyError> {
    connection.create_channel().await.map_err(|error| match words(&error) {
        text if is_limit(&text) => TopologyError::ChannelLimit(text),
        _ => TopologyError::NoChannel(error),
    })
}

pub(super) async fn exchange_exists(channel: &Channel, options: &Options) -> Result<(), TopologyError> {
    // A passive declare compares only the name.
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let name = short(&options.exchange);
    let answer = channel.exchange_declare(name, ExchangeKind::Topic, passive, FieldTable::default()).await;
    answer.map_err(refused(Thing::Exchange(options.exchange.clone())))
}

/// Returns the number of its messages.
pub(super) async fn queue_exists(channel: &Channel, options: &Options) -> Result<u32, TopologyError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let answer = channel.queue_declare(short(&options.queue), passive, FieldTable::default()).await;
    Ok(answer.map_err(refused(Thing::Queue(options.queue.clone())))?.message_count())
}

pub(super) async fn declare_exchange(channel: &Channel, options: &Options) -> Result<(), TopologyError> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let name = short(&options.exchange);
    let answer = channel.exchange_declare(name, ExchangeKind::Topic, durable, FieldTable::default()).await;
    answer.map_err(refused(Thing::Exchange(options.exchange.clone())))
}

pub(super) async fn declare_queue(channel: &Channel, options: &Options) -> Result<(), TopologyError> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    // A quorum queue acks a publish when a majority of its nodes has it on disk.
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let answer = channel.queue_declare(short(&options.queue), durable, arguments).await;
    answer.map(|_| ()).map_err(refused(Thing::Queue(options.queue.clone())))
}

/// Whether the user may publish to the existing exchange. Nothing is published.
///
/// RabbitMQ requires the right to write to an exchange before it removes a binding from it. The other end of
/// this binding is an exchange that does not exist, so nothing can be removed. The answer is the refusal, or
/// any other. A right by routing key (topic permissions) does not show.
pub(super) async fn may_write(channel: &Channel, options: &Options) -> Result<(), TopologyError> {
    let nowhere = nowhere();
    let (ours, source) = (short(&options.exchange), short(&nowhere));
    let key = short(&nowhere);
    let unbound =
        channel.exchange_unbind(ours, source, key, ExchangeUnbindOptions::default(), FieldTable::default());
    let thing = Thing::Exchange(options.exchange.clone());
    denied(unbound.await, &nowhere).map_or(Ok(()), |text| Err(TopologyError::MayNotWrite { thing, text }))
}

/// Whether the user may bind the existing queue to the existing exchange. Nothing is bound and nothing
/// unbound: no binding has this argument. The key is that of the real binding, because a right can depend on
/// it (topic permissions).
pub(super) async fn may_bind(channel: &Channel, options: &Options) -> Result<(), TopologyError> {
    let nowhere = nowhere();
    let (queue, exchange) = (short(&options.queue), short(&options.exchange));
    let mut arguments = FieldTable::default();
    arguments.insert("x-vodrelay-check".into(), AMQPValue::LongString(nowhere.as_str().into()));
    let unbound = channel.queue_unbind(queue, exchange, short(&options.binding_key), arguments).await;
    let thing = Thing::Queue(options.queue.clone());
    denied(unbound, &nowhere).map_or(Ok(()), |text| Err(TopologyError::MayNotBind { thing, text }))
}

/// The next step for a publish that is refused whatever the message contains.
pub(super) fn after_refusal(code: u16, text: &str) -> &'static str {
    match code {
        403 if text.contains("internal exchange") => {
            "; the exchange is internal, and RabbitMQ lets no client publish to it: name another one in amqp.exchange"
        }
        403 if text.contains("access to topic") => {
            "; grant the user these routing keys: rabbitmqctl set_topic_permissions"
        }
        403 => "; grant the user to write to the exchange: rabbitmqctl set_permissions",
        404 => "; create the exchange, or set topology = \"declare\"",
        _ => "",
    }
}

/// A name that no object has.
fn nowhere() -> String {
    format!("vodrelay-check-{:016x}", fastrand::u64(..))
}

/// The broker's words when it denies a right, but not for the object `nowhere`.
fn denied(answer: lapin::Result<()>, nowhere: &str) -> Option<String> {
    let error = answer.err()?;
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return None };
    let text = words(&error);
    (refusal.get_id() == 403 && !text.contains(nowhere)).then_some(text)
}
