//! HTTPS to the cloud with certificates that are not right, and the program itself, whose environment names the authority.

use std::collections::BTreeMap;

use tencent_vod_emulator::Action;
use vodrelay_testkit::authority::{Authority, self_signed, server};
use vodrelay_testkit::world::World;

use super::gate::Gate;
use super::program::{Program, relay};
use super::put_events;

/// Nothing reaches the cloud while it shows `wrong`, which is told with `words`; with the right certificate all goes on.
async fn refused_until_it_is_right(wrong: impl FnOnce(&Authority) -> (String, String), words: &str) {
    let authority = Authority::new();
    let mut world = World::new("amqp://127.0.0.1:1", &[0]).await;
    let front = Gate::with_tls(world.emulator.addr(), server(wrong(&authority)));
    world.set("VOD__ENDPOINT", &front.https());
    world.set("OUTPUT__KIND", "stdout");
    put_events(&world, 0..20);
    let mut environment: BTreeMap<String, String> = world.environment();
    let trusted = world.folder().join("ca.pem");
    std::fs::write(&trusted, authority.pem()).unwrap();
    environment.insert("SSL_CERT_FILE".to_owned(), trusted.to_str().unwrap().to_owned());
    let program = Program::start(relay(environment));
    program.logs("requests fail, and are repeated").await;
    let log = program.log();
    assert!(log.contains("PullEvents failed (tls)") && log.contains("configuration"), "{log}");
    assert!(log.contains(words), "{words:?} is not in {log}");
    assert!(log.contains("check the endpoint's name, the host's clock and its certificate store"), "{log}");
    program.tells("PullEvents failed (tls)").await;
    assert_eq!(world.emulator.stats().calls(Action::PullEvents), 0, "nothing leaves");
    // The first failure is told, and what follows it is not.
    assert!(front.refused() >= 1);
    assert_eq!(program.log().matches("requests fail").count(), 1, "{}", program.log());

    front.show(server(authority.signed("127.0.0.1")));
    world.until_confirmed().await;
    program.logs("requests succeed again").await;
    let printed = program.output();
    program.drained().await;
    assert_eq!(printed.len(), 20, "{printed:#?}");
    assert!(world.figure("SELECT count(*) FROM event_log WHERE published_at IS NOT NULL") == 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_name_is_refused_until_it_is_right() {
    let wrong = |authority: &Authority| authority.signed("vod.example");
    refused_until_it_is_right(wrong, "not valid for name").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_expired_is_refused_until_it_is_right() {
    let wrong = |authority: &Authority| authority.expired("127.0.0.1");
    refused_until_it_is_right(wrong, "expired").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_signed_is_refused_until_it_is_right() {
    let wrong = |_: &Authority| self_signed("127.0.0.1");
    refused_until_it_is_right(wrong, "UnknownIssuer").await;
}
