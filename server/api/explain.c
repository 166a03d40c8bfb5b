/* explain.c: POST /v1/jobs/{id}/explain: credit assignment for one row.
 *
 *   {"row": {"column": value, …}, "target": what is true}
 *
 * One forward and one backward pass give the loss of the row, the error signal (dL/d value) of every layer and unit, and
 * the gradient of the loss by each input column, in the column's own unit by the chain rule through its scaling. The
 * target may also stand in the row. Without any, a network that names classes is asked why it answers as it does: the
 * loss then is that of the predicted class.
 *
 * The nudge test shows that the gradient is no fiction: each number column is changed a little, and the change of the
 * loss that the gradient predicts stands beside the actual one.
 *
 * Losses and gradients are in the target's own unit where there is one target, as trained where there are several.
 *
 * Threads: on the pool; the arithmetic runs on that thread alone.
 */
#include "api/api.h"
#include "api/choice.h"
#include "api/common.h"
#include "api/outcome.h"
#include "jobs/explainer.h"
#include "json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNITS_ALL 32 /* units of a layer that are all listed; of more, the UNITS_TOP with the largest signal */
#define UNITS_TOP 10
#define NUDGE 0.01      /* of a column after scaling: a hundredth of a deviation */
#define NUDGES_MAX 1024 /* columns that are nudged */

struct explanation {
    struct bp_app *app;
    struct bp_predictor *predictor;
    struct bp_explainer explainer;
    const json_t *row, *target;
    uint8_t *bytes; /* the row as a table would hold it */
    struct bp_source source;
    bool has_source;
    const struct bp_graph *graph;
    float *outputs; /* of the prediction */
    float *x;       /* the row as the network sees it: inputs numbers */
    bool assumed;   /* the target is the predicted class */
    double unit;    /* factor from the loss of the pass to the one that is reported */
    double loss;    /* of the pass */
};

/* --- reading the request ------------------------------------------------------------------------------------------- */

static bool parse_body(struct bp_reply *reply, const json_t *body, struct explanation *e)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)body, key, value) {
        if (!strcmp(key, "row")) {
            e->row = value;
        } else if (!strcmp(key, "target")) {
            e->target = value;
        } else {
            char pointer[128] = "";
            bp_pointer_append(pointer, sizeof pointer, key);
            bp_problem(reply, 422, "unknown_field", "the body has a row and may have a target, and nothing else");
            bp_problem_at(reply, pointer, "unknown_field", NULL, json_pack("[ss]", "row", "target"),
                          "there is no such field here");
            return false;
        }
    }
    if (json_is_object(e->row) || json_is_array(e->row))
        return true;
    bp_problem(reply, 422, "invalid_rows", "row must be one row: {\"row\": {\"column\": value, …}}");
    bp_problem_at(reply, "/row", e->row ? "wrong_type" : "required", NULL, NULL,
                  "a row is an object by column name, or an array");
    return false;
}

static bool encode_row(struct bp_reply *reply, struct explanation *e)
{
    const struct bp_transform *transform = e->explainer.network.transform;
    struct bp_problems problems;
    struct bp_error err;
    int n;
    json_t *rows = json_pack("[O]", e->row);
    bp_problems_init(&problems);
    bp_status status = bp_transform_rows(transform, rows, &problems, &e->bytes, &n, &err);
    json_decref(rows);
    if (!status && n != 1)
        status = bp_fail(&err, BP_INVALID, "row must be one row, or one window: here are %d", n);
    if (!status)
        status = bp_transform_rows_source(transform, e->bytes, 1, &e->source, &err);
    e->has_source = !status;
    if (status == BP_INVALID && bp_problems_any(&problems))
        bp_api_faults(reply, "invalid_rows", "the row does not fit the model", &problems);
    else if (status)
        bp_problem_error(reply, &err);
    bp_problems_done(&problems);
    return !status;
}

/* The target of a head as the client gave it, in the body or in the row: new reference; NULL: not at all. */
static json_t *given_target(const struct explanation *e, const struct bp_transform_target *target)
{
    if (e->target)
        return json_incref(e->graph->nheads == 1 ? (json_t *)e->target : json_object_get(e->target, target->name));
    if (target->ncolumns == 0)
        return json_incref(json_object_get(e->row, target->name));
    json_t *values = json_array(); /* one output a column */
    for (int i = 0; i < target->ncolumns; i++)
        if (json_array_append(values, json_object_get(e->row, target->columns[i])) != 0) {
            json_decref(values);
            return NULL;
        }
    return values;
}

