/* http.h: HTTP as the rest of the daemon sees it: a request, a reply, a table of routes.
 *
 * Everything of libmicrohttpd stays behind this header. A handler is a function from a request to a reply; it is
 * written as straight-line code. Where it runs is a property of its route:
 *   BP_RUN_INLINE  on the connection's thread: must not block; short reads of the store are fine
 *   BP_RUN_POOL    on one of the pool's threads: may wait for a commit (the connection is suspended meanwhile)
 *   BP_RUN_DATA    on one of the few data threads: may take seconds (parsing a dataset, evaluating)
 *
 * The adapter checks everything that can be checked before a body is read: framing, method, path, query keys,
 * Host and Origin, token, length. Errors are application/problem+json everywhere.
 *
 * Threads: a request and its reply belong to the thread that runs the handler.
 */
#ifndef BP_HTTP_HTTP_H
#define BP_HTTP_HTTP_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bp_http;
struct bp_request;
struct bp_reply;

enum bp_run { BP_RUN_INLINE, BP_RUN_POOL, BP_RUN_DATA };

enum bp_body {
    BP_BODY_NONE,     /* a body is refused with 400 unless it is empty */
    BP_BODY_OPTIONAL, /* as BUFFER, may be absent */
    BP_BODY_BUFFER,   /* collected in memory, up to max_body */
    BP_BODY_FILE,     /* streamed into a temporary file (PUT of a dataset) */
    BP_BODY_FORM /* multipart/form-data, parts streamed into temporary files; other bodies as BUFFER, up to 1 MiB */
};

typedef void bp_handler(struct bp_request *request, struct bp_reply *reply, void *app);

struct bp_route {
    const char *method; /* "GET" also answers HEAD */
    const char *path;   /* "/v1/jobs/{}/metrics": {} takes one segment */
    bp_handler *handler;
    enum bp_run run;
    enum bp_body body;
    int64_t max_body;  /* bytes; 0: 1 MiB, or max_upload where it is streamed. A FORM's other bodies: 1 MiB */
    const char *query; /* allowed query keys, separated by spaces: "limit after"; a key "tag." allows tag.* */
    const char *help;  /* one line for the guide and for 404s */
};

/* --- the request ------------------------------------------------------------------------------------------------ */
const char *bp_request_method(const struct bp_request *r);
const char *bp_request_path(const struct bp_request *r);                   /* decoded, without query */
const char *bp_request_arg(const struct bp_request *r, int i);             /* i-th {} of the route */
const char *bp_request_query(const struct bp_request *r, const char *key); /* value or NULL */
/* i-th query key and value in order; false past the end. */
bool bp_request_query_at(const struct bp_request *r, int i, const char **ret_key, const char **ret_value);
const char *bp_request_header(const struct bp_request *r, const char *name); /* value or NULL */
const char *bp_request_id(const struct bp_request *r);                       /* "req_…" */
/* The body as bytes (BUFFER, OPTIONAL): never NULL, terminated with a NUL that is not counted. */
const char *bp_request_body(const struct bp_request *r, size_t *ret_size);

/* True once the server is stopping and will not wait any longer: a handler that takes seconds asks now and then, and
 * gives up. */
bool bp_request_cancelled(const struct bp_request *r);

/* A streamed body, or a part of a form. The file is deleted with the request unless it was taken. */
struct bp_upload {
    const char *field;    /* form field; "" for a whole body */
    const char *filename; /* as the client says, for messages only; "" for none */
    const char *path;     /* temporary file; NULL for a small text field, whose value is in `text` */
    const char *text;     /* value of a field without file name, terminated */
    int64_t bytes;
};
int bp_request_uploads(const struct bp_request *r);
const struct bp_upload *bp_request_upload(const struct bp_request *r, int i);
const struct bp_upload *bp_request_field(const struct bp_request *r, const char *field); /* or NULL */
/* The contents of a small part (at most 1 MiB) as text, from memory or from its file: malloc'd, or NULL. */
char *bp_upload_text(const struct bp_upload *upload);
/* Moves the temporary file's ownership to the caller: it is no longer deleted. Returns the path, malloc'd, or NULL. */
char *bp_request_upload_steal(struct bp_request *r, const struct bp_upload *upload);

/* A query value as an integer in [min, max]: the default where absent; false, with a 400 reply that names the range,
 * where it is not. The same for numbers and booleans ("true", "false", "1", "0", "" = true). */
bool bp_request_query_int(const struct bp_request *r, struct bp_reply *reply, const char *key, int64_t fallback,
                          int64_t min, int64_t max, int64_t *ret);
bool bp_request_query_bool(const struct bp_request *r, struct bp_reply *reply, const char *key, bool fallback,
                           bool *ret);

/* Parses the body as one JSON object (BP_JSON_OBJECT) or any object or array: strict, depth at most 32, no
 * duplicate keys. NULL with a 400 (line and column) or 422 reply. The caller decrefs. */
enum bp_json_want { BP_JSON_OBJECT, BP_JSON_ANY };
json_t *bp_request_json(const struct bp_request *r, struct bp_reply *reply, enum bp_json_want want);
/* The same for any text, e.g. a form field; `what` names it in messages. */
json_t *bp_json_parse(const char *text, size_t size, const char *what, enum bp_json_want want,
                      struct bp_reply *reply);

