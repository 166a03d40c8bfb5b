/* worked_numbers.c: the numbers of a worked case: parameters and rows (see worked.h).
 *
 * Parameters and rows that a request brings stay doubles; those of a seed, a checkpoint or a table are the floats that
 * training sees, widened.
 *
 * Threads: on a data thread.
 */
#include "api/worked_internal.h"

#include "train/initialize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_DEFAULT 32 /* rows taken where none are named */

static bool out_of_memory(struct bp_reply *reply)
{
    bp_problem(reply, 503, "out_of_memory", "no memory for the numbers of the network");
    return false;
}

/* --- parameters --------------------------------------------------------------------------------------------------------- */

static void widen(double *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (double)from[i];
}

static bool take_model(struct bp_reply *reply, struct bp_worked *w, const struct bp_model *model)
{
    w->params = malloc((model->nparams + 1) * sizeof *w->params);
    w->stats = malloc((model->nstats + 1) * sizeof *w->stats);
    if (!w->params || !w->stats)
        return out_of_memory(reply);
    widen(w->params, model->params, model->nparams);
    widen(w->stats, model->stats, model->nstats);
    return true;
}

/* The numbers of a nested array in their order; how many there are, or SIZE_MAX where something else is among them. */
static size_t flatten(const json_t *value, double *to, size_t room)
{
    size_t n = 0, i;
    json_t *element;
    if (json_is_number(value)) {
        if (room > 0)
            *to = json_number_value(value);
        return 1;
    }
    if (!json_is_array(value))
        return SIZE_MAX;
    json_array_foreach(value, i, element) {
        size_t more = n < room ? flatten(element, to + n, room - n) : flatten(element, NULL, 0);
        if (more == SIZE_MAX)
            return SIZE_MAX;
        n += more;
    }
    return n;
}

static const struct bp_tensor *find_tensor(const struct bp_graph *graph, const char *name)
{
    for (int t = 0; t < graph->ntensors; t++)
        if (strcmp(graph->tensors[t].name, name) == 0)
            return &graph->tensors[t];
    return NULL;
}

static bool no_tensor(struct bp_reply *reply, const struct bp_graph *graph, const char *pointer, const char *name)
{
    const char **names = calloc((size_t)graph->ntensors + 1, sizeof *names);
    json_t *allowed = json_array();
    for (int t = 0; names && t < graph->ntensors; t++) {
        names[t] = graph->tensors[t].name;
        json_array_append_new(allowed, json_string(names[t]));
    }
    bp_problem(reply, 422, "invalid", "there is no parameter %.80s in this network", name);
    bp_problem_at(reply, pointer, "unknown_field", names ? bp_nearest(name, names, (size_t)graph->ntensors) : NULL,
                  allowed, "is no tensor of the network");
    free(names);
    return false;
}

/* What "parameters" says, tensor by tensor. */
static bool set_parameters(struct bp_reply *reply, struct bp_worked *w, const json_t *parameters)
{
    const char *name;
    json_t *value;
    if (parameters && !json_is_object(parameters)) {
        bp_problem(reply, 422, "invalid_type", "parameters is an object: the name of a tensor, and its numbers");
        return false;
    }
    json_object_foreach((json_t *)parameters, name, value) {
        char pointer[200] = "/parameters", shape[64];
        const struct bp_tensor *tensor = find_tensor(w->graph, name);
        bp_pointer_append(pointer, sizeof pointer, name);
        if (!tensor)
            return no_tensor(reply, w->graph, pointer, name);
        size_t n = flatten(value, (tensor->statistic ? w->stats : w->params) + tensor->offset, tensor->count);
        if (n == tensor->count)
            continue;
        bp_problem(reply, 422, "invalid", "%s takes %zu numbers, in the shape %s", name, tensor->count,
                   bp_shape_print(&tensor->shape, shape, sizeof shape));
        if (n == SIZE_MAX)
            bp_problem_at(reply, pointer, "wrong_type", NULL, NULL, "must be numbers, nested or not");
        else
            bp_problem_at(reply, pointer, "shape_mismatch", NULL, NULL, "has %zu numbers, and takes %zu", n,
                          tensor->count);
        return false;
    }
    return true;
}

/* The literal numbers of the layers, which the engine keeps as floats, as they were written. */
static void set_literals(struct bp_worked *w)
{
    static const char *const members[][2] = {{"weights", "weight"}, {"biases", "bias"}};
    json_t *layers = json_object_get(json_object_get(w->spec, "model"), "layers"), *layer;
    size_t i;
    json_array_foreach(layers, i, layer) {
        for (size_t m = 0; m < sizeof members / sizeof *members; m++) {
            const json_t *value = json_object_get(layer, members[m][0]);
            char name[BP_NAME_MAX + 32];
            snprintf(name, sizeof name, "%.*s.%s", BP_NAME_MAX, json_string_value(json_object_get(layer, "name")),
                     members[m][1]);
            const struct bp_tensor *tensor = find_tensor(w->graph, name);
            if (json_is_array(value) && tensor && flatten(value, NULL, 0) == tensor->count)
                flatten(value, w->params + tensor->offset, tensor->count);
        }
    }
}

