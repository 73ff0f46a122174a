//! The hosts of one URL, each with its part of the time.

use std::sync::Arc;
use std::time::Duration;

use tidings_reconnect::is_this_machine;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

use crate::config::RawConnection;
use crate::tls::Tls;

/// A connection, with what is known of the way.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) connection: RawConnection,
    /// The host, if it may be another machine and the connection to it has no TLS.
    pub(crate) plain_host: Option<String>,
}

/// Why there is no connection.
pub(crate) enum Failure {
    Library(tokio_postgres::Error),
    Late,
}

/// How a connection is protected.
pub(crate) struct Way {
    /// How TLS is made; `None` if there is none.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// Whether there may be no TLS where the connection with TLS cannot be made.
    pub(crate) falls_back: bool,
}

impl Way {
    /// Connects to one host. Returns the connection, and whether it has TLS.
    ///
    /// As for libpq, one that does not demand TLS is made without where the handshake fails, or where the server has
    /// no rule that admits the user with it.
    async fn connect(
        &self,
        host: &Config,
    ) -> Result<(Client, RawConnection, bool), tokio_postgres::Error> {
        let tls = Tls::new(self.tls.clone());
        let failure = match host.connect(tls.clone()).await {
            Ok((client, connection)) => return Ok((client, connection, tls.is_used())),
            Err(failure) => failure,
        };
        let is_refused = failure.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        if !self.falls_back || !tls.is_begun() || (tls.is_used() && !is_refused) {
            return Err(failure);
        }
        let mut plain = host.clone();
        plain.ssl_mode(SslMode::Disable);
        match plain.connect(Tls::new(None)).await {
            Ok((client, connection)) => Ok((client, connection, false)),
            // What the operator can mend.
            Err(_plain) => Err(failure),
        }
    }
}

/// Connects to the first host that replies and is wanted. Each gets its part of the time that is left: the library
/// limits only how long a socket takes to connect, so that a host which accepts connections and says nothing would use up
/// the time of those after it.
pub(crate) async fn connect(
    config: &Config,
    way: &Way,
    limit: Duration,
) -> Result<Connected, Failure> {
    let end = tokio::time::Instant::now() + limit;
    let mut hosts = each(config);
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut hosts);
    }
    let mut failure = Failure::Late;
    let mut left = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
    for mut host in hosts {
        let part = end.saturating_duration_since(tokio::time::Instant::now()) / left;
        left -= 1;
        if left > 0 && host.get_connect_timeout().is_none() {
            // A host may have several addresses.
            host.connect_timeout(part);
        }
        match tokio::time::timeout(part, way.connect(&host)).await {
            Ok(Ok((client, connection, has_tls))) => {
                return Ok(Connected {
                    client,
                    connection,
                    plain_host: remote_host(&host).filter(|_| !has_tls),
                });
            }
            Ok(Err(error)) => failure = Failure::Library(error),
            Err(_elapsed) => failure = Failure::Late,
        }
    }
    Err(failure)
}

/// The host, unless it is this machine for sure.
fn remote_host(config: &Config) -> Option<String> {
    let Some(Host::Tcp(name)) = config.get_hosts().first() else {
        return None;
    };
    let is_here = match config.get_hostaddrs().first() {
        Some(address) => address.is_loopback(),
        None => is_this_machine(name),
    };
    (!is_here).then(|| name.clone())
}

/// The same for each host alone.
fn each(config: &Config) -> Vec<Config> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let count = hosts.len().max(addresses.len());
    let ports = config.get_ports();
    let is_whole = |len| len == 0 || len == count;
    let are_ports_whole = ports.len() <= 1 || ports.len() == count;
    if count < 2 || !is_whole(hosts.len()) || !is_whole(addresses.len()) || !are_ports_whole {
        // The library says what is wrong with it.
        return vec![config.clone()];
    }
    let of_host = |index| {
        let mut one = without_hosts(config);
        match hosts.get(index) {
            Some(Host::Tcp(name)) => _ = one.host(name),
            #[cfg(unix)]
            // As for libpq, TLS is not for Unix sockets.
            Some(Host::Unix(folder)) => _ = one.host_path(folder).ssl_mode(SslMode::Disable),
            None => {}
        }
        if let Some(address) = addresses.get(index) {
            one.hostaddr(*address);
        }
        if let Some(port) = ports.get(index).or(ports.first()) {
            one.port(*port);
        }
        one
    };
    (0..count).map(of_host).collect()
}

/// All that does not name a host.
fn without_hosts(config: &Config) -> Config {
    let mut copy = Config::new();
    config.get_user().map(|it| copy.user(it));
    config.get_password().map(|it| copy.password(it));
    config.get_dbname().map(|it| copy.dbname(it));
    config.get_options().map(|it| copy.options(it));
    (config.get_application_name()).map(|it| copy.application_name(it));
    (config.get_connect_timeout()).map(|it| copy.connect_timeout(*it));
    (config.get_tcp_user_timeout()).map(|it| copy.tcp_user_timeout(*it));
    (config.get_keepalives_interval()).map(|it| copy.keepalives_interval(it));
    (config.get_keepalives_retries()).map(|it| copy.keepalives_retries(it));
    copy.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every parameter that is not of a host.
    const OTHERS: &str = "user=anna password=secret dbname=x options='-c a=b' application_name=app sslmode=require \
        sslnegotiation=direct connect_timeout=3 tcp_user_timeout=4 keepalives=0 keepalives_idle=5 \
        keepalives_interval=6 keepalives_retries=7 target_session_attrs=read-write channel_binding=require \
        load_balance_hosts=random";

    #[test]
    fn each_host_has_all_that_the_url_says() {
        let config = |hosts: &str| format!("{hosts} {OTHERS}").parse::<Config>().unwrap();
        let several = config("host=one,/two hostaddr=127.0.0.1,127.0.0.2 port=1,2");
        let mut socket = config("host=/two hostaddr=127.0.0.2 port=2");
        socket.ssl_mode(SslMode::Disable);
        let expected = [config("host=one hostaddr=127.0.0.1 port=1"), socket];
        assert_eq!(each(&several), expected);
        let expected = [config("host=one port=9"), config("host=two port=9")];
        assert_eq!(each(&config("host=one,two port=9")), expected);
        for whole in [
            "host=one",
            "hostaddr=::1 port=1",
            "host=one,two port=1,2,3",
            "",
        ] {
            assert_eq!(each(&config(whole)), [config(whole)]);
        }
    }
}
