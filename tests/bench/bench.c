/* bench.c: samples per second of real training steps, workload by workload.
 *
 *   backpropd-bench [--workloads FILE] [--only NAME] [--threads N] [--seconds S] [--repeat R]
 *                   [--layer-stats 1]
 *
 * Prints one JSON line a workload. A step is what a job does: gather a shuffled batch from table rows, forward, loss,
 * backward, check, update, pack. The peak of the FMA units is measured on the same threads in the same run, so that
 * fraction_of_peak means something on a machine whose clock wanders. Workloads with layers that this build lacks are
 * named on stderr and skipped.
 */
#include "base/memory.h"
#include "base/random.h"
#include "kernels/kernels.h"
#include "peak.h"
#include "train/trainer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PACE_MAX 4096 /* durations kept of each kind of step */

/* How long steps take, those with a sample of the layers apart from the others: in CPU time, so that other processes do
 * not matter, and as medians. */
struct pace {
    bool sampled; /* the step going on */
    double last;
    int n[2];
    double seconds[2][PACE_MAX];
    int64_t interval; /* steps between samples, once the first are over */
};

struct arguments {
    const char *workloads, *only;
    int threads, repeat, layer_stats;
    double seconds;
};

/* A workload as the trainer wants it. */
struct bench {
    const char *name;
    struct bp_graph *graph;
    struct bp_train_config config;
    struct bp_source source;
    struct bp_feature feature;
    struct bp_target target;
    struct bp_split split;
    float *rows; /* inputs, then one float of target */
    double deadline, begin;
    struct pace *pace; /* NULL without --layer-stats */
    int64_t warm_samples, samples;
    double seconds;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what, const struct bp_error *err)
{
    fprintf(stderr, "backpropd-bench: %s%s%s\n", what, err ? ": " : "", err ? err->message : "");
    exit(1);
}

/* --- from JSON to a graph ------------------------------------------------------------------------------------------- */
static int add(struct bp_graph *g, struct bp_node *node, int input, int number)
{
    struct bp_error err;
    int index;
    snprintf(node->name, sizeof node->name, "%s_%d", bp_op_name(node->kind), number);
    node->ninputs = 1;
    node->input[0] = input;
    node->trainable = true;
    if (bp_graph_add(g, node, &index, &err))
        die("a layer is refused", &err);
    return index;
}

static bool add_activation(struct bp_graph *g, int *top, const char *name, int number)
{
    for (int k = 0; k < BP_ACTIVATION_COUNT; k++)
        if (!strcmp(name, bp_activation_name((enum bp_activation)k))) {
            struct bp_node node = {.kind = BP_OP_ACTIVATION, .u.activation = {.kind = (enum bp_activation)k}};
            *top = add(g, &node, *top, number);
            return true;
        }
    return false;
}

/* ["conv2d", filters, kernel, activation], with padding "same". */
static bool add_conv(struct bp_graph *g, int *top, const json_t *layer, int number)
{
    struct bp_initializer torch = {.kind = BP_INIT_KAIMING_UNIFORM};
    int64_t kernel = json_integer_value(json_array_get(layer, 2));
    struct bp_node conv = {.kind = BP_OP_CONV,
                           .u.conv = {.axes = 2,
                                      .filters = json_integer_value(json_array_get(layer, 1)),
                                      .groups = 1,
                                      .kernel = {kernel, kernel},
                                      .stride = {1, 1},
                                      .dilation = {1, 1},
                                      .same = true,
                                      .use_bias = true,
                                      .kernel_init = torch,
                                      .bias_init = torch}};
    *top = add(g, &conv, *top, number);
    const char *activation = json_string_value(json_array_get(layer, 3));
    return !activation || add_activation(g, top, activation, number);
}

