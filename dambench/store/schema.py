"""The tables of runs.db, as ordered migrations. Named for people: `datasette runs.db` and plain SQL read well."""

from hashlib import blake2b

from sqlite_utils import Database, Migrations

from dambench.store import final_scores

migrations = Migrations("dambench")


@migrations()
def m001_runs(db: Database) -> None:
    """Runs, what they ran on, what they said and what they scored."""
    for statement in _M001.split(";\n\n"):
        db.conn.execute(statement)


@migrations()
def m002_samples(db: Database) -> None:
    """Samples of a run's machine. A dambench that knows only m001 can still add its runs: all has defaults."""
    for statement in _M002.split(";\n\n"):
        db.conn.execute(statement)


@migrations()
def m003_engine(db: Database) -> None:
    """Facts on how a run was computed. A dambench that knows only m002 can still add its runs: all has defaults."""
    for statement in _M003.split(";\n\n"):
        db.conn.execute(statement)


@migrations()
def m004_durable(db: Database) -> None:
    """The process of a run, its checkpoints, and a name for it that holds in every database."""
    for statement in _M004.split(";\n\n"):
        db.conn.execute(statement)
    for number, *words in db.conn.execute("select number, id, created_at, config_sha256 from runs").fetchall():
        # Derived, so that two copies of a file give the same run the same name.
        uid = blake2b("/".join(words).encode(), digest_size=16).hexdigest()
        db.conn.execute("update runs set uid = ? where number = ?", [uid, number])
    db.conn.execute("create unique index runs_by_uid on runs (uid)")


@migrations()
def m005_results(db: Database) -> None:
    """A view of results by all that keeps them apart. A dambench with only m004 would not know a run's new settings."""
    for statement in _M005.split(";\n\n"):
        db.conn.execute(statement)


@migrations()
def m006_measurements(db: Database) -> None:
    """Whatever an evaluator measures, a row per metric: accuracy is the first of them. `scores` is a view of it now."""
    for statement in _M006.split(";\n\n"):
        db.conn.execute(statement)


@migrations()
def m007_selection(db: Database) -> None:
    """Validation accuracy, and runs that are to choose settings by. A dambench with only m006 knows no hold-outs."""
    for statement in _M007.split(";\n\n"):
        db.conn.execute(statement)


@migrations()
def m008_queue(db: Database) -> None:
    """Runs that wait, and the workers that begin them. A dambench with only m007 can still add its runs."""
    for statement in _M008.split(";\n\n"):
        db.conn.execute(statement)


@migrations()
def m009_finals(db: Database) -> None:
    """Copies of final scores, with triggers that keep them right. A dambench with only m008 would not make any."""
    final_scores.make(db.conn)


