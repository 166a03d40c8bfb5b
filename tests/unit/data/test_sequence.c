/* Windows, groups and time of a transform: which rows are samples, which rows they are made of, how they are divided,
 * and that all of it survives as JSON. */
#include "help.h"

#include "data/transform.h"

enum { GROUPS = 5, TIMES = 12 };

/* Rows in the order of the file: group and time of each. Group 4 has three rows only; one row has no label. */
static int who[GROUPS * TIMES], when[GROUPS * TIMES], nrows;

static struct bp_table *make_table(void)
{
    char text[8192];
    size_t n = (size_t)snprintf(text, sizeof text, "who,when,x,y\n");
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_error err;
    struct bp_table *table;
    nrows = 0;
    for (int i = 0; i < GROUPS * TIMES; i++) {
        int k = i * 37 % (GROUPS * TIMES), g = k % GROUPS, t = k / GROUPS; /* in disorder */
        if (g == 4 && t >= 3)
            continue;
        who[nrows] = g;
        when[nrows++] = t;
        n += (size_t)snprintf(text + n, sizeof text - n, "g%d,%d,%d.5,%s\n", g, t, g * 100 + t,
                              g == 2 && t == 7 ? ""
                              : (g + t) % 2    ? "odd"
                                               : "even");
    }
    assert_int_equal(import_bytes(text, n, &options, &result, &err), BP_OK);
    assert_int_equal(bp_table_open(data_dir, result.table, result.description, &table, &err), BP_OK);
    free(result.description);
    assert_int_equal(table->nrows, nrows);
    return table;
}

static bp_status plan(const struct bp_table *table, const char *dataset, struct bp_transform **ret,
                      struct bp_problems *problems)
{
    char text[512];
    size_t n = strlen(dataset);
    for (size_t i = 0; i <= n; i++)
        text[i] = dataset[i] == '\'' ? '"' : dataset[i];
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    struct bp_error err;
    bp_problems_init(problems);
    bp_status status = bp_transform_plan(table, json, "classification", problems, ret, &err);
    json_decref(json);
    return status;
}

static struct bp_transform *good(const struct bp_table *table, const char *dataset)
{
    struct bp_transform *t = NULL, *again = NULL;
    struct bp_problems problems;
    struct bp_error err;
    if (plan(table, dataset, &t, &problems) != BP_OK)
        fail_msg("%s: %s", dataset, json_dumps(problems.errors, 0));
    bp_problems_done(&problems);
    /* what is tested is what comes back from JSON */
    json_t *json = bp_transform_json(t), *copy;
    assert_int_equal(bp_transform_parse(json, &again, &err), BP_OK);
    copy = bp_transform_json(again);
    assert_true(json_equal(json, copy));
    json_decref(json);
    json_decref(copy);
    bp_transform_free(t);
    return again;
}

#define BASE "{'target': 'y', 'scale': 'none', "
#define WINDOW "'window': {'rows': 4, 'stride': 3, 'by': 'who'}, 'order_by': 'when'"

static void windows_follow_their_group_and_time(void **state)
{
    struct bp_table *table = make_table();
    struct bp_transform *t = good(table, BASE WINDOW "}");
    uint8_t exclude[GROUPS * TIMES];
    uint64_t excluded;
    struct bp_source source;
    struct bp_error err;
    int windows = 0;
    (void)state;
    assert_int_equal(bp_transform_steps(t), 4);
    assert_int_equal(bp_transform_inputs(t), 4); /* x alone: what groups and orders is no feature */
    assert_int_equal(bp_transform_shape(t).rank, 2);
    assert_int_equal(bp_transform_exclude(t, table, exclude, &excluded, &err), BP_OK);
    assert_int_equal(bp_transform_source(t, table, &source, &err), BP_OK);
    for (uint32_t r = 0; r < (uint32_t)nrows; r++) {
        bool ends = when[r] >= 3 && (when[r] - 3) % 3 == 0 && who[r] != 4 && !(who[r] == 2 && when[r] == 7);
        float x[4];
        assert_int_equal(exclude[r], !ends);
        windows += ends;
        if (!ends)
            continue;
        bp_source_gather(&source, &r, 1, x);
        for (int k = 0; k < 4; k++)
            assert_true(x[k] == (float)(who[r] * 100 + when[r] - 3 + k) + 0.5f);
    }
    assert_int_equal(windows, 4 * 3);
    assert_int_equal(excluded, nrows - windows);
    json_t *names = bp_transform_input_names(t);
    assert_string_equal(json_string_value(json_array_get(names, 3)), "x@3");
    json_decref(names);
    bp_transform_source_done(&source);
    bp_transform_free(t);
    bp_table_close(table);
}

/* Divides and splits; the part of each row, 3 for none. */
static void split(const struct bp_table *table, const char *dataset, uint8_t *part)
{
    struct bp_transform *t = good(table, dataset);
    struct bp_division d;
    struct bp_split s;
    struct bp_error err = {0};
    uint8_t exclude[GROUPS * TIMES];
    uint64_t excluded;
    assert_true(bp_transform_divides(t));
    assert_int_equal(bp_transform_exclude(t, table, exclude, &excluded, &err), BP_OK);
    assert_int_equal(bp_transform_divide(t, table, &d, &err), BP_OK);
    struct bp_split_config config = {.seed = 1,
                                     .validation = 0.25,
                                     .exclude = exclude,
                                     .group = d.group,
                                     .first = d.first,
                                     .last = d.last,
                                     .nrows = table->nrows,
                                     .test_first = table->nrows};
    if (bp_split_make(&config, &s, &err) != BP_OK)
        fail_msg("%s", err.message);
    memset(part, 3, GROUPS * TIMES);
    for (int p = 0; p < 3; p++)
        for (uint64_t i = 0; i < s.count[p]; i++)
            part[s.rows[p][i]] = (uint8_t)p;
    assert_true(s.count[BP_TRAIN] > 0 && s.count[BP_VALIDATION] > 0);
    bp_split_done(&s);
    bp_division_done(&d);
    bp_transform_free(t);
}

