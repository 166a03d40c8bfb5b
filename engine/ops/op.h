/* op.h: what an operation of the graph is: one row of the op table.
 *
 * An op is described once, and everything else is derived from the description: shapes when the graph is built, the
 * backward program (graph/autodiff.c), the memory plan (graph/plan.c) and the stages (graph/exec_run.c).
 *
 *   infer       shape of the value, tensors
 *   forward     y = f(x, parameters)
 *   backward    the error signal sent on: dx = dL/dx from dy = dL/dy, by the chain rule
 *   parameters  the parameter gradients, from dy and what the forward pass left
 *
 * Row-local and grid phases. A phase is row-local when row r of its results depends on row r of its operands alone:
 * such phases run one after another on a block of rows before the next block begins, without a barrier. A phase
 * that mixes rows (parameter gradients, batch statistics) is a grid: a number of independent tasks that depends on
 * shapes only, each float written by one task.
 *
 * Phases by columns. A phase that treats the columns of its result alike may also be run on all rows of some columns.
 * Where a layer has more weights than activations that is cheaper than by rows: each thread reads only the weights of
 * its own columns, and its cache has them already, for it has updated them. Ops without weights, and those that mix
 * rows, follow on the same columns without a barrier. How a phase is run changes no bits.
 *
 * Epilogues. An activation that follows a layer whose phase ends in a product is done where that stores its results, and so
 * is, of the error signals, the slope of the activation below: neither is an instruction of its own then.
 *
 * Memory. What a backward phase reads besides dy is declared by `needs` (the inputs x, the value y); the rest of the
 * forward pass is forgotten. Workspace is written by the forward phase and lives until the backward phases are
 * done. Scratch belongs to a thread and dies with the call, or in a grid with the thread's last task of it.
 *
 * Threads: the table is constant; phases are pure functions of their call, and are run by several threads at a time
 * on different rows or tasks.
 */
#ifndef BP_OPS_OP_H
#define BP_OPS_OP_H

#include "base/real.h"
#include "base/ticks.h"
#include "graph/exec.h"

enum bp_phase { BP_PHASE_FORWARD, BP_PHASE_BACKWARD, BP_PHASE_PARAMETERS };

/* Bits of bp_op.needs. */
enum { BP_NEEDS_X = 1, BP_NEEDS_Y = 2 };

/* What bp_op.by_columns says of a phase and a number of rows. */
enum bp_by_columns {
    BP_COLUMNS_NEVER,  /* row-local, or a grid */
    BP_COLUMNS_JOIN,   /* by rows, or by columns where what comes before it is: it reads the columns that it writes */
    BP_COLUMNS_ALWAYS, /* the same, but it mixes rows: never by rows */
    BP_COLUMNS_BEGIN   /* it reads all columns of x (FORWARD) or of dy (BACKWARD) */
};

/* One call of a phase. Pointers are at row row0, and `rows` rows are to be done. Row-local phases: a block of rows. Grid
 * phases: the whole batch, or for PARAMETERS of an op with a bound a chunk of it, and `task` says which part to do. By
 * columns: the whole batch, and `column` and `columns` say which columns of y (FORWARD) or dx[0] (BACKWARD) to do; else
 * columns is 0. */
struct bp_call {
    const struct bp_graph *graph;
    const struct bp_node *node;
    const struct bp_kernels *kernels;
    const bp_real *params;                 /* of the model */
    bp_real *stats;                        /* of the model; a forward phase writes them in training mode only */
    bp_real *grads;                        /* of the model; NULL without training */
    const bp_real *const *forward_panels;  /* per tensor of the graph: packed weights (see bp_op.panels) */
    const bp_real *const *backward_panels; /* per tensor: the same for the backward phase */
    int index;                             /* of the node: the item of its random stream */
    int row0, rows, task;
    int column, columns;
    bool first;          /* of the thread's tasks of this grid; to the others, scratch is as the one before left it */
    bool training;       /* false: prediction mode */
    uint64_t seed, step; /* of the random numbers */
    const bp_real *x[BP_NODE_INPUTS_MAX]; /* (rows, elements of input i) */
    bp_real *y;                           /* (rows, elements) */
    const bp_real *dy;                    /* (rows, elements); backward phases */
    bp_real *dx[BP_NODE_INPUTS_MAX];      /* (rows, elements of input i), NULL where not wanted */
    unsigned add;                         /* bit i: add to dx[i] instead of writing it */
    struct bp_epilogue epilogue; /* of y (FORWARD) or dx[0] (BACKWARD), at row row0; of an op with epilogues */
    bp_real *workspace;          /* (rows, workspace.row), then workspace.fixed elements in grid phases */
    bp_real *scratch;            /* as many elements as bp_op.scratch asked for */
    const struct bp_model *model;
    /* Not NULL in PARAMETERS of an op with a bound where the pass updates (exec.h): gradients go to
     * bp_call_hand_over instead of to grads. */
    const struct bp_exec_update *update;
    uint64_t *update_ticks; /* of a profile, or NULL */
};

static inline void bp_call_hand_over(const struct bp_call *call, const struct bp_piece *piece, bp_real *gradient,
                                     size_t gradient_row)
{
    uint64_t begin = call->update_ticks != NULL ? bp_ticks() : 0;
    call->update->take(call->update->arg, piece, gradient, gradient_row);
    if (call->update_ticks != NULL)
        *call->update_ticks += bp_ticks() - begin;
}

/* The elements of a call as runs of neighbours: all rows together, or of each row its columns. n: elements of a row. */
struct bp_runs {
    size_t first, count, row, length;
};

