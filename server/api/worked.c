/* worked.c: a worked case from the body of a request: which network, which rows (see worked.h). Its numbers:
 * worked_numbers.c.
 *
 * Threads: on a data thread.
 */
#include "api/choice.h"
#include "api/common.h"
#include "api/worked_internal.h"
#include "base/clock.h"
#include "config.h"
#include "jobs/spec.h"

#include <stdlib.h>
#include <string.h>

/* --- options of a request --------------------------------------------------------------------------------------------- */

json_t *bp_worked_body(struct bp_request *request, struct bp_reply *reply)
{
    json_t *body = bp_request_json(request, reply, BP_JSON_OBJECT);
    json_t *copy = body ? json_copy(body) : NULL;
    if (body && !copy)
        bp_problem(reply, 503, "out_of_memory", "no memory for the request");
    json_decref(body);
    return copy;
}

static bool refuse(struct bp_reply *reply, const char *name, const char *code, const char *detail)
{
    char pointer[160] = "";
    bp_pointer_append(pointer, sizeof pointer, name);
    bp_problem(reply, 422, "invalid", "%s %s", name, detail);
    bp_problem_at(reply, pointer, code, NULL, NULL, "%s", detail);
    return false;
}

bool bp_worked_int(struct bp_reply *reply, json_t *body, const char *name, int64_t fallback, int64_t min, int64_t max,
                   int64_t *ret)
{
    json_t *value = json_object_get(body, name);
    char detail[96];
    snprintf(detail, sizeof detail, "must be a whole number from %lld to %lld", (long long)min, (long long)max);
    if (value && !json_is_integer(value))
        return refuse(reply, name, "wrong_type", detail);
    *ret = value ? json_integer_value(value) : fallback;
    if (*ret < min || *ret > max)
        return refuse(reply, name, "out_of_range", detail);
    json_object_del(body, name);
    return true;
}

bool bp_worked_bool(struct bp_reply *reply, json_t *body, const char *name, bool fallback, bool *ret)
{
    json_t *value = json_object_get(body, name);
    if (value && !json_is_boolean(value))
        return refuse(reply, name, "wrong_type", "must be true or false");
    *ret = value ? json_is_true(value) : fallback;
    json_object_del(body, name);
    return true;
}

void bp_patience_start(struct bp_patience *patience, const struct bp_request *request)
{
    *patience = (struct bp_patience){request, bp_clock() + BP_WORKED_SECONDS};
}

bool bp_patience_over(void *arg)
{
    const struct bp_patience *patience = arg;
    return bp_request_cancelled(patience->request) || bp_clock() > patience->deadline;
}

void bp_patience_problem(struct bp_reply *reply, const struct bp_patience *patience, const char *advice)
{
    if (bp_request_cancelled(patience->request)) {
        bp_problem(reply, 503, "shutting_down", "the server is being stopped");
        return;
    }
    bp_problem(reply, 422, "limit_exceeded", "this takes longer than the %g seconds of one call; %s",
               BP_WORKED_SECONDS, advice);
    bp_problem_member(reply, "limit", json_real(BP_WORKED_SECONDS));
}

/* --- a spec ------------------------------------------------------------------------------------------------------------ */

/* What the resolver opens: the rows of the request, or a dataset of the store. */
struct opening {
    struct bp_app *app;
    const struct bp_inline_rows *rows; /* NULL: there are none */
    int classes;
};

static bp_status open_dataset(void *ctx, const char *name, struct bp_table **ret, struct bp_error *err)
{
    const struct opening *o = ctx;
    return o->rows ? bp_inline_rows_table(o->rows, o->classes, ret, err)
                   : bp_api_open_dataset(o->app, name, ret, NULL, err);
}

static json_t *dataset_names(void *ctx)
{
    return bp_api_dataset_names(((const struct opening *)ctx)->app);
}

/* The units of the last layer that has a number of them: as many classes there may be. */
static int last_units(const json_t *body)
{
    const json_t *layers = json_object_get(body, "layers");
    if (!layers)
        layers = json_object_get(json_object_get(body, "model"), "layers");
    for (size_t i = json_array_size(layers); i > 0; i--) {
        const json_t *layer = json_array_get(layers, i - 1);
        const json_t *units = json_is_object(layer) ? json_object_get(layer, "units") : layer;
        if (json_is_integer(units))
            return json_integer_value(units) < BP_DISTINCT_MAX ? (int)json_integer_value(units) : BP_DISTINCT_MAX;
    }
    return 0;
}

/* Faults of the dataset that the rows are looked at as, told of the rows. */
static void point_at_rows(struct bp_problems *problems)
{
    static const char *const places[][2] = {{"/dataset/target", "/targets"}, {"/dataset", "/inputs"}};
    size_t i;
    json_t *entry;
    json_array_foreach(problems->errors, i, entry) {
        const char *pointer = json_string_value(json_object_get(entry, "pointer"));
        for (size_t k = 0; pointer && k < sizeof places / sizeof *places; k++) {
            if (strncmp(pointer, places[k][0], strlen(places[k][0])) != 0)
                continue;
            json_object_set_new(entry, "pointer", json_string(places[k][1]));
            break;
        }
    }
}

