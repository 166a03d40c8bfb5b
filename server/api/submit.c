/* submit.c: POST /v1/jobs: from a spec to a queued job, or to everything that is wrong with it.
 *
 * The job and its idempotency key are committed in one transaction before the reply is sent.
 */
#include "api/common.h"
#include "config.h"
#include "data/import.h"
#include "jobs/init_from.h"
#include "jobs/spec.h"
#include "json_text.h"

#include <nettle/base16.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 200 /* bytes of an Idempotency-Key */

/* --- the transaction ------------------------------------------------------------------------------------------------ */
struct submission {
    struct bp_job_row row;
    const char *key;           /* Idempotency-Key, or NULL */
    char body[BP_SHA256_HEX];  /* hash of what was sent */
    char replayed[BP_ID_SIZE]; /* the job that the key made before */
    bool reused;               /* the key came with another body */
    bool full;                 /* the queue is full */
    int64_t ahead;             /* jobs of the queue that come before it */

    struct bp_app *app;
    struct bp_dataset_row dataset; /* what it trains on, without the description */
    struct bp_dataset_row
        import;                 /* the dataset that came with the spec: stored together with the job, or not at all */
    bool existed, same;         /* its name had a dataset; the same one */
    struct bp_start_plan start; /* first weights from another job, if any */
};

static bp_status submit_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct submission *s = arg;
    char sha[BP_SHA256_HEX], id[BP_ID_SIZE];
    bp_status status = s->key ? bp_db_key_get(db, s->key, sha, id, err) : BP_NOT_FOUND;
    if (status == BP_OK) {
        s->reused = strcmp(sha, s->body) != 0;
        memcpy(s->replayed, id, sizeof id);
        return BP_OK;
    }
    int64_t queued = 0;
    if (status == BP_NOT_FOUND)
        status = bp_db_job_queue(db, s->row.priority, &queued, &s->ahead, err);
    if (!status && queued >= BP_QUEUE_MAX) {
        s->full = true;
        return BP_OK;
    }
    if (!status && s->import.table[0])
        status = bp_db_dataset_put(db, &s->import, &s->existed, &s->same, err);
    if (!status)
        status = bp_db_job_insert(db, &s->row, err);
    if (!status && s->start.copies)
        status = bp_db_start_add(db, s->row.id, s->start.choice.checkpoint.id, s->start.copies, err);
    if (!status && s->key)
        status = bp_db_key_put(db, s->key, s->body, s->row.id, err);
    return status;
}

static void hash_body(const char *body, size_t size, const char *more, char ret[BP_SHA256_HEX])
{
    struct sha256_ctx sha;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&sha);
    sha256_update(&sha, size, (const uint8_t *)body);
    if (more)
        sha256_update(&sha, strlen(more), (const uint8_t *)more);
    sha256_digest(&sha, sizeof digest, digest);
    base16_encode_update(ret, sizeof digest, digest);
    ret[BP_SHA256_HEX - 1] = '\0';
}

/* --- from the request to a resolved spec ---------------------------------------------------------------------------- */
/* The spec of a form, and the hash of all that was sent. Its `data` part is imported under the name that the spec has
 * for it, or "upload"; it is a dataset only when there is a job for it. NULL with a reply. */
