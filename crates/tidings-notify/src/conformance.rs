//! The behaviour that every [`Store`](crate::Store) must have, as functions.
//!
//! Each function checks one rule of the contract on a new, empty store, and panics if the store
//! breaks it. [`store_conformance!`](crate::store_conformance) makes a test of each; the crate that
//! uses it needs tokio with `macros` and `rt`.
//!
//! ```
//! # #![allow(unused_imports)] // Without tests.
//! use tidings_notify::conformance::Subject;
//! use tidings_notify::{MemoryStore, store_conformance};
//!
//! // An expression for a new store.
//! store_conformance!(memory, Subject::new(MemoryStore::new()));
//! ```
//!
//! A store that is used by several processes is given with a [second handle](Subject::with_second_handle),
//! and one whose writers run at the same time with a way to
//! [hold a transaction open](Subject::with_transactions): most mistakes with marks of changes show only
//! while one is open.

#![allow(
    clippy::missing_panics_doc,
    reason = "all of them panic for the reason that the module states"
)]

mod append;
mod change;
mod changes;
mod cleanup;
mod inbox;
mod lifecycle;
mod read;
mod subject;
mod support;

pub use subject::{OpenTransaction, Subject, Transactions};

/// Makes a module with one test for each rule of the [`Store`](crate::Store) contract.
///
/// Takes the module's name, and an expression for a [`Subject`](crate::conformance::Subject): a new,
/// empty store. The expression may `.await`.
//
// The list in `@list` is the only one: from it come the tests and the public functions. A function
// that is left out of it is unused, and does not compile without a warning.
#[macro_export]
macro_rules! store_conformance {
    ($module:ident, $fresh:expr) => {
        $crate::store_conformance!(@list @tests ($module, $fresh));
    };
    (@list @$then:ident $arguments:tt) => {
        $crate::store_conformance!(@$then $arguments
            append {
                append_assigns_dense_numbers_from_one,
                append_returns_events_in_the_order_of_the_drafts,
                append_refuses_too_many_drafts,
                every_log_has_an_epoch_of_its_own,
                all_fields_survive_a_round_trip,
                concurrent_appends_neither_repeat_nor_skip_a_number,
            }
            read {
                read_is_strictly_after_rising_and_capped,
                read_ends_a_page_of_large_payloads_early,
                an_unknown_user_reads_empty_without_error,
                heads_come_in_the_order_of_the_users,
                find_knows_only_events_that_are_kept,
                cursor_before_finds_the_first_event_stamped_so_late,
                cursor_before_is_exact_for_disordered_stamps,
                cursor_before_counts_the_stamps_of_removed_events,
            }
            inbox {
                inbox_pages_go_from_new_to_old_without_repeats,
                inbox_ends_a_page_of_large_payloads_early,
                inbox_filters_by_type_and_unread,
                inbox_lists_what_is_archived,
                inbox_lists_what_is_far_apart,
                inbox_refuses_a_cursor_of_another_log,
            }
            change {
                mark_read_is_exact_and_idempotent,
                mark_read_up_to_leaves_later_events_unread,
                mark_read_ignores_other_logs,
                a_change_of_too_many_events_is_refused,
                mark_all_read_leaves_none,
                unread_again_is_exact,
                archived_events_leave_the_inbox_and_come_back,
                all_up_to_an_event_leaves_archived_events_alone,
                what_is_seen_only_moves_forward,
                an_event_with_a_key_replaces_earlier_ones,
                keys_are_those_of_one_user,
                delivered_marks_only_move_forward,
            }
            changes {
                changes_name_each_log_that_changed,
                changes_come_in_pages,
                changes_do_not_name_what_was_only_delivered,
                changes_are_listed_on_every_handle,
                changes_after_a_foreign_mark_are_a_rewind,
                changes_that_commit_late_are_listed,
                an_open_transaction_delays_only_its_users,
            }
            cleanup {
                cleanup_removes_the_old_and_keeps_the_log,
                cleanup_keeps_the_unread_count_exact,
                cleanup_counts_every_state,
                cleanup_of_a_long_log_removes_exactly_the_old,
                cleanup_counts_age_from_storing_and_not_from_the_stamp,
                a_limit_leaves_the_newest_events,
                unread_events_outlive_limit_and_age,
            }
            lifecycle {
                calls_after_close_return_closed,
            }
        );
    };
    (@exports () $($file:ident { $($behaviour:ident,)* })*) => {
        $(pub use $file::{$($behaviour),*};)*
    };
    (@tests ($module:ident, $fresh:expr) $($file:ident { $($behaviour:ident,)* })*) => {
        mod $module {
            #[allow(unused_imports, reason = "the store's expression may need none of them")]
            use super::*;

            $($(
                #[tokio::test]
                async fn $behaviour() {
                    let subject: $crate::conformance::Subject = $fresh;
                    $crate::conformance::$behaviour((&subject).into()).await;
                }
            )*)*
        }
    };
}

store_conformance!(@list @exports ());
