/* evaluate.c: POST /v1/jobs/{id}/evaluate: how good a job's weights are on some rows.
 *
 *   {"dataset": "mnist", "split": "test"}; both may be left out
 *
 * The dataset is the job's own unless another is named. Of its own, the rows of train, validation, test or all are
 * those of the job's split, which is made again and compared with its stored fingerprint. Another dataset must have
 * the columns that the model reads; no row of it was trained on, so it has only `all`, and `test` where it came with a
 * test split. Rows without a usable target are left out and counted in `excluded`.
 *
 * Threads: on a data thread; one pass over the table's pages, batch by batch, given up when the server stops.
 */
#include "api/api.h"
#include "api/choice.h"
#include "api/common.h"
#include "config.h"
#include "jobs/predictor.h"
#include "json_text.h"
#include "train/scores.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFUSION_MAX 256 /* classes: a larger matrix is left out of the reply */

enum part { PART_TRAIN = BP_TRAIN, PART_VALIDATION = BP_VALIDATION, PART_TEST = BP_TEST, PART_ALL, PART_COUNT };
static const char *const part_names[PART_COUNT] = {"train", "validation", "test", "all"};

/* Counts of one head: actual class by predicted class. */
struct confusion {
    const struct bp_head *head;
    int head_index;
    int classes; /* 0: not kept */
    int64_t *counts;
};

struct evaluation {
    struct bp_app *app;
    const struct bp_request *request;
    struct bp_choice choice;
    struct bp_predictor *predictor;
    struct bp_table *table;
    char dataset[BP_DATASET_NAME];
    bool own; /* the version that the job was trained on */
    int part; /* enum part; -1: not said */
    uint32_t *rows;
    uint64_t nrows, excluded;
    struct bp_accumulator *accumulators; /* one a head */
    struct bp_scores **scores;           /* one a head */
    struct confusion *confusions;        /* one a head */
};

/* --- what is asked for ---------------------------------------------------------------------------------------------- */

static bool parse_part(struct bp_reply *reply, const json_t *value, int *ret)
{
    for (int i = 0; i < PART_COUNT; i++)
        if (json_is_string(value) && !strcmp(json_string_value(value), part_names[i])) {
            *ret = i;
            return true;
        }
    bp_problem(reply, 422, "invalid_split", "split must be train, validation, test or all");
    bp_problem_at(reply, "/split", "invalid_value", NULL,
                  json_pack("[s, s, s, s]", "train", "validation", "test", "all"), "is not the name of a split");
    return false;
}

/* Reads the body into dataset and part; false after a reply. */
static bool parse_body(struct bp_request *request, struct bp_reply *reply, struct evaluation *e)
{
    size_t size;
    e->part = -1;
    bp_request_body(request, &size);
    if (size == 0)
        return true;
    json_t *body = bp_request_json(request, reply, BP_JSON_OBJECT);
    if (!body)
        return false;
    bool ok = true;
    const char *key;
    json_t *value;
    json_object_foreach(body, key, value) {
        if (!ok)
            break;
        if (!strcmp(key, "split")) {
            ok = parse_part(reply, value, &e->part);
        } else if (!strcmp(key, "dataset") && json_is_string(value) &&
                   json_string_length(value) < sizeof e->dataset) {
            memcpy(e->dataset, json_string_value(value), json_string_length(value) + 1);
        } else {
            char pointer[128] = "";
            bool dataset = !strcmp(key, "dataset");
            bp_pointer_append(pointer, sizeof pointer, key);
            bp_problem(reply, 422, dataset ? "invalid_dataset" : "unknown_field",
                       "the body names a dataset and a split, and nothing else");
            bp_problem_at(reply, pointer, dataset ? "wrong_type" : "unknown_field", NULL,
                          json_pack("[s, s]", "dataset", "split"),
                          dataset ? "dataset must be the name of a dataset" : "there is no such field here");
            ok = false;
        }
    }
    json_decref(body);
    return ok;
}

/* --- the table and its rows ------------------------------------------------------------------------------------------ */

struct find_version {
    const char *table;
    struct bp_dataset_row *row;
};

static bp_status find_version(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct find_version *f = arg;
    return bp_db_dataset_version(db, f->table, f->row, err);
}

