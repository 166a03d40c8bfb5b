/* test_bits.c: all tables give the same bits, and these are the bits of this numerics version.
 *
 * Each case runs one kernel over sizes 1 to 67 and a large one, over plain and over awkward numbers (infinities,
 * NaN, denormals, extremes); the outputs of all tables are compared bit for bit and their hash with a fixed one,
 * which holds for any compiler and CPU. A change that alters a hash alters trained parameters: it needs a new
 * numerics_version.
 */
#include "support.h"

enum { ROWS = 3, WIDTH = 1003, SIZE = ROWS * WIDTH, OUT = 3 * SIZE };

/* The inputs of a call: x, y in awkward or plain numbers, u positive, labels and targets. */
static float x[SIZE], y[SIZE], u[SIZE], target[SIZE], weight[ROWS];
static int32_t label[ROWS];

typedef void run_case(const struct bp_kernels *k, int param, int n, float *out);

static void run_activation(const struct bp_kernels *k, int kind, int n, float *out)
{
    float *slope = out + SIZE, *added = out + 2 * SIZE;
    k->activation((enum bp_activation)kind, 0.3f, (size_t)n, x, out);
    k->activation_gradient((enum bp_activation)kind, 0.3f, (size_t)n, x, out, y, slope, false);
    memcpy(added, y, sizeof(float) * (size_t)n);
    k->activation_gradient((enum bp_activation)kind, 0.3f, (size_t)n, x, out, y, added, true);
}

static void run_softmax(const struct bp_kernels *k, int logarithm, int n, float *out)
{
    float *slope = out + SIZE, *added = out + 2 * SIZE;
    k->softmax(logarithm, ROWS, n, x, out);
    k->softmax_gradient(logarithm, ROWS, n, out, y, slope, false);
    memcpy(added, u, sizeof(float) * (size_t)(ROWS * n));
    k->softmax_gradient(logarithm, ROWS, n, out, y, added, true);
}

static void run_loss(const struct bp_kernels *k, int which, int n, float *out)
{
    for (int r = 0; r < ROWS; r++)
        label[r] = (r * 7 + n / 2) % n;
    for (int pass = 0; pass < 2; pass++) { /* with gradient and weights, then the loss alone */
        float *dx = pass ? NULL : out + SIZE, *loss = out + pass * ROWS;
        const float *w = pass ? NULL : weight;
        if (which == 0)
            k->cross_entropy(ROWS, n, x, label, w, 0.37f, loss, dx);
        else if (which == 1)
            k->bce(ROWS, n, x, target, w, 0.37f, loss, dx);
        else
            k->mse(ROWS, n, x, target, w, 0.37f, loss, dx);
    }
}

/* As many rows as a batch has, of few classes. */
static void run_batch(const struct bp_kernels *k, int param, int n, float *out)
{
    enum { BATCH = 37 };
    static int32_t labels[BATCH];
    int classes = n % 17 + 1;
    (void)param;
    for (int r = 0; r < BATCH; r++)
        labels[r] = (r * 5 + n) % classes;
    k->cross_entropy(BATCH, classes, x, labels, u, 0.37f, out, out + SIZE);
}

static void run_gather(const struct bp_kernels *k, int param, int n, float *out)
{
    static const uint32_t index[] = {2, 0, 1, 2};
    (void)param;
    struct bp_gather g = {4, n, x, index, (size_t)n, 0.1, -0.3, 1.7, out, (size_t)n + 1};
    k->gather(&g);
}

