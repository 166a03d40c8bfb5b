/* loss.c: how wrong the predictions are, and the first error signal: dL/d(prediction), where the backward pass starts.
 *
 *   L = sum over heads of weight_h * (sum over rows of w_r loss_r) / (sum over rows of w_r)
 *
 * so a row's error signal is (weight_h / sum of w) * w_r * dloss_r/dx; the first factor comes in as `scale`. Cross
 * entropy and bce take logits, and so their error signals are the plain differences softmax(x) - 1[label] and
 * sigmoid(x) - t.
 *
 * Threads: pure functions of the call.
 */
#include "ops/op.h"

static void cross_entropy(const struct bp_loss_call *c)
{
    c->kernels->cross_entropy(c->rows, c->n, c->x, c->label, c->weight, c->scale, c->loss, c->dx);
}

static void bce(const struct bp_loss_call *c)
{
    c->kernels->bce(c->rows, c->n, c->x, c->value, c->weight, c->scale, c->loss, c->dx);
}

static void mse(const struct bp_loss_call *c)
{
    c->kernels->mse(c->rows, c->n, c->x, c->value, c->weight, c->scale, c->loss, c->dx);
}

const struct bp_loss_op bp_loss_table[BP_LOSS_COUNT] = {
    [BP_LOSS_CROSS_ENTROPY] = {.labels = true, .run = cross_entropy},
    [BP_LOSS_BCE] = {.run = bce},
    [BP_LOSS_MSE] = {.run = mse},
};
