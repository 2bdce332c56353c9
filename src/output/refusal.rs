//! Why there is no connection to a broker: the cause, and the next step.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lapin::ErrorKind;
use rustls::{AlertDescription, CertificateError};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_host::descriptors;

use super::amqp::{Address, Options};
use super::dial::Unreachable;
use super::greeting::{Greeting, Speaker};
use super::tls::TlsError;
use super::topology::TopologyError;

/// RabbitMQ itself needs frames of this size since 4.1.
const LEAST_FRAME: u32 = 8192;

/// RabbitMQ takes no frame larger than 4096 bytes before the login (`initial_frame_max`), and ends the
/// connection without a message. The rest of the frame is some hundred bytes about this client.
const LONG_LOGIN_BYTES: usize = 3_500;

/// Why there is no connection. The caller repeats in any case. An operator reads the text.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to {address} ({cause}): {}", descriptors::NEXT_STEP)]
    Files { address: String, cause: String },
    #[error("cannot find the host of {address}: {source}; check its name in the URL")]
    NoHost { address: String, source: io::Error },
    #[error("cannot connect to {address}: {source}; check that RabbitMQ runs and listens there")]
    Unreachable { address: String, source: Unreachable },
    #[error("no TLS with {address}: {cause}; {hint}")]
    Tls { address: String, cause: String, hint: String },
    #[error("no TLS with {address}: {source}")]
    TlsSetup { address: String, source: Box<TlsError> },
    #[error("{address} did not finish the handshake within {limit:?}; {}", .hint.unwrap_or("check that RabbitMQ listens there"))]
    Silent { address: String, limit: Duration, hint: Option<&'static str> },
    #[error("{address} does not speak AMQP 0-9-1: {found}; {hint}")]
    NotAmqp { address: String, found: String, hint: &'static str },
    #[error("{address} offers the login by {offered}, and not by {wanted}; {hint}")]
    Mechanism { address: String, offered: String, wanted: &'static str, hint: &'static str },
    #[error("{address} refused {whom}: {text}; {hint}")]
    Login { address: String, whom: String, text: String, hint: &'static str },
    #[error(
        "{address} ended the connection at the login: the user's name and the password have {bytes} bytes together, and RabbitMQ takes \
         less than 4096 in one login; choose a shorter password, or raise initial_frame_max there"
    )]
    LongLogin { address: String, bytes: usize },
    #[error(
        "{address} is at a limit: {text}; raise it (rabbitmqctl set_user_limits, set_vhost_limits), or close unused connections"
    )]
    Limit { address: String, text: String },
    #[error(
        "{address} and this program do not agree on the size of frames: {text}; set frame_max to 8192 or more there"
    )]
    SmallFrames { address: String, text: String },
    #[error(
        "{address} refused the virtual host: {text}; create it, grant the user access to it, or correct the URL"
    )]
    VirtualHost { address: String, text: String },
    #[error("{address} ended the handshake: {cause}; {hint}")]
    Handshake { address: String, cause: String, hint: &'static str },
    #[error("{address}: {source}")]
    Topology { address: String, source: TopologyError },
    #[error("{}", each(.0))]
    Addresses(Vec<(SocketAddr, LinkError)>),
}

/// The result for each address of one host.
fn each(failures: &[(SocketAddr, LinkError)]) -> String {
    failures.iter().map(|(address, error)| format!("{address}: {error}")).collect::<Vec<_>>().join("; ")
}

impl LinkError {
    /// No answer in time.
    pub(super) fn silent(address: &Address, limit: Duration) -> Self {
        let hint = match address.port {
            15671 | 15672 => {
                Some("that port is usually RabbitMQ's management page: AMQP is at 5672, and at 5671 with TLS")
            }
            25672 | 4369 => Some(
                "that port is usually for traffic between RabbitMQ's nodes: AMQP is at 5672, and at 5671 with TLS",
            ),
            _ => None,
        };
        Self::Silent { address: address.to_string(), limit, hint }
    }

