/* gradcheck.c: the numeric side of the gradient check; see gradcheck.h. Compiled with BP_DOUBLE.
 *
 * One backward pass gives all analytic gradients. Then each chosen number p is moved and the loss computed again:
 *
 *   D(h) = (L(p + h) - L(p - h)) / 2h = L' + O(h^2)
 *   R(h) = (4 D(h/2) - D(h)) / 3      = L' + O(h^4)      (Richardson)
 *
 * Where L is smooth between the points, R(h) and R(h/2) agree, and D(h) and D(h/2) nearly. Where they do not, there is a
 * kink between them or h is too large: h shrinks, and when rounding drowns the difference the element counts as a
 * kink. A kink exactly at p is seen in the second difference, which shrinks with h where L is smooth and only there.
 * Both tests look at numeric values alone, so that a wrong analytic gradient can never pass as a kink.
 *
 * Dropout is active, with a fixed mask: the loss is then a function like any other.
 *
 * Threads: see gradcheck.h.
 */
#include "train/gradcheck.h"

#include "base/clock.h"
#include "base/random.h"
#include "graph/exec.h"

#include <math.h>
#include <string.h>

#define ROWS_MAX 4096  /* of the random batch; a check is about a formula, not about data */
#define STEP 1         /* of dropout's mask */
#define FLOOR 1e-5     /* gradients below this part of the loss are compared absolutely */
#define SMOOTH 4e-7    /* relative error of the difference quotient that is good enough */
#define NEARLY 1e-3    /* and of a quotient before the extrapolation */
#define ROUNDING 4e-16 /* of a loss of about 1: a quotient over a smaller width than this allows is noise */

static const double steps[] = {1e-3, 2.5e-4, 6e-5, 1.5e-5, 4e-6};

/* Items of the random stream. */
enum { PARAMS = 0, INPUT = 1 << 20, TARGET = 2 << 20, WEIGHT = 3 << 20, CHOICE = 4 << 20 };

struct check {
    const struct bp_graph *graph;
    const struct bp_gradcheck_options *options;
    struct bp_model *model;
    struct bp_exec *exec; /* with a backward pass */
    struct bp_exec *loss; /* without: the same inputs and targets */
    bool stopped;
};

/* Two words of (seed, item, index). */
static void words(const struct check *check, uint32_t item, uint64_t index, uint32_t ret[4])
{
    bp_random(check->options->seed, bp_stream(BP_STREAM_CHECK, item), 0, index, ret);
}

static double uniform(const struct check *check, uint32_t item, uint64_t index)
{
    uint32_t w[4];
    words(check, item, index, w);
    return bp_random_unit_d(w[0], w[1]);
}

static void random_params(struct check *check)
{
    for (int t = 0; t < check->graph->ntensors; t++) {
        const struct bp_tensor *tensor = &check->graph->tensors[t];
        bp_real *values = (tensor->statistic ? check->model->stats : check->model->params) + tensor->offset;
        double scale = 1 / sqrt((double)(tensor->fan_in > 1 ? tensor->fan_in : 1));
        for (size_t i = 0; i < tensor->count; i++) {
            double unit = uniform(check, PARAMS + (uint32_t)t, i);
            values[i] = tensor->statistic ? 0.5 + unit : scale * bp_random_normal(unit);
        }
    }
}

static void random_batch(const struct check *check, struct bp_exec *exec)
{
    size_t rows = (size_t)check->options->rows;
    size_t inputs = rows * (size_t)bp_shape_elements(&check->graph->nodes[0].shape);
    bp_real *x = bp_exec_input(exec);

    for (size_t i = 0; i < inputs; i++)
        x[i] = bp_random_normal(uniform(check, INPUT, i));
    for (int h = 0; h < check->graph->nheads; h++) {
        const struct bp_head *head = &check->graph->heads[h];
        const struct bp_targets *targets = bp_exec_targets(exec, h);
        for (size_t r = 0; r < rows; r++) {
            uint32_t w[4];
            words(check, TARGET + (uint32_t)h, r, w);
            if (targets->label != NULL)
                targets->label[r] = (int32_t)bp_random_below(w[0], w[1], (uint64_t)head->outputs);
            targets->weight[r] = (float)(0.5 + uniform(check, WEIGHT + (uint32_t)h, r));
        }
        for (size_t i = 0; targets->value != NULL && i < rows * (size_t)head->outputs; i++) {
            double unit = uniform(check, TARGET + (uint32_t)h, i);
            bool share = head->loss == BP_LOSS_BCE || head->loss == BP_LOSS_HINGE || head->loss == BP_LOSS_KL_DIV;
            targets->value[i] = (float)(share ? unit : bp_random_normal(unit));
        }
    }
}

