/* layer_history.h: all that was sampled of a job's layers, read from the store in one short read.
 *
 * What each figure means: engine/train/layer_stats.h. Bounded by what a job keeps (BP_LAYER_ROWS_MAX rows).
 *
 * Threads: belongs to its reader.
 */
#ifndef BP_JOBS_LAYER_HISTORY_H
#define BP_JOBS_LAYER_HISTORY_H

#include "store/store.h"

enum bp_figure {
    BP_FIGURE_LOSS, /* of the network (layer 0) only */
    BP_FIGURE_GRADIENT_NORM,
    BP_FIGURE_CLIPPED_NORM,
    BP_FIGURE_WEIGHT_NORM,
    BP_FIGURE_UPDATE_RATIO,
    BP_FIGURE_DELTA_NORM,
    BP_FIGURE_MEAN,
    BP_FIGURE_SPREAD,
    BP_FIGURE_DEAD,
    BP_FIGURE_SATURATED,
    BP_FIGURE_ALIKE,
    BP_FIGURE_DELTA_FIRST,
    BP_FIGURE_DELTA_LAST,
    BP_FIGURE_DELTA_RATIO, /* first / last: how much of the error signal gets through time */
    BP_FIGURE_COUNT
};
const char *bp_figure_name(enum bp_figure figure); /* as in the API */

struct bp_layer_name {
    char name[72], type[40], activation[40];
    bool hidden;
};

struct bp_layer_point {
    int64_t epoch, step;
    int layer;
    double value[BP_FIGURE_COUNT]; /* NaN: not measured */
};

struct bp_layer_history {
    int nlayers; /* the network, number 0, included; 0: nothing was sampled */
    struct bp_layer_name *layers;
    size_t n, capacity;
    struct bp_layer_point *points; /* ordered by step, then layer */
};

/* Inside a read of the store; *ret is to be ended with bp_layer_history_done whatever the status. */
bp_status bp_layer_history_read(struct bp_db *db, const char *job, struct bp_layer_history *ret,
                                struct bp_error *err);
void bp_layer_history_done(struct bp_layer_history *history);

#endif
