/* table.h: a dataset as it is stored: a description, and a file of fixed-size rows.
 *
 * The table's file: a header of 64 bytes (struct bp_table_header, little-endian), then nrows rows of `stride` bytes.
 * A row holds each stored column at a fixed offset, naturally aligned, raw: u8, i32 (code of a level, -1 missing),
 * f32, or f64 where f32 would not be exact; a missing number is NaN. Nothing is scaled. The file is mapped read-only
 * when it is trained on; its pages are the kernel's to keep or drop.
 *
 * The description is JSON in the store (datasets.description) and holds the rest: format, columns, levels, figures.
 * bp_table_open puts the two together.
 *
 * Threads: an open table is read-only and may be shared.
 */
#ifndef BP_DATA_TABLE_H
#define BP_DATA_TABLE_H

#include "base/status.h"
#include "train/source.h"

#include <jansson.h>

enum bp_column_kind { BP_COLUMN_NUMBER, BP_COLUMN_CATEGORY, BP_COLUMN_TEXT /* not stored */ };

struct bp_table_column {
    const char *name;
    enum bp_column_kind kind;
    enum bp_column_type type; /* storage */
    size_t offset;            /* in a row */
    int count;                /* adjacent values; more than 1 for an array column (pixels) */
    int rank;
    int64_t dim[4];            /* shape of an array column, e.g. (28, 28); rank 0: a plain column */
    bool integral;             /* all present values are integers */
    int64_t missing, distinct; /* distinct: exact up to BP_DISTINCT_MAX, else -1 */
    double min, max, mean;     /* numbers, over present values */
    int nlevels;
    const char *const *levels; /* category: sorted by bytes; the code is the index */
    int nvalues;
    const double *values;  /* number with at most BP_DISTINCT_MAX distinct values: these, ascending */
    const int64_t *counts; /* rows of each level, or of each value; NULL where neither is kept */
};

/* The first bytes of a table's file. Little-endian; a file of another byte order is refused. */
struct bp_table_header {
    char magic[8];       /* BP_TABLE_MAGIC */
    uint32_t version;    /* BP_TABLE_VERSION */
    uint32_t byte_order; /* BP_TABLE_BYTE_ORDER, as the writer stored it */
    uint64_t rows, stride;
    uint8_t source[32]; /* SHA-256 of what it was made of, the name of a file in raw/ */
};

#define BP_TABLE_MAGIC "bptable\n"
#define BP_TABLE_VERSION 1 /* raised when the bytes of a table or its description change their meaning */
#define BP_TABLE_BYTE_ORDER 0x01020304u

#define BP_DISTINCT_MAX 1000
#define BP_COLUMNS_MAX 16384

struct bp_table {
    json_t *description;
    int ncolumns;
    struct bp_table_column *columns; /* in the order of the file; IDX: "inputs" then "target" */
    uint64_t nrows;
    uint64_t test_first; /* first row of the dataset's own test split; nrows: none */
    size_t stride;
    const uint8_t *rows; /* mapped */
    char hash[65];       /* names the file */
    /* owned by table.c */
    void *map;
    size_t map_size;
    void *private_data;
    _Atomic int shares; /* owners besides the first */
};

/* dir is the data directory; the file is dir/tables/<hash>.table. description is JSON text of the store. BP_NOT_FOUND
 * (file gone), BP_CORRUPT (header or length wrong), BP_NOMEM, BP_IO. */
bp_status bp_table_open(const char *dir, const char *hash, const char *description, struct bp_table **ret,
                        struct bp_error *err);
void bp_table_close(struct bp_table *table); /* NULL is fine */
/* One more owner, who closes it too: an opened table is only read, by any number of threads. Returns table. */
struct bp_table *bp_table_share(struct bp_table *table);

/* Index of a column by name, or -1. */
int bp_table_find(const struct bp_table *table, const char *name);

/* Row `index` as an object by column name: numbers, the text of a category's level, null, arrays in their shape. Text
 * columns are not stored. New reference, or NULL (no memory). In transform_look.c. */
json_t *bp_table_row_json(const struct bp_table *table, uint64_t index);

/* The profile that the API shows: rows, test_rows, format, delimiter, header, columns with type, missing, distinct,
 * min, max, mean, classes; target guess; warnings. New reference, or NULL (no memory). */
json_t *bp_table_profile(const char *description);

#endif