static inline struct bp_runs bp_call_runs(const struct bp_call *call, size_t n)
{
    size_t rows = (size_t)call->rows;
    if (call->columns == 0 || (size_t)call->columns == n)
        return (struct bp_runs){.count = 1, .length = rows * n};
    return (struct bp_runs){(size_t)call->column, rows, n, (size_t)call->columns};
}

/* Size of a workspace: row elements for each row, and fixed ones for the batch (ops whose phases are grids). */
struct bp_extent {
    size_t row, fixed;
};

/* Where a layer that reads step by step leaves error signals in its workspace, after backward and parameters: in each row,
 * `n` elements at `first` and at `last`, of the first and the last step that it reads. */
struct bp_unrolled {
    size_t row, first, last, n;
};

/* A matrix that the kernels want packed: B (k, n), element (p, j) at tensor[p * row + j * col]. */
struct bp_panels {
    int k, n;
    size_t row, col;
};

/* Function members may be NULL where the comment says so; `config` of a node is its union. */
struct bp_op {
    const char *name;
    int min_inputs, max_inputs;
    bool view; /* the value is the input's under another shape: no code, no memory, no instruction */
    /* parameters() reads what backward() left in the workspace: backward then runs for a trainable node even where no
     * layer below wants its error signal (dx is NULL there). */
    bool backward_first;
    bool epilogues; /* forward and backward take them: the op has one input, and y and dx[0] come out of products */

    /* Checks the configuration and the inputs' shapes, sets node->shape, declares tensors. */
    bp_status (*infer)(struct bp_graph *graph, struct bp_node *node, struct bp_error *err);
    /* BP_NEEDS_ bits of the phase (BACKWARD or PARAMETERS). NULL: nothing. */
    unsigned (*needs)(const struct bp_node *node, enum bp_phase phase);
    /* Whether the phase may be given y == x[0] (FORWARD), dx[0] == dy where it writes (BACKWARD). NULL: never. */
    bool (*in_place)(const struct bp_node *node, enum bp_phase phase);
    /* Tasks of a phase that is a grid, 0 for a row-local one. NULL: all are row-local. PARAMETERS is always a grid. */
    int (*grid)(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase);
    /* Whether FORWARD or BACKWARD, of so many rows at most, is run by columns. NULL: never. An op with it has one input. */
    enum bp_by_columns (*by_columns)(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase,
                                     int rows);
    /* Whether the node may be the epilogue of another one; ret takes the kind and alpha. NULL: no. */
    bool (*epilogue)(const struct bp_node *node, struct bp_epilogue *ret);
    /* NULL: none. */
    struct bp_extent (*workspace)(const struct bp_graph *graph, const struct bp_node *node);
    struct bp_unrolled (*unrolled)(const struct bp_graph *graph, const struct bp_node *node); /* NULL: no steps */
    /* Elements of scratch for `rows` rows of a row-local phase, a task of a grid, or any columns. NULL: none. */
    size_t (*scratch)(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase, int rows);
    /* Whether the node's tensor number `slot` is wanted packed for the phase (FORWARD or BACKWARD). NULL: none. */
    bool (*panels)(const struct bp_graph *graph, const struct bp_node *node, int slot, enum bp_phase phase,
                   struct bp_panels *ret);
    /* Operations of a phase for one sample; 2 for a multiply-add. NULL: none. */
    int64_t (*flops)(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase);

    /* An upper bound of the sum of squares of all parameter gradients, without rounding, given the sums of squares of
     * x[0] and of dy, both of which PARAMETERS needs; it then hands over what it makes where the call says so, and makes
     * the sums of any chunk of rows alone where rows is that chunk. NULL: none of this. */
    double (*bound)(const struct bp_node *node, int rows, double x, double dy);

    void (*forward)(const struct bp_call *call);    /* NULL: input and views */
    void (*backward)(const struct bp_call *call);   /* NULL: the same */
    void (*parameters)(const struct bp_call *call); /* NULL: no tensors */
};

extern const struct bp_op *const bp_op_table[BP_OP_COUNT];

extern const struct bp_op bp_op_batch_norm, bp_op_layer_norm, bp_op_group_norm, bp_op_add, bp_op_multiply,
    bp_op_concat, bp_op_multi_head_attention;
extern const struct bp_op bp_op_input, bp_op_flatten, bp_op_dense, bp_op_activation, bp_op_dropout;
extern const struct bp_op bp_op_simple_rnn, bp_op_lstm, bp_op_gru;

extern const struct bp_op bp_op_conv, bp_op_pool, bp_op_reshape, bp_op_embedding;

/* The loss of one head on some rows, as in kernels.h: loss (rows) and, unless dx is NULL, dx = scale weight dL/dx. */
struct bp_loss_call {
    const struct bp_kernels *kernels;
    int rows, n;
    const bp_real *x;     /* (rows, n) predictions */
    const int32_t *label; /* (rows) */
    const bp_real *value; /* (rows, n) */
    const float *weight;  /* (rows) */
    bp_real scale;
    bp_real parameter; /* of the head; huber's delta in the unit of x */
    bp_real *loss;     /* (rows) */
    bp_real *dx;       /* (rows, n), or NULL */
};

struct bp_loss_op {
    bool labels; /* the target is a class, not n values */
    void (*run)(const struct bp_loss_call *call);
};

extern const struct bp_loss_op bp_loss_table[BP_LOSS_COUNT];

/* Shape of input i of a node (of the graph, or being added to it). */
static inline const struct bp_shape *bp_input_shape(const struct bp_graph *graph, const struct bp_node *node, int i)
{
    return &graph->nodes[node->input[i]].shape;
}

#endif