    /// No file could be opened, which says nothing about the broker.
    pub(super) fn out_of_files(address: &Address, error: &(dyn Error + 'static)) -> Option<Self> {
        let files = || Self::Files { address: address.to_string(), cause: error.to_string() };
        descriptors::is_missing(error).then(files)
    }

    /// The problem of a lasting failure.
    pub(super) fn error_code(&self) -> ErrorCode {
        match self {
            Self::Files { .. }
            | Self::NoHost { .. }
            | Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::NotAmqp { .. }
            | Self::SmallFrames { .. }
            | Self::Handshake { .. } => ErrorCode::BrokerUnreachable,
            Self::Tls { .. } | Self::TlsSetup { .. } => ErrorCode::BrokerTls,
            Self::Login { .. }
            | Self::LongLogin { .. }
            | Self::Limit { .. }
            | Self::Mechanism { .. }
            | Self::VirtualHost { .. } => ErrorCode::BrokerLogin,
            Self::Topology { source: TopologyError::ChannelLimit(_), .. } => ErrorCode::BrokerLogin,
            Self::Topology { .. } => ErrorCode::BrokerTopology,
            // The one that needs an operator.
            Self::Addresses(failures) => {
                let codes = failures.iter().map(|(_, error)| error.error_code());
                codes.max().unwrap_or(ErrorCode::BrokerUnreachable)
            }
        }
    }

    /// Whether a broker refused the login or the request, and not the connection.
    pub(super) fn is_verdict(&self) -> bool {
        match self {
            Self::TlsSetup { .. }
            | Self::Mechanism { .. }
            | Self::Login { .. }
            | Self::LongLogin { .. }
            | Self::Limit { .. }
            | Self::VirtualHost { .. }
            | Self::Topology { .. } => true,
            Self::Files { .. }
            | Self::NoHost { .. }
            | Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Silent { .. }
            | Self::NotAmqp { .. }
            | Self::SmallFrames { .. }
            | Self::Handshake { .. }
            | Self::Addresses(_) => false,
        }
    }
}

/// The broker's own words, without the library's names for them.
pub(super) fn words(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => refusal.get_message().as_str().trim_end_matches('.').to_owned(),
        _ => error.to_string(),
    }
}

/// Whether the broker refuses because of a limit for a user, a virtual host or a node.
pub(super) fn is_limit(text: &str) -> bool {
    // Not the word alone, which can be part of a name.
    text.ends_with("is reached") || text.contains("has reached the maximum allowed")
}

/// The answer of the broker or the network in place of "welcome".
pub(super) fn lost(
    address: &Address,
    options: &Options,
    error: &lapin::Error,
    heard: Option<&Greeting>,
) -> LinkError {
    if let Some(error) = heard.and_then(|greeting| unfit(address, options, greeting.speaker())) {
        return error;
    }
    let shown = address.to_string();
    if let Some(size) = heard.and_then(Greeting::frame_max).filter(|size| *size < LEAST_FRAME) {
        return LinkError::SmallFrames { address: shown, text: format!("it takes {size} bytes at most") };
    }
    let at_the_login = heard.is_some_and(|greeting| {
        matches!(greeting.speaker(), Speaker::Amqp { .. }) && !greeting.is_logged_in()
    });
    if let (ErrorKind::IOError(_), true, Some(bytes)) =
        (error.kind(), at_the_login, long_login(address, options))
    {
        return LinkError::LongLogin { address: shown, bytes };
    }
    let hint = match error.kind() {
        ErrorKind::IOError(_) | ErrorKind::ParsingError(_) if !address.tls => {
            "see its log, and write amqps:// if this port speaks TLS"
        }
        _ => "see its log",
    };
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => {
            let text = words(error);
            match refusal.get_id() {
                403 => wrong_login(address, options, text),
                402 | 530 if is_limit(&text) => LinkError::Limit { address: shown, text },
                _ if text.contains("frame_max") => LinkError::SmallFrames { address: shown, text },
                402 | 530 => LinkError::VirtualHost { address: shown, text },
                _ => LinkError::Handshake { address: shown, cause: text, hint },
            }
        }
        ErrorKind::IOError(source) if descriptors::is_missing(&**source) => {
            LinkError::Files { address: shown, cause: source.to_string() }
        }
        // With TLS 1.3 the broker's verdict on the client's certificate comes after the handshake.
        ErrorKind::IOError(source) if address.tls && tls_error(source).is_some() => {
            broken_tls(address, options, source)
        }
        _ => LinkError::Handshake { address: shown, cause: words(error), hint },
    }
}

