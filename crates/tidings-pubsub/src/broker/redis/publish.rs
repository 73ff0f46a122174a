use std::sync::Arc;

use tidings_redis::Error as ServerError;
use tidings_redis::redis::Cmd;

use crate::broker::redis::connection::{Line, SharedConnection};
use crate::{Error, Topic};

/// Sends a message, and returns once the server has replied.
pub(super) async fn publish(
    shared: &SharedConnection,
    line: &Arc<Line>,
    topic: &Topic,
    payload: &[u8],
) -> Result<(), Error> {
    let channel = shared.channels().channel(topic);
    let mut publish = Cmd::with_capacity(3, channel.len() + payload.len() + 64);
    publish.arg("PUBLISH").arg(channel).arg(payload);
    let sent = publish.exec_async(&mut line.connection.multiplexed()).await;
    sent.map_err(|error| {
        let error = ServerError::from(error);
        if error.may_have_been_done() {
            shared.discard(line);
        }
        error.into()
    })
}
