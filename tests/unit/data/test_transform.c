/* The transform: what is planned, what the fit finds, that JSON keeps every bit, and that rows from outside become the
 * same numbers as stored ones. */
#include "data/help.h"

#include "data/transform.h"

static const char *const csv = "id,age,sex,class,city,fare,note,y\n"
                               "1,20,m,3,paris,1.5,n1,no\n"
                               "2,40,f,1,rome,2.5,n2,yes\n"
                               "3,,m,3,paris,3.5,n3,no\n"
                               "4,60,f,2,,4.5,n4,yes\n"
                               "5,30,m,3,oslo,5.5,n5,no\n"
                               "6,10,f,1,rome,6.5,n6,\n";

static bp_status plan_text(const struct bp_table *t, const char *dataset, const char *task,
                           struct bp_problems *problems, struct bp_transform **ret)
{
    json_t *json = json_loads(dataset, 0, NULL);
    assert_non_null(json);
    bp_problems_init(problems);
    bp_status status = bp_transform_plan(t, json, task, problems, ret, NULL);
    json_decref(json);
    return status;
}

static struct bp_transform *plan_fine(const struct bp_table *t, const char *dataset, const char *task)
{
    struct bp_problems problems;
    struct bp_transform *transform;
    if (plan_text(t, dataset, task, &problems, &transform) != BP_OK) {
        char *text = json_dumps(problems.errors, 0);
        fail_msg("%s", text);
    }
    assert_false(bp_problems_any(&problems));
    bp_problems_done(&problems);
    return transform;
}

/* The first rows are for training. */
static void fit_rows(struct bp_transform *transform, const struct bp_table *t, int n, bool standardize)
{
    uint32_t rows[64];
    struct bp_split split = {.rows = {rows}, .count = {(uint64_t)n}};
    for (int i = 0; i < n; i++)
        rows[i] = (uint32_t)i;
    assert_int_equal(bp_transform_fit(transform, t, &split, standardize, NULL), BP_OK);
}

static void gather(const struct bp_transform *transform, const struct bp_table *t, uint32_t row, float *x)
{
    struct bp_source source;
    assert_int_equal(bp_transform_source(transform, t, &source, NULL), BP_OK);
    bp_source_gather(&source, &row, 1, x);
    bp_transform_source_done(&source);
}

static void plans_and_fits(void **state)
{
    (void)state;
    struct bp_table *t = table_of(csv, NULL);
    struct bp_transform *x =
        plan_fine(t,
                  "{\"target\": \"y\", \"ignore\": [\"id\"], \"columns\": {\"class\": {\"type\": "
                  "\"category\"}, \"fare\": {\"scale\": \"minmax\"}}}",
                  "classification");
    /* age, sex (2), class (3), city (3 and missing), fare; note is text and left out */
    assert_int_equal(bp_transform_inputs(x), 11);
    assert_int_equal(bp_transform_shape(x).rank, 1);
    json_t *names = bp_transform_input_names(x), *warnings = bp_transform_warnings(x);
    char *text = json_dumps(names, JSON_COMPACT);
    assert_string_equal(text, "[\"age\",\"sex=f\",\"sex=m\",\"class=1\",\"class=2\",\"class=3\",\"city=oslo\","
                              "\"city=paris\",\"city=rome\",\"city=(missing)\",\"fare\"]");
    free(text);
    json_decref(names);
    assert_int_equal(json_array_size(warnings), 2); /* age is filled, note left out */
    json_decref(warnings);

    const struct bp_transform_target *target = bp_transform_target(x, 0);
    assert_true(target->is_class && target->outputs == 2 && !target->labels_are_numbers);
    assert_string_equal(json_string_value(json_array_get(target->labels, 1)), "yes");
    int32_t classes[6];
    uint8_t exclude[6];
    uint64_t excluded;
    assert_int_equal(bp_transform_classes(x, t, classes, NULL), BP_OK);
    assert_memory_equal(classes, ((int32_t[]){0, 1, 0, 1, 0, -1}), sizeof classes);
    assert_int_equal(bp_transform_exclude(x, t, exclude, &excluded, NULL), BP_OK);
    assert_int_equal(excluded, 1);
    assert_memory_equal(exclude, "\0\0\0\0\0\1", 6);

    fit_rows(x, t, 4, false);
    float got[11];
    double deviation = sqrt((400.0 + 0 + 400) / 3);
    gather(x, t, 3, got);
    float expected[11] = {(float)((60.0 - 40) * (1 / deviation)), 1, 0, 0, 1, 0, 0, 0, 0, 1, 1};
    assert_memory_equal(got, expected, sizeof got);
    gather(x, t, 2, got); /* a missing age is the mean, 0 after scaling */
    assert_true(got[0] == 0 && got[10] == (float)(2.0 / 3));

    bp_transform_free(x);
    bp_table_close(t);
}

