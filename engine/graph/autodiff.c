/* autodiff.c: reverse-mode differentiation: from a graph to its backward program.
 *
 * The theory, and where it is in the program:
 *
 *   forward pass    for each node in order:  y_i = f_i(x_i; parameters)               FORWARD instructions
 *   loss            L(y_heads, targets), and the error signal delta = dL/dy of the     LOSS
 *                   heads, where the backward pass starts
 *   chain rule      for each node in reverse order: delta_k += J_ik^T delta_i for      BACKWARD
 *                   each of its inputs k, J_ik being the Jacobian of f_i by input k;
 *                   the op multiplies with it and never writes it down
 *   parameter       dL/dW_i = (dy_i/dW_i)^T delta_i, summed over the batch             PARAMETERS
 *   gradients
 *
 * When a node's turn comes, all nodes that use its value have larger numbers and have had theirs: so its delta is
 * complete. A value that is used more than once gets one contribution from each use: the first is a write, the
 * others add, which is settled here and not at run time. So nothing is set to zero before a pass, and running one
 * twice gives the same.
 *
 * Skipped are nodes that no loss depends on, and error signals that lead to no trainable parameter (nor, when asked
 * for, to the input): the gradient by the input of the first layer is not computed. All parameter gradients come
 * last, together, because they need no order and make one stage.
 *
 * Threads: pure functions.
 */
#include "graph/plan.h"

#include <string.h>

void bp_needs_gradient(const struct bp_graph *graph, bool input, bool *ret)
{
    for (int i = 0; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        ret[i] = (node->trainable && node->ntensors > 0) || (i == 0 && input);
        for (int k = 0; k < node->ninputs; k++)
            ret[i] = ret[i] || ret[node->input[k]];
    }
}

bool bp_runs_backward(const struct bp_graph *graph, const bool *needs, int node)
{
    const struct bp_node *n = &graph->nodes[node];
    bool below = bp_op_table[n->kind]->backward_first && needs[node];
    for (int k = 0; k < n->ninputs; k++)
        below = below || needs[n->input[k]];
    return below;
}

static const struct bp_op *op_of(const struct bp_plan *plan, int node)
{
    return bp_op_table[plan->graph->nodes[node].kind];
}

static struct bp_instr *emit(struct bp_plan *plan, enum bp_instr_kind kind, int node)
{
    struct bp_instr *instr = &plan->instrs[plan->ninstrs++];
    *instr = (struct bp_instr){.kind = kind, .node = node, .head = -1, .epilogue = -1};
    return instr;
}

static int add_storage(struct bp_plan *plan, struct bp_extent size, int holder, bool gradient)
{
    struct bp_storage *storage = &plan->storages[plan->nstorages];
    *storage = (struct bp_storage){.row = size.row,
                                   .fixed = size.fixed,
                                   .first = -1,
                                   .last = -1,
                                   .pinned = plan->options.keep_all,
                                   .holder = holder,
                                   .holds_gradient = gradient};
    return plan->nstorages++;
}

static struct bp_extent extent_of(const struct bp_plan *plan, int node)
{
    return (struct bp_extent){.row = (size_t)bp_shape_elements(&plan->graph->nodes[node].shape)};
}

/* The forward program: all nodes that some loss depends on, in order. */
static void forward_program(struct bp_plan *plan, int *root, bool *used)
{
    const struct bp_graph *graph = plan->graph;

    memset(used, 0, (size_t)graph->nnodes * sizeof *used);
    for (int h = 0; h < graph->nheads; h++)
        used[graph->heads[h].node] = true;
    used[0] = true;
    for (int i = graph->nnodes - 1; i > 0; i--)
        for (int k = 0; used[i] && k < graph->nodes[i].ninputs; k++)
            used[graph->nodes[i].input[k]] = true;

    for (int i = 0; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        const struct bp_op *op = op_of(plan, i);
        root[i] = op->view ? root[node->input[0]] : i;
        plan->value[i] = plan->gradient[i] = plan->workspace[i] = -1;
        if (!used[i])
            continue;
        if (op->view) {
            plan->value[i] = plan->value[root[i]];
            continue;
        }
        plan->value[i] = add_storage(plan, extent_of(plan, i), i, false);
        if (i == 0)
            continue;
        if (op->workspace != NULL)
            plan->workspace[i] = add_storage(plan, op->workspace(graph, node), -1, false);
        struct bp_instr *instr = emit(plan, BP_INSTR_FORWARD, i);
        instr->tasks = op->grid != NULL ? op->grid(graph, node, BP_PHASE_FORWARD) : 0;
    }
    plan->nforward = plan->ninstrs;
    plan->storages[plan->value[0]].pinned = true;
    for (int h = 0; h < graph->nheads; h++)
        plan->storages[plan->value[graph->heads[h].node]].pinned = true;
}