/* Opens the table asked for; false after a reply. */
static bool open_table(struct bp_reply *reply, struct evaluation *e)
{
    struct bp_dataset_row row = {.description = NULL};
    struct bp_error err;
    bp_status status;
    if (e->dataset[0] && !bp_api_dataset_row(e->app, e->dataset, reply, &row))
        return false;
    e->own = !e->dataset[0] || !strcmp(row.table, e->choice.row.table);
    if (!e->dataset[0]) {
        struct find_version f = {e->choice.row.table, &row};
        memcpy(e->dataset, e->choice.row.dataset, sizeof e->dataset);
        status = bp_store_read(e->app->store, find_version, &f, &err);
        if (status) {
            bp_problem_error(reply, &err);
            return false;
        }
    }
    status = bp_table_open(e->app->config->data_dir, row.table, row.description, &e->table, &err);
    bp_dataset_row_done(&row);
    if (status)
        bp_problem_error(reply, &err);
    return !status;
}

/* The rows of a part of the job's own split, ascending. */
static bp_status own_rows(struct evaluation *e, struct bp_error *err)
{
    const struct bp_network *network = &e->predictor->network;
    struct bp_split split;
    bp_status status = bp_plan_split(&network->plan, network->transform, e->table, &split, err);
    if (status)
        return status;
    if (e->choice.row.has_split && (int64_t)bp_split_fingerprint(&split) != e->choice.row.split_fingerprint) {
        bp_split_done(&split);
        return bp_fail(err, BP_INTERNAL, "the split of the job cannot be made again");
    }
    if (e->part < 0)
        e->part = split.count[BP_TEST] ? PART_TEST : PART_VALIDATION;
    uint64_t used = split.count[0] + split.count[1] + split.count[2];
    uint8_t *chosen = calloc(e->table->nrows + 1, 1);
    e->rows = malloc((size_t)(used + 1) * sizeof *e->rows);
    if (!chosen || !e->rows) {
        status = bp_fail(err, BP_NOMEM, "no memory for the rows to evaluate");
        goto out;
    }
    for (int p = 0; p < 3; p++)
        for (uint64_t i = 0; i < split.count[p] && (e->part == PART_ALL || e->part == p); i++)
            chosen[split.rows[p][i]] = 1;
    for (uint64_t i = 0; i < e->table->nrows; i++)
        if (chosen[i])
            e->rows[e->nrows++] = (uint32_t)i;
    e->excluded = e->part == PART_ALL ? e->table->nrows - used : 0;
out:
    free(chosen);
    bp_split_done(&split);
    return status;
}

/* The usable rows of another dataset. */
static bp_status other_rows(struct evaluation *e, struct bp_error *err)
{
    const struct bp_transform *transform = e->predictor->network.transform;
    uint64_t n = e->table->nrows, excluded;
    bool has_test = e->table->test_first < n;
    if (e->part < 0)
        e->part = has_test ? PART_TEST : PART_ALL;
    if (e->part == PART_TRAIN || e->part == PART_VALIDATION || (e->part == PART_TEST && !has_test))
        return bp_fail_at(err, BP_INVALID, "split",
                          "the job was not trained on this dataset: it has no %s rows; ask for "
                          "all",
                          part_names[e->part]);
    bool classes = bp_transform_target(transform, 0)->is_class;
    int32_t *class_of = classes ? malloc((size_t)(n + 1) * sizeof *class_of) : NULL;
    uint8_t *exclude = calloc(n + 1, 1);
    e->rows = malloc((size_t)(n + 1) * sizeof *e->rows);
    bp_status status = exclude && e->rows && (class_of || !classes)
                           ? bp_transform_exclude(transform, e->table, exclude, &excluded, err)
                           : bp_fail(err, BP_NOMEM, "no memory for the rows to evaluate");
    if (!status && classes)
        status = bp_transform_classes(transform, e->table, class_of, err);
    for (uint64_t i = e->part == PART_TEST ? e->table->test_first : 0; i < n && !status; i++) {
        if (exclude[i] || (classes && class_of[i] < 0)) /* no target, or a class that the model does not know */
            e->excluded++;
        else
            e->rows[e->nrows++] = (uint32_t)i;
    }
    free(exclude);
    free(class_of);
    return status;
}

static bool choose_rows(struct bp_reply *reply, struct evaluation *e)
{
    struct bp_error err;
    bp_status status = e->own ? own_rows(e, &err) : other_rows(e, &err);
    if (status == BP_INVALID && !strcmp(err.where, "split")) {
        bp_problem(reply, 422, "no_such_split", "%s", err.message);
        bp_problem_at(reply, "/split", "no_such_split", "all", NULL, "%s", err.message);
    } else if (status) {
        bp_problem_error(reply, &err);
    } else if (e->nrows == 0) {
        bp_problem(reply, 422, "no_rows",
                   "there are no %s rows with a target to evaluate on; split can be train, "
                   "validation, test or all",
                   part_names[e->part]);
    } else {
        return true;
    }
    return false;
}

