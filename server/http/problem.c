/* problem.c: errors as RFC 9457 has them, built member by member and finished when the reply is sent.
 *
 * Refuses: texts of other libraries, SQL, paths of the server. What bp_problem_error passes on are messages that were
 * written for users; those of internal faults stay inside.
 *
 * Threads: the one that runs the handler.
 */
#include "http/internal.h"

#include "log.h"
#include "problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DETAIL_MAX 1024

const char *bp_status_title(int status)
{
    return MHD_get_reason_phrase_for((unsigned)status);
}

/* A JSON string of any bytes: what is not UTF-8 is shown as '?'. */
static json_t *safe_string(char *text)
{
    json_t *string = json_string(text);
    if (string)
        return string;
    for (char *p = text; *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    return json_string(text);
}

void bp_problem(struct bp_reply *reply, int status, const char *code, const char *format, ...)
{
    char detail[DETAIL_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    bp_reply_empty(reply, status);
    reply->problem = json_object();
    json_object_set_new(reply->problem, "type", json_sprintf("/problems/%s", code));
    json_object_set_new(reply->problem, "title", json_string(bp_status_title(status)));
    json_object_set_new(reply->problem, "status", json_integer(status));
    json_object_set_new(reply->problem, "code", json_string(code));
    json_object_set_new(reply->problem, "detail", safe_string(detail));
}

void bp_problem_at(struct bp_reply *reply, const char *pointer, const char *code, const char *suggestion,
                   json_t *allowed_steal, const char *format, ...)
{
    char detail[DETAIL_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);

    json_t *errors = json_object_get(reply->problem, "errors");
    struct bp_problems list = {.errors = errors ? json_incref(errors) : NULL};
    bp_problems_add(&list, pointer, code, suggestion, allowed_steal, "%s", detail);
    if (!errors && list.errors)
        json_object_set(reply->problem, "errors", list.errors);
    bp_problems_done(&list);
}

void bp_problem_member(struct bp_reply *reply, const char *name, json_t *value_steal)
{
    if (reply->problem)
        json_object_set_new(reply->problem, name, value_steal);
    else
        json_decref(value_steal);
}

/* What a status of the engine or the store means to a client. */
static const struct {
    bp_status code;
    int status;
    const char *name;
} meanings[] = {
    {BP_INVALID, 422, "invalid"},     {BP_LIMIT, 422, "limit_exceeded"}, {BP_UNSUPPORTED, 422, "unsupported"},
    {BP_CORRUPT, 422, "corrupt"},     {BP_MISMATCH, 422, "mismatch"},    {BP_NONFINITE, 422, "nonfinite"},
    {BP_NOT_FOUND, 404, "not_found"}, {BP_CONFLICT, 409, "conflict"},    {BP_FULL, 507, "disk_full"},
    {BP_NOMEM, 503, "out_of_memory"}, {BP_IO, 503, "disk_failed"},       {BP_STOPPED, 503, "shutting_down"},
};

void bp_problem_error(struct bp_reply *reply, const struct bp_error *err)
{
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        if (meanings[i].code != err->code)
            continue;
        const char *name = meanings[i].name;
        if (meanings[i].status == 503) { /* the cause is a matter of the server's log */
            bp_log(BP_LOG_ERROR, "request failed", "code", bp_status_name(err->code), "message", err->message, NULL);
            bp_problem(reply, 503, name, "%s",
                       err->code == BP_IO      ? "the disk does not work as it should; see the server's log"
                       : err->code == BP_NOMEM ? "not enough memory just now; try again in a moment"
                                               : "the server is being stopped; try again in a moment");
            bp_reply_header(reply, MHD_HTTP_HEADER_RETRY_AFTER, "5");
            return;
        }
        bp_problem(reply, meanings[i].status, name, "%s", err->message);
        if (err->where[0])
            bp_problem_member(reply, "where", json_string(err->where));
        return;
    }
    bp_log(BP_LOG_ERROR, "internal fault", "code", bp_status_name(err->code), "message", err->message, NULL);
    bp_problem(reply, 500, "internal", "a fault of ours; the request's id helps to find it in the server's log");
}

void bp_problem_finish(struct bp_reply *reply, const struct bp_request *r)
{
    json_object_set_new(reply->problem, "request_id", json_string(r->id));
    /* Clients of the Open Inference Protocol look for "error". */
    bool v2 = r->nsegments > 0 && !strcmp(r->segments[0], "v2");
    json_t *detail = json_object_get(reply->problem, "detail");
    if (v2 && detail)
        json_object_set(reply->problem, "error", detail);
}
