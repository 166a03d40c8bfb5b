/* trainer.c: making a trainer, and what it tells about itself.
 *
 * All memory of a training run is taken here; a step takes none. The estimate and the making go through the same
 * sizes, so that a job is refused before it starts rather than in its middle.
 */
#include "base/memory.h"
#include "ops/op.h"
#include "train/initialize.h"
#include "train/state.h"

#include <math.h>
#include <string.h>

#define EVALUATION_ROWS 256             /* rows of a validation batch: enough for whole tiles on every thread */
#define EVALUATION_ELEMENTS (1LL << 24) /* of its widest value: 64 MB */
#define STEPS_MAX (1LL << 47)           /* steps are counters of random numbers, which have 48 bits */

struct sizes {
    int capacity, evaluation_capacity;
    size_t order, best, accumulators; /* bytes; accumulators: of one array */
    size_t sum, start;                /* bytes, 0 where they are not needed */
};

static bp_status sizes_of(const struct bp_train_config *config, const struct bp_graph *graph, uint64_t train_rows,
                          struct sizes *ret)
{
    struct sizes s = {.capacity = config->batch_size, .evaluation_capacity = EVALUATION_ROWS};
    int64_t widest = 1;
    size_t elements;

    for (int i = 0; i < graph->nnodes; i++) {
        const struct bp_op *op = bp_op_table[graph->nodes[i].kind];
        int64_t width = bp_shape_elements(&graph->nodes[i].shape);
        int64_t kept = op->workspace != NULL ? (int64_t)op->workspace(graph, &graph->nodes[i]).row : 0;
        widest = width > widest ? width : widest;
        widest = kept > widest ? kept : widest; /* a recurrent layer keeps much more than it gives */
    }
    if ((uint64_t)s.capacity > train_rows) {
        s.capacity = (int)train_rows;
    }
    if (widest * EVALUATION_ROWS > EVALUATION_ELEMENTS) {
        int64_t fit = EVALUATION_ELEMENTS / widest;
        int64_t least = s.capacity < EVALUATION_ROWS ? s.capacity : EVALUATION_ROWS;
        s.evaluation_capacity = (int)(fit > least ? fit : least);
    }
    if (!bp_size_mul(train_rows, sizeof(uint32_t), &s.order) ||
        !bp_size_add(graph->nparams, graph->nstats, &elements) || !bp_size_add(elements, graph->nstats, &elements) ||
        !bp_size_mul(elements, sizeof(float), &s.best) ||
        !bp_size_mul((size_t)graph->nheads, sizeof(struct bp_accumulator), &s.accumulators)) {
        return BP_LIMIT;
    }
    if (bp_trainer_micro_batches(config) > 1) {
        s.sum = graph->nparams * sizeof(float); /* fits: less than best */
    }
    if (config->rollbacks > 0 &&
        !bp_size_mul(bp_trainer_start_elements(graph, bp_optimizer_slots(&config->optimizer)), sizeof(float),
                     &s.start)) {
        return BP_LIMIT;
    }
    *ret = s;
    return BP_OK;
}

/* Steps of an epoch, for a batch size of at least 1. */
static int64_t steps_of(const struct bp_train_config *c, uint64_t train_rows)
{
    uint64_t step = (uint64_t)c->batch_size * (uint64_t)bp_trainer_micro_batches(c);

    return (int64_t)((train_rows + step - 1) / step);
}

/* What the optimizer and the schedule are given; a comparison with NaN is false. */
static bool rates_are_sound(const struct bp_train_config *c)
{
    const struct bp_schedule *s = &c->schedule;

    return isfinite(c->optimizer.lr) && c->optimizer.lr >= 0.0 && s->warmup_epochs >= 0.0 &&
           s->nmilestones <= BP_MILESTONES_MAX && isfinite(s->max_lr) && s->max_lr >= 0.0 && isfinite(s->eta_min) &&
           (s->kind != BP_SCHEDULE_STEP || s->step_size >= 1) &&
           (s->kind != BP_SCHEDULE_COSINE_RESTARTS || (s->period >= 1 && s->growth >= 1)) &&
           (c->rollbacks < 1 || (c->rollback_factor > 0.0 && c->rollback_factor <= 1.0));
}