/// Why this program cannot log in to the other side. `None` when it can.
fn unfit(address: &Address, options: &Options, speaker: Speaker) -> Option<LinkError> {
    let not_amqp = |found: String, hint| LinkError::NotAmqp { address: address.to_string(), found, hint };
    match speaker {
        Speaker::Http => Some(not_amqp(
            "an HTTP server answers there".to_owned(),
            "AMQP is at 5672, and at 5671 with TLS; 15672 is RabbitMQ's management page",
        )),
        Speaker::Tls => Some(not_amqp("it speaks TLS".to_owned(), "write amqps:// in the URL")),
        Speaker::OtherAmqp(version) => Some(not_amqp(
            format!("it asks for {version}"),
            "name a listener of RabbitMQ for AMQP 0-9-1, such as port 5672",
        )),
        Speaker::Unknown(beginning) => Some(not_amqp(
            format!("its answer begins with \"{beginning}\""),
            "check what listens there; AMQP is at 5672, and at 5671 with TLS",
        )),
        Speaker::Amqp { mechanisms: Some(offered) } => {
            let (wanted, hint) = if options.external() {
                (
                    "EXTERNAL",
                    "enable the plugin rabbitmq_auth_mechanism_ssl and set auth_mechanisms there, or set amqp.auth = \"password\"",
                )
            } else {
                (
                    "PLAIN",
                    "add it to auth_mechanisms there, or log in by a client certificate with amqp.auth = \"external\"",
                )
            };
            let (offered, hint) = match offered.as_str() {
                "" => (
                    "nothing on this port".to_owned(),
                    "EXTERNAL is offered over TLS only: begin the URL with amqps://",
                ),
                _ => (offered, hint),
            };
            let fits = offered.split_whitespace().any(|mechanism| mechanism == wanted);
            (!fits).then(|| LinkError::Mechanism { address: address.to_string(), offered, wanted, hint })
        }
        Speaker::Amqp { mechanisms: None } | Speaker::Nobody => None,
    }
}

/// The bytes of the name and the password, if they are more than RabbitMQ takes.
fn long_login(address: &Address, options: &Options) -> Option<usize> {
    let name = options.username.as_deref().or(address.username.as_deref()).unwrap_or_default();
    let password = options.password.as_ref().or(address.password.as_ref()).map_or(0, |it| it.expose().len());
    let bytes = name.len() + password;
    (!options.external() && bytes > LONG_LOGIN_BYTES).then_some(bytes)
}

/// The user of the login, and the source of name and password: several places can have them.
fn wrong_login(address: &Address, options: &Options, text: String) -> LinkError {
    let (whom, hint) = if options.external() {
        (
            "the user of the client's certificate".to_owned(),
            "see ssl_cert_login_from there for which name counts, and create that user",
        )
    } else {
        const DEFAULT: &str = "RabbitMQ's default";
        let (user, user_from) = match (&options.username, &address.username) {
            (Some(user), _) => (user.as_str(), "amqp.username"),
            (None, Some(user)) => (user.as_str(), "amqp.urls"),
            (None, None) => ("guest", DEFAULT),
        };
        let password_from = match (&options.password, &address.password) {
            (Some(_), _) => "VODRELAY_AMQP__PASSWORD, or else the credential amqp_password",
            (None, Some(_)) => "amqp.urls",
            (None, None) => DEFAULT,
        };
        (
            format!("the user {user:?} (from {user_from}) or the password (from {password_from})"),
            "correct them there, or see `rabbitmqctl list_users`",
        )
    };
    LinkError::Login { address: address.to_string(), whom, text, hint }
}

/// The TLS library's error inside an I/O error.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<rustls::Error>().or_else(|| inner.downcast_ref::<io::Error>().and_then(tls_error))
}

/// Why TLS fails, by the library's error about the broker's side.
pub(super) fn broken_tls(address: &Address, options: &Options, error: &io::Error) -> LinkError {
    let shown = address.to_string();
    let Some(tls) = tls_error(error) else {
        let hint = "see the broker's log for its side of the handshake".to_owned();
        return LinkError::Tls { address: shown, cause: error.to_string(), hint };
    };
    let certificate = || {
        format!(
            "openssl s_client -connect {host}:{port} </dev/null 2>/dev/null | openssl x509 -noout -text",
            host = address.host,
            port = address.port
        )
    };
    let (cause, hint) = match tls {
        rustls::Error::InvalidCertificate(wrong) => why_refused(wrong, certificate),
        rustls::Error::AlertReceived(alert) => {
            (format!("the broker says {alert:?}"), after_alert(*alert, options, certificate))
        }
        rustls::Error::PeerIncompatible(_) => (
            tls.to_string(),
            format!(
                "the broker must speak TLS 1.2 or 1.3, with a key of RSA, P-256, P-384 or Ed25519; `{}` shows its certificate",
                certificate()
            ),
        ),
        rustls::Error::InvalidMessage(_) => {
            (tls.to_string(), "check that this port speaks TLS (5671 usually does, 5672 does not)".to_owned())
        }
        _ => (tls.to_string(), "see the broker's log for its side of the handshake".to_owned()),
    };
    LinkError::Tls { address: shown, cause, hint }
}

