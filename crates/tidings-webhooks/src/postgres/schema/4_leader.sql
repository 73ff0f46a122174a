-- Which instance makes deliveries of accepted events.
CREATE TABLE tidings_webhook_leader (
    one boolean PRIMARY KEY CHECK (one),
    instance text NOT NULL,
    until bigint NOT NULL
);
