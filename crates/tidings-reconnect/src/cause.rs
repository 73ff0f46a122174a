use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The error that caused another one, shared by the clones of that one.
///
/// A [`source`](Error::source) of this type is the cause itself, so that it can be downcast. An `Arc` would be an
/// error of its own there, and hide the one inside. That is why a `Cause` is not an [`Error`]: it only
/// dereferences to one.
///
/// ```
/// use std::error::Error;
/// use std::io;
/// use tidings_reconnect::Cause;
///
/// #[derive(Debug, Clone, thiserror::Error)]
/// #[error("the disk failed")]
/// struct DiskFailed(#[source] Cause);
///
/// let failed = DiskFailed(Cause::new(io::Error::other("no spindle")));
/// let cause = failed.source().unwrap();
/// assert!(cause.downcast_ref::<io::Error>().is_some());
/// ```
pub struct Cause<E: ?Sized = dyn Error + Send + Sync>(Arc<E>);

impl Cause {
    /// Shares an error, or an error in a box.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into().into())
    }
}

impl<E: Error> From<E> for Cause<E> {
    fn from(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Cause {
    fn from(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl<E: ?Sized> Deref for Cause<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.0
    }
}

impl<E: ?Sized> Clone for Cause<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E: fmt::Debug + ?Sized> fmt::Debug for Cause<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: fmt::Display + ?Sized> fmt::Display for Cause<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, Clone, thiserror::Error)]
    enum Failed {
        #[error("of any type")]
        Any(#[source] Cause),
        #[error("of one type")]
        One(#[source] Cause<io::Error>),
        #[error("of any type, if there is one")]
        Perhaps { source: Option<Cause> },
    }

    #[test]
    fn a_cause_is_downcast_to_the_error_inside() {
        let error = || io::Error::other("away");
        let perhaps = |source| Failed::Perhaps { source };
        for failed in [
            Failed::Any(error().into()),
            Failed::Any(Cause::new(Box::<dyn Error + Send + Sync>::from(error()))),
            Failed::One(error().into()),
            perhaps(Some(error().into())),
        ] {
            let cloned = failed.clone();
            let cause = cloned.source().expect("it has a cause");
            assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
            assert_eq!(cause.to_string(), "away");
        }
        assert!(perhaps(None).source().is_none());
    }

    #[test]
    fn a_cause_is_written_as_the_error_inside() {
        let cause = Cause::new("away");
        assert_eq!(cause.to_string(), "away");
        assert_eq!(format!("{cause:?}"), "\"away\"");
    }
}
