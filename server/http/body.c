/* body.c: receiving a body: into memory, or into a temporary file.
 *
 * All that can be refused is refused before the first byte. What goes wrong later (a chunked body over its limit, a
 * full disk) is remembered; the rest of the body is read and dropped up to a bound, so that the client gets to see the
 * answer, and beyond it the connection is cut.
 *
 * Memory grows with the bytes that arrived, never with what a header promised (but for one block of a file), and the
 * bodies of all requests together have a limit. Temporary files are 0600, named by us, and deleted with the request unless a handler took
 * them.
 *
 * Threads: the connection's; the handler reads afterwards.
 */
#include "http/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The answer to each fault. */
static const struct {
    int status;
    const char *code, *detail;
} faults[] = {
    [BODY_TOO_LARGE] = {413, "body_too_large", "the body is larger than this takes"},
    [BODY_UNWANTED] = {400, "body_unexpected", "this takes no body"},
    [BODY_NO_MEMORY] = {503, "out_of_memory", "out of memory; try again in a moment"},
    [BODY_BUSY] = {503, "overloaded", "too many bodies are being received; try again in a moment"},
    [BODY_DISK_FULL] = {507, "disk_full", "the disk is full; nothing was stored. Free some space and send it again"},
    [BODY_DISK_FAILED] = {503, "disk_failed", "a file could not be written; nothing was stored"},
    [BODY_BAD_FORM] = {400, "bad_form",
                       "the body is not multipart/form-data as its Content-Type says: a boundary "
                       "is missing, or a field has no name or comes twice"},
    [BODY_FORM_TOO_MANY] = {400, "bad_form", "the form has more than 16 fields"},
    [BODY_FORM_FIELD_TOO_LARGE] = {413, "body_too_large",
                                   "a text field is larger than 1 MiB; send it as a file "
                                   "(curl -F field=@file)"},
};

void bp_body_fail(struct bp_request *r, enum body_fault fault)
{
    if (r->body.fault != BODY_FINE)
        return;
    r->body.fault = fault;
    r->body.fault_at = r->body.received;
    r->body.fault_time = bp_clock();
}

static bool refuse(struct bp_request *r)
{
    enum body_fault fault = r->body.fault;
    bp_problem(&r->reply, faults[fault].status, faults[fault].code, "%s", faults[fault].detail);
    if (fault == BODY_TOO_LARGE)
        bp_problem_member(&r->reply, "limit", json_integer(r->body.limit));
    if (faults[fault].status == 503)
        bp_reply_header(&r->reply, MHD_HTTP_HEADER_RETRY_AFTER, "2");
    r->reply.close = true;
    return false;
}

static bool is_multipart(const struct bp_request *r)
{
    const char *type = bp_request_header(r, MHD_HTTP_HEADER_CONTENT_TYPE);
    return type && !strncasecmp(type, "multipart/form-data", 19);
}

/* A streamed body is bounded by its route and by --max-upload; one in memory by its route, except that the limit of a
 * form's route is that of its form. */
static int64_t limit_of(const struct bp_request *r, bool streamed)
{
    int64_t own = r->route->max_body, most = r->http->max_upload;
    if (streamed)
        return own > 0 && own < most ? own : most;
    return own > 0 && r->route->body != BP_BODY_FORM ? own : HTTP_BODY_DEFAULT;
}

static bool has_space(const struct bp_request *r)
{
    struct statvfs fs;
    if (statvfs(r->http->tmp_dir, &fs))
        return true; /* the write will tell */
    int64_t declared = r->body.declared > 0 ? r->body.declared : 0;
    return (int64_t)fs.f_bavail * (int64_t)fs.f_frsize - HTTP_SPACE_FLOOR >= declared;
}

