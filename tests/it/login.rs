//! What a broker that refuses is understood to say: limits, ways to log in, and ports that speak something else.

use std::io::{Read, Write};
use std::net::TcpListener;

use tencentcloud_signing::Secret;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vodrelay::output::amqp::{self, Address, Options, ProbeStep, TlsFiles};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::OutputState;
use vodrelay_testkit::authority::Authority;
use vodrelay_testkit::broker::{self, Broker, LIMIT, Setup, TlsListener, USER_PASSWORD, unique};

fn options(port: u16, user: &str, vhost: &str) -> Options {
    let mut options = Options::new(vec![Address {
        tls: false,
        host: "127.0.0.1".to_owned(),
        port,
        vhost: vhost.to_owned(),
        username: Some(user.to_owned()),
        password: Some(Secret::new(USER_PASSWORD)),
    }]);
    options.exchange = unique("exchange");
    options.queue = unique("queue");
    options
}

/// The first thing that a probe finds wrong.
async fn wrong(options: &Options) -> ProbeStep {
    let steps = timeout(LIMIT, amqp::probe(options)).await.expect("a probe is bounded");
    steps.iter().find(|step| !step.ok).unwrap_or_else(|| panic!("all is well: {steps:#?}")).clone()
}

/// What the output says when it is down with these words.
async fn down(options: &Options, words: &str) -> String {
    let shutdown = CancellationToken::new();
    let (output, task) = amqp::spawn(options.clone(), shutdown.clone());
    let mut state = output.state();
    let fits =
        |state: &OutputState| matches!(state, OutputState::Down(problem) if problem.message.contains(words));
    let seen = timeout(LIMIT, state.wait_for(fits)).await;
    let text = match seen {
        Ok(seen) => format!("{:?}", *seen.unwrap()),
        Err(_) => panic!("{words:?} is not in {:?}", *output.state().borrow()),
    };
    shutdown.cancel();
    timeout(LIMIT, task).await.unwrap().unwrap().unwrap();
    text
}

