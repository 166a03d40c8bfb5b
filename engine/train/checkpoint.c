/* checkpoint.c: a training run as bytes.
 *
 * The header is written and read by one table of its fields, so the two cannot disagree. Reading trusts nothing:
 * the lengths must add up to the size given, without overflow, before a section is touched, and the hash at the
 * end must be right before a number is believed. Restoring checks everything first and then cannot fail.
 */
#include "train/checkpoint.h"

#include "base/memory.h"
#include "train/hash.h"
#include "train/state.h"

#include <math.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are stored as they lie in memory: little-endian");
_Static_assert(sizeof(size_t) == sizeof(uint64_t), "lengths are 64 bits");
_Static_assert(sizeof(struct bp_accumulator) == 9 * sizeof(double), "an accumulator is stored as its doubles");

#define MAGIC "BPCKPT\r\n" /* the line end shows when something took the bytes for text */
#define MAGIC_SIZE 8
#define TRAILER_SIZE 8

/* The stored header: fields one after the other in this order, each in this many bytes. For a new version append to
 * the table; a header of an older version ends where its fields end. */
static const struct {
    size_t offset, size;
    uint32_t since; /* first version that has it */
} fields[] = {
#define FIELD(name, version)                                                                                         \
    {                                                                                                                \
        offsetof(struct bp_checkpoint_header, name), sizeof(((struct bp_checkpoint_header *)0)->name), version       \
    }
    FIELD(version, 1),
    FIELD(numerics, 1),
    FIELD(graph_fingerprint, 1),
    FIELD(split_fingerprint, 1),
    FIELD(nparams, 1),
    FIELD(nstats, 1),
    FIELD(nslots, 1),
    FIELD(nheads, 1),
    FIELD(seed, 1),
    FIELD(epoch, 1),
    FIELD(step, 1),
    FIELD(epoch_step, 1),
    FIELD(samples, 1),
    FIELD(seconds, 1),
    FIELD(best.any, 1),
    FIELD(best.epoch, 1),
    FIELD(best.step, 1),
    FIELD(best.value, 1),
    FIELD(bad_epochs, 1),
    FIELD(stop_reason, 1),
    FIELD(has_best, 1),
    FIELD(ncounts, 2),
    FIELD(rollbacks, 3),
    FIELD(rate_factor, 3),
    FIELD(last_loss, 3),
    FIELD(plateau.any, 3),
    FIELD(plateau.best, 3),
    FIELD(plateau.bad, 3),
    FIELD(plateau.cooling, 3),
    FIELD(plateau.lr, 3),
    FIELD(has_start, 3),
#undef FIELD
};

#define NFIELDS (sizeof fields / sizeof fields[0])

static size_t header_size(uint32_t version)
{
    size_t size = MAGIC_SIZE;

    for (size_t i = 0; i < NFIELDS; i++) {
        size += fields[i].since <= version ? fields[i].size : 0;
    }
    return size;
}

/* Fills in where the sections lie; false on overflow. The header's counts must be set. */
static bool lay_out(struct bp_checkpoint_layout *l)
{
    const struct bp_checkpoint_header *h = &l->header;
    size_t at = header_size(h->version), params, slots, stats, accs, counts;

    if (!bp_size_mul(h->nparams, sizeof(float), &params) || !bp_size_mul(params, h->nslots, &slots) ||
        !bp_size_mul(h->nstats, sizeof(float), &stats) ||
        !bp_size_mul(h->nheads, sizeof(struct bp_accumulator), &accs) ||
        !bp_size_mul(h->ncounts, sizeof(double), &counts)) {
        return false;
    }
    l->params = at;
    if (!bp_size_add(at, params, &at)) {
        return false;
    }
    l->slots = slots > 0 ? at : 0;
    if (!bp_size_add(at, slots, &at)) {
        return false;
    }
    l->stats = stats > 0 ? at : 0;
    if (!bp_size_add(at, stats, &at)) {
        return false;
    }
    l->best_params = h->has_best ? at : 0;
    if (h->has_best && !bp_size_add(at, params, &at)) {
        return false;
    }
    l->best_stats = h->has_best && stats > 0 ? at : 0;
    if (h->has_best && !bp_size_add(at, stats, &at)) {
        return false;
    }
    l->start = h->has_start ? at : 0;
    if (h->has_start &&
        (!bp_size_add(at, params, &at) || !bp_size_add(at, slots, &at) || !bp_size_add(at, stats, &at))) {
        return false;
    }
    if (!bp_size_add(at, accs, &at) || !bp_size_add(at, counts, &at) || !bp_size_add(at, TRAILER_SIZE, &at)) {
        return false;
    }
    l->size = at;
    return true;
}

