-- Every change is one call of a function, so that it is one short transaction. Rows are locked in
-- this order, and several of a table by their keys: endpoints, events, deliveries, lanes, health.
--
-- What is asked all the time is a function, too. A statement within it is planned once a session, even behind a pooler that
-- keeps no prepared statements, and in the same way for all parameters: these tables change too fast for what the server
-- knows of their contents.
--
-- Times are in microseconds since 1970. due_at, free_at, next_due, blocked_until, failing_since,
-- resume_at and the clock are of the clock of what is due, the others of the wall. States are
-- 0 pending, 1 delivered, 2 failed, 3 cancelled. free_at is when a lane may be leased: when its lease
-- ends, or when there is something to do.
CREATE TABLE tidings_webhook_clock (
    one integer PRIMARY KEY CHECK (one = 1),
    now bigint NOT NULL
);
CREATE TABLE tidings_webhook_endpoint (
    endpoint bigint PRIMARY KEY,
    user_id text,
    settings text NOT NULL,
    event_types text NOT NULL,
    secrets text NOT NULL,
    first_wait bigint,
    disabled_because text,
    removed boolean NOT NULL DEFAULT false,
    revision bigint NOT NULL,
    created_at bigint NOT NULL,
    -- Endpoints are numbered in the order in which they are made.
    number bigserial
);
CREATE INDEX tidings_webhook_endpoint_user ON tidings_webhook_endpoint (user_id, created_at)
    WHERE NOT removed;
CREATE INDEX tidings_webhook_endpoint_removed ON tidings_webhook_endpoint (endpoint) WHERE removed;
CREATE INDEX tidings_webhook_endpoint_number ON tidings_webhook_endpoint (number);
CREATE TABLE tidings_webhook_event (
    event bigserial PRIMARY KEY,
    id text NOT NULL UNIQUE,
    user_id text,
    type text NOT NULL,
    timestamp bigint NOT NULL,
    payload text NOT NULL,
    accepted_at bigint NOT NULL,
    has_delivery boolean NOT NULL
);
CREATE INDEX tidings_webhook_event_accepted ON tidings_webhook_event (accepted_at, event);
CREATE INDEX tidings_webhook_event_user ON tidings_webhook_event (user_id, event)
    WHERE user_id IS NOT NULL;
CREATE INDEX tidings_webhook_event_bare ON tidings_webhook_event (accepted_at)
    WHERE NOT has_delivery;
CREATE TABLE tidings_webhook_delivery (
    delivery bigserial PRIMARY KEY,
    event bigint NOT NULL,
    endpoint bigint NOT NULL,
    state smallint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    tries integer NOT NULL DEFAULT 0,
    due_at bigint,
    created_at bigint NOT NULL,
    finished_at bigint,
    reason text,
    UNIQUE (event, endpoint)
);
CREATE INDEX tidings_webhook_delivery_due ON tidings_webhook_delivery (endpoint, due_at, delivery)
    WHERE state = 0;
CREATE INDEX tidings_webhook_delivery_endpoint
    ON tidings_webhook_delivery (endpoint, state, delivery);
CREATE INDEX tidings_webhook_delivery_state ON tidings_webhook_delivery (state, delivery);
CREATE INDEX tidings_webhook_delivery_finished ON tidings_webhook_delivery (finished_at)
    WHERE finished_at IS NOT NULL;
CREATE TABLE tidings_webhook_attempt (
    delivery bigint NOT NULL,
    number integer NOT NULL,
    started_at bigint NOT NULL,
    duration bigint NOT NULL,
    status integer,
    error text,
    response text NOT NULL,
    PRIMARY KEY (delivery, number)
);
CREATE TABLE tidings_webhook_lane (
    endpoint bigint PRIMARY KEY,
    next_due bigint NOT NULL,
    blocked_until bigint NOT NULL DEFAULT 0,
    owner text,
    free_at bigint NOT NULL,
    -- Whether something ended the block while the lane was leased: its holder may not know yet.
    was_unblocked boolean NOT NULL DEFAULT false,
    -- For how long the circuit opens next, in microseconds; 0 if it is closed.
    next_open_for bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX tidings_webhook_lane_free ON tidings_webhook_lane (free_at);
CREATE INDEX tidings_webhook_lane_owner ON tidings_webhook_lane (owner) WHERE owner IS NOT NULL;
CREATE TABLE tidings_webhook_health (
    endpoint bigint PRIMARY KEY,
    last_success_at bigint,
    last_failure_at bigint,
    failing_since bigint,
    hour bigint NOT NULL,
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    succeeded_before bigint NOT NULL,
    failed_before bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE tidings_webhook_replay (
    endpoint bigint PRIMARY KEY,
    position bigint NOT NULL,
    last bigint NOT NULL,
    per_second integer NOT NULL,
    resume_at bigint NOT NULL
);
CREATE TABLE tidings_webhook_deferred (
    number bigserial PRIMARY KEY,
    id text NOT NULL UNIQUE,
    user_id text,
    newest_endpoint bigint NOT NULL,
    event text NOT NULL
);
CREATE INDEX tidings_webhook_deferred_user ON tidings_webhook_deferred (user_id);
-- Which instance makes deliveries of accepted events.
CREATE TABLE tidings_webhook_leader (
    one boolean PRIMARY KEY CHECK (one),
    instance text NOT NULL,
    until bigint NOT NULL
);
