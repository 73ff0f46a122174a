//! The scripts of the store.

tidings_redis::scripts! {
    /// A script. Its text says what it takes and returns. What takes no room to speak of continues where the
    /// server has none left.
    pub(super) enum Script in "src/store/redis/lua" {
        Append = "": "log" "edit" "append",
        Read = " flags=no-writes": "log" "read",
        Heads = " flags=no-writes": "log" "heads",
        Find = " flags=no-writes": "log" "find",
        Before = " flags=no-writes": "log" "before",
        Inbox = " flags=no-writes": "log" "inbox",
        Change = " flags=allow-oom": "log" "edit" "change",
        Deliver = " flags=allow-oom": "log" "deliver",
        Changes = " flags=no-writes": "log" "changes",
        Cleanup = " flags=allow-oom": "log" "edit" "cleanup",
    }
}

pub(super) type Scripts = tidings_redis::Scripts<Script>;
