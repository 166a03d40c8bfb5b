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
#include "api/explanation.h"
#include "api/outcome.h"
#include "json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- reading the request ------------------------------------------------------------------------------------------- */

static bool parse_body(struct bp_reply *reply, const json_t *body, struct bp_explanation *e)
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

static bool encode_row(struct bp_reply *reply, struct bp_explanation *e)
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
static json_t *given_target(const struct bp_explanation *e, const struct bp_transform_target *target)
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

static bool take_target(struct bp_reply *reply, const struct bp_explanation *e, int h, const json_t *given)
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

static bool settle_target(struct bp_reply *reply, struct bp_explanation *e, int h, const float *y)
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
    if (head->loss == BP_LOSS_BCE || head->loss == BP_LOSS_HINGE) { /* a probability, or a margin */
        for (int i = 0; i < head->outputs; i++)
            to->value[i] = head->loss == BP_LOSS_BCE ? y[i] >= 0.5f : y[i] > 0;
        return true;
    }
    bp_problem(reply, 422, "target_required",
               "\"%s\" is a number: without its true value there is no loss to explain; add \"target\"",
               target->name);
    bp_problem_at(reply, "/target", "required", NULL, NULL, "the true value of \"%s\"", target->name);
    return false;
}

/* --- the passes ---------------------------------------------------------------------------------------------------- */

static bool run(struct bp_reply *reply, struct bp_explanation *e)
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
    for (int h = 0; h < e->graph->nheads; y += bp_predictor_head_width(e->predictor, h), h++)
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

/* --- the reply ------------------------------------------------------------------------------------------------------ */

/* What there is for each head, by the target's name where there are several. */
static json_t *heads_json(const struct bp_explanation *e, bool targets)
{
    const float *y = e->outputs;
    json_t *all = NULL;
    for (int h = 0; h < e->graph->nheads; y += bp_predictor_head_width(e->predictor, h), h++) {
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

static void reply_explanation(struct bp_reply *reply, const struct bp_explanation *e)
{
    json_t *out = json_pack("{ss ss ss sb sI sI}", "object", "explanation", "job", e->predictor->job, "checkpoint",
                            e->predictor->checkpoint, "best", (int)e->predictor->best, "epoch",
                            (json_int_t)e->predictor->epoch, "step", (json_int_t)e->predictor->step);
    json_object_set_new(out, "prediction", heads_json(e, false));
    json_object_set_new(out, "target", heads_json(e, true));
    json_object_set_new(out, "target_assumed", json_boolean(e->assumed));
    json_object_set_new(out, "loss", bp_json_number(e->loss * e->unit));
    json_object_set_new(out, "columns", bp_explanation_columns(e));
    json_object_set_new(out, "layers", bp_explanation_layers(e));
    json_object_set_new(out, "nudges", bp_explanation_nudges(e));
    bp_reply_json(reply, 200, out);
}

static void done(struct bp_explanation *e)
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
    struct bp_explanation e = {.app = arg};
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
