/* accept.c: what the client wants to read: ?render= first, then Accept, JSON by default.
 *
 * Threads: the one that runs the handler.
 */
#include "http/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name, *type, *other_type;
} renders[] = {
    [BP_RENDER_JSON] = {"json", "application/json", "application/*"},
    [BP_RENDER_TEXT] = {"text", "text/plain", "text/*"},
    [BP_RENDER_CSV] = {"csv", "text/csv", "text/*"},
    [BP_RENDER_NDJSON] = {"ndjson", "application/x-ndjson", "application/ndjson"},
};
#define RENDERS (sizeof renders / sizeof *renders)

static json_t *allowed_names(unsigned allowed)
{
    json_t *names = json_array();
    for (size_t i = 0; i < RENDERS; i++)
        if (allowed & (1u << i))
            json_array_append_new(names, json_string(renders[i].name));
    return names;
}

static bool refuse(struct bp_reply *reply, int status, const char *code, unsigned allowed, const char *detail)
{
    bp_problem(reply, status, code, "%s", detail);
    bp_problem_member(reply, "allowed", allowed_names(allowed));
    return false;
}

/* The q of a media range's parameters, 1 where it has none. */
static double quality(const char *parameters, const char *end)
{
    for (const char *p = parameters; p < end; p++) {
        if (*p != ';')
            continue;
        const char *name = p + 1 + strspn(p + 1, " \t");
        if (name + 2 < end && (name[0] | 0x20) == 'q' && name[1] == '=')
            return name[2] == '1' ? 1 : name[2] == '0' && name[3] == '.' ? atof(name + 2) : 0;
    }
    return 1;
}

/* The first render that a media range stands for, or -1. */
static int render_of(const char *range, size_t size, unsigned allowed)
{
    for (size_t i = 0; i < RENDERS; i++) {
        if (!(allowed & (1u << i)))
            continue;
        bool any = size == 3 && !memcmp(range, "*/*", 3);
        bool same = strlen(renders[i].type) == size && !strncasecmp(range, renders[i].type, size);
        bool other = strlen(renders[i].other_type) == size && !strncasecmp(range, renders[i].other_type, size);
        if (any || same || other)
            return (int)i;
    }
    return -1;
}

static bool from_accept(const char *accept, unsigned allowed, enum bp_render *ret)
{
    double best = 0;
    int found = -1;
    for (const char *p = accept; *p;) {
        p += strspn(p, " \t,");
        size_t size = strcspn(p, " \t;,");
        const char *end = p + strcspn(p, ",");
        int render = render_of(p, size, allowed);
        double q = quality(p + size, end);
        if (render >= 0 && q > best) {
            best = q;
            found = render;
        }
        p = end;
    }
    if (found >= 0)
        *ret = (enum bp_render)found;
    return found >= 0;
}

bool bp_request_render(const struct bp_request *r, struct bp_reply *reply, unsigned allowed, enum bp_render *ret)
{
    const char *wanted = bp_request_query(r, "render");
    for (size_t i = 0; wanted && i < RENDERS; i++) {
        if (strcmp(wanted, renders[i].name))
            continue;
        if (!(allowed & (1u << i)))
            return refuse(reply, 406, "not_acceptable", allowed, "this cannot be rendered so");
        *ret = (enum bp_render)i;
        return true;
    }
    if (wanted)
        return refuse(reply, 400, "bad_query", allowed, "render must be json, text, csv or ndjson");
    const char *accept = bp_request_header(r, MHD_HTTP_HEADER_ACCEPT);
    if (!accept || !*accept) {
        unsigned first = 0;
        while (first + 1 < RENDERS && !(allowed & (1u << first)))
            first++;
        *ret = (enum bp_render)first;
        return true;
    }
    if (from_accept(accept, allowed, ret))
        return true;
    return refuse(reply, 406, "not_acceptable", allowed, "nothing that Accept asks for can be made of this");
}
