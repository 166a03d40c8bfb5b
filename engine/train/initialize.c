/* initialize.c: the table of initializers.
 *
 * Each initializer but orthogonal is a function of one uniform deviate, in double, rounded to float once. Only + - * /
 * and sqrt are used, so the first parameters have the same bits on every machine.
 */
#include "train/initialize.h"

#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <string.h>

/* A drawn value from u in (0, 1) and the initializer's two figures. */
typedef double draw_from(double u, double a, double b);

static double draw_constant(double u, double a, double b)
{
    (void)u;
    (void)b;
    return a;
}

static double draw_uniform(double u, double a, double b)
{
    return a + (b - a) * u;
}

static double draw_normal(double u, double a, double b)
{
    return a + b * bp_random_normal(u);
}

/* The normal distribution cut at two deviations, by inversion: u is moved into [Phi(-2), Phi(2)]. */
static double draw_truncated(double u, double a, double b)
{
    const double below = 0.022750131948179207; /* Phi(-2) */

    return a + b * bp_random_normal(below + u * (1.0 - 2.0 * below));
}

/* Where the two figures come from. */
enum figures {
    GIVEN,  /* a and b as the user gave them */
    FIXED,  /* the table's `factor` in a */
    LIMIT,  /* -l and l with l = sqrt(factor / fans) */
    SPREAD, /* 0 and sqrt(factor / fans) */
    MATRIX  /* orthogonal: made as a whole */
};

static const struct {
    draw_from *draw;
    enum figures figures;
    double factor;
    bool both_fans; /* fans: fan_in + fan_out; false: fan_in */
} initializers[BP_INIT_COUNT] = {
    [BP_INIT_ZEROS] = {draw_constant, FIXED, 0.0, false},
    [BP_INIT_ONES] = {draw_constant, FIXED, 1.0, false},
    [BP_INIT_CONSTANT] = {draw_constant, GIVEN, 0.0, false},
    [BP_INIT_UNIFORM] = {draw_uniform, GIVEN, 0.0, false},
    [BP_INIT_NORMAL] = {draw_normal, GIVEN, 0.0, false},
    [BP_INIT_TRUNCATED_NORMAL] = {draw_truncated, GIVEN, 0.0, false},
    [BP_INIT_GLOROT_UNIFORM] = {draw_uniform, LIMIT, 6.0, true},
    [BP_INIT_GLOROT_NORMAL] = {draw_normal, SPREAD, 2.0, true},
    [BP_INIT_HE_UNIFORM] = {draw_uniform, LIMIT, 6.0, false},
    [BP_INIT_HE_NORMAL] = {draw_normal, SPREAD, 2.0, false},
    [BP_INIT_LECUN_UNIFORM] = {draw_uniform, LIMIT, 3.0, false},
    [BP_INIT_LECUN_NORMAL] = {draw_normal, SPREAD, 1.0, false},
    [BP_INIT_ORTHOGONAL] = {draw_normal, MATRIX, 0.0, false},
    [BP_INIT_KAIMING_UNIFORM] = {draw_uniform, LIMIT, 1.0, false},
};

/* Two deviates a block of random words: element i is a function of (seed, tensor, i) alone. */
static double deviate(uint64_t seed, int tensor, uint64_t i)
{
    uint32_t words[4];

    bp_random(seed, bp_stream(BP_STREAM_INIT, (uint32_t)tensor), 0, i / 2, words);
    return i % 2 == 0 ? bp_random_unit_d(words[0], words[1]) : bp_random_unit_d(words[2], words[3]);
}

static void fill(float *p, const struct bp_tensor *tensor, int index, uint64_t seed)
{
    enum bp_init_kind kind = tensor->init.kind;
    double a = tensor->init.a, b = tensor->init.b;
    double fans = (double)tensor->fan_in + (initializers[kind].both_fans ? (double)tensor->fan_out : 0.0);
    double width = sqrt(initializers[kind].factor / (fans < 1.0 ? 1.0 : fans));

    switch (initializers[kind].figures) {
    case FIXED:
        a = initializers[kind].factor;
        break;
    case LIMIT:
        a = -width;
        b = width;
        break;
    case SPREAD:
        a = 0.0;
        b = width;
        break;
    case GIVEN:
    case MATRIX:
        break;
    }
    if (initializers[kind].draw == draw_constant) {
        for (size_t i = 0; i < tensor->count; i++) {
            p[i] = (float)a;
        }
        return;
    }
    for (size_t i = 0; i < tensor->count; i++) {
        p[i] = (float)initializers[kind].draw(deviate(seed, index, i), a, b);
    }
}