/* --- the pass over the rows ------------------------------------------------------------------------------------------ */

static int largest(const float *y, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (y[i] > y[best])
            best = i;
    return best;
}

static bool count_confusion(void *ctx, struct bp_exec *exec, const uint32_t *rows, int n)
{
    struct evaluation *e = ctx;
    (void)rows;
    for (int h = 0; h < e->predictor->network.plan.graph->nheads; h++) {
        bp_scores_add(e->scores[h], exec, h, n);
        struct confusion *c = &e->confusions[h];
        const struct bp_targets *targets = bp_exec_targets(exec, c->head_index);
        const float *y = bp_exec_output(exec, c->head_index);
        bool logits = bp_loss_takes_labels(c->head->loss);
        for (int r = 0; r < n && c->classes; r++, y += c->head->outputs) {
            int actual = logits ? targets->label[r] : targets->value[r] >= 0.5f;
            int predicted = logits ? largest(y, c->classes) : y[0] > 0;
            c->counts[(size_t)actual * (size_t)c->classes + (size_t)predicted]++;
        }
    }
    return !bp_request_cancelled(e->request);
}

static bp_status make_confusions(struct evaluation *e, struct bp_error *err)
{
    const struct bp_graph *graph = e->predictor->network.plan.graph;
    e->confusions = calloc((size_t)graph->nheads + 1, sizeof *e->confusions);
    e->accumulators = calloc((size_t)graph->nheads + 1, sizeof *e->accumulators);
    e->scores = calloc((size_t)graph->nheads + 1, sizeof *e->scores);
    if (!e->confusions || !e->accumulators || !e->scores)
        return bp_fail(err, BP_NOMEM, "no memory for the evaluation");
    for (int h = 0; h < graph->nheads; h++) {
        struct confusion *c = &e->confusions[h];
        c->head = &graph->heads[h];
        c->head_index = h;
        bp_accumulator_reset(&e->accumulators[h]);
        int columns = bp_scores_columns(c->head), k = e->predictor->network.plan.config.top_k;
        bool ranked = columns > 0 && e->nrows <= (uint64_t)BP_AUC_SCORES_MAX / (uint64_t)columns;
        bp_status status = bp_scores_new(c->head, ~0u, k > 0 ? k : 5, ranked ? e->nrows : 0, &e->scores[h], err);
        if (status)
            return status;
        if (bp_loss_takes_labels(c->head->loss) && c->head->outputs <= CONFUSION_MAX)
            c->classes = c->head->outputs;
        else if ((c->head->loss == BP_LOSS_BCE || c->head->loss == BP_LOSS_HINGE) && c->head->outputs == 1)
            c->classes = 2;
        c->counts = calloc((size_t)c->classes * (size_t)c->classes + 1, sizeof *c->counts);
        if (!c->counts)
            return bp_fail(err, BP_NOMEM, "no memory for the confusion matrix");
    }
    return BP_OK;
}

/* A row whose target cannot be used ends the pass; a loss that is not finite is no result. */
static bool check_result(struct bp_reply *reply, const struct evaluation *e)
{
    for (int h = 0; h < e->predictor->network.plan.graph->nheads; h++) {
        if (e->accumulators[h].rows < (double)e->nrows) {
            bp_problem(reply, 422, "unusable_target", "a row of %s has a target that the model cannot be judged by",
                       e->dataset);
            return false;
        }
        if (!isfinite(bp_accumulator_value(&e->accumulators[h], BP_METRIC_LOSS))) {
            bp_problem(reply, 422, "nonfinite_prediction",
                       "the loss is not a finite number: the values of a row are too "
                       "large for the model");
            return false;
        }
    }
    return true;
}

static bool run(struct bp_reply *reply, struct evaluation *e)
{
    struct bp_error err;
    struct bp_source source;
    struct bp_exec *exec;
    const struct bp_network *network = &e->predictor->network;
    bp_status status = make_confusions(e, &err);
    if (!status)
        status = bp_transform_source(network->transform, e->table, &source, &err);
    if (status) {
        bp_problem_error(reply, &err);
        return false;
    }
    status = bp_predictor_bench(e->app->predictors, e->predictor, &exec, &err);
    if (!status) {
        bp_evaluate(exec, e->predictor->batch, NULL, network->plan.graph, &source, e->rows, e->nrows, e->accumulators,
                    count_confusion, e);
        bp_predictor_bench_put(e->app->predictors, e->predictor, exec);
        if (bp_request_cancelled(e->request))
            status = bp_fail(&err, BP_STOPPED, "the evaluation was stopped");
    }
    bp_transform_source_done(&source);
    if (status)
        bp_problem_error(reply, &err);
    return !status && check_result(reply, e);
}

