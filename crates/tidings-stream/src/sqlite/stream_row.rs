use rusqlite::Row;

/// The row of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamRow {
    pub(super) stream_id: i64,
    pub(super) head: i64,
    pub(super) tail: i64,
    pub(super) max_len: Option<i64>,
    pub(super) max_age: Option<i64>,
    pub(super) trim_pending: bool,
}

/// The columns that [`StreamRow::read`] reads, in its order.
pub(super) const STREAM_COLUMNS: &str = "stream_id, head, tail, max_len, max_age, trim_pending";

impl StreamRow {
    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            stream_id: row.get(0)?,
            head: row.get(1)?,
            tail: row.get(2)?,
            max_len: row.get(3)?,
            max_age: row.get(4)?,
            trim_pending: row.get(5)?,
        })
    }
}
