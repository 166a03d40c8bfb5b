/* examples.c: GET /v1/jobs/{id}/examples?sort=-loss: the rows that the network finds hardest (sort=loss: easiest).
 *
 * One pass over the rows of a split of the job's own dataset, batch by batch; the rows asked for are kept in a heap of
 * `limit` entries, so memory does not grow with the rows. Each comes with its index in the dataset, the row as the
 * table holds it, what is true, what the network says, and the loss, in the target's own unit.
 *
 * Threads: on a data thread; given up when the server stops.
 */
#include "api/api.h"
#include "api/choice.h"
#include "api/common.h"
#include "api/outcome.h"
#include "config.h"
#include "json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_MAX 1000

struct example {
    double loss;
    uint32_t row;
};

struct examples {
    struct bp_app *app;
    const struct bp_request *request;
    struct bp_choice choice;
    struct bp_predictor *predictor;
    struct bp_table *table;
    struct bp_split split;
    struct bp_source source;
    bool has_split, has_source;
    int part;     /* BP_TRAIN … */
    bool easiest; /* sort=loss */
    int limit, n;
    struct example *heap; /* the one that would go next at [0]; sorted at the end */
    float *outputs;       /* (n, width) of the rows kept */
};

static const char *const part_names[] = {[BP_TRAIN] = "train", [BP_VALIDATION] = "validation", [BP_TEST] = "test"};

/* --- what is asked for ---------------------------------------------------------------------------------------------- */

static bool parse_query(struct bp_request *request, struct bp_reply *reply, struct examples *e)
{
    int64_t limit;
    const char *sort = bp_request_query(request, "sort"), *split = bp_request_query(request, "split");
    if (!bp_request_query_int(request, reply, "limit", 10, 1, LIMIT_MAX, &limit))
        return false;
    e->limit = (int)limit;
    if (sort && strcmp(sort, "-loss") != 0 && strcmp(sort, "loss") != 0) {
        bp_problem(reply, 400, "bad_query", "sort is -loss (the hardest rows first, the default) or loss");
        return false;
    }
    e->easiest = sort && strcmp(sort, "loss") == 0;
    e->part = -1;
    for (int p = 0; split && p < 3; p++)
        if (!strcmp(split, part_names[p]))
            e->part = p;
    if (!split || e->part >= 0)
        return true;
    bp_problem(reply, 400, "bad_query", "split is train, validation or test");
    return false;
}

/* --- the rows ------------------------------------------------------------------------------------------------------- */

struct find_version {
    const char *table;
    struct bp_dataset_row *row;
};

static bp_status find_version(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct find_version *f = arg;
    return bp_db_dataset_version(db, f->table, f->row, err);
}

static bp_status open_rows(struct examples *e, struct bp_error *err)
{
    const struct bp_network *network = &e->predictor->network;
    struct bp_dataset_row row = {.description = NULL};
    struct find_version f = {e->choice.row.table, &row};
    bp_status status = bp_store_read(e->app->store, find_version, &f, err);
    if (!status)
        status = bp_table_open(e->app->config->data_dir, row.table, row.description, &e->table, err);
    bp_dataset_row_done(&row);
    if (!status)
        status = bp_plan_split(&network->plan, network->transform, e->table, &e->split, err);
    e->has_split = !status;
    if (!status && e->choice.row.has_split &&
        (int64_t)bp_split_fingerprint(&e->split) != e->choice.row.split_fingerprint)
        status = bp_fail(err, BP_INTERNAL, "the split of the job cannot be made again");
    if (!status)
        status = bp_transform_source(network->transform, e->table, &e->source, err);
    e->has_source = e->has_split && !status;
    if (e->part < 0)
        e->part = e->has_split && e->split.count[BP_VALIDATION] ? BP_VALIDATION : BP_TRAIN;
    return status;
}

/* --- the heap ------------------------------------------------------------------------------------------------------- */

/* How much an example is wanted: what is not a number is the hardest of all. */
static double worth(const struct examples *e, const struct example *x)
{
    double loss = isnan(x->loss) ? INFINITY : x->loss;
    return e->easiest ? -loss : loss;
}

/* Whether a is to be kept rather than b: of equals, the earlier row. */
static bool better(const struct examples *e, const struct example *a, const struct example *b)
{
    double x = worth(e, a), y = worth(e, b);
    return x != y ? x > y : a->row < b->row;
}

