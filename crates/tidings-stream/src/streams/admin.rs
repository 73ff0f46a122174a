//! Looking at streams and groups, and moving them by hand.

use super::Streams;
use crate::{Error, Member, Message, MessageId, PendingMessage, StartFrom, StreamStats};

impl Streams {
    /// The streams of this handle's application and namespace, in the order of their names, as the other
    /// calls of this handle take them. Dead letters are streams like any other.
    ///
    /// # Errors
    ///
    /// [Those of all calls](Self#errors).
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        // The shortest name that the settings make, less its own part.
        let probe = self.name("x")?;
        let prefix = &probe.as_str()[..probe.as_str().len() - 1];
        let names = self.shared.engine.list(prefix).await?;
        Ok(names.iter().map(|name| name.name().to_owned()).collect())
    }

    /// Figures of a stream and its groups. A stream that does not exist has none.
    ///
    /// # Errors
    ///
    /// [Those of all calls](Self#errors).
    pub async fn stats(&self, stream: &str) -> Result<StreamStats, Error> {
        self.shared.engine.stats(&self.name(stream)?).await
    }

    /// Creates a group that is to have messages from `start` on, unless it exists. A subscription does this
    /// by itself; a group that is created before has what is published until then.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], also for a group whose name begins with `tidings.`; [`Error::StartAhead`];
    /// [`Error::Full`]; and [those of all calls](Self#errors).
    pub async fn create_group(
        &self,
        stream: &str,
        group: &str,
        start: StartFrom,
    ) -> Result<(), Error> {
        let group = self.own_group(stream, group)?;
        self.shared.engine.open_group(&group, start).await
    }

    /// Deletes a group, with its position and what it has pending; `false` when there is none.
    ///
    /// Its consumers should be closed first: those that are left end with [`Error::UnknownGroup`]. The
    /// next subscription creates the group again.
    ///
    /// # Errors
    ///
    /// [Those of all calls](Self#errors).
    pub async fn delete_group(&self, stream: &str, group: &str) -> Result<bool, Error> {
        let group = self.group(stream, group)?;
        self.shared.engine.delete_group(&group).await
    }

    /// Trims every stream of the engine to its stored retention now, rather than at the janitor's
    /// next round. Returns how many messages were removed.
    ///
    /// # Errors
    ///
    /// [Those of all calls](Self#errors).
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have trimmed some streams and others not.
    pub async fn trim(&self) -> Result<u64, Error> {
        self.shared.engine.trim().await
    }

    /// Moves a group to another position, for all of its consumers: back, to replay what it has
    /// handled, or ahead, to skip what it has not. What it has pending is dropped: handlers that run
    /// finish, and their ends count for nothing.
    ///
    /// Figures such as [`dead_lettered`](crate::GroupStats::dead_lettered) continue.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], [`Error::StartAhead`], and [those of all calls](Self#errors).
    pub async fn seek(&self, stream: &str, group: &str, to: StartFrom) -> Result<(), Error> {
        let group = self.group(stream, group)?;
        self.shared.engine.seek(&group, to).await
    }

    /// Deletes one message; `false` when there is none. The messages after it keep their ids, and its publish
    /// key stays in use.
    ///
    /// Groups that have yet to handle it skip it and count it as [lost](crate::GroupStats::lost_to_trim); one
    /// that had failed holds its ordering key back no longer. Dead letters are messages of their own streams.
    /// Until it is trimmed, its number counts in the [figures](crate::StreamStats) of the stream.
    ///
    /// A handler that has the message keeps what it was given, and its claim lasts as before, so that no other
    /// message of its ordering key is handled beside it. Acknowledging it counts as usual, also
    /// [in a transaction](crate#in-a-transaction). If it fails, it does not come again and makes no dead letter:
    /// it is lost.
    ///
    /// # Errors
    ///
    /// [Those of all calls](Self#errors).
    pub async fn delete_message(&self, stream: &str, id: MessageId) -> Result<bool, Error> {
        let stream = self.name(stream)?;
        self.shared.engine.delete_message(&stream, id).await
    }

    /// Deletes a stream with its messages, groups and publish keys; `false` when there is none.
    ///
    /// Its consumers should be closed first: those that are left end with [`Error::UnknownGroup`]. The
    /// next publish or subscription creates the stream again, and its ids begin at 1.
    ///
    /// # Errors
    ///
    /// [Those of all calls](Self#errors).
    pub async fn delete_stream(&self, stream: &str) -> Result<bool, Error> {
        self.shared.engine.delete_stream(&self.name(stream)?).await
    }

    /// Reads up to `max` messages without a group, from the first one after `after` on, or from the
    /// oldest; fewer where they are large, at most 4,096 on SQLite, PostgreSQL and Redis, and none at the
    /// end. No group moves.
    ///
    /// # Errors
    ///
    /// [Those of all calls](Self#errors).
    pub async fn read(
        &self,
        stream: &str,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Message>, Error> {
        self.shared
            .engine
            .read(&self.name(stream)?, after, max)
            .await
    }

    /// Lists up to `max` messages that a group has begun and not finished, in the order of their
    /// ids, from the first one after `after` on.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], and [those of all calls](Self#errors).
    pub async fn pending(
        &self,
        stream: &str,
        group: &str,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<PendingMessage>, Error> {
        let group = self.group(stream, group)?;
        self.shared.engine.pending(&group, after, max).await
    }

    /// Lists the consumers of a group, of all processes, that are alive or hold a message.
    ///
    /// One that crashed is taken to be alive for up to 45 seconds.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], and [those of all calls](Self#errors).
    pub async fn members(&self, stream: &str, group: &str) -> Result<Vec<Member>, Error> {
        let group = self.group(stream, group)?;
        self.shared.engine.members(&group).await
    }
}
