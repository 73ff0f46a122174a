-- API keys, by the digests of their secrets. Times are microseconds since 1970.
CREATE TABLE tidings_server_api_key (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    digest bytea NOT NULL UNIQUE,
    prefix text NOT NULL,
    scopes text NOT NULL, -- separated by commas
    created_at bigint NOT NULL,
    expires_at bigint,
    last_used_at bigint
);
