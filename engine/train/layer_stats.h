/* layer_stats.h: what goes on in each layer while a network trains, so that its ills can be seen and named.
 *
 * Every so many steps a probe is run: the same up to 256 training rows each time, evenly spaced, in a pass of its own
 * that keeps every value and every error signal. From it come the mean, the spread, the dead and the saturated share of
 * each layer's activations and the size of the error signal that reaches it; from the step itself the norms of its
 * gradient, its weights and its update. A layer here is a node with parameters, together with the activation that
 * stands right on top of it, or an activation that stands alone.
 *
 * Which steps are sampled is a function of the step's number and the length of the run: 1, 2, 4, 8 … and then every
 * interval. The interval is chosen so that the probes cost less than 3 % of the time, and so that a run has
 * BP_LAYER_SAMPLES_MAX of them at most.
 *
 * A probe changes nothing of the training: gradients are overwritten by the step that follows it, and running
 * statistics are put back. Figures are sums in double in a fixed order, so they too are the same for any number of
 * threads.
 *
 * Threads: belongs to its trainer; called by the leader of the team, between the parts of a step.
 */
#ifndef BP_TRAIN_LAYER_STATS_H
#define BP_TRAIN_LAYER_STATS_H

#include "graph/exec.h"
#include "train/source.h"

#define BP_LAYER_SAMPLES_MAX 2000 /* of a run, about */
#define BP_LAYER_ROWS_MAX 100000  /* samples times layers of a run: what a job keeps of them */

/* NaN stands for "not measured": a layer without weights has no gradient, one without relu no dead units. */
struct bp_layer_stat {
    double gradient_norm; /* of the layer's parameters, before clipping, penalties included */
    double clipped_norm;  /* after clipping by the global norm */
    double weight_norm;   /* of its weights (without biases, where there are weights), before the update */
    double update_ratio;  /* norm of the weights' update / weight_norm */
    double delta_norm;    /* error signal: root mean square over the rows of the norm of a row's dL/dz */
    /* Of a recurrent layer, in the same measure: the error signal of its gates at the first step that it reads, and at
     * the last. Through time it comes from the last to the first. */
    double delta_first, delta_last;
    double mean, spread; /* of the activations: mean and standard deviation */
    double dead;         /* share of relu units that are 0 for every row of the probe */
    double saturated;    /* share of activations where the slope is below 5 % of the steepest (sigmoid, tanh …) */
    double alike;        /* share of units (after the first) whose weights equal those of the first to the bit */
};

/* What is fixed about a layer. */
struct bp_layer_info {
    const char *name;              /* of the node with the parameters; borrowed from the graph */
    const char *type;              /* of that node: "dense", "conv2d", … */
    int node, output;              /* the node, and the one whose value is the activation (maybe the same) */
    enum bp_activation activation; /* BP_LINEAR where there is none */
    bool hidden;                   /* no head's loss is taken at its output */
};

struct bp_layer_sample {
    int64_t epoch, step;        /* the step that was sampled; both from 1 */
    double loss;                /* of the probe, before the step's update, in the loss's own scaling */
    struct bp_layer_stat total; /* of the whole network: the norms and the update's ratio; the rest NaN */
    int n;
    const struct bp_layer_info *infos; /* n; borrowed, as the next */
    const struct bp_layer_stat *stats; /* n */
    int64_t interval;                  /* steps between samples once the first are over; more in a very long run */
};

struct bp_layer_sampler;

struct bp_layer_sampler_options {
    int batch_size, threads;
    uint64_t seed;        /* of dropout */
    const uint32_t *rows; /* training rows, ascending; borrowed during the call only */
    uint64_t nrows;
};

/* Borrows the model and the source. BP_NOMEM, BP_LIMIT, BP_INVALID. */
bp_status bp_layer_sampler_new(struct bp_model *model, const struct bp_source *source,
                               const struct bp_layer_sampler_options *options, struct bp_layer_sampler **ret,
                               struct bp_error *err);
void bp_layer_sampler_free(struct bp_layer_sampler *sampler); /* NULL is fine */
bp_status bp_layer_sampler_estimate(const struct bp_graph *graph, const struct bp_layer_sampler_options *options,
                                    size_t *ret);

/* Whether a step (from 1) of a run of so many steps is sampled. */
bool bp_layer_sampler_due(const struct bp_layer_sampler *sampler, int64_t step, int64_t steps);

/* Before a step's own pass: runs the probe and notes the weights. BP_INVALID when a row of it has no usable target. */
bp_status bp_layer_sampler_before(struct bp_layer_sampler *sampler, struct bp_team *team, int64_t step,
                                  struct bp_error *err);

/* After the update (updated), or after the step failed: what became of it. clip is the factor that the gradients were
 * multiplied by. The sample is borrowed until the next one. */
const struct bp_layer_sample *bp_layer_sampler_after(struct bp_layer_sampler *sampler, int64_t epoch, int64_t step,
                                                     double clip, bool updated);

#endif
