/* conv.c: convolution over one or two axes, with groups; depthwise is a group a channel.
 *
 *   forward     y[o, p] = sum over (c, t) of w[o, c, t] x[c, p s - b + t d] + b[o]     x is 0 outside the image
 *   backward    dx[c, i] = sum over (o, t) of w[o, c, t] dy[o, (i + b - t d) / s]      where that is whole and inside
 *   parameters  dw[o, c, t] = sum over samples and p of dy[o, p] x[c, p s - b + t d],  db[o] = sum of dy[o, p]
 *
 * (o a filter, c a channel, p a position, t a tap of the kernel, s stride, d dilation, b padding before.) A filter of a
 * group sees the channels of the group. One axis is two with a height of 1.
 *
 * All three are matrix products whose B is made of patches: windows of the image, packed tile by tile into panels in
 * the thread's scratch and multiplied at once, so that no matrix of all patches ever exists. The image is first
 * copied into planes with a border of zeros, where every tap of every position is at a fixed distance.
 *   forward     W (out, c t) times patches of x, a column a position
 *   backward    W (in, o t) times patches of dy. With strides an input position meets every s-th tap only: the input
 *               falls into s s phases, each a product of its own with its own taps
 *   parameters  dY (out, positions) times transposed patches of x
 * Each element of y and dx is one chain of fma, over ascending (c, t) or (o, t), a zero outside the image included:
 * how positions are cut into tiles does not touch the bits. Elements of dw are sums over samples, ascending, of runs
 * of at most RUN positions, ascending, each run one chain.
 * A group of one channel and few filters with stride 1 across has loops of its own: a product of a single row would
 * be mostly packing.
 * Its y and dx are the same chains; its dw is a sum of 16 lanes along the positions (kernels.h).
 *
 * Threads: pure functions of the call. forward and backward are row-local, parameters is a grid over tiles of dw.
 */
#include "ops/conv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WEIGHT, BIAS };

#define RUN 256            /* positions of one chain of dw; part of the numerics version */
#define TILE BP_PATCH_ROWS /* columns of a tile of dw */
#define TILE_ELEMENTS                                                                                                \
    32768                /* of the panels of a tile of positions: they stay in the cache while W passes over them */
#define DEPTHWISE_OUT 4  /* filters of a channel, at most, for the loops of a depthwise group; numerics too */
#define EXTENT_MAX 65535 /* of a kernel, stride, dilation, padding: products of two fit in 32 bits, unsigned */

/* --- geometry ---------------------------------------------------------------------------------------------------- */

/* One convolution in numbers, along both axes. ph x pw is the image with its border. */
struct geometry {
    int groups, in, out; /* channels and filters of a group */
    int ih, iw, oh, ow, kh, kw, sh, sw, dh, dw, top, left;
    int ph, pw;
    int taps, positions; /* kh kw, oh ow */
};

static int larger(int a, int b)
{
    return a > b ? a : b;
}

static struct geometry geometry_of(const struct bp_graph *graph, const struct bp_node *node)
{
    const struct bp_conv_config *c = &node->u.conv;
    const struct bp_shape *x = bp_input_shape(graph, node, 0), *y = &node->shape;
    bool flat = c->axes == 1;
    struct geometry g = {.groups = (int)c->groups,
                         .in = (int)(x->dim[0] / c->groups),
                         .out = (int)(c->filters / c->groups),
                         .ih = flat ? 1 : (int)x->dim[1],
                         .iw = (int)x->dim[c->axes],
                         .oh = flat ? 1 : (int)y->dim[1],
                         .ow = (int)y->dim[c->axes],
                         .kh = flat ? 1 : (int)c->kernel[0],
                         .kw = (int)c->kernel[c->axes - 1],
                         .sh = flat ? 1 : (int)c->stride[0],
                         .sw = (int)c->stride[c->axes - 1],
                         .dh = flat ? 1 : (int)c->dilation[0],
                         .dw = (int)c->dilation[c->axes - 1]};
    struct bp_span down = {g.ih, g.kh, g.sh, g.dh, flat ? 0 : c->padding[0], c->same},
                   across = {g.iw, g.kw, g.sw, g.dw, c->padding[c->axes - 1], c->same};
    g.top = (int)bp_span_before(&down);
    g.left = (int)bp_span_before(&across);
    g.ph = larger(g.top + g.ih, (g.oh - 1) * g.sh + (g.kh - 1) * g.dh + 1);
    g.pw = larger(g.left + g.iw, (g.ow - 1) * g.sw + (g.kw - 1) * g.dw + 1);
    g.taps = g.kh * g.kw;
    g.positions = g.oh * g.ow;
    return g;
}

