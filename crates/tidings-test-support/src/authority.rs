use std::fmt;
use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// How a receiver with TLS proves who it is.
///
/// To a sender that trusts the receiver's [`Authority`], each but the first has one fault and no
/// other. For plain text on a TLS port, send `https` to a receiver without TLS:
/// [`Receiver::https_url`](crate::Receiver::https_url).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// A certificate for `localhost` and 127.0.0.1 that is in order.
    Valid,
    /// A certificate that ended with the year 2000.
    Expired,
    /// A certificate of another authority of the same name.
    UnknownAuthority,
    /// A certificate for `wrong.invalid`.
    WrongName,
    /// The certificate of the authority itself, for `localhost` and 127.0.0.1, as `openssl req -x509` makes one.
    Authority,
    /// No certificate: takes the connection and never completes the handshake.
    Stalled,
}

impl Tls {
    /// What accepts connections in this way, for a [`Proxy`](crate::Proxy), and the authority to trust.
    ///
    /// # Errors
    ///
    /// For [`Tls::Stalled`], which accepts nothing, and when no certificate can be made.
    pub fn acceptor(self) -> io::Result<(Authority, TlsAcceptor)> {
        match prepare(self)? {
            (authority, Reception::Tls(acceptor)) => Ok((authority, acceptor)),
            _ => Err(io::Error::other("it accepts no connection")),
        }
    }
}

/// A certificate with its key, in PEM, and the authority that has signed it.
pub(crate) fn certificate_files() -> io::Result<(Authority, String, String)> {
    let issuer = new_issuer()?;
    let (certificate, key) = leaf(Tls::Valid, &issuer)?;
    let authority = Authority {
        certificate: issuer.der().clone(),
        pem: issuer.pem(),
    };
    Ok((authority, certificate.pem(), key.serialize_pem()))
}

/// A certificate authority that a client must trust for the length of a test.
#[derive(Clone)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    /// Its certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// How connections are taken in.
#[derive(Clone)]
pub(crate) enum Reception {
    Plain,
    Stalled,
    Tls(TlsAcceptor),
}

/// Makes an authority, and whatever else the receiver needs to prove itself this way.
pub(crate) fn prepare(tls: Tls) -> io::Result<(Authority, Reception)> {
    let issuer = new_issuer()?;
    let authority = Authority {
        certificate: issuer.der().clone(),
        pem: issuer.pem(),
    };
    let reception = match tls {
        Tls::Stalled => Reception::Stalled,
        Tls::UnknownAuthority => Reception::Tls(acceptor(tls, &new_issuer()?)?),
        _ => Reception::Tls(acceptor(tls, &issuer)?),
    };
    Ok((authority, reception))
}

fn new_issuer() -> io::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut authority = params(&HOSTS)?;
    authority
        .distinguished_name
        .push(DnType::CommonName, "Tidings test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    CertifiedIssuer::self_signed(authority, key).map_err(io::Error::other)
}

/// The hosts that certificates are for.
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

fn params(names: &[&str]) -> io::Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).map_err(io::Error::other)
}

fn leaf(
    tls: Tls,
    issuer: &CertifiedIssuer<'_, KeyPair>,
) -> io::Result<(rcgen::Certificate, KeyPair)> {
    let mut leaf = params(match tls {
        Tls::WrongName => &["wrong.invalid"],
        _ => &HOSTS,
    })?;
    if tls == Tls::Expired {
        leaf.not_before = rcgen::date_time_ymd(2000, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = leaf.signed_by(&key, issuer).map_err(io::Error::other)?;
    Ok((certificate, key))
}

fn acceptor(tls: Tls, issuer: &CertifiedIssuer<'_, KeyPair>) -> io::Result<TlsAcceptor> {
    let (certificate, key) = if tls == Tls::Authority {
        (issuer.der().clone(), issuer.key().serialize_der())
    } else {
        let (certificate, key) = leaf(tls, issuer)?;
        (certificate.der().clone(), key.serialize_der())
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));

    // Named rather than taken from the process, which may have installed none.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