static json_t *form_spec(struct bp_request *request, struct bp_reply *reply, struct submission *s)
{
    const struct bp_upload *spec_part = bp_request_field(request, "spec");
    const struct bp_upload *data = bp_request_field(request, "data");
    for (int i = 0; i < bp_request_uploads(request); i++) {
        const struct bp_upload *part = bp_request_upload(request, i);
        if (part == spec_part || part == data)
            continue;
        bp_problem(
            reply, 422, "unknown_part",
            "the form's part '%.60s' is unknown: a job comes with spec and data; a dataset of several files goes "
            "to POST /v1/datasets before it",
            part->field);
        bp_problem_member(reply, "allowed", json_pack("[ss]", "spec", "data"));
        return NULL;
    }
    if (!spec_part || !data || !data->path) {
        bp_problem(reply, 422, "missing_part", "a form needs -F spec=@job.json (or -F 'spec={…}') and -F data=@FILE");
        return NULL;
    }
    char *text = bp_upload_text(spec_part);
    if (!text) {
        bp_problem(reply, 413, "too_large", "the part `spec` is larger than 1 MiB");
        return NULL;
    }
    json_t *spec = bp_json_parse(text, strlen(text), "spec", BP_JSON_OBJECT, reply);
    if (!spec)
        goto out;
    json_t *dataset = json_object_get(spec, "dataset");
    json_t *place = json_is_object(dataset) ? json_object_get(dataset, "name") : dataset;
    const char *name = json_string_value(place);
    if (!place || json_is_null(place)) {
        name = "upload";
        if (json_is_object(dataset))
            json_object_set_new(dataset, "name", json_string(name));
        else
            json_object_set_new(spec, "dataset", json_string(name));
    }
    struct bp_import_part part = {
        .role = "data", .path = data->path, .filename = data->filename, .bytes = data->bytes};
    if (bp_api_name_ok(name ? name : "", "/dataset", reply) &&
        bp_api_import(s->app, request, reply, name, &part, 1, &s->import)) {
        hash_body(text, strlen(text), s->import.sha256, s->body);
    } else {
        json_decref(spec);
        spec = NULL;
    }
out:
    free(text);
    return spec;
}

static json_t *read_spec(struct bp_request *request, struct bp_reply *reply, struct submission *s)
{
    if (bp_request_uploads(request))
        return form_spec(request, reply, s);
    size_t size;
    const char *body = bp_request_body(request, &size);
    hash_body(body, size, NULL, s->body);
    return bp_request_json(request, reply, BP_JSON_OBJECT);
}

/* Datasets as the spec sees them: the one that came with it, and those that are stored. */
static bp_status open_dataset(void *arg, const char *name, struct bp_table **ret, struct bp_error *err)
{
    struct submission *s = arg;
    if (!s->import.table[0] || strcmp(name, s->import.name))
        return bp_api_open_dataset(s->app, name, ret, &s->dataset, err);
    s->dataset = s->import;
    s->dataset.description = NULL;
    return bp_table_open(s->app->config->data_dir, s->import.table, s->import.description, ret, err);
}

static json_t *dataset_names(void *arg)
{
    return bp_api_dataset_names(((struct submission *)arg)->app);
}

static void spec_problem(struct bp_reply *reply, const struct bp_spec *spec)
{
    size_t n = json_array_size(spec->problems.errors);
    bp_problem(reply, 422, "invalid_spec", "the spec has %zu fault%s; nothing was stored", n, n == 1 ? "" : "s");
    bp_problem_member(reply, "errors", json_incref(spec->problems.errors));
    if (json_array_size(spec->warnings))
        bp_problem_member(reply, "warnings", json_incref(spec->warnings));
}

/* The model and the estimate of a resolved spec; false with a reply. */
static bool look(struct submission *s, struct bp_spec *spec, struct bp_reply *reply, json_t **ret_model,
                 json_t **ret_estimate)
{
    struct bp_error err = {0};
    struct bp_problems problems;
    struct bp_plan *plan = &spec->plan;
    struct bp_split split = {0};
    bp_problems_init(&problems);
    bp_status status =
        bp_start_plan_make(s->app->store, spec->resolved, plan->graph, spec->warnings, &problems, &s->start, &err);
    if (!status && ret_estimate)
        status = bp_plan_split(plan, plan->transform, spec->data, &split, &err);
    if (!status) {
        *ret_model = bp_plan_model_json(plan);
        plan->config.threads = s->app->config->threads; /* a job's team has room for the whole budget */
        if (ret_estimate)
            *ret_estimate = bp_plan_estimate_json(plan, &split);
    } else if (bp_problems_any(&problems)) {
        struct bp_spec faults = {.problems = problems};
        spec_problem(reply, &faults);
    } else {
        bp_problem_error(reply, &err);
    }
    bp_split_done(&split);
    bp_problems_done(&problems);
    return !status;
}

/* --- replies -------------------------------------------------------------------------------------------------------- */
static void dry_run(struct submission *s, struct bp_spec *spec, struct bp_reply *reply)
{
    json_t *model = NULL, *estimate = NULL;
    if (!look(s, spec, reply, &model, &estimate))
        return;
    bp_reply_json(reply, 200,
                  json_pack("{ss sb sO so so sO}", "object", "dry_run", "valid", 1, "spec", spec->resolved, "model",
                            model, "estimate", estimate, "warnings", spec->warnings));
}