# The columns of a primary key come first and in its order: SQLite 3.40's integrity_check misreads a table without
# rowid otherwise, and calls it damaged.
_M001 = """
create table protocols (
    sha256 text primary key,
    name text not null,
    version integer not null,
    definition text not null  -- JSON
) strict, without rowid;

create table datasets (
    sha256 text primary key,  -- of the prepared tensor file
    name text not null,
    label text not null,      -- as tables call it
    train_images integer not null,
    test_images integer not null,
    classes integer not null,
    smallest_class integer not null,   -- training images
    majority real not null,   -- test accuracy of always answering the most frequent class
    channels integer not null,
    height integer not null,
    width integer not null,
    card text not null        -- JSON: all that is known of it
) strict, without rowid;

create table runs (
    number integer primary key,
    id text not null unique,  -- what people type
    name text not null default '',
    state text not null check (state in ('waiting', 'running', 'finished', 'failed', 'stopped')),
    method text not null,
    dataset text not null,    -- label
    ipc integer,              -- null: the whole set
    network text not null,    -- that the method matches on; empty: none
    protocol text not null,
    seed integer not null,
    overrides text not null,  -- JSON: method settings that differ from the recipe
    recipe text not null default '',
    phase text not null default '',
    done integer not null default 0,   -- of the phase
    total integer not null default 0,
    set_sha256 text,          -- of the resulting set's file
    error text not null default '',
    traceback text not null default '',
    created_at text not null, -- UTC, ISO 8601
    ended_at text,
    config text not null,     -- JSON
    config_sha256 text not null,
    dataset_sha256 text not null references datasets,
    protocol_sha256 text not null references protocols
) strict;

create index runs_by_what on runs (method, dataset, ipc);

create index runs_by_state on runs (state, created_at);

create index runs_by_dataset on runs (dataset_sha256);

create index runs_by_protocol on runs (protocol_sha256);

create table environments (
    run integer primary key references runs on delete cascade,
    dambench text not null,
    python text not null,
    torch text not null,
    torchvision text not null,
    cuda text not null,
    cudnn text not null,
    driver text not null,
    device text not null,
    device_name text not null,
    host text not null,
    platform text not null,
    cpus integer not null,
    threads integer not null,
    deterministic_algorithms integer not null,
    cudnn_benchmark integer not null,
    tf32_matmul integer not null,
    tf32_convolution integer not null,
    matmul_precision text not null,
    cublas_workspace text not null,
    sqlite text not null,
    git_commit text not null,
    git_dirty integer not null,
    command_line text not null
) strict;

create table tags (
    tag text not null,
    run integer not null references runs on delete cascade,
    primary key (tag, run)
) strict, without rowid;

create index tags_by_run on tags (run);

create table events (
    run integer not null references runs on delete cascade,
    sequence integer not null,
    at text not null,
    kind text not null,
    body text not null,       -- JSON
    primary key (run, sequence)
) strict, without rowid;

create table scores (
    run integer not null references runs on delete cascade,
    iteration integer not null,
    network text not null,
    protocol_sha256 text not null references protocols,
    repeat integer not null,
    final integer not null,   -- 1: of the method's result, 0: of a set on the way
    accuracy real not null,   -- test accuracy after the last epoch, in [0, 1]
    balanced_accuracy real not null,
    loss real,                -- on the test set; null where loss_state is not finite
    loss_state text not null default 'finite' check (loss_state in ('finite', 'nan', 'inf', '-inf')),
    train_accuracy real not null,
    seconds real not null,
    peak_memory_bytes integer not null,
    set_sha256 text not null,
    primary key (run, iteration, network, protocol_sha256, repeat)
) strict, without rowid;

create index scores_by_set on scores (set_sha256);

create index scores_by_protocol on scores (protocol_sha256);

create table artifacts (
    run integer not null references runs on delete cascade,
    iteration integer not null,
    sha256 text not null,     -- of the file, which is named by it
    bytes integer not null,
    shape text not null,      -- JSON
    dtype text not null,
    preview blob not null,    -- PNG: a row per class
    primary key (run, iteration)
) strict, without rowid;

create index artifacts_by_sha256 on artifacts (sha256);

create table costs (
    run integer not null references runs on delete cascade,
    phase text not null,
    seconds real not null,
    peak_memory_bytes integer not null,  -- GPU: the allocator's; CPU: of the process; 0: unknown
    primary key (run, phase)
) strict, without rowid;

-- For people: the final scores of finished runs.
create view results as
    select runs.id as run, runs.method, runs.overrides, runs.dataset, runs.ipc, scores.network,
        protocols.name || '#' || substr(protocols.sha256, 1, 4) as protocol, runs.seed, scores.repeat,
        scores.accuracy, scores.balanced_accuracy, scores.loss, scores.train_accuracy, scores.seconds,
        scores.peak_memory_bytes
    from scores join runs on runs.number = scores.run join protocols on protocols.sha256 = scores.protocol_sha256
    where scores.final = 1 and runs.state = 'finished';

-- For people: the losses as they were logged.
-- (Of SQLite 3.38 to 3.40, a connection with trusted_schema off, such as ours, may not use it.)
create view losses as
    select events.run, runs.id, cast(json_extract(body, '$.iteration') as integer) as iteration,
        json_each.key as loss,
        case when json_each.type in ('real', 'integer') then json_each.value end as value,
        case when json_each.type in ('real', 'integer') then 'finite' else json_each.value end as state,
        json_extract(body, '$.seconds') as seconds
    from events join runs on runs.number = events.run, json_each(events.body, '$.losses')
    where kind = 'stepped'
"""