/* The losses of terms, by enum bp_loss_term, then the three of whole rows. */
static void run_more_losses(const struct bp_kernels *k, int which, int n, float *out)
{
    for (int r = 0; r < ROWS; r++)
        label[r] = (r * 7 + n / 2) % n;
    for (int pass = 0; pass < 2; pass++) {
        float *dx = pass ? NULL : out + SIZE, *loss = out + pass * ROWS;
        const float *w = pass ? NULL : weight;
        if (which <= BP_TERM_QUANTILE)
            k->loss_terms((enum bp_loss_term)which, ROWS, n, x, target, w, 0.3f, 0.37f, loss, dx);
        else if (which == BP_TERM_QUANTILE + 1)
            k->cross_entropy_smooth(ROWS, n, x, label, w, 0.1f, 0.37f, loss, dx);
        else if (which == BP_TERM_QUANTILE + 2)
            k->multi_margin(ROWS, n, x, label, w, 0.37f, loss, dx);
        else
            k->kl_div(ROWS, n, x, target, w, 0.37f, loss, dx);
    }
}

static void run_sums(const struct bp_kernels *k, int param, int n, float *out)
{
    (void)param;
    k->column_sum(ROWS, n, x, (size_t)n, out, false);
    memcpy(out + SIZE, y, sizeof(float) * (size_t)n);
    k->column_sum(ROWS, n, x, (size_t)n, out + SIZE, true);
    double squares = k->sum_squares((size_t)n, x);
    memcpy(out + 2 * SIZE, &squares, sizeof squares);
    if (isnan(squares))
        memset(out + 2 * SIZE, 0xff, sizeof squares);
}

static void run_flat(const struct bp_kernels *k, int param, int n, float *out)
{
    (void)param;
    memcpy(out, y, sizeof(float) * (size_t)n);
    k->add((size_t)n, x, out);
    memcpy(out + SIZE, x, sizeof(float) * (size_t)n);
    k->scale((size_t)n, 0.7f, out + SIZE);
}

static void run_dropout(const struct bp_kernels *k, int first, int n, float *out)
{
    uint64_t at = (uint64_t)first + ((uint64_t)1 << 33);
    k->dropout((size_t)n, x, out, 11, bp_stream(BP_STREAM_DROPOUT, 2), 5, at, 0.3f, false);
    memcpy(out + SIZE, y, sizeof(float) * (size_t)n);
    k->dropout((size_t)n, x, out + SIZE, 11, bp_stream(BP_STREAM_DROPOUT, 2), 5, at, 0.3f, true);
}

static void run_shuffle(const struct bp_kernels *k, int epoch, int n, float *out)
{
    uint32_t order[SIZE], base[SIZE];
    for (int i = 0; i < n; i++)
        order[i] = base[i] = (uint32_t)i;
    k->shuffle(11, bp_stream(BP_STREAM_SHUFFLE, 0), (uint64_t)epoch, order, (uint64_t)n);
    bp_random_shuffle(11, bp_stream(BP_STREAM_SHUFFLE, 0), (uint64_t)epoch, base, (uint64_t)n);
    assert_memory_equal(order, base, sizeof *order * (size_t)n);
    memcpy(out, order, sizeof *order * (size_t)n);
}

static void run_update(const struct bp_kernels *k, int which, int n, float *out)
{
    struct bp_update up = {.lr = 0.01f,
                           .grad_scale = 0.9f,
                           .decay = 0.001f,
                           .shrink = 0.999f,
                           .momentum = 0.9f,
                           .dampening = which == 3 ? 0.1f : 0,
                           .nesterov = which == 2,
                           .first = which == 1,
                           .beta1 = 0.9f,
                           .beta2 = 0.999f,
                           .eps = 1e-8f,
                           .step_size = 0.002f,
                           .root_scale = 3.1f};
    float *p = out, *m = out + SIZE, *v = out + 2 * SIZE;
    memcpy(p, y, sizeof(float) * (size_t)n);
    memcpy(m, target, sizeof(float) * (size_t)n);
    memcpy(v, u, sizeof(float) * (size_t)n);
    if (which == 4)
        k->adam((size_t)n, &up, p, x, m, v);
    else
        k->sgd((size_t)n, &up, p, x, which == 0 ? NULL : m);
}

