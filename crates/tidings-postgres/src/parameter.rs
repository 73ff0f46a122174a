//! Parameters of statements. The program says what type each has, so that the server is not asked first.

use tokio_postgres::types::{ToSql, Type};

/// A parameter of a statement, and its type.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A value that is always sent as the same type.
pub trait Typed: ToSql + Sync {
    /// The value as a parameter.
    fn parameter(&self) -> Parameter<'_>;
}

/// Values as a `&[&dyn Typed]`: see [`Typed`].
///
/// ```
/// use tidings_postgres::params;
///
/// let parameters = params!["anna", vec![Some(41_i64), None]];
/// assert_eq!(parameters[0].parameter().1.name(), "text");
/// assert_eq!(parameters[1].parameter().1.name(), "_int8");
/// ```
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$value as &dyn $crate::Typed),*]
    };
}

macro_rules! typed {
    ($($kind:ident: $($value:ty),*;)*) => {$($(
        impl Typed for $value {
            fn parameter(&self) -> Parameter<'_> {
                (self, Type::$kind)
            }
        }
    )*)*};
}

typed! {
    BOOL: bool, Option<bool>;
    INT8: i64, Option<i64>;
    TEXT: &str, String, Option<&str>;
    BYTEA: &[u8], Option<Vec<u8>>;
    INT4_ARRAY: Vec<i32>;
    INT8_ARRAY: Vec<i64>, Vec<Option<i64>>, Option<Vec<Option<i64>>>, &[i64];
    TEXT_ARRAY: Vec<&str>, Vec<String>, Vec<Option<&str>>, Option<Vec<Option<&str>>>, &[Option<&str>];
    BYTEA_ARRAY: Vec<&[u8]>, Vec<Option<&[u8]>>, Vec<Option<Vec<u8>>>;
}
