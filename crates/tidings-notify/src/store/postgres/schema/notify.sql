-- For applications in any language: an event becomes a part of their own transaction.

-- Refuses what the library refuses. White space is listed: what `\s` stands for depends on the locale.
CREATE FUNCTION tidings_notify_check(c_name text, c_what text) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF c_name IS NULL OR octet_length(c_name) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'expected % to have 1 to 255 bytes', c_what
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF c_name ~ '[\u0001-\u001f\u007f-\u009f]' THEN
        RAISE EXCEPTION 'expected % to have no control characters', c_what
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF c_what = 'user_id' AND (c_name IN ('.', '..')
        OR c_name ~ '^[ \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]'
        OR c_name ~ '[ \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$'
        OR c_name ~ '[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]')
    THEN
        RAISE EXCEPTION 'expected user_id to be a name that looks like no other'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF c_what = 'type' AND starts_with(c_name, 'tidings.') THEN
        RAISE EXCEPTION 'expected type not to begin with tidings.'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- How deep the arrays and objects of a JSON text nest.
CREATE FUNCTION tidings_notify_depth(d_json text) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_bare text := regexp_replace(d_json, '"(?:[^"\\]|\\.)*"', '', 'g');
    v_depth integer := 0;
    v_deepest integer := 0;
    v_one text;
BEGIN
    v_bare := regexp_replace(v_bare, '[^][{}]', '', 'g');
    FOREACH v_one IN ARRAY string_to_array(v_bare, NULL) LOOP
        v_depth := v_depth + CASE WHEN v_one IN ('[', '{') THEN 1 ELSE -1 END;
        v_deepest := greatest(v_deepest, v_depth);
    END LOOP;
    RETURN v_deepest;
END $$;

-- Appends an event for each of several users, in the transaction of the caller, and returns their ids.
-- Locks the logs of these users until the transaction ends, in the order of the users: call it once
-- in a transaction, and late.
CREATE FUNCTION tidings_notify_all(
    user_ids text[], type text, payload jsonb, key text DEFAULT NULL,
    occurred_at timestamptz DEFAULT clock_timestamp()
) RETURNS TABLE (user_id text, id text) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    v_users text[];
    v_payload text := payload::text;
    v_at bigint;
BEGIN
    PERFORM tidings_notify_check(type, 'type');
    IF key IS NOT NULL THEN
        PERFORM tidings_notify_check(key, 'key');
    END IF;
    IF v_payload IS NULL OR tidings_notify_depth(v_payload) > 120 THEN
        RAISE EXCEPTION 'expected payload to be JSON that nests at most 120 levels deep'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF occurred_at IS NULL OR occurred_at NOT BETWEEN timestamptz '0001-01-01 00:00:00Z'
        AND timestamptz '9999-12-30 22:00:00Z'
    THEN
        RAISE EXCEPTION 'expected occurred_at to be a time from the years 1 to 9999'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    v_at := floor(extract(epoch FROM occurred_at) * 1000000)::bigint;
    SELECT array_agg(given.name ORDER BY given.first) INTO v_users
    FROM (SELECT one.name, min(one.n) AS first
        FROM unnest(user_ids) WITH ORDINALITY AS one (name, n) GROUP BY one.name) AS given;
    IF v_users IS NULL THEN
        RETURN;
    END IF;
    PERFORM tidings_notify_check(one.name, 'user_id') FROM unnest(v_users) AS one (name);
    RETURN QUERY
    SELECT v_users[one.place], lpad(to_hex(one.epoch), 16, '0') || '-' || one.seq
    FROM tidings_notify_append_calls(
        array_fill(0, ARRAY[cardinality(v_users)]),
        v_users,
        array_fill(type, ARRAY[cardinality(v_users)]),
        array_fill(v_payload, ARRAY[cardinality(v_users)]),
        array_fill(v_at, ARRAY[cardinality(v_users)]),
        array_fill(key, ARRAY[cardinality(v_users)]),
        ARRAY(SELECT ('x' || translate(left(gen_random_uuid()::text, 18), '-', ''))::bit(64)::bigint
            FROM unnest(v_users)),
        false
    ) AS stored, unnest(stored.places, stored.epochs, stored.seqs) AS one (place, epoch, seq)
    ORDER BY one.place;
END $$;

-- Appends an event for one user, in the transaction of the caller, and returns its id.
CREATE FUNCTION tidings_notify(
    user_id text, type text, payload jsonb, key text DEFAULT NULL,
    occurred_at timestamptz DEFAULT clock_timestamp()
) RETURNS text LANGUAGE sql AS $$
    SELECT stored.id FROM tidings_notify_all(ARRAY[user_id], type, payload, key, occurred_at) AS stored
$$;

-- The channel of the wake-ups of these tables, whatever else is in the database.
CREATE FUNCTION tidings_notify_channel() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'tidings_notify_' || 'tidings_notify_log'::regclass::oid
$$;

-- Wakes the screens of users before their next poll. Call it after the commit: the server makes
-- commits that notify one after the other.
CREATE FUNCTION tidings_notify_wake(VARIADIC user_ids text[]) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify(tidings_notify_channel(), E'sql\n' || one.name) FROM unnest(user_ids) AS one (name)
$$;
