/* diagnosis.c: GET /v1/jobs/{id}/diagnosis: reads a job's record and has it judged (jobs/diagnosis.h).
 *
 * Threads: on the pool; one short read of the store.
 */
#include "jobs/diagnosis.h"

#include "api/common.h"

#include <stdlib.h>
#include <string.h>

struct record {
    const struct bp_job_row *row;
    struct bp_diagnosis_facts facts;
    struct bp_layer_history history;
    json_t *description; /* of the dataset */
    json_t *rollback;    /* the data of the last one, or NULL */
};

#define EVENTS_MAX 1000000 /* that are looked through for rollbacks: a week of two epochs a second, within a second */

static bp_status take_point(void *arg, const struct bp_metric_point *point)
{
    struct record *r = arg;
    bool valid = strncmp(point->name, "val_", 4) == 0;
    bool loss = strcmp(point->name + (valid ? 4 : 0), "loss") == 0;
    struct bp_curve *curve = loss    ? valid ? &r->facts.val_loss : &r->facts.loss
                             : valid ? &r->facts.val_r2
                                     : &r->facts.r2;
    if (curve->n == curve->capacity) {
        size_t capacity = curve->capacity ? 2 * curve->capacity : 256;
        double *grown = realloc(curve->value, capacity * sizeof *grown);
        if (!grown)
            return BP_NOMEM;
        curve->value = grown;
        curve->capacity = capacity;
    }
    curve->value[curve->n++] = point->value;
    return BP_OK;
}

static bp_status take_event(void *arg, const struct bp_event_row *event)
{
    struct record *r = arg;
    if (strcmp(event->type, "rollback") != 0)
        return BP_OK;
    json_decref(r->rollback);
    r->rollback = json_loads(event->data, 0, NULL);
    r->facts.rollbacks++;
    return BP_OK;
}

static bp_status read_record(struct bp_db *db, void *arg, struct bp_error *err)
{
    static const char *const names[] = {"loss", "val_loss", "r2", "val_r2"};
    struct record *r = arg;
    struct bp_dataset_row version = {.description = NULL};
    bp_status status = bp_db_metric_list(db, r->row->id, names, 4, 0, take_point, r, err);
    if (!status)
        status = bp_layer_history_read(db, r->row->id, &r->history, err);
    if (!status)
        status = bp_db_event_list(db, r->row->id, 0, EVENTS_MAX, take_event, r, err);
    if (!status && !bp_db_dataset_version(db, r->row->table, &version, NULL))
        r->description = json_loads(version.description, 0, NULL);
    bp_dataset_row_done(&version);
    return status == BP_NOMEM ? bp_fail(err, status, "no memory for the record of the job") : status;
}

/* The classes of the target and their rows, or its description, where it is one column of classes or of numbers. */
static void find_target(struct record *r)
{
    const json_t *dataset = json_object_get(r->facts.spec, "dataset");
    const char *target = json_string_value(json_object_get(dataset, "target"));
    const char *task = json_string_value(json_object_get(dataset, "task"));
    json_t *column;
    size_t i;
    if (!target || !task)
        return;
    json_array_foreach(json_object_get(r->description, "columns"), i, column) {
        const char *name = json_string_value(json_object_get(column, "name"));
        if (!name || strcmp(name, target) != 0)
            continue;
        if (strcmp(task, "classification") != 0) {
            r->facts.target = column;
            return;
        }
        json_t *levels = json_object_get(column, "levels");
        r->facts.class_labels = levels ? levels : json_object_get(column, "values");
        r->facts.class_counts = json_object_get(column, "counts");
    }
}

static void judge(struct bp_reply *reply, struct record *r)
{
    json_t *spec = json_loads(r->row->spec, 0, NULL);
    json_t *error = r->row->error ? json_loads(r->row->error, 0, NULL) : NULL;
    const char *code = json_string_value(json_object_get(error, "code"));
    r->facts.spec = spec;
    r->facts.layers = &r->history;
    r->facts.diverged = code && strcmp(code, "nonfinite_loss") == 0;
    r->facts.where = json_string_value(json_object_get(error ? error : r->rollback, "where"));
    r->facts.rollback_factor = json_number_value(json_object_get(r->rollback, "lr_factor"));
    r->facts.final = r->row->status == BP_JOB_SUCCEEDED; /* one that was cut short is judged by where it was going */
    find_target(r);
    json_t *verdict = bp_diagnosis_make(&r->facts);
    json_t *out = json_pack("{ss ss ss}", "object", "diagnosis", "job", r->row->id, "status",
                            bp_job_status_name(r->row->status));
    if (!verdict || json_object_update(out, verdict)) {
        json_decref(out);
        out = NULL;
    }
    json_decref(verdict);
    bp_reply_json(reply, 200, out);
    json_decref(error);
    json_decref(spec);
}

void bp_api_diagnosis(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct bp_job_row row;
    struct bp_error err = {0};
    if (!bp_api_job_row(app, request, reply, &row))
        return;
    struct record r = {.row = &row};
    if (bp_store_read(app->store, read_record, &r, &err))
        bp_problem_error(reply, &err);
    else
        judge(reply, &r);
    free(r.facts.loss.value);
    free(r.facts.val_loss.value);
    free(r.facts.r2.value);
    free(r.facts.val_r2.value);
    bp_layer_history_done(&r.history);
    json_decref(r.description);
    json_decref(r.rollback);
    bp_job_row_done(&row);
}
