/* explanation.c: an explanation as JSON: layers and units, columns, nudges; see explain.c for what they mean.
 *
 * Threads: the caller's.
 */
#include "api/explanation.h"

#include "json_text.h"

#include <math.h>
#include <string.h>

#define UNITS_ALL 32 /* units of a layer that are all listed; of more, the UNITS_TOP with the largest signal */
#define UNITS_TOP 10
#define NUDGE 0.01      /* of a column after scaling: a hundredth of a deviation */
#define NUDGES_MAX 1024 /* columns that are nudged */

/* --- layers and units ----------------------------------------------------------------------------------------------- */

/* Indices of the k largest |v| of n, largest first; returns how many. */
static int find_top(const float *v, int64_t n, int64_t *ret, int k)
{
    int kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (kept == k && !(fabsf(v[i]) > fabsf(v[ret[k - 1]])))
            continue;
        int at = kept < k ? kept++ : k - 1;
        for (; at > 0 && fabsf(v[i]) > fabsf(v[ret[at - 1]]); at--)
            ret[at] = ret[at - 1];
        ret[at] = i;
    }
    return kept;
}

static double norm_of(const float *v, int64_t n, double unit)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sqrt(sum) * unit;
}

static json_t *unit_json(int64_t i, const float *value, const float *delta, double unit)
{
    return json_pack("{sI so so}", "unit", (json_int_t)i, "value", value ? bp_json_float(value[i]) : json_null(),
                     "delta", bp_json_number((double)delta[i] * unit));
}

/* NULL for a node whose value the loss does not depend on. */
static json_t *layer_json(const struct bp_explanation *e, int index)
{
    const struct bp_node *node = &e->graph->nodes[index];
    const float *value = bp_exec_value(e->explainer.exec, index);
    const float *delta = bp_exec_gradient(e->explainer.exec, index);
    int64_t n = bp_shape_elements(&node->shape), top[UNITS_TOP];
    if (!delta)
        return NULL;
    json_t *units = json_array();
    if (n <= UNITS_ALL)
        for (int64_t i = 0; i < n; i++)
            json_array_append_new(units, unit_json(i, value, delta, e->unit));
    else
        for (int k = 0, kept = find_top(delta, n, top, UNITS_TOP); k < kept; k++)
            json_array_append_new(units, unit_json(top[k], value, delta, e->unit));
    return json_pack("{ss ss sI so so}", "name", node->name, "type", bp_node_type(node), "units_count", (json_int_t)n,
                     "delta_norm", bp_json_number(norm_of(delta, n, e->unit)), "units", units);
}

json_t *bp_explanation_layers(const struct bp_explanation *e)
{
    json_t *layers = json_array();
    for (int i = e->graph->nnodes - 1; i > 0; i--) { /* as the error signal travels: from the loss to the input */
        json_t *layer = layer_json(e, i);
        if (layer)
            json_array_append_new(layers, layer);
    }
    return layers;
}

/* --- columns -------------------------------------------------------------------------------------------------------- */

/* Value i of a number column of the row, NaN where it is missing. Rows from outside hold doubles. */
static double raw_value(const struct bp_explanation *e, const struct bp_feature *f, int i)
{
    double v;
    memcpy(&v, e->bytes + f->offset + (size_t)i * sizeof v, sizeof v);
    return v;
}

static json_t *number_json(const struct bp_explanation *e, const struct bp_feature *f, const float *g)
{
    double v = raw_value(e, f, 0), slope = (double)g[0] * e->unit * f->scale;
    bool missing = isnan(v);
    return json_pack("{ss so so so}", "kind", "number", "value", missing ? json_null() : bp_json_number(v),
                     "gradient", bp_json_number(missing ? 0 : slope), "influence",
                     bp_json_number(missing ? 0 : fabs((double)g[0] * e->unit)));
}

