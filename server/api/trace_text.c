/* trace_text.c: a trace as a worksheet: the four steps of backpropagation with their numbers, to be followed with a
 * pencil.
 *
 * Threads: pure functions.
 */
#include "api/trace_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACROSS 6 /* numbers of a line */

/* A line "  label  1  2  3", wrapped; rows (n numbers each) are one after the other. NULL values: nothing. */
static void vectors(struct bp_text *text, const char *label, const double *values, int rows, int64_t n)
{
    for (int r = 0; values && r < rows; r++)
        for (int64_t i = 0; i < n; i++) {
            char row[16] = "";
            if (rows > 1)
                snprintf(row, sizeof row, "row %d", r);
            if (i == 0)
                bp_text_add(text, "  %-8s %-6s", label, row);
            else if (i % ACROSS == 0)
                bp_text_add(text, "\n  %-8s %-6s", "", "");
            bp_text_add(text, " %14.9g", values[(int64_t)r * n + i]);
            if (i == n - 1)
                bp_text_add(text, "\n");
        }
}

static void node_line(struct bp_text *text, const struct bp_worked *w, const char *label, double *const *values,
                      int node)
{
    if (node > 0)
        vectors(text, label, values[node], w->rows, bp_shape_elements(&w->graph->nodes[node].shape));
}

static void title(struct bp_text *text, const struct bp_worked *w, const struct bp_trace_layer *l)
{
    const struct bp_node *last = &w->graph->nodes[l->last];
    bp_text_add(text, "%s (%s%s%s)\n", l->node->name, bp_node_type(l->node),
                last->kind == BP_OP_ACTIVATION ? ", " : "",
                last->kind == BP_OP_ACTIVATION ? bp_activation_name(last->u.activation.kind) : "");
}

static void forward(struct bp_text *text, const struct bp_worked *w, const struct bp_trace *trace)
{
    bp_text_add(text, "1. FORWARD: each layer's z (the weighted sum) and a = f(z)\n\ninput\n");
    vectors(text, "x", trace->value[0], w->rows, bp_shape_elements(&w->graph->nodes[0].shape));
    for (int i = 1; i < w->graph->nnodes; i++) {
        struct bp_trace_layer l = bp_trace_layer_at(w->graph, i);
        title(text, w, &l);
        node_line(text, w, "z", trace->value, l.z);
        node_line(text, w, "a", trace->value, l.a);
        i = l.last;
    }
}

/* The line of predictions of (rows, outputs). */
static void predictions(struct bp_text *text, const struct bp_worked *w, const struct bp_head *head,
                        const char *label, const double *x)
{
    size_t n = (size_t)head->outputs;
    double *y = malloc((size_t)w->rows * n * sizeof *y);
    for (int r = 0; y && r < w->rows; r++)
        bp_trace_prediction(head->loss, x + (size_t)r * n, head->outputs, y + (size_t)r * n);
    vectors(text, label, y, w->rows, head->outputs);
    if (!y)
        text->failed = true;
    free(y);
}

static void losses(struct bp_text *text, const struct bp_worked *w, const struct bp_trace *trace)
{
    bp_text_add(text, "\n2. LOSS: how far the prediction is from the target\n\n");
    for (int h = 0; h < w->graph->nheads; h++) {
        const struct bp_head *head = &w->graph->heads[h];
        bp_text_add(text, "%s of %s\n", bp_loss_name(head->loss), w->graph->nodes[head->node].name);
        for (int r = 0; w->target[h].label && r < w->rows; r++) {
            double label = w->target[h].label[r];
            vectors(text, "class", &label, 1, 1);
        }
        vectors(text, "target", w->target[h].value, w->rows, head->outputs);
        predictions(text, w, head, "output", trace->value[head->node]);
        vectors(text, "loss", trace->row_loss[h], w->rows, 1);
    }
    bp_text_add(text, "L = %.9g, the mean over the rows%s\n", trace->loss,
                w->graph->nheads > 1 ? ", summed over the outputs" : "");
    if (trace->penalty > 0)
        bp_text_add(text, "and a penalty of %.9g on the weights\n", trace->penalty);
}

static void backward(struct bp_text *text, const struct bp_worked *w, const struct bp_trace *trace)
{
    int first[BP_NODES_MAX], n = 0;
    bp_text_add(text, "\n3. BACKWARD: the error signals, from the last layer to the first, by the chain rule\n\n");
    for (int i = 1; i < w->graph->nnodes; i = bp_trace_layer_at(w->graph, i).last + 1)
        first[n++] = i;
    while (n-- > 0) {
        struct bp_trace_layer l = bp_trace_layer_at(w->graph, first[n]);
        title(text, w, &l);
        node_line(text, w, "dL/da", trace->delta, l.a);
        node_line(text, w, "dL/dz", trace->delta, l.z);
    }
    bp_text_add(text, "input\n");
    vectors(text, "dL/dx", trace->delta[0], w->rows, bp_shape_elements(&w->graph->nodes[0].shape));
}

/* "[1][0]": the place of element i. */
static void place(const struct bp_shape *shape, int64_t i, char *ret, size_t size)
{
    int64_t index[BP_RANK_MAX] = {0};
    int used = 0;
    for (int d = shape->rank - 1; d >= 0; d--) {
        index[d] = i % shape->dim[d];
        i /= shape->dim[d];
    }
    ret[0] = '\0';
    for (int d = 0; d < shape->rank && (size_t)used < size; d++)
        used += snprintf(ret + used, size - (size_t)used, "[%lld]", (long long)index[d]);
}

static void update(struct bp_text *text, const struct bp_worked *w, const struct bp_trace *trace,
                   const struct bp_trace_options *options)
{
    bp_text_add(text, "\n4. UPDATE: %s with rate %g%s\n", bp_optimizer_name(options->optimizer.kind), trace->rate,
                options->freeze_biases ? ", biases left alone" : "");
    bp_text_add(text, "norm of all gradients %.9g", trace->gradient_norm);
    if (trace->gradient_scale < 1)
        bp_text_add(text, ", clipped: all are multiplied by %.9g", trace->gradient_scale);
    if (options->clip_grad_value > 0)
        bp_text_add(text, ", each element within +-%g", options->clip_grad_value);
    bp_text_add(text, "\n");
    for (int t = 0; t < w->graph->ntensors; t++) {
        const struct bp_tensor *tensor = &w->graph->tensors[t];
        if (tensor->statistic)
            continue;
        bp_text_add(text, "\n%-20s %14s %14s %14s\n", tensor->name, "before", "gradient", "after");
        for (size_t i = 0; i < tensor->count; i++) {
            char at[96];
            place(&tensor->shape, (int64_t)i, at, sizeof at);
            bp_text_add(text, "%20s %14.9g %14.9g %14.9g\n", at, trace->before[tensor->offset + i],
                        trace->gradient[tensor->offset + i], trace->after[tensor->offset + i]);
        }
    }
}

void bp_trace_text(struct bp_text *text, const struct bp_worked *w, const struct bp_trace *trace,
                   const struct bp_trace_options *options)
{
    bp_text_add(text, "Step %lld on %d row%s\n\n", (long long)options->steps, w->rows, w->rows == 1 ? "" : "s");
    forward(text, w, trace);
    losses(text, w, trace);
    backward(text, w, trace);
    update(text, w, trace, options);
    bp_text_add(text, "\nAND THEN: L = %.9g (it was %.9g)\n", trace->loss_after, trace->loss);
    for (int h = 0; h < w->graph->nheads; h++)
        predictions(text, w, &w->graph->heads[h], "output", trace->output_after[h]);
}
