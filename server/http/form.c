/* form.c: multipart/form-data, read by libmicrohttpd's post processor.
 *
 * A part with a file name goes into a temporary file, one without into memory. Names are for messages and lookups
 * only; none of them becomes a file name of ours.
 *
 * Threads: the connection's.
 */
#include "http/internal.h"

#include <string.h>

#define FORM_BUFFER 16384 /* bytes of the post processor: part headers must fit, data passes through */

/* Whether this call goes on with the last part. The first call of a part has offset 0, and an empty part may be
 * announced by a call without data. */
static bool goes_on(const struct body *body, const char *field, const char *filename, uint64_t offset)
{
    if (body->nparts == 0)
        return false;
    const struct upload_part *last = body->parts[body->nparts - 1];
    if (offset > 0)
        return true;
    return last->shown.bytes == 0 && !strcmp(last->field, field) && !strcmp(last->filename, filename);
}

static bool is_repeated(const struct body *body, const char *field)
{
    for (int i = 0; i < body->nparts; i++)
        if (!strcmp(body->parts[i]->field, field))
            return true;
    return false;
}

static enum MHD_Result take_piece(void *cls, enum MHD_ValueKind kind, const char *key, const char *filename,
                                  const char *content_type, const char *transfer_encoding, const char *data,
                                  uint64_t offset, size_t size)
{
    struct bp_request *r = cls;
    struct body *body = &r->body;
    (void)kind, (void)content_type, (void)transfer_encoding;
    const char *field = key ? key : "";
    const char *name = filename ? filename : "";
    if (!*field || strlen(field) >= HTTP_FORM_NAME || strlen(name) >= sizeof body->parts[0]->filename ||
        !bp_utf8_valid(field, strlen(field)) || !bp_utf8_valid(name, strlen(name))) {
        bp_body_fail(r, BODY_BAD_FORM);
        return MHD_NO;
    }
    if (!goes_on(body, field, name, offset)) {
        if (body->nparts == HTTP_FORM_PARTS || is_repeated(body, field)) {
            bp_body_fail(r, body->nparts == HTTP_FORM_PARTS ? BODY_FORM_TOO_MANY : BODY_BAD_FORM);
            return MHD_NO;
        }
        if (!bp_body_part(r, field, name, filename != NULL))
            return MHD_NO;
    }
    return bp_part_write(r, body->parts[body->nparts - 1], data, size) ? MHD_YES : MHD_NO;
}

bool bp_form_begin(struct bp_request *r)
{
    r->body.form = MHD_create_post_processor(r->connection, FORM_BUFFER, take_piece, r);
    return r->body.form != NULL;
}

void bp_form_take(struct bp_request *r, const char *data, size_t size)
{
    if (MHD_post_process(r->body.form, data, size) != MHD_YES)
        bp_body_fail(r, BODY_BAD_FORM);
}

void bp_form_end(struct bp_request *r)
{
    /* It says no when the last boundary has not come. */
    if (MHD_destroy_post_processor(r->body.form) != MHD_YES)
        bp_body_fail(r, BODY_BAD_FORM);
    r->body.form = NULL;
    if (r->body.nparts == 0)
        bp_body_fail(r, BODY_BAD_FORM);
}
