-- The channel of the wake-ups of these tables, whatever else is in the database.
CREATE FUNCTION tidings_stream_channel() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'tidings_stream_' || 'tidings_stream'::regclass::oid
$$;

CREATE FUNCTION tidings_stream_now() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

-- What every function that writes begins with. After it has waited for a lock, a statement must see
-- what the lock protected: only READ COMMITTED looks again. Settings are those of the transaction, so
-- that a pooler finds its session as it was. A wait for a lock ends when the client has long given up; one for
-- the row of a group, which a transaction of a handler's may hold, ends soon: the client tries again, and has
-- no connection meanwhile.
CREATE FUNCTION tidings_stream_begin(durable boolean, p_patience text DEFAULT '10s') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'streams need the isolation level READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM set_config('lock_timeout', p_patience, true);
    IF NOT durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSIF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;
