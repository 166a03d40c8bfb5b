/* store_writer.c: the thread that writes, and the queue in front of it.
 *
 * The thread takes all that waits into one transaction: each of several pieces runs under a savepoint, a piece that fails
 * is undone alone, then one COMMIT with one sync serves them all, and only then are they told. While that sync runs the
 * next pieces gather: under load a commit serves as many writers as there are.
 *
 * Who comes alone needs no other thread: bp_store_write_here borrows the connection while nobody has it and nobody waits
 * for it. All else is left to the thread: what comes meanwhile, and copying the log.
 *
 * What SQLite undoes by itself (a full disk or too little memory in the middle of a statement undoes the whole
 * transaction) is lost for every piece before it too; these get the same failure and nobody is told a success.
 *
 * A sync that failed cannot be repeated: the kernel may have dropped the pages and forgotten the error. From then on
 * nothing is written (bp_store_failed); the file is as the last good commit left it.
 *
 * The log is copied into the database by this thread only, after its waiters have been told: in SQLite before 3.51.3
 * two connections that write and checkpoint can corrupt it.
 */
#include "store/store_internal.h"

#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SWEEP_EVERY 0.5 /* seconds: a slice of idle work at least so often while there is some, however busy we are */
#define SWEEP_RETRY 5.0 /* after one that failed */
#define IDLE 1.0        /* without a piece: nobody is writing */
#define TRUNCATE_BUSY_MS 200
#define TRUNCATE_EVERY 5.0

/* --- the latch -------------------------------------------------------------------------------------------------- */
static void latch(struct bp_store *store, const char *message)
{
    pthread_mutex_lock(&store->mutex);
    if (!store->failed)
        snprintf(store->failure, sizeof store->failure, "%.*s", (int)sizeof store->failure - 1, message);
    __atomic_store_n(&store->failed, true, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&store->mutex);
}

bool bp_store_failed(const struct bp_store *store)
{
    return __atomic_load_n(&store->failed, __ATOMIC_ACQUIRE);
}

static bp_status fail_latched(const struct bp_store *store, struct bp_error *err)
{
    return bp_fail(err, BP_IO,
                   "the database takes no more writes after a failed one (%s); check the disk and restart",
                   store->failure);
}

/* --- one transaction -------------------------------------------------------------------------------------------- */
static bp_status control(struct bp_db *db, const char *sql, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql, &stmt, err);
    return status == BP_OK ? bp_db_finish(db, stmt, "writing to the database", err) : status;
}

static void roll_back(struct bp_db *db)
{
    bp_db_reset(db);
    if (!sqlite3_get_autocommit(db->handle))
        control(db, "ROLLBACK", NULL);
}

/* Gives all pieces from first up to (not with) end the failure, where they had succeeded. */
static void spoil(struct bp_piece *first, const struct bp_piece *end, const struct bp_error *err)
{
    for (struct bp_piece *p = first; p != end; p = p->next)
        if (p->status == BP_OK) {
            p->status = err->code;
            p->err = *err;
        }
}

/* Undoes a piece and leaves the others' work as it is. */
static bp_status undo_piece(struct bp_db *db, bool alone)
{
    bp_db_reset(db);
    if (!alone)
        return control(db, "ROLLBACK TO piece", NULL);
    bp_status status = control(db, "ROLLBACK", NULL);
    return status == BP_OK ? control(db, "BEGIN IMMEDIATE", NULL) : status;
}

/* Runs a piece under its savepoint; one that is alone in its transaction needs none, and saves the copies of all pages
 * that it changes. False: SQLite has undone the whole transaction. */
static bool run_piece(struct bp_db *db, struct bp_piece *p, bool alone)
{
    p->status = alone ? BP_OK : control(db, "SAVEPOINT piece", &p->err);
    if (p->status == BP_OK && p->weight > 0 && !bp_ballast_take(db->store, p->weight)) {
        p->status = bp_fail(&p->err, BP_FULL, "the disk is full");
        if (!alone)
            control(db, "RELEASE piece", NULL);
    } else if (p->status == BP_OK) {
        p->status = p->fn(db, p->arg, &p->err);
        if (p->status != BP_OK && p->err.code != p->status)
            bp_fail(&p->err, p->status, "the work was refused");
        if (sqlite3_get_autocommit(db->handle)) {
            if (p->status == BP_OK)
                p->status = bp_fail(&p->err, BP_INTERNAL, "a failure inside a transaction was not reported");
        } else {
            bp_status undone = BP_OK;
            if (p->status != BP_OK)
                undone = undo_piece(db, alone);
            if (undone == BP_OK && !alone)
                control(db, "RELEASE piece", p->status == BP_OK ? &p->err : NULL);
            else if (undone != BP_OK)
                roll_back(db); /* half a piece must not be committed with the others */
        }
    }
    return !sqlite3_get_autocommit(db->handle);
}

