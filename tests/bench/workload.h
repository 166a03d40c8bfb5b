/* workload.h: a row of workloads.json as the trainer wants it: a network, random rows in a stored table, a configuration.
 *
 * The format: {"name", "rows", "batch", "input": [shape], "layers": [...], "loss": "mse" or "softmax_cross_entropy",
 * "optimizer": "adam" or "sgd" (with momentum 0.9)}. Layers: ["dense", units, activation], ["conv2d", filters, kernel,
 * activation] (stride 1, padding "same"), ["maxpool2d", size], ["batchnorm"], [activation]; the activation may be left
 * out. A dense layer after an image flattens it.
 *
 * It ends the program on what it cannot read: it belongs to a command, not to a library.
 */
#ifndef BP_BENCH_WORKLOAD_H
#define BP_BENCH_WORKLOAD_H

#include "train/trainer.h"

#include <jansson.h>

struct workload {
    const char *name; /* borrowed from the JSON */
    struct bp_graph *graph;
    struct bp_train_config config; /* threads 1 */
    struct bp_source source;
    struct bp_feature feature;
    struct bp_target target;
    struct bp_split split;
    float *rows; /* inputs, then one float of target */
};

/* "backpropd-bench: what: message" on stderr, and the end; err may be NULL. */
_Noreturn void die(const char *what, const struct bp_error *err);

/* False, with a word on stderr, when this build has no layer of a name. */
bool workload_init(struct workload *ret, const json_t *json);
void workload_done(struct workload *workload);

#endif
