use std::sync::Arc;

use tidings_test_support::Schema;
use tidings_webhooks::conformance::Stores;

use crate::support::store;

tidings_webhooks::store_conformance_tests! {
    async fn postgres() -> (Stores, Schema) {
        let schema = Schema::create().await;
        // Two pools of connections, as two processes have them.
        let [a, b] = [store(&schema).await, store(&schema).await].map(|store| Arc::new(store) as _);
        (Stores { a, b }, schema)
    }
}