static bool reply_status(struct bp_reply *reply, bp_status status, struct bp_problems *problems,
                         const struct bp_error *err)
{
    if (status == BP_OK)
        return true;
    if (status == BP_INVALID && bp_problems_any(problems))
        bp_api_faults(reply, "invalid_spec", "the spec has faults", problems);
    else
        bp_problem_error(reply, err);
    return false;
}

/* Reads "inputs" and "targets", or with `shapes` "input_shape", out of the body, and writes their dataset into it.
 * *ret_any: whether there are some. */
static bool take_rows(struct bp_reply *reply, json_t *body, bool shapes, struct bp_inline_rows *ret, bool *ret_any)
{
    struct bp_problems problems;
    struct bp_error err;
    json_t *shape = shapes ? json_object_get(body, "input_shape") : NULL;
    json_t *inputs = json_object_get(body, "inputs"), *targets = json_object_get(body, "targets");
    int64_t outputs = 0, classes = 0;
    *ret_any = inputs || targets || shape;
    if (!*ret_any)
        return true;
    if (json_object_get(body, "dataset"))
        return refuse(reply, "dataset", "incompatible",
                      "cannot stand beside inputs and targets: the rows come from one of the two");
    if (shape && (!bp_worked_int(reply, body, "outputs", 1, 1, BP_DISTINCT_MAX, &outputs) ||
                  !bp_worked_int(reply, body, "classes", 0, 0, BP_DISTINCT_MAX, &classes)))
        return false;
    bp_problems_init(&problems);
    bp_status status =
        shape ? bp_inline_rows_blank(shape, (int)(classes ? classes : outputs), classes > 0, &problems, ret, &err)
              : bp_inline_rows_parse(inputs, targets, &problems, ret, &err);
    bool ok = reply_status(reply, status, &problems, &err);
    bp_problems_done(&problems);
    if (!ok)
        return false;
    json_object_del(body, "inputs");
    json_object_del(body, "targets");
    json_object_del(body, "input_shape");
    json_t *dataset = bp_inline_rows_dataset(ret);
    if (ret->classes && !json_object_get(body, "loss") && !json_object_get(body, "task"))
        json_object_set_new(dataset, "task", json_string("classification"));
    json_object_set_new(body, "dataset", dataset);
    return true;
}

/* An empty body, or one without any rows, hardly means a dataset. */
static bool has_network(struct bp_reply *reply, const json_t *body, bool shapes)
{
    const char *ways = shapes ? "\"input_shape\" and \"outputs\" (or \"classes\"), \"inputs\" and \"targets\""
                              : "\"inputs\" and \"targets\"";
    if (json_object_get(body, "dataset") || json_object_get(body, "inputs") || json_object_get(body, "targets") ||
        (shapes && json_object_get(body, "input_shape")))
        return true;
    bp_problem(reply, 422, "invalid_spec",
               "there are no rows: send \"layers\" with %s, or with a \"dataset\" and numbers of its \"rows\"; or a "
               "\"job\"",
               ways);
    bp_problem_at(reply, shapes ? "/input_shape" : "/inputs", "required", NULL, NULL,
                  "one of %s, \"dataset\" or \"job\" is required", ways);
    return false;
}

/* Resolves and plans the spec of the body, and (unless shapes) fills in the numbers. */
static bool make_spec(struct bp_reply *reply, json_t *body, bool shapes, struct bp_worked *w)
{
    struct bp_inline_rows rows = {.n = 0};
    struct bp_table *table = NULL;
    struct bp_spec spec = {.resolved = NULL};
    struct bp_error err = {.code = BP_OK};
    bool any = false, ok = false;
    json_t *numbers = json_incref(json_object_get(body, "rows"));
    json_t *parameters = json_incref(json_object_get(body, "parameters"));
    json_object_del(body, "rows");
    json_object_del(body, "parameters");
    if (!has_network(reply, body, shapes) || !take_rows(reply, body, shapes, &rows, &any))
        goto out;
    struct opening opening = {w->app, any ? &rows : NULL, any ? last_units(body) : 0};
    struct bp_spec_context context = {.open_dataset = open_dataset,
                                      .dataset_names = dataset_names,
                                      .ctx = &opening,
                                      .thread_budget = w->app->config->threads,
                                      .memory_limit = w->app->config->memory};
    bp_status status = bp_spec_resolve(body, &context, &spec, &err);
    if (any)
        point_at_rows(&spec.problems);
    if (!reply_status(reply, status, &spec.problems, &err))
        goto out;
    w->spec = json_incref(spec.resolved);
    w->warnings = json_incref(spec.warnings);
    const char *name = json_string_value(json_object_get(json_object_get(w->spec, "dataset"), "name"));
    status = open_dataset(&opening, name, &table, &err);
    if (!status)
        status = bp_plan_build(w->spec, table, NULL, &spec.problems, &w->plan, &err);
    if (!reply_status(reply, status, &spec.problems, &err))
        goto out;
    w->graph = w->plan.graph;
    w->config = &w->plan.config;
    if (!shapes && json_is_object(json_object_get(w->spec, "init_from"))) {
        refuse(reply, "init_from", "incompatible", "is for jobs; here name the job itself: {\"job\": \"job_…\"}");
        goto out;
    }
    if (shapes)
        ok = true;
    else
        ok = bp_worked_initialize(reply, w, parameters) &&
             (any ? bp_worked_inline(reply, w, &rows)
                  : bp_worked_gather(reply, w, table, w->plan.transform, numbers, true));
out:
    json_decref(numbers);
    json_decref(parameters);
    bp_table_close(table);
    bp_inline_rows_done(&rows);
    bp_spec_done(&spec);
    return ok;
}

