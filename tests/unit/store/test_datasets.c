/* test_datasets.c: names, versions, what keeps a version alive, and what a sweep reports. */
#include "store_test.h"

struct put_args {
    struct bp_dataset_row row;
    bool existed, same;
};

static bp_status put_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct put_args *a = arg;
    return bp_db_dataset_put(db, &a->row, &a->existed, &a->same, err);
}

static struct put_args put(struct fixture *f, const char *name, const char *table, const char *sha256)
{
    struct put_args a = {.row = {.bytes = 10, .rows = 3, .description = (char *)"{\"format\":\"csv\"}"}};
    strcpy(a.row.name, name);
    strcpy(a.row.table, table);
    strcpy(a.row.sha256, sha256);
    assert_ok(f, bp_store_write(f->store, put_fn, &a, &f->err));
    return a;
}

struct find_args {
    const char *key;
    bool version;
    struct bp_dataset_row row;
};

static bp_status find_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct find_args *a = arg;
    return a->version ? bp_db_dataset_version(db, a->key, &a->row, err) : bp_db_dataset_get(db, a->key, &a->row, err);
}

static bp_status drop_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_dataset_delete(db, arg, err);
}

static void remember(void *arg, const char *table, const char *sha256)
{
    char *text = arg;
    sprintf(text + strlen(text), "%c%c ", table[0], sha256[0] ? sha256[0] : '-');
}

static bp_status sweep_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_dataset_sweep(db, remember, arg, err);
}

static void assert_sweep(struct fixture *f, const char *expected)
{
    char text[100] = "";
    assert_ok(f, bp_store_write(f->store, sweep_fn, text, &f->err));
    assert_string_equal(text, expected);
}

static void a_name_points_at_a_version(void **state)
{
    struct fixture *f = *state;
    struct put_args a = put(f, "iris", TABLE_A, SHA_1);
    assert_true(!a.existed && !a.same);
    a = put(f, "iris", TABLE_A, SHA_1);
    assert_true(a.existed && a.same);
    a = put(f, "iris", TABLE_B, SHA_2);
    assert_true(a.existed && !a.same);
    reopen(f);
    struct find_args g = {.key = "iris"};
    assert_ok(f, bp_store_read(f->store, find_fn, &g, &f->err));
    assert_string_equal(g.row.name, "iris");
    assert_string_equal(g.row.table, TABLE_B);
    assert_string_equal(g.row.sha256, SHA_2);
    assert_string_equal(g.row.description, "{\"format\":\"csv\"}");
    assert_true(g.row.bytes == 10 && g.row.rows == 3 && g.row.created_at > 0);
    bp_dataset_row_done(&g.row);
    g = (struct find_args){.key = TABLE_A, .version = true};
    assert_ok(f, bp_store_read(f->store, find_fn, &g, &f->err));
    assert_string_equal(g.row.name, "");
    bp_dataset_row_done(&g.row);
    g.key = TABLE_C;
    assert_int_equal(bp_store_read(f->store, find_fn, &g, &f->err), BP_NOT_FOUND);
    assert_sweep(f, "a1 ");
    assert_sweep(f, "");
}

static void shared_bytes_go_with_the_last_version(void **state)
{
    struct fixture *f = *state;
    put(f, "one", TABLE_A, SHA_1);
    put(f, "two", TABLE_B, SHA_1); /* the same bytes, read otherwise */
    assert_ok(f, bp_store_write(f->store, drop_fn, (void *)"one", &f->err));
    assert_sweep(f, "a- ");
    assert_ok(f, bp_store_write(f->store, drop_fn, (void *)"two", &f->err));
    assert_int_equal(bp_store_write(f->store, drop_fn, (void *)"two", &f->err), BP_NOT_FOUND);
    assert_sweep(f, "b1 ");
}

static void a_job_keeps_its_version(void **state)
{
    struct fixture *f = *state;
    put(f, "iris", TABLE_A, SHA_1);
    struct bp_job_row row = new_job(BP_JOB_QUEUED);
    strcpy(row.dataset, "iris");
    strcpy(row.sha256, SHA_1);
    strcpy(row.table, TABLE_A);
    insert_job(f, &row);
    assert_int_equal(bp_store_write(f->store, drop_fn, (void *)"iris", &f->err), BP_CONFLICT);
    assert_non_null(strstr(f->err.message, row.id));
    put(f, "iris", TABLE_B, SHA_2); /* replacing is always allowed */
    assert_sweep(f, "");
    assert_ok(f, bp_store_write(f->store, drop_fn, (void *)"iris", &f->err));
    assert_sweep(f, "b2 ");
    row.status = BP_JOB_CANCELLED;
    assert_ok(f, bp_store_write(f->store, update_fn, &row, &f->err));
    assert_sweep(f, "");
    assert_ok(f, bp_store_write(f->store, delete_fn, row.id, &f->err));
    assert_sweep(f, "a1 ");
    /* a job on a version that is gone */
    bp_store_new_id("job", row.id);
    assert_int_equal(bp_store_write(f->store, insert_fn, &row, &f->err), BP_NOT_FOUND);
}

struct list_args {
    const char *after;
    int limit;
    char names[100];
};

static bp_status name_visit(void *arg, const struct bp_dataset_row *row)
{
    struct list_args *a = arg;
    strcat(strcat(a->names, row->name), " ");
    return BP_OK;
}

static bp_status list_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct list_args *a = arg;
    return bp_db_dataset_list(db, a->after, a->limit, name_visit, a, err);
}

static void names_are_listed_in_order(void **state)
{
    struct fixture *f = *state;
    put(f, "b", TABLE_A, SHA_1);
    put(f, "c", TABLE_B, SHA_2);
    put(f, "a", TABLE_A, SHA_1);
    struct list_args all = {.after = "", .limit = 10}, page = {.after = "a", .limit = 1};
    assert_ok(f, bp_store_read(f->store, list_fn, &all, &f->err));
    assert_string_equal(all.names, "a b c ");
    assert_ok(f, bp_store_read(f->store, list_fn, &page, &f->err));
    assert_string_equal(page.names, "b ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_name_points_at_a_version, setup, teardown),
        cmocka_unit_test_setup_teardown(shared_bytes_go_with_the_last_version, setup, teardown),
        cmocka_unit_test_setup_teardown(a_job_keeps_its_version, setup, teardown),
        cmocka_unit_test_setup_teardown(names_are_listed_in_order, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
