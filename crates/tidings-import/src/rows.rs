//! Rows of SQLite in the text format of `COPY`.
//!
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>

use bytes::{BufMut, Bytes, BytesMut};
use tidings_sqlite::rusqlite::types::ValueRef;
use tidings_sqlite::rusqlite::{self, Connection};
use tokio::sync::mpsc;

use crate::Table;

/// Most rows of one transaction, and its bytes, except for a larger single row.
const ROWS: usize = 10_000;
const BYTES: usize = 4 << 20;

/// Rows that are written in one transaction.
pub(crate) struct Chunk {
    pub(crate) rows: usize,
    pub(crate) text: Bytes,
}

/// Reads all rows that a table gets, and hands them over in chunks. Ends early if nothing takes them.
pub(crate) fn read(
    connection: &Connection,
    table: &Table,
    with: Option<&str>,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), rusqlite::Error> {
    let Table { select, from, .. } = table;
    let mut statement = connection.prepare(&format!("SELECT {select} FROM {from}"))?;
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(with))?;
    let mut text = BytesMut::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            if column > 0 {
                text.put_u8(b'\t');
            }
            write(&mut text, row.get_ref(column)?);
        }
        text.put_u8(b'\n');
        count += 1;
        if count == ROWS || text.len() >= BYTES {
            let text = text.split().freeze();
            if chunks.blocking_send(Chunk { rows: count, text }).is_err() {
                return Ok(());
            }
            count = 0;
        }
    }
    if count > 0 {
        let text = text.freeze();
        // Without a receiver there was an error, which it reports.
        let _taken = chunks.blocking_send(Chunk { rows: count, text });
    }
    Ok(())
}

fn write(text: &mut BytesMut, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => text.put_slice(br"\N"),
        ValueRef::Integer(number) => text.put_slice(number.to_string().as_bytes()),
        ValueRef::Real(number) => text.put_slice(number.to_string().as_bytes()),
        ValueRef::Text(bytes) => escape(text, bytes),
        ValueRef::Blob(bytes) => {
            text.put_slice(br"\\x");
            text.reserve(2 * bytes.len());
            for byte in bytes {
                text.put_u8(HEX[usize::from(byte >> 4)]);
                text.put_u8(HEX[usize::from(byte & 15)]);
            }
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn escape(text: &mut BytesMut, bytes: &[u8]) {
    text.reserve(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.put_slice(br"\\"),
            b'\n' => text.put_slice(br"\n"),
            b'\r' => text.put_slice(br"\r"),
            b'\t' => text.put_slice(br"\t"),
            byte => text.put_u8(*byte),
        }
    }
}
