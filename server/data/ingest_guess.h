/* ingest_guess.h: the layout of a table guessed from the first rows of its file, so that one pass can both look at the
 * rows and write them.
 *
 * A guess is right when the whole file settles on the same kinds, types, places and levels. Only then do the rows that
 * were written count; else they are forgotten, and a second pass writes them anew: the table is the same bytes either way.
 *
 * Threads: a guess belongs to its import.
 */
#ifndef BP_DATA_INGEST_GUESS_H
#define BP_DATA_INGEST_GUESS_H

#include "data/ingest.h"

#include <string.h>

struct bp_guess_column {
    enum bp_column_kind kind;
    enum bp_column_type type;
    size_t offset;
    int nlevels;
    int32_t *codes; /* of the levels in order of appearance; NULL for numbers */
};

struct bp_guess {
    bool holds; /* rows are being written */
    int ncolumns;
    struct bp_guess_column *columns;
    size_t stride;
    uint8_t *row;
    struct bp_writer *writer;
    int64_t rows; /* written */
};

/* Takes the layout over from a settled sample. False, with nothing to free, when there is no memory for it. */
bool bp_guess_init(struct bp_guess *guess, const struct bp_ingest *sample, struct bp_writer *writer);
void bp_guess_done(struct bp_guess *guess); /* a zeroed struct is fine */

/* Puts the row away. Gives up where the file contradicts the guess, or the row cannot be written. */
void bp_guess_put_row(struct bp_guess *guess, const struct bp_ingest *ingest);

/* Whether the guess held to the end: the import is settled. */
bool bp_guess_right(const struct bp_guess *guess, const struct bp_ingest *ingest);

/* A field into the row: its number, or NaN where it is missing; of a category the level that its set took last. */
static inline void bp_guess_put(const struct bp_guess_column *g, const struct bp_ingest_column *c, bool present,
                                double v, uint8_t *row)
{
    if (g->kind == BP_COLUMN_NUMBER && g->type == BP_F32) {
        float f = (float)v;
        memcpy(row + g->offset, &f, sizeof f);
    } else if (g->kind == BP_COLUMN_NUMBER) {
        memcpy(row + g->offset, &v, sizeof v);
    } else if (g->kind == BP_COLUMN_CATEGORY) {
        int32_t code = present && c->levels.last < g->nlevels ? g->codes[c->levels.last] : -1;
        memcpy(row + g->offset, &code, sizeof code);
    }
}

#endif
