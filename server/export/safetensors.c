/* safetensors.c: weights in the safetensors format.
 *
 *   u64  length of the header, little-endian
 *   JSON {"__metadata__":{string: string …}, "<name>":{"dtype":"F32","shape":[…],"data_offsets":[begin,end]} …},
 *        padded with spaces to a multiple of 8, so that the tensors are aligned
 *   the tensors, sorted by name, without gaps: offsets count from the end of the header
 */
#include "export/layout.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 100000000 /* readers refuse longer ones */

static json_t *tensor_entry(const struct bp_tensor *tensor, uint64_t begin)
{
    uint64_t end = begin + bp_tensor_bytes(tensor);
    json_t *shape = json_array();
    for (int i = 0; shape && i < tensor->shape.rank; i++)
        if (json_array_append_new(shape, json_integer((json_int_t)tensor->shape.dim[i]))) {
            json_decref(shape);
            return NULL;
        }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)end);
}

/* The header's text without padding, malloc'd; NULL: no memory. */
static char *header_text(const struct bp_weights *weights, const struct bp_tensor *const *sorted)
{
    json_t *header = json_object();
    char *text = NULL;
    uint64_t begin = 0;
    if (!header || json_object_set_new(header, "__metadata__", json_deep_copy(weights->metadata)))
        goto out;
    for (int i = 0; i < weights->graph->ntensors; i++) {
        if (json_object_set_new(header, sorted[i]->name, tensor_entry(sorted[i], begin)))
            goto out;
        begin += bp_tensor_bytes(sorted[i]);
    }
    text = json_dumps(header, JSON_COMPACT);
out:
    json_decref(header);
    return text;
}

bp_status bp_export_safetensors(const struct bp_weights *weights, struct bp_layout **ret, struct bp_error *err)
{
    bp_status status = BP_NOMEM;
    const struct bp_tensor **sorted = bp_tensors_by_name(weights->graph);
    char *text = sorted ? header_text(weights, sorted) : NULL;
    struct bp_layout *layout = text ? bp_layout_new(weights) : NULL;
    if (!layout) {
        bp_fail(err, BP_NOMEM, "no memory for the header of the weights");
        goto out;
    }
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    if (padded > HEADER_MAX) {
        bp_layout_free(layout);
        status = bp_fail(err, BP_LIMIT,
                         "the safetensors header would take %zu bytes and may take %d: the dataset has "
                         "too many categories to write down; use npz",
                         padded, HEADER_MAX);
        goto out;
    }
    bp_layout_u64(layout, padded);
    bp_layout_bytes(layout, text, length);
    bp_layout_bytes(layout, "       ", padded - length);
    for (int i = 0; i < weights->graph->ntensors; i++)
        bp_layout_weights(layout, bp_tensor_place(weights->graph, sorted[i]), bp_tensor_bytes(sorted[i]));
    status = bp_layout_finish(layout, ret, err);
out:
    free(text);
    free(sorted);
    return status;
}
