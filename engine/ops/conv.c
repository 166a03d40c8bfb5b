/* conv.c: convolution over one or two axes, with groups; depthwise is a group a channel.
 *
 *   forward     y[o, p] = sum over (c, t) of w[o, c, t] x[c, p s - b + t d] + b[o]     x is 0 outside the image
 *   backward    dx[c, i] = sum over (o, t) of w[o, c, t] dy[o, (i + b - t d) / s]      where that is whole and inside
 *   parameters  dw[o, c, t] = sum over samples and p of dy[o, p] x[c, p s - b + t d],  db[o] = sum of dy[o, p]
 *
 * (o a filter, c a channel, p a position, t a tap of the kernel, s stride, d dilation, b padding before.) A filter of a
 * group sees the channels of the group. One axis is two with a height of 1.
 *
 * All three are matrix products with patches: windows of the image. The image is first copied into planes with a border
 * of zeros, where every tap of every position is at a fixed distance; so patches are read where they lie, or packed tile
 * by tile, and no matrix of all patches ever exists.
 *   forward     W (out, c t) times patches of x, a column a position: conv_product.c
 *   backward    the same with patches of dy: conv_backward.c
 *   parameters  patches of x (c t, positions) times dY turned (positions, out)
 * Each element of y and dx is one chain of fma, over ascending (c, t) or (o, t), a zero outside the image included:
 * how positions are cut into tiles does not touch the bits. Elements of dw are sums over samples, ascending, of runs
 * of at most RUN positions, ascending, each run one chain.
 * A group of one channel and few filters has loops of its own: a product of a single row would be mostly packing. Its y
 * and dx are the same chains; its dw, with stride 1 across, is a sum of 16 lanes along the positions (kernels.h).
 *
 * Threads: pure functions of the call. forward and backward are row-local, parameters is a grid over tiles of dw.
 */
#include "ops/conv.h"

#include "ops/conv_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WEIGHT, BIAS };

#define RUN 256          /* positions of one chain of dw; part of the numerics version */
#define TILE 144         /* columns of a task of dw, at most: so many that packing dy does not count */
#define TILE_FILTERS 32  /* filters of a task of dw: two panels, or twice that where there are many */
#define DEPTHWISE_OUT 4  /* filters of a channel, at most, for the loops of a depthwise group; numerics too */
#define EXTENT_MAX 65535 /* of a kernel, stride, dilation, padding: products of two fit in 32 bits, unsigned */

/* --- geometry ---------------------------------------------------------------------------------------------------- */

static int covered(int image, int windows)
{
    return image > windows ? image : windows;
}

