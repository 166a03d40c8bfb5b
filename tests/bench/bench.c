/* bench.c: backpropd-bench: samples per second of real training steps, workload by workload.
 *
 * A step is what a job does: gather a shuffled batch from the rows of a table, forward, loss, backward, check, update,
 * pack. The peak of the FMA units is measured on the same threads right after, so that a fraction of it means something
 * on a machine whose clock wanders. Results are JSON lines on stdout, one a workload (what the fields are: help below);
 * workloads with layers that this build lacks are named on stderr and skipped.
 */
#include "base/memory.h"
#include "kernels/kernels.h"
#include "pace.h"
#include "peak.h"
#include "profile.h"
#include "train/state.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: backpropd-bench [option]…\n"
    "  --workloads FILE   what to train (default tests/bench/workloads.json)\n"
    "  --only NAME        one workload of them\n"
    "  --threads N        default: the processors of this process\n"
    "  --seconds S        of one repeat (default 2)\n"
    "  --repeat R         the fastest counts (default 3)\n"
    "  --profile          then one repeat more: where its time goes, layer by layer: JSON lines, and a table on "
    "stderr\n"
    "  --layer-stats      with the layers' statistics sampled, as a job does, and what that costs\n"
    "  --help             this text\n"
    "BACKPROPD_SIMD=avx512|avx2|neon|generic chooses the instruction set, as in the daemon.\n"
    "\n"
    "JSON of a workload: samples_per_s; flops_per_sample (2 a multiply-add); fma_peak_gflops of this CPU on these\n"
    "threads, and simd_peak_gflops of the instruction set in use; fraction_of_peak, of the first; bytes_per_step, "
    "which a\n"
    "step moves at least, and bandwidth_gbs, at which these threads sweep over as many; parameters; memory_bytes, "
    "the\n"
    "trainer's estimate; table_bytes, the rows; rss_bytes, the most memory that this process has had.\n";

struct arguments {
    const char *workloads, *only;
    int threads, repeat;
    double seconds;
    bool profile, layer_stats;
};

/* A run of a workload. */
struct run {
    struct workload *workload;
    struct bp_trainer *trainer;
    struct pace *pace;                /* NULL without --layer-stats */
    struct profile *profile;          /* NULL in the runs that count */
    double length, begin, seconds;    /* of training: when it ends, when the first step was done, at present */
    int64_t warm_samples, warm_steps; /* at the beginning */
    double samples_per_s, step_seconds;
};

/* --- hooks ------------------------------------------------------------------------------------------------------ */

static enum bp_command command(void *ctx, int *threads)
{
    struct run *run = ctx;
    (void)threads;
    return run->warm_samples > 0 && run->seconds >= run->length ? BP_CANCEL : BP_GO_ON;
}

static void progress(void *ctx, const struct bp_progress *p)
{
    struct run *run = ctx;
    if (run->pace)
        pace_step(run->pace);
    run->seconds = p->seconds;
    if (!run->warm_samples) { /* the first step also touches fresh memory */
        run->warm_samples = p->samples;
        run->warm_steps = p->step;
        run->begin = p->seconds;
        if (run->profile)
            profile_begin(run->profile, p);
        return;
    }
    run->step_seconds = (p->seconds - run->begin) / (double)(p->step - run->warm_steps);
    run->samples_per_s = (double)(p->samples - run->warm_samples) / (p->seconds - run->begin);
    if (run->profile)
        profile_end(run->profile, p);
}

static void layers(void *ctx, const struct bp_layer_sample *sample)
{
    struct run *run = ctx;
    if (!run->pace)
        return;
    run->pace->sampled = true;
    run->pace->interval = sample->interval;
}

/* --- runs ------------------------------------------------------------------------------------------------------- */

static struct bp_trainer *make_trainer(const struct workload *w)
{
    struct bp_error err = {0};
    struct bp_trainer *trainer;
    if (bp_trainer_new(&w->config, w->graph, &w->source, &w->split, &trainer, &err))
        die("no trainer", &err);
    return trainer;
}

static void run_once(struct run *run, double seconds)
{
    struct bp_error err = {0};
    struct bp_train_hooks hooks = {.ctx = run, .command = command, .progress = progress, .layers = layers};
    struct bp_trainer *trainer = make_trainer(run->workload);
    if (run->pace)
        memset(run->pace, 0, sizeof *run->pace);
    if (run->profile)
        bp_trainer_profile(trainer, &run->profile->engine);
    run->warm_samples = 0;
    run->length = seconds;
    if (bp_trainer_run(trainer, &hooks, &err) == BP_RUN_FAILED)
        die("training failed", &err);
    bp_trainer_free(trainer);
}

static size_t traffic(const struct workload *w)
{
    struct bp_trainer *trainer = make_trainer(w);
    size_t bytes = bytes_of_step(trainer);
    bp_trainer_free(trainer);
    return bytes;
}

/* The most memory that this process has had. Not by getrusage, whose figure is that of the parent before the exec. */
static long peak_rss(void)
{
    char line[128];
    long kb = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld kB", &kb) == 1)
            break;
    if (status)
        fclose(status);
    return kb * 1024;
}

