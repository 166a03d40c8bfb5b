/* model.c: the numbers of a network and their packed copies; see model.h.
 *
 * One allocation holds the struct, its lists, the state ranges and the packed weights. The layout is computed by one
 * function, first without memory (the estimate), then with it.
 *
 * Which packed copies: the forward product of each weight, and in a model for training the backward product of the
 * weights whose layer has to send an error signal on. An execution that wants the gradient of the input too packs
 * what is missing by itself.
 *
 * Threads: see model.h. Shares are cut by shapes; which thread has which changes no bits.
 */
#include "graph/model.h"

#include "base/memory.h"
#include "graph/plan.h"

#include <stdint.h>
#include <string.h>

#define SHARE_ELEMENTS 1024   /* of a share, about: a small layer has enough of them to be divided between threads */
#define SHARES_MAX 4096       /* about: larger models have larger shares */
#define SHARE_ALIGN 1024      /* parts of tensors without rows end at whole blocks of lanes */
#define PAST_BYTES (16 << 20) /* of packed copies that no cache would keep until they are read, or at others' cost */
#define TEAM_ELEMENTS 4096    /* parameters below which a pass over them is not worth a barrier */

struct layout {
    size_t lists, state, packed; /* bytes of each part */
    size_t packed_elements;
    int npacked, nshares, ngroups;
};

/* Calls for each packed copy: fills list (when not NULL) and counts. */
static bool list_packed(const struct bp_graph *graph, bool training, const bool *needs, struct bp_packed *list,
                        struct layout *l)
{
    for (int i = 0; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        const struct bp_op *op = bp_op_table[node->kind];
        bool below = bp_runs_backward(graph, needs, i);
        for (int slot = 0; slot < node->ntensors && op->panels != NULL; slot++) {
            for (int backward = 0; backward <= (training && below); backward++) {
                struct bp_panels m;
                if (!op->panels(graph, node, slot, backward ? BP_PHASE_BACKWARD : BP_PHASE_FORWARD, &m))
                    continue;
                if (list != NULL)
                    list[l->npacked] = (struct bp_packed){.tensor = node->tensor[slot],
                                                          .backward = backward,
                                                          .k = m.k,
                                                          .n = m.n,
                                                          .row = m.row,
                                                          .col = m.col,
                                                          .offset = l->packed_elements};
                l->npacked++;
                if (!bp_size_add(l->packed_elements, bp_panels_size(m.k, m.n), &l->packed_elements))
                    return false;
            }
        }
    }
    return true;
}

/* What a tensor may be cut into: as many rows as a panel has columns. */
static size_t unit_of(const struct bp_tensor *tensor)
{
    return tensor->shape.rank > 1 ? BP_PANEL * (tensor->count / (size_t)tensor->shape.dim[0]) : SHARE_ALIGN;
}

/* Ends the open share at `end`, and its group where `last`. Fills the lists where they are not NULL. */
static void cut(struct bp_share *shares, struct bp_share_group *groups, struct layout *l, size_t *open, size_t end,
                bool last)
{
    if (end > *open) {
        if (shares != NULL)
            shares[l->nshares] = (struct bp_share){.first = *open, .end = end};
        l->nshares++;
        *open = end;
    }
    int first = groups != NULL && l->ngroups > 0 ? groups[l->ngroups - 1].end : 0;
    if (last && groups != NULL)
        groups[l->ngroups] = (struct bp_share_group){first, l->nshares};
    l->ngroups += last;
}

/* Cuts the flat range into shares. A large tensor begins a share and a group; small ones join the share before them. */
static void list_shares(const struct bp_graph *graph, struct bp_share *shares, struct bp_share_group *groups,
                        struct layout *l)
{
    size_t most = graph->nparams / SHARES_MAX > SHARE_ELEMENTS ? graph->nparams / SHARES_MAX : SHARE_ELEMENTS;
    size_t open = 0; /* where the open share begins */

    for (int i = 0; i < graph->ntensors; i++) {
        const struct bp_tensor *t = &graph->tensors[i];
        if (t->statistic || t->offset + t->count - open <= most)
            continue;
        if (t->offset > open)
            cut(shares, groups, l, &open, t->offset, true);
        size_t unit = unit_of(t), each = most / unit > 0 ? most / unit * unit : unit;
        while (t->offset + t->count - open > each)
            cut(shares, groups, l, &open, open + each, false);
    }
    cut(shares, groups, l, &open, graph->nparams, true);
}