/* One layer of the list; false when this build has no such layer. */
static bool add_layer(struct bp_graph *g, int *top, const json_t *layer, int number)
{
    const char *kind = json_string_value(json_array_get(layer, 0));
    if (!strcmp(kind, "relu"))
        return add_activation(g, top, kind, number);
    if (!strcmp(kind, "conv2d"))
        return add_conv(g, top, layer, number);
    if (!strcmp(kind, "maxpool2d")) {
        int64_t size = json_integer_value(json_array_get(layer, 1));
        struct bp_node pool = {.kind = BP_OP_POOL, .u.pool = {.size = {size, size}, .stride = {size, size}}};
        *top = add(g, &pool, *top, number);
        return true;
    }
    if (!strcmp(kind, "batchnorm")) {
        struct bp_node norm = {.kind = BP_OP_BATCH_NORM, .u.norm = {.eps = 1e-5, .momentum = 0.1, .affine = true}};
        *top = add(g, &norm, *top, number);
        return true;
    }
    if (strcmp(kind, "dense"))
        return false;
    if (g->nodes[*top].shape.rank > 1) {
        struct bp_node flatten = {.kind = BP_OP_FLATTEN};
        *top = add(g, &flatten, *top, number);
    }
    struct bp_initializer torch = {.kind = BP_INIT_KAIMING_UNIFORM};
    struct bp_node dense = {.kind = BP_OP_DENSE,
                            .u.dense = {.units = json_integer_value(json_array_get(layer, 1)),
                                        .use_bias = true,
                                        .kernel_init = torch,
                                        .bias_init = torch}};
    *top = add(g, &dense, *top, number);
    const char *activation = json_string_value(json_array_get(layer, 2));
    return !activation || add_activation(g, top, activation, number);
}

static bool make_graph(struct bench *b, const json_t *w)
{
    struct bp_error err;
    struct bp_shape shape = {.rank = (int)json_array_size(json_object_get(w, "input"))};
    for (int i = 0; i < shape.rank; i++)
        shape.dim[i] = json_integer_value(json_array_get(json_object_get(w, "input"), (size_t)i));
    if (bp_graph_new(&shape, &b->graph, &err))
        die("no graph", &err);
    int top = 0;
    size_t i;
    json_t *layer;
    json_array_foreach(json_object_get(w, "layers"), i, layer)
        if (!add_layer(b->graph, &top, layer, (int)i)) {
            fprintf(stderr, "%s: skipped, this build has no %s\n", b->name,
                    json_string_value(json_array_get(layer, 0)));
            return false;
        }
    bool mse = !strcmp(json_string_value(json_object_get(w, "loss")), "mse");
    if (bp_graph_add_head(b->graph, top, mse ? BP_LOSS_MSE : BP_LOSS_CROSS_ENTROPY, 1, &err))
        die("no head", &err);
    return true;
}

/* --- random rows ---------------------------------------------------------------------------------------------------- */
static void make_rows(struct bench *b, uint64_t nrows)
{
    int inputs = (int)bp_shape_elements(&b->graph->nodes[0].shape);
    const struct bp_head *head = &b->graph->heads[0];
    bool is_class = head->loss == BP_LOSS_CROSS_ENTROPY;
    size_t stride = (size_t)inputs + 1;
    b->rows = bp_alloc(nrows * stride * sizeof(float));
    b->split.rows[BP_TRAIN] = bp_alloc(nrows * sizeof(uint32_t));
    if (!b->rows || !b->split.rows[BP_TRAIN])
        die("no memory for the rows", NULL);
    for (uint64_t r = 0; r < nrows; r++) {
        b->split.rows[BP_TRAIN][r] = (uint32_t)r;
        for (int i = 0; i <= inputs; i++) {
            uint32_t word[4];
            bp_random(1, bp_stream(BP_STREAM_CHECK, 0), r, (uint64_t)i, word);
            float *cell = &b->rows[r * stride + (size_t)i];
            *cell = 2 * bp_random_unit(word[0]) - 1;
            if (i == inputs && is_class) {
                int32_t label = (int32_t)bp_random_below(word[1], word[2], (uint64_t)head->outputs);
                memcpy(cell, &label, sizeof label);
            }
        }
    }
    b->split.count[BP_TRAIN] = nrows;
    b->feature = (struct bp_feature){.type = BP_F32, .count = inputs, .encoding = BP_ENCODE_NUMBER, .scale = 1};
    b->target = (struct bp_target){.is_class = is_class,
                                   .type = is_class ? BP_I32 : BP_F32,
                                   .offset = (size_t)inputs * sizeof(float),
                                   .count = 1,
                                   .classes = is_class ? head->outputs : 0,
                                   .scale = 1};
    b->source = (struct bp_source){.rows = (const uint8_t *)b->rows,
                                   .stride = stride * sizeof(float),
                                   .nrows = nrows,
                                   .nfeatures = 1,
                                   .features = &b->feature,
                                   .inputs = inputs,
                                   .ntargets = 1,
                                   .targets = &b->target};
}

