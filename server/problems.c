/* problems.c: the list of faults, the nearest name, and JSON pointers.
 *
 * Nothing here fails loudly: when memory runs out the entry is lost and the list says so (out_of_memory), because a
 * caller that collects faults has no better place to go.
 *
 * Threads: belongs to its owner; bp_nearest and bp_pointer_append are pure.
 */
#include "problems.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DETAIL_MAX 512 /* one sentence; what a client sent is quoted in it and may be long */
#define WORD_MAX 64    /* names of ours are shorter; a longer word is near none of them */

void bp_problems_init(struct bp_problems *p)
{
    p->errors = NULL;
    p->out_of_memory = false;
}

void bp_problems_done(struct bp_problems *p)
{
    json_decref(p->errors);
    p->errors = NULL;
}

bool bp_problems_any(const struct bp_problems *p)
{
    return p->out_of_memory || json_array_size(p->errors) > 0;
}

/* Cuts text at its limit without leaving half a UTF-8 sequence: JSON strings must be whole. */
static void trim_utf8(char *text)
{
    size_t n = strlen(text);
    size_t back = 0;
    while (back < 4 && back < n && ((unsigned char)text[n - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back >= n)
        return;
    unsigned char lead = (unsigned char)text[n - 1 - back];
    size_t want = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
    if (want > back)
        text[n - 1 - back] = '\0';
}

/* A string that is surely UTF-8: bytes that are not are shown as '?'. */
static json_t *safe_string(const char *text)
{
    json_t *string = json_string(text);
    if (string)
        return string;
    char copy[DETAIL_MAX];
    size_t n = 0;
    for (; text[n] && n < sizeof copy - 1; n++)
        copy[n] = (unsigned char)text[n] < 0x80 ? text[n] : '?';
    copy[n] = '\0';
    return json_string(copy);
}

void bp_problems_add(struct bp_problems *p, const char *pointer, const char *code, const char *suggestion,
                     json_t *allowed_steal, const char *format, ...)
{
    char detail[DETAIL_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    trim_utf8(detail);

    if (!p->errors)
        p->errors = json_array();
    if (json_array_size(p->errors) >= BP_PROBLEMS_MAX) {
        json_decref(allowed_steal);
        return;
    }
    json_t *entry = json_object();
    int bad = json_object_set_new(entry, "pointer", safe_string(pointer));
    bad |= json_object_set_new(entry, "code", json_string(code));
    bad |= json_object_set_new(entry, "detail", safe_string(detail));
    if (suggestion)
        bad |= json_object_set_new(entry, "suggestion", safe_string(suggestion));
    if (allowed_steal)
        bad |= json_object_set_new(entry, "allowed", allowed_steal);
    if (bad) {
        json_decref(entry);
        entry = NULL;
    }
    if (json_array_append_new(p->errors, entry))
        p->out_of_memory = true;
}

/* Lower case, without '-' and '_'. False when the word is longer than any name. */
static bool fold(const char *word, char ret[WORD_MAX])
{
    size_t n = 0;
    for (; *word; word++) {
        if (*word == '-' || *word == '_')
            continue;
        if (n == WORD_MAX - 1)
            return false;
        ret[n++] = (char)tolower((unsigned char)*word);
    }
    ret[n] = '\0';
    return true;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t low = a < b ? a : b;
    return low < c ? low : c;
}

/* Edits (insert, delete, replace, swap of neighbours) from a to b: the optimal string alignment distance. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][WORD_MAX];
    size_t na = strlen(a), nb = strlen(b);
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= nb; j++)
        last[j] = j;
    for (size_t i = 1; i <= na; i++) {
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t replace = last[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = min3(replace, last[j] + 1, row[j - 1] + 1);
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < row[j])
                row[j] = before[j - 2] + 1;
        }
        size_t *reuse = before;
        before = last;
        last = row;
        row = reuse;
    }
    return last[nb];
}

const char *bp_nearest(const char *word, const char *const *names, size_t n)
{
    char folded[WORD_MAX], name[WORD_MAX];
    if (!fold(word, folded))
        return NULL;
    size_t limit = (strlen(folded) + 2) / 3;
    const char *best = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!fold(names[i], name))
            continue;
        size_t distance = edit_distance(folded, name);
        if (distance > limit || (best && distance == limit))
            continue;
        best = names[i];
        limit = distance;
        if (distance == 0)
            break;
    }
    return best;
}

void bp_pointer_append(char *dst, size_t size, const char *token)
{
    size_t used = strlen(dst);
    if (used + 1 >= size)
        return;
    dst[used++] = '/';
    for (; *token; token++) {
        const char *escape = *token == '~' ? "~0" : *token == '/' ? "~1" : NULL;
        if (used + (escape ? 2 : 1) >= size)
            break;
        if (escape)
            dst[used++] = *escape++;
        dst[used++] = escape ? *escape : *token;
    }
    dst[used] = '\0';
    trim_utf8(dst);
}