/* Every level's gradient; the influence is what the best or worst change of level would make, to first order. */
static json_t *category_json(const struct bp_explanation *e, const struct bp_feature *f, const json_t *labels,
                             const float *g)
{
    const float *x = e->x + f->output;
    int current = -1;
    double influence = 0;
    json_t *levels = json_object();
    for (int i = 0; i < f->levels; i++)
        current = x[i] != 0.0f ? i : current;
    double now = current >= 0 ? (double)g[current] : 0;
    for (int i = 0; i < f->levels; i++) {
        const json_t *label = json_array_get(labels, (size_t)i);
        char text[BP_NUMBER_TEXT];
        const char *name = json_is_string(label)   ? json_string_value(label)
                           : json_is_number(label) ? bp_number_text(json_number_value(label), text)
                                                   : "(missing)";
        double change = fabs(((double)g[i] - now) * e->unit);
        influence = change > influence ? change : influence;
        json_object_set_new(levels, name, bp_json_number((double)g[i] * e->unit));
    }
    json_t *value = current >= 0 ? json_array_get(labels, (size_t)current) : NULL;
    return json_pack("{ss sO* so so}", "kind", "category", "value", value, "gradients", levels, "influence",
                     bp_json_number(influence));
}

static json_t *array_json(const struct bp_explanation *e, const struct bp_feature *f, const float *g)
{
    int64_t top[UNITS_TOP];
    json_t *list = json_array();
    for (int k = 0, kept = find_top(g, f->count, top, UNITS_TOP); k < kept; k++)
        json_array_append_new(list, json_pack("{sI so so}", "index", (json_int_t)top[k], "value",
                                              bp_json_number(raw_value(e, f, (int)top[k])), "gradient",
                                              bp_json_number((double)g[top[k]] * e->unit * f->scale)));
    return json_pack("{ss si so so so}", "kind", "array", "count", f->count, "gradient_norm",
                     bp_json_number(norm_of(g, f->count, e->unit * fabs(f->scale))), "influence",
                     bp_json_number(norm_of(g, f->count, e->unit)), "largest", list);
}

/* A code is the number of a row in a table of vectors: there is no slope between two of them. */
static json_t *code_json(const struct bp_explanation *e, const struct bp_feature *f, const json_t *labels)
{
    float code = e->x[f->output];
    json_t *label = code >= 0 ? json_array_get(labels, (size_t)code) : NULL;
    return json_pack("{ss sO* sn sf}", "kind", "code", "value", label, "gradient", "influence", 0.0);
}

/* A column of a window: the gradient of each of its rows, by the scaled value. */
static json_t *sequence_json(const struct bp_explanation *e, const struct bp_feature *f, int outputs, const float *g)
{
    int width = e->source.inputs / e->source.steps;
    double sum = 0;
    json_t *list = json_array();
    for (int s = 0; s < e->source.steps; s++) {
        double norm = norm_of(g + (size_t)s * (size_t)width, outputs, e->unit);
        bool plain = f->encoding == BP_ENCODE_NUMBER && outputs == 1;
        json_array_append_new(list, bp_json_number(plain ? (double)g[s * width] * e->unit * f->scale : norm));
        sum += norm * norm;
    }
    return json_pack("{ss so so}", "kind", "sequence", "gradients", list, "influence", bp_json_number(sqrt(sum)));
}

static json_t *column_json(const struct bp_explanation *e, int i, const float *gradient)
{
    const struct bp_feature *f = &e->source.features[i];
    const json_t *labels = bp_transform_feature_labels(e->explainer.network.transform, i);
    const float *g = gradient + f->output;
    if (e->source.steps > 0)
        return sequence_json(e, f, f->encoding == BP_ENCODE_ONE_HOT ? f->levels : f->count, g);
    if (f->encoding == BP_ENCODE_CODE)
        return code_json(e, f, labels);
    if (f->encoding == BP_ENCODE_ONE_HOT)
        return category_json(e, f, labels, g);
    return f->count > 1 ? array_json(e, f, g) : number_json(e, f, g);
}

