/* rollback.c: back to the start of the open epoch when a step has failed.
 *
 * The state at the start of an epoch is kept, and is part of every checkpoint made within the epoch: so what a run
 * becomes does not depend on when checkpoints were made. After going back the rate of every later step is multiplied
 * by a factor; the epoch is then trained again, with the same rows in the same order.
 */
#include "train/state.h"

#include <string.h>

size_t bp_trainer_start_elements(const struct bp_graph *graph, int nslots)
{
    return (1 + (size_t)nslots) * graph->nparams + graph->nstats;
}

/* Copies between the model and the kept state: parameters, slots, statistics. */
static void copy_state(struct bp_trainer *t, bool back)
{
    size_t params = t->model->nparams, stats = t->model->nstats;
    float *at = t->start;

    for (int i = 0; i <= t->model->nslots; i++) {
        float *range = i == 0 ? t->model->params : t->model->slots[i - 1];
        memcpy(back ? range : at, back ? at : range, params * sizeof *at);
        at += params;
    }
    if (stats > 0) {
        memcpy(back ? t->model->stats : at, back ? at : t->model->stats, stats * sizeof *at);
    }
}

void bp_trainer_keep_start(struct bp_trainer *t)
{
    if (t->start != NULL && t->at.epoch_step == 0) {
        copy_state(t, false);
    }
}

bool bp_trainer_roll_back(struct bp_trainer *t, struct bp_team *team)
{
    struct bp_position *at = &t->at;

    if (t->start == NULL || at->rollbacks >= t->config.rollbacks) {
        return false;
    }
    copy_state(t, true);
    bp_model_pack(t->model, team);
    at->step -= at->epoch_step;
    at->samples = at->epoch * (int64_t)t->split->count[BP_TRAIN];
    at->epoch_step = 0;
    at->rollbacks++;
    at->rate_factor *= t->config.rollback_factor;
    for (int h = 0; h < t->graph->nheads; h++) {
        bp_accumulator_reset(&t->epoch_accs[h]);
        bp_scores_reset(t->epoch_scores[h]);
    }
    return true;
}
