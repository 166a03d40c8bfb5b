/* target.c: the request target as the client sent it, decoded once and strictly.
 *
 * libmicrohttpd decodes a path before it shows it, and a %00 then cuts it short. So the raw target is kept and read
 * here: percent escapes once, UTF-8 only, no empty, "." or ".." segment, no encoded slash, backslash or NUL. Nothing
 * of a path ever becomes a file name; the rules are for everything that stands before us and might read it otherwise.
 *
 * Threads: the connection's.
 */
#include "http/internal.h"

#include <stdlib.h>
#include <string.h>

bool bp_utf8_valid(const char *text, size_t size)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + size;
    while (p < end) {
        if (*p < 0x80) {
            p++;
            continue;
        }
        size_t n = *p >= 0xc2 && *p < 0xe0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;
        if (n == 0 || (size_t)(end - p) < n)
            return false;
        for (size_t i = 1; i < n; i++)
            if ((p[i] & 0xc0) != 0x80)
                return false;
        /* overlong forms, surrogates, beyond U+10FFFF */
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
            (p[0] == 0xf4 && p[1] > 0x8f))
            return false;
        p += n;
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes in place. False for a broken escape, a NUL, another control character, or what is not UTF-8. */
static bool decode(char *text, bool plus_is_space)
{
    char *out = text;
    for (const char *in = text; *in; in++) {
        int c = (unsigned char)*in;
        if (c == '%') {
            int high = hex_digit(in[1]), low = high < 0 ? -1 : hex_digit(in[2]);
            if (low < 0)
                return false;
            c = high * 16 + low;
            in += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f)
            return false;
        *out++ = (char)c;
    }
    *out = '\0';
    return bp_utf8_valid(text, (size_t)(out - text));
}

static bool bad_path(struct bp_request *r, const char *why)
{
    bp_problem(&r->reply, 400, "bad_path", "%s", why);
    return false;
}

/* Whether the raw path has an escape that stands for one of the bytes (two lower-case hex digits each). */
static bool has_escape(const char *raw, const char *hex)
{
    for (const char *p = strchr(raw, '%'); p; p = strchr(p + 1, '%'))
        if (p[1] && p[2] && (p[1] | 0x20) == (hex[0] | 0x20) && (p[2] | 0x20) == (hex[1] | 0x20))
            return true;
    return false;
}

/* Splits raw (which is changed) into decoded segments. A path that nothing can match gets nsegments -1: a 404. */
static bool split_path(struct bp_request *r, char *raw)
{
    if (has_escape(raw, "00") || has_escape(raw, "2f") || has_escape(raw, "5c"))
        return bad_path(r, "the path has an encoded slash, backslash or NUL; names never contain them");
    r->path = strdup(raw);
    if (!r->path || !decode(r->path, false)) {
        if (r->path)
            return bad_path(r, "the path has a broken percent escape, a control character or bytes that are not "
                               "UTF-8");
        bp_problem(&r->reply, 503, "out_of_memory", "out of memory; try again");
        return false;
    }
    for (char *rest = raw + 1; rest;) {
        char *segment = rest;
        rest = strchr(rest, '/');
        if (rest)
            *rest++ = '\0';
        decode(segment, false); /* was seen to be sound above */
        bool odd = !*segment || !strcmp(segment, ".") || !strcmp(segment, "..") || strchr(segment, '\\');
        if (!*segment && !rest && r->nsegments == 0)
            return true; /* "/" */
        if (odd || r->nsegments == HTTP_SEGMENTS || strlen(segment) > HTTP_SEGMENT_MAX) {
            r->nsegments = -1;
            return true;
        }
        r->segments[r->nsegments++] = segment;
    }
    return true;
}

static bool bad_query(struct bp_request *r, const char *why)
{
    bp_problem(&r->reply, 400, "bad_query", "%s", why);
    return false;
}

static bool split_query(struct bp_request *r, char *text)
{
    r->query_text = text;
    for (char *rest = text; rest && *rest;) {
        char *key = rest;
        rest = strchr(rest, '&');
        if (rest)
            *rest++ = '\0';
        if (!*key)
            continue; /* "a=1&&b=2" is harmless */
        char *value = strchr(key, '=');
        if (value)
            *value++ = '\0';
        else
            value = key + strlen(key);
        if (!decode(key, true) || !decode(value, true))
            return bad_query(r, "the query has a broken percent escape, a control character or bytes that are not "
                                "UTF-8");
        for (int i = 0; i < r->nquery; i++)
            if (!strcmp(r->query[i].key, key))
                return bad_query(r, "a query key is given twice; give each once");
        if (r->nquery == HTTP_QUERY_MAX)
            return bad_query(r, "the query has more than 32 keys");
        r->query[r->nquery++] = (struct query_item){key, value};
    }
    return true;
}

bool bp_target_parse(struct bp_request *r)
{
    if (r->target_too_long) {
        bp_problem(&r->reply, 414, "target_too_long", "the path and query are longer than %d bytes", HTTP_TARGET_MAX);
        bp_problem_member(&r->reply, "limit", json_integer(HTTP_TARGET_MAX));
        return false;
    }
    if (!r->target) {
        bp_problem(&r->reply, 503, "out_of_memory", "out of memory; try again");
        return false;
    }
    if (r->target[0] != '/')
        return bad_path(r, "the request target must be a path that begins with '/'");
    for (const unsigned char *p = (const unsigned char *)r->target; *p; p++)
        if (*p <= 0x20 || *p == 0x7f || *p == '#')
            return bad_path(r, "the request target has a space, a control character or a '#'");
    char *query = strchr(r->target, '?');
    if (query)
        *query++ = '\0';
    return split_path(r, r->target) && split_query(r, query);
}
