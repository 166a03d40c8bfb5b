/* import.h: from uploaded files to a stored table.
 *
 * Formats, found out by content (or named): CSV (RFC 4180; delimiter , ; tab |; header or not; BOM, CRLF, quotes and
 * newlines in quotes; missing values empty, NA, NaN, null, ?) and IDX; either may be gzip-compressed, within a limit
 * on what it may unfold to. Reading is streamed: memory does not grow with the file. Meanwhile the files are hashed and
 * synced on a thread of their own.
 *
 * What is ambiguous is refused with a hint, never guessed: a delimiter that two candidates explain equally well, a
 * header that cannot be told from data. Errors name line, column and the offending text.
 *
 * Files kept below the data directory: raw/<sha256> (the bytes as uploaded; a manifest and its parts likewise) and
 * tables/<hash>.table. Both are written to tmp/, synced, renamed, and the directory synced; only then does the caller
 * commit the row that names them.
 *
 * Threads: blocking; run on a data thread.
 */
#ifndef BP_DATA_IMPORT_H
#define BP_DATA_IMPORT_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum bp_format { BP_FORMAT_AUTO, BP_FORMAT_CSV, BP_FORMAT_IDX };

struct bp_import_part {
    const char *role;     /* "data", "inputs", "targets", "test_inputs", "test_targets" */
    const char *path;     /* a temporary file on the file system of the data directory; moved away on success */
    const char *filename; /* for messages, may be "" */
    int64_t bytes;
};

struct bp_import_options {
    const char *dir; /* data directory */
    enum bp_format format;
    char delimiter;       /* 0: find out */
    int header;           /* -1: find out, 0: no, 1: yes */
    int64_t max_unfolded; /* bytes a compressed file may unfold to */
    bool (*cancelled)(void *ctx);
    void *ctx; /* asked now and then; may be NULL */
};

struct bp_import_result {
    char sha256[65]; /* of the one part, or of the manifest of several */
    char table[65];  /* names the table's file: a hash of sha256, the options and the table format version */
    int64_t bytes, rows;
    char *description; /* JSON text, malloc'd */
};

/* BP_INVALID (the message names line and column; where is a code such as "ragged_row"), BP_LIMIT, BP_UNSUPPORTED,
 * BP_FULL, BP_IO, BP_NOMEM, BP_STOPPED. On failure nothing is left behind and the parts stay where they were. */
bp_status bp_import(const struct bp_import_options *options, const struct bp_import_part *parts, int nparts,
                    struct bp_import_result *ret, struct bp_error *err);

/* The first rows as they were read, from the raw file: array of objects by column name; at most `limit`, and fewer where
 * rows are wide. BP_LIMIT: a single row has more values than are shown; BP_NOMEM, BP_NOT_FOUND, … */
bp_status bp_import_rows(const char *dir, const char *sha256, const char *description, int limit, json_t **ret,
                         struct bp_error *err);

/* Removes the table file of a swept version, and its raw files where no other table is made of them. sha256 "": the
 * raw files stay. */
void bp_import_remove(const char *dir, const char *sha256, const char *table);

/* At start: makes the sub-directories, empties tmp/, and removes raw and table files that `known` does not know. */
bp_status bp_import_tidy(const char *dir, bool (*known)(void *ctx, const char *file_hash), void *ctx,
                         struct bp_error *err);

#endif
