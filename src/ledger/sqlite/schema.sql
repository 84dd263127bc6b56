-- Version 1. Times are milliseconds since 1970 UTC.
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    evidence TEXT,
    closed INTEGER,
    closings INTEGER NOT NULL DEFAULT 0,
    UNIQUE (series_uid, study_uid)
) STRICT;
CREATE INDEX series_study ON series (study_uid);

-- Why parts of a series are not processed, as of its last closing.
CREATE TABLE refusals (
    series_id INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (series_id, place)
) STRICT, WITHOUT ROWID;

-- Acknowledged instances.
CREATE TABLE instances (
    id INTEGER PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    sop_instance_uid TEXT NOT NULL,
    path TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    received INTEGER NOT NULL
) STRICT;
CREATE INDEX instances_series ON instances (series_id);
CREATE INDEX instances_uid ON instances (sop_instance_uid);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    series_id INTEGER NOT NULL REFERENCES series (id),
    input TEXT NOT NULL,
    priority TEXT NOT NULL CHECK (priority IN ('batch', 'routine', 'stat')),
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    model TEXT,
    folder TEXT,
    identity TEXT,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'parked', 'done', 'cancelled', 'superseded')),
    attempts INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    crashes_alone INTEGER NOT NULL,
    suspect INTEGER NOT NULL,
    not_before INTEGER,
    owner TEXT,
    token INTEGER UNIQUE,
    until INTEGER,
    alone INTEGER,
    code TEXT,
    detail TEXT,
    rank INTEGER NOT NULL,
    line INTEGER NOT NULL,
    -- Place of its end in the journal.
    done INTEGER,
    UNIQUE (series_id, input),
    CHECK ((state = 'running') = (token IS NOT NULL)),
    CHECK ((state = 'waiting') = (not_before IS NOT NULL)),
    CHECK ((state = 'done') = (done IS NOT NULL)),
    CHECK (state <> 'done' OR folder IS NOT NULL)
) STRICT;
CREATE INDEX jobs_line ON jobs (rank DESC, line) WHERE state IN ('queued', 'waiting');
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_done ON jobs (done) WHERE state = 'done';

-- The files of a published result.
CREATE TABLE objects (
    job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    file TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (job_id, file)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sending', 'waiting', 'delivered', 'parked', 'cancelled')),
    attempts INTEGER NOT NULL,
    doubtful INTEGER NOT NULL,
    not_before INTEGER,
    owner TEXT,
    token INTEGER UNIQUE,
    until INTEGER,
    code TEXT,
    detail TEXT,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    UNIQUE (job_id, destination),
    CHECK ((state = 'sending') = (token IS NOT NULL))
) STRICT;
CREATE INDEX outbox_line ON outbox (destination, id) WHERE state IN ('pending', 'waiting');

-- Every transition; never changed, removed only from its old end.
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    job_id INTEGER,
    destination TEXT,
    event TEXT NOT NULL,
    state_before TEXT,
    state_after TEXT,
    who TEXT NOT NULL,
    code TEXT,
    detail TEXT
) STRICT;
CREATE INDEX journal_job ON journal (job_id);
CREATE TRIGGER journal_is_never_changed BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_is_removed_from_its_old_end BEFORE DELETE ON journal
WHEN OLD.at >= coalesce((SELECT value FROM counters WHERE name = 'journal_before'), 0)
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

INSERT INTO counters (name, value) VALUES ('opening', 0), ('token', 0), ('line', 0), ('verified', 0), ('journal_before', 0);