static int largest(const float *y, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = y[i] > y[best] ? i : best;
    return best;
}

static bool take_target(struct bp_reply *reply, const struct explanation *e, int h, const json_t *given)
{
    const struct bp_head *head = &e->graph->heads[h];
    const struct bp_transform_target *target = bp_transform_target(e->explainer.network.transform, h);
    const struct bp_targets *to = bp_exec_targets(e->explainer.exec, h);
    json_t *allowed = NULL;
    int32_t unused_label;
    float unused_value;
    if (bp_outcome_parse(head, target, given, to->label ? to->label : &unused_label,
                         to->value ? to->value : &unused_value, &allowed))
        return true;
    bp_problem(reply, 422, "invalid_target", "the target does not fit \"%s\"", target->name);
    bp_problem_at(reply, e->target ? "/target" : "/row", "invalid_value", NULL, allowed, "\"%s\" must be %s",
                  target->name,
                  bp_loss_takes_labels(head->loss) ? "one of its classes" : "what the network has to learn: numbers");
    return false;
}

static bool settle_target(struct bp_reply *reply, struct explanation *e, int h, const float *y)
{
    const struct bp_head *head = &e->graph->heads[h];
    const struct bp_transform_target *target = bp_transform_target(e->explainer.network.transform, h);
    const struct bp_targets *to = bp_exec_targets(e->explainer.exec, h);
    if (target->inputs) { /* an autoencoder: what goes in should come out */
        memcpy(to->value, e->x, (size_t)head->outputs * sizeof *to->value);
        return true;
    }
    json_t *given = given_target(e, target);
    if (given) {
        bool fits = take_target(reply, e, h, given);
        json_decref(given);
        return fits;
    }
    e->assumed = true;
    if (to->label) {
        to->label[0] = largest(y, head->outputs);
        return true;
    }
    if (head->loss == BP_LOSS_BCE) {
        for (int i = 0; i < head->outputs; i++)
            to->value[i] = y[i] >= 0.5f;
        return true;
    }
    bp_problem(reply, 422, "target_required",
               "\"%s\" is a number: without its true value there is no loss to explain; add \"target\"",
               target->name);
    bp_problem_at(reply, "/target", "required", NULL, NULL, "the true value of \"%s\"", target->name);
    return false;
}

/* --- the passes ---------------------------------------------------------------------------------------------------- */

static bool run(struct bp_reply *reply, struct explanation *e)
{
    struct bp_error err;
    uint32_t row = 0;
    int width = bp_predictor_width(e->predictor), inputs = e->source.inputs;
    e->outputs = malloc((size_t)width * sizeof *e->outputs);
    e->x = malloc((size_t)inputs * sizeof *e->x);
    bp_status status = e->outputs && e->x ? BP_OK : bp_fail(&err, BP_NOMEM, "no memory for the explanation");
    if (!status)
        status = bp_predictor_run(e->app->predictors, e->predictor, &e->source, 1, e->outputs, &err);
    if (status == BP_NONFINITE)
        bp_problem(reply, 422, "nonfinite_prediction", "the values of the row are too large for the model");
    else if (status)
        bp_problem_error(reply, &err);
    if (status)
        return false;
    bp_source_gather(&e->source, &row, 1, e->x);
    const float *y = e->outputs;
    for (int h = 0; h < e->graph->nheads; y += e->graph->heads[h].outputs, h++)
        if (!settle_target(reply, e, h, y))
            return false;
    memcpy(bp_exec_input(e->explainer.exec), e->x, (size_t)inputs * sizeof *e->x);
    e->loss = bp_exec_pass(e->explainer.exec, NULL, 1, true, 0, 0);
    e->unit = e->graph->nheads == 1
                  ? bp_outcome_unit(&e->graph->heads[0], bp_transform_target(e->explainer.network.transform, 0))
                  : 1.0;
    if (isfinite(e->loss))
        return true;
    bp_problem(reply, 422, "nonfinite_prediction", "the loss of the row is not a finite number");
    return false;
}

/* --- layers and units ----------------------------------------------------------------------------------------------- */

/* Indices of the k largest |v| of n, largest first; returns how many. */
static int find_top(const float *v, int64_t n, int64_t *ret, int k)
{
    int kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (kept == k && !(fabsf(v[i]) > fabsf(v[ret[k - 1]])))
            continue;
        int at = kept < k ? kept++ : k - 1;
        for (; at > 0 && fabsf(v[i]) > fabsf(v[ret[at - 1]]); at--)
            ret[at] = ret[at - 1];
        ret[at] = i;
    }
    return kept;
}

