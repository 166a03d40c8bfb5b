/* inline_rows.c: rows that come with a request (see inline_rows.h).
 *
 * Threads: pure functions of their arguments.
 */
#include "jobs/inline_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { INPUTS, TARGETS, COLUMNS };
static const char *const column_names[COLUMNS] = {"inputs", "targets"};

/* --- reading numbers -------------------------------------------------------------------------------------------------- */

/* The shape of a nested array by its first elements; rank -1 where it is nested too deep or empty. */
static struct bp_shape nested_shape(const json_t *value)
{
    struct bp_shape shape = {.rank = 0};
    while (json_is_array(value)) {
        if (shape.rank == BP_RANK_MAX || json_array_size(value) == 0)
            return (struct bp_shape){.rank = -1};
        shape.dim[shape.rank++] = (int64_t)json_array_size(value);
        value = json_array_get(value, 0);
    }
    return shape;
}

struct reading {
    struct bp_problems *problems;
    const char *what; /* "inputs" */
    size_t row;
    const struct bp_shape *shape; /* that every row has */
    double *to;
    size_t n;
};

static bool fault(struct reading *r, const char *code, const char *detail)
{
    char pointer[64], shape[64];
    snprintf(pointer, sizeof pointer, "/%s/%zu", r->what, r->row);
    bp_problems_add(r->problems, pointer, code, NULL, NULL, "%s; the first row has the shape %s", detail,
                    bp_shape_print(r->shape, shape, sizeof shape));
    return false;
}

/* Appends the numbers of one row in their order; false after a fault. Depth is at most BP_RANK_MAX. */
static bool read_numbers(struct reading *r, const json_t *value, int depth)
{
    if (depth == r->shape->rank) {
        double number = json_number_value(value);
        if (!json_is_number(value) || !isfinite(number))
            return fault(r, "wrong_type", "a row is made of finite numbers");
        r->to[r->n++] = number;
        return true;
    }
    if ((int64_t)json_array_size(value) != r->shape->dim[depth])
        return fault(r, "shape_mismatch", "all rows have the same shape");
    size_t i;
    json_t *element;
    json_array_foreach(value, i, element) {
        if (!read_numbers(r, element, depth + 1))
            return false;
    }
    return true;
}

static bool misfit(struct bp_problems *problems, const char *what, const char *code, const char *detail)
{
    char pointer[32];
    snprintf(pointer, sizeof pointer, "/%s", what);
    bp_problems_add(problems, pointer, code, NULL, NULL, "%s", detail);
    return false;
}

/* All rows of `inputs` or `targets`; false after a fault, or with *ret NULL without memory. */
static bool read_rows(const json_t *rows, const char *what, struct bp_problems *problems, struct bp_shape *ret_shape,
                      double **ret)
{
    size_t n = json_array_size(rows), r;
    json_t *row;
    *ret_shape = nested_shape(json_array_get(rows, 0));
    if (n == 0)
        return misfit(problems, what, "required",
                      "is a list with one entry a row, such as [[0.05, 0.10], [0.9, 0.2]]");
    if (n > BP_INLINE_ROWS_MAX)
        return misfit(problems, what, "too_large", "has more than 4096 rows: upload a dataset instead");
    if (ret_shape->rank < 0)
        return misfit(problems, what, "wrong_type", "has a first row that is empty, or nested more than 4 deep");
    size_t elements = 1;
    for (int i = 0; i < ret_shape->rank && elements <= BP_INLINE_NUMBERS_MAX; i++)
        elements *=
            (size_t)ret_shape->dim[i]; /* each at most what a JSON text can hold: no overflow before the end */
    if (elements > BP_INLINE_NUMBERS_MAX / n)
        return misfit(problems, what, "too_large", "has more than 1000000 numbers: upload a dataset instead");
    *ret = malloc(n * elements * sizeof **ret);
    struct reading reading = {.problems = problems, .what = what, .shape = ret_shape, .to = *ret};
    json_array_foreach(rows, r, row) {
        reading.row = r;
        if (*ret == NULL || !read_numbers(&reading, row, 0))
            return false;
    }
    return true;
}

