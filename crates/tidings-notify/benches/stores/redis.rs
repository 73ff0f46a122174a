use std::sync::Arc;

use tidings_notify::Store;
use tidings_notify::redis::{Config, RedisOptions, RedisStore};
use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::redis::{self, cmd};

use crate::raw::{Raw, TYPE, payload};

/// One connection, and a script that draws the numbers.
pub(crate) struct Alone {
    connection: MultiplexedConnection,
    /// The digest of the script.
    append: String,
    key: String,
}

const APPEND: &str = "
    local reply = {}
    for at = 3, #ARGV, 2 do
      local user = ARGV[at]
      local seq = redis.call('HINCRBY', KEYS[1] .. ':log:' .. user, 'top', 1)
      redis.call('XADD', KEYS[1] .. ':event:' .. user, 'MAXLEN', '~', 10000, seq .. '-0',
        't', ARGV[1], 'a', ARGV[2], 'p', ARGV[at + 1])
      table.insert(reply, seq)
    end
    return reply";

pub(crate) async fn engines() -> (Arc<dyn Store>, Alone) {
    let server = std::env::var("REDIS_URL").expect("scripts/services sets REDIS_URL");
    let prefix = format!("bench:{:016x}", fastrand::u64(..));
    let options = RedisOptions::default().with_prefix(&*prefix);
    let store = RedisStore::open(Config::new(&server).unwrap(), options);
    let client = redis::Client::open(server).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let append = cmd("SCRIPT")
        .arg("LOAD")
        .arg(APPEND)
        .query_async(&mut connection)
        .await
        .unwrap();
    let alone = Alone {
        connection,
        append,
        key: format!("{prefix}:alone"),
    };
    (Arc::new(store.await.unwrap()), alone)
}

impl Raw for Alone {
    async fn append(&self, users: usize, events: usize) {
        let mut call = cmd("EVALSHA");
        call.arg(&self.append)
            .arg(1)
            .arg(&self.key)
            .arg(TYPE)
            .arg(0);
        for event in 0..events {
            call.arg(format!("user-{}", event % users)).arg(payload());
        }
        let mut connection = self.connection.clone();
        let seqs: Vec<u64> = call.query_async(&mut connection).await.unwrap();
        assert_eq!(seqs.len(), events);
    }
}