static void note_fault(struct bp_store *store, const struct bp_error *err)
{
    if (store->writer->fault)
        latch(store, err->message);
}

/* Runs pieces from `first` in one transaction; returns the first one that has not been run. */
static struct bp_piece *run_group(struct bp_store *store, struct bp_piece *first)
{
    struct bp_db *db = store->writer;
    struct bp_error err = {.code = BP_OK};
    struct bp_piece *p, *end = NULL;
    if (bp_store_failed(store))
        fail_latched(store, &err);
    else
        control(db, "BEGIN IMMEDIATE", &err);
    if (err.code == BP_OK)
        for (p = first; p; p = p->next) {
            bool whole = run_piece(db, p, p == first && !p->next);
            if (p->status != BP_OK && (!whole || db->fault))
                err = p->err;
            if (err.code != BP_OK) {
                end = p->next;
                break;
            }
        }
    if (err.code == BP_OK)
        control(db, "COMMIT", &err);
    if (err.code != BP_OK) {
        roll_back(db);
        note_fault(store, &err);
        spoil(first, end, &err);
        if (err.code == BP_FULL)
            bp_ballast_drop(store);
    } else {
        __atomic_add_fetch(&store->commits, 1, __ATOMIC_ACQ_REL);
        __atomic_add_fetch(&store->dataset_commits, db->new_names, __ATOMIC_ACQ_REL);
    }
    db->new_names = false;
    return end;
}

uint64_t bp_store_commits(struct bp_store *store)
{
    return __atomic_load_n(&store->commits, __ATOMIC_RELAXED);
}

uint64_t bp_store_generation(const struct bp_store *store)
{
    return __atomic_load_n(&store->commits, __ATOMIC_ACQUIRE);
}

uint64_t bp_store_dataset_generation(const struct bp_store *store)
{
    return __atomic_load_n(&store->dataset_commits, __ATOMIC_ACQUIRE);
}

void bp_store_figures(struct bp_store *store, struct bp_store_figures *ret)
{
    struct stat st;
    char log[PATH_MAX + 8];
    memset(ret, 0, sizeof *ret);
    ret->commits = bp_store_commits(store);
    pthread_mutex_lock(&store->mutex);
    ret->queued = store->queued;
    pthread_mutex_unlock(&store->mutex);
    snprintf(log, sizeof log, "%s-wal", store->path);
    ret->file_bytes = stat(store->path, &st) == 0 ? st.st_size : 0;
    ret->log_bytes = stat(log, &st) == 0 ? st.st_size : 0;
}

/* Tells everybody from `first` up to `end`. */
static void complete(struct bp_piece *first, const struct bp_piece *end)
{
    struct bp_piece *next, *posted = NULL, **tail = &posted;
    for (struct bp_piece *p = first; p != end; p = next) {
        next = p->next; /* a waiting thread takes its piece away as soon as it is told */
        if (p->posted) {
            *tail = p;
            tail = &p->next;
        } else {
            sem_post(&p->complete);
        }
    }
    *tail = NULL;
    for (; posted; posted = next) {
        next = posted->next;
        if (posted->done)
            posted->done(posted->arg, posted->status, posted->status == BP_OK ? NULL : &posted->err);
        free(posted);
    }
}

/* --- the log ---------------------------------------------------------------------------------------------------- */
static void checkpoint_log(struct bp_store *store, int mode)
{
    struct bp_db *db = store->writer;
    struct bp_error err;
    int in_log, copied;
    int rc = sqlite3_wal_checkpoint_v2(db->handle, "main", mode, &in_log, &copied);
    db->log_pages = rc == SQLITE_OK && in_log == copied ? 0 : db->log_pages;
    if (rc == SQLITE_OK || (rc & 0xff) == SQLITE_BUSY)
        return; /* busy: a reader still needs the log; the next time will do */
    bp_db_fail(db, rc, "copying the log into the database", &err);
    note_fault(store, &err);
}

