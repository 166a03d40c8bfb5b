/* ingest_guess.c: see ingest_guess.h. */
#include "data/ingest_guess.h"

#include <stdlib.h>

#define LOOK_ROWS 1024 /* rows between two looks whether the guess still stands: what is written in vain is little */

bool bp_guess_init(struct bp_guess *guess, const struct bp_ingest *sample, struct bp_writer *writer)
{
    struct bp_guess g = {.holds = true, .ncolumns = sample->ncolumns, .stride = sample->stride, .writer = writer};
    g.columns = calloc((size_t)sample->ncolumns, sizeof *g.columns);
    g.row = calloc(1, sample->stride);
    bool ok = g.columns && g.row;
    for (int i = 0; ok && i < sample->ncolumns; i++) {
        const struct bp_ingest_column *c = &sample->columns[i];
        struct bp_guess_column *column = &g.columns[i];
        *column = (struct bp_guess_column){.kind = c->kind, .type = c->type, .offset = c->offset};
        if (c->kind != BP_COLUMN_CATEGORY)
            continue;
        column->nlevels = c->levels.n;
        ok = (column->codes = malloc((size_t)c->levels.n * sizeof *column->codes)) != NULL;
        for (int j = 0; ok && j < c->levels.n; j++)
            column->codes[c->levels.levels[j].order] = j;
    }
    *guess = g;
    if (!ok)
        bp_guess_done(guess);
    return ok;
}

void bp_guess_done(struct bp_guess *guess)
{
    for (int i = 0; guess->columns && i < guess->ncolumns; i++)
        free(guess->columns[i].codes);
    free(guess->columns);
    free(guess->row);
    *guess = (struct bp_guess){0};
}

/* Whether something was seen that the layout has no place for. */
static bool refuted(const struct bp_guess_column *g, const struct bp_ingest_column *c)
{
    switch (g->kind) {
    case BP_COLUMN_NUMBER:
        return c->texts > 0 || (g->type == BP_F32 && !c->exact_f32);
    case BP_COLUMN_CATEGORY:
        return c->mixed || c->levels.full || c->levels.n > g->nlevels;
    default: /* left out: because it was empty, or because of too many levels */
        return c->texts == 0 && c->numbers > 0;
    }
}

void bp_guess_put_row(struct bp_guess *guess, const struct bp_ingest *ingest)
{
    if (bp_writer_put(guess->writer, guess->row, guess->stride, NULL) != BP_OK)
        guess->holds = false; /* the second pass will fail as well, and say why */
    if (guess->rows++ % LOOK_ROWS == 0)
        for (int i = 0; guess->holds && i < guess->ncolumns; i++)
            guess->holds = !refuted(&guess->columns[i], &ingest->columns[i]);
}

bool bp_guess_right(const struct bp_guess *guess, const struct bp_ingest *ingest)
{
    bool right = guess->holds && guess->stride == ingest->stride;
    for (int i = 0; right && i < guess->ncolumns; i++) {
        const struct bp_guess_column *g = &guess->columns[i];
        const struct bp_ingest_column *c = &ingest->columns[i];
        right = g->kind == c->kind && !refuted(g, c);
        if (c->kind != BP_COLUMN_TEXT)
            right = right && g->type == c->type && g->offset == c->offset;
    }
    return right;
}