/* Puts x into the place i from which everything above is in order: the worst kept one stays at the top. */
static void sink(struct examples *e, int n, int i, struct example x)
{
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(e, &e->heap[child], &e->heap[child + 1]))
            child++;
        if (better(e, &e->heap[child], &x))
            break;
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = x;
}

static void offer(struct examples *e, struct example x)
{
    if (e->n == e->limit) {
        if (better(e, &x, &e->heap[0]))
            sink(e, e->n, 0, x);
        return;
    }
    int i = e->n++;
    for (int up; i > 0 && better(e, &e->heap[up = (i - 1) / 2], &x); i = up)
        e->heap[i] = e->heap[up];
    e->heap[i] = x;
}

/* Best first. */
static void sort_heap(struct examples *e)
{
    for (int n = e->n - 1; n > 0; n--) {
        struct example worst = e->heap[0], last = e->heap[n];
        sink(e, n, 0, last);
        e->heap[n] = worst;
    }
}

/* --- the pass ------------------------------------------------------------------------------------------------------- */

static bool visit(void *ctx, struct bp_exec *exec, const uint32_t *rows, int n)
{
    struct examples *e = ctx;
    const struct bp_graph *graph = e->predictor->network.plan.graph;
    for (int r = 0; r < n; r++) {
        struct example x = {.row = rows[r]};
        for (int h = 0; h < graph->nheads; h++) {
            const struct bp_transform_target *target = bp_transform_target(e->predictor->network.transform, h);
            x.loss += graph->heads[h].weight * (double)bp_exec_row_losses(exec, h)[r] *
                      bp_outcome_unit(&graph->heads[h], target);
        }
        offer(e, x);
    }
    return !bp_request_cancelled(e->request);
}

/* Index of the row before one in its window. */
static uint32_t row_before(const struct bp_source *source, uint32_t row)
{
    return source->previous ? source->previous[row] : row - 1;
}

/* Outputs of the rows that were kept, through a source of copies of them: whole windows where a sample is one. */
static bp_status predict_kept(struct examples *e, struct bp_error *err)
{
    size_t stride = e->source.stride, steps = e->source.steps > 0 ? (size_t)e->source.steps : 1;
    struct bp_source kept = e->source;
    uint8_t *rows = malloc((size_t)e->n * steps * stride + 1);
    e->outputs = malloc((size_t)e->n * (size_t)bp_predictor_width(e->predictor) * sizeof *e->outputs + 1);
    bp_status status = rows && e->outputs ? BP_OK : bp_fail(err, BP_NOMEM, "no memory for the examples");
    for (int i = 0; !status && i < e->n; i++) {
        uint32_t row = e->heap[i].row; /* the last one of its window */
        for (size_t s = steps; s-- > 0;) {
            memcpy(rows + ((size_t)i * steps + s) * stride, e->source.rows + row * stride, stride);
            row = s > 0 ? row_before(&e->source, row) : row;
        }
    }
    kept.rows = rows;
    kept.nrows = (uint64_t)e->n * steps;
    kept.previous = NULL;
    kept.apart = true;
    if (!status)
        status = bp_predictor_run(e->app->predictors, e->predictor, &kept, e->n, e->outputs, err);
    free(rows);
    return status;
}

static bp_status run(struct examples *e, struct bp_error *err)
{
    const struct bp_graph *graph = e->predictor->network.plan.graph;
    struct bp_exec *exec = NULL;
    struct bp_accumulator *accs = calloc((size_t)graph->nheads + 1, sizeof *accs);
    e->heap = malloc((size_t)e->limit * sizeof *e->heap);
    bp_status status = accs && e->heap ? BP_OK : bp_fail(err, BP_NOMEM, "no memory for %d examples", e->limit);
    if (!status)
        status = bp_predictor_bench(e->app->predictors, e->predictor, &exec, err);
    if (!status) {
        bp_evaluate(exec, e->predictor->batch, NULL, graph, &e->source, e->split.rows[e->part],
                    e->split.count[e->part], accs, visit, e);
        bp_predictor_bench_put(e->app->predictors, e->predictor, exec);
        sort_heap(e);
        status = bp_request_cancelled(e->request) ? bp_fail(err, BP_STOPPED, "the search was stopped")
                                                  : predict_kept(e, err);
    }
    free(accs);
    return status;
}

