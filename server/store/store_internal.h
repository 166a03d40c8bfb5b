/* store_internal.h: what the files of the store share; nobody else includes it, but its tests.
 *
 *   store.c             open and close the store, the readers, calls that wait for the writer
 *   store_writer.c      the thread that writes: queue, group commit, WAL checkpoints, idle work
 *   store_sweep.c       idle work: deletes in slices, gives free pages back to the file system
 *   store_file.c        is this directory and file ours and fit to hold a database
 *   store_connection.c  settings of a connection, migrations
 *   store_statement.c   prepared statements, binding, error codes
 *   store_pins.c        checkpoints that must stay
 *   store_ballast.c     room for the last writes on a full disk
 *   store_log.c         room for the write-ahead log
 *   store_id.c          ids and time
 *   store_FAMILY.c      one family of statements a file
 *
 * Two kinds of connection: the writer's, used by the store's thread or by one that has borrowed it, and the readers', each
 * used by one thread at a time. SQLite is told so (NOMUTEX).
 */
#ifndef BP_STORE_INTERNAL_H
#define BP_STORE_INTERNAL_H

#include "base/clock.h"
#include "store/store.h"

#include <pthread.h>
#include <semaphore.h>
#include <sqlite3.h>

#define BP_APPLICATION_ID 0x62706a64 /* "bpjd", in the header of the file */
#define BP_PAGE_SIZE 8192            /* large blobs: measured best by SQLite's authors at 8 or 16 KiB */
#define BP_WAL_PAGES 1000            /* of the log after which it is copied into the database */
#define BP_WAL_MAX (64 << 20)        /* bytes of the log's file after which it is truncated */
#define BP_TRANSACTION_BYTES                                                                                         \
    (64 << 20)                /* of chunks in one transaction; SQLite asks for no more than a few dozen MB */
#define BP_CHUNKS_A_PIECE 16  /* 16 MiB: how long other writers wait behind a large checkpoint */
#define BP_LINGER 0.25        /* seconds that posted work waits at most for company */
#define BP_LINGER_PIECES 1000 /* or until so many wait */
#define BP_READ_SECONDS 10.0  /* a read that takes longer is a fault, and would keep the log from shrinking */
#define BP_BUSY_MS 5000       /* another process may recover the log, or look at the file with the sqlite3 shell */
#define BP_SERIES 256         /* metric names remembered by the writer, a power of two: those of a few jobs */
#define BP_STATEMENTS 256     /* slots of a connection's cache, a power of two; about 80 are used */

/* --- a connection (store_connection.c, store_statement.c) ------------------------------------------------------ */
struct bp_statement {
    const char *sql; /* the key: the address of a string that lives for ever */
    sqlite3_stmt *stmt;
};

struct bp_series {   /* a metric's key, remembered */
    int64_t job, id; /* job 0: empty */
    char name[48];
};

struct bp_db {
    sqlite3 *handle;
    struct bp_store *store;
    bool writer;
    int fault;          /* writer: an extended SQLite code after which nothing more may be written, or 0 */
    int log_pages;      /* writer: pages in the log after the last commit */
    double deadline;    /* reader: of bp_clock, after which the read is interrupted, 0 for none */
    struct bp_db *next; /* reader: in the list of idle ones */
    bool knows_queued;  /* writer: the next is right; forgotten whenever something is undone */
    int64_t queued;     /* jobs that are queued */
    int64_t last_job;   /* writer: the highest seq of a job so far, also of those undone; 0: not known yet */
    bool new_names;     /* writer: the transaction changed what a dataset's name points at */
    struct bp_statement cache[BP_STATEMENTS];
    struct bp_series series[BP_SERIES]; /* writer; forgotten whenever something is undone */
};

enum bp_db_kind { BP_DB_WRITER, BP_DB_READER };
/* vfs: of SQLite, NULL for its own. The writer's creates the file's structure where it is empty. */
bp_status bp_db_open(const char *path, const char *vfs, enum bp_db_kind kind, int64_t max_bytes, struct bp_db **ret,
                     struct bp_error *err);
void bp_db_close(struct bp_db *db); /* NULL is fine */
bp_status bp_db_migrate(struct bp_db *db, struct bp_error *err);
int bp_schema_version(void); /* the newest that this build knows */

/* A statement of the cache, reset and without bindings. sql must be a static string. */
bp_status bp_db_statement(struct bp_db *db, const char *sql, sqlite3_stmt **ret, struct bp_error *err);
/* Turns an SQLite result into a status; notes faults. what: "storing a job". */
bp_status bp_db_fail(struct bp_db *db, int rc, const char *what, struct bp_error *err);
/* Runs a cached statement to its end, and resets it. */
bp_status bp_db_finish(struct bp_db *db, sqlite3_stmt *stmt, const char *what, struct bp_error *err);
/* One step: BP_OK with a row, BP_NOT_FOUND (err untouched) at the end. Does not reset. */
bp_status bp_db_step(struct bp_db *db, sqlite3_stmt *stmt, const char *what, struct bp_error *err);
/* Runs static SQL that needs no bindings, once: pragmas, BEGIN, migrations. */
bp_status bp_db_exec(struct bp_db *db, const char *sql, const char *what, struct bp_error *err);
/* One integer of static SQL without bindings. */
bp_status bp_db_int(struct bp_db *db, const char *sql, int64_t *ret, struct bp_error *err);

/* SQLite copies nothing: text must live until the statement is finished. NULL binds NULL. */
void bp_bind_text(sqlite3_stmt *stmt, int index, const char *text);
/* A column as malloc'd text; NULL stays NULL. False: no memory. */
bool bp_column_dup(sqlite3_stmt *stmt, int column, char **ret);
/* A column into an array of `size`; NULL becomes "". False: it does not fit. */
bool bp_column_copy(sqlite3_stmt *stmt, int column, char *ret, size_t size);
double bp_column_real(sqlite3_stmt *stmt, int column); /* NULL is NaN */

