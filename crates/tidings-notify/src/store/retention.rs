/// What a store removes beside what is too old.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Retention {
    /// The most events that are left of each user.
    pub(super) max_events: Option<u64>,
    /// Whether the oldest unread event of the inbox, and what came after it, stay all the same.
    pub(super) keeps_unread: bool,
}