/* --- running -------------------------------------------------------------------------------------------------------- */
static enum bp_command command(void *ctx, int *threads)
{
    struct bench *b = ctx;
    *threads = b->config.threads;
    return now() >= b->deadline ? BP_CANCEL : BP_GO_ON;
}

static void keep_pace(struct pace *pace)
{
    int *n = &pace->n[pace->sampled];
    pace->seconds[pace->sampled][*n % PACE_MAX] = cpu() - pace->last;
    (*n)++;
    pace->sampled = false;
    pace->last = cpu();
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *seconds, int n)
{
    n = n < PACE_MAX ? n : PACE_MAX;
    qsort(seconds, (size_t)n, sizeof *seconds, ascending);
    return n ? seconds[n / 2] : 0;
}

/* What sampling costs once the first steps are over, where samples are at powers of two. */
static void print_pace(struct pace *pace, const char *name)
{
    double plain = median(pace->seconds[0], pace->n[0]), sampled = median(pace->seconds[1], pace->n[1]);
    printf("{\"workload\":\"%s\",\"step_us\":%.2f,\"sampled_step_us\":%.2f,\"interval\":%lld,\"layer_stats_percent\":"
           "%.2f}\n",
           name, 1e6 * plain, 1e6 * sampled, (long long)pace->interval,
           100 * (sampled - plain) / (plain * (double)(pace->interval > 0 ? pace->interval : 1)));
}

static void progress(void *ctx, const struct bp_progress *p)
{
    struct bench *b = ctx;
    if (b->pace)
        keep_pace(b->pace);
    if (!b->warm_samples) { /* the first step also touches fresh memory */
        b->warm_samples = p->samples;
        b->begin = now();
        return;
    }
    b->samples = p->samples - b->warm_samples;
    b->seconds = now() - b->begin;
}

static void metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    (void)ctx, (void)name, (void)epoch, (void)step, (void)value;
}

static void epoch(void *ctx, const struct bp_progress *p, const struct bp_best *best)
{
    (void)ctx, (void)p, (void)best;
}

static void layers(void *ctx, const struct bp_layer_sample *sample)
{
    struct bench *b = ctx;
    if (!b->pace)
        return;
    b->pace->sampled = true;
    b->pace->interval = sample->interval;
}

static bp_status checkpoint(void *ctx, struct bp_trainer *trainer, bool must, struct bp_error *err)
{
    (void)ctx, (void)trainer, (void)must, (void)err;
    return BP_OK;
}

static double run_once(struct bench *b, double seconds)
{
    struct bp_error err = {0};
    struct bp_trainer *trainer;
    struct bp_train_hooks hooks = {.ctx = b,
                                   .command = command,
                                   .progress = progress,
                                   .metric = metric,
                                   .layers = layers,
                                   .epoch = epoch,
                                   .checkpoint = checkpoint};
    if (bp_trainer_new(&b->config, b->graph, &b->source, &b->split, &trainer, &err))
        die("no trainer", &err);
    b->warm_samples = b->samples = 0;
    if (b->pace)
        memset(b->pace, 0, sizeof *b->pace);
    b->deadline = now() + seconds;
    if (bp_trainer_run(trainer, &hooks, &err) == BP_RUN_FAILED)
        die("training failed", &err);
    bp_trainer_free(trainer);
    return (double)b->samples / b->seconds;
}