/* What the client wants to read: ?render= first, then Accept; json by default. */
enum bp_render { BP_RENDER_JSON, BP_RENDER_TEXT, BP_RENDER_CSV, BP_RENDER_NDJSON };
/* allowed: bit set of 1 << enum bp_render. False, with a 406 (or 400 for a bad ?render=) reply. */
bool bp_request_render(const struct bp_request *r, struct bp_reply *reply, unsigned allowed, enum bp_render *ret);

/* --- the reply -------------------------------------------------------------------------------------------------- */
void bp_reply_header(struct bp_reply *reply, const char *name, const char *format, ...) BP_PRINTF(3, 4);
/* JSON; takes the reference. NULL gives a 500 (out of memory). */
void bp_reply_json(struct bp_reply *reply, int status, json_t *json_steal);
/* Text or bytes; takes the malloc'd body. */
void bp_reply_bytes(struct bp_reply *reply, int status, const char *content_type, char *body_steal, size_t size);
void bp_reply_text(struct bp_reply *reply, int status, const char *format, ...) BP_PRINTF(3, 4);
void bp_reply_empty(struct bp_reply *reply, int status);

/* A body of known size that is produced piece by piece: read fills at most max bytes from offset and returns how
 * many, or -1 (the connection is then broken off). Range, If-Range, If-None-Match and HEAD are handled by the
 * adapter with `etag` (strong, with quotes; may be NULL). free_ctx is called at the end in any case. */
typedef int64_t bp_reply_read(void *ctx, int64_t offset, char *buffer, size_t max);
void bp_reply_stream(struct bp_reply *reply, const char *content_type, int64_t size, const char *etag,
                     bp_reply_read *read, void *ctx, void (*free_ctx)(void *ctx));

/* If the request's If-None-Match names etag: replies 304 and returns true. */
bool bp_reply_not_modified(const struct bp_request *r, struct bp_reply *reply, const char *etag);

/* Long poll: the connection is put aside and the handler is called again (on the route's thread) when
 * bp_http_notify(topic) is called with a number above `since`, or the time is up (bp_request_waited then says so).
 * False when there are too many waiters: nothing is replied yet. Not from within BP_RUN_DATA. */
bool bp_reply_wait(struct bp_request *r, struct bp_reply *reply, const char *topic, int64_t since, double seconds);
/* 0: not waited yet; 1: woken by a notification; 2: the time is up. */
int bp_request_waited(const struct bp_request *r);
/* A note that a handler leaves for its own later calls after bp_reply_wait (at most 63 characters; "" at first). */
void bp_request_keep(struct bp_request *r, const char *note);
const char *bp_request_kept(const struct bp_request *r);
/* Steady seconds until which this request waits: `first` the first time, then what it was then. */
double bp_request_deadline(struct bp_request *r, double first);
/* Any thread: wakes the waiters of a topic (a job id) whose `since` is below version. */
void bp_http_notify(struct bp_http *http, const char *topic, int64_t version);

/* --- problems (RFC 9457) ---------------------------------------------------------------------------------------- */
/* code is stable, lower_snake; type is /problems/<code>. */
void bp_problem(struct bp_reply *reply, int status, const char *code, const char *format, ...) BP_PRINTF(4, 5);
/* Adds an entry to the reply's errors: pointer (RFC 6901), code, detail, and what is not NULL of suggestion and
 * allowed (JSON array, taken). Call after bp_problem. */
void bp_problem_at(struct bp_reply *reply, const char *pointer, const char *code, const char *suggestion,
                   json_t *allowed_steal, const char *format, ...) BP_PRINTF(6, 7);
/* A member of the problem object ("limit", "status", "allowed"); takes the value. */
void bp_problem_member(struct bp_reply *reply, const char *name, json_t *value_steal);
/* The problem that a bp_error amounts to: INVALID, LIMIT, UNSUPPORTED, CORRUPT 422, NOT_FOUND 404, CONFLICT 409,
 * FULL 507, NOMEM 503, IO 503, others 500 (without details). */
void bp_problem_error(struct bp_reply *reply, const struct bp_error *err);
bool bp_reply_is_set(const struct bp_reply *reply);

/* --- the listener ----------------------------------------------------------------------------------------------- */
struct bp_http_options {
    const char *host;              /* "127.0.0.1", "::1", … */
    int port;                      /* 0 picks a free one */
    const char *token_sha256;      /* hex of the bearer token's hash, or NULL for none */
    const char *const *hosts;      /* further names that Host may carry, NULL-terminated, or NULL */
    const char *tmp_dir;           /* for streamed bodies, on the same file system as the data */
    int64_t max_upload;            /* bytes of one streamed body */
    const struct bp_route *routes; /* ends with a NULL method */
    void *app;                     /* handed to the handlers */
    bool gated;                    /* answers 503 to everything until bp_http_open */
};
bp_status bp_http_start(const struct bp_http_options *options, struct bp_http **ret, struct bp_error *err);
int bp_http_port(const struct bp_http *http);
/* Opens the gate of a gated server: what the handlers need is there now. */
void bp_http_open(struct bp_http *http);
/* Draining: new requests other than GET get 503; waiters are woken. */
void bp_http_drain(struct bp_http *http);
/* Drains, answers what is in flight (up to 5 s) and shuts the gate. When it returns no handler runs and none will, so
 * what they need can be taken away; bp_http_notify may still be called. */
void bp_http_close(struct bp_http *http);
/* Closes, where that has not been done, then stops and frees. */
void bp_http_stop(struct bp_http *http);

#endif
