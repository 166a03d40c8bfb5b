/* blame.c: where a number that is not finite came from.
 *
 * A step that failed is run once more, in an execution that keeps every value and every error signal; then the network
 * is walked in the order of the computation, forward and back again. This costs memory and time at a moment when
 * neither matters any more; where there is no memory for it, the failure is told without the place.
 */
#include "train/batch.h"
#include "train/state.h"

#include <math.h>

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return false;
        }
    }
    return true;
}

static size_t elements_of(const struct bp_graph *graph, int node, int rows)
{
    return (size_t)bp_shape_elements(&graph->nodes[node].shape) * (size_t)rows;
}

/* What to do about it. Before the first update no rate is to blame. */
static const char *cure(const struct bp_trainer *t)
{
    return t->at.step == 0 ? "scale the inputs and the targets, which are too large for the first weights"
                           : "try a smaller learning rate";
}

/* Tells the first node, in the order of the forward pass, with a weight or an output that is not finite. */
static bool blame_forward(const struct bp_trainer *t, struct bp_exec *exec, int rows, struct bp_error *err)
{
    const struct bp_graph *graph = t->graph;
    long long step = (long long)t->at.step + 1;

    for (int i = 0; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        const float *value = bp_exec_value(exec, i);

        for (int k = 0; k < node->ntensors; k++) {
            const struct bp_tensor *tensor = &graph->tensors[node->tensor[k]];
            if (!tensor->statistic && !all_finite(t->model->params + tensor->offset, tensor->count)) {
                bp_fail_at(err, BP_NONFINITE, node->name,
                           "the weights %s are no longer finite numbers at step %lld; try a smaller learning rate",
                           tensor->name, step);
                return true;
            }
        }
        if (value != NULL && !all_finite(value, elements_of(graph, i, rows))) {
            if (i == 0) {
                bp_fail_at(err, BP_NONFINITE, node->name,
                           "a value of the input is not a finite number in the forward pass of step %lld", step);
            } else {
                bp_fail_at(err, BP_NONFINITE, node->name,
                           "the output of the layer %s is not a finite number in the forward pass of step %lld; %s",
                           node->name, step, cure(t));
            }
            return true;
        }
    }
    return false;
}

static bool blame_loss(const struct bp_trainer *t, struct bp_exec *exec, int rows, struct bp_error *err)
{
    for (int h = 0; h < t->graph->nheads; h++) {
        const struct bp_head *head = &t->graph->heads[h];

        if (!all_finite(bp_exec_row_losses(exec, h), (size_t)rows)) {
            bp_fail_at(err, BP_NONFINITE, t->graph->nodes[head->node].name,
                       "the loss %s at the output %s is not a finite number in the forward pass of step %lld; %s",
                       bp_loss_name(head->loss), t->graph->nodes[head->node].name, (long long)t->at.step + 1,
                       cure(t));
            return true;
        }
    }
    return false;
}

/* The first error signal, from the output back, that is not finite. */
static bool blame_backward(const struct bp_trainer *t, struct bp_exec *exec, int rows, struct bp_error *err)
{
    const struct bp_graph *graph = t->graph;

    for (int i = graph->nnodes - 1; i > 0; i--) {
        const float *gradient = bp_exec_gradient(exec, i);

        if (gradient != NULL && !all_finite(gradient, elements_of(graph, i, rows))) {
            bp_fail_at(err, BP_NONFINITE, graph->nodes[i].name,
                       "the error signal that reaches the layer %s is not a finite number in the backward pass of "
                       "step %lld; %s",
                       graph->nodes[i].name, (long long)t->at.step + 1, cure(t));
            return true;
        }
    }
    return false;
}

bool bp_trainer_blame(struct bp_trainer *t, const uint32_t *rows, int n, uint64_t counter, struct bp_error *err)
{
    struct bp_exec_options options = {.capacity = n, .training = true, .keep_all = true, .threads = 1};
    struct bp_exec *exec = NULL;
    struct bp_batch batch;
    bool found = false;

    if (err != NULL && bp_exec_new(t->model, &options, &exec, NULL) == BP_OK &&
        bp_batch_load(&batch, exec, t->graph, t->source, rows, n, NULL) == BP_OK) {
        bp_exec_pass(exec, NULL, n, true, t->config.seed, counter);
        found = blame_forward(t, exec, n, err) || blame_loss(t, exec, n, err) || blame_backward(t, exec, n, err);
    }
    bp_exec_free(exec);
    return found;
}