static void fills_and_drops(void **state)
{
    (void)state;
    struct bp_table *t = table_of(csv, NULL);
    float got[8];
    uint8_t exclude[6];
    uint64_t excluded;
    struct bp_transform *x = plan_fine(t,
                                       "{\"target\":\"fare\",\"features\":[\"age\"],\"scale\":\"none\",\"columns\":{"
                                       "\"age\":{\"missing\":\"median\"}}}",
                                       "regression");
    fit_rows(x, t, 6, true);
    gather(x, t, 2, got);
    assert_true(got[0] == 30);
    const struct bp_transform_target *target = bp_transform_target(x, 0);
    assert_true(!target->is_class && target->shift == 4 && fabs(target->scale * sqrt(17.5 / 6) - 1) < 1e-15);
    bp_transform_free(x);

    x = plan_fine(t,
                  "{\"target\":\"fare\",\"features\":\"age\",\"scale\":\"none\",\"columns\":{\"age\":{\"missing\":"
                  "\"constant\",\"fill\":-1}}}",
                  "regression");
    fit_rows(x, t, 6, false);
    gather(x, t, 2, got);
    assert_true(got[0] == -1);
    assert_true(bp_transform_target(x, 0)->scale == 1);
    bp_transform_free(x);

    x = plan_fine(t,
                  "{\"target\":\"fare\",\"features\":[\"a*\",\"sex\"],\"columns\":{\"age\":{\"missing\":\"drop\"}}}",
                  "regression");
    assert_int_equal(bp_transform_exclude(x, t, exclude, &excluded, NULL), BP_OK);
    assert_memory_equal(exclude, "\0\0\1\0\0\0", 6);
    bp_transform_free(x);

    /* a constant column is scaled by 1, with a warning */
    x = plan_fine(t, "{\"target\":\"fare\",\"features\":[\"class\"]}", "regression");
    fit_rows(x, t, 1, false);
    json_t *warnings = bp_transform_warnings(x);
    assert_string_equal(json_string_value(json_object_get(json_array_get(warnings, 0), "code")), "constant_column");
    json_decref(warnings);
    gather(x, t, 1, got);
    assert_true(got[0] == -2);
    bp_transform_free(x);
    bp_table_close(t);
}