static double loss(const struct check *check)
{
    return bp_exec_pass(check->loss, NULL, check->options->rows, true, check->options->seed, STEP);
}

/* The loss with *p at `value`. */
static double loss_at(const struct check *check, bp_real *p, double value, bool parameter)
{
    double before = *p;
    *p = value;
    if (parameter)
        bp_model_pack(check->model, NULL);
    double result = loss(check);
    *p = before;
    return result;
}

/* The derivative of the loss by *p; false at a kink. */
static bool differentiate(const struct check *check, bp_real *p, bool parameter, double middle, double floor,
                          double *ret)
{
    double size = fabs(*p) > 1 ? fabs(*p) : 1, at = *p;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        double quotient[3], second[3];
        for (int k = 0; k < 3; k++) {
            double right = at + steps[i] * size / (1 << k), left = at - steps[i] * size / (1 << k);
            double above = loss_at(check, p, right, parameter), below = loss_at(check, p, left, parameter);
            quotient[k] = (above - below) / (right - left); /* the width as the machine has it */
            second[k] = fabs((above - middle) / (right - at) - (middle - below) / (at - left));
        }
        double coarse = (4 * quotient[1] - quotient[0]) / 3, value = (4 * quotient[2] - quotient[1]) / 3;
        double scale = fmax(fabs(value), floor);
        if (ROUNDING * fmax(fabs(middle), 1) / (steps[i] * size / 4) > SMOOTH * scale)
            return false;
        if (!isfinite(value) || fabs(value - coarse) > SMOOTH * scale ||
            fabs(quotient[1] - quotient[0]) > NEARLY * scale)
            continue;
        if (second[0] > 1e-4 * scale && second[2] > 0.75 * second[0])
            return false;
        *ret = value;
        return true;
    }
    return false;
}

/* Checks some of the numbers p[0..count) with the analytic gradients g. */
static void check_range(struct check *check, bp_real *p, const bp_real *g, size_t count, uint32_t item,
                        struct bp_gradcheck_tensor *ret)
{
    size_t limit = (size_t)check->options->max_elements, n = limit == 0 || count < limit ? count : limit;
    bool parameter = item != INPUT;
    double middle = loss(check), floor = FLOOR * (fabs(middle) > 1 ? fabs(middle) : 1);

    for (size_t k = 0; k < n && !check->stopped; k++) {
        if (check->options->cancelled != NULL && check->options->cancelled(check->options->ctx)) {
            check->stopped = true;
            break;
        }
        /* one element of each of n equal parts: distinct, and the whole tensor is seen */
        size_t first = (size_t)((unsigned __int128)count * k / n);
        size_t end = (size_t)((unsigned __int128)count * (k + 1) / n);
        uint32_t w[4];
        words(check, CHOICE + item, k, w);
        size_t i = first + (size_t)bp_random_below(w[0], w[1], end - first);
        double numeric;
        if (!differentiate(check, &p[i], parameter, middle, floor, &numeric)) {
            ret->kinks++;
            continue;
        }
        double larger = fabs(g[i]) > fabs(numeric) ? fabs(g[i]) : fabs(numeric);
        double error = fabs(g[i] - numeric) / (larger > floor ? larger : floor);
        if (ret->checked++ == 0 || !(error <= ret->worst)) { /* a NaN is the worst */
            ret->worst = error;
            ret->analytic = g[i];
            ret->numeric = numeric;
            ret->element = (int64_t)i;
        }
    }
    if (parameter)
        bp_model_pack(check->model, NULL); /* as it was */
}

