/* request.c: what a handler may ask of a request.
 *
 * Threads: the one that runs the handler.
 */
#include "http/internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *bp_request_method(const struct bp_request *r)
{
    return r->method;
}

const char *bp_request_path(const struct bp_request *r)
{
    return r->path ? r->path : "";
}

const char *bp_request_arg(const struct bp_request *r, int i)
{
    return i >= 0 && i < HTTP_ARGS && r->args[i] ? r->args[i] : "";
}

const char *bp_request_query(const struct bp_request *r, const char *key)
{
    for (int i = 0; i < r->nquery; i++)
        if (!strcmp(r->query[i].key, key))
            return r->query[i].value;
    return NULL;
}

bool bp_request_query_at(const struct bp_request *r, int i, const char **ret_key, const char **ret_value)
{
    if (i < 0 || i >= r->nquery)
        return false;
    *ret_key = r->query[i].key;
    *ret_value = r->query[i].value;
    return true;
}

const char *bp_request_header(const struct bp_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const char *bp_request_id(const struct bp_request *r)
{
    return r->id;
}

bool bp_request_cancelled(const struct bp_request *r)
{
    return atomic_load(&r->http->stopping);
}

const char *bp_request_body(const struct bp_request *r, size_t *ret_size)
{
    *ret_size = r->body.size;
    return r->body.buffer ? r->body.buffer : "";
}

int bp_request_uploads(const struct bp_request *r)
{
    return r->body.nparts;
}

const struct bp_upload *bp_request_upload(const struct bp_request *r, int i)
{
    return i >= 0 && i < r->body.nparts ? &r->body.parts[i]->shown : NULL;
}

const struct bp_upload *bp_request_field(const struct bp_request *r, const char *field)
{
    for (int i = 0; i < r->body.nparts; i++)
        if (!strcmp(r->body.parts[i]->field, field))
            return &r->body.parts[i]->shown;
    return NULL;
}

char *bp_request_upload_steal(struct bp_request *r, const struct bp_upload *upload)
{
    for (int i = 0; i < r->body.nparts; i++) {
        struct upload_part *part = r->body.parts[i];
        if (&part->shown != upload || !part->path || part->taken)
            continue;
        char *path = strdup(part->path);
        part->taken = path != NULL;
        return path;
    }
    return NULL;
}

char *bp_upload_text(const struct bp_upload *upload)
{
    if (upload->bytes > HTTP_FORM_TEXT)
        return NULL;
    if (upload->text)
        return strdup(upload->text);
    char *text = malloc((size_t)upload->bytes + 1);
    int fd = text ? open(upload->path, O_RDONLY | O_CLOEXEC) : -1;
    size_t used = 0;
    while (fd >= 0 && used < (size_t)upload->bytes) {
        ssize_t n = read(fd, text + used, (size_t)upload->bytes - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    if (fd < 0 || used < (size_t)upload->bytes) {
        free(text);
        return NULL;
    }
    text[used] = '\0';
    return text;
}

bool bp_request_query_int(const struct bp_request *r, struct bp_reply *reply, const char *key, int64_t fallback,
                          int64_t min, int64_t max, int64_t *ret)
{
    const char *text = bp_request_query(r, key);
    if (!text) {
        *ret = fallback;
        return true;
    }
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    bool plain = isdigit((unsigned char)*text) || (*text == '-' && isdigit((unsigned char)text[1]));
    if (!plain || *end || errno || value < min || value > max) {
        bp_problem(reply, 400, "bad_query", "%s must be a whole number from %" PRId64 " to %" PRId64, key, min, max);
        return false;
    }
    *ret = value;
    return true;
}

bool bp_request_query_bool(const struct bp_request *r, struct bp_reply *reply, const char *key, bool fallback,
                           bool *ret)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true}, {"1", true}, {"", true}, {"false", false}, {"0", false}};
    const char *text = bp_request_query(r, key);
    if (!text) {
        *ret = fallback;
        return true;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(text, words[i].word)) {
            *ret = words[i].value;
            return true;
        }
    bp_problem(reply, 400, "bad_query", "%s must be true or false", key);
    return false;
}

bool bp_reply_wait(struct bp_request *r, struct bp_reply *reply, const char *topic, int64_t since, double seconds)
{
    if (r->route->run == BP_RUN_DATA || r->waited == 2 || strlen(topic) >= sizeof r->topic)
        return false;
    if (!r->slot && !bp_waits_reserve(&r->http->waits))
        return false;
    r->slot = true;
    strcpy(r->topic, topic);
    r->since = since;
    if (r->deadline == 0) { /* the time that was first asked for holds, however often it is woken in between */
        double bounded = seconds > HTTP_WAIT_MAX ? HTTP_WAIT_MAX : seconds > 0 ? seconds : 0;
        r->deadline = bp_clock() + bounded;
    }
    reply->waits = true;
    return true;
}

int bp_request_waited(const struct bp_request *r)
{
    return r->waited;
}

void bp_request_keep(struct bp_request *r, const char *note)
{
    snprintf(r->kept, sizeof r->kept, "%s", note);
}

const char *bp_request_kept(const struct bp_request *r)
{
    return r->kept;
}

double bp_request_deadline(struct bp_request *r, double first)
{
    if (r->handler_deadline == 0)
        r->handler_deadline = first;
    return r->handler_deadline;
}