static void plan_faults(void **state)
{
    static const struct {
        const char *dataset, *task, *pointer, *code, *suggestion;
    } cases[] = {
        {"{\"target\":\"Y\"}", "classification", "/dataset/target", "unknown_column", "y"},
        {"{}", "classification", "/dataset/target", "required", NULL},
        {"{\"target\":\"y\",\"features\":[\"agee\"]}", "classification", "/dataset/features/0", "unknown_column",
         "age"},
        {"{\"target\":\"y\",\"features\":[\"zz*\"]}", "classification", "/dataset/features/0", "unknown_column",
         NULL},
        {"{\"target\":\"y\",\"ignore\":[\"id\",\"nope\"]}", "classification", "/dataset/ignore/1", "unknown_column",
         NULL},
        {"{\"target\":\"y\",\"ignore\":[\"*\"]}", "classification", "/dataset/features", "no_features", NULL},
        {"{\"target\":\"y\",\"features\":[\"note\"]}", "classification", "/dataset/features", "text_column", NULL},
        {"{\"target\":\"y\",\"features\":[\"y\",\"age\"]}", "classification", "/dataset/features",
         "target_is_feature", NULL},
        {"{\"target\":\"y\"}", "regression", "/dataset/target", "not_a_number", "classification"},
        {"{\"target\":\"note\"}", "classification", "/dataset/target", "text_column", NULL},
        {"{\"target\":\"y\",\"columns\":{\"sex\":{\"type\":\"number\"}}}", "classification",
         "/dataset/columns/sex/type", "not_a_number", NULL},
        {"{\"target\":\"y\",\"columns\":{\"sx\":{}}}", "classification", "/dataset/columns/sx", "unknown_column",
         "sex"},
        {"{\"target\":\"y\",\"columns\":{\"sex\":{\"missing\":\"mean\"}}}", "classification",
         "/dataset/columns/sex/missing", "not_a_number", NULL},
        {"{\"target\":\"y\",\"columns\":{\"age\":{\"missing\":\"error\"}}}", "classification",
         "/dataset/columns/age/missing", "missing_values", NULL},
        {"{\"target\":\"y\",\"columns\":{\"age\":{\"missing\":\"constant\"}}}", "classification",
         "/dataset/columns/age/fill", "required", NULL},
        {"{\"target\":\"y\",\"columns\":{\"age\":{\"scale\":\"unit\"}}}", "classification",
         "/dataset/columns/age/scale", "no_range", "minmax"},
        {"{\"target\":\"y\",\"input_shape\":[2,3]}", "classification", "/dataset/input_shape", "shape_mismatch",
         NULL},
    };
    (void)state;
    struct bp_table *t = table_of(csv, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bp_problems problems;
        struct bp_transform *x;
        if (plan_text(t, cases[i].dataset, cases[i].task, &problems, &x) != BP_INVALID)
            fail_msg("%s was accepted", cases[i].dataset);
        const json_t *first = json_array_get(problems.errors, 0);
        assert_string_equal(json_string_value(json_object_get(first, "pointer")), cases[i].pointer);
        assert_string_equal(json_string_value(json_object_get(first, "code")), cases[i].code);
        if (cases[i].suggestion)
            assert_string_equal(json_string_value(json_object_get(first, "suggestion")), cases[i].suggestion);
        bp_problems_done(&problems);
    }
    bp_table_close(t);
}

static struct bp_transform *through_json(const struct bp_transform *x)
{
    struct bp_transform *back;
    struct bp_error err;
    json_t *json = bp_transform_json(x);
    char *text = json_dumps(json, JSON_REAL_PRECISION(17));
    json_decref(json);
    json = json_loads(text, 0, NULL);
    if (bp_transform_parse(json, &back, &err) != BP_OK)
        fail_msg("%s", err.message);
    json_t *again = bp_transform_json(back);
    char *text2 = json_dumps(again, JSON_REAL_PRECISION(17));
    assert_string_equal(text, text2);
    free(text);
    free(text2);
    json_decref(again);
    json_decref(json);
    return back;
}

static void rows_from_outside(void **state)
{
    (void)state;
    struct bp_import_result result;
    struct bp_table *t = table_of(csv, &result);
    struct bp_transform *x =
        plan_fine(t, "{\"target\":\"y\",\"ignore\":[\"id\"],\"columns\":{\"class\":{\"type\":\"category\"}}}",
                  "classification");
    fit_rows(x, t, 5, false);
    struct bp_transform *back = through_json(x);
    bp_transform_free(x);

    /* the rows as the dataset had them, as JSON and as CSV, give the bits of the stored ones */
    json_t *rows;
    struct bp_problems problems;
    struct bp_error err;
    uint8_t *bytes[2];
    int n[2];
    bp_problems_init(&problems);
    assert_int_equal(bp_import_rows(data_dir, result.sha256, result.description, 100, &rows, &err), BP_OK);
    assert_int_equal(bp_transform_rows(back, rows, &problems, &bytes[0], &n[0], &err), BP_OK);
    assert_int_equal(bp_transform_rows_csv(back, csv, strlen(csv), &problems, &bytes[1], &n[1], &err), BP_OK);
    for (int k = 0; k < 2; k++) {
        struct bp_source source;
        assert_int_equal(n[k], 6);
        assert_int_equal(bp_transform_rows_source(back, bytes[k], n[k], &source, &err), BP_OK);
        for (uint32_t r = 0; r < 6; r++) {
            float a[16], b[16];
            size_t size = sizeof(float) * (size_t)bp_transform_inputs(back);
            gather(back, t, r, a);
            bp_source_gather(&source, &r, 1, b);
            assert_memory_equal(a, b, size);
        }
        bp_transform_source_done(&source);
        free(bytes[k]);
    }
    json_decref(rows);
    bp_transform_free(back);
    free(result.description);
    bp_table_close(t);
}

