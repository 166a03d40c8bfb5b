/* csv.c: the scanner. A row is first scanned without changing a byte, so that it can be scanned again when the block
 * ends in the middle of it; when it is complete, doubled quotes are undone in place.
 *
 * What ends a field (a stop: the delimiter or a line end) is looked for 64 bytes at a time and listed for some thousand
 * bytes ahead; reading fields is then a walk along the list. A quoted field passes over the stops inside it; where there is
 * no quote in what is listed, the walk needs to look at nothing but the stops. */
#include "data/csv.h"

#include "data/table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define BLOCK (1 << 20)
#define STRETCH 64           /* bytes of a mask */
#define WINDOW 4096          /* bytes whose stops are listed at a time */
#define MARGIN (2 * STRETCH) /* behind the block: the sentinel, and bytes that may be read though nobody uses them */

enum scan { SCAN_ROW, SCAN_MORE /* the block ends inside the row */, SCAN_FAULT };

bp_status bp_csv_init(struct bp_csv *csv, struct bp_stream *in, char delimiter, struct bp_error *err)
{
    memset(csv, 0, sizeof *csv);
    csv->in = in;
    csv->delimiter = delimiter;
    csv->next = 1;
    csv->capacity = BLOCK;
    csv->buffer = malloc(csv->capacity + MARGIN);
    csv->stops = malloc((WINDOW + 4) * sizeof *csv->stops);
    if (!csv->buffer || !csv->stops)
        return bp_fail(err, BP_NOMEM, "no memory to read the CSV");
    memset(csv->buffer, '\n', MARGIN);
    return BP_OK;
}

void bp_csv_done(struct bp_csv *csv)
{
    free(csv->buffer);
    free(csv->stops);
    free(csv->fields);
    memset(csv, 0, sizeof *csv);
}

char *bp_csv_quote(const char *text, size_t size, char dst[BP_CSV_QUOTE])
{
    size_t n = size < BP_CSV_QUOTE - 4 ? size : BP_CSV_QUOTE - 4;
    while (n < size && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--; /* not through the middle of a character */
    for (size_t i = 0; i < n; i++)
        dst[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '.' : text[i];
    memcpy(dst + n, n < size ? "..." : "", n < size ? 4 : 1);
    return dst;
}

/* --- bytes ---------------------------------------------------------------------------------------------------------- */

/* Whether all bytes are ASCII and none is 0, eight at a time. */
static bool plain_ascii(const char *p, size_t n)
{
    uint64_t bad = 0;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        bad |= (v | (v - UINT64_C(0x0101010101010101))) & UINT64_C(0x8080808080808080);
    }
    for (; n; p++, n--)
        bad |= (unsigned char)*p >= 0x80 || *p == 0;
    return bad == 0;
}

/* The first byte that is not UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF) or is 0; NULL: none. */
static const char *utf8_fault(const char *text, const char *end)
{
    const unsigned char *p = (const unsigned char *)text, *e = (const unsigned char *)end;
    while (p < e) {
        unsigned c = *p;
        int more = c < 0x80                ? 0
                   : c >= 0xc2 && c < 0xe0 ? 1
                   : c >= 0xe0 && c < 0xf0 ? 2
                   : c >= 0xf0 && c < 0xf5 ? 3
                                           : -1;
        if (c == 0 || more < 0 || e - p <= more)
            return (const char *)p;
        for (int i = 1; i <= more; i++)
            if ((p[i] & 0xc0) != 0x80)
                return (const char *)p;
        if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) ||
            (c == 0xf4 && p[1] > 0x8f))
            return (const char *)p;
        p += 1 + more;
    }
    return NULL;
}

static int64_t count_lines(const char *p, const char *end)
{
    int64_t n = 0;
    for (; p < end; p++)
        n += *p == '\n' || (*p == '\r' && !(p + 1 < end && p[1] == '\n'));
    return n;
}

/* A bit for each of the 64 bytes at p that ends an unquoted field, the first byte's the lowest; *quoted is set where one of
 * them is a quote. */
