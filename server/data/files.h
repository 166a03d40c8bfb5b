/* files.h: files that survive a crash: written aside, synced, renamed, the directory synced.
 *
 * Threads: a writer belongs to its owner; the rest are pure functions of the file system.
 */
#ifndef BP_DATA_FILES_H
#define BP_DATA_FILES_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BP_FILES_PATH 2048 /* a data directory of 1023 bytes, and what we put below it */

/* dir/sub/name+suffix. BP_LIMIT when it does not fit. */
bp_status bp_files_path(char dst[BP_FILES_PATH], const char *dir, const char *sub, const char *name,
                        const char *suffix, struct bp_error *err);

/* 64 lower-case hexadecimal digits: fit to be the name of a file. */
bool bp_files_is_hash(const char *text);

/* BP_FULL where errno says that there is no room, else BP_IO. */
bp_status bp_files_fail(struct bp_error *err, const char *doing);

bp_status bp_files_sync_dir(const char *dir, const char *sub, struct bp_error *err);

/* Has the disk begin to write a file that is written (or read again) from its start on, some megabytes behind: so that
 * syncing it in the end has little left to wait for. */
struct bp_write_back {
    int fd;
    int64_t begun, end; /* bytes */
};
void bp_write_back(struct bp_write_back *back, size_t n); /* n bytes more are there */

struct bp_writer {
    int fd;
    uint8_t *buffer;
    size_t used;
    struct bp_write_back back;
};

/* Creates the file; it must not exist. */
bp_status bp_writer_open(struct bp_writer *writer, const char *path, struct bp_error *err);
bp_status bp_writer_put(struct bp_writer *writer, const void *bytes, size_t n, struct bp_error *err);
/* Puts bytes at the start of the file, over what is there. Only once something was put. */
bp_status bp_writer_head(struct bp_writer *writer, const void *bytes, size_t n, struct bp_error *err);
/* Forgets all that was put. */
bp_status bp_writer_restart(struct bp_writer *writer, struct bp_error *err);
/* Writes out, syncs and closes. */
bp_status bp_writer_finish(struct bp_writer *writer, struct bp_error *err);
/* Closes without a word; the file is the caller's to remove. Fine after finish. */
void bp_writer_done(struct bp_writer *writer);

#endif
