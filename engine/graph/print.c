/* print.c: a plan in words, for people who want to see what backpropagation does with their network.
 *
 * Threads: pure function.
 */
#include "graph/plan.h"

#include <stdio.h>
#include <stdlib.h>

static const char *name_of(const struct bp_plan *plan, int node)
{
    return plan->graph->nodes[node].name;
}

static void print_place(FILE *out, const struct bp_plan *plan, int index)
{
    const struct bp_storage *s = &plan->storages[index];
    fprintf(out, "%s+%zu", s->local ? "local" : "arena", s->offset);
}

static void print_inputs(FILE *out, const struct bp_plan *plan, const struct bp_node *node)
{
    for (int k = 0; k < node->ninputs; k++)
        fprintf(out, "%s%s", k > 0 ? ", " : "", name_of(plan, node->input[k]));
}

static const char *op_of(const struct bp_node *node)
{
    return node->kind == BP_OP_ACTIVATION ? bp_activation_name(node->u.activation.kind) : bp_node_type(node);
}

/* On a line of its own, without a number: the value or the error signal that is made in the same instruction. */
static void print_epilogue(FILE *out, const struct bp_plan *plan, const struct bp_instr *instr)
{
    const struct bp_node *node = &plan->graph->nodes[instr->epilogue];
    const char *op = op_of(node), *from = name_of(plan, node->input[0]);
    bool forward = instr->kind == BP_INSTR_FORWARD;
    if (forward)
        fprintf(out, "        %s = %s(%s)  -> ", node->name, op, from);
    else
        fprintf(out, "        d %s = %s'(d %s)  -> ", from, op, node->name);
    print_place(out, plan, forward ? plan->value[instr->epilogue] : plan->gradient[node->input[0]]);
    fputc('\n', out);
}

static void print_instr(FILE *out, const struct bp_plan *plan, int i)
{
    const struct bp_instr *instr = &plan->instrs[i];
    const struct bp_node *node = &plan->graph->nodes[instr->node];
    const char *op = op_of(node);
    fprintf(out, "  %4d  ", i);
    switch (instr->kind) {
    case BP_INSTR_FORWARD:
        fprintf(out, "%s = %s(", node->name, op);
        print_inputs(out, plan, node);
        fprintf(out, ")  -> ");
        print_place(out, plan, plan->value[instr->node]);
        break;
    case BP_INSTR_LOSS:
        fprintf(out, "loss %d = %s(%s, target) * %g", instr->head, bp_loss_name(plan->graph->heads[instr->head].loss),
                node->name, plan->graph->heads[instr->head].weight);
        if (instr->want) {
            fprintf(out, ";  d %s %s  -> ", node->name, instr->add ? "+=" : "=");
            print_place(out, plan, plan->gradient[instr->node]);
        }
        break;
    case BP_INSTR_BACKWARD:
        for (int k = 0, n = 0; k < node->ninputs; k++) {
            if (!(instr->want & 1u << k))
                continue;
            fprintf(out, "%sd %s %s %s'(d %s)  -> ", n++ > 0 ? ";  " : "", name_of(plan, node->input[k]),
                    instr->add & 1u << k ? "+=" : "=", op, node->name);
            print_place(out, plan, plan->gradient[node->input[k]]);
        }
        if (instr->want == 0)
            fprintf(out, "error signals within %s from d %s", node->name, node->name);
        break;
    case BP_INSTR_PARAMETERS:
        for (int k = 0; k < node->ntensors; k++)
            if (!plan->graph->tensors[node->tensor[k]].statistic)
                fprintf(out, "%sd %s", k > 0 ? ", " : "", plan->graph->tensors[node->tensor[k]].name);
        fprintf(out, " = sum over rows(d %s, ", node->name);
        print_inputs(out, plan, node);
        fprintf(out, ")  in %d task%s", instr->tasks, instr->tasks == 1 ? "" : "s");
        break;
    }
    fputc('\n', out);
    if (instr->epilogue >= 0)
        print_epilogue(out, plan, instr);
}

static void print_layers(FILE *out, const struct bp_plan *plan)
{
    char shape[96];
    fprintf(out, "layers\n");
    for (int i = 0; i < plan->graph->nnodes; i++) {
        const struct bp_node *node = &plan->graph->nodes[i];
        fprintf(out, "  %4d  %s (%s) %s", i, node->name, bp_node_type(node),
                bp_shape_print(&node->shape, shape, sizeof shape));
        for (int k = 0; k < node->ntensors; k++) {
            const struct bp_tensor *tensor = &plan->graph->tensors[node->tensor[k]];
            fprintf(out, "%s%s %s", k > 0 ? ", " : ": ", tensor->name,
                    bp_shape_print(&tensor->shape, shape, sizeof shape));
        }
        fprintf(out, "%s%s\n", bp_op_table[node->kind]->view ? "  (a view of its input)" : "",
                node->ntensors > 0 && !node->trainable ? "  (frozen)" : "");
    }
}

static void print_memory(FILE *out, const struct bp_plan *plan, size_t element)
{
    fprintf(out, "memory\n  arena %zu bytes for %d rows; each thread %zu bytes for a block, %zu of scratch\n",
            plan->arena * element, plan->options.capacity, plan->local * element, plan->scratch * element);
    for (int s = 0; s < plan->nstorages; s++) {
        const struct bp_storage *storage = &plan->storages[s];
        if (storage->first < 0 && !storage->pinned)
            continue;
        fprintf(out, "  ");
        print_place(out, plan, s);
        fprintf(out, "  %zu a row  %s:", storage->row, storage->pinned ? "kept" : "from first use to last");
        if (!storage->pinned)
            fprintf(out, " %d to %d:", storage->first, storage->last);
        for (int i = 0; i < plan->graph->nnodes; i++) {
            if (plan->value[i] == s)
                fprintf(out, " %s", name_of(plan, i));
            if (plan->gradient[i] == s)
                fprintf(out, " d(%s)", name_of(plan, i));
            if (plan->workspace[i] == s)
                fprintf(out, " workspace(%s)", name_of(plan, i));
        }
        fputc('\n', out);
    }
}

char *bp_plan_print(const struct bp_plan *plan, size_t element)
{
    static const char *const titles[] = {"forward program", "losses and first error signals", "backward program",
                                         "parameter gradients"};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    print_layers(out, plan);
    for (int i = 0; i < plan->ninstrs; i++) {
        if (i == 0 || plan->instrs[i].kind != plan->instrs[i - 1].kind)
            fprintf(out, "%s\n", titles[plan->instrs[i].kind]);
        print_instr(out, plan, i);
    }
    fprintf(out, "stages (a barrier between them)\n");
    for (int s = 0; s < plan->nstages; s++) {
        const struct bp_stage *stage = &plan->stages[s];
        fprintf(out, "  %4d  instructions %d to %d, ", s, stage->first, stage->end - 1);
        if (stage->kind == BP_STAGE_GRID)
            fprintf(out, "a grid of %d tasks\n", stage->tasks);
        else if (stage->kind == BP_STAGE_COLUMNS)
            fprintf(out, "by columns, of %d\n", stage->columns);
        else
            fprintf(out, "row by row in blocks of %d\n", plan->block);
    }
    print_memory(out, plan, element);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
