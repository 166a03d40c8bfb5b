/* ingest.h: an import while it is at work: what import.c, ingest_csv.c, ingest_idx.c and describe.c share.
 *
 * Private to server/data. Two steps: a scan of the files finds the columns, their types and figures, and the number
 * of rows; then the rows are written in the layout that follows from that. The scan writes the rows already, in the layout
 * that the first rows of a CSV suggest (ingest_guess.c), or the type of an IDX file; where that turns out right, which is
 * nearly always, the second step is done with. Memory is bounded by the number of columns, and does not grow with the rows.
 */
#ifndef BP_DATA_INGEST_H
#define BP_DATA_INGEST_H

#include "data/files.h"
#include "data/import.h"
#include "data/sets.h"
#include "data/stream.h"
#include "data/table.h"

#define BP_PARTS_MAX 5
#define BP_NAME_BYTES_MAX 255                /* of a column: names go into messages, JSON and exports */
#define BP_ROWS_MAX ((INT64_C(1) << 31) - 1) /* indices of rows are 32 bits wide */

/* Rows are computed with as doubles; a table keeps only the narrowest type that is exact. What is touched with each field
 * comes first, in two lines of the cache: files have thousands of columns. */
struct bp_ingest_column {
    int64_t missing, numbers, texts; /* fields seen */
    double sum, min, max;
    bool integral, exact_f32; /* of all numbers so far */
    bool mixed;               /* there were numbers before the first text: the levels need a pass of their own */
    struct bp_number_set values;
    struct bp_level_set levels;

    char *name;
    enum bp_column_kind kind;
    enum bp_column_type type;
    size_t offset;
    int count, rank;
    int64_t dim[4];
    int64_t odd_line;
    char odd_text[64]; /* the first text, for a warning */
};

struct bp_ingest {
    const struct bp_import_options *options;
    struct bp_import_part parts[BP_PARTS_MAX]; /* in canonical order */
    int nparts;
    char sha256[BP_PARTS_MAX][65]; /* of the parts, once they are sealed */
    bool compressed[BP_PARTS_MAX];
    atomic_llong *hashed; /* how far each part is sealed, for those who read it meanwhile; NULL before that */
    enum bp_format format;
    char delimiter;
    bool header;

    int ncolumns;
    struct bp_ingest_column *columns;
    int64_t rows, test_rows; /* all rows; the last of them, that are the dataset's own test split */
    size_t stride;
    bool written;      /* the scan has written the rows */
    int64_t budget;    /* members that the sets may still take */
    json_t *warnings;  /* array of {"code", "column", "detail"} */
    bool warning_lost; /* no memory for one */
};

bp_status bp_ingest_open(const struct bp_ingest *ingest, int part, struct bp_stream **ret, struct bp_error *err);

/* Step 1 and step 2. The scan may put the rows into the writer (ingest->written says so). */
bp_status bp_ingest_csv_scan(struct bp_ingest *ingest, struct bp_writer *writer, struct bp_error *err);
bp_status bp_ingest_csv_write(struct bp_ingest *ingest, struct bp_writer *writer, struct bp_error *err);
bp_status bp_ingest_idx_scan(struct bp_ingest *ingest, struct bp_writer *writer, struct bp_error *err);
bp_status bp_ingest_idx_write(struct bp_ingest *ingest, struct bp_writer *writer, struct bp_error *err);

/* ingest_column.c */
bp_status bp_ingest_columns(struct bp_ingest *ingest, int n, struct bp_error *err); /* n columns, to be named */
void bp_ingest_done(struct bp_ingest *ingest);
/* One present number: figures, and the set of values. */
bp_status bp_ingest_number(struct bp_ingest *ingest, struct bp_ingest_column *column, double v, struct bp_error *err);
/* Where each column stands in a row, by its kind and type. */
bp_status bp_ingest_lay_out(struct bp_ingest *ingest, struct bp_error *err);
/* Decides the kind and the type of each column from what was seen, and lays them out. */
bp_status bp_ingest_settle(struct bp_ingest *ingest, struct bp_error *err);
void bp_ingest_warn(struct bp_ingest *ingest, const char *code, const char *column, const char *format, ...)
    BP_PRINTF(4, 5);

/* describe.c: the description; new reference or NULL. */
json_t *bp_ingest_describe(const struct bp_ingest *ingest);

/* What an IDX header says. */
struct bp_idx {
    int type; /* code of the format, 0x08 … */
    int size; /* bytes of a value */
    int64_t rows;
    int rank; /* of a row: ndim - 1 */
    int64_t dim[3];
    int64_t elements; /* of a row */
};

/* Reads and checks the header; the stream stands at the first value then. `what` names the part in messages. */
bp_status bp_idx_header(struct bp_stream *in, const char *what, struct bp_idx *ret, struct bp_error *err);
/* The value at big-endian bytes. */
double bp_idx_value(int type, const uint8_t *bytes);

#endif
