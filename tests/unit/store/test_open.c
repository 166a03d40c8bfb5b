/* test_open.c: what is opened, what is refused and left as it was, and the settings of the connections. */
#include "store_test.h"

#include "embedded.h"

#include <fcntl.h>

static void db_path(const struct fixture *f, char ret[200])
{
    snprintf(ret, 200, "%s/backpropd.db", f->dir);
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static char *read_all(const char *path, size_t *ret_size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *ret_size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*ret_size + 1);
    assert_int_equal(fread(bytes, 1, *ret_size, file), *ret_size);
    fclose(file);
    return bytes;
}

static int setup_dir(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    make_dir(f);
    *state = f;
    return 0;
}

/* Opening must fail like this, say the file's name, and leave its bytes alone. */
static void assert_refused(struct fixture *f, bp_status expected)
{
    char path[200];
    size_t before_size, after_size;
    db_path(f, path);
    char *before = read_all(path, &before_size);
    assert_int_equal(open_store(f, 0), expected);
    assert_non_null(strstr(f->err.message, path));
    char *after = read_all(path, &after_size);
    assert_int_equal(before_size, after_size);
    assert_memory_equal(before, after, before_size);
    free(before);
    free(after);
}

static void the_file_is_private_whatever_the_umask(void **state)
{
    struct fixture *f = *state;
    static const mode_t masks[] = {0, 022, 0777};
    char path[210];
    struct stat st;
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        mode_t old = umask(masks[i]);
        assert_ok(f, open_store(f, 0));
        umask(old);
        struct bp_job_row row = new_job(BP_JOB_QUEUED);
        insert_job(f, &row);
        db_path(f, path);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        strcat(path, "-wal");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        close_store(f);
        db_path(f, path);
        unlink(path);
    }
}

static void a_missing_directory_is_made(void **state)
{
    struct fixture *f = *state;
    rmdir(f->dir);
    assert_ok(f, open_store(f, 0));
    struct stat st;
    assert_int_equal(stat(f->dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    close_store(f);
}

static void garbage_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[200], garbage[5000];
    db_path(f, path);
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (char)(i * 7 + 1);
    write_file(path, garbage, sizeof garbage);
    assert_refused(f, BP_CORRUPT);
    write_file(path, "SQLite format 3", 16); /* cut off in the header */
    assert_refused(f, BP_CORRUPT);
}

static void a_damaged_schema_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[200];
    size_t size;
    assert_ok(f, open_store(f, 0));
    close_store(f);
    db_path(f, path);
    char *bytes = read_all(path, &size);
    memset(bytes + 100, 0xa5, 8000); /* the first page behind its header: the schema */
    write_file(path, bytes, size);
    free(bytes);
    assert_refused(f, BP_CORRUPT);
}

static void an_empty_file_is_a_start_cut_short(void **state)
{
    struct fixture *f = *state;
    char path[200];
    db_path(f, path);
    write_file(path, "", 0);
    assert_ok(f, open_store(f, 0));
    close_store(f);
}

static void another_application_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[200];
    sqlite3 *db;
    db_path(f, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_exec(db, "PRAGMA application_id=77; CREATE TABLE t (x)", NULL, NULL, NULL);
    sqlite3_close(db);
    assert_refused(f, BP_MISMATCH);
}

static void set_version(const struct fixture *f, bool in_log)
{
    char path[200];
    sqlite3 *db;
    db_path(f, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (in_log)
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=9999", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void a_newer_schema_is_refused(void **state)
{
    struct fixture *f = *state;
    for (int in_log = 1; in_log >= 0; in_log--) { /* the number may still be in the log alone */
        assert_ok(f, open_store(f, 0));
        close_store(f);
        set_version(f, in_log);
        assert_refused(f, BP_MISMATCH);
        assert_non_null(strstr(f->err.message, "newer"));
        char path[210];
        db_path(f, path);
        unlink(path);
        strcat(path, "-wal");
        unlink(path);
    }
}

static void a_second_hard_link_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[200], other[220];
    assert_ok(f, open_store(f, 0));
    close_store(f);
    db_path(f, path);
    snprintf(other, sizeof other, "%s/other", f->dir);
    assert_int_equal(link(path, other), 0);
    assert_refused(f, BP_UNSUPPORTED);
    unlink(other);
    assert_ok(f, open_store(f, 0));
    close_store(f);
}

static void a_symbolic_link_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[200];
    db_path(f, path);
    assert_int_equal(symlink("/tmp/nowhere", path), 0);
    assert_int_equal(open_store(f, 0), BP_IO);
}