static inline uint64_t find_stops(const char *p, char delimiter, bool *quoted)
{
    uint64_t mask = 0;
#ifdef __SSE2__
    const __m128i comma = _mm_set1_epi8(delimiter), lf = _mm_set1_epi8('\n'), cr = _mm_set1_epi8('\r');
    const __m128i quote = _mm_set1_epi8('"');
    __m128i quotes = _mm_setzero_si128();
    for (int i = 0; i < STRETCH; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i hit =
            _mm_or_si128(_mm_cmpeq_epi8(v, comma), _mm_or_si128(_mm_cmpeq_epi8(v, lf), _mm_cmpeq_epi8(v, cr)));
        mask |= (uint64_t)(unsigned)_mm_movemask_epi8(hit) << i;
        quotes = _mm_or_si128(quotes, _mm_cmpeq_epi8(v, quote));
    }
    *quoted |= _mm_movemask_epi8(quotes) != 0;
#else
    for (int i = 0; i < STRETCH; i++) {
        mask |= (uint64_t)(p[i] == delimiter || p[i] == '\n' || p[i] == '\r') << i;
        *quoted |= p[i] == '"';
    }
#endif
    return mask;
}

/* Without an instruction for it the compiler would call a function. */
static inline unsigned count_bits(uint64_t v)
{
    v -= v >> 1 & UINT64_C(0x5555555555555555);
    v = (v & UINT64_C(0x3333333333333333)) + (v >> 2 & UINT64_C(0x3333333333333333));
    return (unsigned)(((v + (v >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f)) * UINT64_C(0x0101010101010101) >> 56);
}

/* Lists the stops of the next window. Bits are taken out four at a time whether they are there or not, so that the
 * processor has no loop end to guess; what is written too much is overwritten. */
static void list_stops(struct bp_csv *csv)
{
    uint32_t *at = csv->stops, base = (uint32_t)csv->listed;
    bool quoted = false;
    for (int i = 0; i < WINDOW && base <= csv->end; i += STRETCH, base += STRETCH) {
        uint64_t mask = find_stops(csv->buffer + base, csv->delimiter, &quoted);
        uint32_t *next = at + count_bits(mask);
        while (mask) {
            for (int k = 0; k < 4; k++) {
                at[k] = base + (uint32_t)(mask ? __builtin_ctzll(mask) : 0);
                mask &= mask - 1;
            }
            at += 4;
        }
        at = next;
    }
    csv->listed = base;
    csv->nstops = (size_t)(at - csv->stops);
    csv->stop = 0;
    csv->plain = !quoted;
}

/* The first byte from p on that ends an unquoted field; the sentinel is one. What ends before p is passed over for
 * good. */
static inline __attribute__((always_inline)) char *next_stop(struct bp_csv *csv, const char *p)
{
    size_t at = (size_t)(p - csv->buffer);
    for (;;) {
        while (csv->stop == csv->nstops)
            list_stops(csv);
        if (csv->stops[csv->stop] >= at)
            return csv->buffer + csv->stops[csv->stop++];
        csv->stop++;
    }
}

/* Moves what is left to the front and reads as much as fits, in a larger buffer where the row fills it. */
static bp_status fill(struct bp_csv *csv, struct bp_error *err)
{
    size_t left = csv->end - csv->begin;
    bool first = csv->next == 1 && csv->end == 0;
    if (csv->begin > 0) {
        memmove(csv->buffer, csv->buffer + csv->begin, left);
        csv->begin = 0;
        csv->end = left;
    } else if (left == csv->capacity) {
        if (left >= BP_CSV_ROW_MAX)
            return bp_fail_at(err, BP_LIMIT, "row_too_long", "line %lld: the row is longer than %d bytes",
                              (long long)csv->next, BP_CSV_ROW_MAX);
        char *grown = realloc(csv->buffer, csv->capacity * 2 + MARGIN);
        if (!grown)
            return bp_fail(err, BP_NOMEM, "no memory for the row in line %lld", (long long)csv->next);
        csv->buffer = grown;
        csv->capacity *= 2;
    }
    size_t got, ask = csv->capacity - csv->end;
    bp_status status = bp_stream_read(csv->in, csv->buffer + csv->end, ask, &got, err);
    if (status != BP_OK)
        return status;
    bool plain = plain_ascii(csv->buffer + csv->end, got);
    csv->suspect = !plain || (csv->suspect && left > 0);
    csv->end += got;
    csv->eof = got < ask;
    memset(csv->buffer + csv->end, '\n',
           MARGIN); /* the sentinel: scanning stops here without looking at the length */
    csv->listed = csv->stop = csv->nstops = 0;
    if (first && csv->end >= 3 && memcmp(csv->buffer, "\xef\xbb\xbf", 3) == 0)
        csv->begin = 3;
    return BP_OK;
}

/* --- rows ----------------------------------------------------------------------------------------------------------- */

static enum scan fault(struct bp_csv *csv, bp_status code, const char *where, const char *at, const char *what,
                       struct bp_error *err)
{
    int64_t line = csv->next + count_lines(csv->buffer + csv->begin, at);
    bp_fail_at(err, code, where, "line %lld, column %d: %s", (long long)line, csv->nfields + 1, what);
    return SCAN_FAULT;
}

static inline struct bp_csv_field *new_field(struct bp_csv *csv, struct bp_error *err)
{
    if (csv->nfields == csv->fields_capacity) {
        if (csv->nfields >= BP_COLUMNS_MAX) {
            bp_fail_at(err, BP_LIMIT, "too_many_columns", "line %lld: the row has more than %d columns",
                       (long long)csv->next, BP_COLUMNS_MAX);
            return NULL;
        }
        int capacity = csv->fields_capacity ? csv->fields_capacity * 2 : 64;
        struct bp_csv_field *grown = realloc(csv->fields, (size_t)capacity * sizeof *grown);
        if (!grown) {
            bp_fail(err, BP_NOMEM, "no memory for a row of %d columns", capacity);
            return NULL;
        }
        csv->fields = grown;
        csv->fields_capacity = capacity;
    }
    return &csv->fields[csv->nfields];
}

/* A quoted field that opens at *pp; leaves *pp behind its closing quote and any spaces. */
static enum scan scan_quoted(struct bp_csv *csv, char **pp, struct bp_csv_field *field, struct bp_error *err)
{
    char *open = *pp, *end = csv->buffer + csv->end, *q = open + 1;
    *field = (struct bp_csv_field){.text = q, .quoted = true};
    csv->quotes = true;
    for (;;) {
        q = q < end ? memchr(q, '"', (size_t)(end - q)) : NULL;
        if (!q) {
            if (csv->eof)
                return fault(csv, BP_INVALID, "unclosed_quote", open, "the quote that opens here is never closed",
                             err);
            if (end - open > BP_CSV_FIELD_MAX)
                return fault(csv, BP_INVALID, "unclosed_quote", open,
                             "the quote that opens here is not closed within 1 MiB", err);
            return SCAN_MORE;
        }
        if (q + 1 == end && !csv->eof)
            return SCAN_MORE;
        if (q + 1 == end || q[1] != '"')
            break;
        field->doubled = true;
        q += 2;
    }
    field->size = (uint32_t)(q - field->text);
    q++;
    while (q < end && *q == ' ' && csv->delimiter != ' ')
        q++;
    if (q < end && *q != csv->delimiter && *q != '\n' && *q != '\r')
        return fault(csv, BP_INVALID, "text_after_quote", open,
                     "there is text between the closing quote and the delimiter (a quote inside quotes is doubled)",
                     err);
    *pp = q;
    return SCAN_ROW;
}

/* Takes the fields from p on that end in a listed delimiter, where no quote is listed: all but the last of a row. Returns
 * the first byte of the next field. Stops before p are behind already: a quoted field passes over some, and so does the
 * end of a row of two bytes, whose LF then sends the next row's first field the long way. */
static inline char *take_plain(struct bp_csv *csv, char *p)
{
    const uint32_t *stop = csv->stops + csv->stop, *last = csv->stops + csv->nstops;
    struct bp_csv_field *field = csv->fields + csv->nfields;
    size_t room = (size_t)(csv->fields_capacity - csv->nfields);
    if ((size_t)(last - stop) > room)
        last = stop + room;
    for (; stop < last && csv->buffer[*stop] == csv->delimiter; stop++) {
        char *end = csv->buffer + *stop;
        *field++ = (struct bp_csv_field){.text = p, .size = (uint32_t)(end - p)};
        p = end + 1;
    }
    csv->stop = (size_t)(stop - csv->stops);
    csv->nfields = (int)(field - csv->fields);
    return p;
}

/* Scans one row from `begin`; *ret_end is the first byte behind it. */
static enum scan scan_row(struct bp_csv *csv, char **ret_end, struct bp_error *err)
{
    char *p = csv->buffer + csv->begin, *end = csv->buffer + csv->end;
    csv->nfields = 0;
    csv->quotes = false;
    for (;;) {
        if (csv->plain)
            p = take_plain(csv, p);
        struct bp_csv_field *field = new_field(csv, err);
        if (!field)
            return SCAN_FAULT;
        if (p < end && *p == '"') {
            enum scan scan = scan_quoted(csv, &p, field, err);
            if (scan != SCAN_ROW)
                return scan;
        } else {
            char *start = p;
            p = next_stop(csv, p);
            *field = (struct bp_csv_field){.text = start, .size = (uint32_t)(p - start)};
        }
        if (field->size > BP_CSV_FIELD_MAX)
            return fault(csv, BP_LIMIT, "field_too_long", field->text, "the field is longer than 1 MiB", err);
        csv->nfields++;
        if (p == end) { /* the sentinel */
            *ret_end = p;
            return csv->eof ? SCAN_ROW : SCAN_MORE;
        }
        char stop = *p;
        if (stop == '\r' && p + 1 == end && !csv->eof)
            return SCAN_MORE; /* a newline may follow */
        p++;
        if (stop == csv->delimiter)
            continue;
        csv->newlines = true;
        if (stop == '\r' && p < end && *p == '\n')
            p++;
        *ret_end = p;
        return SCAN_ROW;
    }
}

static void undouble(struct bp_csv_field *field)
{
    char *to = field->text;
    const char *from = field->text, *end = from + field->size;
    while (from < end) {
        if (*from == '"')
            from++;
        *to++ = *from++;
    }
    field->size = (uint32_t)(to - field->text);
}

/* The row [begin, end) is complete. */
static bp_status finish_row(struct bp_csv *csv, char *end, struct bp_error *err)
{
    char *begin = csv->buffer + csv->begin;
    if (csv->suspect) {
        const char *bad = utf8_fault(begin, end);
        if (bad)
            return bp_fail_at(err, BP_INVALID, "not_utf8",
                              *bad ? "line %lld: byte 0x%02x is not UTF-8: save the file as UTF-8"
                                   : "line %lld: there is a zero byte (0x%02x): this is no text file, or is UTF-16",
                              (long long)(csv->next + count_lines(begin, bad)), (unsigned)(unsigned char)*bad);
    }
    csv->line = csv->next;
    for (int i = 0; csv->quotes && i < csv->nfields; i++) {
        struct bp_csv_field *field = &csv->fields[i];
        if (!field->quoted)
            continue;
        csv->next += count_lines(field->text, field->text + field->size);
        if (field->doubled)
            undouble(field);
    }
    csv->next++;
    csv->begin = (size_t)(end - csv->buffer);
    return BP_OK;
}

bp_status bp_csv_next(struct bp_csv *csv, bool *ret, struct bp_error *err)
{
    bp_status status;
    for (;;) {
        if (csv->begin == csv->end && !csv->eof && (status = fill(csv, err)) != BP_OK)
            return status;
        if (csv->begin == csv->end && csv->eof) {
            *ret = false;
            return BP_OK;
        }
        char *end = NULL;
        struct bp_error local; /* is larger than most rows: only its code is set */
        local.code = BP_INTERNAL;
        struct bp_error *why = err ? err : &local;
        enum scan scan = scan_row(csv, &end, why);
        if (scan == SCAN_FAULT)
            return why->code;
        if (scan == SCAN_MORE) {
            if ((status = fill(csv, err)) != BP_OK)
                return status;
            continue;
        }
        if ((status = finish_row(csv, end, err)) != BP_OK)
            return status;
        if (csv->nfields == 1 && csv->fields[0].size == 0 && !csv->fields[0].quoted)
            continue;
        csv->offset++;
        *ret = true;
        return BP_OK;
    }
}

bp_status bp_csv_expect(const struct bp_csv *csv, int n, struct bp_error *err)
{
    if (csv->nfields == n)
        return BP_OK;
    return bp_fail_at(err, BP_INVALID, "ragged_row", "line %lld: %d columns expected, %d found", (long long)csv->line,
                      n, csv->nfields);
}
