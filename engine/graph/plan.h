/* plan.h: how one model is run: instructions, stages, and where everything lives. Inside the graph floor only.
 *
 * A plan is made in three steps from a graph and the options of an execution:
 *   autodiff.c  the program: forward instructions in the order of the graph, the losses, and the backward program
 *               derived from them by walking the graph in reverse
 *   plan.c      epilogues, stages, and the memory plan
 * It holds no numbers and no pointers to any (offsets are in elements), so that the float and the double build share
 * it; running it is exec_run.c.
 *
 * Storages. The value, the gradient and the workspace of a node each live in a storage. Several may share one: a view
 * has its input's; an op that runs in place has its input's when nobody reads that any more. A storage is
 *   local   when all its uses are in one stage by rows: it holds one block of rows, in the thread's scratch;
 *   pinned  when someone outside reads it (input, outputs, all with keep_all): memory of its own in the arena;
 *   neither when a later stage reads it: in the arena, from its first stage to its last.
 *
 * Threads: immutable once made.
 */
#ifndef BP_GRAPH_PLAN_H
#define BP_GRAPH_PLAN_H

#include "graph/exec.h"
#include "ops/op.h"

/* In the order of enum bp_part (exec.h). */
enum bp_instr_kind { BP_INSTR_FORWARD, BP_INSTR_LOSS, BP_INSTR_BACKWARD, BP_INSTR_PARAMETERS };

struct bp_instr {
    enum bp_instr_kind kind;
    int node;
    int head;       /* LOSS: which one */
    unsigned want;  /* BACKWARD: bit k: the gradient of input k is wanted; LOSS: bit 0 */
    unsigned add;   /* the same bits: add to it, for it has a contribution already */
    int tasks;      /* of a grid, else 0 */
    int first_task; /* of a grid: number of its first task in the stage */
    int epilogue;   /* node of an activation: FORWARD also makes its value, BACKWARD goes on through it; or -1 */
};

/* How the threads share a stage: each has some blocks of rows, some tasks of each grid, or some columns. */
enum bp_stage_kind { BP_STAGE_ROWS, BP_STAGE_GRID, BP_STAGE_COLUMNS };

struct bp_stage {
    enum bp_stage_kind kind;
    int first, end; /* instructions [first, end) */
    int tasks;      /* of a grid */
    int columns;    /* how many there are */
};

/* Threads share the columns of a stage by units of so many: two panels, what a tile of the product takes. */
#define BP_COLUMN_UNIT 32

struct bp_storage {
    size_t row, fixed; /* elements for each row, and besides */
    int first, last;   /* instructions of the first and the last use */
    bool pinned, local;
    size_t offset;       /* elements from the start of the arena, or (local) of the thread's scratch */
    int holder;          /* node whose number is in it after a whole pass */
    bool holds_gradient; /* its gradient, not its value */
};

struct bp_plan {
    const struct bp_graph *graph; /* borrowed */
    struct bp_exec_options options;
    int block; /* rows of a block of a row-local stage */
    int ninstrs, nforward;
    struct bp_instr *instrs; /* forward, then one loss a head, then backward, then parameters */
    int nstages;
    struct bp_stage *stages;
    int nstorages;
    struct bp_storage *storages;
    int *value, *gradient, *workspace; /* per node: its storage, or -1 */
    bool *needs;                       /* per node: its gradient is wanted by someone */
    int *work;                         /* for the makers of the plan */
    size_t arena;                      /* elements of the arena */
    size_t local, scratch;             /* elements a thread: local storages, then the ops' scratch */
    size_t bytes;                      /* of the plan itself: one block */
};

/* Elements of an aligned boundary: a cache line of floats. */
#define BP_PLAN_ALIGN 16

/* Operations of a pass from which a team shares it: for less, a barrier costs as much as it would save. */
#define BP_TEAM_FLOPS 2000000

/* BP_INVALID, BP_LIMIT, BP_NOMEM. */
bp_status bp_plan_new(const struct bp_graph *graph, const struct bp_exec_options *options, struct bp_plan **ret,
                      struct bp_error *err);
void bp_plan_free(struct bp_plan *plan);

/* autodiff.c: fills needs, the instructions and the storages (without places) of a plan. */
void bp_plan_differentiate(struct bp_plan *plan);

/* Which nodes need a gradient: those from which a trainable tensor is reached going towards the input, and with
 * `input` all. ret has graph->nnodes elements. */
void bp_needs_gradient(const struct bp_graph *graph, bool input, bool *ret);
/* Whether a node has a backward instruction, given which nodes need a gradient: an input of its needs one, or its own
 * parameter gradients come out of the backward phase (bp_op.backward_first). */
bool bp_runs_backward(const struct bp_graph *graph, const bool *needs, int node);

/* The storages that an instruction touches, at most BP_OPERANDS_MAX; returns how many. */
#define BP_OPERANDS_MAX (2 * BP_NODE_INPUTS_MAX + 3)
int bp_plan_operands(const struct bp_plan *plan, const struct bp_instr *instr, int *ret);

/* print.c: the plan in words; malloc'd, NULL without memory. element is the size of a number in bytes. */
char *bp_plan_print(const struct bp_plan *plan, size_t element);

#endif
