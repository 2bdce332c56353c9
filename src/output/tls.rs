//! The trusted authorities and the client's certificate for `amqps://`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use vodrelay_host::regular_file;

/// More than the authorities of a whole system.
const MAX_BYTES: u64 = 8 << 20;

/// The transport of AMQP: a TCP connection, with or without TLS.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// PEM files that TLS needs beyond those of the host. They are read at every connect, so renewed files take
/// effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The only authorities to trust. `None` for those that the host trusts.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate, followed by its intermediates.
    pub client_cert_file: Option<PathBuf>,
    /// The private key of `client_cert_file` (PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub client_key_file: Option<PathBuf>,
}

/// Why TLS cannot begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("cannot read the {what} {path}: {source}; check the path and its permissions", path = path.display())]
    Unreadable { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the {what} {path} holds no PEM {expected} ({found}); it must contain \"-----BEGIN {begin}-----\"", path = path.display())]
    NotPem { what: &'static str, path: PathBuf, expected: &'static str, begin: &'static str, found: String },
    #[error("the {what} {path} is damaged: {cause}; `openssl {tool} -noout -text -in {path}` shows it, or where it breaks", path = path.display())]
    Damaged { what: &'static str, path: PathBuf, cause: String, tool: &'static str },
    #[error(
        "the client key {path} is encrypted, and there is no prompt for its password; `openssl pkey -in {path} -out FILE` writes it without one",
        path = path.display()
    )]
    Encrypted { path: PathBuf },
    #[error(
        "the client key {path} is of a kind that is not known here; RSA (2048 bits and more), P-256, P-384 and Ed25519 are, P-521 is \
         not; `openssl pkey -in {path} -noout -text` shows it",
        path = path.display()
    )]
    UnknownKey { path: PathBuf },
    #[error(
        "the client key {key} does not belong to the client certificate {certificate}; `openssl pkey -in {key} -pubout` and `openssl x509 \
         -in {certificate} -noout -pubkey` must print the same",
        key = key.display(), certificate = certificate.display()
    )]
    OtherKey { key: PathBuf, certificate: PathBuf },
    #[error(
        "the client certificate {path} is X.509 version 1, which cannot be used; make one of version 3 (`openssl x509 -in {path} -noout \
         -text` shows the version)",
        path = path.display()
    )]
    VersionOne { path: PathBuf },
    #[error("a client certificate needs its key and a key its certificate; name both files or neither")]
    HalfAnIdentity,
    #[error(
        "cannot set up TLS: {0}; check the certificate and key files with `openssl x509 -noout -text -in FILE`"
    )]
    Setup(rustls::Error),
}

/// Reads a file without the mark that some editors put at its beginning, which would hide the first line of
/// PEM.
async fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let named = path.to_owned();
    let read = tokio::task::spawn_blocking(move || regular_file::read(&named, MAX_BYTES)).await;
    let read = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let mut bytes = read.map_err(|source| TlsError::Unreadable { what, path: path.to_owned(), source })?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// The wrong content of a file.
fn found_in(bytes: &[u8]) -> String {
    match bytes {
        [] => return "it is empty".to_owned(),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return "it is UTF-16: save it as UTF-8".to_owned(),
        // A sequence whose first element is the version 3 (RFC 7292).
        [0x30, 0x82, _, _, 0x02, 0x01, 0x03, ..] | [0x30, 0x81, _, 0x02, 0x01, 0x03, ..] => {
            return "it is PKCS #12: `openssl pkcs12 -noenc` makes PEM of it".to_owned();
        }
        // A sequence with a length of two bytes, as a certificate or a key begins in DER.
        [0x30, 0x81 | 0x82, ..] => {
            return "it is DER: `openssl x509 -inform der` or `openssl pkey -inform der` makes PEM of it"
                .to_owned();
        }
        _ => {}
    }
    let text = String::from_utf8_lossy(bytes);
    let labels =
        text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let labels: Vec<&str> = labels.take(3).collect();
    if labels.is_empty() { "it is not PEM".to_owned() } else { format!("it holds {}", labels.join(", ")) }
}