struct bp_conv_geometry bp_conv_geometry(const struct bp_graph *graph, const struct bp_node *node)
{
    const struct bp_conv_config *c = &node->u.conv;
    const struct bp_shape *x = bp_input_shape(graph, node, 0), *y = &node->shape;
    bool flat = c->axes == 1;
    struct bp_conv_geometry g = {.groups = (int)c->groups,
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
    g.ph = covered(g.top + g.ih, (g.oh - 1) * g.sh + (g.kh - 1) * g.dh + 1);
    g.pw = covered(g.left + g.iw, (g.ow - 1) * g.sw + (g.kw - 1) * g.dw + 1);
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
static struct bp_patches input_patches(const struct bp_conv_geometry *g, const bp_real *planes)
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

void bp_conv_fill_planes(const struct bp_kernels *kernels, bp_real *planes, size_t plane, int row, int top, int left,
                         const bp_real *image, int n, int h, int w)
{
    for (int c = 0; c < n; c++)
        kernels->copy_rows(h, w, image + (size_t)c * (size_t)h * (size_t)w, (size_t)w,
                           planes + (size_t)c * plane + (size_t)top * (size_t)row + left, (size_t)row);
}

/* Where the patches of n channels of x are: in the planes, filled from it; or, where it has no border and nothing
 * behind the last element is read, in x itself. */
static const bp_real *planes_of(const struct bp_call *call, const struct bp_conv_geometry *g, bp_real *planes,
                                const bp_real *x, int n, bool exact)
{
    if (exact && g->ph == g->ih && g->pw == g->iw)
        return x;
    bp_conv_fill_planes(call->kernels, planes, (size_t)g->ph * (size_t)g->pw, g->pw, g->top, g->left, x, n, g->ih,
                        g->iw);
    return planes;
}

/* Whose dw is a sum in lanes. */
static bool is_depthwise(const struct bp_conv_geometry *g)
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
    int64_t padded = in->dim[0] / c->groups, sent = c->filters / c->groups; /* planes of the backward pass */

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
        int64_t side = span.in + extent + 2 * span.padding;
        padded = padded < BP_ELEMENTS_MAX ? padded * side : padded;
        sent = sent < BP_ELEMENTS_MAX ? sent * (side / span.stride + 2) : sent;
    }
    if (padded >= BP_ELEMENTS_MAX || sent >= BP_ELEMENTS_MAX)
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
    struct bp_conv_geometry g = bp_conv_geometry(graph, node);
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

/* The filters of a group on one sample, whose image is in the planes, each a loop of its own. */
static void forward_depthwise(const struct bp_call *call, const struct bp_conv_geometry *g,
                              const struct bp_patches *patches, const bp_real *w, const bp_real *bias, bp_real *y)
{
    for (int o = 0; o < g->out; o++)
        call->kernels->depthwise(patches, g->positions, w + (size_t)o * (size_t)g->taps,
                                 bias != NULL ? bias + o : NULL, y + (size_t)o * (size_t)g->positions, false);
}

static void forward(const struct bp_call *call)
{
    struct bp_conv_geometry g = bp_conv_geometry(call->graph, call->node);
    size_t image = (size_t)g.in * (size_t)g.ih * (size_t)g.iw, result = (size_t)g.out * (size_t)g.positions;
    int k = g.in * g.taps;
    size_t size = bp_conv_plane_elements((size_t)g.in, g.ph, g.pw), weights = (size_t)g.out * (size_t)k;
    bool depthwise = g.in == 1 && g.out <= DEPTHWISE_OUT;
    bool gathered = !depthwise && bp_conv_is_gathered(g.out, k, g.positions, (size_t)g.sw);
    bp_real *planes = call->scratch, *panels = planes + size;
    struct bp_conv_product product = {.kernels = call->kernels,
                                      .patches = input_patches(&g, planes),
                                      .filters = g.out,
                                      .k = k,
                                      .positions = g.positions};

    memset(planes, 0, size * sizeof *planes);
    if (!depthwise)
        bp_conv_product_begin(&product, panels + (gathered ? bp_panels_size(k, g.out) : 0));
    for (int group = 0; group < g.groups; group++) {
        const bp_real *w = weight_of(call) + (size_t)group * weights;
        const bp_real *bias = bias_of(call) != NULL ? bias_of(call) + (size_t)group * (size_t)g.out : NULL;
        product.weights = gathered ? panels : w;
        if (gathered)
            call->kernels->pack(panels, w, k, g.out, 1, (size_t)k);
        for (int r = 0; r < call->rows; r++) {
            size_t at = (size_t)r * (size_t)g.groups + (size_t)group;
            product.patches.planes = planes_of(call, &g, planes, call->x[0] + at * image, g.in, gathered);
            if (depthwise)
                forward_depthwise(call, &g, &product.patches, w, bias, call->y + at * result);
            else
                bp_conv_product_run(&product, bias, call->y + at * result, false);
        }
    }
}

/* --- parameters --------------------------------------------------------------------------------------------------- */

/* How dw of a group is cut into tasks: `filters` of them at a time, and of their k columns `columns`. */
struct cut {
    int filters, columns, across, down; /* tasks beside and below each other */
};

static struct cut cut_of(const struct bp_conv_geometry *g)
{
    int k = g->in * g->taps;
    struct cut c = {.filters = g->out, .columns = k, .across = 1, .down = 1};
    if (is_depthwise(g))
        return c;
    c.across = (k + TILE - 1) / TILE;
    c.columns = (k + c.across - 1) / c.across;
    c.filters = g->out > 2 * TILE_FILTERS ? 2 * TILE_FILTERS : TILE_FILTERS;
    if (c.across == 1 && g->groups == 1 && g->out <= TILE_FILTERS) /* else one thread would have it all */
        c.filters = BP_PANEL;
    c.filters = g->out < c.filters ? g->out : c.filters;
    c.down = (g->out + c.filters - 1) / c.filters;
    return c;
}

/* Channels that the columns of a task touch, at most. */
static int cut_channels(const struct bp_conv_geometry *g, const struct cut *cut)
{
    int channels = (cut->columns - 1 + g->taps - 1) / g->taps + 1;
    return channels < g->in ? channels : g->in;
}

/* Positions of a run: as even as possible. */
static int run_positions(const struct bp_conv_geometry *g)
{
    int runs = (g->positions + RUN - 1) / RUN;
    return (g->positions + runs - 1) / runs;
}

static int grid(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    struct bp_conv_geometry g = bp_conv_geometry(graph, node);
    struct cut cut = cut_of(&g);
    return phase == BP_PHASE_PARAMETERS ? g.groups * cut.across * cut.down : 0;
}

static size_t scratch(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase, int rows)
{
    struct bp_conv_geometry g = bp_conv_geometry(graph, node);
    struct cut cut = cut_of(&g);
    int k = g.in * g.taps;
    (void)rows;
    if (phase == BP_PHASE_BACKWARD)
        return bp_conv_backward_scratch(&g);
    if (phase == BP_PHASE_FORWARD)
        return bp_conv_plane_elements((size_t)g.in, g.ph, g.pw) +
               (bp_conv_is_gathered(g.out, k, g.positions, (size_t)g.sw) ? bp_panels_size(k, g.out) : 0) +
               bp_conv_product_scratch(g.out, k, g.positions, (size_t)g.sw);
    return bp_conv_plane_elements((size_t)cut_channels(&g, &cut), g.ph, g.pw) +
           bp_panels_size(run_positions(&g), cut.filters) + bp_panels_size(cut.columns, cut.filters) +
           (size_t)g.positions + (size_t)cut.columns;
}

/* A task of parameters(): columns q0 .. q0 + nq of the dw of filters o0 .. o0 + no of a group. */
struct task {
    int group, o0, no, q0, nq;
    int first, channels; /* of the image */
};

static struct task task_of(const struct bp_conv_geometry *g, int number)
{
    struct cut cut = cut_of(g);
    int k = g->in * g->taps, part = number % (cut.across * cut.down);
    struct task t = {.group = number / (cut.across * cut.down),
                     .o0 = part / cut.across * cut.filters,
                     .q0 = part % cut.across * cut.columns};
    t.no = g->out - t.o0 < cut.filters ? g->out - t.o0 : cut.filters;
    t.nq = k - t.q0 < cut.columns ? k - t.q0 : cut.columns;
    t.first = t.q0 / g->taps;
    t.channels = (t.q0 + t.nq - 1) / g->taps - t.first + 1;
    return t;
}

/* What the product of a task works with, in scratch. dw is collected turned, a column (channel, tap) being a row. */
struct collected {
    struct bp_patches patches;
    bp_real *panels, *dw;
    int32_t *column, *position; /* where they are in the planes */
};

/* The part of what is wanted soon that is fetched beside positions j .. j + n. */
static struct bp_soon part_of(struct bp_soon all, const struct bp_conv_geometry *g, int j, int n)
{
    size_t first = all.n * (size_t)j / (size_t)g->positions;
    return (struct bp_soon){all.at + first, all.n * (size_t)(j + n) / (size_t)g->positions - first};
}

/* dw from one sample, of whose image the task's channels are in the planes; the next one's dy and image are `soon`. */
static void parameters_sample(const struct bp_call *call, const struct bp_conv_geometry *g, const struct task *t,
                              const struct collected *c, const bp_real *dy, bool add, const struct bp_soon soon[2])
{
    int run = run_positions(g);
    for (int j = 0; j < g->positions; j += run) {
        int n = g->positions - j < run ? g->positions - j : run;
        call->kernels->pack(c->panels, dy + j, n, t->no, 1, (size_t)g->positions);
        call->kernels->patch_gemm(
            &(struct bp_patch_gemm){.m = t->nq,
                                    .n = t->no,
                                    .k = n,
                                    .a = c->patches.planes,
                                    .row = c->column,
                                    .col = c->position + j,
                                    .b = c->panels,
                                    .c = c->dw,
                                    .c_row = bp_panels_size(1, t->no),
                                    .accumulate = add || j > 0,
                                    .soon = {part_of(soon[0], g, j, n), part_of(soon[1], g, j, n)}});
    }
}

/* Task t of the grid; those that begin with column 0 do the bias of their filters too. */
static void parameters(const struct bp_call *call)
{
    struct bp_conv_geometry g = bp_conv_geometry(call->graph, call->node);
    const struct bp_tensor *tensors = call->graph->tensors;
    struct task t = task_of(&g, call->task);
    size_t image = (size_t)g.in * (size_t)g.ih * (size_t)g.iw, result = (size_t)g.out * (size_t)g.positions;
    size_t size = bp_conv_plane_elements((size_t)t.channels, g.ph, g.pw), k = (size_t)g.in * (size_t)g.taps;
    size_t filter = (size_t)t.group * (size_t)g.out + (size_t)t.o0;
    bp_real *planes = call->scratch, *dw = call->grads + tensors[call->node->tensor[WEIGHT]].offset + filter * k;
    bool has_bias = call->node->u.conv.use_bias && t.q0 == 0;
    bp_real *db = has_bias ? call->grads + tensors[call->node->tensor[BIAS]].offset + filter : NULL;
    struct collected c = {.patches = input_patches(&g, planes), .panels = planes + size};

    c.dw = c.panels + bp_panels_size(run_positions(&g), t.no);
    c.column = (int32_t *)(c.dw + bp_panels_size(t.nq, t.no));
    c.position = (int32_t *)((bp_real *)c.column + t.nq);
    bp_conv_taps(&c.patches, t.q0 % g.taps, t.nq, c.column);
    bp_conv_positions(&c.patches, 0, g.positions, c.position);
    memset(planes, 0, size * sizeof *planes);
    for (int r = 0; r < call->rows; r++) {
        size_t at = (size_t)r * (size_t)g.groups + (size_t)t.group;
        const bp_real *dy = call->dy + at * result + (size_t)t.o0 * (size_t)g.positions;
        const bp_real *x = call->x[0] + at * image + (size_t)t.first * (size_t)g.ih * (size_t)g.iw;
        size_t more = r + 1 < call->rows;
        struct bp_soon soon[2] = {
            {dy + more * (size_t)g.groups * result, more * (size_t)t.no * (size_t)g.positions},
            {x + more * (size_t)g.groups * image, more * (size_t)t.channels * (size_t)g.ih * (size_t)g.iw}};
        c.patches.planes = planes_of(call, &g, planes, x, t.channels, !is_depthwise(&g));
        if (!is_depthwise(&g))
            parameters_sample(call, &g, &t, &c, dy, r > 0, soon);
        for (int o = 0; o < t.no && is_depthwise(&g); o++)
            call->kernels->depthwise_gradient(&c.patches, g.positions, dy + (size_t)o * (size_t)g.positions,
                                              dw + (size_t)o * k, r > 0);
        if (db != NULL)
            call->kernels->row_sum(t.no, g.positions, dy, (size_t)g.positions, db, r > 0);
    }
    if (!is_depthwise(&g))
        call->kernels->turn(t.nq, t.no, c.dw, bp_panels_size(1, t.no), NULL, dw + t.q0, k, false);
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
    .backward = bp_conv_backward,
    .parameters = parameters,
};