int64_t bp_span_before(const struct bp_span *s)
{
    int64_t out = (s->in + s->stride - 1) / s->stride;
    int64_t total = (out - 1) * s->stride + (s->kernel - 1) * s->dilation + 1 - s->in;
    return !s->same ? s->padding : total > 0 ? total / 2 : 0;
}

int64_t bp_span_out(const struct bp_span *s)
{
    int64_t covered = s->in + 2 * s->padding - ((s->kernel - 1) * s->dilation + 1);
    if (s->same)
        return (s->in + s->stride - 1) / s->stride;
    return covered < 0 ? 0 : covered / s->stride + 1;
}

/* Windows of the padded image. */
static struct bp_patches input_patches(const struct geometry *g, const bp_real *planes)
{
    return (struct bp_patches){.planes = planes,
                               .plane = (size_t)g->ph * (size_t)g->pw,
                               .taps_down = g->kh,
                               .taps_across = g->kw,
                               .step_down = (ptrdiff_t)g->dh * g->pw,
                               .step_across = g->dw,
                               .width = g->ow,
                               .down = (size_t)g->sh * (size_t)g->pw,
                               .across = (size_t)g->sw};
}

static size_t plane_elements(size_t channels, int height, int width)
{
    return channels * (size_t)height * (size_t)width + BP_PANEL;
}

/* Copies n images of h x w to row `top`, column `left` of the planes, whose border is zero already. */
static void fill_planes(const struct bp_kernels *kernels, bp_real *planes, size_t plane, int row, int top, int left,
                        const bp_real *image, int n, int h, int w)
{
    for (int c = 0; c < n; c++)
        kernels->copy_rows(h, w, image + (size_t)c * (size_t)h * (size_t)w, (size_t)w,
                           planes + (size_t)c * plane + (size_t)top * (size_t)row + left, (size_t)row);
}

/* Positions of a tile whose patches have k elements: an even number of panels where there are several. */
static int tile_positions(int k, int positions)
{
    int panels = TILE_ELEMENTS / BP_PANEL / k / 2 * 2, all = (positions + BP_PANEL - 1) / BP_PANEL;
    panels = panels < 2 ? 2 : panels;
    return BP_PANEL * (panels < all ? panels : all);
}

static bool is_depthwise(const struct geometry *g)
{
    return g->in == 1 && g->sw == 1 && g->out <= DEPTHWISE_OUT;
}

/* --- shapes ------------------------------------------------------------------------------------------------------ */

static bp_status refuse(struct bp_error *err, const struct bp_node *node, const char *message)
{
    return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (%s): %s", node->name, bp_node_type(node), message);
}