static double norm_of(const float *v, int64_t n, double unit)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sqrt(sum) * unit;
}

static json_t *unit_json(int64_t i, const float *value, const float *delta, double unit)
{
    return json_pack("{sI so so}", "unit", (json_int_t)i, "value", value ? bp_json_float(value[i]) : json_null(),
                     "delta", bp_json_number((double)delta[i] * unit));
}

/* NULL for a node whose value the loss does not depend on. */
static json_t *layer_json(const struct explanation *e, int index)
{
    const struct bp_node *node = &e->graph->nodes[index];
    const float *value = bp_exec_value(e->explainer.exec, index);
    const float *delta = bp_exec_gradient(e->explainer.exec, index);
    int64_t n = bp_shape_elements(&node->shape), top[UNITS_TOP];
    if (!delta)
        return NULL;
    json_t *units = json_array();
    if (n <= UNITS_ALL)
        for (int64_t i = 0; i < n; i++)
            json_array_append_new(units, unit_json(i, value, delta, e->unit));
    else
        for (int k = 0, kept = find_top(delta, n, top, UNITS_TOP); k < kept; k++)
            json_array_append_new(units, unit_json(top[k], value, delta, e->unit));
    return json_pack("{ss ss sI so so}", "name", node->name, "type", bp_op_name(node->kind), "units_count",
                     (json_int_t)n, "delta_norm", bp_json_number(norm_of(delta, n, e->unit)), "units", units);
}

static json_t *layers_json(const struct explanation *e)
{
    json_t *layers = json_array();
    for (int i = e->graph->nnodes - 1; i > 0; i--) { /* as the error signal travels: from the loss to the input */
        json_t *layer = layer_json(e, i);
        if (layer)
            json_array_append_new(layers, layer);
    }
    return layers;
}

/* --- columns -------------------------------------------------------------------------------------------------------- */

/* Value i of a number column of the row, NaN where it is missing. Rows from outside hold doubles. */
static double raw_value(const struct explanation *e, const struct bp_feature *f, int i)
{
    double v;
    memcpy(&v, e->bytes + f->offset + (size_t)i * sizeof v, sizeof v);
    return v;
}

static json_t *number_json(const struct explanation *e, const struct bp_feature *f, const float *g)
{
    double v = raw_value(e, f, 0), slope = (double)g[0] * e->unit * f->scale;
    bool missing = isnan(v);
    return json_pack("{ss so so so}", "kind", "number", "value", missing ? json_null() : bp_json_number(v),
                     "gradient", bp_json_number(missing ? 0 : slope), "influence",
                     bp_json_number(missing ? 0 : fabs((double)g[0] * e->unit)));
}

/* Every level's gradient; the influence is what the best or worst change of level would make, to first order. */
static json_t *category_json(const struct explanation *e, const struct bp_feature *f, const json_t *labels,
                             const float *g)
{
    const float *x = e->x + f->output;
    int current = -1;
    double influence = 0;
    json_t *levels = json_object();
    for (int i = 0; i < f->levels; i++)
        current = x[i] != 0.0f ? i : current;
    double now = current >= 0 ? (double)g[current] : 0;
    for (int i = 0; i < f->levels; i++) {
        const json_t *label = json_array_get(labels, (size_t)i);
        char text[BP_NUMBER_TEXT];
        const char *name = json_is_string(label)   ? json_string_value(label)
                           : json_is_number(label) ? bp_number_text(json_number_value(label), text)
                                                   : "(missing)";
        double change = fabs(((double)g[i] - now) * e->unit);
        influence = change > influence ? change : influence;
        json_object_set_new(levels, name, bp_json_number((double)g[i] * e->unit));
    }
    json_t *value = current >= 0 ? json_array_get(labels, (size_t)current) : NULL;
    return json_pack("{ss sO* so so}", "kind", "category", "value", value, "gradients", levels, "influence",
                     bp_json_number(influence));
}

static json_t *array_json(const struct explanation *e, const struct bp_feature *f, const float *g)
{
    int64_t top[UNITS_TOP];
    json_t *list = json_array();
    for (int k = 0, kept = find_top(g, f->count, top, UNITS_TOP); k < kept; k++)
        json_array_append_new(list, json_pack("{sI so so}", "index", (json_int_t)top[k], "value",
                                              bp_json_number(raw_value(e, f, (int)top[k])), "gradient",
                                              bp_json_number((double)g[top[k]] * e->unit * f->scale)));
    return json_pack("{ss si so so so}", "kind", "array", "count", f->count, "gradient_norm",
                     bp_json_number(norm_of(g, f->count, e->unit * fabs(f->scale))), "influence",
                     bp_json_number(norm_of(g, f->count, e->unit)), "largest", list);
}