/* Columns, the most influential first. */
json_t *bp_explanation_columns(const struct bp_explanation *e)
{
    const float *gradient = bp_exec_input_gradient(e->explainer.exec);
    json_t *columns = json_array();
    for (int i = 0; gradient && i < e->source.nfeatures; i++) {
        json_t *column = column_json(e, i, gradient);
        json_object_set_new(column, "column",
                            json_string(bp_transform_feature_name(e->explainer.network.transform, i)));
        double influence = json_number_value(json_object_get(column, "influence"));
        size_t at = json_array_size(columns);
        while (at > 0 && json_number_value(json_object_get(json_array_get(columns, at - 1), "influence")) < influence)
            at--;
        json_array_insert_new(columns, at, column);
    }
    return columns;
}

/* --- the nudge test ------------------------------------------------------------------------------------------------- */

/* Loss of each of the first n rows of the forward execution, all heads together. */
static void losses_of(const struct bp_explanation *e, int n, double *ret)
{
    bp_exec_pass(e->explainer.nudge, NULL, n, false, 0, 0);
    for (int r = 0; r < n; r++) {
        ret[r] = 0;
        for (int h = 0; h < e->graph->nheads; h++)
            ret[r] += e->graph->heads[h].weight * (double)bp_exec_row_losses(e->explainer.nudge, h)[r];
    }
}

static bool nudgeable(const struct bp_explanation *e, const struct bp_feature *f)
{
    return e->source.steps == 0 && f->encoding == BP_ENCODE_NUMBER && f->count == 1 && !isnan(raw_value(e, f, 0));
}

static void copy_targets(const struct bp_explanation *e, int rows)
{
    for (int h = 0; h < e->graph->nheads; h++) {
        const struct bp_targets *from = bp_exec_targets(e->explainer.exec, h);
        const struct bp_targets *to = bp_exec_targets(e->explainer.nudge, h);
        size_t n = (size_t)e->graph->heads[h].outputs;
        for (int r = 0; r < rows; r++) {
            if (to->label)
                to->label[r] = from->label[0];
            else
                memcpy(to->value + (size_t)r * n, from->value, n * sizeof *to->value);
        }
    }
}

json_t *bp_explanation_nudges(const struct bp_explanation *e)
{
    const float *gradient = bp_exec_input_gradient(e->explainer.exec);
    size_t inputs = (size_t)e->source.inputs;
    int of[BP_PREDICT_BATCH], n = 1, done = 0;
    double losses[BP_PREDICT_BATCH];
    json_t *nudges = json_array();
    copy_targets(e, e->explainer.batch);
    for (int i = 0; i <= e->source.nfeatures && done < NUDGES_MAX; i++) {
        bool end = i == e->source.nfeatures;
        float *x = bp_exec_input(e->explainer.nudge);
        if (!end && nudgeable(e, &e->source.features[i])) {
            memcpy(x + (size_t)n * inputs, e->x, inputs * sizeof *x);
            x[(size_t)n * inputs + (size_t)e->source.features[i].output] += (float)NUDGE;
            of[n++] = i;
        }
        if (n < e->explainer.batch && !end)
            continue;
        memcpy(x, e->x, inputs * sizeof *x); /* row 0 is the row as it is */
        losses_of(e, n, losses);
        for (int r = 1; r < n; r++, done++) {
            const struct bp_feature *f = &e->source.features[of[r]];
            double change = (double)(e->x[f->output] + (float)NUDGE) - (double)e->x[f->output];
            json_array_append_new(nudges, json_pack("{ss so so so}", "column",
                                                    bp_transform_feature_name(e->explainer.network.transform, of[r]),
                                                    "change", bp_json_number(change / f->scale), "predicted",
                                                    bp_json_number((double)gradient[f->output] * change * e->unit),
                                                    "actual", bp_json_number((losses[r] - losses[0]) * e->unit)));
        }
        n = 1;
    }
    return nudges;
}
