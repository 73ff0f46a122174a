//! A look at a database that changes nothing in it, for `tidings doctor`.

mod secrets;

use jiff::{SignedDuration, Timestamp};

pub use self::secrets::Secrets;
use super::{DatabaseUrl, RedisUrl, postgres, redis, sqlite};
use crate::explain::explain;
use crate::finding::Finding;

/// What the finding is about.
pub(super) const STORE: &str = "store";
pub(super) const CLOCK: &str = "clock";

/// The component, the version that was found and the one that this program knows, if the tables are newer. Others
/// may have tables too.
pub(super) fn newer(
    known: &[(&'static str, usize)],
    component: &str,
    found: i64,
) -> Option<(&'static str, usize, usize)> {
    let (component, known) = *known.iter().find(|(name, _)| *name == component)?;
    let found = usize::try_from(found).ok().filter(|found| *found > known)?;
    Some((component, found, known))
}

/// Looks at the database, and at the secrets in it.
pub async fn inspect(url: &DatabaseUrl, mut secrets: Secrets) -> (Vec<Finding>, Secrets) {
    match url {
        DatabaseUrl::Sqlite(path) => {
            let path = path.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let findings = sqlite::inspection::inspect(&path, &mut secrets);
                (findings, secrets)
            });
            looked.await.unwrap_or_else(|error| {
                let message = format!("cannot look at the file: {error}");
                (vec![Finding::error(STORE, message)], Secrets::default())
            })
        }
        DatabaseUrl::Postgres(url) => {
            let findings = postgres::inspection::inspect(url, &mut secrets).await;
            (findings, secrets)
        }
    }
}

/// Connects to a Redis server and asks whether it is there.
pub async fn inspect_redis(url: &RedisUrl) -> Vec<Finding> {
    const REDIS: &str = "redis";
    let config = tidings_redis::Config::new(url.expose());
    let warning = config.as_ref().ok().and_then(redis::without_tls);
    let mut findings = Vec::from_iter(warning.map(|it| Finding::warning(REDIS, it)));
    let connected = async { config?.connect(|_message| {}).await };
    findings.push(match connected.await {
        Ok(_connection) => Finding::ok(REDIS, format!("{url} replies")),
        Err(error) if error.is_away() => Finding::warning(
            REDIS,
            format!(
                "cannot use {url}: {}; a server starts without it and uses it later",
                explain(&error)
            ),
        ),
        Err(error) => Finding::error(REDIS, format!("cannot use {url}: {}", explain(&error))),
    });
    findings
}

/// A clock that differs by this much makes times in the log and the end of tokens wrong.
const NOTICEABLE: SignedDuration = SignedDuration::from_secs(2);
const TOO_MUCH: SignedDuration = SignedDuration::from_secs(60);

/// Compares another clock, which was read between two looks at ours.
pub fn compare_clocks(
    whose: &str,
    theirs: Timestamp,
    before: Timestamp,
    after: Timestamp,
    resolution: SignedDuration,
) -> Finding {
    // It was read at some time between the two.
    let ahead = theirs.duration_since(after);
    let behind = before.duration_since(theirs) - resolution;
    let (difference, side) = if ahead > behind {
        (ahead, "ahead of")
    } else {
        (behind, "behind")
    };
    if difference < NOTICEABLE {
        return Finding::ok(
            CLOCK,
            format!("the clock of {whose} agrees with this machine's"),
        );
    }
    let message = format!(
        "the clock of {whose} is {} s {side} this machine's: let both follow a time server",
        difference.as_secs()
    );
    if difference < TOO_MUCH {
        Finding::warning(CLOCK, message)
    } else {
        Finding::error(CLOCK, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn clocks_are_compared_beyond_what_a_reply_takes() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let zero = SignedDuration::ZERO;
        let compared = |theirs, resolution| {
            let finding = compare_clocks("the database", at(theirs), at(0), at(10), resolution);
            (finding.status, finding.message)
        };
        for theirs in [-1, 0, 10, 11] {
            assert_eq!(compared(theirs, zero).0, Status::Ok, "{theirs}");
        }
        let (status, message) = compared(12, zero);
        assert_eq!(status, Status::Warning);
        assert!(message.contains("2 s ahead of this machine's"), "{message}");
        let (status, message) = compared(-2, zero);
        assert_eq!(status, Status::Warning);
        assert!(message.contains("2 s behind this machine's"), "{message}");
        assert_eq!(compared(-2, SignedDuration::from_secs(1)).0, Status::Ok);
        assert_eq!(compared(-59, zero).0, Status::Warning);
        assert_eq!(compared(-60, zero).0, Status::Error);
        assert_eq!(compared(70, zero).0, Status::Error);
    }
}