/* Where the counts lie: the last section; and the accumulators before them. */
static size_t counts_at(const struct bp_checkpoint_layout *l)
{
    return l->size - TRAILER_SIZE - l->header.ncounts * sizeof(double);
}

static size_t accumulators_at(const struct bp_checkpoint_layout *l)
{
    return counts_at(l) - l->header.nheads * sizeof(struct bp_accumulator);
}

/* The counts of the open epoch into bytes, or (to_bytes false) out of them. */
static void copy_counts(const struct bp_trainer *t, uint8_t *bytes, bool to_bytes)
{
    for (int h = 0; h < t->graph->nheads; h++) {
        struct bp_scores *scores = t->epoch_scores[h];
        size_t size = scores->ncounts * sizeof *scores->counts;

        if (size > 0) {
            memcpy(to_bytes ? (void *)bytes : scores->counts, to_bytes ? (void *)scores->counts : bytes, size);
        }
        if (!to_bytes) {
            scores->rows = t->epoch_accs[h].rows;
        }
        bytes += size;
    }
}

static size_t ncounts_of(const struct bp_trainer *t)
{
    return bp_scores_counts(t->graph, t->config.metrics);
}

bp_status bp_checkpoint_estimate(const struct bp_graph *graph, int nslots, size_t ncounts, bool start, size_t *ret)
{
    struct bp_checkpoint_layout l = {.header = {.version = BP_CHECKPOINT_VERSION,
                                                .nparams = graph->nparams,
                                                .nstats = graph->nstats,
                                                .nslots = (uint64_t)nslots,
                                                .nheads = (uint64_t)graph->nheads,
                                                .has_best = true,
                                                .ncounts = ncounts,
                                                .has_start = start}};

    if (!lay_out(&l)) {
        return BP_LIMIT;
    }
    *ret = l.size;
    return BP_OK;
}

size_t bp_checkpoint_size(const struct bp_trainer *trainer)
{
    size_t size = 0; /* no overflow: the trainer's own blocks are larger */

    bp_checkpoint_estimate(trainer->graph, trainer->model->nslots, ncounts_of(trainer), trainer->start != NULL,
                           &size);
    return size;
}

/* At the start of an epoch the state is its own start. */
static bool needs_start(const struct bp_trainer *t, int64_t epoch_step)
{
    return t->start != NULL && epoch_step > 0;
}

static size_t start_size(const struct bp_trainer *t)
{
    return bp_trainer_start_elements(t->graph, t->model->nslots) * sizeof(float);
}

static struct bp_checkpoint_header header_of(const struct bp_trainer *t)
{
    return (struct bp_checkpoint_header){
        .version = BP_CHECKPOINT_VERSION,
        .numerics = BP_NUMERICS_VERSION,
        .graph_fingerprint = t->graph_fingerprint,
        .split_fingerprint = t->split_fingerprint,
        .nparams = t->graph->nparams,
        .nstats = t->graph->nstats,
        .nslots = (uint64_t)t->model->nslots,
        .nheads = (uint64_t)t->graph->nheads,
        .seed = t->config.seed,
        .epoch = t->at.epoch,
        .step = t->at.step,
        .epoch_step = t->at.epoch_step,
        .samples = t->at.samples,
        .seconds = t->at.seconds,
        .best = t->at.best,
        .bad_epochs = t->at.bad_epochs,
        .stop_reason = (uint32_t)t->at.stop_reason,
        .has_best = bp_trainer_best_is_apart(t),
        .ncounts = ncounts_of(t),
        .rollbacks = t->at.rollbacks,
        .rate_factor = t->at.rate_factor,
        .last_loss = t->at.last_loss,
        .plateau = t->at.plateau,
        .has_start = needs_start(t, t->at.epoch_step),
    };
}