/* The other rules, in the order of kernels.h; from 8 on: rmsprop without centring, clip. */
static void run_rule(const struct bp_kernels *k, int which, int n, float *out)
{
    bp_update_kernel *const rules[] = {k->amsgrad,  k->nadam, k->adamax, k->rmsprop, k->adagrad,
                                       k->adadelta, k->lion,  k->lamb,   k->rmsprop};
    struct bp_update up = {.lr = 0.01f,
                           .grad_scale = 0.9f,
                           .decay = 0.001f,
                           .shrink = 0.999f,
                           .momentum = which == 8 ? 0 : 0.9f,
                           .beta1 = 0.9f,
                           .beta2 = 0.999f,
                           .eps = 1e-6f,
                           .step_size = 0.002f,
                           .root_scale = 3.1f,
                           .fresh_size = 0.0007f,
                           .initial = 0.1f,
                           .first = n % 2 == 0,
                           .centered = which == 3};
    float *p = out, *g = out + WIDTH, *slot[3] = {out + 2 * WIDTH, out + 3 * WIDTH, out + 4 * WIDTH};
    memcpy(p, y, sizeof(float) * (size_t)n);
    memcpy(g, x, sizeof(float) * (size_t)n);
    for (int s = 0; s < 3; s++)
        memcpy(slot[s], s == 1 ? u : target, sizeof(float) * (size_t)n);
    if (which == 7)
        out[5 * WIDTH] = (float)k->lamb_moments((size_t)n, &up, p, g, slot);
    if (which < 9)
        rules[which]((size_t)n, &up, p, g, slot);
    else
        k->clip((size_t)n, 0.7f, 0.3f, g);
}

static void run_gemm(const struct bp_kernels *k, int mode, int n, float *out)
{
    int depth = n < 29 ? n : 29, m = ROWS;
    float *packed = out + SIZE;
    k->pack(packed, y, depth, n < 60 ? n : 60, 1, (size_t)depth);
    k->gemm(&(struct bp_gemm){.m = m,
                              .n = n < 60 ? n : 60,
                              .k = depth,
                              .a = x,
                              .a_row = mode ? 1 : (size_t)depth,
                              .a_col = mode ? (size_t)m : 1,
                              .b = packed,
                              .c = out,
                              .c_row = 60,
                              .bias = mode ? NULL : target,
                              .accumulate = mode});
}

/* Over the batch: columns, or planes. */
static void run_channels(const struct bp_kernels *k, int plane, int n, float *out)
{
    struct bp_channels b = {.rows = ROWS, .n = n, .row = (size_t)n, .plane = plane};
    struct bp_channel_slope slope = {.mean = target, .scale = u, .slope = y, .offset = target + n};
    float *sums = out + 2 * SIZE;
    k->channel_moment(&b, x, NULL, sums, false);
    k->channel_moment(&b, x, target, sums + n, false);
    memcpy(sums + 2 * n, u, sizeof(float) * (size_t)(plane ? 1 : n));
    k->channel_moment(&b, x, target, sums + 2 * n, true);
    k->channel_apply(&b, x, target, u, y, out);
    k->channel_gradient(&b, &slope, x, y, out + SIZE, false);
    k->channel_products(&b, x, y, target, out, sums, true);
    k->channel_gradient(&b, &slope, NULL, y, out + SIZE, true);
}

/* Along the row: a factor for each element (0), or for two channels (1). */
static void run_row_norm(const struct bp_kernels *k, int runs, int n, float *out)
{
    struct bp_channels b = {.rows = ROWS, .n = n, .row = (size_t)n, .plane = runs};
    float moments[2 * ROWS], *added = out + 2 * SIZE;
    struct bp_row_norm c = {.rows = ROWS,
                            .groups = 1,
                            .channels = runs && n % 2 == 0 ? 2 : n,
                            .spatial = runs && n % 2 == 0 ? n / 2 : 1,
                            .eps = 1e-5f,
                            .x = x,
                            .gamma = u,
                            .beta = target,
                            .moments = moments,
                            .y = out,
                            .dy = y,
                            .dx = out + SIZE};
    k->row_norm(&c);
    k->row_norm_gradient(&c);
    memcpy(added, target, sizeof(float) * (size_t)(ROWS * n));
    c.gamma = c.beta = NULL;
    c.dx = added;
    c.accumulate = true;
    k->row_norm_gradient(&c);
    k->row_norm_products(&b, x, y, moments, 2, out, out + n, true);
}

