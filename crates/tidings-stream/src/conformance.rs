//! The behaviour that every engine must have, one function per behaviour.
//!
//! Run them on an engine of your own with [`conformance_tests!`](crate::conformance_tests), which
//! makes a test of each:
//!
//! ```
//! # #![allow(unused_imports)] // Without tests.
//! use std::sync::Arc;
//!
//! use tidings_stream::MemoryEngine;
//! use tidings_stream::engine::Engine;
//!
//! tidings_stream::conformance_tests! {
//!     /// The engine, and whatever has to live as long as it does.
//!     async fn memory() -> (Arc<dyn Engine>, ()) {
//!         (Arc::new(MemoryEngine::new()), ())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Each function wants an engine without streams and panics where the engine fails. They wait for
//! what is to happen, a minute at most, and not for time to pass, except where time is what they
//! test.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "these functions are tests, which fail by panicking"
)]

mod admin;
mod batches;
mod cancellation;
mod deletion;
mod delivery;
mod engine;
mod groups;
mod histories;
mod in_flight;
mod lifecycle;
mod ordering;
mod publish_keys;
mod pull;
mod redrive;
mod retries;
mod support;
mod trim;

/// Exports behaviours, and makes the list of [`conformance_tests!`](crate::conformance_tests) of the
/// same names. A behaviour that is missing here is dead code, which the compiler reports.
macro_rules! behaviours {
    ($dollar:tt $($module:ident: $($behaviour:ident)*;)*) => {
        $(pub use $module::{$($behaviour),*};)*

        #[doc(hidden)]
        #[macro_export]
        macro_rules! each_behaviour {
            ($dollar arguments:tt) => {
                $crate::conformance_tests! { @each $dollar arguments $($($behaviour)*)* }
            };
        }
    };
}