static void a_second_store_is_refused(void **state)
{
    struct fixture *f = *state, second = *f;
    assert_ok(f, open_store(f, 0));
    assert_int_equal(open_store(&second, 0), BP_CONFLICT);
    struct bp_job_row row = new_job(BP_JOB_QUEUED);
    insert_job(f, &row);
    close_store(f);
    assert_ok(&second, open_store(&second, 0));
    close_store(&second);
}

static void network_file_systems_are_known(void **state)
{
    (void)state;
    assert_string_equal(bp_store_unsafe_filesystem(0x6969), "NFS");
    assert_string_equal(bp_store_unsafe_filesystem(0xff534d42), "CIFS");
    assert_string_equal(bp_store_unsafe_filesystem((unsigned long)(int)0xfe534d42), "SMB2"); /* sign-extended */
    assert_null(bp_store_unsafe_filesystem(0xef53));                                         /* ext4 */
    assert_null(bp_store_unsafe_filesystem(0x01021994));                                     /* tmpfs */
}

/* --- older schemas ---------------------------------------------------------------------------------------------- */
/* Rows in every table that the schema has had from its version 5 on. */
static const char old_rows[] =
    "INSERT INTO dataset_version (hash, sha256, bytes, rows, created_at, description)"
    " VALUES ('" TABLE_A "', '" SHA_1 "', 9, 2, 1, '{}');"
    "INSERT INTO dataset (name, version, created_at) VALUES ('iris', '" TABLE_A "', 1);"
    "WITH n(seq, status, name, priority, deleted) AS (VALUES"
    "  (1, 'succeeded', 'a', 0, 0), (2, 'queued', 'b', 0, 0), (3, 'queued', 'b', 5, 0), (4, 'failed', NULL, 0, 1),"
    "  (5, 'paused', 'a', 0, 0), (6, 'queued', NULL, -1, 0))"
    " INSERT INTO job (seq, deleted, status, id, name, version, priority, created_at, started_at, finished_at,"
    "  numerics_version, seed, threads, stopping, restarts, stalls, dataset, sha256, dataset_version, parent, "
    "best_epoch,"
    "  best_step, has_best, best_value, best_name, last_metrics, tags, spec, request)"
    " SELECT seq, deleted, status, 'job_' || seq, name, 3, priority, 1, 0, 0, 1, 7, 0, 0, 0, 0, 'iris', '" SHA_1 "',"
    "  '" TABLE_A
    "', '', 2, 20, 1, 0.125, 'val_loss', '{\"loss\":0.5}', '{\"owner\":\"lea\"}', '{\"seed\":7}', '{}' FROM n;"
    "INSERT INTO job_tag (job, key, value) VALUES (5, 'owner', 'lea');"
    "INSERT INTO idempotency_key VALUES ('key', '" SHA_2 "', 2, 1);"
    "INSERT INTO event VALUES (1, 1, 1, 'queued', '{}'), (1, 2, 1, 'ended', '{}');"
    "INSERT INTO series VALUES (1, 1, 'loss');"
    "INSERT INTO point VALUES (1, 10, 1, 0.5), (1, 20, 2, NULL);"
    "INSERT INTO layer VALUES (1, 1, 'dense_1', 'dense', 'relu', 1);"
    "INSERT INTO layer_sample (job, step, layer, epoch, gradient_norm) VALUES (1, 10, 1, 1, 0.25);"
    "INSERT INTO blob VALUES (1, 1);"
    "INSERT INTO chunk VALUES (1, 1, 0, zeroblob(32), x'00');"
    "INSERT INTO checkpoint VALUES (1, 'ckpt_1', 1, 1, 1, 2, 20, 1, '" SHA_2 "', 1, 1, '{}');"
    "INSERT INTO start VALUES (2, 1, '[]');";