/// The fault of PEM, without its bytes, which may be of a key.
fn damage(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no line \"-----END ...-----\"".to_owned(),
        pem::Error::IllegalSectionStart { .. } => {
            "a line \"-----BEGIN ...\" does not end in \"-----\"".to_owned()
        }
        pem::Error::Base64Decode(why) => format!("a section is not base64 ({why})"),
        other => other.to_string(),
    }
}

async fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(what, path).await?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(TlsError::NotPem {
            what,
            path: path.to_owned(),
            expected: "certificate",
            begin: "CERTIFICATE",
            found: found_in(&pem),
        }),
        Err(error) => {
            Err(TlsError::Damaged { what, path: path.to_owned(), cause: damage(&error), tool: "x509" })
        }
    }
}

async fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WHAT: &str = "client key";
    let pem = read(WHAT, path).await?;
    let says = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    if says(b"BEGIN ENCRYPTED PRIVATE KEY") || says(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::Encrypted { path: path.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NotPem {
            what: WHAT,
            path: path.to_owned(),
            expected: "private key",
            begin: "PRIVATE KEY",
            found: found_in(&pem),
        },
        error => TlsError::Damaged { what: WHAT, path: path.to_owned(), cause: damage(&error), tool: "pkey" },
    })?;
    match rustls::crypto::ring::sign::any_supported_type(&key) {
        Ok(_) => Ok(key),
        Err(_) => Err(TlsError::UnknownKey { path: path.to_owned() }),
    }
}

/// Reads the files. Its errors concern the configuration; those of [`handshake`] concern the network.
pub(super) async fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder();
    let builder = match &files.ca_file {
        // Only these: with a private authority, no public one may vouch for the broker.
        Some(path) => {
            let what = "CA file";
            let mut authorities = RootCertStore::empty();
            for certificate in certificates(what, path).await? {
                // A missing one shows only when the broker's certificate is refused, as one of an unknown
                // authority.
                authorities.add(certificate).map_err(|error| TlsError::Damaged {
                    what,
                    path: path.clone(),
                    cause: format!(
                        "certificate {} of it cannot be an authority's ({error})",
                        authorities.len() + 1
                    ),
                    tool: "x509",
                })?;
            }
            builder.with_root_certificates(authorities)
        }
        None => builder.with_platform_verifier().map_err(TlsError::Setup)?,
    };
    match (&files.client_cert_file, &files.client_key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(client_cert_file), Some(client_key_file)) => {
            let chain = certificates("client certificate", client_cert_file).await?;
            let key = private_key(client_key_file).await?;
            builder.with_client_auth_cert(chain, key).map_err(|error| match &error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsError::OtherKey { key: client_key_file.clone(), certificate: client_cert_file.clone() }
                }
                rustls::Error::InvalidCertificate(wrong)
                    if format!("{wrong:?}").contains("UnsupportedCertVersion") =>
                {
                    TlsError::VersionOne { path: client_cert_file.clone() }
                }
                _ => TlsError::Setup(error),
            })
        }
        _ => Err(TlsError::HalfAnIdentity),
    }
}

