/* status.h: how every function of backpropd reports failure.
 *
 * A function that can fail returns a bp_status and, where words help, takes a `struct bp_error *` last and fills
 * it on failure. The library never logs, prints or exits: the caller decides what a failure means. Output
 * parameters named `ret_…` are set on success only. `err` may be NULL where the caller wants the code alone.
 *
 * Threads: no shared state; each caller brings its own bp_error.
 */
#ifndef BP_BASE_STATUS_H
#define BP_BASE_STATUS_H

typedef enum bp_status {
    BP_OK = 0,
    BP_INVALID,     /* an argument or a description is wrong; the message names the place and the fix */
    BP_NOMEM,       /* an allocation failed */
    BP_LIMIT,       /* a size is over a limit, or would overflow */
    BP_NONFINITE,   /* a loss or a gradient is not a finite number */
    BP_CORRUPT,     /* stored bytes are damaged: a length, a magic number or a hash is wrong */
    BP_MISMATCH,    /* stored bytes are sound, but belong to another model, dataset or version */
    BP_UNSUPPORTED, /* known, but not there in this build or on this CPU */
    BP_IO,          /* a read, write or sync failed */
    BP_FULL,        /* no space left on the device */
    BP_NOT_FOUND,   /* what was asked for does not exist */
    BP_CONFLICT,    /* the state of the thing does not allow this now */
    BP_STOPPED,     /* ended early because somebody asked for it */
    BP_INTERNAL     /* a fault of ours */
} bp_status;

struct bp_error {
    bp_status code;
    char where[160];   /* the place: a layer, a column, a JSON pointer; "" where there is none */
    char message[480]; /* one sentence, no final newline */
};

#define BP_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Fills *err (when not NULL) with code and the formatted message, an empty place, and returns code:
 * `return bp_fail(err, BP_INVALID, "rate must be below 1, got %g", rate);` */
bp_status bp_fail(struct bp_error *err, bp_status code, const char *format, ...) BP_PRINTF(3, 4);

/* The same with a place. */
bp_status bp_fail_at(struct bp_error *err, bp_status code, const char *where, const char *format, ...)
    BP_PRINTF(4, 5);

#ifdef __clang_analyzer__ /* what the static analyzer cannot see from here: they return the code that they are given */
#define bp_fail(err, code, ...) ((bp_fail)(err, code, __VA_ARGS__), (code))
#define bp_fail_at(err, code, ...) ((bp_fail_at)(err, code, __VA_ARGS__), (code))
#endif

/* A stable lower-case word for a code ("invalid", "no_memory", …); never NULL. */
const char *bp_status_name(bp_status code);

#endif