/* A code is the number of a row in a table of vectors: there is no slope between two of them. */
static json_t *code_json(const struct explanation *e, const struct bp_feature *f, const json_t *labels)
{
    float code = e->x[f->output];
    json_t *label = code >= 0 ? json_array_get(labels, (size_t)code) : NULL;
    return json_pack("{ss sO* sn sf}", "kind", "code", "value", label, "gradient", "influence", 0.0);
}

/* A column of a window: the gradient of each of its rows, by the scaled value. */
static json_t *sequence_json(const struct explanation *e, const struct bp_feature *f, int outputs, const float *g)
{
    int width = e->source.inputs / e->source.steps;
    double sum = 0;
    json_t *list = json_array();
    for (int s = 0; s < e->source.steps; s++) {
        double norm = norm_of(g + (size_t)s * (size_t)width, outputs, e->unit);
        bool plain = f->encoding == BP_ENCODE_NUMBER && outputs == 1;
        json_array_append_new(list, bp_json_number(plain ? (double)g[s * width] * e->unit * f->scale : norm));
        sum += norm * norm;
    }
    return json_pack("{ss so so}", "kind", "sequence", "gradients", list, "influence", bp_json_number(sqrt(sum)));
}

static json_t *column_json(const struct explanation *e, int i, const float *gradient)
{
    const struct bp_feature *f = &e->source.features[i];
    const json_t *labels = bp_transform_feature_labels(e->explainer.network.transform, i);
    const float *g = gradient + f->output;
    if (e->source.steps > 0)
        return sequence_json(e, f, f->encoding == BP_ENCODE_ONE_HOT ? f->levels : f->count, g);
    if (f->encoding == BP_ENCODE_CODE)
        return code_json(e, f, labels);
    if (f->encoding == BP_ENCODE_ONE_HOT)
        return category_json(e, f, labels, g);
    return f->count > 1 ? array_json(e, f, g) : number_json(e, f, g);
}

/* Columns, the most influential first. */
static json_t *columns_json(const struct explanation *e)
{
    const float *gradient = bp_exec_input_gradient(e->explainer.exec);
    json_t *columns = json_array();
    for (int i = 0; gradient && i < e->source.nfeatures; i++) {
        json_t *column = column_json(e, i, gradient);
        json_object_set_new(column, "column",
                            json_string(bp_transform_feature_name(e->explainer.network.transform, i)));
        double influence = json_number_value(json_object_get(column, "influence"));
        size_t at = json_array_size(columns);
        while (at > 0 && json_number_value(json_object_get(json_array_get(columns, at - 1), "influence")) < influence)
            at--;
        json_array_insert_new(columns, at, column);
    }
    return columns;
}

/* --- the nudge test ------------------------------------------------------------------------------------------------- */

/* Loss of each of the first n rows of the forward execution, all heads together. */
static void losses_of(const struct explanation *e, int n, double *ret)
{
    bp_exec_pass(e->explainer.nudge, NULL, n, false, 0, 0);
    for (int r = 0; r < n; r++) {
        ret[r] = 0;
        for (int h = 0; h < e->graph->nheads; h++)
            ret[r] += e->graph->heads[h].weight * (double)bp_exec_row_losses(e->explainer.nudge, h)[r];
    }
}

static bool nudgeable(const struct explanation *e, const struct bp_feature *f)
{
    return e->source.steps == 0 && f->encoding == BP_ENCODE_NUMBER && f->count == 1 && !isnan(raw_value(e, f, 0));
}

static void copy_targets(const struct explanation *e, int rows)
{
    for (int h = 0; h < e->graph->nheads; h++) {
        const struct bp_targets *from = bp_exec_targets(e->explainer.exec, h);
        const struct bp_targets *to = bp_exec_targets(e->explainer.nudge, h);
        size_t n = (size_t)e->graph->heads[h].outputs;
        for (int r = 0; r < rows; r++) {
            if (to->label)
                to->label[r] = from->label[0];
            else
                memcpy(to->value + (size_t)r * n, from->value, n * sizeof *to->value);
        }
    }
}

