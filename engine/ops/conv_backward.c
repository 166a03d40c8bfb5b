/* conv_backward.c: the error signal that a convolution sends on.
 *
 *   dx[c, i] = sum over (o, t) of w[o, c, t] dy[o, (i + b - t d) / s]      where that is whole and inside
 *
 * It is a convolution of dy, with the weights turned. With strides an input position meets every s-th tap only: the
 * input falls into s s phases, each a product of its own with its own taps.
 *
 * Threads: pure functions of the call, row-local.
 */
#include "ops/conv_internal.h"

#include <string.h>

/* One axis of the backward pass: the planes of dy, with border, and the taps of a phase. */
struct reach {
    int before, extent; /* rows in front of dy's first, rows of a plane */
    int first, step;    /* taps of the phase: first, first + step, … */
    int taps, positions;
    int start, back; /* plane row of tap 0 at position 0; rows that each tap goes back */
};

static int floor_divide(int64_t a, int64_t b)
{
    return (int)(a >= 0 ? a / b : -((-a + b - 1) / b));
}

/* Phase `phase` of an axis with in inputs, out outputs, kernel k, stride s, dilation d, padding b. */
static struct reach reach_of(int phase, int in, int out, int k, int s, int d, int b)
{
    int64_t low = (int64_t)b - (int64_t)(k - 1) * d;
    int lowest = low < 0 ? floor_divide(low, s) : 0, last = (int)(((int64_t)in - 1 + b) / s);
    struct reach r = {
        .before = -lowest, .extent = (out - 1 > last ? out - 1 : last) - lowest + 1, .first = k, .step = 1};
    for (int t = k - 1; t >= 0; t--) { /* the first two that meet the phase */
        if (((int64_t)phase + b - (int64_t)t * d) % s != 0)
            continue;
        r.step = r.first < k ? r.first - t : 1;
        r.first = t;
        r.taps++;
    }
    r.positions = phase < in ? (in - phase + s - 1) / s : 0;
    if (r.taps > 0)
        r.start = (int)(((int64_t)phase + b - (int64_t)r.first * d) / s) + r.before;
    r.back = (int)((int64_t)r.step * d / s);
    return r;
}

static struct reach reach_down(const struct bp_conv_geometry *g, int phase)
{
    return reach_of(phase, g->ih, g->oh, g->kh, g->sh, g->dh, g->top);
}

static struct reach reach_across(const struct bp_conv_geometry *g, int phase)
{
    return reach_of(phase, g->iw, g->ow, g->kw, g->sw, g->dw, g->left);
}

/* One phase of a convolution, as a product: (in, out * taps of the phase) times patches of dy. */
struct phase {
    int y, x; /* the first position */
    struct reach down, across;
    int k, positions;
    bool gathered, depthwise; /* how; else the patches are packed */
    bool whole;               /* the phase is all of dx */
};

static struct phase phase_of(const struct bp_conv_geometry *g, int y, int x)
{
    struct phase p = {.y = y, .x = x, .down = reach_down(g, y), .across = reach_across(g, x)};
    p.k = g->out * p.down.taps * p.across.taps;
    p.positions = p.down.positions * p.across.positions;
    p.depthwise = g->in == 1 && g->out == 1;
    p.gathered = p.k > 0 && !p.depthwise && bp_conv_is_gathered(g->in, p.k, p.positions, 1);
    p.whole = g->sh == 1 && g->sw == 1;
    return p;
}

/* The weights of a group as a matrix (in, out * taps of the phase), row-major. */
static void turn_weights(const struct bp_conv_geometry *g, const struct phase *p, const bp_real *w, bp_real *to)
{
    const struct reach *v = &p->down, *h = &p->across;
    for (int c = 0; c < g->in; c++)
        for (int o = 0; o < g->out; o++) {
            const bp_real *from = w + ((size_t)o * (size_t)g->in + (size_t)c) * (size_t)g->taps;
            for (int y = 0; y < v->taps; y++)
                for (int x = 0; x < h->taps; x++)
                    *to++ = from[(v->first + y * v->step) * g->kw + h->first + x * h->step];
        }
}

/* The transpose of that matrix in panels. For each filter, all taps of 16 channels become rows of a panel in `rows`, and
 * from these the phase takes its own. */
static void pack_weights(const struct bp_kernels *kernels, const struct bp_conv_geometry *g, const struct phase *p,
                         const bp_real *w, bp_real *rows, bp_real *panels)
{
    const struct reach *v = &p->down, *h = &p->across;
    for (int c = 0; c < g->in; c += BP_PANEL)
        for (int o = 0; o < g->out; o++) {
            int n = g->in - c < BP_PANEL ? g->in - c : BP_PANEL;
            kernels->pack(rows, w + ((size_t)o * (size_t)g->in + (size_t)c) * (size_t)g->taps, g->taps, n, 1,
                          (size_t)g->taps);
            for (int y = 0; y < v->taps; y++, panels += h->taps * BP_PANEL)
                kernels->copy_rows(h->taps, BP_PANEL, rows + ((v->first + y * v->step) * g->kw + h->first) * BP_PANEL,
                                   (size_t)h->step * BP_PANEL, panels, BP_PANEL);
        }
}

