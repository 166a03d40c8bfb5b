/* predictions.c: POST /v1/jobs/{id}/predict: rows in, labels, probabilities or values out.
 *
 * The body is looked at: JSON ({"rows": […]}, a bare array, or one row as an object by itself) or CSV with a header.
 * A model of windows takes arrays of rows, each one window, or plain rows that make whole windows one after the other;
 * it gives one prediction for each window.
 * Columns are encoded and scaled exactly as they were for training. A reply never holds a number that is not finite:
 * such a model is an error.
 *
 *   a class          {"label": "setosa", "probability": 0.98, "probabilities": {"setosa": 0.98, …}}
 *   yes or no (bce)  {"value": 1, "probability": 0.7}; several of them: {"values": […], "probabilities": […]}
 *   a margin (hinge) {"label": "yes", "margin": 1.2}; several classes: {"label": …, "margins": {"a": 0.3, …}}
 *   shares (kl_div)  {"probabilities": {"column": 0.2, …}}
 *   several columns  {"values": {"column": 1, …}, "probabilities": {"column": 0.7, …}}
 *   a number         {"value": 3.25}; several of them: {"values": […]}. With poisson it is the rate
 *   an autoencoder   {"reconstruction": {"column": value, …}, "error": 0.01}, the mean squared error of the inputs as
 *                    they are encoded and scaled
 * With several targets each prediction is an object of these by the name of the target.
 *
 * Threads: on the pool; the arithmetic runs on that thread alone, so that predictions never take from training.
 */
#include "api/api.h"
#include "api/choice.h"
#include "api/common.h"
#include "export/number.h"
#include "jobs/predictor.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 65536        /* of one request: beyond that, several requests */
#define OUTPUTS_MAX (1 << 22) /* rows times outputs: what a reply of some 100 MB holds */

/* What a column of the predictions is about, ready to print. */
struct head_text {
    const struct bp_head *head;
    const struct bp_transform_target *target;
    char *name;    /* of the target, as JSON */
    char **labels; /* of a class target: each label as JSON (a string or a number); of several columns their names */
    int nlabels;
    int width; /* of its part of a row */
    const struct bp_transform *transform;
};

struct prediction {
    struct bp_predictor *predictor;
    struct head_text *heads;
    int nheads, width;
    int n;
    float *outputs; /* (n, width) */
};

/* --- reading the rows ----------------------------------------------------------------------------------------------- */

/* The rows of a JSON body as an array: new reference, or NULL after a reply. */
static json_t *rows_of_json(struct bp_request *request, struct bp_reply *reply)
{
    json_t *body = bp_request_json(request, reply, BP_JSON_ANY);
    if (!body || json_is_array(body))
        return body;
    json_t *rows = json_object_get(body, "rows");
    json_t *result = NULL;
    if (!rows)
        result = json_pack("[O]", body); /* one row by itself */
    else if (json_object_size(body) > 1)
        bp_problem(reply, 422, "unknown_field",
                   "beside rows the body has nothing else; ?checkpoint= is in the query");
    else if (!json_is_array(rows))
        bp_problem(reply, 422, "invalid_rows", "rows must be an array of rows");
    else
        result = json_incref(rows);
    json_decref(body);
    return result;
}

static bool within_limits(struct bp_reply *reply, size_t n, int width)
{
    size_t limit = OUTPUTS_MAX / (size_t)(width > 0 ? width : 1);
    if (limit > ROWS_MAX)
        limit = ROWS_MAX;
    if (n <= limit)
        return true;
    bp_problem(reply, 413, "too_many_rows", "%zu rows in one request, at most %zu are predicted at a time", n, limit);
    bp_problem_member(reply, "limit", json_integer((json_int_t)limit));
    return false;
}

