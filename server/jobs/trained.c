/* trained.c: from a job's id to its weights and its network (see trained.h). */
#include "jobs/trained.h"

#include <stdlib.h>
#include <string.h>

struct choosing {
    struct bp_choice *choice;
    const char *job, *which;
    bool have_row;
};

/* The weights that the job itself ends with: its spec says whether these are the best. */
static bool best_by_default(const json_t *spec)
{
    json_t *training = json_object_get(spec, "training");
    json_t *restore = json_object_get(json_object_get(training, "early_stopping"), "restore_best");
    return !json_is_false(restore);
}

static bp_status parse_which(struct bp_choice *choice, const char *which, const char **ret_stored,
                             struct bp_error *err)
{
    if (!which)
        choice->best = best_by_default(choice->spec);
    else if (!strcmp(which, "best"))
        choice->best = true;
    else if (strcmp(which, "latest") != 0 && strncmp(which, "ckpt_", 5) != 0)
        return bp_fail(err, BP_INVALID, "checkpoint must be best, latest or the id of a checkpoint, got %.80s",
                       which);
    *ret_stored = which && !strncmp(which, "ckpt_", 5) ? which : "latest";
    return BP_OK;
}

static bp_status choose(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct choosing *c = arg;
    struct bp_choice *choice = c->choice;
    bp_status status = bp_db_job_get(db, c->job, &choice->row, err);
    if (status == BP_NOT_FOUND)
        return bp_fail_at(err, BP_NOT_FOUND, "job", "there is no job %.40s", c->job);
    if (status)
        return status;
    c->have_row = true;
    choice->spec = json_loads(choice->row.spec, 0, NULL);
    if (!choice->spec)
        return bp_fail(err, BP_INTERNAL, "the stored spec of %s cannot be read", c->job);
    const char *stored = NULL;
    status = parse_which(choice, c->which, &stored, err);
    if (status)
        return status;
    status = bp_db_checkpoint_get(db, c->job, stored, &choice->checkpoint, err);
    if (status != BP_NOT_FOUND)
        return status;
    if (stored == c->which)
        return bp_fail_at(err, BP_NOT_FOUND, "checkpoint", "this job has no checkpoint %.40s (any more)", stored);
    return bp_fail_at(err, BP_CONFLICT, "no_checkpoint", "this job is %s and has no checkpoint%s",
                      bp_job_status_name(choice->row.status), bp_job_status_final(choice->row.status) ? "" : " yet");
}

/* Whether the checkpoint is still there, now that it is pinned. */
static bp_status still_there(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct bp_choice *choice = arg;
    struct bp_checkpoint_row row;
    bp_status status = bp_db_checkpoint_get(db, choice->row.id, choice->checkpoint.id, &row, err);
    if (!status)
        bp_checkpoint_row_done(&row);
    return status;
}

/* One attempt: BP_STOPPED when retention was faster than the pin. */
static bp_status attempt(struct bp_store *store, const char *job, const char *which, struct bp_choice *ret,
                         struct bp_error *err)
{
    memset(ret, 0, sizeof *ret);
    struct choosing c = {ret, job, which, false};
    bp_status status = bp_store_read(store, choose, &c, err);
    if (status) {
        if (status == BP_CONFLICT && c.have_row)
            return status; /* the caller tells what the job is doing */
        if (c.have_row)
            bp_job_row_done(&ret->row);
        json_decref(ret->spec);
        return status;
    }
    bp_store_checkpoint_pin(store, ret->checkpoint.id);
    ret->store = store;
    status = bp_store_read(store, still_there, ret, err);
    if (status) {
        bp_choice_done(ret);
        return status == BP_NOT_FOUND ? BP_STOPPED : status;
    }
    return BP_OK;
}

bp_status bp_choice_make(struct bp_store *store, const char *job, const char *which, struct bp_choice *ret,
                         struct bp_error *err)
{
    for (int tries = 0; tries < 10; tries++) { /* a checkpoint a second at most: twice is rare already */
        bp_status status = attempt(store, job, which, ret, err);
        if (status != BP_STOPPED)
            return status;
    }
    return bp_fail_at(err, BP_NOT_FOUND, "checkpoint", "this job has no checkpoint %.40s (any more)",
                      which ? which : "latest");
}

void bp_choice_done(struct bp_choice *choice)
{
    if (choice->store) {
        bp_store_checkpoint_unpin(choice->store, choice->checkpoint.id);
        bp_checkpoint_row_done(&choice->checkpoint);
    }
    bp_job_row_done(&choice->row);
    json_decref(choice->spec);
    memset(choice, 0, sizeof *choice);
}

bp_status bp_network_make(const struct bp_choice *choice, struct bp_network *ret, struct bp_error *err)
{
    struct bp_network network = {.transform = NULL};
    struct bp_problems problems;
    bp_problems_init(&problems);
    json_t *json = choice->row.transform ? json_loads(choice->row.transform, 0, NULL) : NULL;
    bp_status status = json ? bp_transform_parse(json, &network.transform, err)
                            : bp_fail(err, BP_INTERNAL, "the stored transform of %s cannot be read", choice->row.id);
    if (!status) {
        status = bp_plan_build(choice->spec, NULL, network.transform, &problems, &network.plan, err);
        if (status)
            bp_transform_free(network.transform);
    }
    if (status == BP_INVALID)
        status = bp_fail(err, BP_INTERNAL, "the stored spec of %s no longer makes a network", choice->row.id);
    bp_problems_done(&problems);
    json_decref(json);
    if (!status)
        *ret = network;
    return status;
}

void bp_network_done(struct bp_network *network)
{
    bp_plan_done(&network->plan);
    bp_transform_free(network->transform);
}

bp_status bp_network_check(const struct bp_network *network, const struct bp_checkpoint_header *header,
                           struct bp_error *err)
{
    const struct bp_graph *graph = network->plan.graph;
    if (header->nparams != graph->nparams || header->nstats != graph->nstats ||
        header->graph_fingerprint != bp_graph_fingerprint(graph))
        return bp_fail(err, BP_MISMATCH, "the checkpoint belongs to another network");
    return BP_OK;
}