static bp_status check_config(const struct bp_train_config *c, const struct bp_graph *graph, uint64_t train_rows,
                              struct bp_error *err)
{
    uint64_t steps;

    if (c->epochs < 1 || c->batch_size < 1) {
        return bp_fail(err, BP_INVALID, "epochs and batch size must be at least 1");
    }
    if (c->threads < 1 || c->threads > BP_TEAM_MAX) {
        return bp_fail(err, BP_INVALID, "threads must be from 1 to %d, got %d", BP_TEAM_MAX, c->threads);
    }
    if (!rates_are_sound(c)) {
        return bp_fail(err, BP_INVALID, "the learning rate and its schedule must be finite numbers of at least 0");
    }
    if (!(c->clip_grad_norm >= 0.0) || !(c->clip_grad_value >= 0.0) || !(c->min_delta >= 0.0)) {
        return bp_fail(err, BP_INVALID, "clip_grad_norm, clip_grad_value and min_delta must be at least 0");
    }
    if (graph->nheads < 1 || graph->nparams < 1) {
        return bp_fail(err, BP_INVALID, "a network needs an output with a loss, and parameters to train");
    }
    if (train_rows < 1 || train_rows > UINT32_MAX) {
        return bp_fail(err, train_rows < 1 ? BP_INVALID : BP_LIMIT, "training needs 1 to %u rows", UINT32_MAX);
    }
    steps = (uint64_t)steps_of(c, train_rows) * (uint64_t)bp_trainer_micro_batches(c); /* each draws random numbers */
    if ((uint64_t)c->epochs > (uint64_t)STEPS_MAX / steps) {
        return bp_fail(err, BP_LIMIT, "%lld epochs are too many steps", (long long)c->epochs);
    }
    return BP_OK;
}

/* Values of a target that is no class for its head. */
static int values_of(const struct bp_source *source, const struct bp_target *target)
{
    return target->inputs       ? source->inputs
           : target->nparts > 0 ? target->nparts
           : target->is_class   ? 1
                                : target->count;
}

static bp_status check_rows(const struct bp_graph *graph, const struct bp_source *source,
                            const struct bp_split *split, struct bp_error *err)
{
    if (source->inputs != bp_shape_elements(&graph->nodes[0].shape) || source->ntargets != graph->nheads) {
        return bp_fail(err, BP_INVALID, "the data has %d inputs and %d targets, the network takes %lld and %d",
                       source->inputs, source->ntargets, (long long)bp_shape_elements(&graph->nodes[0].shape),
                       graph->nheads);
    }
    for (int h = 0; h < graph->nheads; h++) {
        const struct bp_head *head = &graph->heads[h];
        const struct bp_target *target = &source->targets[h];
        bool classes = bp_loss_takes_labels(head->loss);

        if (classes ? !target->is_class || target->classes > head->outputs
                    : head->outputs != values_of(source, target)) {
            return bp_fail_at(err, BP_INVALID, graph->nodes[head->node].name,
                              "%d outputs with the loss %s do not fit the target", head->outputs,
                              bp_loss_name(head->loss));
        }
    }
    for (int p = BP_TRAIN; p <= BP_VALIDATION; p++) {
        if (split->count[p] > 0 && split->rows[p][split->count[p] - 1] >= source->nrows) {
            return bp_fail(err, BP_MISMATCH, "the split belongs to a table of more than %llu rows",
                           (unsigned long long)source->nrows);
        }
    }
    return BP_OK;
}