static void tend_log(struct bp_store *store)
{
    struct bp_db *db = store->writer;
    if (db->log_pages < BP_WAL_PAGES || bp_store_failed(store))
        return;
    checkpoint_log(store, SQLITE_CHECKPOINT_PASSIVE);
    double now = bp_clock();
    if ((int64_t)db->log_pages * BP_PAGE_SIZE < BP_WAL_MAX || now < store->truncate_at || bp_store_failed(store))
        return;
    /* Some reader kept the log from starting over. Wait for a gap between readers, but not for long. */
    sqlite3_busy_timeout(db->handle, TRUNCATE_BUSY_MS);
    checkpoint_log(store, SQLITE_CHECKPOINT_TRUNCATE);
    sqlite3_busy_timeout(db->handle, BP_BUSY_MS);
    bp_log_make_room(store);
    store->truncate_at = now + TRUNCATE_EVERY;
}

/* --- idle work -------------------------------------------------------------------------------------------------- */
void bp_store_want_sweep(struct bp_store *store)
{
    pthread_mutex_lock(&store->mutex);
    store->sweep_at = 0;
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->mutex);
}

static void sweep(struct bp_store *store)
{
    struct bp_error err = {.code = BP_OK};
    double after = -1;
    pthread_mutex_lock(&store->mutex);
    store->sweep_at = INFINITY; /* whoever wants a sweep from here on gets another */
    pthread_mutex_unlock(&store->mutex);
    if (bp_store_failed(store))
        return;
    bool idle = bp_clock() - store->busy_at >= IDLE;
    if (bp_store_sweep_slice(store->writer, idle, &after, &err) != BP_OK) {
        roll_back(store->writer);
        note_fault(store, &err);
        after = SWEEP_RETRY;
    }
    if (idle && after < 0 && store->writer->log_pages > 0)
        checkpoint_log(store, SQLITE_CHECKPOINT_PASSIVE); /* the file shrinks only now */
    tend_log(store);
    if (after < 0)
        return;
    double at = bp_clock() + after;
    pthread_mutex_lock(&store->mutex);
    store->sweep_at = at < store->sweep_at ? at : store->sweep_at;
    pthread_mutex_unlock(&store->mutex);
}

/* --- the thread ------------------------------------------------------------------------------------------------- */
/* Takes the front of the queue: all of it, but no more bytes than make a healthy transaction. */
static struct bp_piece *take(struct bp_store *store)
{
    struct bp_piece *first = store->head, **link = &store->head;
    size_t weight = 0;
    while (*link && (link == &store->head || weight + (*link)->weight <= BP_TRANSACTION_BYTES)) {
        weight += (*link)->weight;
        store->queued--;
        store->waiting -= !(*link)->posted;
        link = &(*link)->next;
    }
    struct bp_piece *rest = *link;
    *link = NULL;
    store->head = rest;
    if (!rest)
        store->tail = &store->head;
    return first;
}

static void wait_until(struct bp_store *store, double at)
{
    if (isinf(at)) {
        pthread_cond_wait(&store->work, &store->mutex);
        return;
    }
    struct timespec t = {.tv_sec = (time_t)at, .tv_nsec = (long)((at - floor(at)) * 1e9)};
    pthread_cond_timedwait(&store->work, &store->mutex, &t);
}

enum what { WAIT, RUN, SWEEP, TEND, END };

/* With the lock held; *ret_at: until when to wait. Posted work may wait for company, as long as nobody waits for it. */
static enum what next_work(const struct bp_store *store, double now, double *ret_at)
{
    double due = INFINITY;
    if (store->head) {
        bool at_once = store->waiting > 0 || store->closing || store->queued >= BP_LINGER_PIECES;
        due = at_once ? 0 : store->head->queued_at + BP_LINGER;
    }
    *ret_at = due < store->sweep_at ? due : store->sweep_at;
    bool sweep_due = now >= store->sweep_at && !store->closing;
    if (sweep_due && (due > now || now - store->swept_at >= SWEEP_EVERY))
        return SWEEP;
    return due <= now ? RUN : store->closing ? END : store->untended ? TEND : WAIT;
}

/* Gives the connection back, waits for something to do, and takes it again. */
static enum what wait_for_work(struct bp_store *store, struct bp_piece **ret)
{
    enum what what;
    double now, at;
    pthread_mutex_lock(&store->mutex);
    store->writing = false;
    while ((what = next_work(store, now = bp_clock(), &at)) == WAIT || store->writing) {
        store->wanted = what != WAIT;
        wait_until(store, store->wanted ? INFINITY : at);
    }
    store->wanted = false;
    store->writing = true;
    store->untended = false; /* all that follows sees to the log */
    if (what == SWEEP)
        store->swept_at = now;
    *ret = what == RUN ? take(store) : NULL;
    pthread_mutex_unlock(&store->mutex);
    return what;
}

