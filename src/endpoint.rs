mod id;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use url::Url;

pub use id::EndpointId;

use crate::message::content_type;
use crate::signing::{Secret, Signer, StandardSigner, WEBHOOK_ID};
use crate::{Classifier, ConfigError};

/// Default deadline of a whole attempt.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Default `content-type` of a message that does not name one.
pub const DEFAULT_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The longest timeout of an attempt. A longer one is a mistake, and huge ones overflow the clock.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// Headers that belong to the transport, or to a setting of their own.
///
/// `accept-encoding` is among them because a compressed response is never decoded.
const RESERVED: [HeaderName; 13] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A webhook destination: a URL, how to sign for it, and how long to wait for it.
///
/// Clones share one set of settings.
///
/// ```
/// use tidings::Endpoint;
/// use tidings::signing::Secret;
///
/// let endpoint = Endpoint::builder("https://example.com/hooks")
///     .secret(Secret::generate())
///     .header("x-team", "billing")
///     .timeout(std::time::Duration::from_secs(10))
///     .build()?;
/// assert_eq!(endpoint.url().host_str(), Some("example.com"));
/// # Ok::<(), tidings::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Endpoint(Arc<Settings>);

struct Settings {
    url: Url,
    /// The same, as requests need it.
    uri: Uri,
    signers: Vec<Signer>,
    headers: HeaderMap,
    content_type: HeaderValue,
    timeout: Duration,
    first_byte_timeout: Duration,
    classifier: Classifier,
}

impl Endpoint {
    /// A destination with the default settings, whose messages are not signed.
    ///
    /// # Errors
    ///
    /// As for [`EndpointBuilder::build`].
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        Self::builder(url).build()
    }

    /// Returns a builder for an endpoint.
    pub fn builder(url: impl AsRef<str>) -> EndpointBuilder {
        EndpointBuilder {
            url: url.as_ref().to_owned(),
            secrets: Vec::new(),
            signers: Vec::new(),
            headers: Vec::new(),
            content_type: None,
            timeout: DEFAULT_TIMEOUT,
            first_byte_timeout: None,
            classifier: Classifier::default(),
        }
    }

    /// Where messages go.
    pub fn url(&self) -> &Url {
        &self.0.url
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0.uri
    }

    /// How messages are signed: in none, one or several ways at once.
    pub fn signers(&self) -> &[Signer] {
        &self.0.signers
    }

    /// Headers that every request carries besides those of the message and of the signatures.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The `content-type` of a message that does not name one.
    pub fn content_type(&self) -> &HeaderValue {
        &self.0.content_type
    }

    /// The deadline of a whole attempt.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// How long an attempt waits for the status line and the headers.
    pub fn first_byte_timeout(&self) -> Duration {
        self.0.first_byte_timeout
    }

    /// What its responses mean.
    pub fn classifier(&self) -> &Classifier {
        &self.0.classifier
    }

    /// The scheme, the host and the port: what logs may show. The path and the query may hold keys.
    fn origin(&self) -> String {
        self.0.url.origin().ascii_serialization()
    }
}

/// Leaves out the path and the query of the URL, the secrets, and the values of the headers.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("origin", &self.origin())
            .field("signers", &self.0.signers)
            .field("headers", &self.0.headers.keys().collect::<Vec<_>>())
            .field("content_type", &self.0.content_type)
            .field("timeout", &self.0.timeout)
            .field("first_byte_timeout", &self.0.first_byte_timeout)
            .field("classifier", &self.0.classifier)
            .finish()
    }
}

/// Builds an [`Endpoint`]; everything is checked together by [`build`](Self::build).
#[derive(Clone)]
#[must_use]
pub struct EndpointBuilder {
    url: String,
    secrets: Vec<Secret>,
    signers: Vec<Signer>,
    headers: Vec<(String, String)>,
    content_type: Option<String>,
    timeout: Duration,
    first_byte_timeout: Option<Duration>,
    classifier: Classifier,
}

impl EndpointBuilder {
    /// Signs by Standard Webhooks with one more secret.
    ///
    /// During a rotation several secrets sign at once: add the current one first.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Signs in one more way, beside the [secrets](Self::secret) and other signers, with headers of
    /// its own.
    pub fn signer(mut self, signer: impl Into<Signer>) -> Self {
        self.signers.push(signer.into());
        self
    }

    /// Sets what responses mean. The default is [`Classifier::default`].
    pub fn classifier(mut self, classifier: Classifier) -> Self {
        self.classifier = classifier;
        self
    }