static bp_status check_monitor(const struct bp_train_config *c, const struct bp_graph *graph, struct bp_error *err)
{
    for (int h = 0; h < graph->nheads; h++) {
        if ((c->monitor.head == 0 || c->monitor.head == h + 1) &&
            bp_metric_applies(c->monitor.metric, graph->heads[h].loss)) {
            return BP_OK;
        }
    }
    return bp_fail(err, BP_INVALID, "%s cannot be monitored: no output has it", bp_metric_name(c->monitor.metric));
}

#define TOP_K 5 /* of top_k where nothing is said */

/* One array of scores, a head each; of validation rows with the ranks that auc needs. */
static bp_status make_scores(const struct bp_trainer *t, uint64_t rows, struct bp_scores ***ret, struct bp_error *err)
{
    const struct bp_graph *graph = t->graph;
    struct bp_scores **scores = bp_alloc((size_t)graph->nheads * sizeof *scores);
    bp_status status = scores == NULL ? bp_fail(err, BP_NOMEM, "no memory for metrics") : BP_OK;

    for (int h = 0; h < graph->nheads && status == BP_OK; h++) {
        status = bp_scores_new(&graph->heads[h], t->config.metrics, t->config.top_k > 0 ? t->config.top_k : TOP_K,
                               rows, &scores[h], err);
    }
    *ret = scores; /* also a part of them: the trainer frees it */
    return status;
}

static void free_scores(const struct bp_graph *graph, struct bp_scores **scores)
{
    for (int h = 0; scores != NULL && h < graph->nheads; h++) {
        bp_scores_free(scores[h]);
    }
    bp_free(scores);
}

static struct bp_layer_sampler_options sampler_options(const struct bp_train_config *config, uint64_t train_rows)
{
    return (struct bp_layer_sampler_options){
        .batch_size = config->batch_size, .threads = config->threads, .seed = config->seed, .nrows = train_rows};
}

static bp_status make_parts(struct bp_trainer *t, const struct sizes *s, struct bp_error *err)
{
    struct bp_exec_options train = {.capacity = s->capacity, .training = true, .threads = t->config.threads};
    struct bp_exec_options evaluate = {.capacity = s->evaluation_capacity, .threads = t->config.threads};
    bp_status status = bp_model_new(t->graph, true, bp_optimizer_slots(&t->config.optimizer), &t->model, err);

    if (status != BP_OK) {
        return status;
    }
    status = bp_exec_new(t->model, &train, &t->exec, err);
    if (status != BP_OK) {
        return status;
    }
    if (t->split->count[BP_VALIDATION] > 0) {
        status = bp_exec_new(t->model, &evaluate, &t->evaluation, err);
        if (status != BP_OK) {
            return status;
        }
    }
    t->order = bp_alloc(s->order);
    t->best = bp_alloc(s->best);
    t->sum = s->sum > 0 ? bp_alloc(s->sum) : NULL;
    t->start = s->start > 0 ? bp_alloc(s->start) : NULL;
    t->epoch_accs = bp_alloc(s->accumulators);
    t->validation_accs = bp_alloc(s->accumulators);
    if (t->order == NULL || t->best == NULL || t->epoch_accs == NULL || t->validation_accs == NULL ||
        (s->sum > 0 && t->sum == NULL) || (s->start > 0 && t->start == NULL)) {
        return bp_fail(err, BP_NOMEM, "no memory for a training run of %zu parameters", t->graph->nparams);
    }
    t->stats_before = t->best + t->graph->nparams + t->graph->nstats;
    if (t->config.layer_stats) {
        struct bp_layer_sampler_options o = sampler_options(&t->config, t->split->count[BP_TRAIN]);
        o.rows = t->split->rows[BP_TRAIN];
        status = bp_layer_sampler_new(t->model, t->source, &o, &t->sampler, err);
        if (status != BP_OK) {
            return status;
        }
    }
    status = make_scores(t, 0, &t->epoch_scores, err);
    if (status == BP_OK && t->split->count[BP_VALIDATION] > 0) {
        status = make_scores(t, t->split->count[BP_VALIDATION], &t->validation_scores, err);
    }
    return status == BP_OK ? bp_initialize(t->model, t->config.seed, err) : status;
}