/* --- the reply ------------------------------------------------------------------------------------------------------ */

/* What is true and what the network says of row i of those kept, each by the target's name where there are several. */
static void add_outcomes(const struct examples *e, int i, json_t *entry)
{
    const struct bp_graph *graph = e->predictor->network.plan.graph;
    const float *y = e->outputs + (size_t)i * (size_t)bp_predictor_width(e->predictor);
    json_t *targets = json_object(), *predictions = json_object();
    uint32_t row = e->heap[i].row;
    for (int h = 0; h < graph->nheads; y += graph->heads[h].outputs, h++) {
        const struct bp_head *head = &graph->heads[h];
        const struct bp_transform_target *target = bp_transform_target(e->predictor->network.transform, h);
        int32_t label = 0;
        float *value = calloc((size_t)head->outputs, sizeof *value);
        if (bp_loss_takes_labels(head->loss))
            bp_source_gather_labels(&e->source, h, &row, 1, &label);
        else if (value)
            bp_source_gather_values(&e->source, h, &row, 1, value);
        json_object_set_new(targets, target->name, value ? bp_outcome_target(head, target, label, value) : NULL);
        json_object_set_new(predictions, target->name, bp_outcome_json(head, target, y));
        free(value);
    }
    bool one = graph->nheads == 1;
    const char *name = bp_transform_target(e->predictor->network.transform, 0)->name;
    json_object_set(entry, "target", one ? json_object_get(targets, name) : targets);
    json_object_set(entry, "prediction", one ? json_object_get(predictions, name) : predictions);
    json_decref(targets);
    json_decref(predictions);
}

/* The row as the table holds it; a window's rows in their order. */
static json_t *sample_json(const struct examples *e, uint32_t row)
{
    if (e->source.steps == 0)
        return bp_table_row_json(e->table, row);
    json_t *rows = json_array();
    for (int s = 0; rows && s < e->source.steps; s++) {
        json_array_insert_new(rows, 0, bp_table_row_json(e->table, row));
        row = s + 1 < e->source.steps ? row_before(&e->source, row) : row;
    }
    return rows;
}

static void reply_examples(struct bp_reply *reply, const struct examples *e)
{
    json_t *data = json_array();
    for (int i = 0; i < e->n; i++) {
        json_t *entry =
            json_pack("{sI so}", "index", (json_int_t)e->heap[i].row, "loss", bp_json_number(e->heap[i].loss));
        add_outcomes(e, i, entry);
        json_object_set_new(entry, "row", sample_json(e, e->heap[i].row));
        json_array_append_new(data, entry);
    }
    bp_reply_json(reply, 200,
                  json_pack("{ss ss ss sb ss ss sI so}", "object", "list", "job", e->predictor->job, "checkpoint",
                            e->predictor->checkpoint, "best", (int)e->predictor->best, "split", part_names[e->part],
                            "sort", e->easiest ? "loss" : "-loss", "rows", (json_int_t)e->split.count[e->part],
                            "data", data));
}

void bp_api_examples(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct examples e = {.app = arg, .request = request};
    struct bp_error err;
    if (!parse_query(request, reply, &e) || !bp_api_choose(request, reply, e.app, &e.choice))
        return;
    if (bp_predictors_get(e.app->predictors, &e.choice, &e.predictor, &err)) {
        bp_api_stored_error(reply, &e.choice, &err);
        bp_choice_done(&e.choice);
        return;
    }
    bp_status status = open_rows(&e, &err);
    if (!status && e.split.count[e.part] == 0)
        bp_problem(reply, 422, "no_rows", "there are no %s rows in this job", part_names[e.part]);
    else if (!status && !(status = run(&e, &err)))
        reply_examples(reply, &e);
    if (status == BP_NONFINITE)
        bp_problem(reply, 422, "nonfinite_prediction", "a row's values are too large for the model");
    else if (status)
        bp_problem_error(reply, &err);
    if (e.has_source)
        bp_transform_source_done(&e.source);
    if (e.has_split)
        bp_split_done(&e.split);
    free(e.heap);
    free(e.outputs);
    bp_table_close(e.table);
    bp_predictors_put(e.app->predictors, e.predictor);
    bp_choice_done(&e.choice);
}
