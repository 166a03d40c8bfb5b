/* The model's shares: what a thread updates and packs together. */
#include "graph/model.h"
#include "graph/nets.h"
#include "kernels/kernels.h"

#include <stdlib.h>

/* Large and small tensors in turn, odd sizes, a layer of one row and one of one column. */
static struct bp_graph *graph_of(void)
{
    struct bp_graph *graph = net_new(1, 301, 0, 0);
    int n = net_act(graph, net_dense(graph, 0, 173), BP_RELU, 0);
    n = net_dense(graph, net_dense(graph, n, 9), 1);
    n = net_dense(graph, net_dense(graph, n, 2050), 33);
    net_head(graph, net_dense(graph, n, 700), BP_LOSS_MSE, 1);
    return graph;
}

static struct bp_model *model_of(const struct bp_graph *graph)
{
    struct bp_model *model = NULL;
    assert_int_equal(bp_model_new(graph, true, 0, &model, NULL), BP_OK);
    for (size_t i = 0; i < model->nparams; i++)
        model->params[i] = (float)(i % 9973) + 1;
    return model;
}

static void shares_cover_the_parameters(void **state)
{
    struct bp_graph *graph = graph_of();
    struct bp_model *model = model_of(graph);
    size_t at = 0;
    (void)state;
    assert_true(model->ngroups > 2 && model->nshares > model->ngroups);
    for (int i = 0; i < model->nshares; at = model->shares[i++].end) {
        assert_true(model->shares[i].first == at && model->shares[i].end > at);
        for (int t = 0; t < graph->ntensors; t++) { /* a matrix is cut between panels of rows */
            const struct bp_tensor *tensor = &graph->tensors[t];
            if (tensor->shape.rank == 2 && at > tensor->offset && at < tensor->offset + tensor->count)
                assert_int_equal((at - tensor->offset) % (BP_PANEL * (size_t)tensor->shape.dim[1]), 0);
        }
    }
    assert_int_equal(at, model->nparams);
    bp_model_free(model);
    bp_graph_free(graph);
}

static void parts_share_each_group(void **state)
{
    struct bp_graph *graph = graph_of();
    struct bp_model *model = model_of(graph);
    (void)state;
    for (int parts = 1; parts < 7; parts++) {
        int share = 0;
        for (int g = 0; g < model->ngroups; g++)
            for (int p = 0; p < parts; p++) {
                struct bp_share_group mine = bp_model_part(model, g, parts, p);
                assert_int_equal(mine.first, share);
                assert_true(mine.end >= mine.first);
                share = mine.end;
            }
        assert_int_equal(share, model->nshares);
    }
    bp_model_free(model);
    bp_graph_free(graph);
}

/* Every packed copy is what one call of the kernel makes of the whole matrix. */
static size_t packed_elements(const struct bp_model *model)
{
    size_t n = 0;
    for (int i = 0; i < model->npacked; i++)
        n += bp_panels_size(model->packed_list[i].k, model->packed_list[i].n);
    return n;
}

static void shares_pack_whole_matrices(void **state)
{
    struct bp_graph *graph = graph_of();
    struct bp_model *model = model_of(graph);
    (void)state;
    assert_true(model->npacked > graph->nheads && !model->past);
    bp_model_pack(model, NULL);
    for (int i = 0; i < 2 * model->npacked; i++) {
        if (i == model->npacked) { /* once more, past the caches */
            memset(model->packed, 0, packed_elements(model) * sizeof(float));
            model->past = true;
            bp_model_pack(model, NULL);
        }
        const struct bp_packed *p = &model->packed_list[i % model->npacked];
        size_t bytes = bp_panels_size(p->k, p->n) * sizeof(float);
        float *want = malloc(bytes);
        bp_kernels_current()->pack(want, model->params + graph->tensors[p->tensor].offset, p->k, p->n, p->row,
                                   p->col);
        assert_memory_equal(model->packed + p->offset, want, bytes);
        free(want);
    }
    bp_model_free(model);
    bp_graph_free(graph);
}

/* Pieces in any order make the same copies as the whole. */
static void pieces_pack(bool past)
{
    struct bp_graph *graph = graph_of();
    struct bp_model *whole = model_of(graph), *cut = model_of(graph);
    bp_model_pack(whole, NULL);
    cut->past = past;
    for (int t = graph->ntensors - 1; t >= 0; t--) {
        const struct bp_shape *shape = &graph->tensors[t].shape;
        int rows = shape->rank == 2 ? (int)shape->dim[0] : 1, columns = (int)shape->dim[shape->rank - 1];
        for (int row = 0; row < rows; row += 48)
            for (int column = 0; column < columns; column += 32) {
                struct bp_piece piece = {t, row, rows - row < 48 ? rows - row : 48, column,
                                         columns - column < 32 ? columns - column : 32};
                bp_model_pack_piece(cut, &piece);
            }
    }
    bp_model_pack_end(cut);
    for (int i = 0; i < whole->npacked; i++) {
        const struct bp_packed *p = &whole->packed_list[i];
        assert_memory_equal(whole->packed + p->offset, cut->packed + p->offset,
                            bp_panels_size(p->k, p->n) * sizeof(float));
    }
    bp_model_free(whole);
    bp_model_free(cut);
    bp_graph_free(graph);
}

static void pieces_pack_whole_matrices(void **state)
{
    (void)state;
    pieces_pack(false);
    pieces_pack(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_cover_the_parameters),
        cmocka_unit_test(parts_share_each_group),
        cmocka_unit_test(shares_pack_whole_matrices),
        cmocka_unit_test(pieces_pack_whole_matrices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