static bp_status prepare(struct check *check, struct bp_error *err)
{
    struct bp_exec_options options = {.capacity = check->options->rows, .threads = 1};
    bp_status status = bp_model_new(check->graph, true, 0, &check->model, err);
    if (status == BP_OK)
        status = bp_exec_new(check->model, &options, &check->loss, err);
    options.training = options.input_gradient = true;
    if (status == BP_OK)
        status = bp_exec_new(check->model, &options, &check->exec, err);
    if (status != BP_OK)
        return status;
    random_params(check);
    bp_model_pack(check->model, NULL);
    random_batch(check, check->exec);
    random_batch(check, check->loss);
    return BP_OK;
}

/* Compares tensor after tensor, then the input; returns how many entries were filled. */
static int compare(struct check *check, struct bp_gradcheck_tensor *ret)
{
    const struct bp_graph *graph = check->graph;
    int count = 0;
    for (int t = 0; t < graph->ntensors; t++) {
        const struct bp_tensor *tensor = &graph->tensors[t];
        if (tensor->statistic)
            continue;
        struct bp_gradcheck_tensor *entry = &ret[count++];
        *entry = (struct bp_gradcheck_tensor){0};
        memcpy(entry->name, tensor->name, sizeof entry->name);
        if (tensor->trainable) /* a frozen tensor has no gradient */
            check_range(check, check->model->params + tensor->offset, check->model->grads + tensor->offset,
                        tensor->count, (uint32_t)t, entry);
    }
    struct bp_gradcheck_tensor *entry = &ret[count++];
    *entry = (struct bp_gradcheck_tensor){.name = "input"};
    check_range(check, bp_exec_input(check->loss), bp_exec_input_gradient(check->exec),
                (size_t)check->options->rows * (size_t)bp_shape_elements(&graph->nodes[0].shape), INPUT, entry);
    return count;
}

/* One forward and backward pass: its time, the best of some, because one alone may have been interrupted. */
static double pass_backward(struct check *check)
{
    enum { PASSES = 5 };
    double best = INFINITY;

    for (int i = 0; i < PASSES; i++) {
        double start = bp_clock();
        bp_exec_pass(check->exec, NULL, check->options->rows, true, check->options->seed, STEP);
        best = fmin(best, bp_clock() - start);
    }
    return best;
}

bp_status bp_gradcheck(const struct bp_graph *graph, const struct bp_gradcheck_options *options,
                       struct bp_gradcheck_tensor *ret, int capacity, int *ret_count, double *ret_seconds_backward,
                       double *ret_seconds_numeric, struct bp_error *err)
{
    struct check check = {.graph = graph, .options = options};
    int tensors = 1;

    for (int t = 0; t < graph->ntensors; t++)
        tensors += !graph->tensors[t].statistic;
    if (options->rows < 1 || options->rows > ROWS_MAX)
        return bp_fail(err, BP_INVALID, "a gradient check takes 1 to %d rows, got %d", ROWS_MAX, options->rows);
    if (options->max_elements < 0)
        return bp_fail(err, BP_INVALID, "max_elements must be at least 0");
    if (capacity < tensors)
        return bp_fail(err, BP_INVALID, "there are %d tensors, and room for %d", tensors, capacity);
    bp_status status = prepare(&check, err);
    if (status != BP_OK)
        goto out;
    double backward = pass_backward(&check), start = bp_clock();
    int count = compare(&check, ret);
    if (check.stopped) {
        status = bp_fail(err, BP_STOPPED, "the gradient check was stopped");
        goto out;
    }
    *ret_count = count;
    *ret_seconds_backward = backward;
    *ret_seconds_numeric = bp_clock() - start;
out:
    bp_exec_free(check.exec);
    bp_exec_free(check.loss);
    bp_model_free(check.model);
    return status;
}
