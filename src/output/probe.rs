//! Examines the brokers for `vodrelay check`, and changes nothing.

use futures_util::future::join_all;
use lapin::{Channel, Connection};
use vodrelay_core::error_code::ErrorCode;

use super::amqp::{Address, Options, Topology};
use super::link;
use super::properties::{self, QueueProperties};
use super::refusal::LinkError;
use super::topology::{self, Thing, TopologyError};

/// Only a declaration would show this, and a check declares nothing.
const NOT_TRIED_EXCHANGE: &str = "whether the user may do so is not tested";
const NOT_TRIED_QUEUE: &str =
    "whether the user may do so, and whether the virtual host's limit of queues allows it, is not tested";

/// No query shows this, and a check publishes nothing.
const TOPIC_RIGHTS: &str = "; topic permissions are not proven: only a publish shows them";
const INTERNAL_AND_TOPIC_RIGHTS: &str = "; not proven: whether it is internal (that takes the right to configure it), and topic permissions (only a publish shows them)";
const NOT_SEEN: &str = "its type, and whether it drops events (a time to live, a largest length)";

/// One examined thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStep {
    /// Its name: `login at ...`, `exchange "..."`.
    pub name: String,
    /// Whether the output can work with it.
    pub ok: bool,
    /// Whether it works for the output but is less safe for the events than possible.
    pub doubtful: bool,
    /// Whether a failure may pass without a change of the configuration or the broker.
    pub passing: bool,
    /// The finding; for a failure or a doubt, with the next step.
    pub text: String,
    /// The problem of a failure.
    pub error_code: Option<ErrorCode>,
}

impl ProbeStep {
    fn new(name: String, result: Result<String, String>) -> Self {
        let ok = result.is_ok();
        let (Ok(text) | Err(text)) = result;
        let error_code = (!ok).then_some(ErrorCode::BrokerTopology);
        Self { name, ok, doubtful: false, passing: false, text, error_code }
    }

    fn doubtful(self) -> Self {
        Self { doubtful: true, ..self }
    }

    fn failed(name: String, error: &LinkError) -> Self {
        Self {
            passing: passes(error),
            error_code: Some(error.error_code()),
            ..Self::new(name, Err(error.to_string()))
        }
    }

    /// A step about a part of the topology.
    fn about(name: String, result: Result<String, TopologyError>) -> Self {
        let passing = result.as_ref().is_err_and(may_pass);
        Self { passing, ..Self::new(name, result.map_err(|error| error.to_string())) }
    }
}

fn passes(error: &LinkError) -> bool {
    match error {
        LinkError::Files { .. }
        | LinkError::NoHost { .. }
        | LinkError::Unreachable { .. }
        | LinkError::Silent { .. }
        | LinkError::Limit { .. }
        | LinkError::Handshake { .. } => true,
        LinkError::Tls { .. }
        | LinkError::NotAmqp { .. }
        | LinkError::Mechanism { .. }
        | LinkError::SmallFrames { .. }
        | LinkError::TlsSetup { .. }
        | LinkError::Login { .. }
        | LinkError::LongLogin { .. }
        | LinkError::VirtualHost { .. } => false,
        LinkError::Topology { source, .. } => may_pass(source),
        LinkError::Addresses(failures) => failures.iter().all(|(_, error)| passes(error)),
    }
}

fn may_pass(error: &TopologyError) -> bool {
    match error {
        TopologyError::Missing { .. }
        | TopologyError::Different { .. }
        | TopologyError::Forbidden { .. }
        | TopologyError::MayNotWrite { .. }
        | TopologyError::MayNotBind { .. }
        | TopologyError::Reserved { .. }
        | TopologyError::Internal { .. }
        | TopologyError::QueueLimit { .. } => false,
        TopologyError::Refused { .. }
        | TopologyError::Unanswered { .. }
        | TopologyError::ChannelLimit(_)
        | TopologyError::NoChannel(_) => true,
    }
}

/// Logs in at all brokers at once. Where that works, examines the exchange, the queue, its type and its
/// binding. The steps are in the order of the addresses.
///
/// Nothing is created: what is missing is only declared by [`super::amqp::spawn`]. Bounded by the limits in `options`.
pub async fn probe(options: &Options) -> Vec<ProbeStep> {
    let probes = options.urls.iter().map(|address| probe_one(address, options));
    join_all(probes).await.into_iter().flatten().collect()
}

async fn probe_one(address: &Address, options: &Options) -> Vec<ProbeStep> {
    let limit = options.limits.connect;
    let silent = || LinkError::silent(address, limit);
    let login =
        tokio::time::timeout(limit, link::log_in(address, options)).await.unwrap_or_else(|_| Err(silent()));
    let name = format!("login at {address}");
    let link = match login {
        Ok(link) => link,
        Err(error) => return vec![ProbeStep::failed(name, &error)],
    };
    let mut steps = vec![ProbeStep::new(name, Ok("connected and logged in".to_owned()))];
    if tokio::time::timeout(limit, look(&link.connection, options, &mut steps)).await.is_err() {
        steps.push(ProbeStep::failed("topology".to_owned(), &silent()));
    }
    link.close(limit).await;
    steps
}

