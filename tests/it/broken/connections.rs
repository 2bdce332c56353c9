//! Connections to the relay's HTTP listener that say half a request, while events are on their way.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vodrelay_testkit::broker;
use vodrelay_testkit::world::World;

use super::program::{Program, relay};
use super::{accounted, put_events};

/// How many are opened, one after the other.
const MANY: usize = 10_000;
/// So many are opened between two events.
const BETWEEN_EVENTS: usize = 20;

/// Opens all of them, and puts an event now and then. Those that this process may not hold at once are closed before.
fn open_all(address: SocketAddr, world: &World, at_once: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for number in 0..MANY {
        if held.len() == at_once {
            held.clear();
        }
        let mut stream = TcpStream::connect(address).unwrap();
        // It may have been closed already, to make room for the next ones.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Half: ");
        held.push(stream);
        if number % BETWEEN_EVENTS == 0 {
            let event = u64::try_from(number / BETWEEN_EVENTS).unwrap();
            put_events(world, event..event + 1);
        }
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_half_requests_make_no_confirm_late() {
    const EVENTS: usize = MANY.div_ceil(BETWEEN_EVENTS);
    let broker = broker::shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    // The window of the cloud: an event whose confirm is held up for longer comes again.
    world.set("VOD__WINDOW", "30s");
    world.set("RELAY__LEASE_MARGIN", "3s");
    world.emulator.change_settings(|settings| settings.queue.window_ms = 30_000);
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.set("HTTP__LISTEN", &address.to_string());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let at_once = limit.maximum.map_or(MANY, |most| MANY.min(usize::try_from(most).unwrap() / 2));
    let program = Program::start(relay(world.environment()));
    program.tells("READY=1").await;
    let held = tokio::task::block_in_place(|| open_all(address, &world, at_once));
    world.until_confirmed().await;
    let ledger = world.emulator.ledger(None);
    let again: Vec<_> = ledger.events.iter().filter(|event| event.deliveries.len() > 1).collect();
    assert!(again.is_empty(), "not confirmed in their first window: {again:#?}");
    program.drained().await;
    drop(held);
    let messages = broker.drain(&world.queue, EVENTS).await;
    assert_eq!(messages.len(), EVENTS);
    assert_eq!(accounted(&world, &messages), 0);
}
