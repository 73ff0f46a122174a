//! TLS by the library that the features name.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::HttpVersions;
use super::connector::Tcp;
use crate::ConfigError;

#[cfg(feature = "rustls")]
pub(super) type Secured<C> = hyper_rustls::HttpsConnector<C>;
#[cfg(all(feature = "native-tls", not(feature = "rustls")))]
pub(super) type Secured<C> = hyper_tls::HttpsConnector<C>;
#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
pub(super) use without::Secured;

/// What a TLS connection is made with.
#[derive(Default)]
pub(crate) struct TlsSettings {
    /// Certificate authorities to trust besides those of the system, each a text in PEM.
    pub(crate) root_certificates: Vec<Vec<u8>>,
    /// A certificate chain and its private key, both in PEM.
    pub(crate) client_certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// What takes the place of everything else.
    #[cfg(feature = "rustls")]
    pub(crate) config: Option<rustls::ClientConfig>,
}

impl TlsSettings {
    /// Whether nothing was set.
    pub(crate) fn is_default(&self) -> bool {
        #[cfg(feature = "rustls")]
        if self.config.is_some() {
            return false;
        }
        self.root_certificates.is_empty() && self.client_certificate.is_none()
    }
}

/// Leaves out what could be a key.
impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings")
            .field("root_certificates", &self.root_certificates.len())
            .field("client_certificate", &self.client_certificate.is_some())
            .finish_non_exhaustive()
    }
}

/// What makes connections with TLS and without.
pub(super) struct Tls {
    pub(super) secured: Secured<Tcp>,
    /// Why no connection with TLS can be made. `http` works anyway.
    pub(super) unusable: Option<Arc<dyn StdError + Send + Sync>>,
}

#[cfg(feature = "rustls")]
pub(super) fn secured(
    tcp: Tcp,
    settings: &TlsSettings,
    versions: HttpVersions,
) -> Result<Tls, ConfigError> {
    let (mut config, unusable) = match &settings.config {
        Some(config) => {
            if !settings.root_certificates.is_empty() || settings.client_certificate.is_some() {
                return Err(ConfigError::new(
                    "tls_config",
                    "no root certificates and no client certificate beside it",
                ));
            }
            (config.clone(), None)
        }
        None => with_rustls::config(settings)?,
    };
    let protocols = alpn(versions).iter();
    config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
    Ok(Tls {
        secured: Secured::from((tcp, config)),
        unusable,
    })
}

