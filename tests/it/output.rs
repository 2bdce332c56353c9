//! The outputs, against a real RabbitMQ and real pipes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use tencent_vod_event::{Event, MessageId, SubAppId};
use tencentcloud_signing::Secret;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vodrelay::output::amqp::{self, Address, BodyFormat, TlsFiles, Topology};
use vodrelay::output::{Error, Output, stdout};
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::EventId;
use vodrelay_core::outcome::{OutputState, PublishOutcome};
use vodrelay_core::outgoing::Outgoing;
use vodrelay_testkit::authority::Authority;
use vodrelay_testkit::broker::{self, Broker, LIMIT, Setup, TlsListener, unique};

fn event(json: &str) -> Arc<Event> {
    Arc::new(Event::parse(SubAppId(7), Bytes::copy_from_slice(json.as_bytes())).unwrap())
}

fn message_of(event: Arc<Event>) -> Outgoing {
    Outgoing {
        message_id: MessageId::new(&event.fingerprint, 1),
        event,
        occurrence: 1,
        redelivered: false,
        pulled_at: WallTime(1_767_225_600_123),
        request_id: "r-1".into(),
    }
}

/// A message that no other is equal to.
fn message(event_type: &str) -> Outgoing {
    message_of(event(&format!(
        r#"{{"EventHandle":"h","EventType":"{event_type}","Note":"{}"}}"#,
        unique("n")
    )))
}

fn address(port: u16) -> Address {
    Address {
        tls: false,
        host: "127.0.0.1".to_owned(),
        port,
        vhost: "/".to_owned(),
        username: Some("guest".to_owned()),
        password: Some(Secret::new("guest")),
    }
}

/// Options with an exchange and a queue of this test's own.
fn options(broker: &Broker) -> amqp::Options {
    let mut options = amqp::Options::new(vec![address(broker.port())]);
    options.exchange = unique("exchange");
    options.queue = unique("queue");
    options
}

/// An output that ends with the test.
struct Running {
    output: Output,
    task: JoinHandle<Result<(), Error>>,
    shutdown: CancellationToken,
}

impl Running {
    fn start(options: &amqp::Options) -> Self {
        let shutdown = CancellationToken::new();
        let (output, task) = amqp::spawn(options.clone(), shutdown.clone());
        Self { output, task, shutdown }
    }

    async fn up(options: &amqp::Options) -> Self {
        let running = Self::start(options);
        running.becomes_up().await;
        running
    }

    /// Waits for a state, and returns its text.
    async fn becomes(&self, what: &str, fits: impl Fn(&OutputState) -> bool) -> String {
        let mut state = self.output.state();
        let found = timeout(LIMIT, state.wait_for(|state| fits(state))).await;
        let text = found.ok().map(|found| match &*found.expect("the output runs") {
            OutputState::Up => String::new(),
            OutputState::Blocked(problem) | OutputState::Down(problem) => problem.message.to_string(),
        });
        text.unwrap_or_else(|| {
            panic!("the output did not become {what}: {:?}", *self.output.state().borrow())
        })
    }

    async fn becomes_up(&self) {
        self.becomes("up", |state| *state == OutputState::Up).await;
    }

    /// Waits until the output is down with a text that holds `part`.
    async fn becomes_down(&self, part: &str) -> String {
        let fits = |state: &OutputState| matches!(state, OutputState::Down(problem) if problem.message.contains(part));
        self.becomes(&format!("down with {part:?}"), fits).await
    }

    async fn publish(&self, message: &Outgoing) -> PublishOutcome {
        publish(&self.output, message, false).await
    }

    async fn publish_alone(&self, message: &Outgoing) -> PublishOutcome {
        publish(&self.output, message, true).await
    }

    async fn publish_all(&self, messages: &[Outgoing]) -> Vec<PublishOutcome> {
        join_all(messages.iter().map(|message| self.publish(message))).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(LIMIT, self.task).await.expect("the output did not stop").unwrap().unwrap();
    }
}

async fn publish(output: &Output, message: &Outgoing, alone: bool) -> PublishOutcome {
    let (outcomes, mut told) = mpsc::unbounded_channel();
    output.publish(EventId(1), message.clone().into(), alone, &outcomes);
    let batch = timeout(LIMIT, told.recv()).await.expect("a publish had no outcome").unwrap();
    drop(outcomes);
    assert!(told.recv().await.is_none(), "a publish had two outcomes");
    let [(EventId(1), outcome)] = <[_; 1]>::try_from(batch).unwrap() else {
        panic!("another event's outcome")
    };
    outcome
}

