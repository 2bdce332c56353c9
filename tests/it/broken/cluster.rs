//! Three nodes, of which the leader goes.

use std::time::Duration;

use tokio::time::timeout;
use vodrelay_testkit::broker::{Broker, LIMIT, Setup};
use vodrelay_testkit::world::{World, drained, settled};

use super::{accounted, put_events};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_the_leader_of_the_queue_goes_on_through_another_node() {
    let first = Broker::start().await;
    let setup = || Setup { cluster: Some(first.cluster()), ..Setup::default() };
    let (second, third) = tokio::join!(Broker::start_with(setup()), Broker::start_with(setup()));
    let nodes = [&first, &second, &third];
    let urls: Vec<String> = nodes.iter().map(|node| node.url()).collect();
    let world = World::new(&urls.join(","), &[0]).await;
    let running = settled(&first, &world).await;
    for node in [&second, &third] {
        node.settle().await;
    }
    // One replica on each node, so that an ack means two disks at least.
    let leader = async {
        loop {
            let rows = second.ctl(&["list_queues", "--no-table-headers", "name", "leader", "online"]).await;
            let row = rows.lines().find(|row| row.starts_with(&world.queue)).unwrap_or_default().to_owned();
            if nodes.iter().all(|node| row.matches(node.name()).count() >= 1) {
                break row.split('\t').nth(1).unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let leader = timeout(LIMIT, leader).await.expect("the queue has a replica on each node");
    let (lost, left): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node.name() == leader);
    put_events(&world, 0..300);
    world.until("some went through", |state| state.counts(0).confirmed >= 50).await;
    lost[0].kill().await;
    put_events(&world, 300..400);
    world.until_confirmed().await;
    drained(running).await;
    accounted(&world, &left[0].drain(&world.queue, 400).await);
}
