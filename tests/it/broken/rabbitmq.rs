//! RabbitMQ restarts, alarms, and what an operator can do to a relay at work.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use tokio::time::timeout;
use vodrelay::app::Running;
use vodrelay::output::amqp::Topology;
use vodrelay_core::outcome::OutputState;
use vodrelay_testkit::broker::{Broker, LIMIT, USER_PASSWORD, shared};
use vodrelay_testkit::world::{World, drained, settled};

use super::{accounted, in_time, pulls_rest, put_events, told};

async fn confirmed(world: &World, count: u64) {
    world.until("events are confirmed", |state| state.counts(0).confirmed >= count).await;
}

async fn idle(world: &World, running: &Running) {
    world.until_confirmed().await;
    told(running, "idle").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_again_and_again_in_the_middle_of_batches_loses_nothing() {
    let broker = Broker::start().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = settled(&broker, &world).await;
    for round in 0..3 {
        put_events(&world, round * 200..(round + 1) * 200);
        confirmed(&world, round * 200 + 40).await;
        broker.kill().await;
        told(&running, "output down").await;
        broker.start_again().await;
    }
    world.until_confirmed().await;
    drained(running).await;
    accounted(&world, &broker.drain(&world.queue, 600).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_alarm_stops_pulling_and_nothing_is_published_twice() {
    let broker = Broker::start().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = settled(&broker, &world).await;
    put_events(&world, 0..10);
    world.until_confirmed().await;
    broker.ctl(&["set_disk_free_limit", "1000000GB"]).await;
    put_events(&world, 10..60);
    told(&running, "output blocked: RabbitMQ refuses publishes for now: low on disk").await;
    pulls_rest(&world).await;
    broker.ctl(&["set_disk_free_limit", "1MB"]).await;
    world.until_confirmed().await;
    let snapshot = drained(running).await;
    assert_eq!(snapshot.publishes.get("unknown"), None);
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 60).await), 0, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_at_work_is_declared_again_and_no_event_is_parked_for_it() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    // One return may happen before the queue is back, and the next publish must find it.
    world.set("RELAY__PUBLISH_ATTEMPTS", "2");
    let running = settled(broker, &world).await;
    put_events(&world, 0..300);
    confirmed(&world, 40).await;
    let (connection, channel) = broker.channel().await;
    // What is in it goes with it: that is the operator's wish.
    let delete = QueueDeleteOptions::default();
    channel.queue_delete(world.queue.as_str().into(), delete).await.unwrap();
    // What is put from now on must get through.
    put_events(&world, 300..500);
    idle(&world, &running).await;
    let messages = broker.drain(&world.queue, 200).await;
    let bodies: Vec<_> = messages.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect();
    let ledger = world.emulator.ledger(0);
    for event in &ledger.events[300..] {
        let said = event.json.strip_prefix('{').unwrap();
        let times = bodies.iter().filter(|body| body.ends_with(said)).count();
        assert!(times >= 1, "lost: {}", event.json);
    }
    // And once more, idle: nothing but the first return tells that it is gone.
    channel.queue_delete(world.queue.as_str().into(), delete).await.unwrap();
    put_events(&world, 500..600);
    world.until_confirmed().await;
    let snapshot = drained(running).await;
    assert!(snapshot.publishes["returned"] >= 1, "{snapshot:?}");
    let messages = broker.drain(&world.queue, 100).await;
    assert_eq!(messages.len(), 100, "each once: a return is no doubt");
    in_time(&world);
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE state = 'parked'"), 0);
    assert_eq!(world.figure("SELECT count(*) FROM event_log WHERE published_at IS NOT NULL"), 600);
    drop((connection, channel));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_deleted_at_work_is_declared_again_with_its_binding() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let running = settled(broker, &world).await;
    let (connection, channel) = broker.channel().await;
    for round in 0..3 {
        put_events(&world, round * 100..(round + 1) * 100);
        confirmed(&world, round * 100 + 20).await;
        let delete = ExchangeDeleteOptions::default();
        channel.exchange_delete(world.queue.as_str().into(), delete).await.unwrap();
    }
    world.until_confirmed().await;
    drained(running).await;
    accounted(&world, &broker.drain(&world.queue, 300).await);
    drop((connection, channel));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_revoked_stops_pulling_until_it_is_granted_again() {
    let broker = shared().await;
    let user = broker.user().await;
    let world = World::new(&user.url, &[0]).await;
    let running = settled(broker, &world).await;
    put_events(&world, 0..50);
    confirmed(&world, 10).await;
    broker.ctl(&["set_permissions", &user.name, ".*", "", ".*"]).await;
    // RabbitMQ asks again only on a new channel.
    broker.ctl(&["close_all_user_connections", &user.name, "revoked"]).await;
    put_events(&world, 50..100);
    told(&running, "output down").await;
    told(&running, "; grant ").await;
    pulls_rest(&world).await;
    broker.ctl(&["set_permissions", &user.name, ".*", ".*", ".*"]).await;
    world.until_confirmed().await;
    drained(running).await;
    accounted(&world, &broker.drain(&world.queue, 100).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_to_publish_that_is_missing_parks_nothing_and_is_told() {
    let broker = shared().await;
    let user = broker.user().await;
    let mut world = World::new(&user.url, &[0]).await;
    // The topology is made, and then only looked at, which needs no right to write.
    drained(settled(broker, &world).await).await;
    world.config.amqp.topology = Topology::Verify;
    world.config.relay.publish_attempts = 1;
    world.config.relay.max_in_flight = 32;
    broker.ctl(&["set_permissions", &user.name, ".*", "", ".*"]).await;
    put_events(&world, 0..100);
    let running = world.start().await;
    told(&running, "problem; ").await;
    told(&running, "RabbitMQ refuses publishes (403): ACCESS_REFUSED").await;
    // Once what may be in flight is in flight: the cloud keeps what does not fit.
    world.until("it is full", |state| state.counts(0).deliveries >= 32).await;
    pulls_rest(&world).await;
    let load = running.watch().snapshot().load;
    assert!(load.events <= 32, "{load:?}");
    broker.ctl(&["set_permissions", &user.name, ".*", ".*", ".*"]).await;
    idle(&world, &running).await;
    drained(running).await;
    accounted(&world, &broker.drain(&world.queue, 100).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_is_deleted_or_has_another_password_is_told_and_waited_for() {
    let broker = shared().await;
    let user = broker.user().await;
    let world = World::new(&user.url, &[0]).await;
    let running = settled(broker, &world).await;
    put_events(&world, 0..50);
    confirmed(&world, 10).await;
    broker.ctl(&["delete_user", &user.name]).await;
    put_events(&world, 50..100);
    told(&running, &format!("refused the user {:?} (from amqp.urls)", user.name)).await;
    pulls_rest(&world).await;
    broker.make(&user).await;
    idle(&world, &running).await;

    broker.ctl(&["change_password", &user.name, "another"]).await;
    broker.ctl(&["close_all_user_connections", &user.name, "log in again"]).await;
    put_events(&world, 100..150);
    told(&running, &format!("refused the user {:?} (from amqp.urls)", user.name)).await;
    assert!(!running.watch().status().contains(USER_PASSWORD), "{}", running.watch().status());
    pulls_rest(&world).await;
    broker.ctl(&["change_password", &user.name, USER_PASSWORD]).await;
    world.until_confirmed().await;
    drained(running).await;
    accounted(&world, &broker.drain(&world.queue, 150).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_an_operator_closes_are_made_anew() {
    let broker = shared().await;
    let user = broker.user().await;
    let world = World::new(&user.url, &[0]).await;
    let running = settled(broker, &world).await;
    for round in 0..3 {
        put_events(&world, round * 100..(round + 1) * 100);
        confirmed(&world, round * 100 + 20).await;
        let mut state = running.watch().output_state();
        let closed = state.wait_for(
            |state| matches!(state, OutputState::Down(why) if why.message.contains("CONNECTION_FORCED - maintenance")),
        );
        let close = async {
            // A connection that is only just made may not be on RabbitMQ's list yet.
            loop {
                broker.ctl(&["close_all_user_connections", &user.name, "maintenance"]).await;
            }
        };
        tokio::select! {
            closed = timeout(LIMIT, closed) => drop(closed.expect("the reason is told").unwrap()),
            () = close => {}
        }
    }
    world.until_confirmed().await;
    drained(running).await;
    accounted(&world, &broker.drain(&world.queue, 300).await);
}
