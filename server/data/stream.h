/* stream.h: the bytes of a data file, unfolded where it is gzip-compressed.
 *
 * What is compressed is found out by content (1f 8b), any number of members. What a compressed file may unfold to is
 * limited, in total and in proportion, so that a small upload cannot fill memory or disk. Truncated and damaged gzip
 * is an error, and so are bytes behind the last member.
 *
 * Threads: a stream belongs to its owner.
 */
#ifndef BP_DATA_STREAM_H
#define BP_DATA_STREAM_H

#include "base/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Above this many unfolded bytes the ratio is watched: tables of numbers fold 2 to 50 times, a bomb 1000 times. */
#define BP_UNFOLD_FREE (64LL << 20)
#define BP_UNFOLD_RATIO 400

struct bp_stream;

struct bp_stream_config {
    int64_t max_unfolded; /* bytes; only for compressed files */
    bool (*cancelled)(void *ctx);
    void *ctx; /* asked at each block; cancelled may be NULL */
    /* How far another reader of the same file is, NULL where there is none: what both have passed leaves the page
     * cache, so that what is written meanwhile takes its place. Reading it again is right, but asks the disk. */
    atomic_llong *passed;
};

/* BP_NOT_FOUND, BP_IO, BP_NOMEM, BP_INVALID (damaged gzip). */
bp_status bp_stream_open(const char *path, const struct bp_stream_config *config, struct bp_stream **ret,
                         struct bp_error *err);
/* Over bytes in memory, as they are; borrowed. */
bp_status bp_stream_memory(const void *bytes, size_t size, struct bp_stream **ret, struct bp_error *err);
void bp_stream_close(struct bp_stream *stream); /* NULL is fine */

/* Fills dst unless the end comes first; *ret < size means the end. BP_IO, BP_INVALID ("gzip_damaged"), BP_LIMIT
 * ("unfolds_too_far"), BP_STOPPED. */
bp_status bp_stream_read(struct bp_stream *stream, void *dst, size_t size, size_t *ret, struct bp_error *err);

/* Back to the first byte. */
bp_status bp_stream_rewind(struct bp_stream *stream, struct bp_error *err);

bool bp_stream_compressed(const struct bp_stream *stream);
/* Bytes of an uncompressed stream; -1 where only reading tells. */
int64_t bp_stream_size(const struct bp_stream *stream);

#endif