bool bp_body_begin(struct bp_request *r)
{
    struct body *body = &r->body;
    bool form = r->route->body == BP_BODY_FORM && is_multipart(r);
    bool streamed = form || r->route->body == BP_BODY_FILE;
    body->limit = limit_of(r, streamed);
    if (r->route->body == BP_BODY_NONE && body->declared != 0)
        bp_body_fail(r, BODY_UNWANTED);
    else if (body->declared > body->limit)
        bp_body_fail(r, BODY_TOO_LARGE);
    else if (streamed && !has_space(r))
        bp_body_fail(r, BODY_DISK_FULL);
    else if (form && !bp_form_begin(r))
        bp_body_fail(r, BODY_BAD_FORM);
    else if (r->route->body == BP_BODY_FILE)
        bp_body_part(r, "", "", true);
    return body->fault == BODY_FINE || refuse(r);
}

/* Reserves n bytes of what all bodies in memory may have. */
static bool charge(struct bp_request *r, int64_t n)
{
    if (atomic_fetch_add(&r->http->buffered, n) + n > HTTP_BODY_TOTAL) {
        atomic_fetch_sub(&r->http->buffered, n);
        bp_body_fail(r, BODY_BUSY);
        return false;
    }
    r->body.charged += n;
    return true;
}

/* Appends to a growing, terminated buffer. */
static bool append(struct bp_request *r, char **buffer, size_t *used, size_t *room, const char *data, size_t size)
{
    if (*used + size + 1 > *room) {
        size_t wanted = *room ? *room * 2 : 4096;
        while (wanted < *used + size + 1)
            wanted *= 2;
        if (!charge(r, (int64_t)(wanted - *room)))
            return false;
        char *grown = realloc(*buffer, wanted);
        if (!grown) {
            bp_body_fail(r, BODY_NO_MEMORY);
            return false;
        }
        *buffer = grown;
        *room = wanted;
    }
    memcpy(*buffer + *used, data, size);
    *used += size;
    (*buffer)[*used] = '\0';
    return true;
}

static bool write_out(struct bp_request *r, struct upload_part *part, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(part->fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            bool full = n == 0 || errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
            bp_body_fail(r, full ? BODY_DISK_FULL : BODY_DISK_FAILED);
            return false;
        }
        data += n;
        size -= (size_t)n;
    }
    return true;
}

/* Writes what is still in memory of the last part's file. */
static bool flush(struct bp_request *r)
{
    struct body *body = &r->body;
    size_t size = body->block_used;
    body->block_used = 0;
    return size == 0 || write_out(r, body->parts[body->nparts - 1], body->block, size);
}

static bool make_block(struct bp_request *r)
{
    struct body *body = &r->body;
    size_t room = body->declared > 0 && body->declared < HTTP_FILE_BLOCK ? (size_t)body->declared : HTTP_FILE_BLOCK;
    if (!charge(r, (int64_t)room))
        return false;
    body->block = malloc(room);
    body->block_room = room;
    if (!body->block)
        bp_body_fail(r, BODY_NO_MEMORY);
    return body->block != NULL;
}

/* Collects the pieces that arrive, some kilobytes each, to blocks that are worth a write. */
static bool write_file(struct bp_request *r, const char *data, size_t size)
{
    struct body *body = &r->body;
    if (!body->block && !make_block(r))
        return false;
    while (size > 0) {
        size_t n = body->block_room - body->block_used < size ? body->block_room - body->block_used : size;
        memcpy(body->block + body->block_used, data, n);
        body->block_used += n;
        data += n;
        size -= n;
        if (body->block_used == body->block_room && !flush(r))
            return false;
    }
    return true;
}

