//! Credentials that expire, are rotated and are revoked while events flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tencent_vod::{CredentialSource, Environment, Places};
use tencent_vod_emulator::Credential;
use tencentcloud_signing::Secret;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vodrelay::app::Running;
use vodrelay::clock::Now as _;
use vodrelay_core::clock::WallTime;
use vodrelay_testkit::broker::{LIMIT, shared};
use vodrelay_testkit::world::{World, drained};

use super::{accounted, put_events, told};

/// The n-th pair of the instance's role.
fn temporary(n: usize) -> Credential {
    let token = Some(Secret::new(format!("token{n}")));
    Credential { token, ..Credential::new(format!("AKIDtemporary{n}"), format!("key{n}")) }
}

/// A metadata service that hands out the pair of the moment, and what counts how often it was asked for one.
async fn metadata(newest: Arc<AtomicUsize>, ended: CancellationToken) -> (url::Url, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let pair = move || {
        let (n, counted) = (newest.load(Ordering::SeqCst), counted.clone());
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            // Less than the five minutes ahead in which the relay looks for newer ones.
            let expires_at = WallTime::now().0 / 1_000 + 60;
            format!(
                r#"{{"TmpSecretId":"AKIDtemporary{n}","TmpSecretKey":"key{n}","Token":"token{n}","ExpiredTime":{expires_at},"Code":"Success"}}"#
            )
        }
    };
    let routes = Router::new().route("/roles/", get(async || "relay\n")).route("/roles/relay", get(pair));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/roles/", listener.local_addr().unwrap()).parse().unwrap();
    let server = axum::serve(listener, routes).with_graceful_shutdown(ended.cancelled_owned());
    tokio::spawn(async move { server.await.unwrap() });
    (url, reads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_credentials_that_change_every_second_lose_no_event() {
    const PAIRS: usize = 6;
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let (newest, ended) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let _ended = ended.clone().drop_guard();
    let (url, reads) = metadata(newest.clone(), ended).await;
    world.emulator.set_credentials(vec![temporary(0)]);
    let places = Places {
        metadata: url,
        environment: Environment::fixed([("HOME", "/nonexistent")]),
        ..Places::new(CredentialSource::CvmRole)
    };
    let running = Running::start(&world.config, places).await.unwrap();
    let mut turn = tokio::time::interval(Duration::from_secs(1));
    for n in 1..=PAIRS {
        let first = u64::try_from(n).unwrap() * 100;
        put_events(&world, first..first + 100);
        // In the middle of the batches of this second.
        turn.tick().await;
        newest.store(n, Ordering::SeqCst);
        world.emulator.set_credentials(vec![temporary(n)]);
    }
    world.until_confirmed().await;
    world.until_journal_agrees().await;
    let snapshot = drained(running).await;
    assert_eq!(snapshot.let_go, 0, "no lease is lost over a new pair: {snapshot:?}");
    assert_eq!(accounted(&world, &broker.drain(&world.queue, PAIRS * 100).await), 0, "each once");
    // Each pair is read when the one before is refused, and at most once more when a look ahead met the change.
    let reads = reads.load(Ordering::SeqCst);
    assert!((PAIRS..=3 * (PAIRS + 1)).contains(&reads), "{reads} reads for {PAIRS} changes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_replaced_in_its_file_is_taken_up_and_a_revoked_one_is_told() {
    let broker = shared().await;
    let world = World::new(&broker.url(), &[0]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let write = |pair: &Credential| {
        let (id, key) = (&pair.secret_id, pair.secret_key.expose());
        let new = folder.path().join("new");
        std::fs::write(&new, format!("[default]\nsecret_id = {id}\nsecret_key = {key}\n")).unwrap();
        // As a whole, the way that tools replace such files.
        std::fs::rename(new, &file).unwrap();
    };
    write(&world.emulator.credential());
    let variable = ("TENCENTCLOUD_CREDENTIALS_FILE", file.to_str().unwrap());
    let places =
        Places { environment: Environment::fixed([variable]), ..Places::new(CredentialSource::File) };
    let running = Running::start(&world.config, places).await.unwrap();
    put_events(&world, 0..100);
    world.until("some went through", |state| state.counts(0).confirmed >= 20).await;
    // First the new key, then the end of the old one: nothing is to be seen of it.
    let second = Credential::throw_away();
    world.emulator.set_credentials(vec![world.emulator.credential(), second.clone()]);
    write(&second);
    world.emulator.set_credentials(vec![second]);
    put_events(&world, 100..200);
    world.until_confirmed().await;
    assert_eq!(running.watch().snapshot().let_go, 0);

    // The other way round: the old one ends, and the new one is in the file only later.
    let third = Credential::throw_away();
    world.emulator.set_credentials(vec![third.clone()]);
    put_events(&world, 200..300);
    told(&running, "PullEvents failed (AuthFailure").await;
    told(&running, "check that secret id, secret key and token belong together").await;
    write(&third);
    timeout(LIMIT, world.until_confirmed()).await.expect("the new key is found");
    told(&running, "idle").await;
    drained(running).await;
    assert_eq!(accounted(&world, &broker.drain(&world.queue, 300).await), 0, "each once");
}
