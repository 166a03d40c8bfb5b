/* test_crash.c: a child process writes and reports what was acknowledged; it is killed at a random moment; the parent
 * opens the database and finds every acknowledged row, a whole latest checkpoint, and a sound file. Round after round in
 * one directory. */
#include "store_test.h"

#include <signal.h>
#include <sys/wait.h>

#define ROUNDS 30
#define WRITERS 3

struct ack {
    char kind; /* 'j': a job, 'c': a checkpoint */
    char id[BP_ID_SIZE], job[BP_ID_SIZE];
};

struct child {
    struct bp_store *store;
    int pipe;
    char job[BP_ID_SIZE];
};

static void report(const struct child *c, char kind, const char *id, const char *job)
{
    struct ack ack = {.kind = kind};
    strcpy(ack.id, id);
    strcpy(ack.job, job);
    if (write(c->pipe, &ack, sizeof ack) != sizeof ack) /* smaller than PIPE_BUF: one piece */
        _exit(3);
}

static void *write_jobs(void *arg)
{
    const struct child *c = arg;
    for (;;) {
        struct bp_job_row row = new_job(BP_JOB_QUEUED);
        if (bp_store_write(c->store, insert_fn, &row, NULL) != BP_OK)
            _exit(4);
        report(c, 'j', row.id, "");
    }
}

static void run_child(const struct fixture *f, int fd)
{
    struct bp_store_options options = {.dir = f->dir, .readers = 1};
    struct child c = {.pipe = fd};
    struct bp_job_row row = new_job(BP_JOB_RUNNING);
    pthread_t thread;
    if (bp_store_open(&options, &c.store, NULL) != BP_OK || bp_store_write(c.store, insert_fn, &row, NULL) != BP_OK)
        _exit(2);
    strcpy(c.job, row.id);
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&thread, NULL, write_jobs, &c);
    uint8_t *bytes = malloc(20 << 20);
    for (unsigned step = 1;; step++) {
        struct bp_checkpoint_row ckpt = {.bytes = step % 3 ? 100000 : 20 << 20, .step = step};
        strcpy(ckpt.job, row.id);
        memset(bytes, (int)step, (size_t)ckpt.bytes);
        if (bp_store_checkpoint(c.store, &ckpt, bytes, NULL, NULL, NULL) != BP_OK)
            _exit(5);
        report(&c, 'c', ckpt.id, row.id);
    }
}

struct acks {
    struct ack *list;
    size_t n, capacity;
};

static void collect(struct acks *acks, int fd)
{
    for (;;) {
        if (acks->n == acks->capacity) {
            acks->capacity = acks->capacity ? 2 * acks->capacity : 1024;
            acks->list = realloc(acks->list, acks->capacity * sizeof *acks->list);
        }
        if (read(fd, &acks->list[acks->n], sizeof *acks->list) != sizeof *acks->list)
            return; /* the end; an ack is written whole or not at all */
        acks->n++;
    }
}

struct verify {
    const struct acks *acks;
    size_t first;
    const char *latest; /* of the last acknowledged checkpoint */
};

static bp_status verify_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct verify *v = arg;
    int64_t seq;
    bp_status status = BP_OK;
    for (size_t i = v->first; status == BP_OK && i < v->acks->n; i++) {
        const struct ack *ack = &v->acks->list[i];
        if (ack->kind == 'j')
            status = bp_db_job_seq(db, ack->id, &seq, err);
        else
            v->latest = ack->id;
    }
    return status;
}

struct sound {
    char words[20];
};

static bp_status sound_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    static const char sql[] = "SELECT (SELECT group_concat(integrity_check) FROM pragma_integrity_check) || ' ' ||"
                              " (SELECT count(*) FROM pragma_foreign_key_check)";
    sqlite3_stmt *stmt;
    struct sound *s = arg;
    bp_status status = bp_db_statement(db, sql, &stmt, err);
    if (status == BP_OK)
        status = bp_db_step(db, stmt, "checking", err);
    if (status == BP_OK)
        bp_column_copy(stmt, 0, s->words, sizeof s->words);
    sqlite3_reset(stmt);
    return status;
}

static void check_round(struct fixture *f, const struct acks *acks, size_t first)
{
    struct verify v = {.acks = acks, .first = first};
    struct sound s = {""};
    assert_ok(f, open_store(f, 0));
    assert_ok(f, bp_store_read(f->store, verify_fn, &v, &f->err));
    if (v.latest) { /* a later one may have been committed, never acknowledged, and may have pruned nothing of the last two */
        uint8_t *bytes;
        size_t size;
        assert_ok(f, bp_store_checkpoint_load(f->store, v.latest, &bytes, &size, &f->err));
        for (size_t i = 1; i < size; i++)
            if (bytes[i] != bytes[0])
                fail_msg("a checkpoint is torn");
        free(bytes);
    }
    assert_ok(f, bp_store_read(f->store, sound_fn, &s, &f->err));
    assert_string_equal(s.words, "ok 0");
    close_store(f);
}

static void nothing_acknowledged_is_lost_by_a_kill(void **state)
{
    (void)state;
    struct fixture f;
    struct acks acks = {NULL, 0, 0};
    make_dir(&f);
    srand(12345);
    for (int round = 0; round < ROUNDS; round++) {
        int fds[2], status;
        size_t first = acks.n;
        assert_int_equal(pipe(fds), 0);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            run_child(&f, fds[1]);
        }
        close(fds[1]);
        usleep((useconds_t)(20000 + rand() % 230000));
        kill(pid, SIGKILL);
        collect(&acks, fds[0]);
        close(fds[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        check_round(&f, &acks, first);
    }
    /* and all of all rounds once more, at the end */
    assert_ok(&f, open_store(&f, 0));
    struct verify v = {.acks = &acks};
    assert_ok(&f, bp_store_read(f.store, verify_fn, &v, &f.err));
    close_store(&f);
    print_message("%d kills: %d acknowledged writes, none lost\n", ROUNDS, (int)acks.n);
    assert_true(acks.n > ROUNDS);
    free(acks.list);
    remove_dir(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_acknowledged_is_lost_by_a_kill)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