    /// Adds a header to every request. Adding a name twice sends both values. A `user-agent` or an
    /// `accept` takes the place of the default one.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the `content-type` of messages that do not name one.
    ///
    /// The default is `text/plain; charset=utf-8`.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets the deadline of a whole attempt, from resolving the host name to the end of the
    /// response. More than zero, at most an hour; the default is 30 seconds.
    ///
    /// A body that drips does not use it up: the status decides, and the body gets a second at most.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long an attempt waits for the status line and the headers, counted from its start.
    /// More than zero; the default is the whole timeout.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.first_byte_timeout = Some(timeout);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the field:
    /// - `url` when it is not an absolute `http` or `https` URL with a host, or has a user name, a
    ///   password, a fragment, blanks or backslashes;
    /// - `signer` when a header of a signer belongs to the transport, to a setting of its own or to
    ///   another signer;
    /// - `header` when a name or value cannot be a header, or the name belongs to the transport, to
    ///   a signer or to a setting of its own;
    /// - `content_type` when it is not a media type;
    /// - `timeout`, `first_byte_timeout` when out of range.
    pub fn build(self) -> Result<Endpoint, ConfigError> {
        let url = parse_url(&self.url)?;
        let uri = url
            .as_str()
            .parse()
            .map_err(|source: http::uri::InvalidUri| {
                ConfigError::new("url", "a URL that HTTP can carry").with_source(source)
            })?;
        let standard = StandardSigner::new(self.secrets).map(Signer::from);
        let signers: Vec<_> = standard.into_iter().chain(self.signers).collect();
        let signed = signed_headers(&signers)?;
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let (name, value) = parse_header(name, value, &signed)?;
            headers.append(name, value);
        }
        let content_type = match self.content_type {
            None => DEFAULT_CONTENT_TYPE,
            Some(text) => content_type::parse(&text)
                .map_err(|_| ConfigError::new("content_type", content_type::EXPECTED))?,
        };
        let first_byte_timeout = self.first_byte_timeout.unwrap_or(self.timeout);
        check_timeout("timeout", self.timeout)?;
        check_timeout("first_byte_timeout", first_byte_timeout)?;
        Ok(Endpoint(Arc::new(Settings {
            url,
            uri,
            signers,
            headers,
            content_type,
            timeout: self.timeout,
            first_byte_timeout,
            classifier: self.classifier,
        })))
    }
}

fn parse_url(text: &str) -> Result<Url, ConfigError> {
    let expected = |expected| ConfigError::new("url", expected);
    // Such texts would be repaired silently, and mean another URL than the one that was written.
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(expected("no spaces and no control characters"));
    }
    if text.contains('\\') {
        return Err(expected("no backslashes"));
    }
    match text.split_once("://") {
        Some((_, rest)) if rest.is_empty() || rest.starts_with('/') => {
            return Err(expected("a host after `://`"));
        }
        Some(_) => {}
        None => return Err(expected("an absolute http or https URL")),
    }
    let url =
        Url::parse(text).map_err(|source| expected(instead_of(source)).with_source(source))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        Err(expected("an absolute http or https URL"))
    } else if !url.username().is_empty() || url.password().is_some() {
        Err(expected(
            "no user name and no password; send them in a header",
        ))
    } else if url.fragment().is_some() {
        Err(expected("no fragment"))
    } else if url.port() == Some(0) {
        Err(expected("a port other than 0"))
    } else if url.domain().is_some_and(|name| !is_host_name(name)) {
        Err(expected(
            "a host whose labels have 1 to 63 characters, 253 in all",
        ))
    } else {
        Ok(url)
    }
}

/// What a URL should have that cannot be parsed.
fn instead_of(error: url::ParseError) -> &'static str {
    use url::ParseError::{
        EmptyHost, IdnaError, InvalidDomainCharacter, InvalidIpv4Address, InvalidIpv6Address,
        InvalidPort,
    };
    match error {
        EmptyHost => "a host after `://`",
        InvalidPort => "a port from 1 to 65535",
        IdnaError | InvalidDomainCharacter => "a valid host name",
        InvalidIpv4Address | InvalidIpv6Address => "a valid IP address",
        _ => "an absolute http or https URL",
    }
}