/// Begins TLS on a fresh connection to this host.
pub(super) async fn handshake(
    tcp: TcpStream,
    host: &str,
    config: ClientConfig,
) -> io::Result<Box<dyn Socket>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use tempfile::TempDir;

    use super::*;
    use crate::output::amqp::{Address, Options};
    use crate::output::refusal::broken_tls;

    /// A folder with files that openssl made.
    struct Files(TempDir);

    impl Files {
        fn new() -> Self {
            let _already_there = rustls::crypto::ring::default_provider().install_default();
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn openssl(&self, arguments: &str) {
            let mut command = Command::new("openssl");
            command.args(arguments.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
            let output = command.output().unwrap();
            assert!(
                output.status.success(),
                "openssl {arguments}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }

        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            std::fs::write(self.path(name), bytes).unwrap();
            self.path(name)
        }

        fn read(&self, name: &str) -> Vec<u8> {
            std::fs::read(self.path(name)).unwrap()
        }

        /// `NAME.pem`, self-signed, with the key `NAME.key`.
        fn self_signed(&self, name: &str, curve: &str, extension: &str) {
            self.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:{curve} -nodes -keyout {name}.key -out {name}.pem -days 2 -subj \
                 /CN=localhost -addext subjectAltName=DNS:localhost -addext {extension}"
            ));
        }

        /// A certificate of version 1 for the key of `NAME`.
        fn version_one(&self, name: &str) {
            self.openssl(&format!("req -new -key {name}.key -out {name}.csr -subj /CN=localhost"));
            self.openssl(&format!("x509 -req -in {name}.csr -signkey {name}.key -days 2 -out v1.pem"));
        }

        async fn identity(&self, certificate: &str, key: &str) -> String {
            let files = TlsFiles {
                ca_file: None,
                client_cert_file: Some(self.path(certificate)),
                client_key_file: Some(self.path(key)),
            };
            told(&files, self).await
        }

        async fn authority(&self, name: &str) -> String {
            told(&TlsFiles { ca_file: Some(self.path(name)), ..TlsFiles::default() }, self).await
        }
    }

    async fn told(files: &TlsFiles, folder: &Files) -> String {
        let folder = format!("{}/", folder.0.path().display());
        client_config(files)
            .await
            .map_or_else(|error| error.to_string().replace(&folder, ""), |_| "ok".to_owned())
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_client_s_files_is_told_with_the_command_that_shows_it() {
        let files = Files::new();
        files.self_signed("good", "P-256", "basicConstraints=CA:FALSE");
        files.self_signed("other", "P-256", "basicConstraints=CA:FALSE");
        files.self_signed("p521", "P-521", "basicConstraints=CA:FALSE");
        files.version_one("good");
        files.openssl("pkey -in good.key -aes256 -passout pass:x -out encrypted.key");
        files.openssl("ec -in good.key -aes256 -passout pass:x -out old.key");
        files.openssl("x509 -in good.pem -outform der -out good.der");
        files.openssl("pkcs12 -export -inkey good.key -in good.pem -passout pass: -out good.p12");
        files.write("empty", b"");
        files.write("cut.pem", &files.read("good.pem")[..300]);
        files.write("cut.key", &files.read("good.key")[..100]);
        rustix::fs::mkfifoat(rustix::fs::CWD, files.0.path().join("fifo"), rustix::fs::Mode::RWXU).unwrap();
        let utf16: Vec<u8> = files.read("good.pem").iter().flat_map(|byte| [*byte, 0]).collect();
        files.write("utf16", &[&[0xff, 0xfe][..], &utf16].concat());
        files.write("bad.pem", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
        for (certificate, key, expected) in [
            ("good.pem", "good.key", "ok"),
            ("good.pem", "encrypted.key", "the client key encrypted.key is encrypted"),
            ("good.pem", "encrypted.key", "`openssl pkey -in encrypted.key -out FILE` writes it without one"),
            ("good.pem", "old.key", "the client key old.key is encrypted"),
            ("p521.pem", "p521.key", "the client key p521.key is of a kind that is not known here"),
            (
                "good.pem",
                "other.key",
                "the client key other.key does not belong to the client certificate good.pem",
            ),
            ("v1.pem", "good.key", "the client certificate v1.pem is X.509 version 1"),
            ("good.pem", "good.pem", "holds no PEM private key (it holds CERTIFICATE)"),
            ("good.key", "good.key", "holds no PEM certificate (it holds PRIVATE KEY)"),
            ("empty", "good.key", "(it is empty)"),
            ("utf16", "good.key", "(it is UTF-16: save it as UTF-8)"),
            ("good.der", "good.key", "(it is DER: `openssl x509 -inform der`"),
            ("bad.pem", "good.key", "the client certificate bad.pem is damaged"),
            ("good.p12", "good.key", "(it is PKCS #12: `openssl pkcs12 -noenc` makes PEM of it)"),
            (
                "cut.pem",
                "good.key",
                "cut.pem is damaged: a section has no line \"-----END ...-----\"; `openssl x509",
            ),
            (
                "good.pem",
                "cut.key",
                "cut.key is damaged: a section has no line \"-----END ...-----\"; `openssl pkey",
            ),
            ("fifo", "good.key", "fifo: it is a FIFO, and must be a regular file; check the path"),
            (
                "good.pem",
                "/dev/zero",
                "/dev/zero: it is a device, and must be a regular file; check the path",
            ),
        ] {
            let told = files.identity(certificate, key).await;
            assert!(told.contains(expected), "{certificate} {key}: {told}");
        }
    }

    #[tokio::test]
    async fn a_mark_at_the_beginning_and_windows_line_ends_do_no_harm() {
        let files = Files::new();
        files.self_signed("good", "P-256", "basicConstraints=CA:FALSE");
        for name in ["good.pem", "good.key"] {
            let text = String::from_utf8(files.read(name)).unwrap();
            files.write(&format!("dos-{name}"), format!("\u{feff}{}", text.replace('\n', "\r\n")).as_bytes());
        }
        assert_eq!(files.identity("dos-good.pem", "dos-good.key").await, "ok");
        assert_eq!(files.authority("dos-good.pem").await, "ok");
    }

    #[tokio::test]
    async fn a_certificate_that_cannot_be_an_authority_s_is_named_before_the_broker_s_is_refused() {
        let files = Files::new();
        files.self_signed("good", "P-256", "basicConstraints=CA:TRUE");
        let good = files.read("good.pem");
        let damaged = b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
        files.write("bundle.pem", &[&good[..], damaged].concat());
        let told = files.authority("bundle.pem").await;
        assert!(
            told.contains("the CA file bundle.pem is damaged: certificate 2 of it cannot be an authority's"),
            "{told}"
        );
        assert!(told.contains("`openssl x509 -noout -text -in bundle.pem` shows it"), "{told}");
    }

    /// A TLS server of openssl, which accepts certificates that rustls would not even send.
    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// The result of the handshake with a server that shows this certificate.
    async fn handshake_with(files: &Files, certificate: &str, key: &str, authority: &str) -> String {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert", certificate, "-key", key])
            .current_dir(files.0.path())
            // The end of it would end the server.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let _server = Server(child);
        let port = lines.find_map(|line| {
            Some(line.unwrap().strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse().unwrap())
        });
        let port: u16 = port.expect("openssl says where it listens");
        let config = client_config(&TlsFiles { ca_file: Some(files.path(authority)), ..TlsFiles::default() })
            .await
            .unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let error = handshake(tcp, "localhost", config).await.err().expect("the certificate is refused");
        let address = Address {
            tls: true,
            host: "localhost".to_owned(),
            port,
            vhost: "/".to_owned(),
            username: None,
            password: None,
        };
        broken_tls(&address, &Options::new(Vec::new()), &error).to_string()
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_broker_s_certificate_is_told_with_the_command_that_shows_it() {
        let files = Files::new();
        files.self_signed("ca", "P-256", "basicConstraints=critical,CA:TRUE");
        files.self_signed("p521", "P-521", "basicConstraints=CA:FALSE");
        files.version_one("ca");
        for (certificate, key, words, command) in [
            ("ca.pem", "ca.key", "one of an authority (CA:TRUE)", "| grep -A1 'Basic Constraints'`"),
            ("v1.pem", "ca.key", "X.509 version 1, which cannot name a host", "| grep Version`"),
            ("p521.pem", "p521.key", "P-521", "openssl s_client -connect localhost:"),
        ] {
            let told = handshake_with(&files, certificate, key, certificate).await;
            assert!(told.contains(words) && told.contains(command), "{certificate}: {told}");
        }
    }
}
