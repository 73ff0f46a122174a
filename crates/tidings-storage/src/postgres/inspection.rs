//! A look at a PostgreSQL database that changes nothing in it.

use jiff::{SignedDuration, Timestamp};
use tidings_postgres::{Config, Database, Error};
use tidings_webhooks::EndpointId;

use super::{COMPONENT, PostgresUrl, STEPS, without_tls};
use crate::explain::explain;
use crate::finding::Finding;
use crate::inspection::{STORE, Secrets, compare_clocks, newer};

/// The table of versions is there once a server or an import has used the database.
const LOOK: &str = "
    SELECT extract(epoch FROM clock_timestamp())::float8,
        current_setting('server_version'),
        current_schema(),
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
        to_regclass('tidings_schema') IS NOT NULL,
        (SELECT string_agg(name, ', ' ORDER BY name) FROM pg_settings
            WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'),
        to_regclass('tidings_webhook_endpoint') IS NOT NULL,
        current_setting('server_version_num')::integer";

/// As `server_version_num` has it.
const OLDEST_VERSION: i32 = 140_000;

const SECRETS: &str = "SELECT endpoint, secrets FROM tidings_webhook_endpoint WHERE NOT removed";

const VERSIONS: &str = "SELECT component, version FROM tidings_schema ORDER BY component";

/// The tables that a server uses, and their versions in this program.
const KNOWN: [(&str, usize); 5] = [
    (COMPONENT, STEPS.len()),
    tidings_notify::postgres::SCHEMA,
    tidings_notify::presence::postgres::SCHEMA,
    tidings_stream::postgres::SCHEMA,
    tidings_webhooks::postgres::SCHEMA,
];

/// Connects and looks.
pub(crate) async fn inspect(url: &PostgresUrl, secrets: &mut Secrets) -> Vec<Finding> {
    match look(url, secrets).await {
        Ok(findings) => findings,
        Err(error) => {
            let message = format!("cannot use the database {url}: {}", explain(&error));
            vec![Finding::error(STORE, message)]
        }
    }
}

async fn look(url: &PostgresUrl, secrets: &mut Secrets) -> Result<Vec<Finding>, Error> {
    let database = Database::new(Config::new(url.expose())?);
    // The first call connects, which takes longer than the look at the clock.
    let is_unfinished = tidings_import::is_unfinished(&database).await?;
    let before = Timestamp::now();
    let rows = database.run(|client| async move { client.query_typed(LOOK, &[]).await });
    let row = rows.await?.pop().ok_or(Error::NoRow)?;
    let after = Timestamp::now();
    let read = |error| Error::of_statement(error);
    let seconds: f64 = row.try_get(0).map_err(read)?;
    let version: String = row.try_get(1).map_err(read)?;
    let schema: Option<String> = row.try_get(2).map_err(read)?;
    let may_create: bool = row.try_get(3).map_err(read)?;
    let has_tables: bool = row.try_get(4).map_err(read)?;
    let off: Option<String> = row.try_get(5).map_err(read)?;

    let mut findings = Vec::new();
    findings.extend(too_old(&version, row.try_get(7).map_err(read)?));
    findings.push(if is_unfinished {
        Finding::error(
            STORE,
            format!("an import into {url} did not end: run it again"),
        )
    } else if !has_tables && !may_create {
        let schema = schema.unwrap_or_else(|| "search_path".to_owned());
        let message = format!("{url}: the user may not create tables in the schema {schema}");
        Finding::error(STORE, message)
    } else if !has_tables {
        let message = format!("{url}: PostgreSQL {version}, without tables: a server makes them");
        Finding::ok(STORE, message)
    } else {
        if row.try_get(6).map_err(read)? {
            look_at_secrets(&database, secrets).await?;
        }
        of_version(&database, url, &version).await?
    });
    let warning = without_tls(&database).await?;
    findings.extend(warning.map(|warning| Finding::warning(STORE, warning)));
    if let Some(off) = off {
        let message =
            format!("PostgreSQL confirms commits that a crash can undo or damage: {off} = off");
        findings.push(Finding::warning(STORE, message));
    }
    if let Ok(theirs) = SignedDuration::try_from_secs_f64(seconds)
        && let Ok(theirs) = Timestamp::from_duration(theirs)
    {
        let whose = "the database";
        findings.push(compare_clocks(
            whose,
            theirs,
            before,
            after,
            SignedDuration::ZERO,
        ));
    }
    Ok(findings)
}

fn too_old(version: &str, number: i32) -> Option<Finding> {
    (number < OLDEST_VERSION).then(|| {
        let message = format!("PostgreSQL {version} is too old: 14 or later is required");
        Finding::error(STORE, message)
    })
}

async fn look_at_secrets(database: &Database, secrets: &mut Secrets) -> Result<(), Error> {
    let rows = database.run(|client| async move { client.query_typed(SECRETS, &[]).await });
    for row in &rows.await? {
        let endpoint = row.try_get(0).map_err(Error::of_statement)?;
        let stored = row.try_get(1).map_err(Error::of_statement)?;
        secrets.add(EndpointId::from_i64(endpoint), stored);
    }
    Ok(())
}

/// Whether the tables are those of this program or of an older one.
async fn of_version(
    database: &Database,
    url: &PostgresUrl,
    version: &str,
) -> Result<Finding, Error> {
    let rows = database.run(|client| async move { client.query_typed(VERSIONS, &[]).await });
    for row in &rows.await? {
        let component: &str = row.try_get(0).map_err(Error::of_statement)?;
        let found: i32 = row.try_get(1).map_err(Error::of_statement)?;
        if let Some((component, found, known)) = newer(&KNOWN, component, found.into()) {
            let error = Error::NewerSchema {
                component,
                found,
                known,
            };
            return Ok(Finding::error(STORE, format!("{url}: {error}")));
        }
    }
    Ok(Finding::ok(STORE, format!("{url}: PostgreSQL {version}")))
}

#[cfg(test)]
mod tests {
    use super::too_old;

    #[test]
    fn a_postgresql_before_version_14_is_too_old() {
        assert_eq!(too_old("14.0", 140_000), None);
        let found = too_old("13.22", 130_022).unwrap().message;
        assert!(found.contains("13.22 is too old"), "{found}");
    }
}
