/* exec_update.c: the proof that a pass may update: a bound of all its gradients before the first of them; see exec.h.
 *
 * Sums of squares are taken in double, and are not finite where a number is not: then there is no bound.
 *
 * Threads: see exec.h. How the sums are shared out touches the bound in its last bits, and no gradient.
 */
#include "graph/exec_internal.h"

#include <math.h>

/* Rounding. An element is a chain of at most `rows` fma and the sums of chunks, each off by at most 2^-24 of its value:
 * for up to so many rows the computed squares are less than twice the exact ones. */
#define ROWS_MAX (1 << 22)
#define SLACK 2.0

void bp_exec_hand_over(struct bp_exec *exec, const struct bp_exec_update *update)
{
    exec->update = *update;
}

struct bound {
    const struct bp_exec *exec;
    int rows, parts;
    int first, count; /* instructions of parameters */
};

static const bp_real *whole(const struct bp_exec *exec, int storage)
{
    return exec->arena + exec->plan->storages[storage].offset;
}

/* Sum of the squares of a thread's part of (rows, elements of a shape). */
static double part_of_squares(const struct bound *b, int part, const bp_real *x, const struct bp_shape *shape)
{
    size_t n = (size_t)b->rows * (size_t)bp_shape_elements(shape), parts = (size_t)b->parts;
    size_t each = (n / parts + BP_PANEL) / BP_PANEL * BP_PANEL, first = each * (size_t)part;

    if (first >= n)
        return 0;
    return bp_kernels_current()->sum_squares(n - first < each ? n - first : each, x + first);
}

static void squares_part(void *arg, int part, int thread)
{
    const struct bound *b = arg;
    const struct bp_plan *plan = b->exec->plan;
    double *squares = b->exec->squares + 2 * (size_t)part * (size_t)plan->graph->nnodes;
    (void)thread;
    for (int i = 0; i < b->count; i++) {
        const struct bp_node *node = &plan->graph->nodes[plan->instrs[b->first + i].node];
        int of = plan->instrs[b->first + i].node;
        squares[2 * i] = part_of_squares(b, part, whole(b->exec, plan->value[node->input[0]]),
                                         bp_input_shape(plan->graph, node, 0));
        squares[2 * i + 1] = part_of_squares(b, part, whole(b->exec, plan->gradient[of]), &node->shape);
    }
}

bool bp_exec_is_admitted(struct bp_exec *exec, struct bp_team *team, int rows, double loss)
{
    const struct bp_plan *plan = exec->plan;
    struct bound b = {.exec = exec, .rows = rows, .parts = bp_team_active(team)};
    double squares = 0;

    if (!exec->bounded || rows > ROWS_MAX)
        return false;
    for (int i = 0; i < plan->ninstrs; i++)
        b.count += plan->instrs[i].kind == BP_INSTR_PARAMETERS;
    b.first = plan->ninstrs - b.count; /* they come last */
    bp_team_for(team, b.parts, squares_part, &b);
    for (int i = 0; i < b.count; i++) {
        const struct bp_node *node = &plan->graph->nodes[plan->instrs[b.first + i].node];
        double x = 0, dy = 0;
        for (int part = 0; part < b.parts; part++) {
            const double *of = exec->squares + 2 * ((size_t)part * (size_t)plan->graph->nnodes + (size_t)i);
            x += of[0];
            dy += of[1];
        }
        squares += bp_op_table[node->kind]->bound(node, rows, x, dy);
    }
    return exec->update.admit(exec->update.arg, loss, SLACK * squares);
}