_M002 = """
alter table environments add column device_uuid text not null default '';

alter table costs add column peak_reserved_bytes integer not null default 0;

-- Null: not known, or not supported by the GPU.
create table samples (
    run integer not null references runs on delete cascade,
    sequence integer not null,            -- counted together with those of events
    seconds real not null,                -- since the run's first event
    gpu_memory_used_bytes integer,        -- of the card, by all who use it
    gpu_memory_total_bytes integer,
    gpu_busy_percent integer,
    gpu_watts real,
    gpu_celsius integer,
    gpu_millijoules integer,              -- a counter: a difference of two is energy
    gpu_neighbours text,                  -- JSON: other processes on the card
    process_memory_bytes integer,         -- resident
    process_cpu_percent real,             -- since the sample before; 100: one core
    host_memory_used_bytes integer,
    host_memory_total_bytes integer,
    primary key (run, sequence)
) strict, without rowid
"""

_M003 = """
-- How the C library hands out memory, where the environment says so.
alter table environments add column allocator text not null default '';

-- With which torch compiled; empty: it did not.
alter table environments add column compiler text not null default ''
"""

_M004 = """
-- The same in every database that the run is copied to.
alter table runs add column uid text not null default '';

-- Processes that have worked on it, one after the other: 1 and how often it was resumed.
alter table runs add column attempt integer not null default 1;

-- The last process: `boot` and `process_started` tell it from another with the same pid. 0: not known.
alter table runs add column host text not null default '';

alter table runs add column boot text not null default '';

alter table runs add column pid integer not null default 0;

alter table runs add column process_started integer not null default 0;

alter table runs add column log text not null default '';

-- Sign of life: UTC, ISO 8601.
alter table runs add column beat_at text not null default '';

-- The attempt that is asked to stop, by somebody who cannot signal its process; 0: none is.
alter table runs add column stop_asked integer not null default 0;

-- In the trash since then; empty: it is not.
alter table runs add column deleted_at text not null default '';

create index runs_by_trash on runs (deleted_at);

-- What somebody wrote about it.
alter table runs add column note text not null default '';

-- The first iteration whose loss was no number; null: none was.
alter table runs add column diverged_at integer;

-- Over the final scores, once it has finished: `dambench db check` compares. Empty: it finished before schema 4.
alter table runs add column results_sha256 text not null default '';

-- Where an unfinished run can go on from: files of DAMBENCH_HOME/runs, the last two.
create table checkpoints (
    run integer not null references runs on delete cascade,
    sequence integer not null,            -- of its event
    iteration integer not null,
    sha256 text not null,
    bytes integer not null,
    primary key (run, sequence)
) strict, without rowid;

-- What the synthetic set looked like on its way: a few pictures of every run, spread over it.
create table previews (
    run integer not null references runs on delete cascade,
    iteration integer not null,
    preview blob not null,                -- PNG: a row per class
    primary key (run, iteration)
) strict, without rowid;

drop view results;

-- For people: the final scores of finished runs.
create view results as
    select runs.id as run, runs.method, runs.overrides, runs.dataset, runs.ipc, scores.network,
        protocols.name || '#' || substr(protocols.sha256, 1, 4) as protocol, runs.seed, scores.repeat,
        scores.accuracy, scores.balanced_accuracy, scores.loss, scores.train_accuracy, scores.seconds,
        scores.peak_memory_bytes
    from scores join runs on runs.number = scores.run join protocols on protocols.sha256 = scores.protocol_sha256
    where scores.final = 1 and runs.state = 'finished' and runs.deleted_at = ''
"""

