use crate::{Error, Membership, Pattern, Topic};

/// The topics and patterns of one [`Subscription`](crate::Subscription) or
/// [`Listener`](crate::Listener), which can change while it lives.
///
/// A message that several of them match is delivered once.
pub struct Topics {
    membership: Box<dyn Membership>,
}

impl Topics {
    pub(crate) fn new(membership: impl Membership) -> Self {
        Self {
            membership: Box::new(membership),
        }
    }

    /// Adds a topic: the subscription gets its messages from now on. A topic that is there already
    /// stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the broker is closed, [`Error::Backend`] when its server cannot be
    /// reached or refuses the topic.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the topic added or not.
    pub async fn add(&self, topic: &Topic) -> Result<(), Error> {
        self.membership.join(topic).await
    }

    /// Removes a topic: messages that are published from now on do not arrive, unless a pattern matches
    /// them. Messages in the mailbox stay there. A topic that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the broker is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the topic removed or not.
    pub async fn remove(&self, topic: &Topic) -> Result<(), Error> {
        self.membership.leave(topic).await
    }

    /// Adds a pattern: the subscription gets the messages of every topic that matches from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NoPatterns`] when the broker does not support patterns, [`Error::Closed`] once it is
    /// closed, [`Error::Backend`] when its server cannot be reached or refuses the pattern.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the pattern added or not.
    pub async fn add_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        self.membership.join_pattern(pattern).await
    }

    /// Removes a pattern: messages that it alone matches do not arrive from now on. Topics and other
    /// patterns stay. A pattern that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Error::NoPatterns`] when the broker does not support patterns, [`Error::Closed`] once it is
    /// closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the pattern removed or not.
    pub async fn remove_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        self.membership.leave_pattern(pattern).await
    }
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").finish_non_exhaustive()
    }
}
