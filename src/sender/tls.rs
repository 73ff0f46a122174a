//! TLS by the library that the features name.

use super::connector::Tcp;
use crate::ConfigError;

#[cfg(feature = "rustls")]
pub(super) type Secured<C> = hyper_rustls::HttpsConnector<C>;
#[cfg(all(feature = "native-tls", not(feature = "rustls")))]
pub(super) type Secured<C> = hyper_tls::HttpsConnector<C>;
#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
pub(super) use without::Secured;

/// Trusts the authorities of the system, and those of some texts in PEM.
#[cfg(feature = "rustls")]
pub(super) fn secured(tcp: Tcp, roots: &[Vec<u8>]) -> Result<Secured<Tcp>, ConfigError> {
    use std::sync::Arc;

    use rustls::ClientConfig;
    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls_platform_verifier::Verifier;

    let mut certificates = Vec::new();
    for text in roots {
        let found = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| unreadable().with_source(source))?;
        if found.is_empty() {
            return Err(unreadable());
        }
        certificates.extend(found);
    }
    // A program that chose another provider chose it for us too.
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let verifier = if certificates.is_empty() {
        Verifier::new(Arc::clone(&provider)).map_err(|source| unusable().with_source(source))?
    } else {
        Verifier::new_with_extra_roots(certificates, Arc::clone(&provider))
            .map_err(|source| unreadable().with_source(source))?
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| unusable().with_source(source))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = ALPN.map(|protocol| protocol.as_bytes().to_vec()).into();
    Ok(Secured::from((tcp, config)))
}

/// Trusts the authorities of the system, and those of some texts in PEM.
#[cfg(all(feature = "native-tls", not(feature = "rustls")))]
pub(super) fn secured(tcp: Tcp, roots: &[Vec<u8>]) -> Result<Secured<Tcp>, ConfigError> {
    use native_tls::{Certificate, TlsConnector};

    let mut builder = TlsConnector::builder();
    builder.request_alpns(&ALPN);
    for text in roots {
        let found =
            Certificate::stack_from_pem(text).map_err(|source| unreadable().with_source(source))?;
        if found.is_empty() {
            return Err(unreadable());
        }
        for certificate in found {
            builder.add_root_certificate(certificate);
        }
    }
    let connector = builder
        .build()
        .map_err(|source| unusable().with_source(source))?;
    Ok(Secured::from((tcp, connector.into())))
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
pub(super) fn secured(tcp: Tcp, roots: &[Vec<u8>]) -> Result<Secured<Tcp>, ConfigError> {
    if roots.is_empty() {
        Ok(Secured(tcp))
    } else {
        Err(ConfigError::new(
            "root_certificates",
            "none without the feature `rustls` or `native-tls`",
        ))
    }
}

/// What is offered, the best first.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
const ALPN: [&str; 2] = ["h2", "http/1.1"];

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn unreadable() -> ConfigError {
    ConfigError::new("root_certificates", "certificates in PEM")
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn unusable() -> ConfigError {
    ConfigError::new("http_client", "a working TLS setup")
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
mod without {
    use std::error::Error as StdError;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http::Uri;
    use http::uri::Scheme;
    use tower_service::Service;

    /// Makes connections without TLS alone.
    #[derive(Debug, Clone)]
    pub(crate) struct Secured<C>(pub(super) C);

    #[derive(Debug, thiserror::Error)]
    #[error("built without TLS")]
    struct NoTls;

    type BoxError = Box<dyn StdError + Send + Sync>;

    impl<C> Service<Uri> for Secured<C>
    where
        C: Service<Uri>,
        C::Future: Send + 'static,
        C::Error: Into<BoxError>,
    {
        type Response = C::Response;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

        fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.0.poll_ready(context).map_err(Into::into)
        }

        fn call(&mut self, uri: Uri) -> Self::Future {
            if uri.scheme() == Some(&Scheme::HTTPS) {
                return Box::pin(async { Err(NoTls.into()) });
            }
            let connecting = self.0.call(uri);
            Box::pin(async { connecting.await.map_err(Into::into) })
        }
    }
}