_M005 = """
drop view results;

-- For people: the final scores of finished runs. Those of one meaning are alike in settings, dataset_sha256, ipc,
-- protocol and network; of them the ones count that a report counts, which are of the newest run of each seed.
-- (As with `losses`, our own connections may not use it in SQLite 3.38 to 3.40.)
create view results as
    with final as (
        select runs.number, runs.id as run, runs.method, runs.overrides,
            coalesce(json_extract(runs.config, '$.preprocessing'), 'mean/std') as preprocessing,
            coalesce(json_extract(runs.config, '$.precision'), 'fp32') as precision,
            runs.dataset, runs.ipc, runs.network as matched_on, scores.network,
            protocols.name || '#' || substr(protocols.sha256, 1, 4) as protocol, runs.seed, scores.repeat,
            scores.accuracy, scores.balanced_accuracy, scores.loss, scores.train_accuracy, scores.seconds,
            scores.peak_memory_bytes, runs.dataset_sha256, scores.protocol_sha256,
            json_array(runs.method, json_extract(runs.config, '$.method.options'), runs.network,
                coalesce(json_extract(runs.config, '$.preprocessing'), 'mean/std'),
                coalesce(json_extract(runs.config, '$.precision'), 'fp32'),
                coalesce(json_extract(runs.config, '$.precision') = 'bf16', 0)
                    and coalesce(json_extract(runs.config, '$.where.device'), 'cpu') != 'cpu',
                coalesce(json_extract(runs.config, '$.method_version'), 1),
                coalesce(json_extract(runs.config, '$.plugins'), '[]')) as settings,
            -- Fewer than were asked for are left over where others diverged: they stand for nothing.
            count(*) over (partition by runs.number, scores.network)
                >= coalesce(json_extract(runs.config, '$.eval_repeats'), 1) as complete
        from scores join runs on runs.number = scores.run join protocols on protocols.sha256 = scores.protocol_sha256
        where scores.final = 1 and runs.state = 'finished' and runs.deleted_at = ''
    )
    select run, method, overrides, preprocessing, precision, dataset, ipc, matched_on, network, protocol, seed, repeat,
        accuracy, balanced_accuracy, loss, train_accuracy, seconds, peak_memory_bytes, settings, dataset_sha256,
        complete and number = max(iif(complete, number, 0)) over (
            partition by settings, dataset_sha256, ipc, protocol_sha256, network, seed
        ) as counts
    from final
"""