/* Bytes of parameters and slots from which an update goes to memory for them. What fits the caches is updated as fast
 * after the pass, and needs no stage for the proof. */
#define FUSED_BYTES (16 << 20)

/* Whether steps may update within their pass: neither penalties nor clipping nor lamb, which want all gradients. */
static bool may_fuse(const struct bp_train_config *c, const struct bp_graph *graph)
{
    size_t each = (1 + (size_t)bp_optimizer_slots(&c->optimizer)) * sizeof(float), updated = 0;

    for (int i = 0; i < graph->ntensors; i++) {
        const struct bp_tensor *tensor = &graph->tensors[i];

        if (tensor->l1 != 0.0 || tensor->l2 != 0.0) {
            return false;
        }
        updated += tensor->trainable && !tensor->statistic ? tensor->count : 0;
    }
    return updated >= FUSED_BYTES / each && c->clip_grad_norm == 0.0 && c->clip_grad_value == 0.0 &&
           bp_optimizer_by_pieces(&c->optimizer);
}

bp_status bp_trainer_new(const struct bp_train_config *config, const struct bp_graph *graph,
                         const struct bp_source *source, const struct bp_split *split, struct bp_trainer **ret,
                         struct bp_error *err)
{
    uint64_t rows = split->count[BP_TRAIN];
    struct bp_trainer *t = NULL;
    struct sizes sizes;
    bp_status status;

    if ((status = check_config(config, graph, rows, err)) != BP_OK ||
        (status = check_rows(graph, source, split, err)) != BP_OK ||
        (status = check_monitor(config, graph, err)) != BP_OK) {
        return status;
    }
    status = sizes_of(config, graph, rows, &sizes);
    if (status != BP_OK) {
        return bp_fail(err, status, "a training run of this size does not fit the address space");
    }
    t = bp_alloc(sizeof *t);
    if (t == NULL) {
        return bp_fail(err, BP_NOMEM, "no memory for a trainer");
    }
    t->config = *config;
    t->config.monitor.validation = config->monitor.validation && split->count[BP_VALIDATION] > 0;
    t->config.target.validation = config->target.validation && split->count[BP_VALIDATION] > 0;
    t->graph = graph;
    t->source = source;
    t->split = split;
    t->graph_fingerprint = bp_graph_fingerprint(graph);
    t->split_fingerprint = bp_split_fingerprint(split);
    t->capacity = sizes.capacity;
    t->evaluation_capacity = sizes.evaluation_capacity;
    t->steps_per_epoch = steps_of(config, rows);
    t->at.rate_factor = 1.0;
    t->at.last_loss = NAN;
    t->at.plateau.lr = config->optimizer.lr;
    t->order_epoch = -1;
    t->clip = 1.0;
    t->fuses = may_fuse(&t->config, graph);
    status = make_parts(t, &sizes, err);
    if (status != BP_OK) {
        bp_trainer_free(t);
        return status;
    }
    *ret = t;
    return BP_OK;
}

void bp_trainer_free(struct bp_trainer *t)
{
    if (t == NULL) {
        return;
    }
    bp_layer_sampler_free(t->sampler);
    bp_exec_free(t->exec);
    bp_exec_free(t->evaluation);
    bp_model_free(t->model);
    bp_free(t->order);
    bp_free(t->best);
    bp_free(t->sum);
    bp_free(t->start);
    bp_free(t->epoch_accs);
    bp_free(t->validation_accs);
    free_scores(t->graph, t->epoch_scores);
    free_scores(t->graph, t->validation_scores);
    bp_free(t);
}

bp_status bp_trainer_put(struct bp_trainer *t, bool statistics, size_t at, const float *values, size_t n,
                         struct bp_error *err)
{
    size_t have = statistics ? t->model->nstats : t->model->nparams;

