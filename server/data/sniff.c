/* sniff.c: which delimiter a CSV has, and whether its first row is a header, from its first rows.
 *
 * Delimiter. The first 100 rows are read once for each of , ; tab |. One that gives every row the same number of
 * fields, more than one, explains the file. Exactly one such: it is taken; two: the file is refused. None: if one
 * candidate alone splits the first row, it is taken (and the row that does not fit is named later on); if none splits
 * any row, the file is one column; else it is refused.
 *
 * Header. A column is numeric when at least nine tenths of its values below the first row are numbers.
 *   - Some numeric column has text in the first row, and no field of the first row is a number: a header.
 *   - Some numeric column has text in the first row, but another field there is a number: refused.
 *   - No numeric column has text in the first row, and some field of it is a number: no header.
 *   - All is text: no header if a field of the first row comes again in its column; a header if none does while values
 *     of some column do repeat; else refused.
 * Refused means BP_INVALID with a hint which query parameter settles it.
 *
 * Threads: pure functions of the stream, which they rewind.
 */
#include "data/csv.h"

#include "data/number.h"

#include <stdlib.h>
#include <string.h>

#define SNIFF_ROWS 100

static const char candidates[] = {',', ';', '\t', '|'};
enum { NCANDIDATES = sizeof candidates };

struct column_sample {
    int64_t numbers, texts; /* below the first row */
    bool first_text, first_number, recurs;
    uint64_t first; /* hash of the first row's text */
};

struct sample {
    int rows, columns;
    bool splits, even; /* some row has more than one field; all rows have as many as the first */
    bool newlines, more;
};

/* FNV-1a: a collision among a hundred values would at worst call a column repetitive. */
static uint64_t hash_text(const char *p, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; n; n--)
        h = (h ^ (unsigned char)*p++) * UINT64_C(0x100000001b3);
    return h;
}

/* How a delimiter divides the first rows. */
static bp_status measure(struct bp_stream *in, char delimiter, struct sample *ret, struct bp_error *err)
{
    struct bp_csv csv = {0};
    struct sample s = {.even = true};
    bool row;
    bp_status status;
    if ((status = bp_stream_rewind(in, err)) != BP_OK || (status = bp_csv_init(&csv, in, delimiter, err)) != BP_OK)
        goto out;
    while ((status = bp_csv_next(&csv, &row, err)) == BP_OK && row) {
        if (s.rows == SNIFF_ROWS) {
            s.more = true;
            break;
        }
        if (s.rows++ == 0)
            s.columns = csv.nfields;
        s.even = s.even && csv.nfields == s.columns;
        s.splits = s.splits || csv.nfields > 1;
    }
    s.newlines = csv.newlines;
    if (status == BP_OK)
        *ret = s;
out:
    bp_csv_done(&csv);
    return status;
}

static bp_status choose(const struct sample *samples, char *ret, struct bp_error *err)
{
    int even = -1, first = -1, nfirst = 0;
    bool splits = false;
    for (int i = 0; i < NCANDIDATES; i++) {
        if (samples[i].even && samples[i].columns > 1) {
            if (even >= 0)
                return bp_fail_at(
                    err, BP_INVALID, "ambiguous_delimiter",
                    "'%c' divides every row into %d columns, and '%c' into %d: say which with ?delimiter=",
                    candidates[even], samples[even].columns, candidates[i], samples[i].columns);
            even = i;
        }
        if (samples[i].columns > 1) {
            first = i;
            nfirst++;
        }
        splits = splits || samples[i].splits;
    }
    if (even < 0 && nfirst == 1)
        even = first;
    if (even < 0 && splits)
        return bp_fail_at(err, BP_INVALID, "ambiguous_delimiter",
                          "none of , ; tab | divides the first rows evenly: say which with ?delimiter=");
    *ret = even < 0 ? ',' : candidates[even];
    return BP_OK;
}

static bp_status find_delimiter(struct bp_stream *in, char *ret, struct bp_error *err)
{
    struct sample samples[NCANDIDATES];
    struct bp_error first, local;
    bool any = false;
    first.code = BP_OK;
    for (int i = 0; i < NCANDIDATES; i++) {
        samples[i] = (struct sample){0};
        bp_status status = measure(in, candidates[i], &samples[i], &local);
        if (status != BP_OK && status != BP_INVALID && status != BP_LIMIT) {
            if (err)
                *err = local;
            return status;
        }
        if (status == BP_OK)
            any = true;
        else if (first.code == BP_OK)
            first = local;
    }
    if (!any) {
        if (err)
            *err = first;
        return first.code;
    }
    return choose(samples, ret, err);
}

/* --- header --------------------------------------------------------------------------------------------------------- */

static bool is_number(const struct bp_csv_field *field, bool *ret_missing)
{
    const char *text = field->text;
    size_t size = field->size;
    double v;
    bp_text_trim(&text, &size);
    *ret_missing = bp_text_missing(text, size);
    return !*ret_missing && bp_number_parse(text, size, &v);
}

