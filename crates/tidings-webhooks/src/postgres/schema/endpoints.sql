CREATE FUNCTION tidings_webhook_is_enabled(i_endpoint bigint) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM tidings_webhook_endpoint
        WHERE endpoint = i_endpoint AND NOT removed AND disabled_because IS NULL);
$$;

-- As many endpoints of one owner as are allowed, also when two are made at the same time.
CREATE FUNCTION tidings_webhook_insert_endpoint(
    n_endpoint bigint, n_user text, n_settings text, n_event_types text, n_secrets text,
    n_first_wait bigint, n_disabled_because text, n_revision bigint, n_created_at bigint,
    n_limit bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF n_limit IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(
            concat(current_schema(), ' ', n_user), 6074931807742213));
        IF (SELECT count(*) FROM tidings_webhook_endpoint
            WHERE user_id IS NOT DISTINCT FROM n_user AND NOT removed) >= n_limit
        THEN
            RETURN false;
        END IF;
    END IF;
    INSERT INTO tidings_webhook_endpoint (endpoint, user_id, settings, event_types, secrets,
        first_wait, disabled_because, revision, created_at)
    VALUES (n_endpoint, n_user, n_settings, n_event_types, n_secrets, n_first_wait,
        n_disabled_because, n_revision, n_created_at);
    RETURN true;
END $$;

CREATE FUNCTION tidings_webhook_replace_endpoint(
    n_endpoint bigint, n_settings text, n_event_types text, n_secrets text, n_first_wait bigint,
    n_disabled_because text, n_removed boolean, n_revision bigint, n_now bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tidings_webhook_endpoint SET
        settings = n_settings, event_types = n_event_types, secrets = n_secrets,
        first_wait = n_first_wait, disabled_because = n_disabled_because, removed = n_removed,
        revision = revision + 1
    WHERE endpoint = n_endpoint AND revision = n_revision AND NOT removed;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A replay is locked before its lane, as its steps do it.
    IF n_disabled_because IS NOT NULL OR n_removed THEN
        PERFORM tidings_webhook_stop_replay(n_endpoint);
    END IF;
    -- Whatever blocks it: its deliveries are to be cancelled, or may succeed now.
    PERFORM tidings_webhook_unblock(n_endpoint, n_now);
    IF n_disabled_because IS NULL AND NOT n_removed THEN
        -- What it failed for may be mended: the time in which it has to succeed begins anew.
        UPDATE tidings_webhook_health SET failing_since = NULL WHERE endpoint = n_endpoint;
    END IF;
    RETURN true;
END $$;
