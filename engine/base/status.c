/* status.c: filling a bp_error and naming the codes.
 *
 * Text that does not fit is cut, never refused: a message must not be the second thing that fails.
 */
#include "base/status.h"

#undef bp_fail /* see the end of status.h */
#undef bp_fail_at

#include <stdarg.h>
#include <stdio.h>

static const char *const status_names[] = {
    [BP_OK] = "ok",
    [BP_INVALID] = "invalid",
    [BP_NOMEM] = "no_memory",
    [BP_LIMIT] = "limit",
    [BP_NONFINITE] = "nonfinite",
    [BP_CORRUPT] = "corrupt",
    [BP_MISMATCH] = "mismatch",
    [BP_UNSUPPORTED] = "unsupported",
    [BP_IO] = "io",
    [BP_FULL] = "full",
    [BP_NOT_FOUND] = "not_found",
    [BP_CONFLICT] = "conflict",
    [BP_STOPPED] = "stopped",
    [BP_INTERNAL] = "internal",
};

static void fill(struct bp_error *err, bp_status code, const char *where, const char *format, va_list args)
{
    if (!err)
        return;
    /* Both texts are written before either field: a caller may pass err's own message on as an argument. */
    char place[sizeof err->where], text[sizeof err->message];
    snprintf(place, sizeof place, "%s", where);
    vsnprintf(text, sizeof text, format, args);
    err->code = code;
    snprintf(err->where, sizeof err->where, "%s", place);
    snprintf(err->message, sizeof err->message, "%s", text);
}

bp_status bp_fail(struct bp_error *err, bp_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, code, "", format, args);
    va_end(args);
    return code;
}

bp_status bp_fail_at(struct bp_error *err, bp_status code, const char *where, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, code, where ? where : "", format, args);
    va_end(args);
    return code;
}

const char *bp_status_name(bp_status code)
{
    unsigned index = (unsigned)code;
    return index < sizeof status_names / sizeof *status_names ? status_names[index] : "unknown";
}
