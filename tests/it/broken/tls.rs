//! HTTPS to the cloud with certificates that are not right, and the program itself, whose environment names the authority.

use std::collections::BTreeMap;
use std::sync::Once;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tencent_vod_emulator::Action;
use vodrelay_testkit::world::World;

use super::gate::Gate;
use super::program::{Program, relay};
use super::put_events;

/// An authority that the program trusts, in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(tencent_vod::install_crypto_provider);
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "vodrelay's tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// What a server shows whose certificate this authority signed.
    fn signed(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> rustls::ServerConfig {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server(certificate.der().clone(), &key)
    }
}

fn self_signed(name: &str) -> rustls::ServerConfig {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    server(made.cert.der().clone(), &made.signing_key)
}

fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> rustls::ServerConfig {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap()
}

/// Nothing reaches the cloud while it shows `wrong`, which is told with `words`; with the right certificate all goes on.
async fn refused_until_it_is_right(wrong: impl FnOnce(&Authority) -> rustls::ServerConfig, words: &str) {
    let authority = Authority::new();
    let mut world = World::new("amqp://127.0.0.1:1", &[0]).await;
    let front = Gate::with_tls(world.emulator.addr(), wrong(&authority));
    world.set("VOD__ENDPOINT", &front.https());
    world.set("OUTPUT__KIND", "stdout");
    put_events(&world, 0..20);
    let mut environment: BTreeMap<String, String> = world.environment();
    let trusted = authority.folder.path().join("ca.pem");
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

    front.show(authority.signed("127.0.0.1", |_| {}));
    world.until_confirmed().await;
    program.logs("requests succeed again").await;
    let printed = program.output();
    program.drained().await;
    assert_eq!(printed.len(), 20, "{printed:#?}");
    assert!(world.figure("SELECT count(*) FROM event_log WHERE published_at IS NOT NULL") == 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_name_is_refused_until_it_is_right() {
    let wrong = |authority: &Authority| authority.signed("vod.example", |_| {});
    refused_until_it_is_right(wrong, "not valid for name").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_expired_is_refused_until_it_is_right() {
    let wrong = |authority: &Authority| {
        authority.signed("127.0.0.1", |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    };
    refused_until_it_is_right(wrong, "expired").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_signed_is_refused_until_it_is_right() {
    let wrong = |_: &Authority| self_signed("127.0.0.1");
    refused_until_it_is_right(wrong, "UnknownIssuer").await;
}