static void run(const json_t *w, const struct arguments *a)
{
    struct bench b = {.name = json_string_value(json_object_get(w, "name"))};
    if (make_graph(&b, w)) {
        bool adam = !strcmp(json_string_value(json_object_get(w, "optimizer")), "adam");
        make_rows(&b, (uint64_t)json_integer_value(json_object_get(w, "rows")));
        b.config = (struct bp_train_config){
            .seed = 1,
            .epochs = 1000000000,
            .batch_size = (int)json_integer_value(json_object_get(w, "batch")),
            .shuffle = true,
            .optimizer =
                adam ? (struct bp_optimizer){.kind = BP_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}
                     : (struct bp_optimizer){.kind = BP_SGD, .lr = 1e-2, .momentum = 0.9},
            .log_every_steps = 1000,
            .threads = a->threads,
            .layer_stats = a->layer_stats != 0};
        b.pace = a->layer_stats ? bp_alloc(sizeof *b.pace) : NULL;
        if (a->layer_stats) /* a run of a length for which the interval between samples is not stretched */
            b.config.epochs = 80000 / (1 + (int64_t)b.split.count[BP_TRAIN] / b.config.batch_size) + 1;
        double best = 0;
        for (int i = 0; i < a->repeat; i++) {
            double rate = run_once(&b, a->seconds);
            best = rate > best ? rate : best;
        }
        double flops = (double)bp_graph_flops(b.graph, true);
        double peak = bp_peak_gflops(a->threads, 0.3);
        size_t bytes = 0;
        bp_trainer_estimate(&b.config, b.graph, b.split.count[BP_TRAIN], &bytes);
        printf("{\"workload\":\"%s\",\"threads\":%d,\"simd\":\"%s\",\"samples_per_s\":%.1f,\"flops_per_sample\":%.0f,"
               "\"fma_peak_gflops\":%.1f,\"fraction_of_peak\":%.3f,\"bytes\":%zu}\n",
               b.name, a->threads, bp_kernels_current()->name, best, flops, peak,
               peak > 0 ? best * flops * 1e-9 / peak : 0, bytes);
        if (b.pace)
            print_pace(b.pace, b.name);
        bp_free(b.pace);
        fflush(stdout);
    }
    bp_graph_free(b.graph);
    bp_free(b.rows);
    bp_free(b.split.rows[BP_TRAIN]);
}

int main(int argc, char **argv)
{
    struct arguments a = {
        .workloads = "tests/bench/workloads.json", .only = "", .threads = 1, .repeat = 3, .seconds = 2};
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!value || strncmp(argv[i], "--", 2)) {
            fprintf(stderr, "usage: backpropd-bench [--workloads FILE] [--only NAME] [--threads N] [--seconds S] "
                            "[--repeat R]\n");
            return 64;
        }
        if (!strcmp(argv[i], "--workloads"))
            a.workloads = value;
        else if (!strcmp(argv[i], "--only"))
            a.only = value;
        else if (!strcmp(argv[i], "--threads"))
            a.threads = atoi(value);
        else if (!strcmp(argv[i], "--seconds"))
            a.seconds = atof(value);
        else if (!strcmp(argv[i], "--repeat"))
            a.repeat = atoi(value);
        else if (!strcmp(argv[i], "--layer-stats"))
            a.layer_stats = atoi(value);
        else
            die("unknown option", NULL);
    }
    struct bp_error err = {0};
    if (bp_kernels_select(getenv("BACKPROPD_SIMD"), &err))
        die("BACKPROPD_SIMD", &err);
    json_error_t where;
    json_t *all = json_load_file(a.workloads, 0, &where);
    if (!json_is_array(all))
        die("cannot read the workloads (--workloads FILE)", NULL);
    size_t i;
    json_t *w;
    json_array_foreach(all, i, w)
        if (!a.only[0] || !strcmp(a.only, json_string_value(json_object_get(w, "name"))))
            run(w, &a);
    json_decref(all);
    return 0;
}
