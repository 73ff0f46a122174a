//! The scripts of the store.

use std::sync::Arc;

use tidings_redis::Server;
use tidings_redis::redis::{Cmd, FromRedisValue, from_redis_value};

use super::reply;
use crate::StoreError;
use crate::scripts::{Scripts, script};

/// A script. Its text says what it takes and returns.
#[derive(Debug, Clone, Copy)]
pub(super) enum Script {
    Append,
    Read,
    Heads,
    Find,
    Before,
    Inbox,
    Change,
    Deliver,
    Changes,
    Cleanup,
}

/// In the order of [`Script`]. What takes no room to speak of goes on where the server has none left.
const CODES: [&str; 10] = [
    script!("store/redis/lua", "": "log" "edit" "append"),
    script!("store/redis/lua", " flags=no-writes": "log" "read"),
    script!("store/redis/lua", " flags=no-writes": "log" "heads"),
    script!("store/redis/lua", " flags=no-writes": "log" "find"),
    script!("store/redis/lua", " flags=no-writes": "log" "before"),
    script!("store/redis/lua", " flags=no-writes": "log" "inbox"),
    script!("store/redis/lua", " flags=allow-oom": "log" "edit" "change"),
    script!("store/redis/lua", " flags=allow-oom": "log" "deliver"),
    script!("store/redis/lua", " flags=no-writes": "log" "changes"),
    script!("store/redis/lua", " flags=allow-oom": "log" "edit" "cleanup"),
];

/// A server that knows the scripts.
#[derive(Debug)]
pub(super) struct StoreScripts(Scripts<{ CODES.len() }>);

impl StoreScripts {
    pub(super) async fn load(server: Server, root: Arc<str>) -> Result<Self, StoreError> {
        let scripts = Scripts::load(server, root, CODES).await;
        scripts.map(Self).map_err(reply::error)
    }

    /// A call of a script, to which its arguments are added.
    pub(super) fn call(&self, script: Script) -> Cmd {
        self.0.call(script as usize)
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: Script,
        call: &Cmd,
    ) -> Result<T, StoreError> {
        let value = self.0.run(script as usize, call).await;
        from_redis_value(value.map_err(reply::error)?).map_err(StoreError::backend)
    }

    /// A key of the store's own.
    pub(super) fn key(&self, kind: &str) -> String {
        self.0.key(kind)
    }

    pub(super) fn disconnect(&self) {
        self.0.disconnect();
    }
}
