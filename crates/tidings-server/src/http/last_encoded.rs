//! What several streams of a user send alike.

use std::cell::RefCell;
use std::sync::Arc;

use tidings_notify::Event;

/// The event that a thread has encoded last, in the form that it had.
///
/// The streams of a user are woken one after the other, for the same event. So a thread encodes it for the first of
/// them, and the others send the same bytes: a large event is in memory once for each thread, however many of its
/// readers are slow.
#[derive(Debug)]
pub(super) struct LastEncoded<F, T>(RefCell<Option<Kept<F, T>>>);

#[derive(Debug)]
struct Kept<F, T> {
    /// Held, so that it is not changed in its place, and no other event gets its address.
    event: Arc<Event>,
    form: F,
    encoded: T,
}

impl<F: PartialEq, T: Clone> LastEncoded<F, T> {
    pub(super) const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// The event in this form, encoded now if it was not the last one.
    pub(super) fn get_or_encode<E>(
        &self,
        event: &Arc<Event>,
        form: F,
        encode: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(last) = &*self.0.borrow()
            && Arc::ptr_eq(&last.event, event)
            && last.form == form
        {
            return Ok(last.encoded.clone());
        }
        let encoded = encode()?;
        self.0.replace(Some(Kept {
            event: Arc::clone(event),
            form,
            encoded: encoded.clone(),
        }));
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use jiff::Timestamp;
    use tidings_notify::{Draft, Epoch, EventId, EventType, Payload, UserId};

    use super::*;

    fn event(seq: u64) -> Arc<Event> {
        let draft = Draft::new(
            UserId::new("anna").unwrap(),
            EventType::new("test").unwrap(),
            Payload::parse("1").unwrap(),
        );
        let id = EventId::new(Epoch::from_u64(1), seq);
        Arc::new(Event::from_draft(draft, id))
    }

    #[test]
    fn an_event_is_encoded_again_in_another_form_and_after_another_event() {
        let last = LastEncoded::new();
        let count = Cell::new(0);
        let get = |event: &Arc<Event>, form| {
            let encoded = last.get_or_encode(event, form, || {
                count.set(count.get() + 1);
                Ok::<_, Infallible>(format!("{form} {}", event.id.seq))
            });
            (encoded.unwrap(), count.get())
        };
        let (first, second) = (event(1), event(2));
        assert_eq!(get(&first, 'a'), ("a 1".to_owned(), 1));
        assert_eq!(get(&first, 'a'), ("a 1".to_owned(), 1));
        assert_eq!(get(&first, 'b'), ("b 1".to_owned(), 2));
        assert_eq!(get(&second, 'b'), ("b 2".to_owned(), 3));
        assert_eq!(get(&first, 'b'), ("b 1".to_owned(), 4));
    }

    #[test]
    fn an_event_that_is_changed_is_encoded_again() {
        let last = LastEncoded::new();
        let encode = |event: &Arc<Event>| {
            let is_read = || Ok::<_, Infallible>(event.read_at.is_some());
            last.get_or_encode(event, (), is_read).unwrap()
        };
        let mut event = event(1);
        assert!(!encode(&event));
        Arc::make_mut(&mut event).read_at = Some(Timestamp::UNIX_EPOCH);
        assert!(encode(&event));
    }

    #[test]
    fn what_cannot_be_encoded_is_not_kept() {
        let last = LastEncoded::new();
        let event = event(1);
        assert_eq!(last.get_or_encode(&event, (), || Err("no")), Err("no"));
        assert_eq!(last.get_or_encode(&event, (), || Ok::<_, &str>(1)), Ok(1));
    }
}