static void groups_stay_together(void **state)
{
    static const char *const specs[] = {BASE "'split_by': 'who'}", BASE "'window': {'rows': 4, 'by': 'who'}}",
                                        BASE "'split_by': 'who', " WINDOW "}"};
    struct bp_table *table = make_table();
    uint8_t part[GROUPS * TIMES];
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        uint8_t of[GROUPS] = {9, 9, 9, 9, 9};
        split(table, specs[i], part);
        for (int r = 0; r < nrows; r++) {
            assert_true(part[r] == 3 || of[who[r]] == 9 || of[who[r]] == part[r]);
            of[who[r]] = part[r] == 3 ? of[who[r]] : part[r];
        }
    }
    bp_table_close(table);
}

static void time_goes_on(void **state)
{
    struct bp_table *table = make_table();
    uint8_t part[GROUPS * TIMES];
    (void)state;
    split(table, BASE "'order_by': 'when'}", part);
    int last = -1, first = TIMES;
    for (int r = 0; r < nrows; r++) {
        last = part[r] == BP_TRAIN && when[r] > last ? when[r] : last;
        first = part[r] == BP_VALIDATION && when[r] < first ? when[r] : first;
    }
    assert_true(last < first);
    split(table, BASE WINDOW "}", part); /* no row of a training window is as late as one of the others' */
    for (int r = 0; r < nrows; r++)
        for (int o = 0; o < nrows; o++)
            if (part[r] == BP_TRAIN && part[o] == BP_VALIDATION)
                assert_true(when[r] < when[o] - 3);
    split(table, BASE "'window': {'rows': 4}}", part); /* by number */
    for (int r = 0; r < nrows; r++)
        for (int o = 0; o < nrows; o++)
            if (part[r] == BP_TRAIN && part[o] == BP_VALIDATION)
                assert_true(r < o - 3);
    bp_table_close(table);
}

static void what_is_told(void **state)
{
    struct bp_table *table = make_table();
    struct bp_transform *t = NULL;
    struct bp_problems problems;
    bool shorter = false, left_out = false;
    size_t i;
    json_t *entry, *warnings;
    (void)state;
    assert_int_equal(plan(table, BASE WINDOW "}", &t, &problems), BP_OK);
    bp_problems_done(&problems);
    warnings = bp_transform_warnings(t);
    json_array_foreach(warnings, i, entry) {
        const char *code = json_string_value(json_object_get(entry, "code"));
        const char *detail = json_string_value(json_object_get(entry, "detail"));
        shorter |= strcmp(code, "short_groups") == 0 && strstr(detail, "1 of 5") && strstr(detail, "3 rows");
        left_out |= strcmp(code, "left_out") == 0 && strstr(detail, "'who'");
    }
    assert_true(shorter && left_out);
    json_decref(warnings);
    bp_transform_free(t);
    static const struct {
        const char *dataset, *pointer, *code;
    } bad[] = {
        {BASE "'window': {'rows': 13, 'by': 'who'}}", "/dataset/window/rows", "no_windows"},
        {BASE "'window': {'rows': 4, 'by': 'whom'}}", "/dataset/window/by", "unknown_column"},
        {BASE "'split_by': 'z'}", "/dataset/split_by", "unknown_column"},
        {BASE "'order_by': 'z'}", "/dataset/order_by", "unknown_column"},
    };
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(plan(table, bad[i].dataset, &t, &problems), BP_INVALID);
        entry = json_array_get(problems.errors, 0);
        assert_string_equal(json_string_value(json_object_get(entry, "pointer")), bad[i].pointer);
        assert_string_equal(json_string_value(json_object_get(entry, "code")), bad[i].code);
        bp_problems_done(&problems);
    }
    bp_table_close(table);
}

static void damaged_json_is_refused(void **state)
{
    static const char *const bad[] = {"{\"rows\": -1}",
                                      "{\"rows\": 4}",
                                      "{\"rows\": 4, \"stride\": 0}",
                                      "{\"rows\": 70000, \"stride\": 1}",
                                      "[4]",
                                      "{\"rows\": 3, \"stride\": 1}"};
    struct bp_table *table = make_table();
    struct bp_transform *t = good(table, BASE WINDOW "}"), *again;
    struct bp_error err;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *json = bp_transform_json(t);
        json_object_set_new(json, "sequence", json_loads(bad[i], 0, NULL));
        assert_int_equal(bp_transform_parse(json, &again, &err), BP_CORRUPT);
        json_decref(json);
    }
    bp_transform_free(t);
    bp_table_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_follow_their_group_and_time),
        cmocka_unit_test(groups_stay_together),
        cmocka_unit_test(time_goes_on),
        cmocka_unit_test(what_is_told),
        cmocka_unit_test(damaged_json_is_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