/* --- the reply ------------------------------------------------------------------------------------------------------- */

/* {"labels":[…], "counts":[[…]]}: a row an actual class, a column a predicted one. null where it is not kept. */
static json_t *confusion_json(const struct confusion *c, const struct bp_transform_target *target)
{
    if (!c->classes)
        return json_null();
    json_t *counts = json_array();
    for (int i = 0; i < c->classes; i++) {
        json_t *row = json_array();
        for (int j = 0; j < c->classes; j++)
            json_array_append_new(row, json_integer((json_int_t)c->counts[i * c->classes + j]));
        json_array_append_new(counts, row);
    }
    bool labelled = target->is_class && json_array_size(target->labels) == (size_t)c->classes;
    json_t *labels = labelled ? json_incref(target->labels) : json_pack("[i, i]", 0, 1);
    return json_pack("{s:o, s:o}", "labels", labels, "counts", counts);
}

/* All metrics that make sense for a head, each under its name as the series have it: accuracy, or accuracy_target. */
static void add_metrics(json_t *metrics, const struct evaluation *e, int h)
{
    const struct bp_network *network = &e->predictor->network;
    const struct bp_graph *graph = network->plan.graph;
    for (int m = BP_METRIC_LOSS + 1; m < BP_METRIC_COUNT; m++) {
        if (!bp_metric_applies((enum bp_metric)m, graph->heads[h].loss))
            continue;
        char name[BP_NAME_MAX + 64];
        const char *label = graph->heads[h].label; /* "" where there is one head */
        double value = bp_metric_is_score((enum bp_metric)m)
                           ? bp_scores_value(e->scores[h], (enum bp_metric)m)
                           : bp_accumulator_value(&e->accumulators[h], (enum bp_metric)m);
        snprintf(name, sizeof name, "%s%s%s", bp_metric_name((enum bp_metric)m), *label ? "_" : "", label);
        if (!bp_metric_is_score((enum bp_metric)m) || !isnan(value)) /* too many rows for auc, or one class only */
            json_object_set_new(metrics, name, bp_json_number(value));
    }
}

static void reply_result(struct bp_reply *reply, const struct evaluation *e)
{
    const struct bp_network *network = &e->predictor->network;
    const struct bp_graph *graph = network->plan.graph;
    json_t *metrics = json_object(), *confusion = NULL;
    double loss = 0;
    for (int h = 0; h < graph->nheads; h++) {
        const struct bp_transform_target *target = bp_transform_target(network->transform, h);
        loss += graph->heads[h].weight * bp_accumulator_value(&e->accumulators[h], BP_METRIC_LOSS);
        add_metrics(metrics, e, h);
        json_t *one = confusion_json(&e->confusions[h], target);
        if (graph->nheads == 1) {
            confusion = one;
        } else {
            confusion = confusion ? confusion : json_object();
            json_object_set_new(confusion, target->name, one);
        }
    }
    json_t *result =
        json_pack("{s:s, s:s, s:s, s:b, s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "object", "evaluation", "job",
                  e->predictor->job, "checkpoint", e->predictor->checkpoint, "best", e->predictor->best, "dataset",
                  e->dataset, "split", part_names[e->part], "rows", (json_int_t)e->nrows, "excluded",
                  (json_int_t)e->excluded, "loss", bp_json_number(loss), "metrics", metrics, "confusion", confusion);
    bp_reply_json(reply, 200, result);
}

void bp_api_evaluate(struct bp_request *request, struct bp_reply *reply, void *app)
{
    struct bp_error err;
    struct evaluation e = {.app = app, .request = request};
    if (!parse_body(request, reply, &e) || !bp_api_choose(request, reply, e.app, &e.choice))
        return;
    if (bp_predictors_get(e.app->predictors, &e.choice, &e.predictor, &err)) {
        bp_api_stored_error(reply, &e.choice, &err);
        bp_choice_done(&e.choice);
        return;
    }
    if (open_table(reply, &e) && choose_rows(reply, &e) && run(reply, &e))
        reply_result(reply, &e);
    for (int h = 0; e.confusions && h < e.predictor->network.plan.graph->nheads; h++)
        free(e.confusions[h].counts);
    for (int h = 0; e.scores && h < e.predictor->network.plan.graph->nheads; h++)
        bp_scores_free(e.scores[h]);
    free(e.scores);
    free(e.confusions);
    free(e.accumulators);
    free(e.rows);
    bp_table_close(e.table);
    bp_predictors_put(e.app->predictors, e.predictor);
    bp_choice_done(&e.choice);
}
