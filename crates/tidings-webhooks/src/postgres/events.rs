//! Events, and the deliveries that they become.

use jiff::Timestamp;
use tidings_notify::UserId;
use tidings_postgres::Parameter;
use tidings_postgres::tokio_postgres::types::Type;

use super::schema::{column, micros};
use super::statements::Statements;
use crate::store::{Added, Addressed};
use crate::{DeliveryId, StoreError};

const ADD: &str = "SELECT made, added
    FROM (SELECT tidings_webhook_durable() OFFSET 0) AS durable,
        tidings_webhook_add_counted($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

pub(super) async fn add(
    statements: &impl Statements,
    events: &[Addressed],
    at: Timestamp,
) -> Result<Added, StoreError> {
    let columns = Columns::new(events, at);
    let row = statements.row(ADD, &columns.parameters()).await?;
    let made: Vec<Option<i64>> = row.try_get(0).map_err(column)?;
    let deliveries = if made.len() == columns.of.len() {
        let ids = made.into_iter();
        ids.map(|id| id.map(DeliveryId::from_i64)).collect()
    } else {
        // An event was cleaned in between: it is not known which address each is of.
        vec![None; columns.of.len()]
    };
    Ok(Added {
        deliveries,
        count: number(row.try_get(1).map_err(column)?),
    })
}

/// A count of the database, which is never negative.
pub(super) fn number(count: i64) -> usize {
    usize::try_from(count).unwrap_or(0)
}

/// Events and their addresses, column by column.
pub(super) struct Columns<'a> {
    ids: Vec<&'a str>,
    users: Vec<Option<&'a str>>,
    types: Vec<&'a str>,
    timestamps: Vec<i64>,
    payloads: Vec<&'a str>,
    have_delivery: Vec<bool>,
    /// Which event each address is of, counted from 1.
    of: Vec<i32>,
    endpoints: Vec<i64>,
    dues: Vec<i64>,
    at: i64,
}

impl<'a> Columns<'a> {
    pub(super) fn new(events: &'a [Addressed], at: Timestamp) -> Self {
        let mut columns = Self {
            ids: Vec::new(),
            users: Vec::new(),
            types: Vec::new(),
            timestamps: Vec::new(),
            payloads: Vec::new(),
            have_delivery: Vec::new(),
            of: Vec::new(),
            endpoints: Vec::new(),
            dues: Vec::new(),
            at: micros(at),
        };
        for (number, Addressed { event, to }) in (1..).zip(events) {
            columns.ids.push(&event.id);
            columns.users.push(event.user.as_ref().map(UserId::as_str));
            columns.types.push(&event.event_type);
            columns.timestamps.push(micros(event.timestamp));
            columns.payloads.push(event.payload.as_str());
            columns.have_delivery.push(!to.is_empty());
            for (endpoint, due) in to {
                columns.of.push(number);
                columns.endpoints.push(endpoint.as_i64());
                columns.dues.push(micros(*due));
            }
        }
        columns
    }

    pub(super) fn parameters(&self) -> [Parameter<'_>; 10] {
        [
            (&self.ids, Type::TEXT_ARRAY),
            (&self.users, Type::TEXT_ARRAY),
            (&self.types, Type::TEXT_ARRAY),
            (&self.timestamps, Type::INT8_ARRAY),
            (&self.payloads, Type::TEXT_ARRAY),
            (&self.have_delivery, Type::BOOL_ARRAY),
            (&self.of, Type::INT4_ARRAY),
            (&self.endpoints, Type::INT8_ARRAY),
            (&self.dues, Type::INT8_ARRAY),
            (&self.at, Type::INT8),
        ]
    }
}
