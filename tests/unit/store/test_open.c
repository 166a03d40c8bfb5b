/* test_open.c: what is opened, what is refused and left as it was, and the settings of the connections. */
#include "store_test.h"

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
        TEST(the_settings_are_ours),
        TEST(a_check_finds_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