/* Replies with a job: at once, or after waiting for its end. spec: of one that is new, or NULL. */
static void job_told(struct bp_app *app, struct bp_request *request, struct bp_reply *reply,
                     const struct bp_job_row *row, const json_t *spec, int64_t ahead, double wait, bool replayed)
{
    char note[64], tag[BP_JOB_TAG];
    snprintf(note, sizeof note, "%s%c", row->id, replayed ? '+' : '.');
    bp_request_keep(request, note);
    /* Where too many wait already the job is told as it is: it is stored, and must not be sent again. */
    if (bp_api_wait(request, reply, row, wait, true, 0) == 0)
        return;
    struct bp_text text = {0};
    struct bp_error err;
    bp_api_job_tag(app, row, tag);
    if (spec) {
        bp_api_new_job_text(app, row, spec, ahead, &text);
    } else if (bp_api_job_text(app, NULL, row, &text, &err)) {
        bp_problem_error(reply, &err);
        return;
    }
    bp_reply_header(reply, "Location", "/v1/jobs/%s", row->id);
    bp_reply_header(reply, "ETag", "%s", tag);
    if (replayed)
        bp_reply_header(reply, "Idempotency-Replayed", "true");
    bp_text_json_reply(&text, reply, 201);
}

/* The same for a job that was made before, as it is now. */
static void job_found(struct bp_app *app, struct bp_request *request, struct bp_reply *reply, const char *id,
                      double wait, bool replayed)
{
    struct bp_job_row row = {0};
    struct bp_error err = {0};
    if (bp_job_read(app->store, id, &row, &err)) {
        bp_problem_error(reply, &err);
        return;
    }
    job_told(app, request, reply, &row, NULL, 0, wait, replayed);
    bp_job_row_done(&row);
}

static bool fill_row(struct bp_job_row *row, const struct bp_spec *spec, const json_t *input, const json_t *model,
                     const struct bp_dataset_row *dataset)
{
    const json_t *resolved = spec->resolved;
    bp_store_new_id("job", row->id);
    row->status = BP_JOB_QUEUED;
    row->created_at = bp_store_now();
    row->seed = json_integer_value(json_object_get(resolved, "seed"));
    row->threads = json_integer_value(json_object_get(resolved, "threads"));
    row->priority = json_integer_value(json_object_get(resolved, "priority"));
    row->numerics = BP_NUMERICS_VERSION;
    memcpy(row->dataset, dataset->name, sizeof row->dataset);
    memcpy(row->sha256, dataset->sha256, sizeof row->sha256);
    memcpy(row->table, dataset->table, sizeof row->table);
    json_t *tags = json_object_get(resolved, "tags");
    const char *name = json_string_value(json_object_get(resolved, "name"));
    row->owner = strdup("");
    row->name = name ? strdup(name) : NULL;
    row->spec = bp_json_text(spec->resolved);
    row->request = bp_json_text(input);
    row->model = bp_json_text(model);
    row->warnings = bp_json_text(spec->warnings);
    row->tags = json_is_object(tags) ? bp_json_text(tags) : strdup("{}");
    return row->owner && row->spec && row->request && row->model && row->warnings && row->tags &&
           (row->name || !name);
}

/* Stores the job, and the dataset that came with it. False with a reply. */
static bool commit(struct submission *s, struct bp_reply *reply)
{
    struct bp_error err = {0};
    if (s->import.table[0])
        return bp_api_import_commit(s->app, reply, &s->import, submit_work, s);
    bp_status status = bp_store_write_here(s->app->store, submit_work, s, &err);
    if (status == BP_NOT_FOUND) {
        bp_problem(reply, 503, "try_again", "%s, deleted or replaced meanwhile: send the job again", err.message);
        bp_reply_header(reply, "Retry-After", "1");
    } else if (status) {
        bp_problem_error(reply, &err);
    }
    return status == BP_OK;
}

static void key_reused(struct bp_reply *reply, const char *job)
{
    bp_problem(reply, 422, "idempotency_key_reused",
               "this Idempotency-Key came with another body before, for job %s: use a new key for a new job", job);
}

