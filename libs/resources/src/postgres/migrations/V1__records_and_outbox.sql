-- The tables of sqlite.rs, and what several replicas need beside them. Names are compared by their bytes, as SQLite does.
CREATE TABLE records (
    name TEXT COLLATE "C" PRIMARY KEY,
    collection TEXT COLLATE "C" NOT NULL,
    uid TEXT NOT NULL,
    etag TEXT NOT NULL,
    body BYTEA NOT NULL,
    create_micros BIGINT NOT NULL,
    update_micros BIGINT NOT NULL,
    request_id TEXT
);
CREATE INDEX newest ON records (collection, create_micros DESC, name DESC);

CREATE TABLE outbox (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    event_type TEXT NOT NULL,
    payload BYTEA NOT NULL,
    headers TEXT NOT NULL
);

-- The times of writes: no two are equal over all replicas, and none is before an earlier one, even if the server's clock goes back.
CREATE SEQUENCE clock AS BIGINT;

-- Takes `count` times and returns the last. The lock is held for the moment of this call and not until the transaction ends, so that
-- writers do not wait for each other's disk. Should the call be cut off between lock and unlock, its connection is given up.
CREATE FUNCTION next_micros(count BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    place CONSTANT BIGINT := 'clock'::regclass::oid;
    last BIGINT;
BEGIN
    PERFORM pg_advisory_lock(place);
    SELECT setval('clock', greatest(last_value + count, floor(extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT))
        INTO last FROM clock;
    PERFORM pg_advisory_unlock(place);
    RETURN last;
END $$;

-- Whether the relay that leads, or led last, has not stepped down: then it may have vanished a moment ago.
CREATE TABLE leader (present BOOLEAN NOT NULL);
INSERT INTO leader VALUES (false);