static void row_faults(void **state)
{
    static const struct {
        const char *rows, *pointer, *code;
    } cases[] = {
        {"[]", "/rows", "empty"},
        {"[5]", "/rows/0", "wrong_type"},
        {"[[20,\"m\"],[1]]", "/rows/1", "wrong_length"},
        {"[{\"age\":1}]", "/rows/0/sex", "missing_column"},
        {"[{\"age\":1,\"sex\":\"x\"}]", "/rows/0/sex", "unseen_category"},
        {"[{\"age\":1,\"sex\":null}]", "/rows/0/sex", "missing_value"},
        {"[{\"age\":1,\"sex\":\"m\"},{\"age\":\"old\",\"sex\":\"m\"}]", "/rows/1/age", "not_a_number"},
        {"[{\"age\":\"NaN\",\"sex\":\"m\"}]", "/rows/0/age", "not_a_number"},
        {"[{\"age\":[1],\"sex\":\"m\"}]", "/rows/0/age", "wrong_type"},
        {"[{\"age\":1,\"sex\":\"m\",\"agge\":1}]", "/rows/0/agge", "unknown_column"},
    };
    static const struct {
        const char *text, *pointer, *code;
    } texts[] = {
        {"age,sex\n1\n", "/rows", "ragged_row"},
        {"1,m\n2,f\n", "/rows", "no_header"},
        {"age\n1\n", "/rows/0/sex", "missing_column"},
        {"age,sex,q\n1,m,2\n", "/rows/0/q", "unknown_column"},
        {"age,sex,age\n1,m,2\n", "/rows/0/age", "duplicate_column"},
        {"age;sex\n1;m\n2;z\n", "/rows/1/sex", "unseen_category"},
        {"age,sex\n", "/rows", "empty"},
        {"age,sex", "/rows", "newlines_gone"},
        {"age,sex\n\"1,m\n", "/rows", "unclosed_quote"},
    };
    (void)state;
    struct bp_table *t = table_of(csv, NULL);
    struct bp_transform *x = plan_fine(t, "{\"target\":\"y\",\"features\":[\"age\",\"sex\"]}", "classification");
    fit_rows(x, t, 5, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] + sizeof texts / sizeof texts[0]; i++) {
        bool is_json = i < sizeof cases / sizeof cases[0];
        size_t k = is_json ? i : i - sizeof cases / sizeof cases[0];
        const char *text = is_json ? cases[k].rows : texts[k].text;
        struct bp_problems problems;
        struct bp_error err;
        uint8_t *bytes;
        int n;
        bp_problems_init(&problems);
        json_t *rows = is_json ? json_loads(text, 0, NULL) : NULL;
        bp_status status = is_json ? bp_transform_rows(x, rows, &problems, &bytes, &n, &err)
                                   : bp_transform_rows_csv(x, text, strlen(text), &problems, &bytes, &n, &err);
        if (status != BP_INVALID)
            fail_msg("%s gave status %d", text, (int)status);
        const json_t *first = json_array_get(problems.errors, 0);
        assert_string_equal(json_string_value(json_object_get(first, "code")),
                            is_json ? cases[k].code : texts[k].code);
        assert_string_equal(json_string_value(json_object_get(first, "pointer")),
                            is_json ? cases[k].pointer : texts[k].pointer);
        json_decref(rows);
        bp_problems_done(&problems);
    }
    /* what is known to the dataset and not needed is ignored; numbers may be strings */
    json_t *rows = json_loads("[{\"age\":\" 7 \",\"sex\":\"f\",\"y\":\"no\",\"note\":\"x\"},[null,\"m\"]]", 0, NULL);
    struct bp_problems problems;
    uint8_t *bytes;
    int n;
    bp_problems_init(&problems);
    assert_int_equal(bp_transform_rows(x, rows, &problems, &bytes, &n, NULL), BP_OK);
    assert_int_equal(n, 2);
    free(bytes);
    json_decref(rows);
    bp_transform_free(x);
    bp_table_close(t);
}

