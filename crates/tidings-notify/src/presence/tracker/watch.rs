use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::UserId;
use crate::presence::PresenceError;

/// What a [`Watch`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchItem {
    /// The user came online.
    Online(UserId),
    /// The user has been offline for the [grace time](super::TrackerOptions::with_grace).
    Offline(UserId),
    /// Some reports are missing: the reader is too slow, or the store has lost its data. To know who is
    /// online now, ask [`Tracker::online_users`](super::Tracker::online_users); after this, a user may be
    /// reported as online who was reported so before.
    Lagged,
}

/// Reports users coming online and going offline; made by [`Tracker::watch`](super::Tracker::watch).
///
/// It has a buffer. When that is full, later reports are dropped, and the reader gets
/// [`WatchItem::Lagged`] after what the buffer has. It is also a [`Stream`], which ends when the tracker
/// is closed.
#[derive(Debug)]
#[must_use = "it reports nothing unless it is read"]
pub struct Watch {
    items: mpsc::Receiver<WatchItem>,
}

impl Watch {
    /// Waits for the next report.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Closed`] when the tracker was closed, and everything before was read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<WatchItem, PresenceError> {
        self.items.recv().await.ok_or(PresenceError::Closed)
    }
}

impl Stream for Watch {
    type Item = WatchItem;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        self.get_mut().items.poll_recv(cx)
    }
}

/// The other end of a [`Watch`].
#[derive(Debug)]
pub(super) struct Outlet {
    items: mpsc::Sender<WatchItem>,
    /// Reports are missing, and the reader does not know yet.
    is_lagging: bool,
}

/// A watch whose reader may be this many items behind.
pub(super) fn watch(buffer: usize) -> (Outlet, Watch) {
    let (sender, items) = mpsc::channel(buffer.max(1));
    let outlet = Outlet {
        items: sender,
        is_lagging: false,
    };
    (outlet, Watch { items })
}

impl Outlet {
    /// Reports something; it is dropped when the reader is too slow.
    pub(super) fn report(&mut self, item: WatchItem) {
        self.flush();
        if !self.is_lagging {
            self.is_lagging = matches!(self.items.try_send(item), Err(TrySendError::Full(_)));
        }
    }

    /// Says that reports are missing, as soon as there is room.
    pub(super) fn lose(&mut self) {
        self.is_lagging = true;
        self.flush();
    }

    /// Reports to the reader what is missing, if there is room by now.
    pub(super) fn flush(&mut self) {
        if self.is_lagging {
            self.is_lagging = self.items.try_send(WatchItem::Lagged).is_err();
        }
    }

    /// Whether the reader is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_sees_where_reports_are_missing() {
        let (mut outlet, mut watch) = watch(2);
        let online = |name: &str| WatchItem::Online(UserId::new(name).unwrap());
        for name in ["1", "2", "3", "4"] {
            outlet.report(online(name));
        }
        assert_eq!(watch.next().await.unwrap(), online("1"));
        outlet.report(online("5"));
        assert_eq!(watch.next().await.unwrap(), online("2"));
        assert_eq!(watch.next().await.unwrap(), WatchItem::Lagged);
        // That one came when only the sign of the loss had room.
        outlet.flush();
        assert_eq!(watch.next().await.unwrap(), WatchItem::Lagged);
        outlet.report(online("6"));
        assert_eq!(watch.next().await.unwrap(), online("6"));
        drop(outlet);
        assert!(matches!(watch.next().await, Err(PresenceError::Closed)));
    }
}