/* The seq of a job that is not deleted. BP_NOT_FOUND with a message. */
bp_status bp_db_job_seq(struct bp_db *db, const char *id, int64_t *ret, struct bp_error *err);

/* Bytes [offset, offset + size) of a blob: sql selects hash and bytes of chunk ?2 of what is called ?1. Checks the hash
 * of each chunk. */
bp_status bp_db_chunks_read(struct bp_db *db, const char *sql, const char *id, int64_t offset, size_t size,
                            uint8_t *ret, struct bp_error *err);

/* --- the file (store_file.c) ----------------------------------------------------------------------------------- */
/* Resolves dir (made when missing), takes its lock, checks the file's header without SQLite, creates the file 0600
 * when missing. *ret_path is malloc'd; *ret_lock is a descriptor to close at the end. */
bp_status bp_store_file_claim(const char *dir, char **ret_path, int *ret_lock, struct bp_error *err);
/* The name of a file system on which a write-ahead log is not safe, by its magic number; NULL: it is safe. */
const char *bp_store_unsafe_filesystem(unsigned long magic);

/* --- the store -------------------------------------------------------------------------------------------------- */
struct bp_piece {
    bp_store_fn *fn;
    void *arg;
    bp_store_done *done; /* of a post, or NULL */
    bool posted;         /* malloc'd; else on the stack of the thread that waits */
    sem_t complete;      /* of a write */
    size_t weight;       /* bytes that it will write, where they are many */
    double queued_at;    /* of bp_clock, as all times below */
    bp_status status;
    struct bp_error err;
    struct bp_piece *next;
};

struct bp_upload { /* a checkpoint being written: the sweep must leave its blob alone */
    int64_t blob;  /* 0: none yet */
    struct bp_upload *next;
};

struct bp_pin {
    char id[BP_ID_SIZE];
    int count;
    struct bp_pin *next;
};

struct bp_store {
    char *path, *vfs;
    int lock_fd; /* of the directory, flocked */

    /* the writer */
    struct bp_db *writer; /* of who has set `writing`, as what is called "the writer's" below */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t work;           /* CLOCK_MONOTONIC */
    struct bp_piece *head, **tail; /* FIFO */
    size_t queued, waiting;        /* pieces; those of them that somebody waits for */
    bool closing;
    bool writing;    /* somebody has the connection: the thread, or who has borrowed it */
    bool wanted;     /* it is lent, and the thread waits for it */
    bool untended;   /* it came back with a log that is due to be copied into the database */
    double sweep_at; /* when idle work is due; INFINITY: there is none */
    bool failed;     /* latched by the thread; written under the mutex, read atomically */
    char failure[240];
    bool ballast;              /* the writer's: the file is there */
    double busy_at;            /* the writer's: when it last ran a piece */
    double swept_at;           /* the thread's: when it last did idle work */
    double truncate_at;        /* the thread's: not before this may the log be truncated again */
    uint64_t commits;          /* transactions of pieces so far; for tests and figures */
    uint64_t dataset_commits;  /* those that changed what a dataset's name points at */
    struct bp_upload *uploads; /* under mutex */

    /* the readers */
    pthread_mutex_t reader_mutex;
    pthread_cond_t reader_idle;
    struct bp_db *readers;

    pthread_mutex_t pin_mutex;
    struct bp_pin *pins;
    int64_t unnamed_pins; /* pins for which there was no memory: while any is there, nothing is pruned */
};

/* bp_store_open with a VFS of SQLite by name, for tests that inject faults. */
bp_status bp_store_open_vfs(const struct bp_store_options *options, const char *vfs, struct bp_store **ret,
                            struct bp_error *err);
bp_status bp_store_writer_start(struct bp_store *store, struct bp_error *err);
void bp_store_writer_stop(struct bp_store *store); /* finishes the queue; joins */
/* bp_store_write in two steps, for a caller that has something to do meanwhile. The piece has fn, arg and weight set and
 * stays where it is until the second step, which must come, and says what became of it. */
void bp_piece_begin(struct bp_store *store, struct bp_piece *piece);
bp_status bp_piece_end(struct bp_piece *piece, struct bp_error *err);
void bp_store_want_sweep(struct bp_store *store);
bool bp_store_pinned(struct bp_store *store, const char *id);
bool bp_store_uploading(struct bp_store *store, int64_t blob);
void bp_upload_begin(struct bp_store *store, struct bp_upload *upload);
void bp_upload_end(struct bp_store *store, struct bp_upload *upload);
/* Makes the ballast where it is missing. False: the disk is too full for a write of so many bytes. */
bool bp_ballast_take(struct bp_store *store, size_t weight);
void bp_ballast_drop(struct bp_store *store);
/* Gives the log's file the length that it will have, if the disk has room for it. */
void bp_log_make_room(struct bp_store *store);
/* Before the database is opened: drops the ballast where the disk has no room for that. */
void bp_ballast_open(struct bp_store *store);
/* What to do about a start that found no room, to be appended to a message. */
void bp_ballast_advice(const struct bp_store *store, char *ret, size_t size);
uint64_t bp_store_commits(struct bp_store *store);
void bp_db_reset(struct bp_db *db); /* every statement, after a failure left some running */

/* One slice of idle work in a transaction of its own. *ret_after: seconds after which the next is due, -1: nothing is left.
 * idle: nobody has written for a while, so that free pages may be given back to the last. */
bp_status bp_store_sweep_slice(struct bp_db *db, bool idle, double *ret_after, struct bp_error *err);

#endif