#[cfg(all(feature = "native-tls", not(feature = "rustls")))]
pub(super) fn secured(
    tcp: Tcp,
    settings: &TlsSettings,
    versions: HttpVersions,
) -> Result<Tls, ConfigError> {
    use native_tls::{Certificate, Identity, TlsConnector};

    let mut builder = TlsConnector::builder();
    builder.request_alpns(alpn(versions));
    for text in &settings.root_certificates {
        let found =
            Certificate::stack_from_pem(text).map_err(|source| unreadable().with_source(source))?;
        if found.is_empty() {
            return Err(unreadable());
        }
        for certificate in found {
            builder.add_root_certificate(certificate);
        }
    }
    if let Some((certificate, key)) = &settings.client_certificate {
        let identity = Identity::from_pkcs8(certificate, key);
        builder.identity(identity.map_err(|source| no_identity().with_source(source))?);
    }
    let connector = builder.build().map_err(|source| {
        ConfigError::new("root_certificates", "a working TLS library").with_source(source)
    })?;
    Ok(Tls {
        secured: Secured::from((tcp, connector.into())),
        unusable: None,
    })
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
pub(super) fn secured(
    tcp: Tcp,
    settings: &TlsSettings,
    _versions: HttpVersions,
) -> Result<Tls, ConfigError> {
    let field = if !settings.root_certificates.is_empty() {
        "root_certificates"
    } else if settings.client_certificate.is_some() {
        "client_certificate"
    } else {
        return Ok(Tls {
            secured: Secured(tcp),
            unusable: Some(Arc::new(without::NoTls)),
        });
    };
    Err(ConfigError::new(
        field,
        "none without the feature `rustls` or `native-tls`",
    ))
}

/// What is offered in the handshake, the best first.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn alpn(versions: HttpVersions) -> &'static [&'static str] {
    match versions {
        HttpVersions::Negotiated => &["h2", "http/1.1"],
        HttpVersions::Http1 => &["http/1.1"],
        HttpVersions::Http2 => &["h2"],
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn unreadable() -> ConfigError {
    ConfigError::new("root_certificates", "certificates in PEM")
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn no_identity() -> ConfigError {
    ConfigError::new(
        "client_certificate",
        "a certificate chain and its private key, in PEM",
    )
}

#[cfg(feature = "rustls")]
mod with_rustls {
    use std::error::Error as StdError;
    use std::sync::Arc;

    use rustls::client::WantsClientCert;
    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
    use rustls_platform_verifier::Verifier;

    use super::{TlsSettings, no_identity, unreadable};
    use crate::ConfigError;

    type Unusable = Option<Arc<dyn StdError + Send + Sync>>;

    /// Trusts the authorities of the system, and those of the settings. Without any, it trusts
    /// no receiver, and says why.
    pub(super) fn config(settings: &TlsSettings) -> Result<(ClientConfig, Unusable), ConfigError> {
        // A program that chose another provider chose it for us too.
        let provider = CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
        let verifier = verifier(settings, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| {
                ConfigError::new("tls_config", "a provider with a version of TLS")
                    .with_source(source)
            })?;
        let (builder, unusable): (_, Unusable) = match verifier {
            Ok(verifier) => {
                let builder = builder.dangerous();
                (
                    builder.with_custom_certificate_verifier(Arc::new(verifier)),
                    None,
                )
            }
            Err(reason) => {
                let builder = builder.with_root_certificates(RootCertStore::empty());
                (builder, Some(Arc::new(reason)))
            }
        };
        Ok((with_client_certificate(builder, settings)?, unusable))
    }

    /// An image without certificate authorities is no reason to send nothing at all, so that the
    /// system's own failure is an inner result.
    fn verifier(
        settings: &TlsSettings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Result<Verifier, rustls::Error>, ConfigError> {
        let mut certificates = Vec::new();
        for text in &settings.root_certificates {
            let found =
                read_certificates(text).map_err(|source| unreadable().with_source(source))?;
            if found.is_empty() {
                return Err(unreadable());
            }
            certificates.extend(found);
        }
        if certificates.is_empty() {
            return Ok(Verifier::new(Arc::clone(provider)));
        }
        let verifier = Verifier::new_with_extra_roots(certificates, Arc::clone(provider));
        verifier
            .map(Ok)
            .map_err(|source| unreadable().with_source(source))
    }

    fn with_client_certificate(
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
        settings: &TlsSettings,
    ) -> Result<ClientConfig, ConfigError> {
        let Some((certificate, key)) = &settings.client_certificate else {
            return Ok(builder.with_no_client_auth());
        };
        let chain =
            read_certificates(certificate).map_err(|source| no_identity().with_source(source))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|source| no_identity().with_source(source))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|source| no_identity().with_source(source))
    }

    fn read_certificates(
        text: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
        CertificateDer::pem_slice_iter(text).collect()
    }
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
mod without {
    use std::task::{Context, Poll};

    use http::Uri;
    use tower_service::Service;

    /// Makes only connections without TLS.
    #[derive(Debug, Clone)]
    pub(crate) struct Secured<C>(pub(super) C);

    #[derive(Debug, thiserror::Error)]
    #[error("built without TLS")]
    pub(super) struct NoTls;

    impl<C: Service<Uri>> Service<Uri> for Secured<C> {
        type Response = C::Response;
        type Error = C::Error;
        type Future = C::Future;

        fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
            self.0.poll_ready(context)
        }

        fn call(&mut self, uri: Uri) -> Self::Future {
            self.0.call(uri)
        }
    }
}
