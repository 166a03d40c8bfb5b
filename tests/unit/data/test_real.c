/* Published datasets against figures computed elsewhere (csv and numpy of Python). The files are not part of the
 * sources: BACKPROPD_TEST_DATA names a directory that has them, and without it these tests are skipped. */
#include "data/help.h"

#include "data/transform.h"

static const char *real_data(void)
{
    const char *dir = getenv("BACKPROPD_TEST_DATA");
    if (!dir) {
        printf("SKIPPED: BACKPROPD_TEST_DATA does not name a directory with the published datasets\n");
        skip();
    }
    return dir;
}

static struct upload put_file(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", real_data(), name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is not there", path);
    fseek(f, 0, SEEK_END);
    size_t size = (size_t)ftell(f);
    uint8_t *bytes = malloc(size);
    rewind(f);
    assert_int_equal(fread(bytes, 1, size, f), size);
    fclose(f);
    struct upload u = put_bytes(bytes, size);
    free(bytes);
    return u;
}

static struct bp_table *import_files(const char *const *names, const char *const *roles, int n)
{
    struct upload uploads[5];
    struct bp_import_part parts[5];
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_error err;
    struct bp_table *t;
    for (int i = 0; i < n; i++) {
        uploads[i] = put_file(names[i]);
        parts[i] = part_of(&uploads[i], roles[i]);
    }
    if (bp_import(&options, parts, n, &result, &err) != BP_OK)
        fail_msg("[%s] %s", err.where, err.message);
    assert_int_equal(bp_table_open(data_dir, result.table, result.description, &t, &err), BP_OK);
    free(result.description);
    return t;
}

static struct bp_table *import_file(const char *name)
{
    return import_files(&name, (const char *const[]){"data"}, 1);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fabs(b);
}

static void titanic(void **state)
{
    (void)state;
    struct bp_table *t = import_file("titanic.csv");
    const struct bp_table_column *age = column(t, "Age"), *survived = column(t, "Survived");
    assert_int_equal(t->nrows, 891);
    assert_true(age->missing == 177 && age->distinct == 88 && near(age->mean, 29.699113025210085));
    assert_true(age->min == 0.4167 && age->max == 80);
    assert_true(survived->counts[0] == 549 && survived->counts[1] == 342);
    assert_true(near(column(t, "Fare")->mean, 32.204207968574636) && column(t, "Fare")->distinct == 248);
    assert_int_equal(column(t, "Name")->kind, BP_COLUMN_TEXT);
    assert_int_equal(column(t, "Cabin")->nlevels, 147);
    assert_int_equal(column(t, "Embarked")->missing, 2);

    /* standardized over all rows: mean and population deviation */
    struct bp_problems problems;
    struct bp_transform *x;
    struct bp_split split = {.count = {891}};
    uint32_t rows[891];
    split.rows[0] = rows;
    for (uint32_t i = 0; i < 891; i++)
        rows[i] = i;
    bp_problems_init(&problems);
    json_t *dataset = json_pack("{s:s, s:[s]}", "target", "Survived", "features", "Age");
    assert_int_equal(bp_transform_plan(t, dataset, "classification", &problems, &x, NULL), BP_OK);
    assert_int_equal(bp_transform_fit(x, t, &split, false, NULL), BP_OK);
    json_t *json = bp_transform_json(x);
    const json_t *feature = json_array_get(json_object_get(json, "features"), 0);
    assert_true(near(json_real_value(json_object_get(feature, "shift")), 29.699113025210085));
    assert_true(near(1 / json_real_value(json_object_get(feature, "scale")), 14.516330497900292));
    json_decref(json);
    json_decref(dataset);
    bp_transform_free(x);
    bp_table_close(t);
}

static void california_housing(void **state)
{
    (void)state;
    struct bp_table *t = import_file("california_housing.csv");
    const struct bp_table_column *bedrooms = column(t, "total_bedrooms"), *ocean = column(t, "ocean_proximity");
    static const int64_t counts[] = {9136, 6551, 5, 2290, 2658};
    assert_int_equal(t->nrows, 20640);
    assert_true(bedrooms->missing == 207 && bedrooms->max == 6445 && near(bedrooms->mean, 537.8705525375618));
    assert_true(near(column(t, "median_house_value")->mean, 206855.81690891474));
    assert_int_equal(ocean->nlevels, 5);
    assert_memory_equal(ocean->counts, counts, sizeof counts);
    bp_table_close(t);
}

static void mnist(void **state)
{
    static const char *const names[] = {"mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz",
                                        "mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"};
    static const char *const roles[] = {"inputs", "targets", "test_inputs", "test_targets"};
    (void)state;
    struct bp_table *t = import_files(names, roles, 4);
    const struct bp_table_column *inputs = column(t, "inputs"), *target = column(t, "target");
    assert_true(t->nrows == 70000 && t->test_first == 60000 && t->stride == 785);
    assert_true(inputs->count == 784 && inputs->dim[0] == 28 && near(inputs->mean, 33.39663221574344));
    assert_true(target->nvalues == 10 && target->counts[0] == 6903 && target->counts[9] == 6958);
    assert_true(number_at(t, 60000, "target") == 7); /* the first test digit */
    bp_table_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(titanic), cmocka_unit_test(california_housing),
                                       cmocka_unit_test(mnist)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