static void make_old(const struct fixture *f, int version)
{
    char path[200], sql[120];
    sqlite3 *db;
    db_path(f, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    snprintf(sql, sizeof sql, "PRAGMA page_size=8192; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA application_id=%d",
             BP_APPLICATION_ID);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    for (const struct bp_embedded *m = bp_migrations; m->name && atoi(m->name) <= version; m++)
        assert_int_equal(sqlite3_exec(db, (const char *)m->data, NULL, NULL, NULL), SQLITE_OK);
    snprintf(sql, sizeof sql, "PRAGMA foreign_keys=ON; PRAGMA user_version=%d", version);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    if (sqlite3_exec(db, old_rows, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("version %d: %s", version, sqlite3_errmsg(db));
    sqlite3_close(db);
}

static bp_status see_id(void *arg, const struct bp_job_row *row)
{
    strcat(strcat(arg, row->id), " ");
    return BP_OK;
}

static bp_status see_event(void *arg, const struct bp_event_row *row)
{
    snprintf((char *)arg + strlen(arg), 30, "%d:%s ", (int)row->seq, row->type);
    return BP_OK;
}

static bp_status see_layer(void *arg, const struct bp_layer_row *row)
{
    *(struct bp_layer_row *)arg = *row;
    return BP_OK;
}

/* Everything of old_rows as the statements of today find it. */
static bp_status see_old(struct bp_db *db, void *arg, struct bp_error *err)
{
    static const struct {
        struct bp_job_filter filter;
        const char *expected;
    } lists[] = {
        {{.limit = 9}, "job_6 job_5 job_3 job_2 job_1 "},
        {{.limit = 9, .name = "a"}, "job_5 job_1 "},
        {{.limit = 9, .statuses = 1 << BP_JOB_QUEUED, .ascending = true}, "job_2 job_3 job_6 "},
        {{.limit = 9, .tag_key = "owner", .tag_value = "lea"}, "job_5 "},
    };
    (void)arg;
    char sha[BP_SHA256_HEX], id[BP_ID_SIZE];
    int64_t queued, ahead;
    struct bp_job_row job = {0};
    struct bp_dataset_row dataset = {0};
    struct bp_layer_row layer = {0};
    struct bp_checkpoint_ids ids;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char seen[100] = "";
        assert_int_equal(bp_db_job_list(db, &lists[i].filter, see_id, seen, err), BP_OK);
        assert_string_equal(seen, lists[i].expected);
    }
    assert_int_equal(bp_db_job_next(db, id, err), BP_OK);
    assert_string_equal(id, "job_3");
    assert_int_equal(bp_db_job_queue(db, 0, &queued, &ahead, err), BP_OK);
    assert_true(queued == 3 && ahead == 2);
    assert_int_equal(bp_db_key_get(db, "key", sha, id, err), BP_OK);
    assert_string_equal(id, "job_2");
    assert_int_equal(bp_db_job_get(db, "job_1", &job, err), BP_OK);
    assert_true(job.version == 3 && job.best_value == 0.125 && job.seed == 7);
    assert_string_equal(job.spec, "{\"seed\":7}");
    assert_int_equal(bp_db_dataset_get(db, "iris", &dataset, err), BP_OK);
    assert_string_equal(dataset.table, TABLE_A);
    assert_int_equal(bp_db_layer_list(db, "job_1", see_layer, &layer, err), BP_OK);
    assert_true(layer.gradient_norm == 0.25 && layer.delta_first != layer.delta_first);
    assert_int_equal(bp_db_checkpoint_ids(db, 1, &ids, err), BP_OK);
    assert_string_equal(ids.latest, "ckpt_1");
    char stored[100] = "", implied[100] = "";
    assert_int_equal(bp_db_event_list(db, "job_1", 0, 9, see_event, stored, err), BP_OK);
    assert_string_equal(stored, "1:queued 2:ended ");
    assert_int_equal(bp_db_event_list(db, "job_2", 0, 9, see_event, implied, err), BP_OK);
    assert_string_equal(implied, "1:queued ");
    bp_job_row_done(&job);
    bp_dataset_row_done(&dataset);
    return BP_OK;
}

static void an_older_database_is_taken_further_with_all_that_is_in_it(void **state)
{
    struct fixture *f = *state;
    char path[200];
    db_path(f, path);
    for (int version = 5; version <= bp_schema_version(); version++) {
        make_old(f, version);
        assert_ok(f, open_store(f, 0));
        assert_int_equal(number(f, "PRAGMA user_version"), bp_schema_version());
        assert_ok(f, bp_store_read(f->store, see_old, NULL, &f->err));
        assert_int_equal(number(f, "SELECT count(*) FROM point"), 2);
        assert_int_equal(number(f, "SELECT count(*) FROM event WHERE job = 1"), 2);
        assert_int_equal(number(f, "SELECT count(*) FROM chunk"), 1);
        assert_int_equal(number(f, "SELECT count(*) FROM start"), 1);
        assert_int_equal(number(f, "SELECT count(*) FROM job_tag"), 1);
        assert_int_equal(number(f, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
        assert_ok(f, bp_store_check(f->store, &f->err));
        struct bp_job_row row = new_job(BP_JOB_QUEUED);
        insert_job(f, &row);
        assert_int_equal(row.seq, 7);
        close_store(f);
        unlink(path);
    }
}

/* --- settings --------------------------------------------------------------------------------------------------- */
struct setting {
    const char *sql;
    int64_t writer, reader;
};

static bp_status settings_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    static const struct setting settings[] = {
        {"PRAGMA synchronous", 2, 2},
        {"PRAGMA page_size", 8192, 8192},
        {"PRAGMA auto_vacuum", 2, 2},
        {"PRAGMA foreign_keys", 1, 1},
        {"PRAGMA secure_delete", 2, 1},
        {"PRAGMA trusted_schema", 0, 0},
        {"PRAGMA cell_size_check", 1, 1},
        {"PRAGMA query_only", 0, 1},
        {"PRAGMA wal_autocheckpoint", 0, 0},
        {"PRAGMA busy_timeout", 5000, 5000},
        {"PRAGMA journal_size_limit", 67108864, -1},
        {"PRAGMA application_id", BP_APPLICATION_ID, BP_APPLICATION_ID},
        {"PRAGMA mmap_size", 0, 0},
    };
    (void)arg;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        int64_t value;
        bp_status status = bp_db_int(db, settings[i].sql, &value, err);
        int64_t expected = db->writer ? settings[i].writer : settings[i].reader;
        if (status != BP_OK || value != expected)
            return bp_fail(err, BP_INTERNAL, "%s of the %s is %lld", settings[i].sql,
                           db->writer ? "writer" : "reader", (long long)value);
    }
    return BP_OK;
}

static void the_settings_are_ours(void **state)
{
    struct fixture *f = *state;
    assert_ok(f, open_store(f, 0));
    assert_ok(f, bp_store_write(f->store, settings_fn, NULL, &f->err));
    assert_ok(f, bp_store_read(f->store, settings_fn, NULL, &f->err));
    assert_int_equal(number(f, "PRAGMA user_version"), bp_schema_version());
    /* a reader cannot write, nobody can load code or switch the defences off */
    assert_int_equal(bp_store_read(f->store, sql_fn, (void *)"DELETE FROM job", &f->err), BP_IO);
    assert_int_not_equal(bp_store_read(f->store, sql_fn, (void *)"SELECT load_extension('x')", &f->err), BP_OK);
    assert_int_not_equal(bp_store_write(f->store, sql_fn, (void *)"ATTACH 'a' AS a; ATTACH 'b' AS b", &f->err),
                         BP_OK);
    assert_int_equal(number(f, "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND strict = 0"
                               " AND name NOT LIKE 'sqlite%'"),
                     0);
    assert_ok(f, bp_store_check(f->store, &f->err));
    close_store(f);
}

static void a_check_finds_damage(void **state)
{
    struct fixture *f = *state;
    char path[200];
    assert_ok(f, open_store(f, 0));
    for (int i = 0; i < 200; i++) {
        struct bp_job_row row = new_job(BP_JOB_QUEUED);
        row.tags = (char *)"{\"owner\":\"lea\",\"n\":\"3\"}";
        insert_job(f, &row);
    }
    assert_ok(f, bp_store_check(f->store, &f->err)); /* nothing sound is taken for damaged */
    close_store(f);
    db_path(f, path);
    size_t size;
    char *bytes = read_all(path, &size);
    memset(bytes + size - 3 * BP_PAGE_SIZE, 0x5a, 2 * BP_PAGE_SIZE);
    write_file(path, bytes, size);
    free(bytes);
    assert_ok(f, open_store(f, 0));
    assert_int_equal(bp_store_check(f->store, &f->err), BP_CORRUPT);
    close_store(f);
}

static int teardown_dir(void **state)
{
    struct fixture *f = *state;
    remove_dir(f);
    free(f);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_dir, teardown_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_file_is_private_whatever_the_umask),
        TEST(a_missing_directory_is_made),
        TEST(garbage_is_refused),
        TEST(a_damaged_schema_is_refused),
        TEST(an_empty_file_is_a_start_cut_short),
        TEST(another_application_is_refused),
        TEST(a_newer_schema_is_refused),
        TEST(a_second_hard_link_is_refused),
        TEST(a_symbolic_link_is_refused),
        TEST(a_second_store_is_refused),
        TEST(network_file_systems_are_known),
        TEST(an_older_database_is_taken_further_with_all_that_is_in_it),
        TEST(the_settings_are_ours),
        TEST(a_check_finds_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