/// Whether the name server can be asked for this name. A dot at the end is the root.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// The headers that the signers set; no two signers set the same one.
fn signed_headers(signers: &[Signer]) -> Result<Vec<HeaderName>, ConfigError> {
    let mut names: Vec<HeaderName> = Vec::new();
    for signer in signers {
        let is_standard = matches!(signer, Signer::Standard(_));
        for name in signer.header_names() {
            // The id is on every request, and Standard Webhooks signs it.
            let is_taken = name == WEBHOOK_ID && !is_standard;
            if is_taken || RESERVED.contains(name) || names.contains(name) {
                return Err(ConfigError::new(
                    "signer",
                    "headers that neither the transport nor another signer uses",
                ));
            }
            names.push(name.clone());
        }
    }
    Ok(names)
}

fn parse_header(
    name: &str,
    value: &str,
    signed: &[HeaderName],
) -> Result<(HeaderName, HeaderValue), ConfigError> {
    let name = HeaderName::try_from(name)
        .map_err(|source| ConfigError::new("header", "a header name").with_source(source))?;
    // Over HTTP/2, a request with spaces there is malformed.
    if value.trim_matches([' ', '\t']) != value {
        let expected = "a header value without spaces at its ends";
        return Err(ConfigError::new("header", expected));
    }
    let value = HeaderValue::try_from(value).map_err(|source| {
        ConfigError::new("header", "a header value, without control characters").with_source(source)
    })?;
    if RESERVED.contains(&name) || signed.contains(&name) || name.as_str().starts_with("webhook-") {
        return Err(ConfigError::new(
            "header",
            "a name that neither the transport nor a signer uses",
        ));
    }
    Ok((name, value))
}

fn check_timeout(field: &'static str, timeout: Duration) -> Result<(), ConfigError> {
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        Err(ConfigError::new(
            field,
            "more than zero and at most an hour",
        ))
    } else {
        Ok(())
    }
}

