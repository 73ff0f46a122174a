use std::collections::HashMap;
use std::sync::Arc;

use tidings_notify::redis::{Config, RedisOptions, RedisStore};
use tidings_notify::{Draft, Store};
use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::redis::{self, cmd};

use crate::raw::Raw;

/// One connection, and a script that draws the numbers.
pub(crate) struct Alone {
    connection: MultiplexedConnection,
    /// The digest of the script.
    append: String,
    key: String,
}

/// ARGV: how many users; for each of them the name and how many events; for each event which user, type,
/// payload and timestamp.
const APPEND: &str = "
    local call, root = redis.call, KEYS[1]
    local time = call('TIME')
    local now, count = time[1] * 1000000 + time[2], tonumber(ARGV[1])
    local changes = call('HINCRBY', root .. ':meta', 'number', count) - count
    local names, tops, reply, add, wake = {}, {}, {}, {}, {}
    for place = 1, count do
      local name, events = ARGV[2 * place], tonumber(ARGV[2 * place + 1])
      local top = call('HINCRBY', root .. ':log:' .. name, 'top', events)
      names[place], tops[place], reply[place] = root .. ':event:' .. name, top - events, top
      add[2 * place - 1], add[2 * place], wake[place] = changes + place, name, name
    end
    for from = 1, count, 500 do
      local to = math.min(from + 499, count)
      call('ZADD', root .. ':changed', unpack(add, 2 * from - 1, 2 * to))
      redis.pcall('PUBLISH', root .. ':wake', table.concat(wake, '\\n', from, to))
    end
    for at = 2 + 2 * count, #ARGV, 4 do
      local place = tonumber(ARGV[at])
      local seq = tops[place] + 1
      tops[place] = seq
      call('XADD', names[place], 'MAXLEN', '~', 10000, seq .. '-0',
        't', ARGV[at + 1], 'p', ARGV[at + 2], 'a', ARGV[at + 3], 's', now, 'l', now)
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
    async fn append(&self, drafts: Vec<Draft>) -> usize {
        let mut places = HashMap::new();
        let mut users: Vec<(&str, usize)> = Vec::new();
        let mut call = cmd("EVALSHA");
        call.arg(&self.append).arg(1).arg(&self.key);
        for draft in &drafts {
            let place = *places.entry(draft.user()).or_insert_with(|| {
                users.push((draft.user().as_str(), 0));
                users.len() - 1
            });
            users[place].1 += 1;
        }
        call.arg(users.len());
        for (name, events) in &users {
            call.arg(*name).arg(*events);
        }
        for draft in &drafts {
            call.arg(places[draft.user()] + 1)
                .arg(draft.event_type().as_str())
                .arg(draft.payload().as_str())
                .arg(draft.timestamp().as_microsecond());
        }
        let mut connection = self.connection.clone();
        let tops: Vec<u64> = call.query_async(&mut connection).await.unwrap();
        assert_eq!(tops.len(), users.len());
        drafts.len()
    }
}
