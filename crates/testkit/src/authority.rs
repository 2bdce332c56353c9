//! An authority that signs certificates, made anew in every run. A certificate and its key come in PEM.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut authority = named("authority", Vec::new());
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The certificate of this name, and its key.
    pub fn signed(&self, name: &str) -> (String, String) {
        self.sign(named(name, vec![name.to_owned()]))
    }

    /// As [`Authority::signed`], for a year that is over.
    pub fn expired(&self, name: &str) -> (String, String) {
        let mut params = named(name, vec![name.to_owned()]);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A certificate of this name that no authority signed, and its key.
pub fn self_signed(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = named(name, vec![name.to_owned()]).self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// The configuration of a server that shows this certificate.
pub fn server((certificate, key): (String, String)) -> rustls::ServerConfig {
    tencent_vod::install_crypto_provider();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

/// Names that differ: who is called as its issuer is called counts as self-signed with Erlang.
fn named(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
