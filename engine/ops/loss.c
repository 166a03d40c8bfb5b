/* loss.c: how wrong the predictions are, and the first error signal: dL/d(prediction), where the backward pass starts.
 *
 *   L = sum over heads of weight_h * (sum over rows of w_r loss_r) / (sum over rows of w_r)
 *
 * Label smoothing is inside loss_r, and w_r, the product of the row's weight and that of its class, outside of it: with
 * class weights w and a smoothing s, cross entropy over C classes is
 *
 *   loss_r = -(1 - s) log p[label] - s / C sum over c of log p[c]       weighed by w[label] as a whole
 *
 * as Keras has it. PyTorch weighs each term of the second sum by its own class, s / C sum of w[c] log p[c], instead: the
 * same with equal weights or without smoothing. One weight a row is what a column of weights gives, too.
 *
 * So a row's error signal is (weight_h / sum of w) * w_r * dloss_r/dx; the first factor comes in as `scale`. Cross
 * entropy and bce take logits, and so their error signals are the plain differences softmax(x) - 1[label] and
 * sigmoid(x) - t.
 *
 * Threads: pure functions of the call.
 */
#include "ops/op.h"

/* Without smoothing the plain kernels, whose rounding has one operation less. */
static void cross_entropy(const struct bp_loss_call *c)
{
    if (c->parameter > 0)
        c->kernels->cross_entropy_smooth(c->rows, c->n, c->x, c->label, c->weight, c->parameter, c->scale, c->loss,
                                         c->dx);
    else
        c->kernels->cross_entropy(c->rows, c->n, c->x, c->label, c->weight, c->scale, c->loss, c->dx);
}

static void terms(const struct bp_loss_call *c, enum bp_loss_term term)
{
    c->kernels->loss_terms(term, c->rows, c->n, c->x, c->value, c->weight, c->parameter, c->scale, c->loss, c->dx);
}

static void bce(const struct bp_loss_call *c)
{
    if (c->parameter > 0)
        terms(c, BP_TERM_BCE);
    else
        c->kernels->bce(c->rows, c->n, c->x, c->value, c->weight, c->scale, c->loss, c->dx);
}

static void mse(const struct bp_loss_call *c)
{
    c->kernels->mse(c->rows, c->n, c->x, c->value, c->weight, c->scale, c->loss, c->dx);
}

static void mae(const struct bp_loss_call *c)
{
    terms(c, BP_TERM_MAE);
}

static void huber(const struct bp_loss_call *c)
{
    terms(c, BP_TERM_HUBER);
}

static void hinge(const struct bp_loss_call *c)
{
    terms(c, BP_TERM_HINGE);
}

static void poisson(const struct bp_loss_call *c)
{
    terms(c, BP_TERM_POISSON);
}

static void quantile(const struct bp_loss_call *c)
{
    terms(c, BP_TERM_QUANTILE);
}

static void multi_margin(const struct bp_loss_call *c)
{
    c->kernels->multi_margin(c->rows, c->n, c->x, c->label, c->weight, c->scale, c->loss, c->dx);
}

static void kl_div(const struct bp_loss_call *c)
{
    c->kernels->kl_div(c->rows, c->n, c->x, c->value, c->weight, c->scale, c->loss, c->dx);
}

const struct bp_loss_op bp_loss_table[BP_LOSS_COUNT] = {
    [BP_LOSS_CROSS_ENTROPY] = {.labels = true, .run = cross_entropy},
    [BP_LOSS_BCE] = {.run = bce},
    [BP_LOSS_MSE] = {.run = mse},
    [BP_LOSS_MAE] = {.run = mae},
    [BP_LOSS_HUBER] = {.run = huber},
    [BP_LOSS_HINGE] = {.run = hinge},
    [BP_LOSS_MULTI_MARGIN] = {.labels = true, .run = multi_margin},
    [BP_LOSS_POISSON] = {.run = poisson},
    [BP_LOSS_QUANTILE] = {.run = quantile},
    [BP_LOSS_KL_DIV] = {.run = kl_div},
};