/* Bytes of a range of `elements` numbers, aligned, added to *total. */
static bool add_range(size_t elements, size_t *total)
{
    size_t bytes;
    return bp_size_mul(elements, sizeof(bp_real), &bytes) && bytes <= SIZE_MAX - BP_CACHE_LINE &&
           bp_size_add(*total, bp_size_align(bytes), total);
}

static bool lay_out(const struct bp_graph *graph, bool training, int nslots, const bool *needs, struct layout *ret,
                    size_t *ret_total)
{
    struct layout l = {0};
    size_t tensors = (size_t)graph->ntensors * sizeof(size_t);
    if (!list_packed(graph, training, needs, NULL, &l))
        return false;
    list_shares(graph, NULL, NULL, &l);
    l.lists = bp_size_align(sizeof(struct bp_model)) + 2 * bp_size_align(tensors) +
              bp_size_align((size_t)l.npacked * sizeof(struct bp_packed)) +
              bp_size_align((size_t)l.nshares * sizeof(struct bp_share)) +
              bp_size_align((size_t)l.ngroups * sizeof(struct bp_share_group));
    for (int i = 0; i < 1 + training + nslots; i++)
        if (!add_range(graph->nparams, &l.state))
            return false;
    if (!add_range(graph->nstats, &l.state) || !add_range(l.packed_elements, &l.packed))
        return false;
    *ret = l;
    return bp_size_add(l.lists, l.state, ret_total) && bp_size_add(*ret_total, l.packed, ret_total);
}

static void *carve(char **at, size_t bytes)
{
    void *start = *at;
    *at += bp_size_align(bytes);
    return start;
}

static size_t end_of(const struct bp_graph *graph, const struct bp_packed *p)
{
    return graph->tensors[p->tensor].offset + graph->tensors[p->tensor].count;
}

static void fill(struct bp_model *model, const struct bp_graph *graph, bool training, int nslots, const bool *needs,
                 const struct layout *l)
{
    size_t tensors = (size_t)graph->ntensors * sizeof(size_t), params = graph->nparams * sizeof(bp_real);
    struct layout again = {0};
    char *at = (char *)model;

    carve(&at, sizeof *model);
    model->block = model;
    model->graph = graph;
    model->nparams = graph->nparams;
    model->nstats = graph->nstats;
    model->nslots = nslots;
    model->packed_forward = carve(&at, tensors);
    model->packed_backward = carve(&at, tensors);
    model->packed_list = carve(&at, (size_t)l->npacked * sizeof *model->packed_list);
    model->shares = carve(&at, (size_t)l->nshares * sizeof *model->shares);
    model->groups = carve(&at, (size_t)l->ngroups * sizeof *model->groups);
    model->params = carve(&at, params);
    model->grads = training ? carve(&at, params) : NULL;
    for (int i = 0; i < nslots; i++)
        model->slots[i] = carve(&at, params);
    model->stats = carve(&at, graph->nstats * sizeof(bp_real));
    model->packed = (bp_real *)at;
    model->past = l->packed_elements >= PAST_BYTES / sizeof(bp_real);

    list_packed(graph, training, needs, model->packed_list, &again);
    list_shares(graph, model->shares, model->groups, &again);
    model->npacked = again.npacked;
    model->nshares = again.nshares;
    model->ngroups = again.ngroups;
    for (int i = 0; i < graph->ntensors; i++)
        model->packed_forward[i] = model->packed_backward[i] = SIZE_MAX;
    for (int i = 0; i < model->npacked; i++) {
        const struct bp_packed *p = &model->packed_list[i];
        (p->backward ? model->packed_backward : model->packed_forward)[p->tensor] = p->offset;
    }
    for (int i = 0, first = 0; i < model->nshares; i++) {
        struct bp_share *share = &model->shares[i];
        while (first < model->npacked && end_of(graph, &model->packed_list[first]) <= share->first)
            first++;
        share->packed = first;
    }
}

bp_status bp_model_new(const struct bp_graph *graph, bool training, int nslots, struct bp_model **ret,
                       struct bp_error *err)
{
    bool needs[BP_NODES_MAX];
    struct layout l;
    size_t total;

    if (nslots < 0 || nslots > BP_SLOTS_MAX)
        return bp_fail(err, BP_INVALID, "a model has 0 to %d optimizer slots, got %d", BP_SLOTS_MAX, nslots);
    bp_needs_gradient(graph, false, needs);
    if (!lay_out(graph, training, nslots, needs, &l, &total))
        return bp_fail(err, BP_LIMIT, "the network is too large");
    struct bp_model *model = bp_alloc(total);
    if (model == NULL)
        return bp_fail(err, BP_NOMEM, "out of memory: the model takes %zu bytes", total);
    fill(model, graph, training, nslots, needs, &l);
    *ret = model;
    return BP_OK;
}

