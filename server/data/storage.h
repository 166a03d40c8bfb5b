/* storage.h: the files of datasets below the data directory: raw/, tables/ and tmp/.
 *
 * raw/<sha256> is a file as it was uploaded, or the manifest of an upload of several parts: a text that begins with
 * BP_MANIFEST_MAGIC and names each part by role, hash and bytes. tables/<hash>.table names, in its header, the file
 * in raw/ that it was made of: so which raw files are in use can be told from the tables alone.
 *
 * Private to server/data. Threads: blocking; placing and removing take turns. That nothing is removed between
 * being placed and being known to the store is the caller's to see to.
 */
#ifndef BP_DATA_STORAGE_H
#define BP_DATA_STORAGE_H

#include "data/ingest.h"

#define BP_MANIFEST_MAGIC "backpropd manifest 1\n"
#define BP_MANIFEST_MAX 1024 /* the magic and five lines */

bp_status bp_storage_dirs(const char *dir, struct bp_error *err);

/* Moves the sealed parts into raw/, writes the manifest (NULL: none) and moves the finished table from tmp_table; durable on
 * return. On failure everything is where it was, the table in tmp_table included. */
bp_status bp_storage_place(const struct bp_ingest *ingest, const char *sha256, const char *manifest,
                           const char *tmp_table, const char *table, struct bp_error *err);

#endif