static bp_status check_config(struct bp_node *node, const struct bp_shape *in, struct bp_error *err)
{
    struct bp_conv_config *c = &node->u.conv;
    char shape[64], text[160];

    if (in->rank != c->axes + 1)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (%s) needs %s, but %s arrives: put a reshape layer before it", node->name,
                          bp_node_type(node), c->axes == 2 ? "[channels, height, width]" : "[channels, length]",
                          bp_shape_print(in, shape, sizeof shape));
    if (c->multiplier > 0) {
        c->groups = in->dim[0];
        c->filters = c->multiplier >= BP_ELEMENTS_MAX / in->dim[0] ? BP_ELEMENTS_MAX : c->multiplier * in->dim[0];
    }
    for (int i = 0; i < c->axes; i++)
        if (c->kernel[i] < 1 || c->kernel[i] > EXTENT_MAX || c->stride[i] < 1 || c->stride[i] > EXTENT_MAX ||
            c->dilation[i] < 1 || c->dilation[i] > EXTENT_MAX || c->padding[i] < 0 || c->padding[i] > EXTENT_MAX)
            return refuse(err, node, "kernel_size, strides and dilation must be 1 to 65535, padding 0 to 65535");
    if (c->filters < 1 || c->filters >= BP_ELEMENTS_MAX)
        return refuse(err, node, "filters must be between 1 and 2^31 - 1");
    if (c->groups < 1 || in->dim[0] % c->groups != 0 || c->filters % c->groups != 0) {
        snprintf(text, sizeof text,
                 "groups must divide the %lld channels that arrive and the %lld filters; %lld does not",
                 (long long)in->dim[0], (long long)c->filters, (long long)c->groups);
        return refuse(err, node, text);
    }
    if (!isfinite(c->l1) || !isfinite(c->l2) || c->l1 < 0 || c->l2 < 0)
        return refuse(err, node, "l1 and l2 must be finite and at least 0");
    return BP_OK;
}

static bp_status find_shape(struct bp_node *node, const struct bp_shape *in, struct bp_error *err)
{
    static const char *const axis[] = {"height", "width"};
    const struct bp_conv_config *c = &node->u.conv;
    char shape[64];
    int64_t padded = in->dim[0] / c->groups;

    node->shape = (struct bp_shape){.rank = c->axes + 1, .dim = {c->filters}};
    for (int i = 0; i < c->axes; i++) {
        struct bp_span span = {in->dim[i + 1], c->kernel[i], c->stride[i], c->dilation[i], c->padding[i], c->same};
        int64_t extent = (span.kernel - 1) * span.dilation + 1, out = bp_span_out(&span);
        if (out < 1)
            return bp_fail_at(
                err, BP_INVALID, node->name,
                "layer '%s' (%s): its window of %lld is larger than the %s of %lld%s in %s that "
                "arrives: use a smaller kernel_size or dilation, \"padding\": \"same\", or less pooling "
                "before it",
                node->name, bp_node_type(node), (long long)extent, c->axes == 1 ? "length" : axis[i],
                (long long)(span.in + 2 * span.padding), span.padding ? " (with padding)" : "",
                bp_shape_print(in, shape, sizeof shape));
        node->shape.dim[i + 1] = out;
        padded = padded < BP_ELEMENTS_MAX ? padded * (span.in + extent + 2 * span.padding) : padded;
    }
    if (padded >= BP_ELEMENTS_MAX)
        return bp_fail_at(err, BP_LIMIT, node->name, "layer '%s' (%s): the padded image has too many elements",
                          node->name, bp_node_type(node));
    return BP_OK;
}

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_conv_config *c = &node->u.conv;
    bp_status status = check_config(node, in, err);
    if (status == BP_OK)
        status = find_shape(node, in, err);
    if (status != BP_OK)
        return status;

    int64_t taps = c->kernel[0] * (c->axes == 2 ? c->kernel[1] : 1);
    struct bp_tensor weight = {
        .shape = {.rank = c->axes + 2, .dim = {c->filters, in->dim[0] / c->groups, c->kernel[0], c->kernel[1]}},
        .trainable = node->trainable,
        .decay = true,
        .l1 = c->l1,
        .l2 = c->l2,
        .fan_in = in->dim[0] / c->groups * taps,
        .fan_out = c->filters * taps,
        .init = c->kernel_init,
        .literal = c->weights};
    struct bp_tensor bias = {.shape = {.rank = 1, .dim = {c->filters}},
                             .trainable = node->trainable,
                             .decay = true,
                             .fan_in = weight.fan_in,
                             .fan_out = weight.fan_out,
                             .init = c->bias_init,
                             .literal = c->biases};
    snprintf(weight.name, sizeof weight.name, "%s.weight", node->name);
    snprintf(bias.name, sizeof bias.name, "%s.bias", node->name);
    status = bp_graph_add_tensor(graph, node, &weight, err);
    return status == BP_OK && c->use_bias ? bp_graph_add_tensor(graph, node, &bias, err) : status;
}