/* Whether every target is one whole number from 0 on: it may be a class, or a value that happens to be whole. */
static void find_classes(struct bp_inline_rows *rows, const json_t *targets)
{
    size_t i;
    json_t *target;
    rows->classes = true;
    rows->nclasses = 2;
    json_array_foreach(targets, i, target) {
        json_int_t value = json_integer_value(target);
        if (!json_is_integer(target) || value < 0 || value >= BP_DISTINCT_MAX)
            rows->classes = false;
        else if (value >= rows->nclasses)
            rows->nclasses = (int)value + 1;
    }
}

bp_status bp_inline_rows_parse(const json_t *inputs, const json_t *targets, struct bp_problems *problems,
                               struct bp_inline_rows *ret, struct bp_error *err)
{
    struct bp_inline_rows rows = {.n = (int)json_array_size(inputs)};
    struct bp_shape target = {.rank = 0};
    bool read = read_rows(inputs, "inputs", problems, &rows.shape, &rows.input);
    read &= read_rows(targets, "targets", problems, &target, &rows.target);
    if (read && rows.shape.rank == 0)
        read = misfit(problems, "inputs", "wrong_type", "has plain numbers: each row is a list, also of one number");
    if (read && target.rank > 1)
        read = misfit(problems, "targets", "wrong_type", "is nested: the target of a row is a number or a list");
    if (read && json_array_size(targets) != json_array_size(inputs))
        read = misfit(problems, "targets", "shape_mismatch", "has not as many rows as inputs");
    if (!read) {
        bp_inline_rows_done(&rows);
        return bp_problems_any(problems) ? bp_fail(err, BP_INVALID, "the rows have faults")
                                         : bp_fail(err, BP_NOMEM, "no memory for the rows");
    }
    rows.outputs = (int)bp_shape_elements(&target);
    find_classes(&rows, targets);
    *ret = rows;
    return BP_OK;
}

bp_status bp_inline_rows_blank(const json_t *shape, int outputs, bool classes, struct bp_problems *problems,
                               struct bp_inline_rows *ret, struct bp_error *err)
{
    struct bp_inline_rows rows = {.n = 1,
                                  .shape = {.rank = (int)json_array_size(shape)},
                                  .outputs = classes ? 1 : outputs,
                                  .classes = classes,
                                  .nclasses = classes ? outputs : 2};
    bool fine = json_array_size(shape) >= 1 && json_array_size(shape) <= BP_RANK_MAX;
    int64_t elements = 1;
    for (int i = 0; fine && i < rows.shape.rank; i++) {
        rows.shape.dim[i] = json_integer_value(json_array_get(shape, (size_t)i));
        fine = rows.shape.dim[i] > 0 && !__builtin_mul_overflow(elements, rows.shape.dim[i], &elements) &&
               elements <= BP_INLINE_NUMBERS_MAX;
    }
    if (!fine) {
        misfit(problems, "input_shape", "out_of_range",
               "is a list of 1 to 4 extents of at least 1, such as [3, 8, 8], with at most 1000000 elements");
        return bp_fail(err, BP_INVALID, "the shape of the input has faults");
    }
    rows.input = calloc((size_t)elements, sizeof *rows.input);
    rows.target = calloc((size_t)rows.outputs, sizeof *rows.target);
    if (rows.input == NULL || rows.target == NULL) {
        bp_inline_rows_done(&rows);
        return bp_fail(err, BP_NOMEM, "no memory for the rows");
    }
    *ret = rows;
    return BP_OK;
}

void bp_inline_rows_done(struct bp_inline_rows *rows)
{
    free(rows->input);
    free(rows->target);
    rows->input = rows->target = NULL;
}

/* --- as a dataset ------------------------------------------------------------------------------------------------------ */

