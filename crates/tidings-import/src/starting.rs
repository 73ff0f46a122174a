use std::time::Duration;

use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::{Client, Config};
use tokio::time::{sleep, timeout};

use crate::database::{IS_UNFINISHED, batch, is_in_use, value};
use crate::{Error, Part};

/// The first pause between two looks whether the program can be seen. They become longer, up to a tenth of the reply
/// limit: the database ends a transaction that is idle for three fifths of it.
const PAUSE: Duration = Duration::from_millis(50);

/// Shared by programs that start. It lasts as long as a transaction, because a session may be shared behind a pooler.
const LOCK: &str = "
    SELECT pg_advisory_xact_lock_shared(hashtextextended(current_schema()::text, 6074931807742216))";

/// Held alone while an import begins: from its look at the database until its mark can be seen.
pub(crate) const LOCK_ALONE: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended(current_schema()::text, 6074931807742216))";

/// A program that starts to use a database. No import begins as long as this exists.
///
/// An import sees a running program by its [lease](Part::lease). One that starts has none yet: without this, an import
/// could begin after the program has asked whether the database is [unfinished](crate::is_unfinished).
#[derive(Debug)]
#[must_use = "an import may begin once it is dropped"]
pub struct Starting {
    config: Config,
    client: Client,
}

impl Starting {
    /// Keeps imports out, unless one has begun.
    ///
    /// [`until_in_use`](Self::until_in_use) must run from then on: the database ends a transaction that is
    /// [idle](Config::begin).
    ///
    /// # Errors
    ///
    /// [`Error::Unfinished`]; [`Error::Running`] when an import does not get on with its begin; [`Error::Target`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn begin(config: &Config) -> Result<Self, Error> {
        let client = config.connect().await?;
        // For the lock, and for the replies.
        let limit = config.reply_limit();
        let asking = ask(&client, config);
        match timeout(limit * 2, asking).await {
            Ok(Ok(true)) => return Err(Error::Unfinished),
            Ok(asked) => asked?,
            Err(_elapsed) => return Err(tidings_postgres::Error::late().into()),
        };
        let config = config.clone();
        Ok(Self { config, client })
    }

    /// Keeps imports out until the database shows that one of the parts is in use, by this program or another one: from
    /// then on an import sees it. That may take as long as the database takes no writes.
    ///
    /// # Errors
    ///
    /// [`Error::Unfinished`] or [`Error::Running`] when the connection was lost, and an import has begun meanwhile: the
    /// program must end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets imports begin.
    pub async fn until_in_use(mut self, parts: &[Part]) -> Result<(), Error> {
        let mut pause = PAUSE;
        loop {
            let looking = timeout(self.config.reply_limit(), self.is_in_use(parts));
            match looking.await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => {}
                // The lock is lost with the transaction. If it is not lost yet, an import could wait for this one, and the next
                // one for the import.
                Ok(Err(_)) | Err(_) => {
                    drop(self.client);
                    self = again(self.config).await?;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.config.reply_limit() / 10);
        }
    }

    /// Locks no table beyond the look: a migration would wait for that. The savepoint ends with the look, too: another
    /// one of its name would be within it, and the server would keep a level for each look.
    async fn is_in_use(&self, parts: &[Part]) -> Result<bool, Error> {
        batch(&self.client, "SAVEPOINT look").await?;
        let is_in_use = is_in_use(&self.client, parts).await?;
        batch(&self.client, "ROLLBACK TO look; RELEASE look").await?;
        Ok(is_in_use)
    }
}

/// Takes the lock; returns whether an import was begun and not finished.
async fn ask(client: &Client, config: &Config) -> Result<bool, Error> {
    let (begin, limit) = (config.begin(), config.reply_limit().as_millis().max(1));
    batch(client, &format!("{begin} SET LOCAL lock_timeout = {limit}")).await?;
    match client.batch_execute(LOCK).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(Error::Running);
        }
        locked => locked.map_err(Error::statement)?,
    }
    value(client, IS_UNFINISHED).await
}

async fn again(config: Config) -> Result<Starting, Error> {
    loop {
        sleep(PAUSE).await;
        match Starting::begin(&config).await {
            Err(Error::Target(_)) => {}
            begun => return begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_test_support::Schema;

    use super::*;

    #[tokio::test]
    async fn regression_a_look_leaves_no_savepoint() {
        let schema = Schema::create().await;
        let config = Config::new(&schema.url()).unwrap();
        let starting = Starting::begin(&config).await.unwrap();
        assert!(!starting.is_in_use(&[]).await.unwrap());
        let release = starting.client.batch_execute("RELEASE look").await;
        let code = release.unwrap_err().code().cloned();
        assert_eq!(code, Some(SqlState::S_E_INVALID_SPECIFICATION));
    }
}
