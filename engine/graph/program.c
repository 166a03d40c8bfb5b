/* program.c: the forward and the backward program for people (see program.h).
 *
 * Both forms are read off the plan that an execution would run: they cannot say anything else than what is done.
 *
 * Threads: pure functions.
 */
#include "graph/program.h"

#include "graph/plan.h"

#include <stdio.h>
#include <stdlib.h>

static bp_status make_plan(const struct bp_graph *graph, int rows, struct bp_plan **ret, struct bp_error *err)
{
    struct bp_exec_options options = {.capacity = rows, .training = true, .threads = 1};
    return bp_plan_new(graph, &options, ret, err);
}

bp_status bp_program_text(const struct bp_graph *graph, int rows, char **ret, struct bp_error *err)
{
    struct bp_plan *plan = NULL;
    bp_status status = make_plan(graph, rows, &plan, err);
    if (status != BP_OK)
        return status;
    char *text = bp_plan_print(plan, sizeof(bp_real));
    bp_plan_free(plan);
    if (text == NULL)
        return bp_fail(err, BP_NOMEM, "no memory for the program's text");
    *ret = text;
    return BP_OK;
}

/* --- dot -------------------------------------------------------------------------------------------------------------- */

/* A string of dot, with its quotes. */
static void quote(FILE *out, const char *prefix, const char *text)
{
    fprintf(out, "\"%s", prefix);
    for (; *text != '\0'; text++)
        fprintf(out, "%s%c", *text == '"' || *text == '\\' ? "\\" : "", *text);
    fputc('"', out);
}

static void dot_layers(FILE *out, const struct bp_graph *graph)
{
    char shape[96];
    for (int i = 0; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        const char *op =
            node->kind == BP_OP_ACTIVATION ? bp_activation_name(node->u.activation.kind) : bp_op_name(node->kind);
        fprintf(out, "  ");
        quote(out, "", node->name);
        fprintf(out, " [label=\"%s\\n%s %s", node->name, op, bp_shape_print(&node->shape, shape, sizeof shape));
        for (int k = 0; k < node->ntensors; k++) {
            const struct bp_tensor *tensor = &graph->tensors[node->tensor[k]];
            fprintf(out, "\\n%s %s", tensor->name, bp_shape_print(&tensor->shape, shape, sizeof shape));
        }
        fprintf(out, "%s\"];\n", node->ntensors > 0 && !node->trainable ? "\\n(frozen)" : "");
    }
    for (int h = 0; h < graph->nheads; h++)
        fprintf(out, "  \"loss %d\" [shape=ellipse, label=\"%s\"];\n", h, bp_loss_name(graph->heads[h].loss));
}

static void edge(FILE *out, const char *from_prefix, const char *from, const char *to_prefix, const char *to)
{
    fprintf(out, "  ");
    quote(out, from_prefix, from);
    fprintf(out, " -> ");
    quote(out, to_prefix, to);
}

/* An error signal, from the instruction's node (or loss) to the node whose gradient it is. */
static void dot_signal(FILE *out, const char *from_prefix, const char *from, const char *to, bool add)
{
    edge(out, from_prefix, from, "", to);
    fprintf(out, " [style=dashed, color=firebrick, constraint=false, label=\"%sd %s\"];\n", add ? "+ " : "", to);
}

static void dot_instr(FILE *out, const struct bp_plan *plan, const struct bp_instr *instr)
{
    const struct bp_graph *graph = plan->graph;
    const struct bp_node *node = &graph->nodes[instr->node];
    char number[16];
    snprintf(number, sizeof number, "%d", instr->head);
    switch (instr->kind) {
    case BP_INSTR_FORWARD:
        break; /* drawn by the graph: views have no instruction, and belong to the picture */
    case BP_INSTR_LOSS:
        edge(out, "", node->name, "loss ", number);
        fprintf(out, ";\n");
        if (instr->want)
            dot_signal(out, "loss ", number, node->name, instr->add & 1);
        break;
    case BP_INSTR_BACKWARD:
        for (int k = 0; k < node->ninputs; k++)
            if (instr->want & 1u << k)
                dot_signal(out, "", node->name, graph->nodes[node->input[k]].name, instr->add & 1u << k);
        if (instr->epilogue >= 0) {
            const struct bp_node *end = &graph->nodes[instr->epilogue];
            dot_signal(out, "", end->name, graph->nodes[end->input[0]].name, false);
        }
        break;
    case BP_INSTR_PARAMETERS:
        fprintf(out, "  ");
        quote(out, "d ", node->name);
        fprintf(out, " [shape=note, color=firebrick, label=\"");
        for (int k = 0; k < node->ntensors; k++) {
            const struct bp_tensor *tensor = &graph->tensors[node->tensor[k]];
            if (!tensor->statistic)
                fprintf(out, "%sd %s", k > 0 ? "\\n" : "", tensor->name);
        }
        fprintf(out, "\"];\n");
        edge(out, "", node->name, "d ", node->name);
        fprintf(out, " [style=dashed, color=firebrick];\n");
        break;
    }
}

static void dot_program(FILE *out, const struct bp_plan *plan)
{
    const struct bp_graph *graph = plan->graph;
    fprintf(out, "digraph backpropagation {\n"
                 "  // solid: values, forward; dashed: error signals (d x is dL/dx), backward\n"
                 "  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n");
    dot_layers(out, graph);
    for (int i = 0; i < graph->nnodes; i++)
        for (int k = 0; k < graph->nodes[i].ninputs; k++) {
            edge(out, "", graph->nodes[graph->nodes[i].input[k]].name, "", graph->nodes[i].name);
            fprintf(out, ";\n");
        }
    for (int i = 0; i < plan->ninstrs; i++)
        dot_instr(out, plan, &plan->instrs[i]);
    fprintf(out, "}\n");
}

bp_status bp_program_dot(const struct bp_graph *graph, int rows, char **ret, struct bp_error *err)
{
    struct bp_plan *plan = NULL;
    bp_status status = make_plan(graph, rows, &plan, err);
    if (status != BP_OK)
        return status;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    bool failed = out == NULL;
    if (!failed) {
        dot_program(out, plan);
        failed = ferror(out) != 0;
        failed |= fclose(out) != 0;
    }
    bp_plan_free(plan);
    if (failed) {
        free(text);
        return bp_fail(err, BP_NOMEM, "no memory for the program's text");
    }
    *ret = text;
    return BP_OK;
}