impl fmt::Debug for EndpointBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointBuilder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::TimestampedSigner;

    fn refused(builder: EndpointBuilder) -> &'static str {
        builder.build().unwrap_err().field()
    }

    #[test]
    fn a_url_that_cannot_be_posted_to_is_refused() {
        for url in [
            "",
            "example.com",
            "/path",
            "ftp://example.com",
            "file:///etc/passwd",
            "http://",
            "http://user@example.com",
            "http://:password@example.com",
            "http://example.com/#part",
            "http://example.com:0/",
            "http://example.com:99999/",
            "unix:/run/socket",
            " http://example.com/ ",
            "http://example.com/a\nb",
            "http:\\\\example.com\\x",
            "http:example.com/x",
            "http:///example.com/x",
            "http://example.com/a b",
        ] {
            assert_eq!(refused(Endpoint::builder(url)), "url", "{url}");
        }
    }

    /// By tables of Unicode, for which the lock file chooses a crate.
    #[test]
    fn an_international_host_is_called_by_its_ascii_name() {
        for (host, called) in [
            ("Stra\u{df}e.test", "xn--strae-oqa.test"),
            ("E\u{301}te\u{301}.test", "xn--t-9fab.test"),
            ("\u{65e5}\u{672c}\u{3002}test", "xn--wgv71a.test"),
            (
                "\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}.test",
                "xn--mgba3gch31f060k.test",
            ),
            ("\u{ff11}\u{ff12}\u{ff17}.0.0.1", "127.0.0.1"),
        ] {
            let endpoint = Endpoint::new(format!("https://{host}/")).unwrap();
            assert_eq!(endpoint.uri().host(), Some(called), "{host}");
        }
        // Of both directions, with a joiner that joins nothing, and not what its name in ASCII says.
        for host in ["\u{5d0}a.test", "a\u{200d}b.test", "xn--a.test"] {
            assert_eq!(
                refused(Endpoint::builder(format!("https://{host}/"))),
                "url",
                "{host}"
            );
        }
    }

    #[test]
    fn the_error_says_what_a_refused_url_should_have() {
        for (url, expected) in [
            ("example.com", "an absolute http or https URL"),
            ("http://", "a host after `://`"),
            ("http://:80/", "a host after `://`"),
            ("http://example.com:99999/", "a port from 1 to 65535"),
            ("http://example.com:0/", "a port other than 0"),
            ("http://exa<mple.com/", "a valid host name"),
            ("http://256.0.0.1/", "a valid IP address"),
            ("http://[::g]/", "a valid IP address"),
            ("http://user@example.com/", "no user name and no password"),
        ] {
            let error = Endpoint::new(url).unwrap_err();
            let said = error.to_string();
            let expected = format!("`url`: expected {expected}");
            assert!(said.starts_with(&expected), "{url}: {said}");
        }
    }

    #[test]
    fn a_host_name_is_no_longer_than_a_name_server_can_be_asked_for() {
        let label = |length| "x".repeat(length);
        let name = |last| [label(63), label(63), label(63), label(last)].join(".");
        for (name, is_allowed) in [
            (label(63), true),
            (label(64), false),
            (name(61), true),
            (name(62), false),
            (format!("{}.", name(61)), true),
            ("a..b".to_owned(), false),
        ] {
            let endpoint = Endpoint::new(format!("http://{name}/"));
            assert_eq!(endpoint.is_ok(), is_allowed, "{name}");
        }
    }

    #[test]
    fn headers_of_the_transport_and_of_the_signature_are_refused() {
        let builder = || Endpoint::builder("http://example.com");
        for name in [
            "Host",
            "content-length",
            "Content-Type",
            "accept-encoding",
            "webhook-signature",
            "Webhook-Id",
            "no spaces",
            "",
        ] {
            assert_eq!(refused(builder().header(name, "x")), "header", "{name}");
        }
        for value in ["a\nb", "a\0", " a", "a ", "a\t"] {
            assert_eq!(
                refused(builder().header("x-ok", value)),
                "header",
                "{value:?}"
            );
        }
        assert!(builder().header("x-ok", "").build().is_ok());
        let endpoint = builder().header("Authorization", "Bearer x").build();
        assert_eq!(endpoint.unwrap().headers()["authorization"], "Bearer x");
    }

    #[test]
    fn signers_have_headers_of_their_own() {
        let builder = || Endpoint::builder("http://example.com");
        let named = |timestamp: &str, signature: &str| {
            let names = [timestamp, signature].map(|name| name.parse().unwrap());
            let [timestamp, signature] = names;
            let signer = TimestampedSigner::new("key").unwrap();
            signer.with_headers(timestamp, signature)
        };
        for (timestamp, signature) in [
            ("x-same", "x-same"),
            ("host", "x-signature"),
            ("x-timestamp", "content-type"),
            ("x-timestamp", "content-length"),
            ("webhook-id", "x-signature"),
        ] {
            let builder = builder().signer(named(timestamp, signature));
            assert_eq!(refused(builder), "signer", "{timestamp} {signature}");
        }
        let both = builder()
            .secret(Secret::generate())
            .signer(named("x-timestamp", "x-signature"));
        let signed = both.clone().build().unwrap();
        let all = (signed.signers().iter()).map(|signer| {
            let headers = signer.header_names().iter();
            headers.map(HeaderName::as_str).collect::<Vec<_>>()
        });
        let standard = vec!["webhook-id", "webhook-timestamp", "webhook-signature"];
        let timestamped = vec!["x-timestamp", "x-signature"];
        assert_eq!(all.collect::<Vec<_>>(), [standard, timestamped]);
        assert_eq!(refused(both.clone().header("X-Signature", "x")), "header");
        let twice = both.signer(named("x-other", "x-signature"));
        assert_eq!(refused(twice), "signer");
        let overlapping = builder()
            .secret(Secret::generate())
            .signer(named("webhook-timestamp", "x-signature"));
        assert_eq!(refused(overlapping), "signer");
    }

    #[test]
    fn timeouts_out_of_range_are_refused() {
        let builder = || Endpoint::builder("http://example.com");
        assert_eq!(refused(builder().timeout(Duration::ZERO)), "timeout");
        assert_eq!(refused(builder().timeout(Duration::MAX)), "timeout");
        assert!(builder().timeout(MAX_TIMEOUT).build().is_ok());
        let longer = MAX_TIMEOUT + Duration::from_nanos(1);
        assert_eq!(refused(builder().timeout(longer)), "timeout");
        let builder = builder().first_byte_timeout(Duration::ZERO);
        assert_eq!(refused(builder), "first_byte_timeout");
    }

    #[test]
    fn debug_output_contains_no_key() {
        let endpoint = Endpoint::builder("http://example.com:8080/services/hidden?key=hidden")
            .header("authorization", "hidden")
            .secret(Secret::generate())
            .build();
        let shown = format!("{:?}", endpoint.unwrap());
        assert!(!shown.contains("hidden"), "{shown}");
        assert!(
            shown.contains(r#"origin: "http://example.com:8080""#),
            "{shown}"
        );
    }
}
