/* weights.h: trained weights as files that other programs read: safetensors, NPZ, JSON.
 *
 * An export is a layout: pieces of prepared bytes (headers) and of tensors, one after the other, whose total size is
 * known before the first byte is sent. Any range of it can be read at any time, and tensor bytes are fetched only
 * then, so a download takes the same memory whatever the model's size, and can be continued after a break. The same
 * weights and metadata give the same bytes.
 *
 * Tensors are row-major little-endian float32 under the names of the graph ("conv1.weight"): what is stored is what
 * is sent.
 *
 * What it does not do: find weights. The caller brings a function that reads them.
 *
 * Threads: a layout belongs to one thread at a time; making one borrows the weights, the reading function and its ctx
 * for the life of the layout, the graph and the metadata during the call only.
 */
#ifndef BP_EXPORT_WEIGHTS_H
#define BP_EXPORT_WEIGHTS_H

#include "base/status.h"
#include "graph/graph.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Fills buffer with n bytes from `offset` of the weights: nparams f32, then nstats f32, little-endian. A call never
 * reaches from the parameters into the statistics. */
typedef bp_status bp_weights_read(void *ctx, uint64_t offset, uint8_t *buffer, size_t n, struct bp_error *err);

struct bp_weights {
    const struct bp_graph *graph; /* names, shapes and places of the tensors */
    bp_weights_read *read;
    void *ctx;
    const json_t *metadata; /* object of strings: where the weights come from, and how to use them */
};

struct bp_layout;

/* safetensors: 8 bytes of header length, a JSON header padded to a multiple of 8, the tensors sorted by name.
 * BP_LIMIT when the header would be over the 100 MB that readers accept. */
bp_status bp_export_safetensors(const struct bp_weights *weights, struct bp_layout **ret, struct bp_error *err);

/* NPZ: a stored ZIP of one NPY (version 1.0) a tensor. Reads all weights once, for their CRC-32. BP_LIMIT from 4 GiB
 * on, where a ZIP without extensions ends. */
bp_status bp_export_npz(const struct bp_weights *weights, struct bp_layout **ret, struct bp_error *err);

/* JSON: {"format":"backpropd-json-1","metadata":{…},"tensors":{name:{"dtype","shape","data"}}}, data nested by shape,
 * each number printed as short as reads back to the same bits. Built in memory, so BP_LIMIT above
 * BP_EXPORT_JSON_MAX elements. */
#define BP_EXPORT_JSON_MAX 1000000 /* about 15 MB of text */
bp_status bp_export_json(const struct bp_weights *weights, struct bp_layout **ret, struct bp_error *err);

/* The formats by name, for the API: NULL where there is none of that name. */
struct bp_export_format {
    const char *name, *suffix, *content_type;
    bp_status (*make)(const struct bp_weights *weights, struct bp_layout **ret, struct bp_error *err);
};
const struct bp_export_format *bp_export_find(const char *name);
json_t *bp_export_names(void); /* array of all names; new reference or NULL */

int64_t bp_layout_size(const struct bp_layout *layout);

/* Reads at most max bytes from offset (at most the size) into buffer; *ret is how many: fewer than max at the end
 * only. Errors are those of the reading function. */
bp_status bp_layout_read(const struct bp_layout *layout, int64_t offset, uint8_t *buffer, size_t max, size_t *ret,
                         struct bp_error *err);

/* 64 hex digits that stand for the layout's bytes, given a hash of the weights (their checkpoint's SHA-256): a
 * SHA-256 over that hash, the prepared pieces and the places of the tensors. Equal where the bytes are equal and
 * different where they differ, without reading the weights. */
void bp_layout_identity(const struct bp_layout *layout, const char *weights_hash, char ret[65]);

void bp_layout_free(struct bp_layout *layout); /* NULL is fine */

#endif