static void submitted(struct bp_request *request, struct bp_reply *reply, struct submission *s, const json_t *spec,
                      double wait)
{
    if (s->reused) {
        key_reused(reply, s->replayed);
    } else if (s->full) {
        bp_problem(reply, 429, "queue_full", "%d jobs are waiting already", BP_QUEUE_MAX);
        bp_problem_member(reply, "limit", json_integer(BP_QUEUE_MAX));
        bp_reply_header(reply, "Retry-After", "10");
    } else {
        bp_jobs_wake(s->app->jobs);
        if (s->replayed[0])
            job_found(s->app, request, reply, s->replayed, wait, true);
        else
            job_told(s->app, request, reply, &s->row, spec, s->ahead, wait, false);
        if (s->existed && !s->same)
            bp_api_sweep(s->app);
    }
}

static void submit(struct bp_request *request, struct bp_reply *reply, const json_t *input, struct bp_spec *spec,
                   struct submission *s, double wait)
{
    json_t *model = NULL;
    if (!look(s, spec, reply, &model, NULL))
        return;
    memcpy(s->row.parent, s->start.choice.row.id, sizeof s->row.parent);
    if (!fill_row(&s->row, spec, input, model, &s->dataset)) {
        struct bp_error err = {0};
        bp_fail(&err, BP_NOMEM, "no memory for the job");
        bp_problem_error(reply, &err);
    } else if (commit(s, reply)) {
        submitted(request, reply, s, spec->resolved, wait);
    }
    json_decref(model);
}

/* A key that made a job before needs no second look at the spec: the dataset may be another one by now. */
static bp_status key_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct submission *s = arg;
    char sha[BP_SHA256_HEX];
    bp_status status = bp_db_key_get(db, s->key, sha, s->replayed, err);
    s->reused = status == BP_OK && strcmp(sha, s->body) != 0;
    return status;
}

static bool check_key(struct bp_app *app, struct bp_request *request, struct bp_reply *reply, struct submission *s,
                      double wait)
{
    s->key = bp_request_header(request, "Idempotency-Key");
    if (!s->key)
        return true;
    struct bp_error err = {0};
    if (!s->key[0] || strlen(s->key) > KEY_MAX) {
        bp_problem(reply, 400, "bad_header", "Idempotency-Key must have 1 to %d characters", KEY_MAX);
        return false;
    }
    if (bp_store_read(app->store, key_work, s, &err))
        return true; /* a new key */
    if (s->reused)
        key_reused(reply, s->replayed);
    else
        job_found(app, request, reply, s->replayed, wait, true);
    return false;
}

void bp_api_job_submit(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    int64_t wait;
    bool dry;
    if (!bp_request_query_int(request, reply, "wait", 0, 0, 3600, &wait) ||
        !bp_request_query_bool(request, reply, "dry_run", false, &dry))
        return;
    if (bp_request_waited(request)) { /* called again after waiting: the job is there */
        char id[BP_ID_SIZE];
        snprintf(id, sizeof id, "%s", bp_request_kept(request));
        size_t n = strlen(id);
        bool replayed = n && id[n - 1] == '+';
        if (n)
            id[n - 1] = '\0';
        job_found(app, request, reply, id, (double)wait, replayed);
        return;
    }
    struct submission s = {.app = app};
    struct bp_spec spec = {0};
    json_t *input = read_spec(request, reply, &s);
    if (!input || (!dry && !check_key(app, request, reply, &s, (double)wait)))
        goto out;
    struct bp_spec_context context = {.open_dataset = open_dataset,
                                      .dataset_names = dataset_names,
                                      .ctx = &s,
                                      .thread_budget = app->config->threads,
                                      .memory_limit = app->config->memory};
    struct bp_error err = {0};
    bp_status status = bp_spec_resolve(input, &context, &spec, &err);
    if (status == BP_INVALID && bp_problems_any(&spec.problems))
        spec_problem(reply, &spec);
    else if (status)
        bp_problem_error(reply, &err);
    else if (dry)
        dry_run(&s, &spec, reply);
    else
        submit(request, reply, input, &spec, &s, (double)wait);
out:
    bp_spec_done(&spec);
    bp_start_plan_done(&s.start);
    bp_api_import_done(app, &s.import);
    bp_job_row_done(&s.row);
    json_decref(input);
}
