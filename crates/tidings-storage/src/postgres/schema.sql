CREATE TABLE tidings_server_request (
    key text COLLATE "C" PRIMARY KEY,
    fingerprint bytea NOT NULL,
    events text NOT NULL, -- [[id, timestamp], …]
    response text, -- of requests that do not become notifications
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON tidings_server_request (accepted_at);

-- Who does the work that one instance at a time does, and until when it is that instance's.
CREATE TABLE tidings_server_turn (
    work text PRIMARY KEY,
    instance text NOT NULL,
    until timestamptz NOT NULL
);

-- A row that is written to find out whether the database can be written.
CREATE TABLE tidings_server_probe (one boolean PRIMARY KEY CHECK (one), at timestamptz NOT NULL);

-- Locks keys until the end of the transaction, and returns a row for each key: whether it is locked now,
-- and what was stored under it. A key that another transaction has locked is not waited for. Locks of
-- this kind are those of the whole database, so they are named after the schema too.
CREATE FUNCTION tidings_server_claim(c_keys text[], c_kept interval) RETURNS TABLE (
    n bigint, is_locked boolean, fingerprint bytea, events text, response text
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_locked boolean[];
BEGIN
    SELECT array_agg(pg_try_advisory_xact_lock(
            hashtextextended(concat(current_schema(), ' ', given.key), 6074931807742214)
        ) ORDER BY given.n)
    INTO v_locked FROM unnest(c_keys) WITH ORDINALITY AS given (key, n);
    -- A statement of its own, which sees what was committed before the locks were there.
    RETURN QUERY
        SELECT given.n, v_locked[given.n], request.fingerprint, request.events, request.response
        FROM unnest(c_keys) WITH ORDINALITY AS given (key, n)
        LEFT JOIN tidings_server_request AS request ON request.key = given.key COLLATE "C"
            AND request.accepted_at > clock_timestamp() - c_kept
        ORDER BY given.n;
END $$;