static void *writer_main(void *arg)
{
    struct bp_store *store = arg;
    struct bp_piece *first, *end;
    enum what what;
    bp_log_make_room(store);
    while ((what = wait_for_work(store, &first)) != END) {
        if (what == SWEEP) {
            sweep(store);
            continue;
        }
        for (; first; first = end) {
            end = run_group(store, first);
            complete(first, end);
        }
        store->busy_at = bp_clock();
        tend_log(store);
    }
    return NULL;
}

bp_status bp_store_writer_start(struct bp_store *store, struct bp_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the program's own thread */
    bp_ballast_take(store, 0);
    store->writing = true;
    int rc = pthread_create(&store->thread, NULL, writer_main, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? BP_OK : bp_fail(err, BP_NOMEM, "cannot start the store's thread: %s", strerror(rc));
}

void bp_store_writer_stop(struct bp_store *store)
{
    pthread_mutex_lock(&store->mutex);
    store->closing = true;
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->mutex);
    pthread_join(store->thread, NULL);
    if (!bp_store_failed(store))
        checkpoint_log(store, SQLITE_CHECKPOINT_TRUNCATE);
}

/* --- handing in ------------------------------------------------------------------------------------------------- */
/* False: closing. */
static bool enqueue(struct bp_store *store, struct bp_piece *p)
{
    pthread_mutex_lock(&store->mutex);
    bool taken = !store->closing;
    if (taken) {
        p->queued_at = bp_clock();
        *store->tail = p;
        store->tail = &p->next;
        store->queued++;
        store->waiting += !p->posted;
    }
    /* Wake the thread for what it would not notice by itself: the first piece, a waiter, a full house; who has borrowed the
     * connection does it at his end. Without the mutex, or it would wake up only to wait for that. */
    bool wake = taken && !store->writing && (!p->posted || store->queued == 1 || store->queued == BP_LINGER_PIECES);
    pthread_mutex_unlock(&store->mutex);
    if (wake)
        pthread_cond_signal(&store->work);
    return taken;
}

void bp_piece_begin(struct bp_store *store, struct bp_piece *p)
{
    sem_init(&p->complete, 0, 0);
    if (!enqueue(store, p)) {
        p->status = bp_fail(&p->err, BP_STOPPED, "the store is closing");
        sem_post(&p->complete);
    }
}

bp_status bp_piece_end(struct bp_piece *p, struct bp_error *err)
{
    while (sem_wait(&p->complete)) /* interrupted by a signal */
        continue;
    sem_destroy(&p->complete);
    if (p->status != BP_OK && err)
        *err = p->err;
    return p->status;
}

bp_status bp_store_write(struct bp_store *store, bp_store_fn *fn, void *arg, struct bp_error *err)
{
    struct bp_piece p = {.fn = fn, .arg = arg};
    bp_piece_begin(store, &p);
    return bp_piece_end(&p, err);
}

bp_status bp_store_write_here(struct bp_store *store, bp_store_fn *fn, void *arg, struct bp_error *err)
{
    struct bp_piece p = {.fn = fn, .arg = arg};
    pthread_mutex_lock(&store->mutex);
    bool borrowed = !store->writing && !store->head && !store->closing;
    store->writing |= borrowed;
    pthread_mutex_unlock(&store->mutex);
    if (!borrowed)
        return bp_store_write(store, fn, arg, err);
    run_group(store, &p);
    pthread_mutex_lock(&store->mutex);
    store->writing = false;
    store->busy_at = bp_clock();
    store->untended = store->writer->log_pages >= BP_WAL_PAGES;
    bool wake = store->wanted || store->untended || store->head || store->closing;
    pthread_mutex_unlock(&store->mutex);
    if (wake)
        pthread_cond_signal(&store->work);
    if (p.status != BP_OK && err)
        *err = p.err;
    return p.status;
}

bp_status bp_store_post(struct bp_store *store, bp_store_fn *fn, void *arg, bp_store_done *done)
{
    struct bp_piece *p = calloc(1, sizeof *p);
    if (!p)
        return BP_NOMEM;
    p->fn = fn;
    p->arg = arg;
    p->done = done;
    p->posted = true;
    bool taken = enqueue(store, p);
    if (!taken)
        free(p);
    return taken ? BP_OK : BP_STOPPED;
}
