//! Whom to trust, and who we are, when the URL is `amqps://`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What AMQP is spoken over: a TCP connection, with or without TLS.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Files in PEM that TLS needs beyond what the host offers. They are read at every connect, so that renewed ones take effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The only authorities to trust. Without it: those that the host trusts.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate, followed by its intermediates.
    pub certificate_file: Option<PathBuf>,
    /// The private key of `certificate_file` (PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub key_file: Option<PathBuf>,
}

/// Why TLS cannot even begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("cannot read the {what} {path}: {source}; check the path and its permissions", path = path.display())]
    Unreadable { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the {what} {path} holds no PEM {expected}; it must contain \"-----BEGIN {begin}-----\"", path = path.display())]
    NotPem { what: &'static str, path: PathBuf, expected: &'static str, begin: &'static str },
    #[error("a client certificate needs its key and a key its certificate; name both files or neither")]
    HalfAnIdentity,
    #[error("cannot set up TLS: {0}; check that the client key belongs to the certificate, and the CA file")]
    Setup(rustls::Error),
}

async fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path).await.map_err(|source| TlsError::Unreadable { what, path: path.to_owned(), source })
}

async fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(what, path).await?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::NotPem {
            what,
            path: path.to_owned(),
            expected: "certificate",
            begin: "CERTIFICATE",
        }),
    }
}

/// Reads the files. Their errors are the configuration's; those of [`handshake`] are the network's.
pub(super) async fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder();
    let builder = match &files.ca_file {
        // Only these: who names a private authority does not want every public one to vouch for the broker too.
        Some(path) => {
            let mut authorities = RootCertStore::empty();
            authorities.add_parsable_certificates(certificates("CA file", path).await?);
            builder.with_root_certificates(authorities)
        }
        None => builder.with_platform_verifier().map_err(TlsError::Setup)?,
    };
    match (&files.certificate_file, &files.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate_file), Some(key_file)) => {
            let chain = certificates("client certificate", certificate_file).await?;
            let pem = read("client key", key_file).await?;
            let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NotPem {
                what: "client key",
                path: key_file.clone(),
                expected: "private key",
                begin: "PRIVATE KEY",
            })?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Setup)
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
