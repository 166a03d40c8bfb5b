/* internal.h: what the files of this folder share. Nobody outside includes it.
 *
 *   server.c     start, drain, stop; the life of a connection
 *   listen.c     the listening socket
 *   connection.c connections: count per address, deadlines, the reaper
 *   dispatch.c   the life of a request: from its headers to its reply
 *   guard.c      what is refused on the headers
 *   target.c     the request target: path and query, decoded strictly
 *   route.c      the route table: matching, 404, 405
 *   body.c       receiving a body: memory, file; form.c: multipart
 *   request.c    what a handler may ask of a request
 *   reply.c      what a handler may say; problem.c: problem+json
 *   send.c       from a reply to a response: ranges, conditions, streams
 *   json.c       strict JSON; accept.c: what the client wants to read
 *   pool.c       threads for handlers that block; wait.c: long polls
 *
 * The life of a request: URI_LOG makes it (target.c), the first callback has its headers (guard, route; refusals are
 * answered here), then its body arrives (body), then its handler runs, here or on a pool while the connection is
 * suspended, then the reply is queued (send), and COMPLETED frees it, whatever happened before.
 */
#ifndef BP_HTTP_INTERNAL_H
#define BP_HTTP_INTERNAL_H

#include "base/clock.h"
#include "http/http.h"

#include <microhttpd.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

/* --- limits ------------------------------------------------------------------------------------------------------ */
#define HTTP_CONNECTIONS 2048          /* open at a time: a few file descriptors each, and 32 KiB of memory */
#define HTTP_PER_ADDRESS 64            /* of them from one address that is not loopback */
#define HTTP_WAITERS 1024              /* long polls at a time: half of the connections stay free for others */
#define HTTP_WAIT_MAX 60.0             /* seconds of one long poll: a gone client is found out at its end */
#define HTTP_IDLE_SECONDS 15           /* silence on a connection */
#define HTTP_DOWNLOAD_IDLE_SECONDS 60  /* silence while a client reads a stream: it may be paused for a moment */
#define HTTP_HEADER_SECONDS 10         /* from the first byte of a request to the end of its headers */
#define HTTP_BODY_GRACE 10             /* seconds before a body must keep to the floor */
#define HTTP_BODY_FLOOR 1024           /* bytes a second that a body must bring */
#define HTTP_BODY_SECONDS 3600         /* for a whole body */
#define HTTP_BODY_DEFAULT (1 << 20)    /* bytes of a body in memory, where the route does not say */
#define HTTP_BODY_TOTAL (512LL << 20)  /* bytes of all bodies in memory */
#define HTTP_FILE_BLOCK (32 << 10)     /* bytes of a file written at a time, see WRITE_BLOCK in data/files.c */
#define HTTP_DRAIN_BYTES (1 << 20)     /* read on from a body that is refused while it arrives, then it is cut off */
#define HTTP_DRAIN_SECONDS 5           /* the same in time */
#define HTTP_SPACE_FLOOR (64LL << 20)  /* bytes that stay free on the disk whatever is uploaded */
#define HTTP_TARGET_MAX 8192           /* bytes of path and query; libmicrohttpd's pool would allow about 32 KiB */
#define HTTP_SEGMENT_MAX 256           /* bytes of one segment of a path: ids and names are shorter */
#define HTTP_SEGMENTS 12               /* of a path: our longest route has fewer */
#define HTTP_QUERY_MAX 32              /* keys of a query */
#define HTTP_ARGS 4                    /* {} of a route */
#define HTTP_FORM_PARTS 16             /* of one multipart body */
#define HTTP_FORM_TEXT (1 << 20)       /* bytes of one text field */
#define HTTP_FORM_NAME 128             /* bytes of a field's name; of a file name 255 */
#define HTTP_STREAM_BLOCK (256 * 1024) /* bytes read at a time for a stream */
#define HTTP_JSON_DEPTH 32             /* nesting; a spec has about 8 */
#define HTTP_JSON_TOKENS 2000000       /* values in one text: rows for predictions have many */
#define HTTP_JSON_MEMBERS 10000        /* of one object: more are an attack on the hash table */
#define HTTP_POOL_THREADS 32
#define HTTP_POOL_QUEUE 512
#define HTTP_DATA_THREADS 2
#define HTTP_DATA_QUEUE 64
#define HTTP_STOP_SECONDS 5 /* for what is in flight when we stop */

/* --- connections (connection.c) ---------------------------------------------------------------------------------- */
enum conn_phase {
    CONN_HEADERS, /* waiting for the headers of a request */
    CONN_BODY,    /* a body is arriving */
    CONN_BUSY     /* a handler runs or a reply is sent: no deadline of ours */
};

struct conn {
    struct conn *prev, *next;
    int fd;
    enum conn_phase phase;
    double since;  /* when the phase began, monotonic seconds */
    double extra;  /* seconds added to the header deadline: a kept-alive connection may be idle first */
    int64_t bytes; /* of the body so far */
    bool cut;      /* shut down by the reaper */
    bool loopback;
    unsigned char address[16]; /* IPv6, or IPv4 as mapped */
};

