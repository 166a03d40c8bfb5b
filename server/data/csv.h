/* csv.h: the one CSV reader: rows are pulled from a stream, one at a time.
 *
 * RFC 4180 with the line ends LF, CRLF and CR, a byte order mark, newlines and doubled quotes inside quotes, and no
 * need of a newline at the end. A quote opens a field only as its first byte; elsewhere it is an ordinary character.
 * A line with nothing in it is not a row. The text must be UTF-8 without zero bytes. Whether rows have the right
 * number of fields is for the caller to say: bp_csv_expect.
 *
 * The scanner runs over whole blocks in place; a field points into the block and is valid until the next call.
 *
 * Threads: a reader belongs to its owner.
 */
#ifndef BP_DATA_CSV_H
#define BP_DATA_CSV_H

#include "data/stream.h"

#define BP_CSV_FIELD_MAX (1 << 20) /* bytes of a field: longer ones are a quote that was never closed */
#define BP_CSV_ROW_MAX (16 << 20)  /* bytes of a row: bounds the reader's memory */

#define BP_CSV_AHEAD 32 /* bytes from a field's first on that may be read, however short it is */

struct bp_csv_field {
    char *text;    /* without quotes, doubled quotes undone; not terminated, but BP_CSV_AHEAD bytes may be read */
    uint32_t size; /* fits: a row is no longer than BP_CSV_ROW_MAX */
    bool quoted;
    bool doubled; /* while scanning: has doubled quotes */
};

struct bp_csv {
    struct bp_stream *in; /* borrowed */
    char delimiter;
    char *buffer;
    size_t capacity, begin, end; /* bytes [begin, end) are not yet consumed */
    uint32_t *stops;             /* where unquoted fields end, of some bytes ahead */
    size_t nstops, stop, listed; /* how many; the next one; the buffer is listed up to here */
    bool eof;
    bool plain;     /* no quote is among the bytes that are listed */
    bool quotes;    /* the current row has a quoted field */
    bool suspect;   /* the buffer has bytes that are not plain ASCII text: rows are checked for UTF-8 */
    bool newlines;  /* a line end was seen */
    int64_t next;   /* line of the next row, from 1 */
    int64_t offset; /* rows so far */

    int64_t line; /* of the current row's first byte */
    int nfields;
    struct bp_csv_field *fields; /* of the current row */
    int fields_capacity;
};

/* Reads from the stream's present position. BP_NOMEM. */
bp_status bp_csv_init(struct bp_csv *csv, struct bp_stream *in, char delimiter, struct bp_error *err);
void bp_csv_done(struct bp_csv *csv); /* a zeroed struct is fine */

/* The next row; *ret is false at the end. BP_INVALID with a code in where: "unclosed_quote", "text_after_quote",
 * "not_utf8"; BP_LIMIT: "field_too_long", "row_too_long", "too_many_columns"; what the stream says; BP_NOMEM. */
bp_status bp_csv_next(struct bp_csv *csv, bool *ret, struct bp_error *err);

/* BP_INVALID "ragged_row" unless the current row has n fields. */
bp_status bp_csv_expect(const struct bp_csv *csv, int n, struct bp_error *err);

struct bp_csv_dialect {
    char delimiter;
    bool header;
    bool header_found; /* by the rule, not given */
};

/* Finds the delimiter (0) and the header (-1) where not given, by the rules in sniff.c, and rewinds the stream.
 * BP_INVALID: "ambiguous_delimiter", "ambiguous_header", "empty_dataset", "newlines_gone", or what the reader says. */
bp_status bp_csv_sniff(struct bp_stream *in, char delimiter, int header, struct bp_csv_dialect *ret,
                       struct bp_error *err);

/* A stretch of text that is fit for a message: at most a few dozen bytes, control characters as '.'. Returns dst. */
#define BP_CSV_QUOTE 48
char *bp_csv_quote(const char *text, size_t size, char dst[BP_CSV_QUOTE]);

#endif
