//! What happens to the file.

use tidings_test_support::Fault;

use crate::faults::{SqliteOutage, fault_tests, sqlite as open};

fault_tests! { SqliteOutage, open;
    a_store_that_stops_for_longer_than_a_claim_lasts_loses_nothing
    a_store_that_runs_full_loses_nothing
    an_acknowledgement_outlives_every_fault(&[Fault::Freeze, Fault::Fill])
    a_full_store_fails_publishing_by_name_and_loses_no_acknowledgement(false)
}
