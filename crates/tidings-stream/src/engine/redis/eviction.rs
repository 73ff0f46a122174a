//! Noticing a server that removes keys of its own accord.

use tidings_redis::redis::cmd;

use super::scripts;
use super::scripts::Scripts;
use crate::Result;

/// Warns of a server that would make room by removing parts of streams.
pub(super) async fn warn(scripts: &Scripts) {
    match ask(scripts).await {
        Ok(Some(policy)) => tracing::warn!(
            maxmemory_policy = policy,
            "the Redis server may remove parts of streams: it needs maxmemory-policy noeviction"
        ),
        Ok(None) => {}
        Err(error) => {
            // A user may not be allowed to ask.
            let error: &dyn std::error::Error = &error;
            tracing::debug!(
                error,
                "the Redis server does not say whether it evicts keys"
            );
        }
    }
}

async fn ask(scripts: &Scripts) -> Result<Option<String>> {
    let mut info = cmd("INFO");
    info.arg("memory");
    let reply: String = scripts::read(scripts.command(&info).await?)?;
    Ok(policy(&reply))
}

/// The policy by which a server evicts keys; `None` when it does not.
fn policy(info: &str) -> Option<String> {
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let policy = field("maxmemory_policy")?;
    let is_limited = field("maxmemory").is_some_and(|limit| limit != "0");
    (is_limited && policy != "noeviction").then(|| policy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_counts_where_there_is_a_limit() {
        let info = |limit: &str, policy: &str| {
            format!("used_memory:1\r\nmaxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n")
        };
        assert_eq!(policy(&info("0", "allkeys-lru")), None);
        assert_eq!(policy(&info("1000", "noeviction")), None);
        let evicting = policy(&info("1000", "allkeys-lru"));
        assert_eq!(evicting.as_deref(), Some("allkeys-lru"));
        // Even one that spares what has no time to live takes publish keys too early.
        let evicting = policy(&info("1000", "volatile-ttl"));
        assert_eq!(evicting.as_deref(), Some("volatile-ttl"));
        assert_eq!(policy(""), None);
    }
}
