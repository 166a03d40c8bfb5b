/* profile.c: the ticks of a profile as a table, and the traffic of a step from its plan.
 *
 * It looks into the trainer and its plan: a measuring instrument may.
 */
#include "profile.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/ticks.h"
#include "graph/exec_internal.h"
#include "train/state.h"

#include <string.h>

void profile_init(struct profile *p, const struct bp_graph *graph, int threads)
{
    *p = (struct profile){.threads = threads, .cells = (size_t)threads * (size_t)graph->nnodes * BP_PARTS};
    p->engine.nodes = bp_alloc(p->cells * sizeof *p->engine.nodes);
    if (p->engine.nodes == NULL)
        die("no memory for a profile", NULL);
}

void profile_done(struct profile *p)
{
    bp_free(p->engine.nodes);
}

void profile_begin(struct profile *p, const struct bp_progress *at)
{
    memset(p->engine.ticks, 0, sizeof p->engine.ticks);
    memset(p->engine.nodes, 0, p->cells * sizeof *p->engine.nodes);
    p->begin_step = at->step;
    p->begin_samples = at->samples;
    p->begin = bp_clock();
    p->begin_tick = bp_ticks();
}

void profile_end(struct profile *p, const struct bp_progress *at)
{
    p->end_tick = bp_ticks();
    p->seconds = bp_clock() - p->begin;
    p->steps = at->step - p->begin_step;
    p->samples = at->samples - p->begin_samples;
}

/* --- from ticks to microseconds of a step ----------------------------------------------------------------------- */

/* A layer, or the sum of all. */
struct row {
    double forward, data, weights, update, loss;
};

struct view {
    const struct profile *p;
    const struct workload *w;
    double tick;     /* microseconds of a step that one tick of all the steps is */
    double rows;     /* of an average step */
    double peak;     /* GFLOP/s */
    int used;        /* threads that took part in the passes */
    double update;   /* with packing */
    double load;     /* of the rows, within the pass */
    size_t nparams;  /* that are trained */
    struct row *all; /* one a node */
    struct row sum;
};

static uint64_t cell(const struct profile *p, const struct bp_graph *g, int thread, int node, enum bp_part part)
{
    return p->engine.nodes[((size_t)thread * (size_t)g->nnodes + (size_t)node) * BP_PARTS + (size_t)part];
}

static int threads_used(const struct profile *p, const struct bp_graph *g)
{
    int used = 1;
    for (int t = 1; t < p->threads; t++)
        for (int n = 0; n < g->nnodes; n++)
            if (cell(p, g, t, n, BP_PART_FORWARD) > 0 || cell(p, g, t, n, BP_PART_PARAMETERS) > 0)
                used = t + 1;
    return used;
}

static double part_of(const struct view *v, int node, enum bp_part part)
{
    uint64_t ticks = 0;
    for (int t = 0; t < v->p->threads; t++)
        ticks += cell(v->p, v->w->graph, t, node, part);
    return (double)ticks * v->tick / v->used;
}

static size_t trained(const struct bp_graph *g, int node)
{
    size_t n = 0;
    for (int i = 0; i < g->ntensors; i++)
        if (g->tensors[i].trainable && !g->tensors[i].statistic && (node < 0 || g->tensors[i].node == node))
            n += g->tensors[i].count;
    return n;
}

static void add_row(struct row *sum, const struct row *r)
{
    sum->forward += r->forward;
    sum->data += r->data;
    sum->weights += r->weights;
    sum->update += r->update;
    sum->loss += r->loss;
}

static void fill(struct view *v)
{
    const struct bp_graph *g = v->w->graph;
    v->update = (double)v->p->engine.ticks[BP_STEP_UPDATE] * v->tick;
    v->load = part_of(v, 0, BP_PART_FORWARD);
    for (int n = 1; n < g->nnodes; n++) {
        v->all[n] = (struct row){.forward = part_of(v, n, BP_PART_FORWARD),
                                 .data = part_of(v, n, BP_PART_BACKWARD),
                                 .weights = part_of(v, n, BP_PART_PARAMETERS),
                                 .update = v->update * (double)trained(g, n) / (double)v->nparams +
                                           part_of(v, n, BP_PART_UPDATE),
                                 .loss = part_of(v, n, BP_PART_LOSS)};
        add_row(&v->sum, &v->all[n]);
    }
}

/* --- printing --------------------------------------------------------------------------------------------------- */

static double total_of(const struct row *r)
{
    return r->forward + r->data + r->weights + r->update + r->loss;
}

/* Fraction of the peak at which a phase of a node runs; 0 where it multiplies nothing. */
static double fraction(const struct view *v, int node, enum bp_phase phase, double us)
{
    const struct bp_node *n = &v->w->graph->nodes[node];
    const struct bp_op *op = bp_op_table[n->kind];
    double flops = op->flops != NULL ? (double)op->flops(v->w->graph, n, phase) * v->rows : 0;
    double peak = v->peak * v->used / v->p->threads;
    return us > 0 && peak > 0 ? flops * 1e-3 / us / peak : 0;
}

static void print_percent(double part)
{
    if (part > 0.0005)
        fprintf(stderr, " %3.0f%%", 100 * part);
    else
        fprintf(stderr, "     ");
}