static void run_multiply(const struct bp_kernels *k, int param, int n, float *out)
{
    (void)param;
    k->multiply((size_t)n, x, y, out, false);
    memcpy(out + SIZE, u, sizeof(float) * (size_t)n);
    k->multiply((size_t)n, x, out + SIZE, out + SIZE, false);
    memcpy(out + 2 * SIZE, u, sizeof(float) * (size_t)n);
    k->multiply((size_t)n, x, y, out + 2 * SIZE, true);
}

static const struct {
    const char *name;
    run_case *run;
    int param;
    uint64_t golden;
} cases[] = {
    {"linear", run_activation, BP_LINEAR, 0xc705d7f74a3e5328},
    {"relu", run_activation, BP_RELU, 0xb10098255287268d},
    {"leaky_relu", run_activation, BP_LEAKY_RELU, 0x8fb0111018ac481b},
    {"elu", run_activation, BP_ELU, 0x18a28f3df109e85b},
    {"selu", run_activation, BP_SELU, 0x9db6cd64b4bb9219},
    {"gelu", run_activation, BP_GELU, 0x23c48de7cbc1499f},
    {"silu", run_activation, BP_SILU, 0xc00456cb3e6b7a84},
    {"mish", run_activation, BP_MISH, 0x61265a36bfbf1e38},
    {"sigmoid", run_activation, BP_SIGMOID, 0x96ebe315373f5c16},
    {"tanh", run_activation, BP_TANH, 0xbef573fc6b41e180},
    {"softplus", run_activation, BP_SOFTPLUS, 0x6f651e5fd7f36c1f},
    {"softsign", run_activation, BP_SOFTSIGN, 0x18e1aac5a8adb9a0},
    {"hard_sigmoid", run_activation, BP_HARD_SIGMOID, 0xd8c2522680451c35},
    {"relu6", run_activation, BP_RELU6, 0x6b430f49504d2c98},
    {"softmax", run_softmax, 0, 0xcab0b8dc7d38662c},
    {"log_softmax", run_softmax, 1, 0x186398bd90d6bb48},
    {"cross_entropy", run_loss, 0, 0xdef39814c3e4c357},
    {"bce", run_loss, 1, 0x3281b8cdbed7ee74},
    {"mse", run_loss, 2, 0xb2811b60c96a2f31},
    {"bce, smoothed", run_more_losses, BP_TERM_BCE, 0x7e9e7cb49d1cdcac},
    {"mae", run_more_losses, BP_TERM_MAE, 0x28b242c4c8817fa4},
    {"huber", run_more_losses, BP_TERM_HUBER, 0xe51a35fceafc091c},
    {"hinge", run_more_losses, BP_TERM_HINGE, 0xba75c1fe55b742e4},
    {"poisson", run_more_losses, BP_TERM_POISSON, 0xd4317f11591056d0},
    {"quantile", run_more_losses, BP_TERM_QUANTILE, 0x5bf09b247b41a536},
    {"cross_entropy, smoothed", run_more_losses, BP_TERM_QUANTILE + 1, 0xd6e0418992655674},
    {"multi_margin", run_more_losses, BP_TERM_QUANTILE + 2, 0x2b04f231ce0972d5},
    {"kl_div", run_more_losses, BP_TERM_QUANTILE + 3, 0x4530d81db77dbed5},
    {"cross_entropy of a batch", run_batch, 0, 0xb71f780899d797bf},
    {"gather", run_gather, 0, 0xf49f9c83f2fbe7cd},
    {"column_sum, sum_squares", run_sums, 0, 0xa7a3eab4e3f890b1},
    {"add, scale", run_flat, 0, 0xc9b0600800b657dd},
    {"dropout", run_dropout, 0, 0x7216c8c4fd8545e8},
    {"dropout from 3", run_dropout, 3, 0x34c7785078d3d065},
    {"shuffle", run_shuffle, 7, 0x85baa7a9a71ea96d},
    {"sgd", run_update, 0, 0x4b9cd5a354307367},
    {"sgd, first momentum", run_update, 1, 0x5ec2c97322a74841},
    {"sgd, nesterov", run_update, 2, 0xcec75a4c8e2e90a6},
    {"sgd, dampening", run_update, 3, 0xe7e291cd3d51177e},
    {"adam", run_update, 4, 0x3e664f593fe9cf97},
    {"amsgrad", run_rule, 0, 0x92f978563a5092f1},
    {"nadam", run_rule, 1, 0xafd44233a219711d},
    {"adamax", run_rule, 2, 0x103a00a45d21db4f},
    {"rmsprop, centered, momentum", run_rule, 3, 0xdb53a4bd96631d5b},
    {"adagrad", run_rule, 4, 0xff1455830697cae4},
    {"adadelta", run_rule, 5, 0xb4385df361e5576e},
    {"lion", run_rule, 6, 0x1534aee9b2667034},
    {"lamb", run_rule, 7, 0x3ae2789f48052528},
    {"rmsprop", run_rule, 8, 0x2c013dd156196147},
    {"clip", run_rule, 9, 0x75cfe419ce817c3f},
    {"gemm", run_gemm, 0, 0x515243002f7bdf49},
    {"gemm, transposed, accumulate", run_gemm, 1, 0x178818076fc968ee},
    {"channels, columns", run_channels, 0, 0x318637c6bc19f294},
    {"channels, planes", run_channels, 1, 0x7033efb290e6be9c},
    {"row_norm", run_row_norm, 0, 0xed2fd788cd5f4ed9},
    {"row_norm, channels", run_row_norm, 1, 0x599cdd0ace76ee21},
    {"multiply", run_multiply, 0, 0xf27240841fa16eba},
};
enum { CASES = sizeof cases / sizeof *cases };

