-- Where a log is written. A promoted replica may lack the newest events of the server that it replaces, and a dump that is
-- put back lacks what was appended after it: the timeline, the server or the tables are others then.

-- The timeline that the server writes. Services that forbid both ways to ask, or have no such thing, do not
-- hand over to a copy that lacks something: there it is always 0. It says the same to all roles.
CREATE FUNCTION tidings_notify_timeline() RETURNS integer LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
EXCEPTION WHEN OTHERS THEN
    BEGIN
        -- As of the last checkpoint, which a server that was promoted begins at once.
        RETURN (SELECT timeline_id FROM pg_control_checkpoint());
    EXCEPTION
        -- It may say so the next time.
        WHEN insufficient_resources OR system_error OR internal_error OR data_corrupted THEN RAISE;
        WHEN OTHERS THEN RETURN 0;
    END;
END $$;

-- Which server, or 0 where a service forbids to ask.
CREATE FUNCTION tidings_notify_server() RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system());
EXCEPTION
    WHEN insufficient_resources OR system_error OR internal_error OR data_corrupted THEN RAISE;
    WHEN OTHERS THEN RETURN 0;
END $$;

-- A number for where a log is written. A log that was written elsewhere may have had more events than it has here.
CREATE FUNCTION tidings_notify_line() RETURNS integer LANGUAGE sql VOLATILE AS $$
    SELECT hashtext(concat_ws(' ', tidings_notify_timeline(), tidings_notify_server(),
        'tidings_notify_log'::regclass::oid))
$$;
