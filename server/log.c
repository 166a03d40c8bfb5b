/* log.c: one line a happening, written to stderr in one call.
 *
 * A line is built in a buffer of fixed size and handed to the kernel as a whole, so that lines of several threads
 * never mix and a logger never waits for memory. What does not fit is cut and marked with "…": a log line is
 * for orientation, the whole story is in the store.
 *
 * Refuses: secrets. Callers pass ids and counts, never tokens, bodies or header values other than those of the
 * request line.
 *
 * Threads: any. The two settings are atomic; they are made once, at start.
 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048 /* of a whole line; longer than PIPE_BUF/2, shorter than any terminal's patience */
#define VALUE_MAX_BYTES 480 /* of one value: an error message of bp_error fits, a body does not */

static atomic_bool g_json;
static atomic_int g_lowest = BP_LOG_INFO;

static const char *const g_level_names[] = {"debug", "info", "warn", "error"};

struct line {
    char text[LINE_MAX_BYTES];
    size_t used;
};

void bp_log_setup(bool json, enum bp_log_level lowest)
{
    atomic_store(&g_json, json);
    atomic_store(&g_lowest, (int)lowest);
}

/* Appends bytes while three are left for the end of the line ("}", newline) and one for good measure. */
static void put(struct line *line, const char *bytes, size_t n)
{
    size_t room = sizeof line->text - 4 - line->used;
    if (n > room)
        n = room;
    memcpy(line->text + line->used, bytes, n);
    line->used += n;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* Length of the UTF-8 sequence at p, or 0 where the bytes are not UTF-8: a log must stay readable by any tool. */
static size_t utf8_length(const unsigned char *p)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (p[0] >= 0x80 && p[0] < 0xc2)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* U+0080 to U+009F are control characters too, and some terminals obey them. */
    return n == 2 && p[0] == 0xc2 && p[1] < 0xa0 ? 0 : n;
}

/* Appends text with control characters and stray bytes escaped, as JSON has them; quotes and backslashes too where
 * the text stands in quotes. */
static void put_escaped(struct line *line, const char *text, bool quoted)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t taken = 0;
    while (*p && taken < VALUE_MAX_BYTES) {
        size_t n = utf8_length(p);
        char escape[8];
        if (n == 1 && (*p < 0x20 || *p == 0x7f)) {
            snprintf(escape, sizeof escape, "\\u%04x", *p);
            put_text(line, escape);
        } else if (n == 1 && quoted && (*p == '"' || *p == '\\')) {
            snprintf(escape, sizeof escape, "\\%c", *p);
            put_text(line, escape);
        } else if (n == 0) {
            put_text(line, "\\ufffd");
            n = 1;
        } else {
            put(line, (const char *)p, n);
        }
        p += n;
        taken += n;
    }
    if (*p)
        put_text(line, "…");
}

static void put_quoted(struct line *line, const char *text)
{
    put_text(line, "\"");
    put_escaped(line, text, true);
    put_text(line, "\"");
}

/* Whether logfmt can show the value without quotes. */
static bool is_plain(const char *value)
{
    if (!*value)
        return false;
    for (const unsigned char *p = (const unsigned char *)value; *p; p++)
        if (*p <= ' ' || *p >= 0x7f || *p == '"' || *p == '\\' || *p == '=')
            return false;
    return true;
}

static void put_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    char text[64];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900, utc.tm_mon + 1,
             utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, (int)(now.tv_nsec / 1000000));
    put_text(line, text);
}

static void put_pair(struct line *line, bool json, const char *key, const char *value)
{
    if (json) {
        put_text(line, ",");
        put_quoted(line, key);
        put_text(line, ":");
        put_quoted(line, value);
        return;
    }
    put_text(line, " ");
    put_text(line, key);
    put_text(line, "=");
    if (is_plain(value))
        put(line, value, strnlen(value, VALUE_MAX_BYTES));
    else
        put_quoted(line, value);
}

static void put_head(struct line *line, bool json, enum bp_log_level level, const char *message)
{
    if (json) {
        put_text(line, "{\"time\":\"");
        put_time(line);
        put_text(line, "\",\"level\":\"");
        put_text(line, g_level_names[level]);
        put_text(line, "\",\"message\":");
        put_quoted(line, message);
        return;
    }
    put_time(line);
    put_text(line, " ");
    put_text(line, g_level_names[level]);
    put_text(line, " ");
    put_escaped(line, message, false);
}

/* A pair that would not fit is left out whole: half an escape would spoil the line for machines. */
static size_t pair_bound(const char *key, const char *value)
{
    return strnlen(key, 64) + 6 * strnlen(value, VALUE_MAX_BYTES) + 16;
}

bool bp_log_wanted(enum bp_log_level level)
{
    return (int)level >= atomic_load_explicit(&g_lowest, memory_order_relaxed) && level <= BP_LOG_ERROR;
}

void bp_log(enum bp_log_level level, const char *message, ...)
{
    if (!bp_log_wanted(level))
        return;
    bool json = atomic_load(&g_json);
    struct line line = {.used = 0};
    put_head(&line, json, level, message);

    va_list args;
    va_start(args, message);
    for (const char *key = va_arg(args, const char *); key; key = va_arg(args, const char *)) {
        const char *value = va_arg(args, const char *);
        if (!value)
            value = "";
        if (pair_bound(key, value) + 4 > sizeof line.text - line.used)
            continue;
        put_pair(&line, json, key, value);
    }
    va_end(args);

    if (json)
        line.text[line.used++] = '}';
    line.text[line.used++] = '\n';

    int saved = errno; /* logging about a failure must not change what the caller sees of it */
    size_t done = 0;
    while (done < line.used) {
        ssize_t n = write(STDERR_FILENO, line.text + done, line.used - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* nobody to tell */
        done += (size_t)n;
    }
    errno = saved;
}
