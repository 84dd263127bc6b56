-- Which generation serves in place of a configured model (its slot), and what was there before.
CREATE TABLE active (
    slot TEXT PRIMARY KEY,
    generation TEXT NOT NULL,
    previous TEXT,
    shadow TEXT,
    -- The generation that was rolled back last: nothing begins with it until it is activated again.
    withdrawn TEXT,
    since INTEGER NOT NULL,
    who TEXT NOT NULL,
    CHECK (withdrawn IS NULL OR withdrawn <> generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE patients (
    key TEXT PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('training', 'locked')),
    -- The same for all keys of one person.
    person TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER patients_are_never_removed BEFORE DELETE ON patients
BEGIN SELECT RAISE(ABORT, 'the split is for ever'); END;
CREATE TRIGGER patients_never_change_sides BEFORE UPDATE OF key, role ON patients WHEN NEW.role <> OLD.role OR NEW.key <> OLD.key
BEGIN SELECT RAISE(ABORT, 'the split is for ever'); END;

CREATE TABLE cases (
    id TEXT PRIMARY KEY,
    patient TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('labelled', 'unlabelled')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'accepted', 'refused', 'withdrawn', 'rejected')),
    -- Digest of the labels that the state is about.
    labels TEXT,
    code TEXT,
    detail TEXT,
    added INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slot TEXT NOT NULL,
    base TEXT NOT NULL,
    serving TEXT NOT NULL,
    candidate TEXT,
    plan TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'preparing', 'training', 'evaluating', 'passed', 'shadow', 'refused', 'failed', 'stopped', 'promoted')),
    step INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    code TEXT,
    detail TEXT,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX runs_open ON runs ((1)) WHERE state IN ('queued', 'preparing', 'training', 'evaluating');

-- What people and the daemon did to models and cases; never changed, never removed.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    chain TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_never_removed BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