_M006 = """
-- One trained network, or whatever else an evaluator takes its numbers of.
create table evaluations (
    run integer not null references runs on delete cascade,
    iteration integer not null,
    evaluator text not null,
    subject text not null,    -- the network trained on the set
    repeat integer not null,
    protocol_sha256 text not null references protocols,
    final integer not null,   -- 1: of the method's result, 0: of a set on the way
    seconds real not null,
    peak_memory_bytes integer not null,
    set_sha256 text not null,
    primary key (run, iteration, evaluator, subject, repeat)
) strict, without rowid;

create index evaluations_by_set on evaluations (set_sha256);

create index evaluations_by_protocol on evaluations (protocol_sha256);

create table measurements (
    run integer not null references runs on delete cascade,
    iteration integer not null,
    evaluator text not null,
    subject text not null,
    repeat integer not null,
    metric text not null,
    value real,               -- null where state is not finite
    state text not null default 'finite' check (state in ('finite', 'nan', 'inf', '-inf')),
    primary key (run, iteration, evaluator, subject, repeat, metric),
    foreign key (run, iteration, evaluator, subject, repeat) references evaluations on delete cascade
) strict, without rowid;

-- What the metrics of each evaluator mean.
create table metrics (
    evaluator text not null,
    name text not null,
    unit text not null,       -- fraction, shown as percent; seconds; bytes; empty: a plain number
    better text not null check (better in ('higher', 'lower')),
    description text not null,
    primary key (evaluator, name)
) strict, without rowid;

insert into metrics (evaluator, name, unit, better, description) values
    ('accuracy', 'accuracy', 'fraction', 'higher', 'Accuracy on the real test set after the last epoch'),
    ('accuracy', 'balanced_accuracy', 'fraction', 'higher',
        'Mean over classes of the share of their test images that were recognised'),
    ('accuracy', 'loss', '', 'lower', 'Mean cross-entropy on the real test set, nats'),
    ('accuracy', 'train_accuracy', 'fraction', 'higher', 'Accuracy on the set trained on, not augmented');

insert into evaluations select run, iteration, 'accuracy', network, repeat, protocol_sha256, final, seconds,
    peak_memory_bytes, set_sha256 from scores;

insert into measurements
    select run, iteration, 'accuracy', network, repeat, 'accuracy', accuracy, 'finite' from scores
    union all
    select run, iteration, 'accuracy', network, repeat, 'balanced_accuracy', balanced_accuracy, 'finite' from scores
    union all
    select run, iteration, 'accuracy', network, repeat, 'loss', loss, loss_state from scores
    union all
    select run, iteration, 'accuracy', network, repeat, 'train_accuracy', train_accuracy, 'finite' from scores;

drop table scores;

-- For people, and as it was up to schema 5: one network trained on one set, and its accuracy.
create view scores as
    select of.run, of.iteration, of.subject as network, of.protocol_sha256, of.repeat, of.final,
        accuracy.value as accuracy, balanced.value as balanced_accuracy, loss.value as loss, loss.state as loss_state,
        train.value as train_accuracy, of.seconds, of.peak_memory_bytes, of.set_sha256
    from evaluations as of
        left join measurements as accuracy on accuracy.run = of.run and accuracy.iteration = of.iteration
            and accuracy.evaluator = 'accuracy' and accuracy.subject = of.subject and accuracy.repeat = of.repeat
            and accuracy.metric = 'accuracy'
        left join measurements as balanced on balanced.run = of.run and balanced.iteration = of.iteration
            and balanced.evaluator = 'accuracy' and balanced.subject = of.subject and balanced.repeat = of.repeat
            and balanced.metric = 'balanced_accuracy'
        left join measurements as loss on loss.run = of.run and loss.iteration = of.iteration
            and loss.evaluator = 'accuracy' and loss.subject = of.subject and loss.repeat = of.repeat
            and loss.metric = 'loss'
        left join measurements as train on train.run = of.run and train.iteration = of.iteration
            and train.evaluator = 'accuracy' and train.subject = of.subject and train.repeat = of.repeat
            and train.metric = 'train_accuracy'
    where of.evaluator = 'accuracy';

-- Which of two runs is newer: as created_at, but no run is older than those that its database held when it began,
-- whatever its clock says; a merged run keeps its own.
alter table runs add column age text not null default '';

update runs set age = monotone.age
    from (select number, max(created_at) over (order by number) as age from runs) as monotone
    where monotone.number = runs.number;

create index runs_by_age on runs (age, number);

drop view results;

-- For people: the final scores of finished runs. Those of one meaning are alike in settings, dataset_sha256, ipc,
-- protocol and network; of them the ones count that a report counts, which are of the newest run of each seed.
-- (As with `losses`, our own connections may not use it in SQLite 3.38 to 3.40.)
create view results as
    with final as (
        select runs.number, runs.id as run, runs.method, runs.overrides,
            coalesce(json_extract(runs.config, '$.preprocessing'), 'mean/std') as preprocessing,
            coalesce(json_extract(runs.config, '$.precision'), 'fp32') as precision,
            runs.age, runs.dataset, runs.ipc, runs.network as matched_on, scores.network,
            protocols.name || '#' || substr(protocols.sha256, 1, 4) as protocol, runs.seed, scores.repeat,
            scores.accuracy, scores.balanced_accuracy, scores.loss, scores.train_accuracy, scores.seconds,
            scores.peak_memory_bytes, runs.dataset_sha256, scores.protocol_sha256,
            json_array(runs.method, json_extract(runs.config, '$.method.options'), runs.network,
                coalesce(json_extract(runs.config, '$.preprocessing'), 'mean/std'),
                coalesce(json_extract(runs.config, '$.precision'), 'fp32'),
                coalesce(json_extract(runs.config, '$.precision') = 'bf16', 0)
                    and coalesce(json_extract(runs.config, '$.where.device'), 'cpu') != 'cpu',
                coalesce(json_extract(runs.config, '$.method_version'), 1),
                coalesce(json_extract(runs.config, '$.evaluator_version'), 1),
                json(coalesce(json_extract(runs.config, '$.evaluator.options'), '{}')),
                json(coalesce(json_extract(runs.config, '$.plugins'), '[]'))) as settings,
            -- Fewer than were asked for are left over where others diverged: they stand for nothing.
            count(*) over (partition by runs.number, scores.network)
                >= coalesce(json_extract(runs.config, '$.eval_repeats'), 1) as complete
        from scores join runs on runs.number = scores.run join protocols on protocols.sha256 = scores.protocol_sha256
        where scores.final = 1 and runs.state = 'finished' and runs.deleted_at = ''
    )
    select run, method, overrides, preprocessing, precision, dataset, ipc, matched_on, network, protocol, seed, repeat,
        accuracy, balanced_accuracy, loss, train_accuracy, seconds, peak_memory_bytes, settings, dataset_sha256,
        complete and number = first_value(number) over (
            partition by settings, dataset_sha256, ipc, protocol_sha256, network, seed
            order by complete desc, age desc, number desc
        ) as counts
    from final
"""

