/* problems.h: a list of faults found in something a user sent, all of them at once.
 *
 * Each entry is {"pointer": RFC 6901, "code", "detail"} and, where it helps, "suggestion" (a string: what to write
 * instead) and "allowed" (an array). The list becomes the `errors` of a problem reply.
 *
 * Threads: belongs to its owner.
 */
#ifndef BP_SERVER_PROBLEMS_H
#define BP_SERVER_PROBLEMS_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>

#define BP_PROBLEMS_MAX 100 /* entries kept; a spec with more faults than that is told about the first hundred */

struct bp_problems {
    json_t *errors; /* array, created by the first entry; NULL: none */
    bool out_of_memory;
};

void bp_problems_init(struct bp_problems *p);
void bp_problems_done(struct bp_problems *p);
bool bp_problems_any(const struct bp_problems *p);

/* suggestion may be NULL; allowed_steal (taken) may be NULL. */
void bp_problems_add(struct bp_problems *p, const char *pointer, const char *code, const char *suggestion,
                     json_t *allowed_steal, const char *format, ...) BP_PRINTF(6, 7);

/* The name in `names` (n of them) that is nearest to `word`: edit distance at most 1/3 of its length rounded up,
 * ignoring case, '-' and '_'; NULL where none is near. For "did you mean". */
const char *bp_nearest(const char *word, const char *const *names, size_t n);

/* Appends "/" and an escaped token to a pointer being built. dst keeps its size; too long is cut. */
void bp_pointer_append(char *dst, size_t size, const char *token);

#endif