/* Scalar product over 8 lanes and a fixed tree. */
static double dot(const double *x, const double *y, size_t n)
{
    double lane[8] = {0}, sum = 0.0;
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        for (size_t j = 0; j < 8; j++) {
            lane[j] += x[i + j] * y[i + j];
        }
    }
    for (; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum + (((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])));
}

/* Makes k vectors of length n, one after the other, orthonormal (modified Gram-Schmidt). False when they are not
 * independent, which random ones are not with probability 0. */
static bool orthonormalize(double *v, size_t k, size_t n)
{
    for (size_t j = 0; j < k; j++) {
        double *x = v + j * n, length;

        for (size_t i = 0; i < j; i++) {
            const double *q = v + i * n;
            double along = dot(q, x, n);

            for (size_t e = 0; e < n; e++) {
                x[e] -= along * q[e];
            }
        }
        length = sqrt(dot(x, x, n));
        if (!(length > 0.0)) {
            return false;
        }
        for (size_t e = 0; e < n; e++) {
            x[e] /= length;
        }
    }
    return true;
}

/* Orthonormal rows, or columns where there are more rows than columns, of the matrix [first dimension, rest], times
 * the gain. Drawn as a normal matrix, so that every orientation is equally likely. */
static bp_status fill_orthogonal(float *p, const struct bp_tensor *tensor, int index, uint64_t seed,
                                 struct bp_error *err)
{
    size_t rows = (size_t)tensor->shape.dim[0], columns = tensor->count / rows;
    bool tall = rows > columns; /* vectors are columns of the result */
    size_t k = tall ? columns : rows, n = tall ? rows : columns, bytes;
    double gain = tensor->init.a;
    double *v = bp_size_mul(tensor->count, sizeof *v, &bytes) ? bp_alloc(bytes) : NULL;

    if (v == NULL) {
        return bp_fail_at(err, BP_NOMEM, tensor->name, "no memory to make an orthogonal matrix of %zu values",
                          tensor->count);
    }
    for (size_t i = 0; i < tensor->count; i++) {
        size_t at = tall ? (i % columns) * n + i / columns : i;
        v[at] = bp_random_normal(deviate(seed, index, i));
    }
    if (!orthonormalize(v, k, n)) {
        bp_free(v);
        return bp_fail_at(err, BP_INTERNAL, tensor->name, "a random matrix was singular");
    }
    for (size_t i = 0; i < tensor->count; i++) {
        size_t at = tall ? (i % columns) * n + i / columns : i;
        p[i] = (float)(gain * v[at]);
    }
    bp_free(v);
    return BP_OK;
}

bp_status bp_initialize(struct bp_model *model, uint64_t seed, struct bp_error *err)
{
    const struct bp_graph *graph = model->graph;

    for (int t = 0; t < graph->ntensors; t++) {
        const struct bp_tensor *tensor = &graph->tensors[t];
        float *p = (tensor->statistic ? model->stats : model->params) + tensor->offset;

        if (tensor->literal != NULL) {
            memcpy(p, tensor->literal, tensor->count * sizeof *p);
        } else if (initializers[tensor->init.kind].figures == MATRIX) {
            bp_status status = fill_orthogonal(p, tensor, t, seed, err);
            if (status != BP_OK) {
                return status;
            }
        } else {
            fill(p, tensor, t, seed);
        }
    }
    if (model->grads != NULL) {
        memset(model->grads, 0, model->nparams * sizeof *model->grads);
    }
    for (int s = 0; s < model->nslots; s++) {
        memset(model->slots[s], 0, model->nparams * sizeof *model->slots[s]);
    }
    bp_model_pack(model, NULL);
    return BP_OK;
}
