//! The behaviour that every [`Store`](crate::Store) must have, one function per behaviour.
//!
//! Run them on a store of your own with
//! [`store_conformance_tests!`](crate::store_conformance_tests), which makes a test of each. Each
//! function is given two handles of one store without contents, as two instances have them, and
//! panics where the store fails. None of them waits for time to pass: each call gets the time as a parameter.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "these functions are tests, which fail by panicking"
)]

mod cleaning;
mod deferred;
mod deliveries;
mod endpoints;
mod lanes;
mod outcomes;
mod replays;
mod support;

pub use cleaning::*;
pub use deferred::*;
pub use deliveries::*;
pub use endpoints::*;
pub use lanes::*;
pub use outcomes::*;
pub use replays::*;
pub use support::Stores;

/// Calls a macro with what it is given and the names of all behaviours.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_store_behaviour {
    ([$($callback:tt)*] $($given:tt)*) => {
        $($callback)*! { $($given)*
            endpoints_are_listed_by_owner
            an_owner_has_at_most_its_limit
            a_change_replaces_the_revision_that_it_names
            a_removed_endpoint_is_not_found
            secrets_are_listed_and_replaced_by_themselves
            those_who_listen_are_the_operator_and_the_user
            endpoints_are_numbered_in_the_order_of_their_making
            a_notice_is_stored_with_its_change
            deferred_events_keep_their_order
            a_page_of_deferred_events_is_bounded
            an_audience_names_the_users_with_deferred_events
            a_deferral_ends_once
            concurrent_instances_share_the_deferred_events
            a_repeated_event_makes_no_second_delivery
            new_deliveries_are_named
            concurrent_fan_outs_make_each_delivery_once
            deliveries_are_due_in_order
            a_page_is_bounded_in_rows_and_bytes
            what_is_held_is_left_out
            deliveries_are_listed_newest_first
            the_event_of_a_delivery_is_found
            a_finished_delivery_is_retried
            waiting_deliveries_are_counted
            one_instance_leads
            a_lane_has_one_instance
            concurrent_leases_share_the_lanes
            a_lease_ends_by_its_time
            renewed_leases_last
            a_released_lane_is_due_when_its_next_delivery_is
            work_that_comes_to_a_leased_lane_is_found_at_its_release
            what_is_due_next_is_told_for_several_lanes
            a_blocked_lane_waits_until_its_endpoint_is_changed
            a_block_is_kept_for_what_comes
            a_lane_says_who_has_it_and_until_when_it_is_blocked
            a_circuit_outlasts_the_lease_of_its_lane
            a_circuit_is_closed_with_the_end_of_its_block
            a_circuit_that_was_probed_long_ago_is_forgotten
            the_clock_never_goes_back
            an_outcome_changes_a_pending_delivery_only
            a_delivery_that_was_begun_again_is_changed_by_success_only
            what_arrived_is_delivered_although_it_was_cancelled_meanwhile
            a_retry_is_due_at_its_time
            attempts_of_the_same_number_are_all_kept
            outcomes_that_are_recorded_again_change_nothing
            an_outcome_of_an_unknown_delivery_does_nothing
            health_follows_the_outcomes
            deliveries_are_cancelled_in_steps
            a_replay_brings_what_did_not_arrive
            a_replay_is_of_its_owner_and_its_time
            a_replay_passes_over_many_events_of_others
            a_stale_step_of_a_replay_does_nothing
            a_replay_replaces_the_earlier_one
            a_replay_can_be_stopped
            what_is_cleaned_meanwhile_is_not_replayed
            what_has_ended_is_cleaned
            events_of_disabled_endpoints_are_cleaned
            removed_endpoints_are_cleaned
            calls_after_close_are_refused
        }
    };
}

/// Makes a module with one `#[tokio::test]` for every behaviour, named after it.
///
/// It is given a function that makes [`Stores`](crate::conformance::Stores), and whatever has to live
/// as long as they do. The calling package needs `tokio` with the features `macros` and
/// `rt-multi-thread`.
///
/// ```
/// # use tidings_webhooks::conformance::Stores;
/// # async fn open_mine() -> Stores { unimplemented!() }
/// tidings_webhooks::store_conformance_tests! {
///     async fn mine() -> (Stores, ()) {
///         (open_mine().await, ())
///     }
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! store_conformance_tests {
    (async fn $store:ident() -> $output:ty $body:block) => {
        #[cfg(test)]
        mod $store {
            use super::*;

            async fn make() -> $output $body

            $crate::for_each_store_behaviour! { [$crate::store_conformance_tests] @each }
        }
    };
    (@each $($behaviour:ident)*) => {
        $(
            #[tokio::test]
            async fn $behaviour() {
                let (stores, _guard) = make().await;
                $crate::conformance::$behaviour(stores).await;
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    macro_rules! names {
        ($($behaviour:ident)*) => { [$(stringify!($behaviour)),*] };
    }

    #[test]
    fn every_behaviour_is_listed() {
        let files = [
            include_str!("conformance/cleaning.rs"),
            include_str!("conformance/deferred.rs"),
            include_str!("conformance/deliveries.rs"),
            include_str!("conformance/endpoints.rs"),
            include_str!("conformance/lanes.rs"),
            include_str!("conformance/outcomes.rs"),
            include_str!("conformance/replays.rs"),
        ];
        let name = |line: &str| {
            let name = line.strip_prefix("pub async fn ")?.split_once('(')?.0;
            Some(name.to_owned())
        };
        let lines = files.iter().flat_map(|file| file.lines());
        let mut written: Vec<String> = lines.filter_map(name).collect();
        let mut listed = for_each_store_behaviour!([names])
            .map(str::to_owned)
            .to_vec();
        written.sort();
        listed.sort();
        assert_eq!(written, listed);
    }
}