/// The fault of a certificate. Three kinds have no name in rustls, only in the library below it.
fn why_refused(wrong: &CertificateError, show: impl Fn() -> String) -> (String, String) {
    let told = rustls::Error::InvalidCertificate(wrong.clone()).to_string();
    let behind = format!("{wrong:?}");
    if behind.contains("CaUsedAsEndEntity") {
        return (
            "the broker's certificate is one of an authority (CA:TRUE)".to_owned(),
            format!(
                "give the broker a certificate with basicConstraints = CA:FALSE; `{} | grep -A1 'Basic Constraints'` shows it",
                show()
            ),
        );
    }
    if behind.contains("UnsupportedCertVersion") {
        return (
            "the broker's certificate is X.509 version 1, which cannot name a host".to_owned(),
            format!(
                "give the broker one of version 3 with subjectAltName; `{} | grep Version` shows it",
                show()
            ),
        );
    }
    if behind.contains("UnsupportedSignatureAlgorithm") {
        return (
            told,
            format!(
                "keys of RSA (2048 bits and more), P-256, P-384 and Ed25519 are known, P-521 is not; `{} | grep Algorithm` shows it",
                show()
            ),
        );
    }
    let hint = match wrong {
        CertificateError::UnknownIssuer => {
            "name the authority that signed the broker's certificate as the CA file".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use a host name that the broker's certificate holds".to_owned()
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "renew the broker's certificate, or set this host's clock".to_owned()
        }
        _ => format!("`{}` shows the broker's certificate", show()),
    };
    (told, hint)
}

fn after_alert(alert: AlertDescription, options: &Options, show: impl Fn() -> String) -> String {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRequired, CertificateUnknown, HandshakeFailure,
        UnknownCA, UnsupportedCertificate,
    };
    let bare = options.tls.client_cert_file.is_none();
    match alert {
        CertificateRequired | BadCertificate | HandshakeFailure if bare => format!(
            "the broker wants a client certificate that it trusts: name the certificate and key files; or its own key is of a kind that is \
             not known here, such as P-521: `{}` shows it",
            show()
        ),
        HandshakeFailure => format!(
            "the broker found no kind of key in common: RSA, P-256, P-384 and Ed25519 are known here, P-521 is not; `{}` shows its certificate",
            show()
        ),
        UnknownCA => "the broker does not know the authority of the client's certificate: add it to ssl_options.cacertfile there".to_owned(),
        CertificateExpired => "renew the client's certificate (`openssl x509 -noout -dates -in FILE` shows its dates)".to_owned(),
        CertificateRequired | BadCertificate | CertificateUnknown | UnsupportedCertificate => {
            "the broker wants a client certificate that it trusts: see its log for what is wrong with this one".to_owned()
        }
        _ => "see the broker's log for its side of the handshake".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_want_of_a_file_says_nothing_of_the_broker() {
        let address = Address {
            tls: false,
            host: "broker".to_owned(),
            port: 5672,
            vhost: "/".to_owned(),
            username: None,
            password: None,
        };
        let full = || io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let told =
            |error: &(dyn Error + 'static)| LinkError::out_of_files(&address, error).map(|e| e.to_string());
        let words = told(&Unreachable::from(full())).unwrap();
        assert!(words.contains("Too many open files") && words.contains("LimitNOFILE="), "{words}");
        assert!(told(&io::Error::other(full())).is_some());
        assert_eq!(told(&Unreachable::from(io::Error::from(io::ErrorKind::ConnectionRefused))), None);
        let setup = TlsError::Unreadable { what: "CA file", path: "ca.pem".into(), source: full() };
        assert!(told(&setup).is_some());
        let lapin = lapin::Error::from(ErrorKind::IOError(std::sync::Arc::new(full())));
        let options = Options::new(vec![address.clone()]);
        assert!(matches!(lost(&address, &options, &lapin, None), LinkError::Files { .. }));
    }
}
