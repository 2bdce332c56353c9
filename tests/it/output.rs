//! The outputs, against a real RabbitMQ and a real pipe.

use crate::broker;

#[tokio::test(flavor = "multi_thread")]
async fn harness() {
    let t = std::time::Instant::now();
    let b = broker::Broker::start().await;
    eprintln!("{:?}", t.elapsed());
    eprintln!("{}", b.ctl(&["eval", "ra_system:fetch(quorum_queues)."]).await);
    eprintln!("{:?}", t.elapsed());
    b.settle().await;
    b.kill().await;
    b.start_again().await;
    eprintln!("{:?}", t.elapsed());
    drop(b);
    eprintln!("{:?}", t.elapsed());
}
