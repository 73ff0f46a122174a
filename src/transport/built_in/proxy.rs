use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderValue, Uri};
use url::Url;

use crate::ConfigError;

/// An HTTP proxy: `https` requests go through a tunnel (`CONNECT`), `http` ones are forwarded.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(super) uri: Uri,
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxy {
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let invalid =
            || ConfigError::new("proxy", "an http URL of a host, such as http://proxy:3128");
        let mut url = Url::parse(text).map_err(|source| invalid().with_source(source))?;
        if url.scheme() != "http" || !url.has_host() || url.path() != "/" || url.query().is_some() {
            return Err(invalid());
        }
        let authorization = authorization(&url);
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(invalid());
        }
        let uri = url.as_str().parse();
        Ok(Self {
            uri: uri.map_err(|source: http::uri::InvalidUri| invalid().with_source(source))?,
            authorization,
        })
    }
}

/// The user name and the password of a URL, as a proxy wants them.
fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut credentials = decode(url.username());
    credentials.push(b':');
    credentials.extend(decode(url.password().unwrap_or_default()));
    let value = format!("Basic {}", BASE64.encode(credentials));
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_where_the_proxy_is_and_who_asks() {
        let proxy = Proxy::parse("http://us%65r:p%3Aw@proxy.internal:3128").unwrap();
        assert_eq!(proxy.uri, "http://proxy.internal:3128/");
        // printf 'user:p:w' | base64
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic dXNlcjpwOnc=");
        assert!(!format!("{proxy:?}").contains("dXNl"));
        let open = Proxy::parse("http://127.0.0.1:8080").unwrap();
        assert_eq!(open.authorization, None);
    }

    #[test]
    fn other_urls_are_refused() {
        for text in [
            "",
            "proxy:3128",
            "https://proxy",
            "socks5://proxy",
            "http://proxy/path",
            "http://proxy/?a=b",
        ] {
            assert_eq!(Proxy::parse(text).unwrap_err().field(), "proxy", "{text}");
        }
    }
}
