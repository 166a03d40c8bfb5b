/* worked_internal.h: what worked.c and worked_numbers.c share. Private to them. */
#ifndef BP_API_WORKED_INTERNAL_H
#define BP_API_WORKED_INTERNAL_H

#include "api/worked.h"
#include "jobs/inline_rows.h"

/* Fill in params and stats: the first ones of the spec's seed and literal layers, or those of the job's checkpoint;
 * then what `parameters` (an object by tensor name, or NULL) sets. False after a reply. */
bool bp_worked_initialize(struct bp_reply *reply, struct bp_worked *w, const json_t *parameters);
bool bp_worked_trained(struct bp_reply *reply, struct bp_worked *w, const json_t *parameters);

/* Fill in rows, input and target: from the request, or from rows of a table (`numbers`, an array of their numbers; the
 * first usable ones where it is NULL). fit: the transform is planned only. False after a reply. */
bool bp_worked_inline(struct bp_reply *reply, struct bp_worked *w, const struct bp_inline_rows *rows);
bool bp_worked_gather(struct bp_reply *reply, struct bp_worked *w, const struct bp_table *table,
                      struct bp_transform *transform, const json_t *numbers, bool fit);

#endif