static json_t *nudges_json(const struct explanation *e)
{
    const float *gradient = bp_exec_input_gradient(e->explainer.exec);
    size_t inputs = (size_t)e->source.inputs;
    int of[BP_PREDICT_BATCH], n = 1, done = 0;
    double losses[BP_PREDICT_BATCH];
    json_t *nudges = json_array();
    copy_targets(e, BP_PREDICT_BATCH);
    for (int i = 0; i <= e->source.nfeatures && done < NUDGES_MAX; i++) {
        bool end = i == e->source.nfeatures;
        float *x = bp_exec_input(e->explainer.nudge);
        if (!end && nudgeable(e, &e->source.features[i])) {
            memcpy(x + (size_t)n * inputs, e->x, inputs * sizeof *x);
            x[(size_t)n * inputs + (size_t)e->source.features[i].output] += (float)NUDGE;
            of[n++] = i;
        }
        if (n < BP_PREDICT_BATCH && !end)
            continue;
        memcpy(x, e->x, inputs * sizeof *x); /* row 0 is the row as it is */
        losses_of(e, n, losses);
        for (int r = 1; r < n; r++, done++) {
            const struct bp_feature *f = &e->source.features[of[r]];
            double change = (double)(e->x[f->output] + (float)NUDGE) - (double)e->x[f->output];
            json_array_append_new(nudges, json_pack("{ss so so so}", "column",
                                                    bp_transform_feature_name(e->explainer.network.transform, of[r]),
                                                    "change", bp_json_number(change / f->scale), "predicted",
                                                    bp_json_number((double)gradient[f->output] * change * e->unit),
                                                    "actual", bp_json_number((losses[r] - losses[0]) * e->unit)));
        }
        n = 1;
    }
    return nudges;
}

/* --- the reply ------------------------------------------------------------------------------------------------------ */

/* What there is for each head, by the target's name where there are several. */
static json_t *heads_json(const struct explanation *e, bool targets)
{
    const float *y = e->outputs;
    json_t *all = NULL;
    for (int h = 0; h < e->graph->nheads; y += e->graph->heads[h].outputs, h++) {
        const struct bp_head *head = &e->graph->heads[h];
        const struct bp_transform_target *target = bp_transform_target(e->explainer.network.transform, h);
        const struct bp_targets *t = bp_exec_targets(e->explainer.exec, h);
        json_t *one = targets ? bp_outcome_target(head, target, t->label ? t->label[0] : 0, t->value)
                              : bp_outcome_json(head, target, y);
        if (e->graph->nheads == 1)
            return one;
        all = all ? all : json_object();
        json_object_set_new(all, target->name, one);
    }
    return all;
}

static void reply_explanation(struct bp_reply *reply, const struct explanation *e)
{
    json_t *out = json_pack("{ss ss ss sb sI sI}", "object", "explanation", "job", e->predictor->job, "checkpoint",
                            e->predictor->checkpoint, "best", (int)e->predictor->best, "epoch",
                            (json_int_t)e->predictor->epoch, "step", (json_int_t)e->predictor->step);
    json_object_set_new(out, "prediction", heads_json(e, false));
    json_object_set_new(out, "target", heads_json(e, true));
    json_object_set_new(out, "target_assumed", json_boolean(e->assumed));
    json_object_set_new(out, "loss", bp_json_number(e->loss * e->unit));
    json_object_set_new(out, "columns", columns_json(e));
    json_object_set_new(out, "layers", layers_json(e));
    json_object_set_new(out, "nudges", nudges_json(e));
    bp_reply_json(reply, 200, out);
}

static void done(struct explanation *e)
{
    if (e->has_source)
        bp_transform_source_done(&e->source);
    free(e->bytes);
    free(e->outputs);
    free(e->x);
    bp_explainer_done(&e->explainer);
}

void bp_api_explain(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct explanation e = {.app = arg};
    struct bp_choice choice;
    struct bp_error err;
    json_t *body = bp_request_json(request, reply, BP_JSON_OBJECT);
    if (!body)
        return;
    if (!parse_body(reply, body, &e) || !bp_api_choose(request, reply, e.app, &choice)) {
        json_decref(body);
        return;
    }
    bp_status status = bp_predictors_get(e.app->predictors, &choice, &e.predictor, &err);
    if (!status) {
        status = bp_explainer_make(&choice, e.predictor, &e.explainer, &err);
        e.graph = e.explainer.network.plan.graph;
        if (!status && encode_row(reply, &e) && run(reply, &e))
            reply_explanation(reply, &e);
        if (!status)
            done(&e);
        bp_predictors_put(e.app->predictors, e.predictor);
    }
    if (status)
        bp_api_stored_error(reply, &choice, &err);
    bp_choice_done(&choice);
    json_decref(body);
}