static void print(const struct workload *w, double rate, double peak)
{
    int threads = w->config.threads;
    const char *simd = bp_kernels_current()->name;
    double flops = (double)bp_graph_flops(w->graph, true);
    size_t bytes = traffic(w), memory = 0;
    long rss = peak_rss(); /* before the sweeps, which take memory too */
    bp_trainer_estimate(&w->config, w->graph, w->split.count[BP_TRAIN], &memory);
    printf("{\"workload\":\"%s\",\"threads\":%d,\"simd\":\"%s\",\"samples_per_s\":%.1f,\"flops_per_sample\":%.0f,"
           "\"fma_peak_gflops\":%.1f,\"simd_peak_gflops\":%.1f,\"fraction_of_peak\":%.3f,\"bytes_per_step\":%zu,"
           "\"bandwidth_gbs\":%.1f,\"parameters\":%zu,\"memory_bytes\":%zu,\"table_bytes\":%zu,\"rss_bytes\":%ld}\n",
           w->name, threads, simd, rate, flops, peak, bp_peak_gflops(simd, threads, 0.1),
           peak > 0 ? rate * flops * 1e-9 / peak : 0, bytes, bp_peak_bandwidth(bytes, threads, 0.1),
           w->graph->nparams, memory, (size_t)w->source.nrows * w->source.stride, rss);
}

static void profile(struct run *run, double seconds, double peak, double plain)
{
    struct profile profile;
    profile_init(&profile, run->workload->graph, run->workload->config.threads);
    run->profile = &profile;
    run_once(run, seconds);
    run->profile = NULL;
    profile_print(&profile, run->workload, peak, plain);
    profile_done(&profile);
}

static void bench(const json_t *json, const struct arguments *a)
{
    struct workload w;
    if (workload_init(&w, json)) {
        struct run run = {.workload = &w, .pace = a->layer_stats ? bp_alloc(sizeof *run.pace) : NULL};
        double rate = 0, step = 0;
        w.config.threads = a->threads;
        w.config.layer_stats = a->layer_stats;
        if (a->layer_stats) /* a run of a length for which the interval between samples is not stretched */
            w.config.epochs = 80000 / (1 + (int64_t)w.split.count[BP_TRAIN] / w.config.batch_size) + 1;
        for (int i = 0; i < a->repeat; i++) {
            run_once(&run, a->seconds);
            if (run.samples_per_s > rate) {
                rate = run.samples_per_s;
                step = run.step_seconds;
            }
        }
        double peak = bp_peak_gflops(NULL, a->threads, 0.2);
        print(&w, rate, peak);
        if (run.pace)
            pace_print(run.pace, w.name);
        if (a->profile)
            profile(&run, a->seconds, peak, step);
        bp_free(run.pace);
        fflush(stdout);
    }
    workload_done(&w);
}

/* --- the command ------------------------------------------------------------------------------------------------ */

static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

_Noreturn static void misused(const char *option)
{
    fprintf(stderr, "backpropd-bench: %s?\n%s", option, help);
    exit(64);
}

static struct arguments parse(int argc, char **argv)
{
    struct arguments a = {
        .workloads = "tests/bench/workloads.json", .only = "", .threads = processors(), .repeat = 3, .seconds = 2};
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        bool takes = true;
        if (!strcmp(option, "--workloads"))
            a.workloads = value;
        else if (!strcmp(option, "--only"))
            a.only = value;
        else if (!strcmp(option, "--threads"))
            a.threads = atoi(value);
        else if (!strcmp(option, "--seconds"))
            a.seconds = atof(value);
        else if (!strcmp(option, "--repeat"))
            a.repeat = atoi(value);
        else
            takes = false;
        i += takes;
        if (!strcmp(option, "--help")) {
            fputs(help, stdout);
            exit(0);
        }
        if (!strcmp(option, "--profile"))
            a.profile = true;
        else if (!strcmp(option, "--layer-stats"))
            a.layer_stats = true;
        else if (!takes || !value[0])
            misused(option);
    }
    if (a.threads < 1 || a.threads > BP_TEAM_MAX || a.repeat < 1 || !(a.seconds > 0))
        misused("--threads, --repeat and --seconds: a number above 0");
    return a;
}

int main(int argc, char **argv)
{
    struct arguments a = parse(argc, argv);
    struct bp_error err = {0};
    if (bp_kernels_select(getenv("BACKPROPD_SIMD"), &err))
        die("BACKPROPD_SIMD", &err);
    json_error_t where;
    json_t *all = json_load_file(a.workloads, 0, &where);
    if (!json_is_array(all))
        die("cannot read the workloads (--workloads FILE)", NULL);
    size_t i;
    json_t *w;
    bool any = false;
    json_array_foreach(all, i, w) {
        const char *name = json_string_value(json_object_get(w, "name"));
        if (a.only[0] && (name == NULL || strcmp(a.only, name) != 0))
            continue;
        any = true;
        bench(w, &a);
    }
    json_decref(all);
    if (!any)
        die("there is no workload of that name", NULL);
    return 0;
}