bp_status bp_checkpoint_encode(const struct bp_trainer *t, uint8_t *buffer, size_t capacity, size_t *ret,
                               struct bp_error *err)
{
    struct bp_checkpoint_layout l = {.header = header_of(t)};
    size_t params = t->graph->nparams * sizeof(float), stats = t->graph->nstats * sizeof(float);
    uint8_t *p = buffer + MAGIC_SIZE;
    uint64_t hash;

    if (!lay_out(&l) || l.size > capacity) {
        return bp_fail(err, BP_LIMIT, "a checkpoint of %llu bytes does not fit a buffer of %zu",
                       (unsigned long long)l.size, capacity);
    }
    memcpy(buffer, MAGIC, MAGIC_SIZE);
    for (size_t i = 0; i < NFIELDS; i++) {
        memcpy(p, (const uint8_t *)&l.header + fields[i].offset, fields[i].size);
        p += fields[i].size;
    }
    memcpy(buffer + l.params, t->model->params, params);
    for (int s = 0; s < t->model->nslots; s++) {
        memcpy(buffer + l.slots + (size_t)s * params, t->model->slots[s], params);
    }
    if (stats > 0) {
        memcpy(buffer + l.stats, t->model->stats, stats);
    }
    if (l.header.has_best) {
        memcpy(buffer + l.best_params, t->best, params + stats);
    }
    if (l.header.has_start) {
        memcpy(buffer + l.start, t->start, start_size(t));
    }
    memcpy(buffer + accumulators_at(&l), t->epoch_accs, (size_t)t->graph->nheads * sizeof *t->epoch_accs);
    copy_counts(t, buffer + counts_at(&l), true);
    hash = bp_hash_bytes(BP_HASH_START, buffer, l.size - TRAILER_SIZE);
    memcpy(buffer + l.size - TRAILER_SIZE, &hash, sizeof hash);
    *ret = l.size;
    return BP_OK;
}

static bp_status damaged(struct bp_error *err, const char *what)
{
    return bp_fail(err, BP_CORRUPT, "the checkpoint is damaged: %s", what);
}

/* Reads the fields of the header. A bool is a byte of 0 or 1, checked before it is one. */
static bp_status read_header(const uint8_t *start, size_t n, struct bp_checkpoint_header *ret, struct bp_error *err)
{
    struct bp_checkpoint_header h = {.rate_factor = 1.0, .last_loss = NAN}; /* what older versions do not say */
    const uint8_t *p = start + MAGIC_SIZE;

    if (n < MAGIC_SIZE + sizeof h.version || memcmp(start, MAGIC, MAGIC_SIZE) != 0) {
        return damaged(err, "it does not begin like one");
    }
    memcpy(&h.version, p, sizeof h.version);
    if (h.version < 1) {
        return damaged(err, "its version is 0");
    }
    if (h.version > BP_CHECKPOINT_VERSION) {
        return bp_fail(err, BP_MISMATCH, "the checkpoint has version %u, this program reads up to %d", h.version,
                       BP_CHECKPOINT_VERSION);
    }
    if (n < header_size(h.version)) {
        return damaged(err, "its header is cut off");
    }
    for (size_t i = 0; i < NFIELDS; i++) {
        uint8_t *to = (uint8_t *)&h + fields[i].offset;

        if (fields[i].since > h.version) {
            continue;
        }
        if (fields[i].size == sizeof(bool) && *p > 1) {
            return damaged(err, "a flag is neither 0 nor 1");
        }
        memcpy(to, p, fields[i].size);
        p += fields[i].size;
    }
    if (h.nslots > BP_SLOTS_MAX || h.nheads > BP_NODES_MAX || h.stop_reason >= BP_STOP_COUNT || h.epoch < 0 ||
        h.step < 0 || h.epoch_step < 0 || h.samples < 0 || h.bad_epochs < 0 || !isfinite(h.seconds) ||
        h.seconds < 0.0 || (h.has_best && !h.best.any) || h.rollbacks < 0 ||
        !(h.rate_factor >= 0.0 && h.rate_factor <= 1.0) || !isfinite(h.plateau.lr) || h.plateau.lr < 0.0 ||
        h.plateau.bad < 0 || h.plateau.cooling < 0) {
        return damaged(err, "a figure of its header is impossible");
    }
    *ret = h;
    return BP_OK;
}

bp_status bp_checkpoint_layout(const uint8_t *start, size_t n, uint64_t size, struct bp_checkpoint_layout *ret,
                               struct bp_error *err)
{
    struct bp_checkpoint_layout l = {0};
    bp_status status = read_header(start, n, &l.header, err);