/* A contribution to the gradient of `node` by bit k of instr: a view's gradient is its root's. */
static void contribute(struct bp_plan *plan, const int *root, struct bp_instr *instr, int k, int node)
{
    int to = root[node];
    instr->want |= 1u << k;
    if (plan->gradient[to] >= 0)
        instr->add |= 1u << k;
    else
        plan->gradient[to] = add_storage(plan, extent_of(plan, to), to, true);
}

static void loss_program(struct bp_plan *plan, const int *root)
{
    for (int h = 0; h < plan->graph->nheads; h++) {
        int node = plan->graph->heads[h].node;
        struct bp_instr *instr = emit(plan, BP_INSTR_LOSS, node);
        instr->head = h;
        if (plan->options.training && plan->needs[node])
            contribute(plan, root, instr, 0, node);
    }
}

static void backward_program(struct bp_plan *plan, const int *root)
{
    const struct bp_graph *graph = plan->graph;
    for (int i = graph->nnodes - 1; i > 0; i--) {
        const struct bp_node *node = &graph->nodes[i];
        const struct bp_op *op = op_of(plan, i);
        if (op->view || plan->gradient[i] < 0 || !bp_runs_backward(graph, plan->needs, i))
            continue;
        struct bp_instr *instr = emit(plan, BP_INSTR_BACKWARD, i);
        instr->tasks = op->grid != NULL ? op->grid(graph, node, BP_PHASE_BACKWARD) : 0;
        for (int k = 0; k < node->ninputs; k++)
            if (plan->needs[node->input[k]])
                contribute(plan, root, instr, k, node->input[k]);
    }
}

/* The parameter gradients, the largest tasks first, so that threads end together. */
static void parameter_program(struct bp_plan *plan)
{
    const struct bp_graph *graph = plan->graph;
    int first = plan->ninstrs;
    for (int i = 1; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        const struct bp_op *op = op_of(plan, i);
        if (plan->gradient[i] < 0 || !node->trainable || node->ntensors == 0)
            continue;
        struct bp_instr *instr = emit(plan, BP_INSTR_PARAMETERS, i);
        instr->tasks = op->grid(graph, node, BP_PHASE_PARAMETERS);
        int64_t cost = op->flops(graph, node, BP_PHASE_PARAMETERS) / instr->tasks;
        struct bp_instr moved = *instr;
        int at = plan->ninstrs - 1;
        for (; at > first; at--) {
            const struct bp_instr *before = &plan->instrs[at - 1];
            const struct bp_node *other = &graph->nodes[before->node];
            if (op_of(plan, before->node)->flops(graph, other, BP_PHASE_PARAMETERS) / before->tasks >= cost)
                break;
            plan->instrs[at] = *before;
        }
        plan->instrs[at] = moved;
    }
}

void bp_plan_differentiate(struct bp_plan *plan)
{
    const struct bp_graph *graph = plan->graph;
    int *root = plan->work;
    bool *used = (bool *)(plan->work + graph->nnodes);

    bp_needs_gradient(graph, plan->options.input_gradient, plan->needs);
    forward_program(plan, root, used);
    loss_program(plan, root);
    if (plan->options.training) {
        backward_program(plan, root);
        parameter_program(plan);
    }
    for (int i = 0; i < graph->nnodes; i++)
        if (root[i] != i)
            plan->gradient[i] = plan->gradient[root[i]];
    if (plan->options.input_gradient && plan->gradient[0] >= 0)
        plan->storages[plan->gradient[0]].pinned = true;
}
