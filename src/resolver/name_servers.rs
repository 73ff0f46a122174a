use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverOpts};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use tokio::time::Instant;

use super::{Resolve, ResolveError, Resolved};

/// How long one question to one name server may take, and how often it is asked. Together they are
/// less than the default connect timeout, so that an attempt learns that the server is silent.
const TIMEOUT: Duration = Duration::from_secs(2);
const TRIES: usize = 2;

/// Asks the name servers of the system's configuration.
///
/// The configuration is read when it is first needed, and again after no server replied: a machine
/// may have moved to another network. Nothing is cached here.
#[derive(Debug, Default)]
pub(crate) struct NameServers(Mutex<Option<Arc<TokioResolver>>>);

impl NameServers {
    fn resolver(&self) -> Result<Arc<TokioResolver>, NetError> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = &*current {
            return Ok(Arc::clone(resolver));
        }
        let mut builder = TokioResolver::builder_tokio()?;
        adjust(builder.options_mut());
        let resolver = Arc::new(builder.build()?);
        *current = Some(Arc::clone(&resolver));
        Ok(resolver)
    }

    fn reconfigure(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[async_trait]
impl Resolve for NameServers {
    async fn resolve(&self, name: &str) -> Result<Resolved, ResolveError> {
        let resolver = self.resolver().map_err(unavailable)?;
        let found = look_up(&resolver, name).await;
        if matches!(found, Err(ResolveError::Unavailable(_))) {
            self.reconfigure();
        }
        found
    }
}

fn adjust(options: &mut ResolverOpts) {
    options.timeout = TIMEOUT;
    options.attempts = TRIES;
    options.cache_size = 0;
    // Both at once: the connector tries one after the other.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
}

async fn look_up(resolver: &TokioResolver, name: &str) -> Result<Resolved, ResolveError> {
    match resolver.lookup_ip(name).await {
        Ok(found) => {
            let valid_until = Instant::from_std(found.valid_until());
            let ttl = valid_until.saturating_duration_since(Instant::now());
            Ok(found.iter().collect::<Resolved>().with_ttl(ttl))
        }
        // The server replied, if only that it cannot find out.
        Err(NetError::Dns(DnsError::NoRecordsFound(reply))) => negative(reply.response_code),
        Err(NetError::Dns(DnsError::ResponseCode(code))) => negative(code),
        Err(error @ NetError::Proto(_)) => Err(ResolveError::NotFound(error.into())),
        Err(error) => Err(unavailable(error)),
    }
}

/// What a reply without addresses says by its code.
fn negative(code: ResponseCode) -> Result<Resolved, ResolveError> {
    let failure = match code {
        ResponseCode::NoError => return Ok(Resolved::default()),
        ResponseCode::NXDomain => Failure::NoSuchName,
        code => Failure::Code(code),
    };
    Err(ResolveError::NotFound(failure.into()))
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the name does not exist")]
    NoSuchName,
    #[error("the name server replied: {0}")]
    Code(ResponseCode),
}

fn unavailable(error: NetError) -> ResolveError {
    ResolveError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use tokio::net::UdpSocket;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// A resolver whose only name server is a socket of the test.
    fn asking(socket: &UdpSocket) -> TokioResolver {
        let address = socket.local_addr().unwrap();
        let mut connection = ConnectionConfig::udp();
        connection.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![connection]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        adjust(builder.options_mut());
        builder.options_mut().timeout = Duration::from_millis(100);
        builder.build().unwrap()
    }

    async fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test]
    async fn names_of_this_machine_need_no_name_server() {
        let resolver = asking(&socket().await);
        let found = look_up(&resolver, "localhost").await.unwrap();
        assert!(found.addresses.iter().all(std::net::IpAddr::is_loopback));
        assert!(!found.addresses.is_empty());
    }

    #[tokio::test]
    async fn a_reply_that_there_is_no_such_name_is_distinguished_from_silence() {
        let server = socket().await;
        let resolver = asking(&server);
        let silent = look_up(&resolver, "a.example.com.").await;
        assert!(
            matches!(silent, Err(ResolveError::Unavailable(_))),
            "{silent:?}"
        );

        // The codes of RFC 1035, section 4.1.1: no error, a failure of the server, no such name.
        for (code, text) in [
            (0, None),
            (2, Some("the name server replied: Server Failure")),
            (3, Some("the name does not exist")),
        ] {
            let server = socket().await;
            let resolver = asking(&server);
            let _replies = AbortOnDropHandle::new(tokio::spawn(async move {
                let mut packet = [0; 512];
                loop {
                    let (length, from) = server.recv_from(&mut packet).await.unwrap();
                    // It is a response, with this code.
                    packet[2] |= 0x80;
                    packet[3] = code;
                    server.send_to(&packet[..length], from).await.unwrap();
                }
            }));
            let failure = match look_up(&resolver, "b.example.com.").await {
                Ok(found) => {
                    assert!(found.addresses.is_empty(), "{found:?}");
                    None
                }
                Err(ResolveError::NotFound(failure)) => Some(failure.to_string()),
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(failure.as_deref(), text);
        }
    }
}