/* Adds a part: a temporary file, or a text. NULL with a fault. */
struct upload_part *bp_body_part(struct bp_request *r, const char *field, const char *filename, bool file)
{
    struct body *body = &r->body;
    if (!flush(r))
        return NULL;
    if (!body->parts)
        body->parts = calloc(HTTP_FORM_PARTS, sizeof *body->parts);
    struct upload_part *part = body->parts ? calloc(1, sizeof *part) : NULL;
    if (!part) {
        bp_body_fail(r, BODY_NO_MEMORY);
        return NULL;
    }
    part->fd = -1;
    snprintf(part->field, sizeof part->field, "%s", field);
    snprintf(part->filename, sizeof part->filename, "%s", filename);
    part->shown.field = part->field;
    part->shown.filename = part->filename;
    body->parts[body->nparts++] = part;
    if (!file) {
        append(r, &part->text, &part->text_size, &part->text_room, "", 0);
        return part;
    }
    if (asprintf(&part->path, "%s/%s-%d.part", r->http->tmp_dir, r->id, body->nparts) < 0) {
        part->path = NULL;
        bp_body_fail(r, BODY_NO_MEMORY);
        return NULL;
    }
    part->fd = open(part->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (part->fd < 0) {
        bp_body_fail(r, errno == ENOSPC || errno == EDQUOT ? BODY_DISK_FULL : BODY_DISK_FAILED);
        return NULL;
    }
    return part;
}

bool bp_part_write(struct bp_request *r, struct upload_part *part, const char *data, size_t size)
{
    if (part->path) {
        if (!write_file(r, data, size))
            return false;
    } else {
        if (part->text_size + size > HTTP_FORM_TEXT) {
            bp_body_fail(r, BODY_FORM_FIELD_TOO_LARGE);
            return false;
        }
        if (!append(r, &part->text, &part->text_size, &part->text_room, data, size))
            return false;
    }
    part->shown.bytes += (int64_t)size;
    return true;
}

static void drop_files(struct body *body)
{
    for (int i = 0; i < body->nparts; i++) {
        struct upload_part *part = body->parts[i];
        if (part->fd >= 0)
            close(part->fd);
        part->fd = -1;
        if (part->path && !part->taken)
            unlink(part->path);
    }
}

bool bp_body_take(struct bp_request *r, const char *data, size_t size)
{
    struct body *body = &r->body;
    body->received += (int64_t)size;
    if (body->fault == BODY_FINE && body->received > body->limit)
        bp_body_fail(r, BODY_TOO_LARGE);
    if (body->fault == BODY_FINE) {
        if (body->form)
            bp_form_take(r, data, size);
        else if (r->route->body == BP_BODY_FILE)
            bp_part_write(r, body->parts[0], data, size);
        else
            append(r, &body->buffer, &body->size, &body->room, data, size);
    }
    if (body->fault == BODY_FINE)
        return true;
    drop_files(body); /* a refused upload gives its space back at once */
    return body->received - body->fault_at <= HTTP_DRAIN_BYTES && bp_clock() - body->fault_time <= HTTP_DRAIN_SECONDS;
}

/* Makes the parts ready to be shown to a handler. */
static void finish_parts(struct bp_request *r)
{
    for (int i = 0; i < r->body.nparts; i++) {
        struct upload_part *part = r->body.parts[i];
        if (part->fd >= 0 && close(part->fd)) /* a network file system tells of a full disk here */
            bp_body_fail(r, errno == ENOSPC || errno == EDQUOT ? BODY_DISK_FULL : BODY_DISK_FAILED);
        part->fd = -1;
        part->shown.path = part->path;
        part->shown.text = part->text;
    }
}

bool bp_body_end(struct bp_request *r)
{
    if (r->body.form)
        bp_form_end(r);
    if (r->body.fault == BODY_FINE && flush(r))
        finish_parts(r);
    return r->body.fault == BODY_FINE || refuse(r);
}

void bp_body_done(struct bp_request *r)
{
    struct body *body = &r->body;
    if (body->form)
        MHD_destroy_post_processor(body->form);
    body->form = NULL;
    drop_files(body);
    for (int i = 0; i < body->nparts; i++) {
        free(body->parts[i]->path);
        free(body->parts[i]->text);
        free(body->parts[i]);
    }
    free(body->parts);
    free(body->block);
    free(body->buffer);
    atomic_fetch_sub(&r->http->buffered, body->charged);
    *body = (struct body){0};
}
