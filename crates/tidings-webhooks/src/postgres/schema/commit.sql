-- What a crash of the server may undo does not wait for the disk.

CREATE FUNCTION tidings_webhook_relaxed() RETURNS void LANGUAGE sql AS $$
    SELECT set_config('synchronous_commit', 'off', true);
$$;

-- What the fan-out has made waits for the disk, even where commits usually do not: afterwards the message is
-- acknowledged, by a client that outlives a crash of the server.
CREATE FUNCTION tidings_webhook_durable() RETURNS void LANGUAGE sql AS $$
    SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') = 'off';
$$;
