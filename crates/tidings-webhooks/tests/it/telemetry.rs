//! What records webhooks may look at them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use tidings_test_support::{CallsBack, Reply, Script};
use tidings_webhooks::{DeliveryState, Webhooks, telemetry};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::support::{Place, receiver_of, schedule};

/// Looks at webhooks whenever something is traced or logged.
#[derive(Clone, Default)]
struct Looks(Arc<OnceLock<Webhooks>>);

impl Looks {
    fn look(&self) {
        if let Some(webhooks) = self.0.get() {
            // Says how many lanes are served.
            assert!(format!("{webhooks:?}").contains("lanes"));
        }
    }
}

impl<S: Subscriber> Layer<S> for Looks {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.look();
    }

    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.look();
    }
}

#[test]
fn a_recorder_and_a_tracing_layer_may_look_at_the_webhooks_that_they_record() {
    let recorded = CallsBack::during(async |recorder| {
        let looks = Looks::default();
        let subscriber = tracing_subscriber::registry().with(looks.clone());
        let _tracing = tidings_test_support::set_default(subscriber);
        let failure = Reply::new(StatusCode::INTERNAL_SERVER_ERROR);
        let receiver = receiver_of(Script::sequence([Reply::ok(), failure], Reply::ok())).await;
        let place = Place::new();
        let options = schedule(&[0, 0]);
        let app = place.start(options).await;
        looks.0.set(app.webhooks.clone()).unwrap();
        let looks = looks.clone();
        recorder.call(move || looks.look());
        let endpoint = app.endpoint(receiver.url("/")).await;
        // A new lane, one that rests, and one that is tried again.
        for number in 0..3 {
            app.accept(number..number + 1).await;
            app.until(endpoint, DeliveryState::Delivered, number + 1)
                .await;
        }
        app.webhooks.stop_within(Duration::from_secs(5)).await;
    });
    let all = [
        telemetry::DELIVERIES_ADDED,
        telemetry::DELIVERIES_ENDED,
        telemetry::LANES_HELD,
        telemetry::OUTCOMES_UNWRITTEN,
    ];
    for name in all {
        assert!(recorded.contains(name), "{name}: {recorded:?}");
    }
}
