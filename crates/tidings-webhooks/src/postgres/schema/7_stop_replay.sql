-- A replay can be stopped, and ends in the moment in which its endpoint is disabled or removed.

CREATE FUNCTION tidings_webhook_stop_replay(s_endpoint bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM tidings_webhook_replay WHERE endpoint = s_endpoint;
    RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION tidings_webhook_replace_endpoint(
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
    UPDATE tidings_webhook_lane SET
        next_due = least(next_due, n_now), blocked_until = 0,
        was_unblocked = owner IS NOT NULL,
        free_at = CASE WHEN owner IS NULL THEN least(next_due, n_now) ELSE free_at END
    WHERE endpoint = n_endpoint;
    IF n_disabled_because IS NULL AND NOT n_removed THEN
        -- What it failed for may be mended: the time in which it has to succeed begins anew.
        UPDATE tidings_webhook_health SET failing_since = NULL WHERE endpoint = n_endpoint;
    END IF;
    RETURN true;
END $$;