struct conns {
    pthread_mutex_t lock;
    struct conn *head;
    pthread_t reaper;
    pthread_cond_t wake;
    bool stopping, started;
};

bp_status bp_conns_start(struct conns *conns, struct bp_error *err);
void bp_conns_stop(struct conns *conns);
/* May a connection from this address be accepted? */
bool bp_conns_admit(struct conns *conns, const struct sockaddr *address, socklen_t size);
struct conn *bp_conns_add(struct conns *conns, int fd, const struct sockaddr *address);
void bp_conns_remove(struct conns *conns, struct conn *conn);
void bp_conns_phase(struct conns *conns, struct conn *conn, enum conn_phase phase);
void bp_conns_bytes(struct conns *conns, struct conn *conn, int64_t bytes);

/* --- replies ----------------------------------------------------------------------------------------------------- */
struct reply_header {
    struct reply_header *next;
    char *value; /* points behind the name, in the same block */
    char name[];
};

struct bp_reply {
    int status; /* 0: not set yet */
    struct reply_header *headers;
    char *body; /* malloc'd */
    size_t size;
    char content_type[96];
    json_t *problem; /* under construction; becomes the body in bp_reply_finish */

    bool streaming;
    int64_t stream_size;
    char etag[128];
    bp_reply_read *read;
    void *ctx;
    void (*free_ctx)(void *ctx);

    bool waits; /* bp_reply_wait was called */
    bool close; /* close the connection after this reply */
};

void bp_reply_clear(struct bp_reply *reply);
/* Makes the problem's body, and a 500 where nothing was said. On the handler's thread. */
void bp_reply_finish(struct bp_reply *reply, const struct bp_request *r);
/* Makes the one body of a problem; reply->problem is consumed. */
void bp_problem_finish(struct bp_reply *reply, const struct bp_request *r);
const char *bp_status_title(int status);

/* --- requests ---------------------------------------------------------------------------------------------------- */
enum request_phase { AT_HEADERS, AT_BODY, AT_HANDLER, AT_REPLY, AT_END };

struct query_item {
    char *key, *value;
};

/* What went wrong while a body arrived; the reply has to wait until it is over. */
enum body_fault {
    BODY_FINE,
    BODY_TOO_LARGE,
    BODY_UNWANTED,
    BODY_NO_MEMORY,
    BODY_BUSY, /* HTTP_BODY_TOTAL is used up */
    BODY_DISK_FULL,
    BODY_DISK_FAILED,
    BODY_BAD_FORM,
    BODY_FORM_TOO_MANY,
    BODY_FORM_FIELD_TOO_LARGE
};

struct upload_part {
    struct bp_upload shown;
    char field[HTTP_FORM_NAME];
    char filename[256];
    char *text;
    size_t text_size, text_room;
    char *path;
    int fd; /* -1: closed or none */
    bool taken;
};

struct body {
    int64_t declared; /* Content-Length, or -1 for chunked */
    int64_t limit;
    int64_t received;
    enum body_fault fault;
    int64_t fault_at; /* bytes received when the fault was found */
    double fault_time;
    char *buffer;
    size_t size, room;
    int64_t charged; /* of HTTP_BODY_TOTAL */
    struct upload_part **parts;
    int nparts;
    char *block; /* the end of the last part's file, not written yet */
    size_t block_used, block_room;
    struct MHD_PostProcessor *form;
};

struct bp_request {
    struct bp_http *http;
    struct MHD_Connection *connection;
    struct conn *conn;
    enum request_phase phase;
    bool counted; /* in http->in_flight */
    bool suspended;
    char id[32];
    const char *method;
    char *target; /* raw, as sent */
    bool target_too_long;
    char *path; /* decoded */
    char *segments[HTTP_SEGMENTS];
    int nsegments;
    char *query_text; /* decoded in place; the items point into it */
    struct query_item query[HTTP_QUERY_MAX];
    int nquery;
    const struct bp_route *route;
    const char *args[HTTP_ARGS];
    struct body body;
    struct bp_reply reply;
    double began; /* monotonic */
    int status;   /* sent */

    /* long poll; owned by wait.c while the request is in its table */
    struct bp_request *next; /* in a pool's queue */
    struct bp_request *wait_prev, *wait_next;
    char topic[64];
    int64_t since;
    double deadline; /* 0: never waited */
    uint64_t seen;   /* the table's sequence when the handler began */
    int waited;
    bool slot;               /* counts as a waiter */
    double handler_deadline; /* bp_request_deadline: 0 until asked for */
    char kept[64];
};

/* target.c. False with a problem in r->reply. */
bool bp_target_parse(struct bp_request *r);
bool bp_utf8_valid(const char *text, size_t size);