async fn look(connection: &Connection, options: &Options, steps: &mut Vec<ProbeStep>) {
    let declare = options.topology == Topology::Declare;
    let exists = async |channel: Channel| topology::exchange_exists(&channel, options).await;
    let exchange = ask(connection, exists).await;
    let exchange_is_there = exchange.is_ok();
    let mut suffix = TOPIC_RIGHTS;
    let verdict = match exchange {
        Ok(()) if declare => {
            // Declaring an existing thing changes nothing, and shows whether its properties are ours.
            let same = ask(connection, async |channel| topology::declare_exchange(&channel, options).await);
            same.await.map(|()| "exists, a durable topic exchange".to_owned())
        }
        Ok(()) => match properties::of_exchange(connection, &options.exchange).await {
            Some(found) if found.internal => {
                Err(TopologyError::Internal { thing: Thing::Exchange(options.exchange.clone()) })
            }
            Some(found) => {
                if !found.is_topic() {
                    suffix = "";
                }
                Ok(format!("exists, {}", found.shown()))
            }
            None => {
                suffix = INTERNAL_AND_TOPIC_RIGHTS;
                Ok("exists".to_owned())
            }
        },
        Err(TopologyError::Missing { .. }) if declare => {
            Ok(format!("missing; it will be declared at the start; {NOT_TRIED_EXCHANGE}"))
        }
        Err(error) => Err(error),
    };
    let verdict = match verdict {
        Ok(text) if exchange_is_there => {
            let write = ask(connection, async |channel| topology::may_write(&channel, options).await).await;
            write.map(|()| format!("{text}; the user may write to it{suffix}"))
        }
        other => other,
    };
    steps.push(ProbeStep::about(format!("exchange \"{}\"", options.exchange), verdict));
    // Some refusals end the connection, and later requests have no answer: the refusal is the cause.
    if options.queue.is_empty() || !connection.status().connected() {
        return;
    }

    let queue = ask(connection, async |channel| topology::queue_exists(&channel, options).await).await;
    let name = format!("queue \"{}\"", options.queue);
    let waiting = match queue {
        Ok(waiting) => waiting,
        Err(TopologyError::Missing { .. }) if declare => {
            return steps.push(ProbeStep::new(
                name,
                Ok(format!("missing; it will be declared as a quorum queue at the start; {NOT_TRIED_QUEUE}")),
            ));
        }
        Err(error) => return steps.push(ProbeStep::about(name, Err(error))),
    };
    steps.push(if declare {
        let same = ask(connection, async |channel| topology::declare_queue(&channel, options).await).await;
        let same = same.map(|()| format!("exists, a durable quorum queue with {waiting} messages"));
        ProbeStep::about(name, same)
    } else {
        existing_queue(name, waiting, properties::of_queue(connection, &options.queue).await)
    });
    let binding = if declare && exchange_is_there {
        let bind = ask(connection, async |channel| topology::may_bind(&channel, options).await).await;
        bind.map(|()| {
            format!("it is bound with {:?} at the start; the user may bind it", options.binding_key)
        })
    } else if declare {
        Ok(format!("it is bound with {:?} at the start", options.binding_key))
    } else {
        Ok("cannot be seen over AMQP; an event without a bound queue is returned and parked".to_owned())
    };
    steps.push(ProbeStep::about(format!("binding of \"{}\"", options.queue), binding));
}

/// The text for a queue that another program declared. It is the operator's choice, and an operator should
/// know what it means.
fn existing_queue(name: String, waiting: u32, found: Option<QueueProperties>) -> ProbeStep {
    let Some(found) = found else {
        return ProbeStep::new(
            name,
            Ok(format!(
                "exists with {waiting} messages; not proven, because it takes the right to configure the queue: {NOT_SEEN}"
            )),
        );
    };
    let mut text = format!("exists, {}, with {waiting} messages", found.shown());
    let mut advice = found.drops();
    if !found.is_safe() {
        advice.push("events in it live on one node, or not on its disk: a durable quorum queue is safer");
    }
    for advice in &advice {
        text.push_str("; ");
        text.push_str(advice);
    }
    text.push_str("; the settings of a policy are not proven: AMQP does not show them");
    let step = ProbeStep::new(name, Ok(text));
    if advice.is_empty() { step } else { step.doubtful() }
}

/// Asks on a channel of its own, because a refusal closes the channel.
async fn ask<T>(
    connection: &Connection,
    question: impl AsyncFnOnce(Channel) -> Result<T, TopologyError>,
) -> Result<T, TopologyError> {
    let channel = topology::channel(connection).await?;
    question(channel).await
}
