/* reply.c: what a handler may say.
 *
 * A reply holds one thing at a time: bytes, a stream or a problem. Saying another thing replaces it; headers stay.
 *
 * Threads: the one that runs the handler.
 */
#include "http/internal.h"

#include "json_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Forgets what was said, except for headers. */
static void forget(struct bp_reply *reply)
{
    free(reply->body);
    reply->body = NULL;
    reply->size = 0;
    json_decref(reply->problem);
    reply->problem = NULL;
    if (reply->streaming && reply->free_ctx)
        reply->free_ctx(reply->ctx);
    reply->streaming = false;
    reply->read = NULL;
    reply->ctx = NULL;
    reply->free_ctx = NULL;
    reply->etag[0] = '\0';
    reply->content_type[0] = '\0';
    reply->status = 0;
}

void bp_reply_clear(struct bp_reply *reply)
{
    forget(reply);
    while (reply->headers) {
        struct reply_header *header = reply->headers;
        reply->headers = header->next;
        free(header);
    }
    *reply = (struct bp_reply){0};
}

bool bp_reply_is_set(const struct bp_reply *reply)
{
    return reply->status != 0;
}

void bp_reply_header(struct bp_reply *reply, const char *name, const char *format, ...)
{
    char value[1024]; /* longer than any header of ours */
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    size_t name_size = strlen(name) + 1, value_size = strlen(value) + 1;
    struct reply_header *header = malloc(sizeof *header + name_size + value_size);
    if (!header)
        return; /* the reply is still true without it */
    memcpy(header->name, name, name_size);
    header->value = header->name + name_size;
    memcpy(header->value, value, value_size);
    header->next = reply->headers;
    reply->headers = header;
}

void bp_reply_bytes(struct bp_reply *reply, int status, const char *content_type, char *body_steal, size_t size)
{
    forget(reply);
    reply->status = status;
    reply->body = body_steal;
    reply->size = size;
    snprintf(reply->content_type, sizeof reply->content_type, "%s", content_type);
}

/* The text of a JSON value with a final newline, so that a shell's prompt begins on its own line. */
static char *dump(const json_t *json, size_t *ret_size)
{
    char *text = bp_json_text(json);
    if (!text)
        return NULL;
    size_t size = strlen(text);
    char *grown = realloc(text, size + 2);
    if (!grown) {
        free(text);
        return NULL;
    }
    grown[size++] = '\n';
    grown[size] = '\0';
    *ret_size = size;
    return grown;
}

static void reply_no_memory(struct bp_reply *reply)
{
    static const char text[] =
        "{\"type\":\"/problems/out_of_memory\",\"title\":\"Internal Server Error\",\"status\":500,"
        "\"code\":\"out_of_memory\",\"detail\":\"out of memory\"}\n";
    forget(reply);
    reply->body = strdup(text); /* where even this fails the body is empty, and the status says it */
    reply->size = reply->body ? sizeof text - 1 : 0;
    reply->status = 500;
    snprintf(reply->content_type, sizeof reply->content_type, "application/problem+json");
}

void bp_reply_json(struct bp_reply *reply, int status, json_t *json_steal)
{
    size_t size = 0;
    char *text = json_steal ? dump(json_steal, &size) : NULL;
    json_decref(json_steal);
    if (text)
        bp_reply_bytes(reply, status, "application/json", text, size);
    else
        reply_no_memory(reply);
}

void bp_reply_text(struct bp_reply *reply, int status, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        reply_no_memory(reply);
    else
        bp_reply_bytes(reply, status, "text/plain; charset=utf-8", text, (size_t)n);
}

void bp_reply_empty(struct bp_reply *reply, int status)
{
    forget(reply);
    reply->status = status;
}

void bp_reply_stream(struct bp_reply *reply, const char *content_type, int64_t size, const char *etag,
                     bp_reply_read *read, void *ctx, void (*free_ctx)(void *ctx))
{
    forget(reply);
    reply->status = 200;
    reply->streaming = true;
    reply->stream_size = size;
    reply->read = read;
    reply->ctx = ctx;
    reply->free_ctx = free_ctx;
    snprintf(reply->content_type, sizeof reply->content_type, "%s", content_type);
    snprintf(reply->etag, sizeof reply->etag, "%s", etag ? etag : "");
}

void bp_reply_finish(struct bp_reply *reply, const struct bp_request *r)
{
    if (reply->status == 0)
        bp_problem(reply, 500, "internal", "the request was not answered; this is a fault of ours");
    if (!reply->problem)
        return;
    bp_problem_finish(reply, r);
    size_t size = 0;
    char *text = dump(reply->problem, &size);
    int status = reply->status;
    if (text)
        bp_reply_bytes(reply, status, "application/problem+json", text, size);
    else
        reply_no_memory(reply);
}