_M007 = """
-- Why the run was made: empty, or `tuning`, to choose settings by. Such a run is no evidence.
alter table runs add column purpose text not null default '' check (purpose in ('', 'tuning'));

-- Energy of the GPU's board during the phase; null: not known, or there was no GPU.
alter table costs add column joules real;

-- 1: another process computed on the GPU at some time in the phase, so that the energy is not this run's alone.
alter table costs add column shared integer;

-- JSON: the bytes of all that is needed to train on the set, by part; {}: not known, it is from before schema 7.
alter table artifacts add column parts text not null default '{}';

insert or replace into metrics (evaluator, name, unit, better, description) values
    ('accuracy', 'validation_accuracy', 'fraction', 'higher',
        'Accuracy on the validation images that were held out before the set was made');

drop view results;

drop view scores;

-- For people: one network trained on one set, and its accuracy; on validation images where the protocol holds some out.
create view scores as
    select of.run, of.iteration, of.subject as network, of.protocol_sha256, of.repeat, of.final,
        accuracy.value as accuracy, balanced.value as balanced_accuracy, loss.value as loss, loss.state as loss_state,
        train.value as train_accuracy, of.seconds, of.peak_memory_bytes, of.set_sha256,
        validation.value as validation_accuracy
    from evaluations as of
        left join measurements as accuracy on accuracy.run = of.run and accuracy.iteration = of.iteration
            and accuracy.evaluator = 'accuracy' and accuracy.subject = of.subject and accuracy.repeat = of.repeat
            and accuracy.metric = 'accuracy'
        left join measurements as balanced on balanced.run = of.run and balanced.iteration = of.iteration
            and balanced.evaluator = 'accuracy' and balanced.subject = of.subject and balanced.repeat = of.repeat
            and balanced.metric = 'balanced_accuracy'
        left join measurements as loss on loss.run = of.run and loss.iteration = of.iteration
            and loss.evaluator = 'accuracy' and loss.subject = of.subject and loss.repeat = of.repeat
            and loss.metric = 'loss'
        left join measurements as train on train.run = of.run and train.iteration = of.iteration
            and train.evaluator = 'accuracy' and train.subject = of.subject and train.repeat = of.repeat
            and train.metric = 'train_accuracy'
        left join measurements as validation on validation.run = of.run and validation.iteration = of.iteration
            and validation.evaluator = 'accuracy' and validation.subject = of.subject and validation.repeat = of.repeat
            and validation.metric = 'validation_accuracy'
    where of.evaluator = 'accuracy';

-- For people: the final scores of finished runs. Those of one meaning are alike in settings, dataset_sha256, ipc,
-- protocol and network; of them the ones count that a report counts, which are of the newest run of each seed. Runs
-- that were made to choose settings are left out: they are no evidence.
-- (As with `losses`, our own connections may not use it in SQLite 3.38 to 3.40.)
create view results as
    with final as (
        select runs.number, runs.id as run, runs.method, runs.overrides,
            coalesce(json_extract(runs.config, '$.preprocessing'), 'mean/std') as preprocessing,
            coalesce(json_extract(runs.config, '$.precision'), 'fp32') as precision,
            runs.age, runs.dataset, runs.ipc, runs.network as matched_on, scores.network,
            protocols.name || '#' || substr(protocols.sha256, 1, 4) as protocol, runs.seed, scores.repeat,
            scores.accuracy, scores.balanced_accuracy, scores.loss, scores.train_accuracy, scores.seconds,
            scores.peak_memory_bytes, runs.dataset_sha256, scores.protocol_sha256,
            json_array(runs.method, json_extract(runs.config, '$.method.options'), runs.network,
                coalesce(json_extract(runs.config, '$.preprocessing'), 'mean/std'),
                coalesce(json_extract(runs.config, '$.precision'), 'fp32'),
                coalesce(json_extract(runs.config, '$.precision') = 'bf16', 0)
                    and coalesce(json_extract(runs.config, '$.where.device'), 'cpu') != 'cpu',
                coalesce(json_extract(runs.config, '$.method_version'), 1),
                coalesce(json_extract(runs.config, '$.evaluator_version'), 1),
                json(coalesce(json_extract(runs.config, '$.evaluator.options'), '{}')),
                json(coalesce(json_extract(runs.config, '$.plugins'), '[]')),
                coalesce(json_extract(runs.config, '$.held_out.sha256'), '')) as settings,
            -- Fewer than were asked for are left over where others diverged: they stand for nothing.
            count(*) over (partition by runs.number, scores.network)
                >= coalesce(json_extract(runs.config, '$.eval_repeats'), 1) as complete
        from scores join runs on runs.number = scores.run join protocols on protocols.sha256 = scores.protocol_sha256
        where scores.final = 1 and runs.state = 'finished' and runs.deleted_at = '' and runs.purpose = ''
    )
    select run, method, overrides, preprocessing, precision, dataset, ipc, matched_on, network, protocol, seed, repeat,
        accuracy, balanced_accuracy, loss, train_accuracy, seconds, peak_memory_bytes, settings, dataset_sha256,
        complete and number = first_value(number) over (
            partition by settings, dataset_sha256, ipc, protocol_sha256, network, seed
            order by complete desc, age desc, number desc
        ) as counts
    from final
"""

