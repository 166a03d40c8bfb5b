/* route.c: which handler answers, and what to say when none does.
 *
 * The table is small and read-only; it is searched from top to bottom, so a fixed segment that should win over a {}
 * stands before it.
 *
 * Threads: the connection's.
 */
#include "http/internal.h"

#include "problems.h"

#include <stdio.h>
#include <string.h>

#define NEAR_ROUTES 5 /* routes named in a 404 */

/* Compares a route's path with the segments of a request; fills args. */
static bool matches(const char *pattern, struct bp_request *r)
{
    int nargs = 0;
    int i = 0;
    const char *p = pattern + 1;
    if (!*p)
        return r->nsegments == 0;
    for (;; i++) {
        if (i >= r->nsegments)
            return false;
        size_t n = strcspn(p, "/");
        if (n == 2 && !memcmp(p, "{}", 2)) {
            if (nargs < HTTP_ARGS)
                r->args[nargs++] = r->segments[i];
        } else if (strlen(r->segments[i]) != n || memcmp(p, r->segments[i], n)) {
            return false;
        }
        p += n;
        if (!*p)
            break;
        p++;
    }
    return i + 1 == r->nsegments;
}

/* How many leading segments of a request a pattern shares. */
static int shared_segments(const char *pattern, const struct bp_request *r)
{
    int shared = 0;
    const char *p = pattern + 1;
    for (; *p && shared < r->nsegments; shared++) {
        size_t n = strcspn(p, "/");
        bool same = (n == 2 && !memcmp(p, "{}", 2)) ||
                    (strlen(r->segments[shared]) == n && !memcmp(p, r->segments[shared], n));
        if (!same)
            break;
        p += n;
        p += *p == '/';
    }
    return shared;
}

/* The pattern nearest to the path, segment for segment: "/v1/jbs" is near "/v1/jobs". */
static const char *nearest_pattern(const struct bp_request *r)
{
    for (const struct bp_route *route = r->http->routes; route->method; route++) {
        int near = 0;
        int i = 0;
        const char *p = route->path + 1;
        for (; *p && i < r->nsegments; i++) {
            char name[64];
            const char *const names[] = {name};
            size_t n = strcspn(p, "/");
            snprintf(name, sizeof name, "%.*s", (int)n, p);
            if (strcmp(name, "{}") && strcmp(name, r->segments[i])) {
                if (!bp_nearest(r->segments[i], names, 1))
                    break;
                near++;
            }
            p += n;
            p += *p == '/';
        }
        if (!*p && i == r->nsegments && near == 1)
            return route->path;
    }
    return NULL;
}

static bool not_found(struct bp_request *r)
{
    const struct bp_route *routes = r->http->routes;
    const char *guess = r->nsegments > 0 ? nearest_pattern(r) : NULL;
    if (guess)
        bp_problem(&r->reply, 404, "no_such_path", "there is nothing at this path; did you mean %s?", guess);
    else
        bp_problem(&r->reply, 404, "no_such_path", "there is nothing at this path; GET / lists what there is");
    int most = 0;
    for (const struct bp_route *route = routes; route->method && r->nsegments > 0; route++) {
        int shared = shared_segments(route->path, r);
        most = shared > most ? shared : most;
    }
    json_t *near = json_array();
    for (const struct bp_route *route = routes; route->method && json_array_size(near) < NEAR_ROUTES; route++) {
        if (guess ? strncmp(route->path, guess, strlen(guess)) != 0
                  : r->nsegments > 0 && shared_segments(route->path, r) < most)
            continue;
        json_array_append_new(near, json_sprintf("%s %s", route->method, route->path));
    }
    bp_problem_member(&r->reply, "routes", near);
    return false;
}

static bool not_allowed(struct bp_request *r, const char *allow)
{
    bp_problem(&r->reply, 405, "method_not_allowed", "this path answers to %s", allow);
    bp_reply_header(&r->reply, MHD_HTTP_HEADER_ALLOW, "%s", allow);
    return false;
}

bool bp_route_find(struct bp_request *r)
{
    const char *method = !strcmp(r->method, "HEAD") ? "GET" : r->method;
    char allow[128] = "";
    if (r->nsegments < 0)
        return not_found(r);
    for (const struct bp_route *route = r->http->routes; route->method; route++) {
        if (!matches(route->path, r))
            continue;
        if (!strcmp(route->method, method)) {
            r->route = route;
            return true;
        }
        size_t used = strlen(allow);
        if (!strstr(allow, route->method))
            snprintf(allow + used, sizeof allow - used, "%s%s", used ? ", " : "",
                     strcmp(route->method, "GET") ? route->method : "GET, HEAD");
    }
    return *allow ? not_allowed(r, allow) : not_found(r);
}

/* Whether key is one of the words of list; a word that ends in a dot allows every key that begins with it. */
static bool is_listed(const char *list, const char *key)
{
    size_t size = strlen(key);
    for (const char *word = list; word && *word;) {
        size_t n = strcspn(word, " ");
        bool prefix = n > 1 && word[n - 1] == '.';
        if (prefix ? size > n && !strncmp(word, key, n) : size == n && !memcmp(word, key, n))
            return true;
        word += n;
        word += strspn(word, " ");
    }
    return false;
}

static void unknown_key(struct bp_request *r, const char *key)
{
    char words[512];
    const char *names[HTTP_QUERY_MAX];
    size_t n = 0;
    json_t *allowed = json_array();
    snprintf(words, sizeof words, "%s", r->route->query ? r->route->query : "");
    char *save = NULL;
    for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        json_array_append_new(allowed, json_string(word));
        if (n < HTTP_QUERY_MAX)
            names[n++] = word;
    }
    const char *near = bp_nearest(key, names, n);
    if (near && near[strlen(near) - 1] == '.')
        bp_problem(&r->reply, 400, "bad_query", "unknown query key %s; %s stands before a name: %sNAME=VALUE", key,
                   near, near);
    else if (near)
        bp_problem(&r->reply, 400, "bad_query", "unknown query key %s; did you mean %s?", key, near);
    else
        bp_problem(&r->reply, 400, "bad_query", n ? "unknown query key %s" : "unknown query key %s: this takes none",
                   key);
    bp_problem_member(&r->reply, "allowed", allowed);
}

bool bp_route_check_query(struct bp_request *r)
{
    for (int i = 0; i < r->nquery; i++) {
        if (is_listed(r->route->query, r->query[i].key))
            continue;
        unknown_key(r, r->query[i].key);
        return false;
    }
    return true;
}
