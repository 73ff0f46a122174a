//! The behaviour that every presence must have, one function per behaviour.
//!
//! Run them on a presence of your own with [`presence_conformance!`](crate::presence_conformance), which
//! makes a test of each:
//!
//! ```
//! use std::sync::Arc;
//!
//! use tidings_notify::{MemoryPresence, Presence, presence_conformance};
//!
//! /// Two handles of one empty presence, and whatever has to live as long as they do.
//! fn fresh() -> ([Arc<dyn Presence>; 2], ()) {
//!     let presence = MemoryPresence::new();
//!     ([Arc::new(presence.clone()), Arc::new(presence)], ())
//! }
//!
//! presence_conformance!(memory, fresh());
//! # fn main() {}
//! ```
//!
//! The handles are those of two processes: connections of their own, if there are any. Each function
//! panics where the presence fails. They wait for what is to happen, half a minute at most, and not for
//! time to pass, except where time is what they test.

#![allow(
    clippy::missing_panics_doc,
    reason = "these functions are tests, which fail by panicking"
)]

mod closing;
mod lease;
mod online;
mod support;
mod transitions;
mod watching;

/// Exports behaviours, and makes the list of [`presence_conformance!`](crate::presence_conformance) of
/// the same names. A behaviour that is missing here is dead code, which the compiler reports.
macro_rules! behaviours {
    ($dollar:tt $($module:ident: $($behaviour:ident)*;)*) => {
        $(pub use $module::{$($behaviour),*};)*

        /// Makes a module with one `#[tokio::test]` for every behaviour of a presence, named after it.
        ///
        /// The expression makes two handles of a new presence, and a value that is kept until the test
        /// has ended; it may use `.await`. The calling package needs `tokio` with the features `macros`
        /// and `rt-multi-thread`.
        #[macro_export]
        macro_rules! presence_conformance {
            ($dollar name:ident, $dollar fresh:expr) => {
                mod $dollar name {
                    #[allow(unused_imports, reason = "the expression may need none of them")]
                    use super::*;

                    $dollar crate::presence_conformance! { @each ($dollar fresh) $($($behaviour)*)* }
                }
            };
            (@each $dollar fresh:tt $dollar ($dollar behaviour:ident)*) => {
                $dollar (
                    $dollar crate::presence_conformance! { @one $dollar fresh $dollar behaviour }
                )*
            };
            (@one ($dollar fresh:expr) $dollar behaviour:ident) => {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $dollar behaviour() {
                    let (handles, _keep) = $dollar fresh;
                    $dollar crate::presence::conformance::$dollar behaviour(handles).await;
                }
            };
        }
    };
}

behaviours! { $
    online:
        a_user_is_offline_then_online_then_offline
        a_user_is_online_until_the_last_registration_leaves
        unregistering_twice_is_harmless
        online_users_filters_and_keeps_the_order
        locate_names_every_instance_once_with_its_metadata
        names_are_compared_byte_by_byte
        thousands_of_users_come_and_leave
        a_hundred_concurrent_registrations_up_and_down_end_offline;
    lease:
        users_go_offline_when_their_lease_ends_and_not_before
        one_heartbeat_keeps_all_users_online
        an_ended_lease_is_lost
        a_lease_that_the_store_does_not_have_is_lost
        an_update_may_be_repeated_and_is_not_overtaken
        a_heartbeat_notices_what_is_missing
        what_is_lost_is_written_again_with_the_next_heartbeat
        ten_thousand_connections_are_one_refresh;
    transitions:
        transitions_are_those_of_the_first_and_the_last_instance
        transitions_come_in_pages
        numbers_of_any_size_are_understood
        a_mark_of_another_store_is_lossy
        users_of_an_ended_lease_get_their_transitions
        concurrent_updates_leave_alternating_transitions;
    watching:
        a_watch_reports_users_of_all_instances
        a_reconnect_within_the_grace_time_is_not_reported
        a_user_who_stays_away_is_reported_after_the_grace_time
        users_of_a_crashed_instance_are_reported
        a_slow_watch_gets_a_report_that_it_lags;
    closing:
        calls_after_close_return_closed
        a_closed_tracker_takes_its_users_offline;
}
