/* initialize.h: the first parameters of a network.
 *
 *   glorot: Glorot & Bengio 2010; he: He et al. 2015; lecun: LeCun et al. 1998; orthogonal: Saxe et al. 2014
 *   uniform limits: glorot sqrt(6 / (in + out)), he sqrt(6 / in), lecun sqrt(3 / in), kaiming_uniform 1 / sqrt(in)
 *   normal deviations: glorot sqrt(2 / (in + out)), he sqrt(2 / in), lecun sqrt(1 / in)
 *   truncated_normal redraws nothing: it inverts the distribution cut at two deviations
 * Element i of tensor t is a function of (seed, t, i) alone.
 *
 * Threads: pure, apart from writing the model.
 */
#ifndef BP_TRAIN_INITIALIZE_H
#define BP_TRAIN_INITIALIZE_H

#include "graph/model.h"

/* Fills params (literal values where a tensor has them) and the statistics, zeroes gradients and slots, packs.
 * BP_NOMEM (orthogonal needs a work matrix). */
bp_status bp_initialize(struct bp_model *model, uint64_t seed, struct bp_error *err);

#endif
