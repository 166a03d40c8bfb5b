/* What a column of a CSV is found to be: kinds, types, levels and figures, also where the file changes its mind late. */
#include "data/help.h"

/* A number column with a text late in it is a category of all its values, and the first text is named. */
static void mixed_columns(void **state)
{
    (void)state;
    char csv[4096] = "age\n";
    for (int i = 0; i < 40; i++)
        sprintf(csv + strlen(csv), "%d\n", i % 10);
    strcat(csv, "abc\n");
    struct bp_table *t = table_of(csv, NULL);
    const struct bp_table_column *c = column(t, "age");
    assert_int_equal(c->kind, BP_COLUMN_CATEGORY);
    assert_int_equal(c->nlevels, 11);
    assert_string_equal(c->levels[0], "0");
    assert_int_equal(c->counts[0], 4);
    assert_true(number_at(t, 40, "age") == 10);
    json_t *warning = json_array_get(json_object_get(t->description, "warnings"), 0);
    assert_string_equal(json_string_value(json_object_get(warning, "detail")),
                        "line 42, column 1 'age': 'abc' is not a number, so the column is read as a category");
    bp_table_close(t);
}

static void many_values(void **state)
{
    (void)state;
    char *csv = malloc(100000);
    strcpy(csv, "x,y,z\n");
    size_t used = strlen(csv);
    for (int i = 0; i < 2002; i++)
        used += (size_t)sprintf(csv + used, "%d,%d,k%d\n", i % 1001, i % 1000, i % 1000);
    struct bp_table *t = table_of(csv, NULL);
    assert_int_equal(column(t, "x")->distinct, -1);
    assert_null(column(t, "x")->values);
    assert_int_equal(column(t, "y")->distinct, 1000);
    assert_int_equal(column(t, "y")->nvalues, 1000);
    assert_int_equal(column(t, "z")->nlevels, 1000);
    for (int i = 0; i < 1000; i++)
        assert_true(column(t, "y")->values[i] == i && column(t, "y")->counts[i] == (i < 2 ? 3 : 2));
    bp_table_close(t);
    free(csv);
}

/* Small integers are counted aside: the figures and the rows must be those of the values one by one, also where a fraction,
 * a gap or a text comes late. */
static void small_integers(void **state)
{
    enum { ROWS = 9000, LATE = 7000 };
    static const char *const names[] = {"pixel", "zero", "fraction", "gap", "large"};
    static double v[5][ROWS];
    char *csv = malloc(ROWS * 48);
    size_t used = (size_t)sprintf(csv, "pixel,zero,fraction,gap,large,late\n");
    (void)state;
    for (int i = 0; i < ROWS; i++) {
        v[0][i] = i * 7919 % 256;
        v[1][i] = 0;
        v[2][i] = i < LATE ? i % 9 : i * 0.1;
        v[3][i] = i == LATE ? NAN : i % 255;
        v[4][i] = i % 1000;
        used += (size_t)sprintf(csv + used, "%03.0f,0,%.17g,", v[0][i], v[2][i]);
        used += (size_t)sprintf(csv + used, i == LATE ? "NA," : "%.0f,", v[3][i]);
        used += (size_t)sprintf(csv + used, i == LATE ? "%.0f,x\n" : "%.0f,%d\n", v[4][i], i % 5);
    }
    struct bp_table *t = table_of(csv, NULL);
    for (int k = 0; k < 5; k++) {
        const struct bp_table_column *c = column(t, names[k]);
        double sum = 0, n = 0, counted = 0;
        for (int i = 0; i < ROWS; i++) {
            double at = number_at(t, (uint64_t)i, names[k]);
            assert_true(isnan(v[k][i]) ? isnan(at) : at == v[k][i]);
            sum += isnan(v[k][i]) ? 0 : v[k][i];
            n += !isnan(v[k][i]);
        }
        assert_true(c->mean == sum / n && c->min == 0 && c->missing == ROWS - (int64_t)n);
        assert_int_equal(c->nvalues, ((int[]){256, 1, 0, 255, 1000})[k]);
        for (int i = 0; i < c->nvalues; i++)
            counted += (double)c->counts[i];
        assert_true(c->nvalues == 0 || counted == n);
    }
    const struct bp_table_column *late = column(t, "late");
    assert_int_equal(late->nlevels, 6);
    assert_int_equal(late->counts[0], ROWS / 5 - 1);
    bp_table_close(t);
    free(csv);
}

/* A file of 6000 rows whose first thousands say little of the last: row 5000 has `cells` instead of "7,7,red". */
static struct bp_table *late(const char *cells, struct bp_import_result *ret)
{
    char *csv = malloc(200000);
    size_t n = (size_t)sprintf(csv, "a,b,c\n");
    for (int i = 0; i < 6000; i++)
        n += (size_t)sprintf(csv + n, "%s\n", i == 5000 ? cells : i % 2 ? "7,7,red" : "8,9,green");
    struct bp_table *t = table_of(csv, ret);
    free(csv);
    return t;
}

/* What contradicts the layout that the first rows suggest, and what does not. */
static void late_surprises(void **state)
{
    (void)state;
    static const struct {
        const char *cells;
        enum bp_column_kind kind_a;
        enum bp_column_type type_b;
        int levels;
        double a, b, c; /* of row 5000 */
    } cases[] = {
        {"7,7,red", BP_COLUMN_NUMBER, BP_F32, 2, 7, 7, 1},
        {"7,0.1,red", BP_COLUMN_NUMBER, BP_F64, 2, 7, 0.1, 1},
        {"7,7,blue", BP_COLUMN_NUMBER, BP_F32, 3, 7, 7, 0},
        {"late,7,red", BP_COLUMN_CATEGORY, BP_F32, 2, 2, 7, 1},
        {"7,16777217,?", BP_COLUMN_NUMBER, BP_F64, 2, 7, 16777217, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bp_import_result result;
        struct bp_table *t = late(cases[i].cells, &result);
        assert_int_equal(t->nrows, 6000);
        assert_int_equal(column(t, "a")->kind, cases[i].kind_a);
        assert_int_equal(column(t, "b")->type, cases[i].type_b);
        assert_int_equal(column(t, "c")->nlevels, cases[i].levels);
        assert_true(number_at(t, 5000, "a") == cases[i].a && number_at(t, 5000, "b") == cases[i].b &&
                    number_at(t, 5000, "c") == cases[i].c);
        bool text = cases[i].kind_a == BP_COLUMN_CATEGORY; /* levels "7", "8", "late" */
        double last = cases[i].levels - 1;                 /* of "red" */
        assert_true(number_at(t, 1, "a") == (text ? 0 : 7) && number_at(t, 1, "c") == last);
        assert_true(number_at(t, 5999, "a") == (text ? 0 : 7) && number_at(t, 5998, "c") == last - 1);
        bp_table_close(t);
        free(result.description);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mixed_columns), cmocka_unit_test(many_values),
                                       cmocka_unit_test(small_integers), cmocka_unit_test(late_surprises)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
