/* send.c: from a reply to a response of libmicrohttpd: conditions, ranges, streams, headers.
 *
 * A stream is read in blocks while the client takes them, so memory stays flat however large it is. One range is
 * served (206); several are answered with the whole, which RFC 9110 allows; one that lies outside is 416.
 *
 * Threads: the connection's. A stream's read function is called there too.
 */
#include "http/internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct stream {
    bp_reply_read *read;
    void *ctx;
    void (*free_ctx)(void *ctx);
    int64_t first; /* of the content, where the response begins */
    int64_t size;  /* of the response */
};

/* Whether a list of entity tags ("*", or tags with commas) names etag; weak tags count as their strong ones. */
static bool names_etag(const char *list, const char *etag)
{
    size_t size = strlen(etag);
    for (const char *p = list; *p;) {
        p += strspn(p, " \t,");
        if (*p == '*')
            return true;
        if (!strncmp(p, "W/", 2))
            p += 2;
        if (!strncmp(p, etag, size) && (!p[size] || strchr(" \t,", p[size])))
            return true;
        if (*p == '"') {
            p++;
            p += strcspn(p, "\"");
            p += *p == '"';
        } else {
            p += strcspn(p, ",");
        }
    }
    return false;
}

bool bp_reply_not_modified(const struct bp_request *r, struct bp_reply *reply, const char *etag)
{
    const char *list = bp_request_header(r, MHD_HTTP_HEADER_IF_NONE_MATCH);
    if (!list || !names_etag(list, etag))
        return false;
    bp_reply_empty(reply, 304);
    bp_reply_header(reply, MHD_HTTP_HEADER_ETAG, "%s", etag);
    return true;
}

enum range { RANGE_WHOLE, RANGE_PART, RANGE_OUTSIDE };

/* Digits as a number that stops at INT64_MAX. */
static int64_t read_number(const char **p)
{
    int64_t value = 0;
    for (; isdigit((unsigned char)**p); (*p)++)
        value = value > (INT64_MAX - 9) / 10 ? INT64_MAX : value * 10 + (**p - '0');
    return value;
}

/* "bytes=a-b", "bytes=a-", "bytes=-n". What is not a range at all is ignored, as the RFC wants. */
static enum range read_range(const char *header, int64_t size, int64_t *ret_first, int64_t *ret_last)
{
    if (!header || strncasecmp(header, "bytes=", 6) || strchr(header, ','))
        return RANGE_WHOLE;
    const char *p = header + 6;
    p += strspn(p, " ");
    bool has_first = isdigit((unsigned char)*p);
    int64_t first = read_number(&p);
    if (*p++ != '-')
        return RANGE_WHOLE;
    bool has_last = isdigit((unsigned char)*p);
    int64_t last = read_number(&p);
    p += strspn(p, " ");
    if (*p || (!has_first && !has_last))
        return RANGE_WHOLE;
    if (!has_first) {
        if (last == 0 || size == 0)
            return RANGE_OUTSIDE;
        first = last >= size ? 0 : size - last;
        last = size - 1;
    } else if (!has_last || last >= size) {
        if (has_last && last < first)
            return RANGE_OUTSIDE;
        last = size - 1;
    }
    if (first > last || first >= size)
        return RANGE_OUTSIDE;
    *ret_first = first;
    *ret_last = last;
    return RANGE_PART;
}