/* Sets or adds to the positions of a phase, (in, positions) in `from`, or nothing where that is NULL. */
static void spread(const struct bp_conv_geometry *g, const struct phase *p, const bp_real *from, bp_real *dx,
                   bool add)
{
    for (int c = 0; c < g->in; c++)
        for (int y = 0; y < p->down.positions; y++) {
            bp_real *to = dx + ((size_t)c * (size_t)g->ih + (size_t)(p->y + y * g->sh)) * (size_t)g->iw + p->x;
            int n = p->across.positions;
            if (from == NULL) {
                for (int i = 0; i < n && !add; i++)
                    to[(size_t)i * (size_t)g->sw] = 0;
                continue;
            }
            for (int i = 0; i < n; i++, to += g->sw)
                *to = add ? *to + *from++ : *from++;
        }
}

/* Elements of the parts of the scratch. */
struct sizes {
    size_t planes, weights, rows, spread, product;
};

static struct sizes sizes_of(const struct bp_conv_geometry *g)
{
    struct reach v = reach_down(g, 0), h = reach_across(g, 0);
    struct sizes s = {.planes = bp_conv_plane_elements((size_t)g->out, v.extent, h.extent),
                      .rows = (size_t)g->taps * BP_PANEL};
    for (int y = 0; y < g->sh && y < g->ih; y++)
        for (int x = 0; x < g->sw && x < g->iw; x++) {
            struct phase p = phase_of(g, y, x);
            if (p.k == 0)
                continue;
            s.weights = bp_larger(s.weights, bp_panels_size(p.k, g->in));
            s.product = bp_larger(s.product, bp_conv_product_scratch(g->in, p.k, p.positions, 1));
            s.spread = bp_larger(s.spread, p.whole ? 0 : bp_conv_whole_panels((size_t)g->in * (size_t)p.positions));
        }
    return s;
}

size_t bp_conv_backward_scratch(const struct bp_conv_geometry *g)
{
    struct sizes s = sizes_of(g);
    return s.planes + s.weights + s.rows + s.spread + s.product;
}

/* Where the parts are. */
struct parts {
    bp_real *planes, *weights, *rows, *spread, *product;
};

/* A phase of one group in all rows. */
static void backward_phase(const struct bp_call *call, const struct bp_conv_geometry *g, const struct phase *p,
                           const struct parts *at, int group)
{
    const struct reach *v = &p->down, *h = &p->across;
    size_t image = (size_t)g->in * (size_t)g->ih * (size_t)g->iw, result = (size_t)g->out * (size_t)g->positions;
    const bp_real *w = call->params + call->graph->tensors[call->node->tensor[0]].offset +
                       (size_t)group * (size_t)g->in * (size_t)g->out * (size_t)g->taps;
    bool add = call->add & 1;
    struct bp_conv_product product = {.kernels = call->kernels,
                                      .patches = {.planes = at->planes + (ptrdiff_t)v->start * h->extent + h->start,
                                                  .plane = (size_t)v->extent * (size_t)h->extent,
                                                  .taps_down = v->taps,
                                                  .taps_across = h->taps,
                                                  .step_down = -(ptrdiff_t)v->back * h->extent,
                                                  .step_across = -h->back,
                                                  .width = h->positions,
                                                  .down = (size_t)h->extent,
                                                  .across = 1},
                                      .filters = g->in,
                                      .k = p->k,
                                      .positions = p->positions,
                                      .weights = at->weights};
    if (p->gathered)
        pack_weights(call->kernels, g, p, w, at->rows, at->weights);
    else
        turn_weights(g, p, w, at->weights);
    if (p->k > 0 && !p->depthwise)
        bp_conv_product_begin(&product, at->product);
    for (int r = 0; r < call->rows; r++) {
        size_t sample = (size_t)r * (size_t)g->groups + (size_t)group;
        bp_real *dx = call->dx[0] + sample * image, *y = p->whole ? dx : at->spread;
        if (p->k > 0)
            bp_conv_fill_planes(call->kernels, at->planes, product.patches.plane, h->extent, v->before, h->before,
                                call->dy + sample * result, g->out, g->oh, g->ow);
        if (p->k > 0 && p->depthwise)
            call->kernels->depthwise(&product.patches, p->positions, at->weights, NULL, y, p->whole && add);
        else if (p->k > 0)
            bp_conv_product_run(&product, NULL, y, p->whole && add);
        if (!p->whole)
            spread(g, p, p->k > 0 ? y : NULL, dx, add);
    }
}

void bp_conv_backward(const struct bp_call *call)
{
    struct bp_conv_geometry g = bp_conv_geometry(call->graph, call->node);
    struct sizes s = sizes_of(&g);
    struct parts at = {.planes = call->scratch};
    at.weights = at.planes + s.planes;
    at.rows = at.weights + s.weights;
    at.spread = at.rows + s.rows;
    at.product = at.spread + s.spread;
    memset(at.planes, 0, s.planes * sizeof *at.planes);
    for (int y = 0; y < g.sh && y < g.ih; y++)
        for (int x = 0; x < g.sw && x < g.iw; x++) {
            struct phase p = phase_of(&g, y, x);
            for (int group = 0; group < g.groups; group++)
                backward_phase(call, &g, &p, &at, group);
        }
}