    if (status != BP_OK) {
        return status;
    }
    if (!lay_out(&l) || l.size != size) {
        return damaged(err, "its length is not that of its sections");
    }
    *ret = l;
    return BP_OK;
}

/* The layout of a whole checkpoint with its hash checked. */
static bp_status read_whole(const uint8_t *bytes, size_t size, struct bp_checkpoint_layout *ret, struct bp_error *err)
{
    bp_status status = bp_checkpoint_layout(bytes, size, size, ret, err);
    uint64_t hash;

    if (status != BP_OK) {
        return status;
    }
    memcpy(&hash, bytes + size - TRAILER_SIZE, sizeof hash);
    if (hash != bp_hash_bytes(BP_HASH_START, bytes, size - TRAILER_SIZE)) {
        return damaged(err, "its hash is wrong");
    }
    return BP_OK;
}

bp_status bp_checkpoint_read(const uint8_t *bytes, size_t size, bool best, struct bp_checkpoint_header *ret_header,
                             const uint8_t **ret_params, const uint8_t **ret_stats, struct bp_error *err)
{
    struct bp_checkpoint_layout l;
    bp_status status = read_whole(bytes, size, &l, err);

    if (status != BP_OK) {
        return status;
    }
    best = best && l.header.has_best;
    *ret_header = l.header;
    *ret_params = bytes + (best ? l.best_params : l.params);
    *ret_stats = l.header.nstats == 0 ? NULL : bytes + (best ? l.best_stats : l.stats);
    return BP_OK;
}

/* Whether a sound checkpoint belongs to this trainer. */
static bp_status check_match(const struct bp_trainer *t, const struct bp_checkpoint_header *h, struct bp_error *err)
{
    int64_t steps, rows;

    if (h->graph_fingerprint != t->graph_fingerprint || h->nparams != t->graph->nparams ||
        h->nstats != t->graph->nstats || h->nheads != (uint64_t)t->graph->nheads) {
        return bp_fail(err, BP_MISMATCH, "the checkpoint is of another network");
    }
    if (h->split_fingerprint != t->split_fingerprint) {
        return bp_fail(err, BP_MISMATCH, "the checkpoint was made with another split of the rows");
    }
    if (h->seed != t->config.seed) {
        return bp_fail(err, BP_MISMATCH, "the checkpoint has seed %llu, the job has %llu",
                       (unsigned long long)h->seed, (unsigned long long)t->config.seed);
    }
    if (h->ncounts != ncounts_of(t)) {
        return bp_fail(err, BP_MISMATCH, "the checkpoint was made with other metrics");
    }
    if (h->nslots != (uint64_t)t->model->nslots) {
        return bp_fail(err, BP_MISMATCH, "the checkpoint was made with another optimizer");
    }
    if (h->has_start != needs_start(t, h->epoch_step)) {
        return bp_fail(err, BP_MISMATCH, "the checkpoint was made with another way to answer divergence");
    }
    if (h->epoch_step >= t->steps_per_epoch || __builtin_mul_overflow(h->epoch, t->steps_per_epoch, &steps) ||
        __builtin_mul_overflow(h->epoch, (int64_t)t->split->count[BP_TRAIN], &rows) ||
        h->step - h->epoch_step != steps ||
        h->samples - h->epoch_step * t->config.batch_size * bp_trainer_micro_batches(&t->config) != rows) {
        return bp_fail(err, BP_MISMATCH, "the checkpoint was made with another batch size");
    }
    return BP_OK;
}

/* A run that had ended because its epochs or its seconds were over goes on when there are more of them now. */
static enum bp_stop_reason stop_reason_now(const struct bp_trainer *t, const struct bp_checkpoint_header *h)
{
    if (h->stop_reason == BP_STOP_MAX_EPOCHS && h->epoch < t->config.epochs) {
        return BP_STOP_NONE;
    }
    if (h->stop_reason == BP_STOP_TIME && h->seconds < t->config.max_seconds) {
        return BP_STOP_NONE;
    }
    return (enum bp_stop_reason)h->stop_reason;
}

