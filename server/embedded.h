/* embedded.h: files that are built into the binary (CMakeLists.txt, bp_embed). */
#ifndef BP_SERVER_EMBEDDED_H
#define BP_SERVER_EMBEDDED_H

#include <stddef.h>

struct bp_embedded {
    const char *name;          /* file name without folders; NULL ends the list */
    const unsigned char *data; /* followed by a NUL that is not counted */
    size_t size;
};

extern const struct bp_embedded bp_migrations[]; /* schema/NNNN_*.sql, ascending */
extern const struct bp_embedded bp_lessons[];    /* server/web/learn/NNN_topic.txt, ascending */
extern const struct bp_embedded bp_web[];        /* server/web: the guide and pages */

#endif
