/* exec.h: running a model: the forward pass, the losses, the backward pass.
 *
 * An execution is made for one model and one batch capacity. Making it derives the backward program from the op
 * table by reverse-mode differentiation, plans where each value and each gradient lives (by liveness, in one
 * arena) and groups the instructions into stages; running it allocates nothing.
 *
 *   forward:  z = W x + b, a = f(z), node after node        (stages over blocks of rows, or over columns)
 *   loss:     L, and the error signal dL/dz of the output
 *   backward: the error signal of each earlier node by the chain rule, and the gradient of each parameter, summed
 *             over the batch in chunks of BP_ROW_CHUNK rows whose partial sums are added in ascending order
 *
 * The first contribution to a gradient is a write, later ones add; both are decided when the plan is made. The
 * gradient of the input is computed only when asked for. How the theory maps to the program: autodiff.c.
 *
 * A pass of less than two million operations runs on the calling thread alone, whatever the team: it is over before
 * a second thread would have begun.
 *
 * A pass in training mode also moves the running statistics of batch_norm in model->stats: once, whether or not its
 * numbers turn out finite. A caller who does not want that puts them back, or freezes the layer.
 *
 * Threads: one execution is used by one caller (and its team) at a time; any number may share a model, as long as none
 * of them runs a pass that writes it: gradients, running statistics, or an update within the pass.
 */
#ifndef BP_GRAPH_EXEC_H
#define BP_GRAPH_EXEC_H

#include "base/real.h"
#include "base/team.h"
#include "graph/model.h"

#define BP_ROW_CHUNK 128 /* rows of one chunk of a sum over rows; part of the numerics version */

struct bp_exec;

struct bp_exec_options {
    int capacity;        /* rows of the largest batch, at least 1 */
    bool training;       /* plan a backward pass too */
    bool input_gradient; /* compute dL/dinput as well */
    bool keep_all;       /* no reuse of memory: every value and gradient stays readable after a pass */
    int threads;         /* scratch for this many threads, at least the capacity of the team it runs with */
};

/* Where a batch's targets go. Arrays are owned by the execution; a head without labels has label NULL, etc. */
struct bp_targets {
    int32_t *label; /* (capacity): class of each row; heads whose loss takes labels */
    bp_real *value; /* (capacity, outputs): all other heads */
    float *weight;  /* (capacity): weight of each row, all 1 until written */
};

/* BP_INVALID (a graph without heads, options out of range, training with a model that has no gradients,
 * input_gradient without training), BP_LIMIT, BP_NOMEM. Borrows the model. */
bp_status bp_exec_new(struct bp_model *model, const struct bp_exec_options *options, struct bp_exec **ret,
                      struct bp_error *err);
void bp_exec_free(struct bp_exec *exec);

/* Bytes that bp_exec_new would take; BP_LIMIT on overflow. */
bp_status bp_exec_estimate(const struct bp_graph *graph, const struct bp_exec_options *options, size_t *ret);

/* The input buffer, (capacity, elements of the input), row-major; the caller fills the first rows before a pass. */
bp_real *bp_exec_input(struct bp_exec *exec);
const struct bp_targets *bp_exec_targets(struct bp_exec *exec, int head);

/* Says that the next pass is to get its rows by load(arg, row0, rows), which writes rows [row0, row0 + rows) of the input,
 * and of target values. It is called by the thread that is about to take these rows through the network, so that they are
 * in its cache. The rows' weights and labels have to be there before the pass. */
typedef void bp_exec_load(void *arg, int row0, int rows);
void bp_exec_feed(struct bp_exec *exec, bp_exec_load *load, void *arg);

/* Says that the head's targets are scaled by this factor from now on (1 before), so that huber's delta keeps the unit
 * that it was given in. */
void bp_exec_target_scale(struct bp_exec *exec, int head, double scale);

/* Forward pass of the first `rows` rows in prediction mode: dropout passes everything on. */
void bp_exec_forward(struct bp_exec *exec, struct bp_team *team, int rows);

