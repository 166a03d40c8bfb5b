/* checkpoint.h: the whole state of a training run as bytes, and back.
 *
 * Little-endian, no padding, independent of the machine. A fixed header (struct bp_checkpoint_header), then the
 * sections that its flags name, in this order:
 *   params      nparams f32, canonical tensors (never packed), in the order of the graph
 *   slots       nslots * nparams f32
 *   statistics  nstats f32
 *   best        nparams + nstats f32, when the best parameters are not the present ones
 *   start       nparams, nslots * nparams, nstats f32: the state at the start of the open epoch, where rollbacks need it
 *               (since version 3)
 *   epoch       the accumulators of the open epoch, one a head
 *   counts      ncounts f64, the counts of its scores, head after head (since version 2)
 *   trailer     64 bits of a hash over all bytes before it
 * Not stored because they are functions of what is: permutation, random numbers, learning rate.
 *
 * To change the format: raise BP_CHECKPOINT_VERSION, add the new fields at the end of the header, and let
 * bp_checkpoint_read fill them for older versions.
 */
#ifndef BP_TRAIN_CHECKPOINT_H
#define BP_TRAIN_CHECKPOINT_H

#include "train/trainer.h"

#define BP_CHECKPOINT_VERSION 3

/* What a checkpoint says about itself; doubles are stored as their 64 bits. */
struct bp_checkpoint_header {
    uint32_t version, numerics; /* BP_CHECKPOINT_VERSION, BP_NUMERICS_VERSION of the writer */
    uint64_t graph_fingerprint; /* of names, shapes and kinds: must match */
    uint64_t split_fingerprint;
    uint64_t nparams, nstats, nslots, nheads;
    uint64_t seed;
    int64_t epoch;      /* finished epochs */
    int64_t step;       /* finished steps in all */
    int64_t epoch_step; /* finished steps of the open epoch: 0 at its start */
    int64_t samples;
    double seconds;
    struct bp_best best;
    int64_t bad_epochs;   /* epochs since the monitor improved */
    uint32_t stop_reason; /* enum bp_stop_reason; not NONE: training had ended */
    bool has_best;        /* a section of its own for the best parameters */
    uint64_t ncounts;     /* of scores by class in the open epoch; since version 2 */
    /* Since version 3; in older ones as if nothing had happened. */
    int64_t rollbacks;
    double rate_factor, last_loss; /* of the rollbacks; the monitored loss of the last epoch (NaN: none) */
    struct bp_plateau plateau;     /* of the plateau schedule; an older one has the rate 0, which stands for none */
    bool has_start;                /* a section for the state at the start of the epoch */
};

/* Bytes of a checkpoint of this trainer, at most. */
size_t bp_checkpoint_size(const struct bp_trainer *trainer);

/* Writes a checkpoint into buffer (capacity bytes, at least bp_checkpoint_size); *ret is its length. From within a
 * hook, or while no run is going on. */
bp_status bp_checkpoint_encode(const struct bp_trainer *trainer, uint8_t *buffer, size_t capacity, size_t *ret,
                               struct bp_error *err);

/* Puts a trainer of the same configuration, graph and split into the state of a checkpoint. BP_CORRUPT (damaged),
 * BP_MISMATCH (of another model, split or seed); the trainer is then unchanged. *ret_exact is false when the
 * checkpoint was made under another numerics version. */
bp_status bp_checkpoint_restore(struct bp_trainer *trainer, const uint8_t *bytes, size_t size, bool *ret_exact,
                                struct bp_error *err);

/* Reads the header and points at the parameters, without a trainer: for predictions and exports. best chooses the
 * best parameters where they have a section of their own. *ret_params points into bytes and may be unaligned;
 * *ret_stats likewise. Checks everything (lengths, trailer) first. */
bp_status bp_checkpoint_read(const uint8_t *bytes, size_t size, bool best, struct bp_checkpoint_header *ret_header,
                             const uint8_t **ret_params, const uint8_t **ret_stats, struct bp_error *err);

/* Where the sections of a checkpoint begin, in bytes from its start; 0 for a section that it does not have. The
 * trailer takes the last 8 bytes of `size`. */
struct bp_checkpoint_layout {
    struct bp_checkpoint_header header;
    uint64_t params, slots, stats;
    uint64_t best_params, best_stats;
    uint64_t start;
    uint64_t size;
};

#define BP_CHECKPOINT_HEADER_MAX 1024 /* no header, of this version or an older one, is longer */

/* Reads the layout from the first n bytes alone (BP_CHECKPOINT_HEADER_MAX of them, or all there are), so that an
 * export can take a large checkpoint piece by piece. Checks the header and that its sections make up `size` bytes:
 * BP_CORRUPT where not. The sections themselves are not looked at. */
bp_status bp_checkpoint_layout(const uint8_t *start, size_t n, uint64_t size, struct bp_checkpoint_layout *ret,
                               struct bp_error *err);

/* 64 bits over what a graph's parameters mean: kinds, names, shapes, connections. */
uint64_t bp_graph_fingerprint(const struct bp_graph *graph);

#endif