bool bp_worked_initialize(struct bp_reply *reply, struct bp_worked *w, const json_t *parameters)
{
    struct bp_model *model = NULL;
    struct bp_error err;
    bool ok = false;
    bp_status status = bp_model_new(w->graph, false, 0, &model, &err);
    if (!status)
        status = bp_initialize(model, w->config->seed, &err);
    if (status)
        bp_problem_error(reply, &err);
    else
        ok = take_model(reply, w, model);
    bp_model_free(model);
    if (!ok)
        return false;
    set_literals(w);
    return set_parameters(reply, w, parameters);
}

bool bp_worked_trained(struct bp_reply *reply, struct bp_worked *w, const json_t *parameters)
{
    return take_model(reply, w, w->predictor->model) && set_parameters(reply, w, parameters);
}

/* --- rows ---------------------------------------------------------------------------------------------------------------- */

/* Room for the input and the targets of w->rows rows. */
static bool make_room(struct bp_reply *reply, struct bp_worked *w)
{
    size_t rows = (size_t)w->rows, elements = (size_t)bp_shape_elements(&w->graph->nodes[0].shape);
    if (rows > BP_INLINE_ROWS_MAX || elements > BP_INLINE_NUMBERS_MAX / rows) {
        bp_problem(reply, 413, "too_many_rows", "at most %d rows and %d numbers in all", BP_INLINE_ROWS_MAX,
                   BP_INLINE_NUMBERS_MAX);
        bp_problem_member(reply, "limit", json_integer(BP_INLINE_ROWS_MAX));
        return false;
    }
    w->input = malloc(rows * elements * sizeof *w->input);
    w->target = calloc((size_t)w->graph->nheads, sizeof *w->target);
    if (!w->input || !w->target)
        return out_of_memory(reply);
    for (int h = 0; h < w->graph->nheads; h++) {
        const struct bp_head *head = &w->graph->heads[h];
        w->target[h].scale = 1;
        if (bp_loss_takes_labels(head->loss))
            w->target[h].label = calloc(rows, sizeof *w->target[h].label);
        else
            w->target[h].value = calloc(rows * (size_t)head->outputs, sizeof *w->target[h].value);
        if (!w->target[h].label && !w->target[h].value)
            return out_of_memory(reply);
    }
    return true;
}

bool bp_worked_inline(struct bp_reply *reply, struct bp_worked *w, const struct bp_inline_rows *rows)
{
    w->rows = rows->n;
    if (!make_room(reply, w))
        return false;
    memcpy(w->input, rows->input,
           (size_t)rows->n * (size_t)bp_shape_elements(&w->graph->nodes[0].shape) * sizeof *w->input);
    size_t n = (size_t)rows->n * (size_t)rows->outputs;
    int32_t *label = (int32_t *)w->target[0].label;
    if (label)
        for (size_t i = 0; i < n; i++)
            label[i] = (int32_t)rows->target[i];
    else
        memcpy((double *)w->target[0].value, rows->target, n * sizeof *rows->target);
    return true;
}

/* The numbers of the rows asked for, or the first usable ones: *ret malloc'd. */
static bool choose_rows(struct bp_reply *reply, const struct bp_table *table, const uint8_t *exclude,
                        const json_t *numbers, uint32_t **ret, int *ret_n)
{
    size_t n = numbers ? json_array_size(numbers) : ROWS_DEFAULT;
    uint32_t *rows = malloc((n + 1) * sizeof *rows);
    int count = 0;
    if (!rows)
        return out_of_memory(reply);
    for (uint64_t i = 0; !numbers && i < table->nrows && (size_t)count < n; i++)
        if (!exclude[i])
            rows[count++] = (uint32_t)i;
    for (size_t i = 0; numbers && i < n; i++) {
        const json_t *value = json_array_get(numbers, i);
        json_int_t row = json_is_integer(value) ? json_integer_value(value) : -1;
        if (row >= 0 && (uint64_t)row < table->nrows && !exclude[row]) {
            rows[count++] = (uint32_t)row;
            continue;
        }
        char pointer[40];
        snprintf(pointer, sizeof pointer, "/rows/%zu", i);
        bool whole = json_is_integer(value);
        bp_problem(reply, 422, "invalid_rows", "rows are numbers of rows of the dataset, from 0 to %llu%s",
                   (unsigned long long)(table->nrows - 1),
                   whole ? "" : "; rows of your own are \"inputs\" and \"targets\" beside \"layers\"");
        bp_problem_at(reply, pointer, whole ? "out_of_range" : "wrong_type", NULL, NULL, "%s",
                      whole ? "is no row to learn from: there is none, it has no target, or no window ends with it"
                            : "must be the number of a row");
        free(rows);
        return false;
    }
    if (count == 0) {
        bp_problem(reply, 422, "no_rows", "there are no rows to work on: rows is a list of row numbers, from 0");
        free(rows);
        return false;
    }
    *ret = rows;
    *ret_n = count;
    return true;
}