behaviours! { $
    delivery:
        five_messages_make_the_round_trip
        payloads_and_headers_arrive_as_they_were_sent
        what_is_too_large_is_refused
        regression_a_publisher_cannot_steer_a_redrive
        the_largest_headers_outlive_death_and_return
        large_messages_do_not_wait_for_a_poll
        ids_are_dense_and_a_batch_is_contiguous
        a_batch_is_published_whole_or_not_at_all
        names_that_look_alike_are_different_streams
        first_deliveries_come_in_the_order_of_their_ids
        many_publishers_and_workers_deliver_each_message_once;
    groups:
        members_of_a_group_share_its_messages
        every_group_gets_every_message
        a_group_starts_after_the_latest_message
        a_group_may_start_at_the_earliest_message
        a_group_may_start_after_a_message
        a_group_that_exists_keeps_its_position
        a_start_ahead_of_the_stream_is_refused
        a_start_that_was_trimmed_is_the_oldest_message
        nothing_published_after_subscribing_is_missed
        a_deleted_group_begins_anew
        figures_are_exact;
    retries:
        a_hung_handler_gives_its_message_to_another_member
        a_message_gets_one_attempt_and_its_retries
        unlimited_retries_go_on
        skipping_retries_makes_a_dead_letter_at_once
        a_handler_chooses_its_delay
        delays_follow_the_subscription
        a_message_that_waits_blocks_no_newer_one
        a_long_handler_keeps_its_message
        a_handler_past_its_time_is_dropped
        a_panic_is_a_failed_attempt
        a_poison_message_dies_without_another_run
        a_dead_letter_says_where_it_comes_from
        dead_letters_go_where_they_are_sent
        a_dead_letter_may_die_again_and_be_revived
        concurrent_dead_letters_all_arrive
        claims_never_exceed_free_handlers;
    trim:
        everything_is_kept_by_default
        trimming_by_length_keeps_the_newest
        trimming_by_age_removes_the_old
        the_last_retention_wins
        retention_can_be_set_without_a_publish
        the_janitor_trims_without_a_publish
        a_pending_message_is_not_trimmed
        regression_a_trimmed_pending_message_does_not_stop_its_group
        unread_messages_that_are_trimmed_are_counted;
    lifecycle:
        closing_lets_running_handlers_acknowledge
        no_handler_starts_once_closing_has_begun
        closing_gives_up_at_its_deadline
        consumers_close_together_and_calls_reply_closed
        a_thousand_subscriptions_leave_nothing_behind
        one_publish_wakes_every_group
        a_returned_message_wakes_its_group
        a_dropped_consumer_closes
        the_end_of_a_stream_ends_its_consumers;
    publish_keys:
        a_publish_key_appends_once
        a_publish_key_is_free_after_its_window
        large_batches_of_repeats_get_their_ids
        concurrent_batches_of_one_set_of_keys_append_once
        concurrent_publishes_under_one_key_append_once;
    batches:
        batches_hold_what_is_there
        a_batch_fails_in_part
        a_batch_that_fails_comes_again_whole
        a_long_batch_keeps_its_messages
        a_paused_consumer_claims_nothing
        dead_letters_are_brought_back
        regression_a_refused_redrive_leaves_nothing
        regression_redriving_keeps_no_letter_from_being_trimmed;
    pull:
        a_pull_claims_what_it_is_asked_for
        a_pull_that_is_not_asked_holds_nothing_up
        a_pulled_message_is_acknowledged_retried_or_rejected
        a_pulled_message_lasts_while_it_is_worked_on
        what_a_pull_has_claimed_and_not_given_goes_back;
    redrive:
        a_filter_chooses_which_letters_are_brought_back
        what_a_redrive_skips_can_be_sent_elsewhere;
    ordering:
        messages_of_a_key_are_handled_in_their_order_one_at_a_time
        a_failed_message_holds_back_its_key_and_nothing_else
        a_key_goes_on_with_the_message_that_has_it
        a_long_backlog_behind_one_key_hides_no_other
        the_end_of_a_message_wakes_the_next_of_its_key
        the_death_of_a_message_wakes_the_next_of_its_key
        trimmed_messages_free_their_keys
        a_header_with_a_similar_name_is_no_ordering_key
        the_longest_delay_outlasts_the_claim_before_it
        a_group_that_seeks_begins_its_keys_anew;
    in_flight:
        a_group_works_on_no_more_messages_than_its_bound
        a_settlement_wakes_consumers_at_the_bound
        what_is_claimed_counts_towards_the_bound_while_it_lasts;
    deletion:
        a_deleted_message_is_gone_and_leaves_the_others
        a_message_may_be_deleted_while_a_consumer_has_it
        deleting_a_message_that_waits_frees_its_key
        a_deleted_dead_letter_is_not_brought_back
        a_redrive_goes_on_behind_deleted_letters
        the_neighbours_of_a_deleted_message_keep_their_time;
    admin:
        a_group_may_start_at_a_time
        a_group_seeks
        receipts_of_a_deleted_group_are_stale
        a_deleted_stream_begins_anew
        streams_are_listed_in_order
        a_stream_is_read_without_a_group
        pending_messages_are_listed
        figures_say_where_a_group_stands
        readiness_is_what_a_claim_would_find
        members_are_listed;
    engine:
        stale_receipts_do_nothing
        a_late_receipt_is_obeyed_while_no_other_consumer_has_the_message
        a_late_receipt_is_obeyed_after_others_came_again
        released_messages_keep_their_attempt
        settled_parts_of_a_claim_do_not_come_again
        extending_a_claim_keeps_it
        a_settled_message_is_not_extended_with_its_neighbours
        a_group_that_is_gone_is_an_error;
    cancellation:
        a_dropped_settlement_is_done_whole_or_not_at_all
        a_dropped_claim_hands_back_what_it_took
        a_dropped_append_is_done_whole_or_not_at_all;
    histories:
        random_histories_end_as_in_memory;
}

/// Makes a module with one `#[tokio::test]` for every behaviour, named after it.
///
/// It is given the function that makes the engine, as in the example of
/// [`conformance`](crate::conformance); attributes of the function that begin with `tokio_test`,
/// for instance `#[tokio_test(start_paused = true)]`, become arguments of each `#[tokio::test]`.
/// The calling package needs `tokio` with the features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance_tests {
    (
        $(#[doc = $doc:literal])*
        $(#[tokio_test($($argument:tt)*)])?
        async fn $engine:ident() -> $output:ty $body:block
    ) => {
        $(#[doc = $doc])*
        #[cfg(test)]
        mod $engine {
            use super::*;

            async fn make() -> $output $body

            $crate::each_behaviour! { ($($($argument)*)?) }
        }
    };
    (@each $arguments:tt $($behaviour:ident)*) => {
        $($crate::conformance_tests! { @one $arguments $behaviour })*
    };
    (@one ($($argument:tt)*) $behaviour:ident) => {
        #[tokio::test($($argument)*)]
        async fn $behaviour() {
            let (engine, _guard) = make().await;
            $crate::conformance::$behaviour(engine).await;
        }
    };
}
