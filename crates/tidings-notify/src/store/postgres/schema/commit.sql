-- How commits wait for the disk.

-- What is not lost without harm waits for the disk, even where commits usually do not.
CREATE FUNCTION tidings_notify_durable() RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT set_config('synchronous_commit', 'local', true)
    WHERE current_setting('synchronous_commit') = 'off'
$$;

CREATE FUNCTION tidings_notify_relaxed() RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT set_config('synchronous_commit', 'off', true)
$$;