/* A whole pass in training mode: forward, loss, and, where the execution was planned for training, backward into
 * model->grads, which it overwrites (trainable tensors that no loss depends on get 0). The loss minimised is the sum
 * over heads of weight * (weighted mean over rows), plus nothing else: penalties are the optimizer's. seed and step
 * drive dropout. With backward false, the forward pass and the losses are computed in prediction mode (evaluation).
 * Returns the weighted mean loss over the rows, in double, summed over rows in ascending order; a head whose rows
 * have no weight at all counts 0. */
double bp_exec_pass(struct bp_exec *exec, struct bp_team *team, int rows, bool backward, uint64_t seed,
                    uint64_t step);

/* Updating within the pass. A gradient that goes to memory, is looked at for numbers that are not finite, and is read
 * again for the update costs more than the update of its parameters would while it is in the cache. But nobody can
 * look at all gradients before the first update then. So the pass proves beforehand that they are sound: for a layer
 * with dW = dY^T X, by Cauchy and Schwarz,
 *     sum dW^2 <= sum_ij |dY_i|^2 |X_j|^2 = (sum dY^2) (sum X^2)
 * and every partial sum of an element is below the root of that. Two short sums tell whether all gradients are finite and
 * how large the sum of their squares can be.
 *
 * bp_exec_hand_over says that the next pass may do so, where all its parameter gradients have such a bound (bp_op.bound).
 * After the error signals, before the first parameter gradient, admit is called by the leader with the loss and with an
 * upper bound of the sum of squares of all gradients, rounding included; NaN or infinite where there is none. Where it
 * says true, model->grads stay as they are, and take is called with each piece of a gradient when it is finished, by the
 * thread that made it: it may change these parameters, which the pass reads no more. Where it says false the pass goes
 * on as ever. The gradients are the same to the bit. */
struct bp_exec_update {
    bool (*admit)(void *arg, double loss, double squares);
    void (*take)(void *arg, const struct bp_piece *piece, bp_real *gradient, size_t gradient_row);
    void *arg;
};
void bp_exec_hand_over(struct bp_exec *exec, const struct bp_exec_update *update);

/* Loss of each row (before weighting) of the last pass, (rows), of a head. */
const bp_real *bp_exec_row_losses(struct bp_exec *exec, int head);

/* Their mean, weighted by the rows, summed in double in ascending order; 0 where no row has a weight. */
double bp_exec_mean_loss(const struct bp_exec *exec, int head);

/* Value of a head's node after a pass, (rows, outputs). */
const bp_real *bp_exec_output(struct bp_exec *exec, int head);

/* Value of any node, and gradient of the loss by it; NULL where the plan reused or never made it. Meant for
 * executions with keep_all. A view (flatten) shares both with its input. */
const bp_real *bp_exec_value(struct bp_exec *exec, int node);
const bp_real *bp_exec_gradient(struct bp_exec *exec, int node);
const bp_real *bp_exec_input_gradient(struct bp_exec *exec);
/* What a node's op left in its workspace in the last pass (op.h); NULL without one, or without keep_all. */
const bp_real *bp_exec_workspace(struct bp_exec *exec, int node);

/* Profiling: from now on each pass adds the ticks (base/ticks.h) that thread t spends on a part of node n, a loss being
 * of its head's node, to ticks[(t * nodes + n) * BP_PARTS + part], for as many threads as the options say. Borrowed.
 * Where an activation is done in the product of another node (op.h: epilogues), so is its time counted.
 * NULL, as at first, ends it: an instruction then reads no clock and pays one branch. */
enum bp_part { BP_PART_FORWARD, BP_PART_LOSS, BP_PART_BACKWARD, BP_PART_PARAMETERS, BP_PART_UPDATE, BP_PARTS };
void bp_exec_profile(struct bp_exec *exec, uint64_t *ticks);

#ifndef BP_DOUBLE
/* The program in words: the forward and the derived backward instructions, stages, memory. malloc'd text. */
char *bp_exec_print(const struct bp_exec *exec);
#endif

#endif
