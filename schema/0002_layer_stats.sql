-- What went on in the layers of a network while it trained: a row a layer and sampled step, number 0 being the whole
-- network. NULL: not measured, or not a number.
CREATE TABLE layer (
    job        INTEGER NOT NULL REFERENCES job (seq),
    n          INTEGER NOT NULL CHECK (n >= 0),  -- 0: the network; from 1: its layers, from the input to the output
    name       TEXT NOT NULL,
    type       TEXT NOT NULL,
    activation TEXT NOT NULL,
    hidden     INTEGER NOT NULL CHECK (hidden IN (0, 1)),
    PRIMARY KEY (job, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE layer_sample (
    job           INTEGER NOT NULL REFERENCES job (seq),
    step          INTEGER NOT NULL,
    layer         INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    loss          REAL,
    gradient_norm REAL,
    clipped_norm  REAL,
    weight_norm   REAL,
    update_ratio  REAL,
    delta_norm    REAL,
    mean          REAL,
    spread        REAL,
    dead          REAL,
    saturated     REAL,
    alike         REAL,
    PRIMARY KEY (job, step, layer)
) STRICT, WITHOUT ROWID;
