/* seal.h: what uploaded files need besides being read: their SHA-256, and to be on the disk. Both are done on a thread of
 * its own, while the scan reads the same files: it hashes them out of the page cache and has the disk write behind it.
 *
 * Memory is one block. An upload that is refused stops its seal at the next block, or when a sync that has begun is over.
 *
 * Private to server/data. Threads: the functions are the importing thread's.
 */
#ifndef BP_DATA_SEAL_H
#define BP_DATA_SEAL_H

#include "data/ingest.h"

#include <pthread.h>
#include <stdatomic.h>

struct bp_seal {
    struct bp_ingest *ingest; /* its sha256 is filled in */
    bool begun, threaded;
    pthread_t thread;
    atomic_bool stop;
    atomic_llong hashed[BP_PARTS_MAX]; /* bytes of each part so far, see bp_stream_config.passed */
    bp_status status;
    struct bp_error err;
};

/* The parts of the import are known and stay where they are until bp_seal_end or bp_seal_done. */
void bp_seal_begin(struct bp_seal *seal, struct bp_ingest *ingest);
/* Waits until all parts are hashed and on the disk. BP_IO, BP_FULL, BP_NOMEM, BP_STOPPED. */
bp_status bp_seal_end(struct bp_seal *seal, struct bp_error *err);
void bp_seal_done(struct bp_seal *seal); /* gives up where it has not ended; a zeroed struct is fine */

#endif