_M008 = """
-- What is to be run, and what has been. `id` and `uid` are also the run's, unless `run` says another.
create table queue (
    number integer primary key,
    uid text not null unique,
    id text not null unique,
    command text not null check (command in ('run', 'evaluate', 'experts')),
    request text not null,             -- JSON: of a run, as in its TOML file; else the words of the command
    method text not null default '',
    dataset text not null default '',
    ipc integer,
    network text not null default '',
    protocol text not null default '',
    seed integer,
    settings text not null default '{}',  -- JSON: what tells it from the others of its sweep
    tag text not null default '',      -- sweep:NAME or suite:NAME
    key text not null default '',      -- digests of its configuration and its data; empty: not known yet
    state text not null default 'waiting'
        check (state in ('waiting', 'paused', 'taken', 'finished', 'failed', 'dropped')),
    priority integer not null default 0,  -- higher ones come first
    place real not null,               -- among those of one priority, lower ones come first
    after text not null default '[]',  -- JSON: uids of others that must be finished before
    threads integer not null default 0,   -- of the processor; 0: as many as it takes by itself
    device text not null default '',   -- empty: whichever is free
    seconds real,                      -- expected; null: not known
    peak_memory_bytes integer,
    disk_bytes integer,
    worker text not null default '',   -- that has taken it
    attempt integer not null default 0,   -- how often it was taken
    losses integer not null default 0, -- processes that it lost without getting any further
    run text not null,                 -- the uid that its run has, or will have
    reason text not null default '',   -- why it failed, waits again, was paused or dropped
    dambench text not null,            -- the version that queued it
    added_at text not null,            -- UTC, ISO 8601
    taken_at text not null default '',
    ended_at text not null default ''
) strict;

create index queue_by_turn on queue (state, priority desc, place, uid);

create index queue_by_key on queue (key);

create index queue_by_tag on queue (tag);

create index queue_by_run on queue (run);

create table workers (
    uid text primary key,
    host text not null,
    boot text not null,
    pid integer not null,
    process_started integer not null,
    dambench text not null,
    executor text not null,
    devices text not null,             -- JSON: cpu, cuda:0, …
    slots integer not null,            -- runs at once
    log text not null,
    began_at text not null,
    beat_at text not null,
    ended_at text not null default '',
    asked text not null default '' check (asked in ('', 'drain', 'stop'))
) strict, without rowid
"""