/* A model of one table meets another: some of its levels are fine, others are not. */
static void other_tables(void **state)
{
    (void)state;
    struct bp_table *t = table_of("c,k,y\na,1,u\nb,2,v\nd,3,w\na,1,u\nb,2,v\nd,3,w\n", NULL);
    struct bp_table *some = table_of("y,k,c\nw,3,d\nu,1,a\nw,3,d\nu,1,a\n", NULL);
    struct bp_table *more = table_of("c,k,y\nz,1,u\na,2,u\nz,1,v\na,2,v\n", NULL);
    struct bp_transform *x =
        plan_fine(t, "{\"target\":\"y\",\"columns\":{\"k\":{\"type\":\"category\"}}}", "classification");
    struct bp_source source;
    float got[6];
    int32_t classes[4];
    fit_rows(x, t, 6, false);
    gather(x, some, 0, got);
    assert_memory_equal(got, ((float[]){0, 0, 1, 0, 0, 1}), sizeof got);
    gather(x, some, 1, got);
    assert_memory_equal(got, ((float[]){1, 0, 0, 1, 0, 0}), sizeof got);
    assert_int_equal(bp_transform_classes(x, some, classes, NULL), BP_OK);
    assert_memory_equal(classes, ((int32_t[]){2, 0, 2, 0}), sizeof classes);
    struct bp_error err;
    assert_int_equal(bp_transform_source(x, more, &source, &err), BP_MISMATCH);
    assert_non_null(strstr(err.message, "'z'"));
    bp_transform_free(x);
    bp_table_close(t);
    bp_table_close(some);
    bp_table_close(more);
}

static void images(void **state)
{
    (void)state;
    uint8_t inputs[16 + 12] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 51, 102, 153, 204, 255};
    uint8_t targets[10] = {0, 0, 8, 1, 0, 0, 0, 2, 4, 9};
    struct upload u[2] = {put_bytes(inputs, sizeof inputs), put_bytes(targets, sizeof targets)};
    struct bp_import_part parts[2] = {part_of(&u[0], "inputs"), part_of(&u[1], "targets")};
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_table *t;
    assert_int_equal(bp_import(&options, parts, 2, &result, NULL), BP_OK);
    assert_int_equal(bp_table_open(data_dir, result.table, result.description, &t, NULL), BP_OK);
    struct bp_transform *x = plan_fine(t, "{\"target\":\"target\"}", "classification");
    fit_rows(x, t, 2, false);
    struct bp_shape shape = bp_transform_shape(x);
    assert_true(shape.rank == 3 && shape.dim[0] == 1 && shape.dim[1] == 2 && shape.dim[2] == 3);
    assert_true(bp_transform_target(x, 0)->labels_are_numbers);
    assert_int_equal(json_integer_value(json_array_get(bp_transform_target(x, 0)->labels, 1)), 9);
    float got[6], expected[6] = {0, 0.2f, 0.4f, 0.6f, 0.8f, 1};
    gather(x, t, 0, got);
    for (int i = 0; i < 6; i++)
        assert_true(fabsf(got[i] - expected[i]) < 1e-7f);

    static const char *const forms[] = {"[[0,51,102,153,204,255]]", "[[[0,51,102],[153,204,255]]]",
                                        "[[[[0,51,102],[153,204,255]]]]",
                                        "[{\"inputs\":[[0,51,102],[153,204,255]]}]"};
    for (size_t i = 0; i < 4; i++) {
        struct bp_problems problems;
        struct bp_source source;
        uint8_t *bytes;
        int n;
        float x0[6];
        json_t *rows = json_loads(forms[i], 0, NULL);
        bp_problems_init(&problems);
        assert_int_equal(bp_transform_rows(x, rows, &problems, &bytes, &n, NULL), BP_OK);
        assert_int_equal(bp_transform_rows_source(x, bytes, n, &source, NULL), BP_OK);
        bp_source_gather(&source, (uint32_t[]){0}, 1, x0);
        assert_memory_equal(x0, got, sizeof got);
        bp_transform_source_done(&source);
        free(bytes);
        json_decref(rows);
    }
    bp_transform_free(x);
    x = plan_fine(t, "{\"target\":\"target\",\"input_shape\":[3,2],\"scale\":\"standard\"}", "classification");
    assert_int_equal(bp_transform_shape(x).rank, 2);
    bp_transform_free(through_json(x));
    bp_transform_free(x);
    free(result.description);
    bp_table_close(t);
}