fn is_unknown(outcome: &PublishOutcome, suspected: bool) -> bool {
    matches!(outcome, PublishOutcome::Unknown { suspect, .. } if *suspect == suspected)
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), kind, durable, FieldTable::default()).await.unwrap();
}

async fn declare_queue(channel: &Channel, name: &str, arguments: &[(&str, AMQPValue)]) {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    channel.queue_declare(name.into(), durable, table).await.unwrap();
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_the_messages_of_a_sub_application_stay_in_their_order() {
    let broker = broker::shared().await;
    let options = amqp::Options { in_order: true, ..options(broker) };
    let running = Running::up(&options).await;
    let (outcomes, mut told) = mpsc::unbounded_channel();
    const MESSAGES: u64 = 2_000;
    for number in 0..MESSAGES {
        let json = format!(r#"{{"EventType":"T","Number":{number}}}"#);
        let event = Event::parse(SubAppId(1_500_000_000 + number % 5), Bytes::from(json)).unwrap();
        let id = EventId(i64::try_from(number).unwrap());
        running.output.publish(id, message_of(event.into()).into(), false, &outcomes);
    }
    let mut acked = 0;
    while acked < MESSAGES {
        for (_, outcome) in timeout(LIMIT, told.recv()).await.unwrap().unwrap() {
            assert_eq!(outcome, PublishOutcome::Acked);
            acked += 1;
        }
    }
    let mut last = HashMap::new();
    for received in broker.drain(&options.queue, 2_000).await {
        let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
        let number = body["Number"].as_u64().unwrap();
        let before = last.insert(received.routing_key, number);
        assert!(before < Some(number), "{number} after {before:?}");
    }
    assert_eq!(last.len(), 5);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_reads_back_the_bytes_and_the_properties() {
    let broker = broker::shared().await;
    let options = options(broker);
    let running = Running::up(&options).await;
    let json = "{ \"EventHandle\" : \"h-1\",\r\n\t\"EventType\":\"PullComplete\", \"New\": null, \"Size\": 9007199254740993,\n \
                \"PullCompleteEvent\":{\"TaskId\":\"t-1\",\"FileId\":\"5285485487985271487\"}, \"Title\":\"\u{89c6}\u{9891} \\u0041\" }";
    let mut sent = message_of(event(json));
    sent.occurrence = 3;
    sent.message_id = MessageId::new(&sent.event.fingerprint, 3);
    sent.redelivered = true;
    assert_eq!(running.publish(&sent).await, PublishOutcome::Acked);
    let bare = message_of(event("[]"));
    assert_eq!(running.publish(&bare).await, PublishOutcome::Acked);

    let received = broker.drain(&options.queue, 2).await;
    assert_eq!(received.len(), 2);
    let (full, empty) = (&received[0], &received[1]);
    assert_eq!(full.body, json.as_bytes());
    assert_eq!(full.routing_key, "vod.7.PullComplete");
    assert_eq!(full.message_id(), sent.message_id.as_str());
    let properties = &full.properties;
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "PullComplete");
    assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "vodrelay");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(*properties.timestamp(), Some(1_767_225_600));
    let text = |text: &str| AMQPValue::LongString(text.into());
    for (name, value) in [
        ("x-vod-sub-app-id", AMQPValue::LongLongInt(7)),
        ("x-vod-event-handle", text("h-1")),
        ("x-vod-fingerprint", text(&sent.event.fingerprint.to_string())),
        ("x-vod-occurrence", AMQPValue::LongLongInt(3)),
        ("x-vod-redelivered", AMQPValue::Boolean(true)),
        ("x-vod-pulled-at", AMQPValue::LongLongInt(1_767_225_600_123)),
        ("x-vod-request-id", text("r-1")),
        ("x-vod-file-id", text("5285485487985271487")),
        ("x-vod-task-id", text("t-1")),
    ] {
        assert_eq!(full.header(name), Some(&value), "{name}");
    }
    // RabbitMQ adds one of its own.
    let names = full.properties.headers().as_ref().unwrap().inner().keys();
    assert_eq!(names.filter(|name| name.as_str().starts_with("x-vod-")).count(), 9);

    assert_eq!(empty.body, b"[]");
    assert_eq!(empty.routing_key, "vod.7.unknown");
    assert_eq!(*empty.properties.kind(), None);
    assert_eq!((empty.header("x-vod-event-handle"), empty.header("x-vod-file-id")), (None, None));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_and_a_template_of_ones_own() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    options.format = BodyFormat::CloudEvents;
    options.routing_key = "vod.x.{file_id}.{task_id}".parse().unwrap();
    let running = Running::up(&options).await;
    let sent = message_of(event(r#"{"EventType":"T","E":{"FileId":"a.b#c"}, "n":1.0}"#));
    assert_eq!(running.publish(&sent).await, PublishOutcome::Acked);
    let received = broker.drain(&options.queue, 1).await;
    assert_eq!(received[0].routing_key, "vod.x.a_b_c.none");
    assert_eq!(
        received[0].properties.content_type().as_ref().unwrap().as_str(),
        "application/cloudevents+json"
    );
    let body = String::from_utf8(received[0].body.clone()).unwrap();
    assert!(body.ends_with(r#","data":{"EventType":"T","E":{"FileId":"a.b#c"}, "n":1.0}}"#), "{body}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_message_is_told_apart_from_its_siblings() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    let queue = std::mem::take(&mut options.queue);
    let running = Running::up(&options).await;
    let (_connection, channel) = broker.channel().await;
    // A classic queue: there lapin's own attachment of returned messages was wrong most often.
    declare_queue(&channel, &queue, &[]).await;
    bind(&channel, &queue, &options.exchange, "vod.7.Good").await;

    let mut good = HashSet::new();
    let mut unroutable = 0;
    for round in 0..40 {
        let kind = |n: usize| if (n * 7 + round * 3).is_multiple_of(5) { "Bad" } else { "Good" };
        let messages: Vec<Outgoing> = (0..64).map(|n| message(kind(n))).collect();
        let outcomes = running.publish_all(&messages).await;
        for (message, outcome) in messages.iter().zip(outcomes) {
            if message.event.event_type.as_deref() == Some("Good") {
                assert_eq!(outcome, PublishOutcome::Acked);
                good.insert(message.message_id.to_string());
            } else {
                unroutable += 1;
                let PublishOutcome::Returned { code: 312, text } = outcome else { panic!("{outcome:?}") };
                let told = "NO_ROUTE; routing key ";
                assert!(
                    text.starts_with(told) && text.contains(", exchange ") && text.contains(", broker amqp"),
                    "{text}"
                );
            }
        }
    }
    assert!(unroutable > 400);
    let received = broker.drain(&queue, good.len()).await;
    assert_eq!(received.len(), good.len());
    assert_eq!(received.iter().map(broker::Received::message_id).collect::<HashSet<_>>(), good);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_that_rejects_is_a_nack() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    let queue = std::mem::take(&mut options.queue);
    let running = Running::up(&options).await;
    let (_connection, channel) = broker.channel().await;
    let overflow = AMQPValue::LongString("reject-publish".into());
    declare_queue(&channel, &queue, &[("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", overflow)])
        .await;
    bind(&channel, &queue, &options.exchange, "#").await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Acked);
    let messages: Vec<Outgoing> = (0..20).map(|_| message("T")).collect();
    for outcome in running.publish_all(&messages).await {
        assert_eq!(outcome, PublishOutcome::Nacked);
    }
    assert_eq!(broker.queue_len(&queue).await, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_with_one_message_id_are_two_publishes() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    options.lanes = 1;
    let running = Running::up(&options).await;
    let (one, other) = (message("T"), message("T"));
    let messages = [one.clone(), one.clone(), other, one];
    for outcome in running.publish_all(&messages).await {
        assert_eq!(outcome, PublishOutcome::Acked);
    }
    assert_eq!(broker.drain(&options.queue, 4).await.len(), 4);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_waits_for_what_an_operator_has_to_make() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    options.topology = Topology::Verify;
    let running = Running::start(&options);
    let text = running.becomes_down("does not exist").await;
    assert!(text.contains(&options.exchange) && text.contains("topology = \"declare\""), "{text}");
    // Nobody waits for a broker that is down.
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Unsent);

    let (_connection, channel) = broker.channel().await;
    declare_exchange(&channel, &options.exchange, ExchangeKind::Topic).await;
    running.becomes_down(&options.queue).await;
    declare_queue(&channel, &options.queue, &[]).await;
    bind(&channel, &options.queue, &options.exchange, "#").await;
    running.becomes_up().await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Acked);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn declare_refuses_to_work_with_another_kind_of_exchange_or_queue() {
    let broker = broker::shared().await;
    let options = options(broker);
    let (_connection, channel) = broker.channel().await;
    declare_exchange(&channel, &options.exchange, ExchangeKind::Fanout).await;
    let running = Running::start(&options);
    let text = running.becomes_down("exists with other properties").await;
    assert!(text.contains("the exchange") && text.contains("fanout"), "{text}");
    running.stop().await;

    let options = self::options(broker);
    declare_queue(&channel, &options.queue, &[]).await;
    let running = Running::start(&options);
    let text = running.becomes_down("exists with other properties").await;
    assert!(text.contains("the queue") && text.contains("x-queue-type"), "{text}");
    running.stop().await;
}

// On one thread, so that all jobs are queued before the lane takes the first: one batch.
#[tokio::test]
async fn an_exchange_deleted_in_flight_makes_suspects_and_one_alone_is_refused() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    options.lanes = 1;
    let declaring = Running::up(&options).await;
    options.topology = Topology::Verify;
    let verifying = Running::up(&options).await;
    let (_connection, channel) = broker.channel().await;
    let delete = async || {
        channel
            .exchange_delete(options.exchange.as_str().into(), ExchangeDeleteOptions::default())
            .await
            .unwrap();
    };
    let messages: Vec<Outgoing> = (0..8).map(|_| message("T")).collect();

    delete().await;
    for outcome in verifying.publish_all(&messages).await {
        assert!(is_unknown(&outcome, true), "{outcome:?}");
    }
    verifying.becomes_down("does not exist").await;
    for outcome in declaring.publish_all(&messages).await {
        assert!(is_unknown(&outcome, true), "{outcome:?}");
    }
    // The lane that lost its channel has declared the exchange anew, which also helps the other output.
    assert_eq!(declaring.publish_alone(&messages[0]).await, PublishOutcome::Acked);
    verifying.becomes_up().await;

    delete().await;
    let outcome = verifying.publish_alone(&messages[1]).await;
    assert!(matches!(outcome, PublishOutcome::ChannelError { code: 404, .. }), "{outcome:?}");
    verifying.becomes_down("does not exist").await;
    verifying.stop().await;
    declaring.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_has_everything_that_was_acked() {
    let broker = Broker::start().await;
    let options = options(&broker);
    let running = Running::up(&options).await;
    broker.settle().await;

    let mut left: Vec<Outgoing> = (0..3_000).map(|_| message("T")).collect();
    let total = left.len();
    let mut acked = HashSet::new();
    let mut doubtful = HashSet::new();
    let mut note = |messages: Vec<Outgoing>, outcomes: Vec<PublishOutcome>| -> Vec<Outgoing> {
        let mut again = Vec::new();
        for (message, outcome) in messages.into_iter().zip(outcomes) {
            match outcome {
                PublishOutcome::Acked => assert!(acked.insert(message.message_id.to_string())),
                PublishOutcome::Unsent | PublishOutcome::Nacked => again.push(message),
                PublishOutcome::Unknown { suspect: false, .. } => {
                    doubtful.insert(message.message_id.to_string());
                    again.push(message);
                }
                other => panic!("{other:?}"),
            }
        }
        again
    };

    let first = join_all(left.iter().map(|message| running.publish(message)));
    let killing = async {
        // In the middle: some are in the queue, most are not.
        let deadline = Instant::now() + LIMIT;
        while broker.queue_len(&options.queue).await < 100 {
            assert!(Instant::now() < deadline, "nothing came to the queue");
        }
        broker.kill().await;
    };
    let (outcomes, ()) = tokio::join!(first, killing);
    left = note(left, outcomes);
    assert!(!left.is_empty(), "the broker was killed too late");
    running.becomes("down", |state| matches!(state, OutputState::Down(_))).await;

    broker.start_again().await;
    let deadline = Instant::now() + LIMIT;
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "{} messages found no way", left.len());
        running.becomes_up().await;
        let outcomes = running.publish_all(&left).await;
        left = note(left, outcomes);
    }

    assert_eq!(acked.len(), total);
    let mut copies: HashMap<String, usize> = HashMap::new();
    for received in broker.drain(&options.queue, total).await {
        *copies.entry(received.message_id()).or_default() += 1;
    }
    assert_eq!(copies.keys().cloned().collect::<HashSet<_>>(), acked);
    for (id, copies) in copies {
        assert!(
            copies == 1 || doubtful.contains(&id),
            "{id} came {copies} times, and every outcome was known"
        );
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_given_up_in_time_and_taken_up_again() {
    let broker = Broker::start().await;
    let options = options(&broker);
    let running = Running::up(&options).await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Acked);

    // A connection that an operator closes comes back at once, perhaps before rabbitmqctl ends: so both are watched together.
    let close = broker.ctl(&["close_all_connections", "maintenance"]);
    tokio::join!(running.becomes_down("maintenance"), close);
    running.becomes_up().await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Acked);

    broker.freeze();
    let began = Instant::now();
    let outcome = running.publish(&message("T")).await;
    assert!(is_unknown(&outcome, false), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    // It can be reached; it does not answer.
    let unanswered = |state: &OutputState| matches!(state, OutputState::Down(t) if t.error_code == ErrorCode::PublishUnanswered);
    running.becomes("down with VR-408", unanswered).await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Unsent);
    broker.thaw();
    running.becomes_up().await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Acked);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_blocks_and_nothing_is_lost_or_published_twice() {
    let broker = Broker::start().await;
    let options = options(&broker);
    let running = Running::up(&options).await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Acked);

    broker.raise_memory_alarm().await;
    let messages: Vec<Outgoing> = (0..100).map(|_| message("T")).collect();
    let publishing = running.publish_all(&messages);
    let alarm = async {
        let text = running.becomes("blocked", |state| matches!(state, OutputState::Blocked(_))).await;
        assert!(text.contains("memory"), "{text}");
        // Longer than a publish may take when nothing is blocked: what is in flight must be waited for.
        let limit = options.limits.publish + Duration::from_secs(3);
        let mut state = running.output.state();
        let other = timeout(limit, state.wait_for(|state| !matches!(state, OutputState::Blocked(_)))).await;
        assert!(other.is_err(), "the output gave up waiting");
        broker.clear_memory_alarm().await;
    };
    let (outcomes, ()) = tokio::join!(publishing, alarm);
    for outcome in outcomes {
        assert_eq!(outcome, PublishOutcome::Acked);
    }
    running.becomes_up().await;
    let received = broker.drain(&options.queue, 101).await;
    assert_eq!(received.len(), 101);
    assert_eq!(received.iter().map(broker::Received::message_id).collect::<HashSet<_>>().len(), 101);

    // Stopping is bounded although the broker blocks.
    broker.raise_memory_alarm().await;
    let (one, other) = (message("T"), message("T"));
    let stopping = async {
        running.becomes("blocked", |state| matches!(state, OutputState::Blocked(_))).await;
        running.shutdown.cancel();
    };
    let (outcome, ()) = tokio::join!(running.publish(&one), stopping);
    assert!(is_unknown(&outcome, false), "{outcome:?}");
    assert_eq!(running.publish(&other).await, PublishOutcome::Unsent);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_are_tried_in_turn() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut nowhere = address(5672);
    nowhere.host = "no-such-host.invalid".to_owned();
    options.urls.splice(0..0, [address(dead), nowhere]);
    let running = Running::up(&options).await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Acked);
    running.stop().await;

    options.urls.pop();
    let running = Running::start(&options);
    let text = running.becomes_down("cannot connect").await;
    assert!(text.contains(&dead.to_string()) && text.contains("no-such-host.invalid"), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_says_what_to_do_and_never_the_password() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    options.password = Some(Secret::new("wrong-password"));
    let running = Running::start(&options);
    let text = running.becomes_down("(from amqp.urls) or the password (from VODRELAY_AMQP__PASSWORD, or else the credential amqp_password)").await;
    assert!(!text.contains("wrong-password") && text.contains("127.0.0.1"), "{text}");
    running.stop().await;

    // The options go before the URL.
    options.urls[0].password = Some(Secret::new("wrong-password"));
    options.username = Some("guest".to_owned());
    options.password = Some(Secret::new("guest"));
    Running::up(&options).await.stop().await;

    options.urls[0].vhost = "nope".to_owned();
    let running = Running::start(&options);
    let text = running.becomes_down("refused the virtual host").await;
    assert!(text.contains("nope"), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_permissions_is_told_which_thing_it_is_about() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    Running::up(&options).await.stop().await;
    let user = unique("user");
    broker.ctl(&["add_user", &user, "password"]).await;
    broker.ctl(&["set_permissions", "-p", "/", &user, "^$", "^$", ".*"]).await;
    options.username = Some(user);
    options.password = Some(Secret::new("password"));
    let running = Running::start(&options);
    let text = running.becomes_down("may not use the exchange").await;
    assert!(text.contains("grant the permission"), "{text}");
    running.stop().await;

    // May declare both, and not bind them.
    broker.ctl(&["set_permissions", "-p", "/", options.username.as_ref().unwrap(), ".*", "^$", ".*"]).await;
    let running = Running::start(&options);
    let text = running.becomes_down("the user may not bind the queue").await;
    assert!(text.contains("grant it to write to the queue and to read the exchange"), "{text}");
    running.stop().await;
    broker.ctl(&["set_permissions", "-p", "/", options.username.as_ref().unwrap(), "^$", "^$", ".*"]).await;

    // May look, and may not write.
    options.topology = Topology::Verify;
    let running = Running::up(&options).await;
    let outcome = running.publish_alone(&message("T")).await;
    let PublishOutcome::ChannelError { code: 403, text } = outcome else { panic!("{outcome:?}") };
    assert!(text.contains("; grant the user to write to the exchange: "), "{text}");
    running.stop().await;

    // May write, but not with this routing key.
    let user = options.username.clone().unwrap();
    broker.ctl(&["set_permissions", "-p", "/", &user, "^$", ".*", ".*"]).await;
    broker.ctl(&["set_topic_permissions", "-p", "/", &user, &options.exchange, "^other", ".*"]).await;
    let running = Running::up(&options).await;
    let outcome = running.publish_alone(&message("T")).await;
    let PublishOutcome::ChannelError { code: 403, text } = outcome else { panic!("{outcome:?}") };
    assert!(text.contains("access to topic ") && text.contains("set_topic_permissions"), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_internal_exchange_is_named_as_one_by_a_publish_and_by_a_declaration() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    let (_connection, channel) = broker.channel().await;
    let internal =
        ExchangeDeclareOptions { durable: true, internal: true, ..ExchangeDeclareOptions::default() };
    let name = options.exchange.as_str().into();
    channel.exchange_declare(name, ExchangeKind::Topic, internal, FieldTable::default()).await.unwrap();
    let running = Running::start(&options);
    let text = running.becomes_down("is internal, and RabbitMQ lets no client publish to it").await;
    assert!(!text.contains("verify"), "that would not help: {text}");
    running.stop().await;
    options.topology = Topology::Verify;
    options.queue = String::new();
    let running = Running::up(&options).await;
    let outcome = running.publish_alone(&message("T")).await;
    let PublishOutcome::ChannelError { code: 403, text } = outcome else { panic!("{outcome:?}") };
    assert!(text.contains("name another one in amqp.exchange"), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_accepts_and_stays_silent_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = amqp::Options::new(vec![address(listener.local_addr().unwrap().port())]);
    let began = Instant::now();
    let running = Running::start(&options);
    let (mut peer, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    running.becomes_down("did not finish the handshake within 5s").await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // The connection is cut, not left to itself.
    let mut greeting = Vec::new();
    let hung_up = tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut greeting);
    timeout(LIMIT, hung_up).await.expect("the connection was left open").unwrap();
    assert_eq!(greeting, b"AMQP\x00\x00\x09\x01");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_the_task_and_leaves_nobody_waiting() {
    let broker = broker::shared().await;
    let options = options(broker);
    let running = Running::up(&options).await;
    let messages: Vec<Outgoing> = (0..500).map(|_| message("T")).collect();
    let stopping = async { running.shutdown.cancel() };
    let (outcomes, ()) = tokio::join!(running.publish_all(&messages), stopping);
    let acked = outcomes.iter().filter(|outcome| **outcome == PublishOutcome::Acked).count();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PublishOutcome::Acked | PublishOutcome::Unsent)));
    let output = running.output.clone();
    running.stop().await;
    assert_eq!(broker.drain(&options.queue, acked).await.len(), acked);
    assert_eq!(publish(&output, &messages[0], false).await, PublishOutcome::Unsent);
}

/// Certificates of one authority, made anew in every run.
struct Certificates {
    ca: String,
    client_certificate: String,
    client_key: String,
}

/// A node that refuses messages above 64 KiB, and TLS clients without a certificate. It ends with the test process.
async fn strict() -> &'static (Broker, Certificates) {
    static STRICT: OnceCell<(Broker, Certificates)> = OnceCell::const_new();
    STRICT
        .get_or_init(async || {
            let authority = Authority::new();
            let (certificate, key) = authority.signed("localhost");
            let (client_certificate, client_key) = authority.signed("vodrelay");
            let ca = authority.pem();
            let tls = TlsListener { ca: ca.clone(), certificate, key, client_certificate: true };
            let setup =
                Setup { config: "max_message_size = 65536\n".to_owned(), tls: Some(tls), ..Setup::default() };
            (Broker::start_with(setup).await, Certificates { ca, client_certificate, client_key })
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_needs_the_authority_and_the_client_certificate() {
    let (broker, certificates) = strict().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        Some(path)
    };
    let mut options = options(broker);
    options.urls[0] = Address { tls: true, host: "localhost".to_owned(), ..address(broker.tls_port()) };
    let complete = TlsFiles {
        ca_file: file("ca.pem", &certificates.ca),
        client_cert_file: file("client.pem", &certificates.client_certificate),
        client_key_file: file("client.key", &certificates.client_key),
    };
    options.tls = complete.clone();
    let running = Running::up(&options).await;
    assert_eq!(running.publish(&message("T")).await, PublishOutcome::Acked);
    running.stop().await;

    let refused = async |options: &amqp::Options, part: &str| {
        let running = Running::start(options);
        let text = running.becomes_down(part).await;
        running.stop().await;
        text
    };
    options.tls = TlsFiles { ca_file: None, ..complete.clone() };
    refused(&options, "as the CA file").await;
    options.tls = TlsFiles { client_cert_file: None, client_key_file: None, ..complete.clone() };
    refused(&options, "wants a client certificate").await;
    options.tls = TlsFiles { client_key_file: None, ..complete.clone() };
    refused(&options, "name both files or neither").await;
    options.tls = TlsFiles { ca_file: complete.client_key_file.clone(), ..complete.clone() };
    refused(&options, "holds no PEM certificate").await;
    options.tls = TlsFiles { ca_file: Some(folder.path().join("missing.pem")), ..complete.clone() };
    refused(&options, "cannot read the CA file").await;
    options.tls = complete;
    options.urls[0].host = "127.0.0.1".to_owned();
    refused(&options, "use a host name").await;
    options.urls[0].port = broker.port();
    refused(&options, "check that this port speaks TLS").await;
    options.urls[0] = address(broker.tls_port());
    refused(&options, "it speaks TLS; write amqps:// in the URL").await;
}

// On one thread, so that all jobs are queued before the lane takes the first: one batch.
#[tokio::test]
async fn a_message_that_the_broker_refuses_is_found_by_publishing_alone() {
    let (broker, _) = strict().await;
    let mut options = options(broker);
    options.lanes = 1;
    let running = Running::up(&options).await;
    let mut messages: Vec<Outgoing> = (0..8).map(|_| message("T")).collect();
    messages[3] = message_of(event(&format!(r#"{{"EventType":"Big","Fill":"{}"}}"#, "x".repeat(70_000))));
    let outcomes = running.publish_all(&messages).await;
    assert!(is_unknown(&outcomes[3], true), "{:?}", outcomes[3]);
    for outcome in &outcomes {
        // What was acked before the broker came to the big one is proven.
        assert!(*outcome == PublishOutcome::Acked || is_unknown(outcome, true), "{outcome:?}");
    }
    for (message, _) in messages.iter().zip(outcomes).filter(|(_, outcome)| is_unknown(outcome, true)) {
        let outcome = running.publish_alone(message).await;
        if message.event.event_type.as_deref() == Some("Big") {
            let PublishOutcome::ChannelError { code: 406, text } = outcome else { panic!("{outcome:?}") };
            assert!(
                text.contains("; routing key vod.7.Big, exchange ") && text.contains(", broker amqp"),
                "{text}"
            );
        } else {
            assert_eq!(outcome, PublishOutcome::Acked);
        }
    }
    let ids: HashSet<String> =
        broker.drain(&options.queue, 7).await.iter().map(broker::Received::message_id).collect();
    messages.remove(3);
    assert_eq!(ids, messages.iter().map(|message| message.message_id.to_string()).collect());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_what_there_is_and_changes_nothing() {
    let broker = broker::shared().await;
    let mut options = options(broker);
    let verdicts = async |options: &amqp::Options| -> Vec<(bool, String)> {
        let steps = timeout(LIMIT, amqp::probe(options)).await.expect("a probe is bounded");
        steps.into_iter().map(|step| (step.ok, format!("{}: {}", step.name, step.text))).collect()
    };
    let fine = |steps: &[(bool, String)]| steps.iter().all(|(ok, _)| *ok);

    for _ in 0..2 {
        let steps = verdicts(&options).await;
        assert!(fine(&steps) && steps.len() == 3, "{steps:?}");
        assert!(steps[1].1.contains("missing; it will be declared"), "{steps:?}");
        assert!(steps[2].1.contains("missing; it will be declared as a quorum queue"), "{steps:?}");
    }
    options.topology = Topology::Verify;
    let steps = verdicts(&options).await;
    assert!(steps[0].0 && !steps[1].0 && !steps[2].0, "{steps:?}");

    options.topology = Topology::Declare;
    Running::up(&options).await.stop().await;
    let steps = verdicts(&options).await;
    assert!(fine(&steps) && steps.len() == 4, "{steps:?}");
    assert!(steps[1].1.contains("exists, a durable topic exchange"), "{steps:?}");
    assert!(steps[2].1.contains("exists, a durable quorum queue with 0 messages"), "{steps:?}");

    options.queue = unique("classic");
    let (_connection, channel) = broker.channel().await;
    declare_queue(&channel, &options.queue, &[]).await;
    let steps = verdicts(&options).await;
    assert!(!steps[2].0 && steps[2].1.contains("x-queue-type"), "{steps:?}");
    options.topology = Topology::Verify;
    let steps = verdicts(&options).await;
    assert!(fine(&steps) && steps[2].1.contains("a durable classic queue"), "{steps:?}");

    options.topology = Topology::Declare;
    options.password = Some(Secret::new("wrong"));
    let steps = verdicts(&options).await;
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert!(!steps[0].0 && steps[0].1.contains("refused the user \"guest\" (from amqp.urls)"), "{steps:?}");
}

fn start_stdout(
    writer: impl std::io::Write + Send + 'static,
) -> (Output, JoinHandle<Result<(), Error>>, CancellationToken) {
    let shutdown = CancellationToken::new();
    let (output, task) = stdout::spawn_to(stdout::Options::default(), writer, shutdown.clone());
    (output, task, shutdown)
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_gets_one_line_an_event() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (output, task, shutdown) = start_stdout(writer);
    let mut sent = message_of(event("{\n  \"EventType\": \"T\",\r\n  \"Text\": \"a\\nb\", \"N\": 1.0\n}"));
    sent.redelivered = true;
    assert_eq!(publish(&output, &sent, false).await, PublishOutcome::Acked);
    let other = message_of(event("17"));
    assert_eq!(publish(&output, &other, true).await, PublishOutcome::Acked);
    shutdown.cancel();
    timeout(LIMIT, task).await.unwrap().unwrap().unwrap();
    assert_eq!(publish(&output, &other, false).await, PublishOutcome::Unsent);

    // The writer's end is closed by now, so that this ends.
    let mut lines = String::new();
    let mut reader = reader;
    tokio::task::spawn_blocking(move || reader.read_to_string(&mut lines).map(|_| lines))
        .await
        .unwrap()
        .map(|lines| {
            let headers = |redelivered: bool, fingerprint: &dyn std::fmt::Display| {
                format!(
                    r#"{{"x-vod-sub-app-id":7,"x-vod-fingerprint":"{fingerprint}","x-vod-occurrence":1,"x-vod-redelivered":{redelivered},"x-vod-pulled-at":1767225600123,"x-vod-request-id":"r-1"}}"#
                )
            };
            let expected = format!(
                "{{\"message_id\":\"{}\",\"routing_key\":\"vod.7.T\",\"headers\":{},\"event\":{{   \"EventType\": \"T\",    \"Text\": \"a\\nb\", \"N\": 1.0 }}}}\n\
                 {{\"message_id\":\"{}\",\"routing_key\":\"vod.7.unknown\",\"headers\":{},\"event\":17}}\n",
                sent.message_id,
                headers(true, &sent.event.fingerprint),
                other.message_id,
                headers(false, &other.event.fingerprint),
            );
            assert_eq!(lines, expected);
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_gone_ends_the_output() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (output, task, _shutdown) = start_stdout(writer);
    drop(reader);
    let outcome = publish(&output, &message("T"), false).await;
    assert!(is_unknown(&outcome, false), "{outcome:?}");
    let error = timeout(LIMIT, task).await.unwrap().unwrap().unwrap_err();
    let Error::StandardOutput(source) = &error;
    assert_eq!(source.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(
        matches!(&*output.state().borrow(), OutputState::Down(problem) if problem.message.contains("roken pipe"))
    );
    assert_eq!(publish(&output, &message("T"), false).await, PublishOutcome::Unsent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_blocks_the_output_and_loses_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (output, task, shutdown) = start_stdout(writer);
    // More than any pipe holds.
    let messages: Vec<Outgoing> = (0..5_000).map(|_| message("T")).collect();
    let publishing = join_all(messages.iter().map(|message| publish(&output, message, false)));
    let reading = async {
        let mut state = output.state();
        let blocked = state.wait_for(|state| matches!(state, OutputState::Blocked(_)));
        timeout(LIMIT, blocked).await.expect("the output did not become blocked").unwrap();
        let count = messages.len();
        let read = move || BufReader::new(reader).lines().take(count).map(Result::unwrap).collect::<Vec<_>>();
        let lines = tokio::task::spawn_blocking(read).await.unwrap();
        timeout(LIMIT, state.wait_for(|state| *state == OutputState::Up)).await.unwrap().unwrap();
        lines
    };
    let (outcomes, lines) = tokio::join!(publishing, reading);
    assert!(outcomes.iter().all(|outcome| *outcome == PublishOutcome::Acked));
    let ids: HashSet<&str> = messages.iter().map(|message| message.message_id.as_str()).collect();
    assert!(lines.iter().all(|line| ids.contains(&line[15..47])));
    assert_eq!(lines.iter().collect::<HashSet<_>>().len(), messages.len());
    shutdown.cancel();
    timeout(LIMIT, task).await.unwrap().unwrap().unwrap();
}
