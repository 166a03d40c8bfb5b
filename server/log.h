/* log.h: one line a happening, on stderr: logfmt text for people, or JSON.
 *
 *   2026-03-01T12:00:00.123Z info job started job=job_01… threads=2
 *
 * Threads: any. Control characters in values are escaped.
 */
#ifndef BP_SERVER_LOG_H
#define BP_SERVER_LOG_H

#include <stdbool.h>

enum bp_log_level { BP_LOG_DEBUG, BP_LOG_INFO, BP_LOG_WARN, BP_LOG_ERROR };

void bp_log_setup(bool json, enum bp_log_level lowest);

/* Whether a line of this level would be written: to spare the making of its values. */
bool bp_log_wanted(enum bp_log_level level);

/* message, then pairs of key and value (both const char *), ended by NULL:
 *   bp_log(BP_LOG_INFO, "job started", "job", id, "threads", text, NULL); */
void bp_log(enum bp_log_level level, const char *message, ...) __attribute__((sentinel));

#endif