static unsigned needs(const struct bp_node *node, enum bp_phase phase)
{
    (void)node;
    return phase == BP_PHASE_PARAMETERS ? BP_NEEDS_X : 0;
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    struct geometry g = geometry_of(graph, node);
    (void)phase; /* each of the three has the same products, but for those with zeros of the border */
    return 2 * bp_shape_elements(&node->shape) * g.in * g.taps;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

static const bp_real *weight_of(const struct bp_call *call)
{
    return call->params + call->graph->tensors[call->node->tensor[WEIGHT]].offset;
}

static const bp_real *bias_of(const struct bp_call *call)
{
    return call->node->u.conv.use_bias ? call->params + call->graph->tensors[call->node->tensor[BIAS]].offset : NULL;
}

/* One group of one sample, whose image is in the planes. */
static void forward_group(const struct bp_call *call, const struct geometry *g, const struct bp_patches *patches,
                          const bp_real *w, const bp_real *bias, bp_real *y, bp_real *panels)
{
    int k = g->in * g->taps, tile = tile_positions(k, g->positions);
    for (int o = 0; o < g->out && is_depthwise(g); o++)
        call->kernels->depthwise(patches, g->positions, w + (size_t)o * (size_t)k, bias != NULL ? bias + o : NULL,
                                 y + (size_t)o * (size_t)g->positions, false);
    for (int j = 0; j < g->positions && !is_depthwise(g); j += tile) {
        int n = g->positions - j < tile ? g->positions - j : tile;
        call->kernels->patches(patches, 0, k, j, n, panels);
        call->kernels->gemm(&(struct bp_gemm){.m = g->out,
                                              .n = n,
                                              .k = k,
                                              .a = w,
                                              .a_row = (size_t)k,
                                              .a_col = 1,
                                              .b = panels,
                                              .c = y + j,
                                              .c_row = (size_t)g->positions,
                                              .row_bias = bias});
    }
}

static void forward(const struct bp_call *call)
{
    struct geometry g = geometry_of(call->graph, call->node);
    size_t image = (size_t)g.in * (size_t)g.ih * (size_t)g.iw, result = (size_t)g.out * (size_t)g.positions;
    size_t size = plane_elements((size_t)g.in, g.ph, g.pw), weights = (size_t)g.out * (size_t)g.in * (size_t)g.taps;
    bp_real *planes = call->scratch, *panels = planes + size;
    struct bp_patches patches = input_patches(&g, planes);
    const bp_real *w = weight_of(call), *bias = bias_of(call);

    memset(planes, 0, size * sizeof *planes);
    for (int r = 0; r < call->rows; r++)
        for (int group = 0; group < g.groups; group++) {
            size_t at = (size_t)r * (size_t)g.groups + (size_t)group;
            fill_planes(call->kernels, planes, patches.plane, g.pw, g.top, g.left, call->x[0] + at * image, g.in,
                        g.ih, g.iw);
            forward_group(call, &g, &patches, w + (size_t)group * weights,
                          bias != NULL ? bias + (size_t)group * (size_t)g.out : NULL, call->y + at * result, panels);
        }
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

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
    struct reach r = {.before = -lowest, .extent = larger(out - 1, last) - lowest + 1, .first = k, .step = 1};
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

static struct reach reach_down(const struct geometry *g, int phase)
{
    return reach_of(phase, g->ih, g->oh, g->kh, g->sh, g->dh, g->top);
}

static struct reach reach_across(const struct geometry *g, int phase)
{
    return reach_of(phase, g->iw, g->ow, g->kw, g->sw, g->dw, g->left);
}

/* The weights of a group as (in, out * taps of the phase); returns how many. */
static size_t turn_weights(const struct geometry *g, const struct reach *v, const struct reach *h, const bp_real *w,
                           bp_real *turned)
{
    bp_real *to = turned;
    for (int c = 0; c < g->in; c++)
        for (int o = 0; o < g->out; o++) {
            const bp_real *from = w + ((size_t)o * (size_t)g->in + (size_t)c) * (size_t)g->taps;
            for (int y = 0; y < v->taps; y++)
                for (int x = 0; x < h->taps; x++)
                    *to++ = from[(v->first + y * v->step) * g->kw + h->first + x * h->step];
        }
    return (size_t)(to - turned);
}

/* Sets or adds to the positions of a phase, (in, n) in `tile` or nothing where that is NULL, from position j on. */
static void spread(const struct geometry *g, int phase_y, int phase_x, int width, int j, int n, const bp_real *tile,
                   bp_real *dx, bool add)
{
    for (int c = 0; c < g->in; c++)
        for (int i = 0; i < n; i++) {
            int y = phase_y + (j + i) / width * g->sh, x = phase_x + (j + i) % width * g->sw;
            bp_real *to = dx + ((size_t)c * (size_t)g->ih + (size_t)y) * (size_t)g->iw + x;
            bp_real v = tile != NULL ? tile[(size_t)c * (size_t)n + (size_t)i] : 0;
            *to = add ? *to + v : v;
        }
}

/* What backward() works with, in scratch. */
struct backward {
    const struct bp_call *call;
    const struct geometry *g;
    struct reach down, across; /* phase 0; before and extent are the same for all */
    bp_real *planes, *turned, *panels, *tile;
};

/* One phase of one group of one sample, whose dy is in the planes. w: the turned weights of the phase. */
static void backward_phase(const struct backward *b, int phase_y, int phase_x, const bp_real *w, bp_real *dx)
{
    const struct geometry *g = b->g;
    struct reach v = reach_down(g, phase_y), h = reach_across(g, phase_x);
    bool add = b->call->add & 1, whole = g->sh == 1 && g->sw == 1;
    int positions = v.positions * h.positions, k = g->out * v.taps * h.taps;
    if (k == 0) {
        spread(g, phase_y, phase_x, h.positions, 0, positions, NULL, dx, add);
        return;
    }
    struct bp_patches patches = {.planes = b->planes + (ptrdiff_t)v.start * h.extent + h.start,
                                 .plane = (size_t)v.extent * (size_t)h.extent,
                                 .taps_down = v.taps,
                                 .taps_across = h.taps,
                                 .step_down = -(ptrdiff_t)v.back * h.extent,
                                 .step_across = -h.back,
                                 .width = h.positions,
                                 .down = (size_t)h.extent,
                                 .across = 1};
    if (whole && g->in == 1 && g->out == 1) {
        b->call->kernels->depthwise(&patches, positions, w, NULL, dx, add);
        return;
    }
    int tile = tile_positions(k, positions);
    for (int j = 0; j < positions; j += tile) {
        int n = positions - j < tile ? positions - j : tile;
        b->call->kernels->patches(&patches, 0, k, j, n, b->panels);
        b->call->kernels->gemm(&(struct bp_gemm){.m = g->in,
                                                 .n = n,
                                                 .k = k,
                                                 .a = w,
                                                 .a_row = (size_t)k,
                                                 .a_col = 1,
                                                 .b = b->panels,
                                                 .c = whole ? dx + j : b->tile,
                                                 .c_row = (size_t)(whole ? positions : n),
                                                 .accumulate = whole && add});
        if (!whole)
            spread(g, phase_y, phase_x, h.positions, j, n, b->tile, dx, add);
    }
}

/* Elements of the parts of backward()'s scratch. */
struct backward_sizes {
    size_t planes, turned, panels, tile;
};

static struct backward_sizes backward_sizes(const struct geometry *g)
{
    struct reach v = reach_down(g, 0), h = reach_across(g, 0);
    struct backward_sizes s = {.planes = plane_elements((size_t)g->out, v.extent, h.extent),
                               .turned = (size_t)g->in * (size_t)g->out * (size_t)g->taps};
    for (int y = 0; y < g->sh && y < g->ih; y++)
        for (int x = 0; x < g->sw && x < g->iw; x++) {
            v = reach_down(g, y), h = reach_across(g, x);
            int k = g->out * v.taps * h.taps, tile = k > 0 ? tile_positions(k, v.positions * h.positions) : 0;
            size_t panels = bp_panels_size(k, tile), c = (size_t)g->in * (size_t)tile;
            s.panels = panels > s.panels ? panels : s.panels;
            s.tile = c > s.tile ? c : s.tile;
        }
    return s;
}

static void backward(const struct bp_call *call)
{
    struct geometry g = geometry_of(call->graph, call->node);
    struct backward_sizes sizes = backward_sizes(&g);
    struct backward b = {.call = call, .g = &g, .down = reach_down(&g, 0), .across = reach_across(&g, 0)};
    size_t image = (size_t)g.in * (size_t)g.ih * (size_t)g.iw, result = (size_t)g.out * (size_t)g.positions;
    size_t plane = (size_t)b.down.extent * (size_t)b.across.extent;

    b.planes = call->scratch;
    b.turned = b.planes + sizes.planes;
    b.panels = b.turned + sizes.turned;
    b.tile = b.panels + sizes.panels;
    memset(b.planes, 0, sizes.planes * sizeof *b.planes);
    for (int group = 0; group < g.groups; group++) {
        bp_real *turned = b.turned;
        for (int y = 0; y < g.sh && y < g.ih; y++)
            for (int x = 0; x < g.sw && x < g.iw; x++) {
                struct reach v = reach_down(&g, y), h = reach_across(&g, x);
                turned += turn_weights(&g, &v, &h, weight_of(call) + (size_t)group * sizes.turned, turned);
            }
        for (int r = 0; r < call->rows; r++) {
            size_t at = (size_t)r * (size_t)g.groups + (size_t)group;
            fill_planes(call->kernels, b.planes, plane, b.across.extent, b.down.before, b.across.before,
                        call->dy + at * result, g.out, g.oh, g.ow);
            const bp_real *w = b.turned;
            for (int y = 0; y < g.sh && y < g.ih; y++)
                for (int x = 0; x < g.sw && x < g.iw; x++) {
                    struct reach v = reach_down(&g, y), h = reach_across(&g, x);
                    backward_phase(&b, y, x, w, call->dx[0] + at * image);
                    w += (size_t)g.in * (size_t)g.out * (size_t)v.taps * (size_t)h.taps;
                }
        }
    }
}

/* --- parameters --------------------------------------------------------------------------------------------------- */

static int tiles_of(const struct geometry *g)
{
    return is_depthwise(g) ? 1 : (g->in * g->taps + TILE - 1) / TILE;
}

/* Channels that the TILE columns of a tile touch, at most. */
static int tile_channels(const struct geometry *g)
{
    int channels = (TILE - 1 + g->taps - 1) / g->taps + 1;
    return channels < g->in ? channels : g->in;
}

/* Positions of a run: as even as possible. */
static int run_positions(const struct geometry *g)
{
    int runs = (g->positions + RUN - 1) / RUN;
    return (g->positions + runs - 1) / runs;
}

static int grid(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    struct geometry g = geometry_of(graph, node);
    return phase == BP_PHASE_PARAMETERS ? g.groups * tiles_of(&g) : 0;
}

static size_t scratch(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase, int rows)
{
    struct geometry g = geometry_of(graph, node);
    int k = g.in * g.taps;
    (void)rows;
    if (phase == BP_PHASE_BACKWARD) {
        struct backward_sizes s = backward_sizes(&g);
        return s.planes + s.turned + s.panels + s.tile;
    }
    if (phase == BP_PHASE_FORWARD)
        return plane_elements((size_t)g.in, g.ph, g.pw) + bp_panels_size(k, tile_positions(k, g.positions));
    return plane_elements((size_t)tile_channels(&g), g.ph, g.pw) + (size_t)run_positions(&g) * TILE;
}

/* Columns q0 .. q0 + nq of a group's dw, from one sample, of whose image the channels from q0's on are in the planes. */
static void parameters_sample(const struct bp_call *call, const struct geometry *g, const struct bp_patches *patches,
                              int q0, int nq, const bp_real *dy, bp_real *dw, bp_real *panels, bool add)
{
    int k = g->in * g->taps, run = run_positions(g);
    for (int o = 0; o < g->out && is_depthwise(g); o++)
        call->kernels->depthwise_gradient(patches, g->positions, dy + (size_t)o * (size_t)g->positions,
                                          dw + (size_t)o * (size_t)k, add);
    for (int j = 0; j < g->positions && !is_depthwise(g); j += run) {
        int n = g->positions - j < run ? g->positions - j : run;
        call->kernels->patches_transposed(patches, q0 % g->taps, nq, j, n, panels);
        call->kernels->gemm(&(struct bp_gemm){.m = g->out,
                                              .n = nq,
                                              .k = n,
                                              .a = dy + j,
                                              .a_row = (size_t)g->positions,
                                              .a_col = 1,
                                              .b = panels,
                                              .c = dw + q0,
                                              .c_row = (size_t)k,
                                              .accumulate = add || j > 0});
    }
}

/* Task t: columns t % tiles * TILE and on of the dw of group t / tiles; the first tile does the bias too. */
static void parameters(const struct bp_call *call)
{
    struct geometry g = geometry_of(call->graph, call->node);
    const struct bp_tensor *tensors = call->graph->tensors;
    int k = g.in * g.taps, tiles = tiles_of(&g), group = call->task / tiles, q0 = call->task % tiles * TILE;
    int nq = is_depthwise(&g) || k - q0 < TILE ? k - q0 : TILE;
    int first = q0 / g.taps, channels = (q0 + nq - 1) / g.taps - first + 1;
    size_t image = (size_t)g.in * (size_t)g.ih * (size_t)g.iw, result = (size_t)g.out * (size_t)g.positions;
    size_t size = plane_elements((size_t)channels, g.ph, g.pw);
    bp_real *planes = call->scratch, *panels = planes + size;
    bp_real *dw =
        call->grads + tensors[call->node->tensor[WEIGHT]].offset + (size_t)group * (size_t)g.out * (size_t)k;
    bp_real *db = call->node->u.conv.use_bias && q0 == 0
                      ? call->grads + tensors[call->node->tensor[BIAS]].offset + (size_t)group * (size_t)g.out
                      : NULL;
    struct bp_patches patches = input_patches(&g, planes);

    memset(planes, 0, size * sizeof *planes);
    for (int r = 0; r < call->rows; r++) {
        size_t at = (size_t)r * (size_t)g.groups + (size_t)group;
        const bp_real *dy = call->dy + at * result;
        const bp_real *x = call->x[0] + at * image + (size_t)first * (size_t)g.ih * (size_t)g.iw;
        fill_planes(call->kernels, planes, patches.plane, g.pw, g.top, g.left, x, channels, g.ih, g.iw);
        parameters_sample(call, &g, &patches, q0, nq, dy, dw, panels, r > 0);
        if (db != NULL)
            call->kernels->row_sum(g.out, g.positions, dy, (size_t)g.positions, db, r > 0);
    }
}

const struct bp_op bp_op_conv = {
    .name = "conv",
    .min_inputs = 1,
    .max_inputs = 1,
    .infer = infer,
    .needs = needs,
    .grid = grid,
    .scratch = scratch,
    .flops = flops,
    .forward = forward,
    .backward = backward,
    .parameters = parameters,
};
