//! Closing a store.

use super::support::{append, draft, now, ok, user};
use crate::{InboxAction, InboxQuery, Store, StoreError};

/// A closed store returns nothing else.
pub async fn calls_after_close_return_closed(store: &dyn Store) {
    fn is_closed<T>(reply: &Result<T, StoreError>) -> bool {
        matches!(reply, Err(StoreError::Closed))
    }
    let ann = user("ann");
    let event = append(store, &ann, 1).await.remove(0);
    let mark = ok(store.mark().await);
    store.close().await;
    store.close().await;
    assert!(is_closed(&store.append(vec![draft(&ann, 1)]).await));
    assert!(is_closed(&store.read(&ann, 0, 1).await));
    assert!(is_closed(&store.head(&ann).await));
    assert!(is_closed(&store.find(&ann, event.id).await));
    assert!(is_closed(&store.inbox(&ann, &InboxQuery::default()).await));
    assert!(is_closed(
        &store.change(&ann, &InboxAction::ReadAll, now()).await
    ));
    assert!(is_closed(
        &store.mark_delivered(vec![(ann.clone(), event.id)]).await
    ));
    assert!(is_closed(&store.cursor_before(&ann, now()).await));
    assert!(is_closed(&store.mark().await));
    assert!(is_closed(&store.changes(&mark, 1).await));
    assert!(is_closed(&store.cleanup(now()).await));
}