/* The rows of the request as the table would hold them: *ret malloc'd. False after a reply. */
static bool read_rows(struct bp_request *request, struct bp_reply *reply, const struct bp_transform *transform,
                      int width, uint8_t **ret, int *ret_n)
{
    size_t size;
    const char *body = bp_request_body(request, &size);
    size_t blank = 0;
    while (blank < size && isspace((unsigned char)body[blank]))
        blank++;
    if (blank == size) {
        bp_problem(reply, 400, "empty_body",
                   "there are no rows: send {\"rows\": [{\"column\": value, …}]}, an array of "
                   "rows, or CSV with a header");
        return false;
    }
    struct bp_problems problems;
    struct bp_error err;
    bp_status status;
    bp_problems_init(&problems);
    if (body[blank] == '{' || body[blank] == '[') {
        json_t *rows = rows_of_json(request, reply);
        if (!rows || !within_limits(reply, json_array_size(rows), width)) {
            json_decref(rows);
            bp_problems_done(&problems);
            return false;
        }
        status = bp_transform_rows(transform, rows, &problems, ret, ret_n, &err);
        json_decref(rows);
    } else {
        status = bp_transform_rows_csv(transform, body, size, &problems, ret, ret_n, &err);
    }
    if (status == BP_INVALID && bp_problems_any(&problems))
        bp_api_faults(reply, "invalid_rows", "the rows do not fit the model", &problems);
    else if (status == BP_LIMIT)
        bp_problem(reply, 413, "too_many_rows", "%s", err.message);
    else if (status)
        bp_problem_error(reply, &err);
    bp_problems_done(&problems);
    if (status)
        return false;
    if (within_limits(reply, (size_t)*ret_n, width))
        return true;
    free(*ret);
    return false;
}

/* --- texts of labels ------------------------------------------------------------------------------------------------ */

static char *json_text(json_t *value)
{
    return json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
}

static void free_heads(struct head_text *heads, int n)
{
    for (int h = 0; heads && h < n; h++) {
        for (int i = 0; i < heads[h].nlabels; i++)
            free(heads[h].labels[i]);
        free(heads[h].labels);
        free(heads[h].name);
    }
    free(heads);
}

static bool fill_head(struct head_text *text)
{
    json_t *name = json_string(text->target->name);
    text->name = name ? json_text(name) : NULL;
    json_decref(name);
    size_t n = text->target->is_class ? json_array_size(text->target->labels) : (size_t)text->target->ncolumns;
    text->labels = calloc(n + 1, sizeof *text->labels);
    if (!text->name || !text->labels)
        return false;
    for (size_t i = 0; i < n; i++) {
        json_t *column = text->target->is_class ? NULL : json_string(text->target->columns[i]);
        text->labels[i] = json_text(column ? column : json_array_get(text->target->labels, i));
        json_decref(column);
        text->nlabels = (int)i + 1;
        if (!text->labels[i])
            return false;
    }
    return true;
}

/* The n heads of a predictor; NULL: no memory. */
static struct head_text *make_heads(const struct bp_predictor *predictor, int n)
{
    struct head_text *heads = calloc((size_t)n + 1, sizeof *heads);
    for (int h = 0; heads && h < n; h++) {
        heads[h].head = &predictor->network.plan.graph->heads[h];
        heads[h].target = bp_transform_target(predictor->network.transform, h);
        heads[h].width = bp_predictor_head_width(predictor, h);
        heads[h].transform = predictor->network.transform;
        if (!fill_head(&heads[h])) {
            free_heads(heads, n);
            return NULL;
        }
    }
    return heads;
}

/* --- one prediction -------------------------------------------------------------------------------------------------- */

static int largest(const float *y, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (y[i] > y[best])
            best = i;
    return best;
}

/* Whether each class has an output of its own; else, with bce, an output is a yes or no. */
static bool has_classes(const struct head_text *h)
{
    return bp_loss_takes_labels(h->head->loss) && h->nlabels == h->head->outputs;
}

static void add_number(struct bp_text *out, float value)
{
    char text[BP_F32_TEXT];
    bp_f32_print(text, value);
    bp_text_add(out, "%s", text);
}

/* "key":{label: number, …} of the outputs of a head; `yes`: whether they are at least 1/2. */
static void json_by_label(struct bp_text *out, const char *key, const struct head_text *h, const float *y, bool yes)
{
    bp_text_add(out, "\"%s\":{", key);
    for (int i = 0; i < h->nlabels; i++) {
        const char *quote = h->labels[i][0] == '"' ? "" : "\"";
        bp_text_add(out, "%s%s%s%s:", i ? "," : "", quote, h->labels[i], quote);
        add_number(out, yes ? (y[i] >= 0.5f ? 1.0f : 0.0f) : y[i]);
    }
    bp_text_add(out, "}");
}

static void json_class(struct bp_text *out, const struct head_text *h, const float *y)
{
    int best = largest(y, h->nlabels);
    bool margin = h->head->loss == BP_LOSS_MULTI_MARGIN;
    bp_text_add(out, "{\"label\":%s,\"%s\":", h->labels[best], margin ? "margin" : "probability");
    add_number(out, y[best]);
    bp_text_add(out, ",");
    json_by_label(out, margin ? "margins" : "probabilities", h, y, false);
    bp_text_add(out, "}");
}