static void fill_inputs(bool rough)
{
    for (size_t i = 0; i < SIZE; i++) {
        x[i] = rough ? awkward(1, i, true) : plain(1, i);
        y[i] = rough ? awkward(2, i, false) : plain(2, i);
        u[i] = fabsf(rough ? awkward(3, i, true) : plain(3, i));
        target[i] = plain(4, i) / 8 + 0.5f;
    }
    for (int r = 0; r < ROWS; r++)
        weight[r] = (float)r + 0.25f;
}

static float out[3][OUT];

/* Runs case c at size n with every table; returns the hash of the outputs, which are all the same. */
static uint64_t run_everywhere(int c, int n, uint64_t hash)
{
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    for (int t = 0; t < ntables; t++) {
        for (size_t i = 0; i < OUT; i++)
            out[t][i] = -7.5f;
        cases[c].run(tables[t], cases[c].param, n, out[t]);
        if (!same_bits(out[t], out[0], OUT))
            for (size_t i = 0; i < OUT; i++)
                if (!same_bits(&out[t][i], &out[0][i], 1))
                    fail_msg("%s, n %d: element %zu (x %a, y %a) is %a with %s and %a with %s", cases[c].name, n, i,
                             (double)x[i % SIZE], (double)y[i % SIZE], (double)out[0][i], tables[0]->name,
                             (double)out[t][i], tables[t]->name);
    }
    return hash_floats(hash, out[0], OUT);
}

static void test_same_bits(void **state)
{
    (void)state;
    int wrong = 0;
    for (int c = 0; c < CASES; c++) {
        uint64_t hash = HASH_START;
        for (int rough = 0; rough < 2; rough++) {
            fill_inputs(rough);
            for (int n = 1; n <= 67; n++)
                hash = run_everywhere(c, n, hash);
            hash = run_everywhere(c, WIDTH, hash);
        }
        if (hash != cases[c].golden) {
            print_error("%s: 0x%016llx\n", cases[c].name, (unsigned long long)hash);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
