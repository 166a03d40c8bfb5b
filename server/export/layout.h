/* layout.h: how the formats put a layout together (weights.h says what a layout is).
 *
 * Prepared bytes go into one growing buffer; a piece refers to a stretch of it, or to a stretch of the weights.
 * Adding sets a flag when memory ends, so that a format is written down as straight-line code and checked once, by
 * bp_layout_finish.
 */
#ifndef BP_EXPORT_LAYOUT_H
#define BP_EXPORT_LAYOUT_H

#include "export/weights.h"

#include <stdbool.h>

struct bp_layout *bp_layout_new(const struct bp_weights *weights); /* NULL: no memory */

void bp_layout_bytes(struct bp_layout *layout, const void *bytes, size_t n);
void bp_layout_u16(struct bp_layout *layout, unsigned value); /* little-endian */
void bp_layout_u32(struct bp_layout *layout, uint32_t value);
void bp_layout_u64(struct bp_layout *layout, uint64_t value);
/* n bytes of the weights from `offset`. */
void bp_layout_weights(struct bp_layout *layout, uint64_t offset, uint64_t n);

/* BP_NOMEM, and the layout freed, when anything could not be added; else *ret is the layout. */
bp_status bp_layout_finish(struct bp_layout *layout, struct bp_layout **ret, struct bp_error *err);

/* Where a tensor lies in the weights, and its bytes. */
uint64_t bp_tensor_place(const struct bp_graph *graph, const struct bp_tensor *tensor);
static inline uint64_t bp_tensor_bytes(const struct bp_tensor *tensor)
{
    return (uint64_t)tensor->count * sizeof(float);
}

/* The graph's tensors sorted by name: malloc'd, graph->ntensors of them, or NULL (no memory). */
const struct bp_tensor **bp_tensors_by_name(const struct bp_graph *graph);

#endif