void bp_model_free(struct bp_model *model)
{
    if (model != NULL)
        bp_free(model->block);
}

bp_status bp_model_estimate(const struct bp_graph *graph, bool training, int nslots, size_t *ret)
{
    bool needs[BP_NODES_MAX];
    struct layout l;
    size_t total;

    if (nslots < 0 || nslots > BP_SLOTS_MAX)
        return BP_INVALID;
    bp_needs_gradient(graph, false, needs);
    if (!lay_out(graph, training, nslots, needs, &l, &total))
        return BP_LIMIT;
    *ret = total;
    return BP_OK;
}

static int panel_part(int from, int end)
{
    return end - from < BP_PANEL ? end - from : BP_PANEL;
}

/* Packs a piece of a matrix W (out, in): its rows are columns of the product's B in the forward pass, and rows of it in
 * the backward pass. */
static void pack_piece(struct bp_model *model, const struct bp_packed *p, const struct bp_piece *s)
{
    const struct bp_kernels *kernels = bp_kernels_current();
    const bp_real *weights = model->params + model->graph->tensors[p->tensor].offset;
    bp_real *to = model->packed + p->offset;
    void (*pack)(bp_real *, const bp_real *, int, int, size_t, size_t) =
        model->past ? kernels->pack_past : kernels->pack;
    size_t k = (size_t)p->k, row = (size_t)s->row, column = (size_t)s->column;

    for (int o = s->row; !p->backward && o < s->row + s->rows; o += BP_PANEL)
        pack(to + (size_t)o * k + column * BP_PANEL, weights + (size_t)o * p->col + column, s->columns,
             panel_part(o, s->row + s->rows), 1, p->col);
    for (int i = s->column; p->backward && i < s->column + s->columns; i += BP_PANEL)
        pack(to + (size_t)i * k + row * BP_PANEL, weights + row * p->row + i, s->rows,
             panel_part(i, s->column + s->columns), p->row, 1);
}

void bp_model_pack_end(const struct bp_model *model)
{
    if (model->past)
        bp_kernels_current()->pack_end();
}

void bp_model_pack_share(struct bp_model *model, const struct bp_share *share)
{
    for (int i = share->packed; i < model->npacked; i++) {
        const struct bp_packed *p = &model->packed_list[i];
        size_t offset = model->graph->tensors[p->tensor].offset, end = end_of(model->graph, p);
        size_t row = p->backward ? p->row : p->col; /* its length: what is contiguous */
        if (offset >= share->end)
            break;
        size_t from = share->first > offset ? share->first : offset, to = share->end < end ? share->end : end;
        struct bp_piece rows = {.row = (int)((from - offset) / row),
                                .rows = (int)((to - from) / row),
                                .columns = p->backward ? p->n : p->k};
        pack_piece(model, p, &rows);
    }
    bp_model_pack_end(model);
}

void bp_model_pack_piece(struct bp_model *model, const struct bp_piece *piece)
{
    for (int i = 0; i < model->npacked; i++)
        if (model->packed_list[i].tensor == piece->tensor)
            pack_piece(model, &model->packed_list[i], piece);
}

struct bp_share_group bp_model_part(const struct bp_model *model, int group, int parts, int part)
{
    const struct bp_share_group *g = &model->groups[group];
    int n = g->end - g->first;
    return (struct bp_share_group){g->first + bp_team_slice(n, parts, part, g->first),
                                   g->first + bp_team_slice(n, parts, part + 1, g->first)};
}

int bp_model_parts(const struct bp_model *model, const struct bp_team *team)
{
    return model->nparams < TEAM_ELEMENTS ? 1 : bp_team_active(team);
}

struct pack {
    struct bp_model *model;
    int parts;
};

static void pack_part(void *arg, int part, int thread)
{
    const struct pack *w = arg;
    (void)thread;
    for (int g = 0; g < w->model->ngroups; g++) {
        struct bp_share_group mine = bp_model_part(w->model, g, w->parts, part);
        for (int s = mine.first; s < mine.end; s++)
            bp_model_pack_share(w->model, &w->model->shares[s]);
    }
}

void bp_model_pack(struct bp_model *model, struct bp_team *team)
{
    struct pack w = {model, bp_model_parts(model, team)};
    bp_team_for(team, w.parts, pack_part, &w);
}
