/* store_log.c: room for the write-ahead log before it is needed.
 *
 * A commit that lengthens the log's file takes nearly twice as long as one that overwrites it, because the file system has
 * then to sync what it knows of the file too. SQLite lengthens the file page by page until it starts over at BP_WAL_PAGES:
 * the first some hundred commits of each run. So the file gets its length at once. Zeros are no frames of a log, neither
 * for SQLite's recovery nor for its readers, who take the log's end from its index.
 * Threads: the store's own.
 */
#include "store/store_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_BYTES (32 + (off_t)BP_WAL_PAGES * (24 + BP_PAGE_SIZE)) /* a header; pages with a header each */
#define BLOCK (256 << 10)

/* Never touches what is there. A disk that fills up meanwhile is no fault: the log then grows as it always does. */
static void lengthen(const char *path)
{
    struct stat st;
    char *zeros = calloc(1, BLOCK);
    int fd = zeros ? open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size < LOG_BYTES) {
        off_t at = st.st_size;
        ssize_t n = 1;
        for (; n > 0 && at < LOG_BYTES; at += n)
            n = pwrite(fd, zeros, LOG_BYTES - at < BLOCK ? (size_t)(LOG_BYTES - at) : BLOCK, at);
        fdatasync(fd); /* or the first commit would have to wait for it */
    }
    if (fd >= 0)
        close(fd); /* SQLite locks its other files: no lock is lost by this */
    free(zeros);
}

void bp_log_make_room(struct bp_store *store)
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s-wal", store->path);
    if (!bp_ballast_take(store, LOG_BYTES))
        return;
    /* In a transaction, which keeps any other process from writing to the log. */
    if (bp_db_exec(store->writer, "BEGIN IMMEDIATE", "making room for the log", NULL) != BP_OK)
        return;
    lengthen(path);
    bp_db_exec(store->writer, "ROLLBACK", "making room for the log", NULL);
}