/* Plain bytes are scaled by their range, and have no missing values that a median could fill. */
static void plain_bytes(void **state)
{
    (void)state;
    uint8_t inputs[10] = {0, 0, 8, 1, 0, 0, 0, 2, 51, 255}, targets[10] = {0, 0, 8, 1, 0, 0, 0, 2, 1, 0};
    struct upload u[2] = {put_bytes(inputs, sizeof inputs), put_bytes(targets, sizeof targets)};
    struct bp_import_part parts[2] = {part_of(&u[0], "inputs"), part_of(&u[1], "targets")};
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_table *t;
    float got;
    assert_int_equal(bp_import(&options, parts, 2, &result, NULL), BP_OK);
    assert_int_equal(bp_table_open(data_dir, result.table, result.description, &t, NULL), BP_OK);
    struct bp_transform *x =
        plan_fine(t, "{\"target\":\"target\",\"columns\":{\"inputs\":{\"missing\":\"median\"}}}", "classification");
    fit_rows(x, t, 2, false);
    gather(x, t, 0, &got);
    assert_true(got == 0.2f);
    bp_transform_free(x);
    free(result.description);
    bp_table_close(t);
}

/* Damaged JSON is refused and never trusted. */
static void parse_faults(void **state)
{
    (void)state;
    struct bp_table *t = table_of(csv, NULL);
    struct bp_transform *x = plan_fine(t, "{\"target\":\"y\"}", "classification"), *back = NULL;
    fit_rows(x, t, 5, false);
    json_t *json = bp_transform_json(x);
    char *text = json_dumps(json, 0);
    size_t n = strlen(text);
    uint32_t seed = 1;
    for (int i = 0; i < 3000; i++) {
        char *copy = strdup(text);
        for (int k = 0; k < 3; k++) {
            seed = seed * 1664525u + 1013904223u;
            copy[seed % n] = "0129-{}[]\",:ae."[(seed >> 20) % 15];
        }
        json_t *bad = json_loads(copy, 0, NULL);
        if (bad && bp_transform_parse(bad, &back, NULL) == BP_OK)
            bp_transform_free(back);
        json_decref(bad);
        free(copy);
    }
    json_object_set_new(json, "version", json_integer(99));
    assert_int_equal(bp_transform_parse(json, &back, NULL), BP_MISMATCH);
    json_decref(json);
    free(text);
    bp_transform_free(x);
    bp_table_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plans_and_fits), cmocka_unit_test(fills_and_drops),
                                       cmocka_unit_test(plan_faults),    cmocka_unit_test(rows_from_outside),
                                       cmocka_unit_test(row_faults),     cmocka_unit_test(other_tables),
                                       cmocka_unit_test(images),         cmocka_unit_test(plain_bytes),
                                       cmocka_unit_test(parse_faults)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
