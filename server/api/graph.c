/* graph.c: GET /v1/jobs/{id}/graph: the forward program of a job's network, and the backward program that
 * backpropagation derives from it: as text, or with ?format=dot as a picture for Graphviz.
 *
 * It is there from the moment the job is submitted: nothing has to be trained for it.
 *
 * Threads: on the pool.
 */
#include "api/api.h"
#include "api/common.h"
#include "config.h"
#include "graph/program.h"
#include "jobs/spec.h"

#include <stdlib.h>
#include <string.h>

static bp_status find_version(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct bp_dataset_row *row = arg;
    char table[sizeof row->table];
    memcpy(table, row->table, sizeof table);
    return bp_db_dataset_version(db, table, row, err);
}

/* The table that the job is about: needed only while the job has no transform yet. */
static bp_status open_table(struct bp_app *app, const struct bp_job_row *job, struct bp_table **ret,
                            struct bp_error *err)
{
    struct bp_dataset_row row = {.description = NULL};
    memcpy(row.table, job->table, sizeof row.table);
    bp_status status = bp_store_read(app->store, find_version, &row, err);
    if (!status)
        status = bp_table_open(app->config->data_dir, row.table, row.description, ret, err);
    bp_dataset_row_done(&row);
    return status;
}

static bp_status make_plan(struct bp_app *app, const struct bp_job_row *job, struct bp_plan *ret,
                           struct bp_error *err)
{
    struct bp_problems problems;
    struct bp_table *table = NULL;
    struct bp_transform *transform = NULL;
    json_t *spec = json_loads(job->spec, 0, NULL);
    json_t *stored = job->transform ? json_loads(job->transform, 0, NULL) : NULL;
    bp_problems_init(&problems);
    bp_status status = spec ? BP_OK : bp_fail(err, BP_INTERNAL, "the stored spec of %s cannot be read", job->id);
    if (!status)
        status = stored ? bp_transform_parse(stored, &transform, err) : open_table(app, job, &table, err);
    if (!status)
        status = bp_plan_build(spec, table, transform, &problems, ret, err);
    bp_transform_free(transform);
    bp_table_close(table);
    bp_problems_done(&problems);
    json_decref(stored);
    json_decref(spec);
    return status == BP_INVALID ? bp_fail(err, BP_INTERNAL, "the stored spec no longer makes a network") : status;
}

static const struct {
    const char *name, *content_type;
    bp_status (*make)(const struct bp_graph *graph, int rows, char **ret, struct bp_error *err);
} forms[] = {
    {"text", "text/plain; charset=utf-8", bp_program_text},
    {"dot", "text/vnd.graphviz; charset=utf-8", bp_program_dot},
};
#define FORMS (sizeof forms / sizeof *forms)

void bp_api_graph(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct bp_job_row job;
    struct bp_plan plan = {.graph = NULL};
    struct bp_error err;
    char *text = NULL;
    size_t form = 0;
    const char *name = bp_request_query(request, "format");
    while (name && form < FORMS && strcmp(name, forms[form].name) != 0)
        form++;
    if (form == FORMS) {
        bp_problem(reply, 400, "invalid_query", "format is text or dot, not %.40s", name);
        bp_problem_member(reply, "allowed", json_pack("[s, s]", forms[0].name, forms[1].name));
        return;
    }
    if (!bp_api_job_row(app, request, reply, &job))
        return;
    bp_status status = make_plan(app, &job, &plan, &err);
    if (!status)
        status = forms[form].make(plan.graph, plan.config.batch_size, &text, &err);
    if (status)
        bp_problem_error(reply, &err);
    else
        bp_reply_bytes(reply, 200, forms[form].content_type, text, strlen(text));
    bp_plan_done(&plan);
    bp_job_row_done(&job);
}