    if (at > have || n > have - at) {
        return bp_fail(err, BP_INVALID, "%zu values from %zu on do not fit %zu", n, at, have);
    }
    memcpy((statistics ? t->model->stats : t->model->params) + at, values, n * sizeof *values);
    t->put = true;
    return BP_OK;
}

bp_status bp_trainer_estimate(const struct bp_train_config *config, const struct bp_graph *graph, uint64_t train_rows,
                              size_t *ret)
{
    int slots = bp_optimizer_slots(&config->optimizer);
    struct sizes s;
    size_t part[12] = {0}, sum = 0, counts = 0, scores = 0;
    bp_status status = check_config(config, graph, train_rows, NULL);

    if (status == BP_OK) {
        status = sizes_of(config, graph, train_rows, &s);
    }
    if (status == BP_OK) {
        status = bp_model_estimate(graph, true, slots, &part[0]);
    }
    if (status == BP_OK) {
        struct bp_exec_options o = {.capacity = s.capacity, .training = true, .threads = config->threads};
        status = bp_exec_estimate(graph, &o, &part[1]);
    }
    if (status == BP_OK) {
        struct bp_exec_options o = {.capacity = s.evaluation_capacity, .threads = config->threads};
        status = bp_exec_estimate(graph, &o, &part[2]);
    }
    if (status == BP_OK) {
        counts = bp_scores_counts(graph, config->metrics);
        status = bp_checkpoint_estimate(graph, slots, counts, config->rollbacks > 0, &part[3]);
    }
    if (status == BP_OK && config->layer_stats) {
        struct bp_layer_sampler_options o = sampler_options(config, train_rows);
        status = bp_layer_sampler_estimate(graph, &o, &part[9]);
    }
    if (status != BP_OK) {
        return status;
    }
    part[4] = s.order;
    part[5] = s.best;
    part[6] = 2 * s.accumulators;
    part[7] = sizeof(struct bp_trainer);
    for (int h = 0; h < graph->nheads; h++) {
        scores += bp_scores_estimate(&graph->heads[h], config->metrics, false) +
                  bp_scores_estimate(&graph->heads[h], config->metrics, true) + 2 * sizeof(struct bp_scores *);
    }
    part[8] = scores;
    part[10] = s.sum;
    part[11] = s.start;
    for (int i = 0; i < 12; i++) {
        if (!bp_size_add(sum, part[i], &sum)) {
            return BP_LIMIT;
        }
    }
    *ret = sum;
    return BP_OK;
}

void bp_trainer_profile(struct bp_trainer *t, struct bp_profile *profile)
{
    t->profile = profile;
    bp_exec_profile(t->exec, profile != NULL ? profile->nodes : NULL);
}

enum bp_stop_reason bp_trainer_stop_reason(const struct bp_trainer *t)
{
    return t->at.stop_reason;
}

void bp_trainer_progress(const struct bp_trainer *t, struct bp_progress *ret)
{
    *ret = (struct bp_progress){
        .epoch = t->at.epoch,
        .epochs = t->config.epochs,
        .step = t->at.step,
        .steps = t->config.epochs * t->steps_per_epoch,
        .samples = t->at.samples,
        .seconds = t->at.seconds,
        .batch_loss = t->batch_loss,
    };
}

void bp_trainer_best(const struct bp_trainer *t, struct bp_best *ret)
{
    *ret = t->at.best;
}

static bool hands_out_best(const struct bp_trainer *t)
{
    return t->config.restore_best && t->at.best.any;
}

const float *bp_trainer_final_params(const struct bp_trainer *t)
{
    return hands_out_best(t) ? t->best : t->model->params;
}

const float *bp_trainer_final_stats(const struct bp_trainer *t)
{
    return hands_out_best(t) ? t->best + t->graph->nparams : t->model->stats;
}
