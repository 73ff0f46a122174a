//! How many connections each address of clients may have open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::panics;

use crate::limits::Limits;
use crate::telemetry;

/// The connections that are open, by address. An IPv6 address counts with all others of its network of 64
/// bits, which mostly belongs to one customer.
#[derive(Debug)]
pub(super) struct Addresses {
    limits: Arc<Limits>,
    open: Mutex<HashMap<IpAddr, Open>>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    is_reported: bool,
}

/// An address that is at its limit, which is to be said once and not for each connection.
#[derive(Debug)]
struct Report {
    address: IpAddr,
    max: usize,
}

impl Open {
    /// What is to be said of the address, unless it was before.
    fn report(&mut self, address: IpAddr, max: usize) -> Option<Report> {
        let was_reported = std::mem::replace(&mut self.is_reported, true);
        (!was_reported).then_some(Report { address, max })
    }
}

impl Report {
    /// Must not be called under the lock: tracing layers are code of the caller.
    fn write(&self) {
        panics::catch(|| {
            tracing::info!(
                client.address = %self.address,
                max = self.max,
                "refusing connections of an address that has as many as allowed (--max-address-connections)"
            );
        });
    }
}

/// The place of a connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
    /// The limit, if the place is beyond it.
    beyond: Option<usize>,
}

/// An address has no place left, not even for a refusal.
#[derive(Debug)]
pub(super) struct NoPlace;

/// Why a request may only be refused: its address has as many connections as allowed.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// `None` if even the places for refusals are taken.
    place: Option<Arc<Place>>,
}

impl Addresses {
    pub(super) fn new(limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
        })
    }

    /// A place for a connection, if connections are counted. Beyond the limit, as many again get one, on which the
    /// first request is refused.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Option<Place>, NoPlace> {
        let Some(max) = self.limits.now().settings.max_address_connections else {
            return Ok(None);
        };
        let address = network(address);
        let (is_beyond, has_place, report) = self.count(address, max);
        if is_beyond {
            telemetry::connection_refused();
        }
        if let Some(report) = report {
            report.write();
        }
        let place = || Place {
            addresses: Arc::clone(self),
            address,
            beyond: is_beyond.then_some(max),
        };
        has_place.then(|| Some(place())).ok_or(NoPlace)
    }

    /// Counts a connection. Returns whether the address is at its limit, whether the connection has a place
    /// nevertheless, and what is to be said if it has none.
    fn count(&self, address: IpAddr, max: usize) -> (bool, bool, Option<Report>) {
        let mut by_address = self.lock();
        let open = by_address.entry(address).or_default();
        let is_beyond = open.count >= max;
        if open.count >= 2 * max {
            return (is_beyond, false, open.report(address, max));
        }
        open.count += 1;
        (is_beyond, true, None)
    }

    /// Whether connections are counted.
    pub(super) fn has_limit(&self) -> bool {
        self.limits.now().settings.max_address_connections.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Open>> {
        // Counting cannot leave half a change behind, so the value behind a poisoned lock is right.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether it is for a connection that may only be refused.
    pub(super) fn is_beyond(&self) -> bool {
        self.beyond.is_some()
    }
}

impl Refused {
    pub(super) fn at(place: Arc<Place>) -> Self {
        Self { place: Some(place) }
    }

    pub(super) fn without_place() -> Self {
        Self { place: None }
    }

    /// Writes that the address is at its limit into the log, in the span of the request that is refused.
    pub(crate) fn report(&self) {
        // What is beyond the places was reported when it got none.
        let Some(place) = &self.place else { return };
        let Some(max) = place.beyond else { return };
        let report = {
            let mut by_address = place.addresses.lock();
            let open = by_address.get_mut(&place.address);
            open.and_then(|open| open.report(place.address, max))
        };
        if let Some(report) = report {
            report.write();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.addresses.lock();
        if let Some(open) = by_address.get_mut(&self.address) {
            open.count -= 1;
            if open.count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use tidings_test_support::CallsBack;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::Config;

    fn with(flags: &[&str]) -> Arc<Addresses> {
        let config = Config::from_flags([&["--dev"], flags].concat()).unwrap();
        Addresses::new(Arc::new(Limits::new(&config)))
    }

    #[test]
    fn each_address_has_its_places_and_some_for_refusals() {
        let addresses = with(&["--max-address-connections=2"]);
        let take = |address: &str| addresses.take(address.parse().unwrap());
        let first = take("192.0.2.1").unwrap().unwrap();
        let _second = take("::ffff:192.0.2.1").unwrap();
        let third = take("192.0.2.1").unwrap().unwrap();
        assert!(!first.is_beyond() && third.is_beyond());
        let _fourth = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_err());
        assert!(!take("192.0.2.2").unwrap().unwrap().is_beyond());
        drop((first, third));
        assert!(take("192.0.2.1").unwrap().unwrap().is_beyond());

        let _one = take("2001:db8::1").unwrap();
        let _two = take("2001:db8::ffff:2").unwrap();
        assert!(take("2001:db8::3").unwrap().unwrap().is_beyond());
        assert!(!take("2001:db8:0:1::1").unwrap().unwrap().is_beyond());
    }

    /// Notes whether the lock is free when something is logged.
    struct Notes {
        addresses: Arc<Addresses>,
        free: Arc<Mutex<Vec<bool>>>,
    }

    impl Notes {
        fn note(&self) {
            let is_free = self.addresses.open.try_lock().is_ok();
            self.free.lock().unwrap().push(is_free);
        }
    }

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Notes {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.note();
        }
    }

    #[test]
    fn regression_no_recorder_and_no_tracing_layer_is_called_under_the_lock() {
        let addresses = with(&["--max-address-connections=1"]);
        let (counted, logged) = (Arc::default(), Arc::default());
        let notes = |free: &Arc<Mutex<Vec<bool>>>| Notes {
            addresses: Arc::clone(&addresses),
            free: Arc::clone(free),
        };
        let (recorder, layer) = (notes(&counted), notes(&logged));
        let taking = Arc::clone(&addresses);
        let names = CallsBack::during(async move |calls_back| {
            calls_back.call(move || recorder.note());
            let subscriber = tracing_subscriber::registry().with(layer);
            let _tracing = tidings_test_support::set_default(subscriber);
            for address in ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().unwrap()) {
                let _first = taking.take(address).unwrap();
                let second = taking.take(address).unwrap().unwrap();
                if address.to_string().ends_with('1') {
                    taking.take(address).unwrap_err();
                }
                Refused::at(Arc::new(second)).report();
            }
        });
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(*counted.lock().unwrap(), [true; 3]);
        assert_eq!(*logged.lock().unwrap(), [true; 2], "one for each address");
    }

    #[test]
    fn addresses_without_a_connection_are_forgotten() {
        let addresses = with(&["--max-address-connections=1"]);
        for number in 0..1000 {
            drop(addresses.take(Ipv6Addr::from_bits(number << 64).into()));
        }
        assert!(addresses.lock().is_empty());
        let unlimited = with(&[]);
        let taken = (0..1000).map(|_| unlimited.take(Ipv6Addr::LOCALHOST.into()).unwrap());
        assert!(taken.collect::<Vec<_>>().iter().all(Option::is_none));
        assert!(unlimited.lock().is_empty());
    }
}
