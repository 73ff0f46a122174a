use std::sync::Arc;
use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::redis::{self, Value, cmd};
use tidings_stream::engine::Engine;
use tidings_stream::redis::{Config, RedisEngine, RedisOptions};

use crate::raw::{PAYLOAD, Raw};

/// Two connections that all share, and a consumer group of Redis' own.
pub(crate) struct Alone {
    publishing: MultiplexedConnection,
    consuming: MultiplexedConnection,
    key: String,
}

const GROUP: &str = "g";

pub(crate) async fn engines() -> (Arc<dyn Engine>, Alone) {
    let server = std::env::var("REDIS_URL").expect("scripts/services sets REDIS_URL");
    let prefix = format!("bench:{:016x}", fastrand::u64(..));
    let options = RedisOptions::default().with_prefix(&*prefix);
    let engine = RedisEngine::open(Config::new(&server).unwrap(), options);
    let engine = Arc::new(engine.await.unwrap());

    let client = redis::Client::open(server).unwrap();
    let alone = Alone {
        publishing: client.get_multiplexed_async_connection().await.unwrap(),
        consuming: client.get_multiplexed_async_connection().await.unwrap(),
        key: format!("{prefix}:alone"),
    };
    let mut create = cmd("XGROUP");
    create
        .arg("CREATE")
        .arg(&alone.key)
        .arg(GROUP)
        .arg("$")
        .arg("MKSTREAM");
    let mut connection = alone.publishing.clone();
    create.exec_async(&mut connection).await.unwrap();
    (engine, alone)
}

impl Raw for Alone {
    async fn publish(&self, batch: usize) {
        let mut pipeline = redis::pipe();
        for _ in 0..batch {
            let add = pipeline.cmd("XADD").arg(&self.key).arg("*");
            add.arg("p").arg(&PAYLOAD[..]).ignore();
        }
        pipeline
            .exec_async(&mut self.publishing.clone())
            .await
            .unwrap();
    }

    async fn consume(&self, batch: usize) -> usize {
        let mut connection = self.consuming.clone();
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP")
            .arg(GROUP)
            .arg("consumer")
            .arg("COUNT")
            .arg(batch);
        read.arg("STREAMS").arg(&self.key).arg(">");
        let reply: Value = read.query_async(&mut connection).await.unwrap();
        let ids = ids(&reply);
        if !ids.is_empty() {
            let mut acknowledge = cmd("XACK");
            acknowledge.arg(&self.key).arg(GROUP).arg(&ids);
            acknowledge.exec_async(&mut connection).await.unwrap();
        }
        ids.len()
    }
}

/// The ids in `[[key, [[id, fields], …]]]`.
fn ids(reply: &Value) -> Vec<&[u8]> {
    let stream = match reply {
        Value::Array(streams) => streams.first(),
        Value::Map(streams) => return streams.first().map_or_else(Vec::new, |(_, m)| of(m)),
        _ => None,
    };
    match stream {
        Some(Value::Array(parts)) => parts.get(1).map_or_else(Vec::new, of),
        _ => Vec::new(),
    }
}

fn of(messages: &Value) -> Vec<&[u8]> {
    let Value::Array(messages) = messages else {
        return Vec::new();
    };
    messages
        .iter()
        .filter_map(|message| match message {
            Value::Array(parts) => match parts.first() {
                Some(Value::BulkString(id)) => Some(&id[..]),
                _ => None,
            },
            _ => None,
        })
        .collect()
}