json_t *bp_inline_rows_dataset(const struct bp_inline_rows *rows)
{
    json_t *shape = json_array();
    for (int i = 0; i < rows->shape.rank; i++)
        json_array_append_new(shape, json_integer(rows->shape.dim[i]));
    return json_pack("{s:s, s:s, s:s, s:s, s:f, s:b, s:o}", "name", BP_INLINE_DATASET, "target",
                     column_names[TARGETS], "scale", "none", "target_scale", "none", "validation_split", 0.0,
                     "stratify", 0, "input_shape", shape);
}

/* Range and mean of one column, count numbers a row. */
static void measure(struct bp_table_column *column, const double *values, size_t n)
{
    column->min = INFINITY;
    column->max = -INFINITY;
    column->integral = true;
    for (size_t i = 0; i < n; i++) {
        column->min = values[i] < column->min ? values[i] : column->min;
        column->max = values[i] > column->max ? values[i] : column->max;
        column->mean += values[i] / (double)n;
        column->integral &= values[i] == floor(values[i]);
    }
}

static bool describe(struct bp_table *t, const struct bp_inline_rows *rows, int classes)
{
    size_t elements = (size_t)bp_shape_elements(&rows->shape);
    t->columns = calloc(COLUMNS, sizeof *t->columns);
    t->description = json_object();
    t->private_data = json_pack("{s:i, s:i}", column_names[INPUTS], INPUTS, column_names[TARGETS], TARGETS);
    if (t->columns == NULL || t->description == NULL || t->private_data == NULL)
        return false;
    t->ncolumns = COLUMNS;
    for (int c = 0; c < COLUMNS; c++)
        t->columns[c] = (struct bp_table_column){
            .name = column_names[c], .kind = BP_COLUMN_NUMBER, .type = BP_F64, .count = 1, .distinct = -1};
    struct bp_table_column *inputs = &t->columns[INPUTS], *targets = &t->columns[TARGETS];
    inputs->count = (int)elements;
    inputs->rank = 1;
    inputs->dim[0] = (int64_t)elements;
    targets->offset = elements * sizeof(double);
    targets->count = rows->outputs;
    targets->rank = rows->outputs > 1;
    targets->dim[0] = rows->outputs;
    measure(inputs, rows->input, (size_t)rows->n * elements);
    measure(targets, rows->target, (size_t)rows->n * (size_t)rows->outputs);
    if (!rows->classes)
        return true;
    classes = classes > rows->nclasses ? classes : rows->nclasses;
    classes = classes < BP_DISTINCT_MAX ? classes : BP_DISTINCT_MAX;
    double *values = malloc((size_t)classes * sizeof *values);
    if (values == NULL)
        return false;
    for (int i = 0; i < classes; i++)
        values[i] = i;
    targets->values = values;
    targets->nvalues = classes;
    targets->distinct = classes;
    return true;
}

bp_status bp_inline_rows_table(const struct bp_inline_rows *rows, int classes, struct bp_table **ret,
                               struct bp_error *err)
{
    size_t elements = (size_t)bp_shape_elements(&rows->shape), outputs = (size_t)rows->outputs;
    struct bp_table *t = calloc(1, sizeof *t);
    if (t == NULL || !describe(t, rows, classes))
        goto out;
    t->nrows = t->test_first = (uint64_t)rows->n;
    t->stride = (elements + outputs) * sizeof(double);
    memset(t->hash, '0', sizeof t->hash - 1);
    /* bp_table_close unmaps what it finds here */
    t->map_size = (size_t)rows->n * t->stride;
    t->map = mmap(NULL, t->map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (t->map == MAP_FAILED) {
        t->map = NULL;
        goto out;
    }
    for (int r = 0; r < rows->n; r++) {
        uint8_t *row = (uint8_t *)t->map + (size_t)r * t->stride;
        memcpy(row, rows->input + (size_t)r * elements, elements * sizeof(double));
        memcpy(row + elements * sizeof(double), rows->target + (size_t)r * outputs, outputs * sizeof(double));
    }
    t->rows = t->map;
    *ret = t;
    return BP_OK;
out:
    bp_table_close(t);
    return bp_fail(err, BP_NOMEM, "no memory for the rows");
}
