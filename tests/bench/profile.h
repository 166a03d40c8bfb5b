/* profile.h: where the time of a training step goes: forward, backward data, backward weights, update, other, for each
 * layer; and the bytes that a step has to move.
 *
 * Everything is microseconds of an average step. What several threads do at a time counts its share of the clock: ticks
 * of all threads over the number of threads that took part. So the layers and the rest add up to the step:
 *   update   one pass over all parameters, with packing: a layer has the share of its parameters
 *   loss     with its error signal; in the layer whose value it judges
 *   gather   the batch from the table, wherever that is done
 *   check    of the gradients, before the update
 *   metrics  of the batch, for the epoch's figures
 *   wait     of the pass, what is no layer's: barriers, uneven shares, handing out tasks
 *   host     between two steps: the loop, hooks, the end of an epoch
 * Reading the clock costs something itself: step_us is of the profiled run, and unprofiled_step_us of the run before.
 *
 * Threads: one profile belongs to one trainer.
 */
#ifndef BP_BENCH_PROFILE_H
#define BP_BENCH_PROFILE_H

#include "workload.h"

struct profile {
    struct bp_profile engine; /* what the trainer fills */
    int threads;
    size_t cells;                  /* of engine.nodes */
    uint64_t begin_tick, end_tick; /* of the steps profiled */
    double begin, seconds;
    int64_t begin_step, steps;
    int64_t begin_samples, samples;
};

void profile_init(struct profile *ret, const struct bp_graph *graph, int threads);
void profile_done(struct profile *profile);

/* Steps count from here on, and up to here. Called between two steps. */
void profile_begin(struct profile *profile, const struct bp_progress *at);
void profile_end(struct profile *profile, const struct bp_progress *at);

/* A JSON line for each layer and one for the whole step on stdout, a table of the same on stderr. peak: GFLOP/s of the
 * threads, for the fractions; plain: seconds of a step without a profile. */
void profile_print(const struct profile *profile, const struct workload *workload, double peak, double plain);

/* Bytes that a step moves at least, when what lives no longer than a stage stays in cache and each other number is
 * written once and read once: parameters, gradients, optimizer slots, packed weights, the values and error signals
 * that wait for a later stage (all from the memory plan), and the rows of the batch. */
size_t bytes_of_step(const struct bp_trainer *trainer);

#endif
