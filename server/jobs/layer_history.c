/* layer_history.c: the sampled figures of a job's layers; see layer_history.h. */
#include "jobs/layer_history.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_MAX 8192 /* twice the nodes that a graph may have */

static const char *const names[BP_FIGURE_COUNT] = {
    "loss",
    "gradient_norm",
    "clipped_norm",
    "weight_norm",
    "update_ratio",
    "delta_norm",
    "mean",
    "spread",
    "dead",
    "saturated",
    "alike",
    "delta_first_step",
    "delta_last_step",
    "delta_step_ratio",
};

const char *bp_figure_name(enum bp_figure figure)
{
    return names[figure];
}

static bool room(struct bp_layer_history *h, int layer)
{
    if (h->n == h->capacity) {
        size_t capacity = h->capacity ? 2 * h->capacity : 256;
        struct bp_layer_point *grown = realloc(h->points, capacity * sizeof *grown);
        if (!grown)
            return false;
        h->points = grown;
        h->capacity = capacity;
    }
    if (layer < h->nlayers)
        return true;
    struct bp_layer_name *grown = realloc(h->layers, (size_t)(layer + 1) * sizeof *grown);
    if (!grown)
        return false;
    memset(grown + h->nlayers, 0, (size_t)(layer + 1 - h->nlayers) * sizeof *grown);
    h->layers = grown;
    h->nlayers = layer + 1;
    return true;
}

static bp_status take(void *arg, const struct bp_layer_row *row)
{
    struct bp_layer_history *h = arg;
    if (row->layer < 0 || row->layer > LAYERS_MAX)
        return BP_CORRUPT;
    if (!room(h, row->layer))
        return BP_NOMEM;
    struct bp_layer_name *name = &h->layers[row->layer];
    if (!name->type[0]) {
        memcpy(name->name, row->name, sizeof name->name);
        memcpy(name->type, row->type, sizeof name->type);
        memcpy(name->activation, row->activation, sizeof name->activation);
        name->hidden = row->hidden;
    }
    h->points[h->n++] = (struct bp_layer_point){
        .epoch = row->epoch,
        .step = row->step,
        .layer = row->layer,
        .value = {row->loss, row->gradient_norm, row->clipped_norm, row->weight_norm, row->update_ratio,
                  row->delta_norm, row->mean, row->spread, row->dead, row->saturated, row->alike, row->delta_first,
                  row->delta_last, row->delta_last > 0 ? row->delta_first / row->delta_last : NAN}};
    return BP_OK;
}

bp_status bp_layer_history_read(struct bp_db *db, const char *job, struct bp_layer_history *ret, struct bp_error *err)
{
    memset(ret, 0, sizeof *ret);
    bp_status status = bp_db_layer_list(db, job, take, ret, err);
    if (status == BP_NOMEM)
        return bp_fail(err, status, "no memory for the figures of the layers");
    return status == BP_CORRUPT ? bp_fail(err, status, "the figures of the layers are damaged") : status;
}

void bp_layer_history_done(struct bp_layer_history *history)
{
    free(history->layers);
    free(history->points);
    memset(history, 0, sizeof *history);
}
