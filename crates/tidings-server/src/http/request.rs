//! Declares the fields of a request: from one declaration a body is read, and the OpenAPI document describes it.

use serde_json::value::RawValue;

use super::error::ApiError;
use super::expected::Field;
use super::fields::{Change, Fields};

/// The fields of a request, each read from the body by its name.
pub(super) trait FromFields<'body>: Sized {
    /// Whether the request has a field with this name.
    fn has(name: &str) -> bool;

    /// The names of all fields.
    fn names() -> Vec<&'static str>;

    /// Takes the fields, and leaves others.
    fn take(fields: &mut Fields<'body>) -> Result<Self, ApiError>;

    /// Takes the fields. Others are refused first, so that a misspelt one is not reported as missing.
    fn read(mut fields: Fields<'body>) -> Result<Self, ApiError> {
        fields.allow(Self::has, Self::names)?;
        Self::take(&mut fields)
    }
}

/// What a field of a request may be.
pub(super) trait FromField<'body>: Sized {
    fn take(fields: &mut Fields<'body>, name: &'static str) -> Result<Self, ApiError>;
}

/// `null` counts as missing.
impl<T: Field> FromField<'_> for Option<T> {
    fn take(fields: &mut Fields<'_>, name: &'static str) -> Result<Self, ApiError> {
        fields.take(name)
    }
}

/// `null` means the default.
impl<T: Field> FromField<'_> for Change<T> {
    fn take(fields: &mut Fields<'_>, name: &'static str) -> Result<Self, ApiError> {
        fields.take_change(name)
    }
}

/// A field as it was sent, `null` included.
#[derive(Debug)]
pub(super) struct Raw<'body>(pub(super) Option<&'body RawValue>);

impl<'body> FromField<'body> for Raw<'body> {
    fn take(fields: &mut Fields<'body>, name: &'static str) -> Result<Self, ApiError> {
        fields.take_raw(name).map(Self)
    }
}

/// Declares a request. Each field has the name that it has in JSON before it; `..name: Type` at the end adds the
/// fields of another request. A lifetime, if there is one, must be `'body`.
macro_rules! request {
    (
        $(#[$meta:meta])*
        struct $name:ident $(<$lifetime:lifetime>)? {
            $($(#[$field_meta:meta])* $json:literal $field:ident: $type:ty,)*
            $(..$others:ident: $others_type:ty,)?
        }
    ) => {
        #[derive(Debug, schemars::JsonSchema)]
        $(#[$meta])*
        pub(in $crate::http) struct $name $(<$lifetime>)? {
            $(
                $(#[$field_meta])*
                #[schemars(rename = $json)]
                pub(in $crate::http) $field: $type,
            )*
            $(
                #[schemars(flatten)]
                pub(in $crate::http) $others: $others_type,
            )?
        }

        impl<'body> $crate::http::request::FromFields<'body> for $name $(<$lifetime>)? {
            fn has(name: &str) -> bool {
                [$($json),*].contains(&name)
                    $(|| <$others_type as $crate::http::request::FromFields>::has(name))?
            }

            fn names() -> Vec<&'static str> {
                let own = [$($json),*];
                $(
                    let others = <$others_type as $crate::http::request::FromFields>::names();
                    let own = own.into_iter().chain(others);
                )?
                own.into_iter().collect()
            }

            fn take(
                fields: &mut $crate::http::fields::Fields<'body>,
            ) -> Result<Self, $crate::http::error::ApiError> {
                Ok(Self {
                    $($field: $crate::http::request::FromField::take(fields, $json)?,)*
                    $($others: $crate::http::request::FromFields::take(fields)?,)?
                })
            }
        }
    };
}

pub(super) use request;