/* guard.c. False with a problem in r->reply. */
bool bp_guard_framing(struct bp_request *r);
bool bp_guard_origin(struct bp_request *r);
bool bp_guard_token(struct bp_request *r);
bool bp_guard_method(struct bp_request *r);

/* route.c. False with a problem in r->reply. */
bool bp_route_find(struct bp_request *r);
bool bp_route_check_query(struct bp_request *r);

/* body.c */
bool bp_body_begin(struct bp_request *r); /* false with a problem */
/* Takes bytes. False: cut the connection. */
bool bp_body_take(struct bp_request *r, const char *data, size_t size);
bool bp_body_end(struct bp_request *r); /* false with a problem */
void bp_body_done(struct bp_request *r);
void bp_body_fail(struct bp_request *r, enum body_fault fault);
struct upload_part *bp_body_part(struct bp_request *r, const char *field, const char *filename, bool file);
bool bp_part_write(struct bp_request *r, struct upload_part *part, const char *data, size_t size);
/* form.c */
bool bp_form_begin(struct bp_request *r);
void bp_form_take(struct bp_request *r, const char *data, size_t size);
void bp_form_end(struct bp_request *r);

/* dispatch.c: the callbacks of libmicrohttpd */
void *bp_dispatch_target(void *cls, const char *target, struct MHD_Connection *connection);
enum MHD_Result bp_dispatch(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                            const char *version, const char *upload, size_t *upload_size, void **con_cls);
void bp_dispatch_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                           enum MHD_RequestTerminationCode code);
/* A suspended request whose wait is over: runs its handler again on its thread. Any thread. */
void bp_dispatch_again(struct bp_request *r);
/* What a pool's thread does with a request. */
void bp_dispatch_pooled(struct bp_request *r);

/* send.c */
enum MHD_Result bp_send(struct bp_request *r);

/* --- pools (pool.c) ---------------------------------------------------------------------------------------------- */
struct pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct bp_request *head, *tail;
    int queued, max_queued;
    int reserved;
    int idle, threads, max_threads;
    size_t stack;
    const char *name;
    bool stopping, ready;
    pthread_t ids[HTTP_POOL_THREADS];
    void (*run)(struct bp_request *r);
};

bp_status bp_pool_init(struct pool *pool, const char *name, int threads, int queue, size_t stack,
                       void (*run)(struct bp_request *r), struct bp_error *err);
/* Takes a place in the queue: false when it is full, or no thread can be had. */
bool bp_pool_reserve(struct pool *pool);
void bp_pool_submit(struct pool *pool, struct bp_request *r); /* uses a reserved place */
void bp_pool_stop(struct pool *pool); /* runs what is queued, then joins; reserving fails from now on */
void bp_pool_done(struct pool *pool);

/* --- long polls (wait.c) ----------------------------------------------------------------------------------------- */
#define WAIT_BUCKETS 1024 /* of the table of waiters; a power of 2 */
#define WAIT_MARKS 4096   /* last notifications that are remembered; a power of 2 */

struct wait_mark {
    char topic[64];
    int64_t version;   /* highest of this topic since the mark was taken over */
    uint64_t sequence; /* of the last notification that fell on this mark */
};

struct waits {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct bp_request *buckets[WAIT_BUCKETS];
    struct wait_mark *marks;
    uint64_t sequence;
    int slots; /* reserved and waiting */
    double next_deadline;
    pthread_t thread;
    bool stopping, draining, started;
};

bp_status bp_waits_start(struct waits *waits, struct bp_error *err);
uint64_t bp_waits_sequence(struct waits *waits);
bool bp_waits_reserve(struct waits *waits);
void bp_waits_release(struct waits *waits);
/* Puts a suspended request into the table. False: what it waits for has happened (or the server drains); r->waited
 * is set and its handler is to be run again now. True: the request belongs to the table from now on. */
bool bp_waits_add(struct waits *waits, struct bp_request *r);
void bp_waits_notify(struct waits *waits, const char *topic, int64_t version);
void bp_waits_drain(struct waits *waits);
void bp_waits_stop(struct waits *waits); /* after bp_waits_drain: adding fails from then on */
void bp_waits_done(struct waits *waits);

/* --- the server (server.c) --------------------------------------------------------------------------------------- */
struct bp_http {
    struct MHD_Daemon *daemon;
    int listen_fd;
    int port;
    char host[64];
    char **hosts;
    char *tmp_dir;
    bool has_token;
    unsigned char token[SHA256_DIGEST_SIZE];
    int64_t max_upload;
    const struct bp_route *routes;
    void *app;
    struct conns conns;
    struct pool pool, data;
    struct waits waits;
    atomic_bool open, draining, stopping;
    atomic_int in_flight;  /* requests between their headers and the end of their reply */
    atomic_int running;    /* handlers on the event threads */
    atomic_llong buffered; /* bytes of bodies in memory */
};

/* listen.c: a bound, listening socket. */
bp_status bp_listen(const char *host, int port, int *ret_fd, int *ret_port, struct bp_error *err);

#endif