static void sample_field(struct column_sample *c, const struct bp_csv_field *field, bool first, uint64_t *hash)
{
    bool missing, number = is_number(field, &missing);
    *hash = missing ? 0 : hash_text(field->text, field->size);
    if (first) {
        c->first_number = number;
        c->first_text = !number && !missing;
        c->first = *hash;
        return;
    }
    c->numbers += number;
    c->texts += !number && !missing;
    c->recurs = c->recurs || (c->first_text && *hash == c->first);
}

/* Whether a value comes twice in some column below the first row. hashes: rows of ncolumns. */
static bool any_repeats(const uint64_t *hashes, int nrows, int ncolumns)
{
    for (int c = 0; c < ncolumns; c++)
        for (int i = 1; i < nrows; i++)
            for (int j = i + 1; j < nrows; j++)
                if (hashes[i * ncolumns + c] && hashes[i * ncolumns + c] == hashes[j * ncolumns + c])
                    return true;
    return false;
}

static bp_status judge(const struct column_sample *columns, const uint64_t *hashes, int nrows, int ncolumns,
                       bool *ret, struct bp_error *err)
{
    bool first_number = false, contradicts = false, recurs = false;
    for (int i = 0; i < ncolumns; i++) {
        const struct column_sample *c = &columns[i];
        first_number = first_number || c->first_number;
        contradicts = contradicts || (c->first_text && c->numbers > 0 && c->numbers >= 9 * c->texts);
        recurs = recurs || c->recurs;
    }
    bool names = contradicts && !first_number, data = !contradicts && (first_number || recurs);
    if (!names && !data && !contradicts)
        names = any_repeats(hashes, nrows, ncolumns);
    if (!names && !data)
        return bp_fail_at(err, BP_INVALID, "ambiguous_header",
                          "it cannot be told whether the first row holds names or data: say so with ?header=true or "
                          "?header=false");
    *ret = names;
    return BP_OK;
}

static bp_status newlines_gone(int columns, struct bp_error *err)
{
    return bp_fail_at(err, BP_INVALID, "newlines_gone",
                      "the file is a single line of %d columns; your newlines are gone: curl -d strips them; use "
                      "-T file or --data-binary @file",
                      columns);
}

/* Reads the first rows once more with the delimiter known. */
static bp_status find_header(struct bp_stream *in, char delimiter, int header, bool *ret, struct bp_error *err)
{
    struct bp_csv csv = {0};
    struct column_sample *columns = NULL;
    uint64_t *hashes = NULL; /* SNIFF_ROWS x ncolumns, at most 13 MB */
    int nrows = 0, ncolumns = 0;
    bool row;
    bp_status status;
    if ((status = bp_stream_rewind(in, err)) != BP_OK || (status = bp_csv_init(&csv, in, delimiter, err)) != BP_OK)
        goto out;
    while (nrows < SNIFF_ROWS && (status = bp_csv_next(&csv, &row, err)) == BP_OK && row) {
        if (nrows == 0) {
            ncolumns = csv.nfields;
            columns = calloc((size_t)ncolumns, sizeof *columns);
            hashes = calloc((size_t)ncolumns * SNIFF_ROWS, sizeof *hashes);
            if (!columns || !hashes) {
                status = bp_fail(err, BP_NOMEM, "no memory to look at %d columns", ncolumns);
                goto out;
            }
        } else if (csv.nfields != ncolumns) {
            break; /* the import names this row */
        }
        for (int i = 0; i < ncolumns; i++)
            sample_field(&columns[i], &csv.fields[i], nrows == 0, &hashes[nrows * ncolumns + i]);
        nrows++;
    }
    if (status != BP_OK)
        goto out;
    if (nrows == 0) {
        status = bp_fail_at(err, BP_INVALID, "empty_dataset", "the file has no rows");
        goto out;
    }
    if (nrows == 1 && !csv.newlines && ncolumns > 2) {
        status = newlines_gone(ncolumns, err);
        goto out;
    }
    bool numeric = false;
    for (int i = 0; i < ncolumns; i++)
        numeric = numeric || columns[i].first_number;
    if (header >= 0)
        *ret = header == 1;
    else if (nrows == 1 && csv.eof && !numeric)
        *ret = true; /* names alone: the import says that there are no rows */
    else
        status = judge(columns, hashes, nrows, ncolumns, ret, err);
out:
    free(hashes);
    free(columns);
    bp_csv_done(&csv);
    return status;
}

bp_status bp_csv_sniff(struct bp_stream *in, char delimiter, int header, struct bp_csv_dialect *ret,
                       struct bp_error *err)
{
    struct bp_csv_dialect dialect = {.delimiter = delimiter, .header_found = header < 0};
    bp_status status;
    if (!delimiter && (status = find_delimiter(in, &dialect.delimiter, err)) != BP_OK)
        return status;
    if ((status = find_header(in, dialect.delimiter, header, &dialect.header, err)) != BP_OK)
        return status;
    if ((status = bp_stream_rewind(in, err)) != BP_OK)
        return status;
    *ret = dialect;
    return BP_OK;
}