/* Several columns under one loss. */
static void json_columns(struct bp_text *out, const struct head_text *h, const float *y)
{
    bp_text_add(out, "{");
    if (h->head->loss == BP_LOSS_BCE) {
        json_by_label(out, "values", h, y, true);
        bp_text_add(out, ",");
    }
    json_by_label(out, "probabilities", h, y, false);
    bp_text_add(out, "}");
}

static void json_reconstruction(struct bp_text *out, const struct head_text *h, const float *y)
{
    json_t *row = bp_transform_decode(h->transform, y);
    char *text = row ? json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    bp_text_add(out, "{\"reconstruction\":%s,\"error\":", text ? text : "null");
    add_number(out, y[h->head->outputs]);
    bp_text_add(out, "}");
    free(text);
    json_decref(row);
}

/* "key":[a,b,…], or "key":a where there is one: numbers, or with `yes` whether they are at least 1/2. */
static void json_values(struct bp_text *out, const char *one, const char *many, const float *y, int n, bool yes)
{
    bp_text_add(out, "\"%s\":%s", n == 1 ? one : many, n == 1 ? "" : "[");
    for (int i = 0; i < n; i++) {
        bp_text_add(out, "%s", i ? "," : "");
        add_number(out, yes ? (y[i] >= 0.5f ? 1.0f : 0.0f) : y[i]);
    }
    bp_text_add(out, "%s", n == 1 ? "" : "]");
}

static void json_head(struct bp_text *out, const struct head_text *h, const float *y)
{
    int n = h->head->outputs;
    if (h->target->inputs || h->target->ncolumns > 0 || has_classes(h)) {
        (h->target->inputs ? json_reconstruction : h->target->ncolumns > 0 ? json_columns : json_class)(out, h, y);
        return;
    }
    if (h->head->loss == BP_LOSS_HINGE && h->nlabels == 2) {
        bp_text_add(out, "{\"label\":%s,", h->labels[y[0] > 0]);
        json_values(out, "margin", "margins", y, n, false);
        bp_text_add(out, "}");
        return;
    }
    bool yes = h->head->loss == BP_LOSS_BCE;
    bp_text_add(out, "{");
    if (yes && n == 1 && h->nlabels == 2)
        bp_text_add(out, "\"label\":%s", h->labels[y[0] >= 0.5f]);
    else
        json_values(out, "value", "values", y, n, yes);
    if (yes) {
        bp_text_add(out, ",");
        json_values(out, "probability", "probabilities", y, n, false);
    }
    bp_text_add(out, "}");
}

static void reply_json(struct bp_reply *reply, const struct prediction *p)
{
    struct bp_text out = {0};
    bp_text_add(&out,
                "{\"object\":\"predictions\",\"job\":\"%s\",\"checkpoint\":\"%s\",\"best\":%s,\"epoch\":%lld,"
                "\"step\":%lld,\"predictions\":[",
                p->predictor->job, p->predictor->checkpoint, p->predictor->best ? "true" : "false",
                (long long)p->predictor->epoch, (long long)p->predictor->step);
    const float *y = p->outputs;
    for (int r = 0; r < p->n; r++) {
        bp_text_add(&out, "%s\n", r ? "," : "");
        if (p->nheads > 1)
            bp_text_add(&out, "{");
        for (int h = 0; h < p->nheads; h++) {
            if (p->nheads > 1)
                bp_text_add(&out, "%s%s:", h ? "," : "", p->heads[h].name);
            json_head(&out, &p->heads[h], y);
            y += p->heads[h].width;
        }
        if (p->nheads > 1)
            bp_text_add(&out, "}");
    }
    bp_text_add(&out, "]}\n");
    bp_text_reply(&out, reply, "application/json");
}

/* --- the same as CSV ------------------------------------------------------------------------------------------------- */

/* A cell: text of JSON without its escapes is what the dataset had; quoted as RFC 4180 wants where needed. */
static void add_cell(struct bp_text *out, const char *separator, const char *prefix, const char *json,
                     const char *end)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    const char *cell = json_is_string(value) ? json_string_value(value) : json;
    bool quote = strpbrk(cell, ",\"\r\n") != NULL;
    bp_text_add(out, "%s%s%s", separator, quote ? "\"" : "", prefix);
    for (const char *c = cell; *c; c++)
        bp_text_add(out, "%s%c", *c == '"' ? "\"" : "", *c);
    bp_text_add(out, "%s%s", end, quote ? "\"" : "");
    json_decref(value);
}

