/* json_weights.c: weights as JSON, for small models and for people.
 *
 * Written out as text straight away: a JSON value a number would take many times the memory.
 */
#include "export/layout.h"
#include "export/number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_ELEMENTS 4096

struct writer {
    const struct bp_weights *weights;
    struct bp_layout *layout;
    uint8_t buffer[READ_ELEMENTS * sizeof(float)];
};

static void text(struct writer *w, const char *string)
{
    bp_layout_bytes(w->layout, string, strlen(string));
}

static bool json_text(struct writer *w, const json_t *value)
{
    char *dumped = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!dumped)
        return false;
    text(w, dumped);
    free(dumped);
    return true;
}

static bool json_name(struct writer *w, const char *name)
{
    json_t *value = json_string(name);
    bool ok = value && json_text(w, value);
    json_decref(value);
    return ok;
}

/* Brackets before (opening) or after element i: one for each dimension that begins or ends there. */
static void brackets(struct writer *w, const struct bp_shape *shape, uint64_t i, bool opening)
{
    uint64_t block = 1;
    for (int d = shape->rank - 1; d >= 0; d--) {
        block *= (uint64_t)shape->dim[d];
        if ((opening ? i : i + 1) % block)
            return;
        text(w, opening ? "[" : "]");
    }
}

static bp_status write_data(struct writer *w, const struct bp_tensor *tensor, struct bp_error *err)
{
    uint64_t place = bp_tensor_place(w->weights->graph, tensor);
    for (uint64_t i = 0; i < tensor->count; i++) {
        uint64_t within = i % READ_ELEMENTS;
        if (within == 0) {
            uint64_t n = tensor->count - i < READ_ELEMENTS ? tensor->count - i : READ_ELEMENTS;
            bp_status status = w->weights->read(w->weights->ctx, place + i * sizeof(float), w->buffer,
                                                (size_t)n * sizeof(float), err);
            if (status)
                return status;
        }
        char number[BP_F32_TEXT];
        if (i)
            text(w, ",");
        brackets(w, &tensor->shape, i, true);
        bp_layout_bytes(w->layout, number, bp_f32_print(number, bp_f32_load(w->buffer + within * sizeof(float))));
        brackets(w, &tensor->shape, i, false);
    }
    return BP_OK;
}

static bp_status write_tensor(struct writer *w, const struct bp_tensor *tensor, struct bp_error *err)
{
    if (!json_name(w, tensor->name))
        return bp_fail(err, BP_NOMEM, "no memory to write the weights");
    text(w, ":{\"dtype\":\"float32\",\"shape\":[");
    for (int d = 0; d < tensor->shape.rank; d++) {
        char number[32];
        int n = snprintf(number, sizeof number, "%s%lld", d ? "," : "", (long long)tensor->shape.dim[d]);
        bp_layout_bytes(w->layout, number, (size_t)n);
    }
    text(w, "],\"data\":");
    bp_status status = write_data(w, tensor, err);
    text(w, "}");
    return status;
}

bp_status bp_export_json(const struct bp_weights *weights, struct bp_layout **ret, struct bp_error *err)
{
    const struct bp_graph *graph = weights->graph;
    if (graph->nparams + graph->nstats > BP_EXPORT_JSON_MAX)
        return bp_fail(err, BP_LIMIT,
                       "json is for models of at most %d numbers and this one has %zu; use safetensors",
                       BP_EXPORT_JSON_MAX, graph->nparams + graph->nstats);
    bp_status status = BP_OK;
    struct writer *w = malloc(sizeof *w);
    struct bp_layout *layout = w ? bp_layout_new(weights) : NULL;
    if (!layout) {
        free(w);
        return bp_fail(err, BP_NOMEM, "no memory to write the weights");
    }
    w->weights = weights;
    w->layout = layout;
    text(w, "{\"format\":\"backpropd-json-1\",\"metadata\":");
    if (!json_text(w, weights->metadata))
        status = bp_fail(err, BP_NOMEM, "no memory to write the weights");
    text(w, ",\"tensors\":{");
    for (int i = 0; i < graph->ntensors && !status; i++) {
        text(w, i ? "," : "");
        status = write_tensor(w, &graph->tensors[i], err);
    }
    text(w, "}}\n");
    free(w);
    if (status) {
        bp_layout_free(layout);
        return status;
    }
    return bp_layout_finish(layout, ret, err);
}