/* Sample and class weights, as training has them. */
static bool gather_weights(struct bp_reply *reply, struct bp_worked *w, const struct bp_source *source,
                           const uint32_t *rows)
{
    for (int h = 0; h < w->graph->nheads; h++) {
        float *weight = malloc((size_t)w->rows * sizeof *weight);
        if (!weight)
            return out_of_memory(reply);
        bp_source_gather_weights(source, h, rows, w->rows, weight);
        w->target[h].weight = weight;
    }
    return true;
}

static bool gather_targets(struct bp_reply *reply, struct bp_worked *w, const struct bp_source *source,
                           const uint32_t *rows, float *scratch)
{
    for (int h = 0; h < w->graph->nheads; h++) {
        const struct bp_head *head = &w->graph->heads[h];
        size_t n = (size_t)w->rows * (size_t)head->outputs;
        if (w->target[h].label) {
            int32_t *label = (int32_t *)w->target[h].label;
            bp_source_gather_labels(source, h, rows, w->rows, label);
            for (int r = 0; r < w->rows; r++)
                if (label[r] < 0) {
                    bp_problem(reply, 422, "unusable_target", "row %u has no class that the network knows", rows[r]);
                    return false;
                }
            continue;
        }
        bp_source_gather_values(source, h, rows, w->rows, scratch);
        widen((double *)w->target[h].value, scratch, n);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(scratch[i])) {
                bp_problem(reply, 422, "unusable_target", "row %u has no target", rows[i / (size_t)head->outputs]);
                return false;
            }
    }
    return true;
}

/* Floats that the gather of any part needs at most. */
static size_t widest(const struct bp_worked *w)
{
    size_t widest = (size_t)bp_shape_elements(&w->graph->nodes[0].shape);
    for (int h = 0; h < w->graph->nheads; h++)
        widest = (size_t)w->graph->heads[h].outputs > widest ? (size_t)w->graph->heads[h].outputs : widest;
    return widest * (size_t)w->rows;
}

static bp_status fit_transform(const struct bp_worked *w, const struct bp_table *table,
                               struct bp_transform *transform, struct bp_error *err)
{
    struct bp_split split;
    bp_status status = bp_plan_split(&w->plan, transform, table, &split, err);
    if (status)
        return status;
    status = bp_transform_fit(transform, table, &split, w->plan.standardize_target, err);
    bp_split_done(&split);
    return status;
}

bool bp_worked_gather(struct bp_reply *reply, struct bp_worked *w, const struct bp_table *table,
                      struct bp_transform *transform, const json_t *numbers, bool fit)
{
    struct bp_error err;
    struct bp_source source = {.rows = NULL};
    uint64_t excluded;
    uint32_t *rows = NULL;
    float *scratch = NULL;
    bool ok = false;
    if (numbers && !json_is_array(numbers)) {
        bp_problem(reply, 422, "invalid_rows", "rows is a list of row numbers of the dataset, such as [0, 7, 12]");
        return false;
    }
    uint8_t *exclude = calloc(table->nrows + 1, 1);
    if (!exclude)
        return out_of_memory(reply);
    bp_status status = fit ? fit_transform(w, table, transform, &err) : BP_OK;
    if (!status)
        status = bp_transform_exclude(transform, table, exclude, &excluded, &err);
    if (!status)
        status = bp_transform_source(transform, table, &source, &err);
    if (status) {
        bp_problem_error(reply, &err);
        goto out;
    }
    if (!choose_rows(reply, table, exclude, numbers, &rows, &w->rows) || !make_room(reply, w))
        goto out_source;
    scratch = malloc(widest(w) * sizeof *scratch);
    if (!scratch) {
        out_of_memory(reply);
        goto out_source;
    }
    bp_source_gather(&source, rows, w->rows, scratch);
    widen(w->input, scratch, (size_t)w->rows * (size_t)bp_shape_elements(&w->graph->nodes[0].shape));
    for (int h = 0; h < w->graph->nheads; h++)
        w->target[h].scale = bp_transform_target(transform, h)->scale;
    ok = gather_targets(reply, w, &source, rows, scratch) && gather_weights(reply, w, &source, rows);
out_source:
    bp_transform_source_done(&source);
out:
    free(scratch);
    free(rows);
    free(exclude);
    return ok;
}