/* Names of a head's columns: the target's own name for what is predicted, then p(label) of each class. */
static void csv_names(struct bp_text *out, const struct head_text *h, bool first)
{
    const char *separator = first ? "" : ",";
    int n = h->head->outputs;
    if (has_classes(h)) {
        add_cell(out, separator, "", h->name, "");
        for (int i = 0; i < n; i++)
            add_cell(out, ",", h->head->loss == BP_LOSS_MULTI_MARGIN ? "margin(" : "p(", h->labels[i], ")");
        return;
    }
    for (int i = 0; i < n; i++) {
        char end[16] = "";
        if (n > 1)
            snprintf(end, sizeof end, "[%d]", i);
        if (h->target->ncolumns > 0)
            add_cell(out, i ? "," : separator, "", h->labels[i], "");
        else
            add_cell(out, i ? "," : separator, "", h->name, end);
    }
    if (h->target->inputs)
        bp_text_add(out, ",error");
}

static void csv_head(struct bp_text *out, const struct head_text *h, const float *y, bool first)
{
    int n = h->head->outputs;
    if (has_classes(h))
        add_cell(out, first ? "" : ",", "", h->labels[largest(y, n)], "");
    for (int i = 0; i < h->width; i++) {
        bp_text_add(out, "%s", first && i == 0 && !has_classes(h) ? "" : ",");
        add_number(out, y[i]);
    }
}

static void reply_table(struct bp_reply *reply, const struct prediction *p, bool csv)
{
    struct bp_text out = {0};
    for (int h = 0; h < p->nheads; h++)
        csv_names(&out, &p->heads[h], h == 0);
    bp_text_add(&out, "\r\n");
    const float *y = p->outputs;
    for (int r = 0; r < p->n; r++) {
        for (int h = 0; h < p->nheads; h++) {
            csv_head(&out, &p->heads[h], y, h == 0);
            y += p->heads[h].width;
        }
        bp_text_add(&out, "\r\n");
    }
    if (!csv)
        bp_text_align(&out);
    bp_text_reply(&out, reply, csv ? "text/csv; charset=utf-8" : "text/plain; charset=utf-8");
}

/* --- the handler ----------------------------------------------------------------------------------------------------- */

/* Runs the rows; false after a reply. */
static bool run(struct bp_reply *reply, struct bp_app *app, struct prediction *p, const uint8_t *rows)
{
    struct bp_error err;
    struct bp_source source;
    bp_status status = BP_NOMEM;
    p->heads = make_heads(p->predictor, p->nheads);
    p->outputs = malloc((size_t)p->n * (size_t)p->width * sizeof *p->outputs + 1);
    if (!p->heads || !p->outputs)
        bp_fail(&err, BP_NOMEM, "no memory for the predictions");
    else
        status = bp_transform_rows_source(p->predictor->network.transform, rows, p->n, &source, &err);
    if (!status) {
        status = bp_predictor_run(app->predictors, p->predictor, &source, p->n, p->outputs, &err);
        bp_transform_source_done(&source);
    }
    if (status == BP_NONFINITE) { /* weights are finite, always: the row is beyond what float32 can hold */
        bp_problem(reply, 422, "nonfinite_prediction", "%s: its values are too large for the model", err.message);
        bp_problem_at(reply, err.where, "out_of_range", NULL, NULL, "the model overflows on this row");
    } else if (status) {
        bp_problem_error(reply, &err);
    }
    return !status;
}

void bp_api_predict(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    enum bp_render render;
    struct bp_choice choice;
    struct bp_error err;
    if (!bp_request_render(request, reply, 1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT | 1 << BP_RENDER_CSV, &render) ||
        !bp_api_choose(request, reply, app, &choice))
        return;
    struct prediction p = {.n = 0};
    uint8_t *rows = NULL;
    if (bp_predictors_get(app->predictors, &choice, &p.predictor, &err)) {
        bp_api_stored_error(reply, &choice, &err);
        bp_choice_done(&choice);
        return;
    }
    p.nheads = p.predictor->network.plan.graph->nheads;
    p.width = bp_predictor_width(p.predictor);
    if (read_rows(request, reply, p.predictor->network.transform, p.width, &rows, &p.n)) {
        bool done = run(reply, app, &p, rows);
        if (done && render == BP_RENDER_JSON)
            reply_json(reply, &p);
        else if (done)
            reply_table(reply, &p, render == BP_RENDER_CSV);
        free(rows);
    }
    free(p.outputs);
    free_heads(p.heads, p.nheads);
    bp_predictors_put(app->predictors, p.predictor);
    bp_choice_done(&choice);
}
