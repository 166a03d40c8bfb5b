/* store_test.h: what the tests of the store share: a store in a directory of its own, rows to put in, and calls of one
 * line that run a statement inside a write or a read. */
#ifndef BP_STORE_TEST_H
#define BP_STORE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "store/store_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char dir[64];
    struct bp_store *store;
    struct bp_error err;
};

#define TABLE_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define TABLE_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define TABLE_C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define SHA_1 "1111111111111111111111111111111111111111111111111111111111111111"
#define SHA_2 "2222222222222222222222222222222222222222222222222222222222222222"

#define assert_ok(f, call)                                                                                           \
    do {                                                                                                             \
        bp_status status_ = (call);                                                                                  \
        if (status_ != BP_OK)                                                                                        \
            fail_msg("%s: %s", bp_status_name(status_), (f)->err.message);                                           \
    } while (0)

static inline void make_dir(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    strcpy(f->dir, "/tmp/bp-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
}

static inline void remove_dir(struct fixture *f)
{
    char path[400];
    DIR *d = opendir(f->dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", f->dir, e->d_name);
        unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(f->dir);
}

static inline bp_status open_store(struct fixture *f, int64_t max_bytes)
{
    struct bp_store_options options = {.dir = f->dir, .readers = 3, .max_bytes = max_bytes};
    return bp_store_open(&options, &f->store, &f->err);
}

static inline void close_store(struct fixture *f)
{
    bp_store_close(f->store);
    f->store = NULL;
}

static inline int setup(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    make_dir(f);
    assert_ok(f, open_store(f, 0));
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    close_store(f);
    remove_dir(f);
    free(f);
    return 0;
}

static inline void reopen(struct fixture *f)
{
    close_store(f);
    assert_ok(f, open_store(f, 0));
}

/* --- statements as one line ------------------------------------------------------------------------------------- */
static inline bp_status insert_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_job_insert(db, arg, err);
}

static inline bp_status update_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_job_update(db, arg, err);
}

struct get_args {
    const char *id;
    struct bp_job_row row;
};

static inline bp_status get_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct get_args *a = arg;
    return bp_db_job_get(db, a->id, &a->row, err);
}

static inline bp_status delete_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_job_delete(db, arg, err);
}

static inline bp_status sql_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_exec(db, arg, "test", err);
}

struct number_args {
    const char *sql;
    int64_t value;
};

static inline bp_status number_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct number_args *a = arg;
    return bp_db_int(db, a->sql, &a->value, err);
}

/* sql must be a literal */
static inline int64_t number(struct fixture *f, const char *sql)
{
    struct number_args a = {.sql = sql};
    assert_ok(f, bp_store_read(f->store, number_fn, &a, &f->err));
    return a.value;
}

/* Waits until a count has fallen to 0: the sweep works in the background. */
static inline void wait_for_zero(struct fixture *f, const char *sql)
{
    for (int i = 0; i < 500 && number(f, sql) != 0; i++)
        usleep(20000);
    assert_int_equal(number(f, sql), 0);
}

/* A minimal row with literals; only for insertion. */
static inline struct bp_job_row new_job(enum bp_job_status status)
{
    struct bp_job_row row = {.status = status, .spec = (char *)"{}", .request = (char *)"{}", .tags = (char *)"{}"};
    bp_store_new_id("job", row.id);
    row.created_at = bp_store_now();
    return row;
}

static inline void insert_job(struct fixture *f, struct bp_job_row *row)
{
    assert_ok(f, bp_store_write(f->store, insert_fn, row, &f->err));
}

#endif