async fn user_of(broker: &Broker, vhost: &str) -> String {
    let user = broker.user().await.name;
    broker.ctl(&["set_permissions", "-p", vhost, &user, ".*", ".*", ".*"]).await;
    user
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_told_as_one_and_may_pass() {
    let broker = broker::shared().await;
    let vhost = unique("limited");
    broker.ctl(&["add_vhost", &vhost]).await;

    let user = user_of(broker, &vhost).await;
    broker.ctl(&["set_user_limits", &user, r#"{"max-connections":0}"#]).await;
    let step = wrong(&options(broker.port(), &user, &vhost)).await;
    assert!(
        step.passing && step.text.contains("is at a limit: ") && step.text.contains("connection limit"),
        "{step:?}"
    );
    assert!(!step.text.contains("virtual host: ") && step.text.contains("set_user_limits"), "{step:?}");

    let user = user_of(broker, &vhost).await;
    broker.ctl(&["set_user_limits", &user, r#"{"max-channels":0}"#]).await;
    let text = down(&options(broker.port(), &user, &vhost), "limit").await;
    assert!(text.contains("no more channels: ") && text.contains("set_user_limits"), "{text}");
    // The refusal ends the connection: what would be asked next is not told as a trouble of its own.
    let step = wrong(&options(broker.port(), &user, &vhost)).await;
    assert!(step.passing && step.text.contains("no more channels: "), "{step:?}");
    let steps = amqp::probe(&options(broker.port(), &user, &vhost)).await;
    assert_eq!(steps.len(), 2, "the login and the refusal: {steps:?}");

    let user = user_of(broker, &vhost).await;
    broker.ctl(&["set_vhost_limits", "-p", &vhost, r#"{"max-queues":0}"#]).await;
    let text = down(&options(broker.port(), &user, &vhost), "limit").await;
    assert!(text.contains("cannot be declared: ") && text.contains("set_vhost_limits"), "{text}");
    assert!(!text.contains("delete") && !text.contains("properties"), "{text}");

    broker.ctl(&["set_vhost_limits", "-p", &vhost, r#"{"max-connections":0}"#]).await;
    let step = wrong(&options(broker.port(), &user, &vhost)).await;
    assert!(step.passing && step.text.contains("is at a limit: "), "{step:?}");
    broker.ctl(&["delete_vhost", &vhost]).await;

    let step = wrong(&options(broker.port(), &user, &vhost)).await;
    assert!(!step.passing && step.text.contains("refused the virtual host"), "{step:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_a_login_and_what_is_offered_is_named() {
    let authority = Authority::new();
    let (certificate, server_key) = authority.signed("localhost");
    let (client_certificate, client_key) = authority.signed("relay-by-certificate");
    let tls = TlsListener { ca: authority.pem(), certificate, key: server_key, client_certificate: true };
    let config =
        "auth_mechanisms.1 = EXTERNAL\nauth_mechanisms.2 = PLAIN\nssl_cert_login_from = common_name\n";
    let plugins = vec!["rabbitmq_auth_mechanism_ssl"];
    let broker =
        Broker::start_with(Setup { config: config.to_owned(), tls: Some(tls), plugins, ..Setup::default() })
            .await;

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        std::fs::write(folder.path().join(name), pem).unwrap();
        Some(folder.path().join(name))
    };
    let mut options = options(broker.tls_port(), "nobody", "/");
    options.urls[0] = Address {
        tls: true,
        host: "localhost".to_owned(),
        username: None,
        password: None,
        ..options.urls[0].clone()
    };
    options.auth = amqp::Auth::External;
    options.tls = TlsFiles {
        ca_file: file("ca.pem", &authority.pem()),
        client_cert_file: file("client.pem", &client_certificate),
        client_key_file: file("client.key", &client_key),
    };
    // The certificate is good, and its user is not there.
    let step = wrong(&options).await;
    assert!(
        !step.passing
            && step.text.contains("refused the user of the client's certificate")
            && step.text.contains("ssl_cert_login_from"),
        "{step:?}"
    );
    broker.ctl(&["add_user", "relay-by-certificate", "unused"]).await;
    broker.ctl(&["set_permissions", "relay-by-certificate", ".*", ".*", ".*"]).await;
    let steps = timeout(LIMIT, amqp::probe(&options)).await.unwrap();
    assert!(steps.iter().all(|step| step.ok), "{steps:#?}");

    let offer = async |names: &str| {
        broker.ctl(&["eval", &format!("application:set_env(rabbit, auth_mechanisms, [{names}]).")]).await;
    };
    let mut by_password = options.clone();
    by_password.auth = amqp::Auth::Password;
    offer("'EXTERNAL'").await;
    let step = wrong(&by_password).await;
    assert!(step.text.contains("offers the login by EXTERNAL, and not by PLAIN"), "{step:?}");
    assert!(
        !step.passing
            && step.text.contains("amqp.auth = \"external\"")
            && !step.text.contains("write amqps://"),
        "{step:?}"
    );
    offer("'PLAIN', 'AMQPLAIN'").await;
    let step = wrong(&options).await;
    assert!(
        step.text.contains("and not by EXTERNAL; enable the plugin rabbitmq_auth_mechanism_ssl"),
        "{step:?}"
    );

    offer("'PLAIN'").await;
    broker.ctl(&["eval", "application:set_env(rabbit, frame_max, 4096)."]).await;
    let mut guest = self::options(broker.port(), "guest", "/");
    guest.urls[0].password = Some(Secret::new("guest"));
    let step = wrong(&guest).await;
    assert!(
        !step.passing && step.text.contains("it takes 4096 bytes at most; set frame_max to 8192 or more"),
        "{step:?}"
    );
}

/// A server that answers whatever it is told with this, and closes.
fn answering(words: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(words).unwrap();
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_speaks_something_else_is_named_for_what_it_speaks() {
    for (words, expected) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
            "an HTTP server answers there; AMQP is at 5672",
        ),
        (b"AMQP\x03\x01\x00\x00", "it asks for AMQP 1.0"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS; write amqps://"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "its answer begins with \"SSH-2.0-OpenSSH_9.2\""),
    ] {
        let step = wrong(&options(answering(words), "guest", "/")).await;
        assert!(!step.passing && step.text.contains(expected), "{expected}: {step:?}");
    }
}

/// RabbitMQ ends the connection without a word, which looks like a trouble of the network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_too_long_is_told_as_one() {
    let broker = broker::shared().await;
    let with_password_of = |bytes: usize| {
        let mut options = options(broker.port(), "guest", "/");
        options.password = Some(Secret::new("x".repeat(bytes)));
        options
    };
    for bytes in [4_000, 5_000, 70_000] {
        let step = wrong(&with_password_of(bytes)).await;
        assert!(!step.passing && step.error_code == Some(ErrorCode::BrokerLogin), "{step:?}");
        let words = format!("the user's name and the password have {} bytes together", bytes + "guest".len());
        assert!(step.text.contains(&words) && step.text.contains("initial_frame_max"), "{step:?}");
        assert!(!step.text.contains("amqps://") && !step.text.contains("xxx"), "{step:?}");
    }
    down(&with_password_of(5_000), "choose a shorter password").await;
    let step = wrong(&with_password_of(3_400)).await;
    assert!(step.text.contains("refused the user \"guest\""), "it is taken, and wrong: {step:?}");
}