/* --- a job ------------------------------------------------------------------------------------------------------------- */

struct find_version {
    const char *table;
    struct bp_dataset_row *row;
};

static bp_status find_version(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct find_version *f = arg;
    return bp_db_dataset_version(db, f->table, f->row, err);
}

/* The table that the job was trained on. */
static bp_status open_version(struct bp_worked *w, struct bp_table **ret, struct bp_error *err)
{
    struct bp_dataset_row row = {.description = NULL};
    struct find_version f = {w->choice.row.table, &row};
    bp_status status = bp_store_read(w->app->store, find_version, &f, err);
    if (!status)
        status = bp_table_open(w->app->config->data_dir, row.table, row.description, ret, err);
    bp_dataset_row_done(&row);
    return status;
}

static bool only_job_members(struct bp_reply *reply, const json_t *body)
{
    static const char *const known[] = {"job", "checkpoint", "rows", "parameters"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)body, key, value) {
        size_t i = 0;
        while (i < sizeof known / sizeof *known && strcmp(key, known[i]) != 0)
            i++;
        if (i == sizeof known / sizeof *known)
            return refuse(reply, key, "unknown_field",
                          "is not known beside \"job\": checkpoint, rows and parameters are");
    }
    return true;
}

static bool make_job(struct bp_reply *reply, json_t *body, bool shapes, struct bp_worked *w)
{
    const char *job = json_string_value(json_object_get(body, "job"));
    json_t *which = json_object_get(body, "checkpoint");
    struct bp_table *table = NULL;
    struct bp_error err;
    if (!only_job_members(reply, body))
        return false;
    if (!job || strlen(job) >= BP_ID_SIZE)
        return refuse(reply, "job", "wrong_type", "must be the id of a job");
    if (which && !json_is_string(which))
        return refuse(reply, "checkpoint", "wrong_type", "must be best, latest or the id of a checkpoint");
    if (!bp_api_choose_job(reply, w->app, job, json_string_value(which), &w->choice))
        return false;
    w->spec = json_incref(w->choice.spec);
    w->warnings = json_array();
    bp_status status = bp_predictors_get(w->app->predictors, &w->choice, &w->predictor, &err);
    if (status) {
        w->predictor = NULL;
        bp_api_stored_error(reply, &w->choice, &err);
        return false;
    }
    w->graph = w->predictor->network.plan.graph;
    w->config = &w->predictor->network.plan.config;
    if (shapes)
        return true;
    status = open_version(w, &table, &err);
    if (status) {
        bp_problem_error(reply, &err);
        return false;
    }
    bool ok =
        bp_worked_trained(reply, w, json_object_get(body, "parameters")) &&
        bp_worked_gather(reply, w, table, w->predictor->network.transform, json_object_get(body, "rows"), false);
    bp_table_close(table);
    return ok;
}

bool bp_worked_make(struct bp_reply *reply, struct bp_app *app, json_t *body, bool shapes, struct bp_worked *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->app = app;
    return json_object_get(body, "job") ? make_job(reply, body, shapes, ret) : make_spec(reply, body, shapes, ret);
}

void bp_worked_done(struct bp_worked *w)
{
    for (int h = 0; w->target && h < w->graph->nheads; h++) {
        free((void *)w->target[h].label);
        free((void *)w->target[h].value);
        free((void *)w->target[h].weight);
    }
    free(w->target);
    free(w->input);
    free(w->params);
    free(w->stats);
    json_decref(w->spec);
    json_decref(w->warnings);
    if (w->predictor)
        bp_predictors_put(w->app->predictors, w->predictor);
    if (w->choice.store)
        bp_choice_done(&w->choice);
    bp_plan_done(&w->plan);
    memset(w, 0, sizeof *w);
}