bp_status bp_checkpoint_restore(struct bp_trainer *t, const uint8_t *bytes, size_t size, bool *ret_exact,
                                struct bp_error *err)
{
    size_t params = t->graph->nparams * sizeof(float), stats = t->graph->nstats * sizeof(float);
    struct bp_checkpoint_layout l;
    const struct bp_checkpoint_header *h = &l.header;
    bp_status status = read_whole(bytes, size, &l, err);

    if (status == BP_OK) {
        status = check_match(t, h, err);
    }
    if (status != BP_OK) {
        return status;
    }
    memcpy(t->model->params, bytes + l.params, params);
    for (int s = 0; s < t->model->nslots; s++) {
        memcpy(t->model->slots[s], bytes + l.slots + (size_t)s * params, params);
    }
    if (stats > 0) {
        memcpy(t->model->stats, bytes + l.stats, stats);
    }
    if (h->has_best) {
        memcpy(t->best, bytes + l.best_params, params + stats);
    } else if (h->best.any) {
        memcpy(t->best, t->model->params, params);
        if (stats > 0) {
            memcpy(t->best + t->graph->nparams, t->model->stats, stats);
        }
    }
    if (h->has_start) {
        memcpy(t->start, bytes + l.start, start_size(t));
    }
    memcpy(t->epoch_accs, bytes + accumulators_at(&l), (size_t)t->graph->nheads * sizeof *t->epoch_accs);
    copy_counts(t, (uint8_t *)bytes + counts_at(&l), false);
    t->at = (struct bp_position){
        .epoch = h->epoch,
        .step = h->step,
        .epoch_step = h->epoch_step,
        .samples = h->samples,
        .seconds = h->seconds,
        .best = h->best,
        .bad_epochs = h->bad_epochs,
        .stop_reason = stop_reason_now(t, h),
        .rollbacks = h->rollbacks,
        .rate_factor = h->rate_factor,
        .last_loss = h->last_loss,
        .plateau = h->plateau,
    };
    if (h->version < 3) {
        t->at.plateau.lr = t->config.optimizer.lr;
    }
    bp_model_pack(t->model, NULL);
    *ret_exact = h->numerics == BP_NUMERICS_VERSION;
    return BP_OK;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
    return bp_hash_bytes(hash, text, strlen(text));
}

static uint64_t hash_shape(uint64_t hash, const struct bp_shape *shape)
{
    hash = bp_hash_word(hash, (uint64_t)shape->rank);
    for (int i = 0; i < shape->rank; i++) {
        hash = bp_hash_word(hash, (uint64_t)shape->dim[i]);
    }
    return hash;
}

static uint64_t hash_node(uint64_t hash, const struct bp_node *node)
{
    hash = hash_text(bp_hash_word(hash, (uint64_t)node->kind), node->name);
    hash = hash_shape(bp_hash_word(hash, (uint64_t)node->ninputs), &node->shape);
    for (int i = 0; i < node->ninputs; i++) {
        hash = bp_hash_word(hash, (uint64_t)node->input[i]);
    }
    if (node->kind == BP_OP_SIMPLE_RNN || node->kind == BP_OP_LSTM || node->kind == BP_OP_GRU) {
        hash = bp_hash_word(hash, (uint64_t)node->u.recurrent.activation << 2 |
                                      (uint64_t)node->u.recurrent.reverse << 1 | node->u.recurrent.return_sequences);
    }
    if (node->kind == BP_OP_ACTIVATION) {
        hash = bp_hash_word(hash, (uint64_t)node->u.activation.kind);
        hash = bp_hash_bytes(hash, &node->u.activation.alpha, sizeof node->u.activation.alpha);
    }
    return hash;
}

uint64_t bp_graph_fingerprint(const struct bp_graph *graph)
{
    uint64_t hash = BP_HASH_START;

    for (int i = 0; i < graph->nnodes; i++) {
        hash = hash_node(hash, &graph->nodes[i]);
    }
    for (int i = 0; i < graph->ntensors; i++) {
        hash = hash_shape(hash_text(hash, graph->tensors[i].name), &graph->tensors[i].shape);
        hash = bp_hash_word(hash, graph->tensors[i].statistic);
    }
    for (int i = 0; i < graph->nheads; i++) {
        hash = bp_hash_word(hash, (uint64_t)graph->heads[i].node);
        hash = bp_hash_word(hash, (uint64_t)graph->heads[i].loss);
    }
    return hash;
}