static ssize_t read_stream(void *cls, uint64_t position, char *buffer, size_t max)
{
    struct stream *stream = cls;
    int64_t left = stream->size - (int64_t)position;
    if (left <= 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if ((int64_t)max > left)
        max = (size_t)left;
    int64_t n = stream->read(stream->ctx, stream->first + (int64_t)position, buffer, max);
    /* The headers are out: breaking off is the one way left to say that the rest is not there. */
    return n > 0 && n <= (int64_t)max ? (ssize_t)n : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void free_stream(void *cls)
{
    struct stream *stream = cls;
    if (stream->free_ctx)
        stream->free_ctx(stream->ctx);
    free(stream);
}

/* Moves the reply's stream into a response for [first, first + size). */
static struct MHD_Response *stream_response(struct bp_reply *reply, int64_t first, int64_t size)
{
    struct stream *stream = malloc(sizeof *stream);
    if (!stream)
        return NULL;
    *stream = (struct stream){reply->read, reply->ctx, reply->free_ctx, first, size};
    size_t block = size < HTTP_STREAM_BLOCK ? (size_t)(size > 0 ? size : 1) : HTTP_STREAM_BLOCK;
    struct MHD_Response *response =
        MHD_create_response_from_callback((uint64_t)size, block, read_stream, stream, free_stream);
    if (!response) {
        free(stream);
        return NULL;
    }
    reply->streaming = false; /* the response owns it now */
    return response;
}

/* Applies conditions and ranges to a stream. Afterwards the reply is either still the stream, to be sent from
 * *ret_first, or something without a body. */
static void resolve_stream(struct bp_request *r, int64_t *ret_first, int64_t *ret_size)
{
    struct bp_reply *reply = &r->reply;
    int64_t size = reply->stream_size, first = 0, last = 0;
    char etag[sizeof reply->etag];
    memcpy(etag, reply->etag, sizeof etag);
    *ret_first = 0;
    *ret_size = size;
    if (*etag) {
        if (bp_reply_not_modified(r, reply, etag))
            return;
        bp_reply_header(reply, MHD_HTTP_HEADER_ETAG, "%s", etag);
    }
    bp_reply_header(reply, MHD_HTTP_HEADER_ACCEPT_RANGES, "bytes");
    const char *condition = bp_request_header(r, MHD_HTTP_HEADER_IF_RANGE);
    if (strcmp(r->method, "GET") || (condition && strcmp(condition, etag)))
        return;
    switch (read_range(bp_request_header(r, MHD_HTTP_HEADER_RANGE), size, &first, &last)) {
    case RANGE_WHOLE:
        break;
    case RANGE_PART:
        reply->status = 206;
        *ret_first = first;
        *ret_size = last - first + 1;
        bp_reply_header(reply, MHD_HTTP_HEADER_CONTENT_RANGE, "bytes %" PRId64 "-%" PRId64 "/%" PRId64, first, last,
                        size);
        break;
    case RANGE_OUTSIDE:
        bp_problem(reply, 416, "range_outside", "the range lies outside of the %" PRId64 " bytes there are", size);
        bp_reply_header(reply, MHD_HTTP_HEADER_CONTENT_RANGE, "bytes */%" PRId64, size);
        bp_reply_finish(reply, r);
        break;
    }
}

static struct MHD_Response *make_response(struct bp_request *r)
{
    struct bp_reply *reply = &r->reply;
    int64_t first = 0, size = 0;
    if (reply->streaming)
        resolve_stream(r, &first, &size);
    if (reply->streaming) {
        MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT, HTTP_DOWNLOAD_IDLE_SECONDS);
        return stream_response(reply, first, size);
    }
    if (!reply->body)
        return MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
    struct MHD_Response *response = MHD_create_response_from_buffer(reply->size, reply->body, MHD_RESPMEM_MUST_FREE);
    if (response)
        reply->body = NULL;
    return response;
}

static void add_headers(struct bp_request *r, struct MHD_Response *response)
{
    struct bp_reply *reply = &r->reply;
    for (const struct reply_header *h = reply->headers; h; h = h->next)
        MHD_add_response_header(response, h->name, h->value);
    MHD_add_response_header(response, "X-Request-Id", r->id);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (*reply->content_type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->content_type);
    if (reply->close)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
}

enum MHD_Result bp_send(struct bp_request *r)
{
    struct MHD_Response *response = make_response(r);
    if (!response)
        return MHD_NO;
    add_headers(r, response);
    r->status = r->reply.status;
    enum MHD_Result result = MHD_queue_response(r->connection, (unsigned)r->reply.status, response);
    MHD_destroy_response(response); /* the connection holds a reference of its own */
    return result;
}
