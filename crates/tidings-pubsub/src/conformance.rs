//! What every broker must do, as functions to run on a broker of your own.
//!
//! Each function is one behaviour of the contract of [`Publisher`](crate::Publisher),
//! [`Subscriber`](crate::Subscriber) and [`Broker`](crate::Broker). It needs a broker that no other test
//! uses, and panics when the broker breaks the contract. [`conformance_tests!`](crate::conformance_tests) makes
//! a test of each:
//!
//! ```
//! mod my_broker {
//!     tidings_pubsub::conformance_tests!(tidings_pubsub::MemoryBroker::new(), patterns);
//! }
//! # fn main() {}
//! ```
//!
//! Tests of several processes may share one server: each behaviour uses topics of its own. Behaviours
//! wait for events, not for a time to pass, unless they are about time; a wait in vain ends after ten
//! seconds, with a reason.

#![allow(
    clippy::missing_panics_doc,
    reason = "every function here panics when the broker breaks the contract"
)]

mod closing;
mod delivery;
mod handlers;
mod overflow;
mod patterns;
mod support;
mod topics;

/// Exports the behaviours, and makes the macro that turns each of them into a test. Both come from this
/// one list: a behaviour that is missing in it is dead code, which the compiler reports.
macro_rules! behaviours {
    (
        $d:tt
        always { $($module:ident: $($behaviour:ident)*;)* }
        with_patterns { $($with:ident)* }
        without_patterns { $($without:ident)* }
    ) => {
        $(pub use $module::{$($behaviour),*};)*
        pub use patterns::{$($with),*};
        pub use patterns::{$($without),*};

        /// Makes a test of each behaviour for one broker, in the module where it stands.
        ///
        /// With `, patterns` after it the broker supports subscriptions by pattern; without, it must
        /// return [`Error::NoPatterns`](crate::Error::NoPatterns). The expression makes a new broker; it
        /// stands in an `async` block, once for each test. The tests need `tokio` with its features
        /// `macros` and `rt-multi-thread`.
        #[macro_export]
        macro_rules! conformance_tests {
            ($d broker:expr) => {
                $d crate::conformance_tests! { @each $d broker; $($($behaviour)*)* $($without)* }
            };
            ($d broker:expr, patterns) => {
                $d crate::conformance_tests! { @each $d broker; $($($behaviour)*)* $($with)* }
            };
            (@each $d broker:expr; $d ($d behaviour:ident)*) => {
                $d (
                    #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $d behaviour() {
                        $d crate::conformance::$d behaviour(::std::sync::Arc::new($d broker)).await;
                    }
                )*
            };
        }
    };
}

behaviours! {
    $
    always {
        delivery:
            every_subscription_gets_its_own_copy
            a_message_without_subscribers_is_dropped
            messages_of_other_topics_do_not_arrive
            messages_arrive_in_the_order_of_their_publisher
            payloads_arrive_byte_for_byte
            long_topics_are_distinguished;
        topics:
            a_topic_that_is_asked_for_twice_arrives_once
            topics_can_be_added_and_removed
            unsubscribing_one_leaves_the_others
            a_dropped_subscription_is_gone;
        overflow:
            a_slow_handler_delays_no_other
            the_oldest_make_room_and_every_loss_is_counted
            the_newest_are_dropped_and_every_loss_is_counted
            nothing_is_lost_when_there_is_room_in_time
            waiting_for_room_ends_and_every_loss_is_counted;
        handlers:
            a_handler_may_subscribe_and_publish
            a_handler_that_panics_is_called_again
            a_stopped_listener_has_handled_everything;
        closing:
            closing_ends_everything
            a_publish_during_closing_gets_a_reply;
    }
    with_patterns {
        a_pattern_brings_the_topics_that_match
        a_message_comes_once_by_topics_and_patterns
        giving_up_a_pattern_leaves_all_else
        nothing_is_lost_or_doubled_while_topics_and_patterns_change
        patterns_end_with_their_subscription_and_their_broker
    }
    without_patterns {
        a_broker_without_patterns_says_so
    }
}