static void print_layer(const struct view *v, int node)
{
    const struct row *r = &v->all[node];
    const struct bp_node *n = &v->w->graph->nodes[node];
    double forward = fraction(v, node, BP_PHASE_FORWARD, r->forward);
    double data = fraction(v, node, BP_PHASE_BACKWARD, r->data);
    double weights = fraction(v, node, BP_PHASE_PARAMETERS, r->weights);

    printf("{\"workload\":\"%s\",\"threads\":%d,\"layer\":\"%s\",\"type\":\"%s\",\"forward_us\":%.3f,"
           "\"backward_data_us\":%.3f,\"backward_weights_us\":%.3f,\"update_us\":%.3f,\"other_us\":%.3f,"
           "\"forward_fraction\":%.3f,\"backward_data_fraction\":%.3f,\"backward_weights_fraction\":%.3f}\n",
           v->w->name, v->p->threads, n->name, bp_node_type(n), r->forward, r->data, r->weights, r->update, r->loss,
           forward, data, weights);
    fprintf(stderr, "%-16.16s %9.2f", n->name, r->forward);
    print_percent(forward);
    fprintf(stderr, " %9.2f", r->data);
    print_percent(data);
    fprintf(stderr, " %9.2f", r->weights);
    print_percent(weights);
    fprintf(stderr, " %9.2f %9.2f %10.2f\n", r->update, r->loss, total_of(r));
}

static void print_step(const struct view *v, double plain)
{
    const uint64_t *ticks = v->p->engine.ticks;
    double step = v->tick * (double)(v->p->end_tick - v->p->begin_tick), inside = 0;
    double gather = v->tick * (double)ticks[BP_STEP_GATHER] + v->load, check = v->tick * (double)ticks[BP_STEP_CHECK];
    double metrics = v->tick * (double)ticks[BP_STEP_METRICS], pass = v->tick * (double)ticks[BP_STEP_PASS];
    double wait = pass - v->load - (total_of(&v->sum) - v->update);

    for (int i = 0; i < BP_STEP_PARTS; i++)
        inside += v->tick * (double)ticks[i];
    double host = step - inside, other = v->sum.loss + gather + check + metrics + wait + host;
    printf(
        "{\"workload\":\"%s\",\"threads\":%d,\"layer\":\"\",\"type\":\"step\",\"threads_used\":%d,\"step_us\":%.3f,"
        "\"unprofiled_step_us\":%.3f,\"forward_us\":%.3f,\"backward_data_us\":%.3f,\"backward_weights_us\":%.3f,"
        "\"update_us\":%.3f,\"other_us\":%.3f,\"loss_us\":%.3f,\"gather_us\":%.3f,"
        "\"check_us\":%.3f,\"metrics_us\":%.3f,\"wait_us\":%.3f,\"host_us\":%.3f}\n",
        v->w->name, v->p->threads, v->used, step, 1e6 * plain, v->sum.forward, v->sum.data, v->sum.weights,
        v->sum.update, other, v->sum.loss, gather, check, metrics, wait, host);
    fprintf(stderr, "%-16s %9.2f      %9.2f      %9.2f      %9.2f %9.2f %10.2f\n", "all layers", v->sum.forward,
            v->sum.data, v->sum.weights, v->sum.update, v->sum.loss, total_of(&v->sum));
    fprintf(stderr,
            "besides: gather %.2f, check %.2f, metrics %.2f, wait %.2f, host %.2f\n"
            "step %.2f us on %d of %d threads; without the profile %.2f us\n\n",
            gather, check, metrics, wait, host, step, v->used, v->p->threads, 1e6 * plain);
}

void profile_print(const struct profile *p, const struct workload *w, double peak, double plain)
{
    struct view v = {
        .p = p, .w = w, .peak = peak, .used = threads_used(p, w->graph), .nparams = trained(w->graph, -1)};
    if (p->steps < 1)
        die("too little time for a profile", NULL);
    v.all = bp_alloc((size_t)w->graph->nnodes * sizeof *v.all);
    if (v.all == NULL)
        die("no memory for a profile", NULL);
    v.tick = 1e6 * p->seconds / (double)(p->end_tick - p->begin_tick) / (double)p->steps;
    v.rows = (double)p->samples / (double)p->steps;
    fill(&v);
    fprintf(stderr,
            "%s: microseconds of a step, with the fraction of the FMA peak\n%-16s %14s %14s %14s %9s %9s %10s\n",
            w->name, "layer", "forward", "backward data", "weights", "update", "loss", "all");
    for (int n = 1; n < w->graph->nnodes; n++)
        if (!bp_op_table[w->graph->nodes[n].kind]->view)
            print_layer(&v, n);
    print_step(&v, plain);
    bp_free(v.all);
}

/* --- traffic ---------------------------------------------------------------------------------------------------- */

size_t bytes_of_step(const struct bp_trainer *t)
{
    const struct bp_plan *plan = t->exec->plan;
    size_t rows = (size_t)plan->options.capacity, floats = (size_t)(2 + t->model->nslots) * t->model->nparams;

    for (int i = 0; i < t->model->npacked; i++)
        floats += (size_t)t->model->packed_list[i].k * (size_t)t->model->packed_list[i].n;
    for (int i = 0; i < t->exec->nown; i++)
        floats += (size_t)t->exec->own[i].k * (size_t)t->exec->own[i].n;
    for (int i = 0; i < plan->nstorages; i++)
        if (!plan->storages[i].local)
            floats += plan->storages[i].row * rows + plan->storages[i].fixed;
    return 2 * floats * sizeof(float) + rows * t->source->stride;
}
