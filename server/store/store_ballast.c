/* store_ballast.c: a file that does nothing but take up room, so that a full disk is not quite full.
 *
 * When a write finds no room, the ballast is given up: the next small writes (a job's state, an event) then succeed, and
 * the service can say what is wrong. Large writes (checkpoints) may not use that room: they are refused where they would
 * leave less. A start on a full disk gives the ballast up before it opens the database, which takes room already.
 * Threads: the store's own, and the opener before that runs.
 */
#include "store/store_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FILE_NAME "ballast" /* in the data directory */
#define BALLAST_BYTES (4 << 20)
#define ROOM_TO_START (1u << 20) /* the log's index, and the rows of what a crash left in the middle; less is full */
/* Left free by large writes; more than the ballast, so that it does not come and go. */
#define KEPT_FREE (4ull * BALLAST_BYTES)

static uint64_t room(const struct bp_store *store)
{
    struct statvfs fs;
    return fstatvfs(store->lock_fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : UINT64_MAX;
}

void bp_ballast_open(struct bp_store *store)
{
    if (room(store) < ROOM_TO_START)
        bp_ballast_drop(store);
}

void bp_ballast_advice(const struct bp_store *store, char *ret, size_t size)
{
    uint64_t left = room(store);
    if (left < ROOM_TO_START)
        snprintf(ret, size, "; the disk has %llu bytes left, and a start takes %u: make room, and start again",
                 (unsigned long long)left, ROOM_TO_START);
    else
        snprintf(ret, size, "; make room, or raise --max-database");
}

bool bp_ballast_take(struct bp_store *store, size_t weight)
{
    /* What is written may lie in the log and in the database at once. */
    if (room(store) < KEPT_FREE + 2 * (uint64_t)weight)
        return false;
    if (store->ballast)
        return true;
    int fd = openat(store->lock_fd, FILE_NAME, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return true; /* there is room, but no ballast to be had: do without */
    store->ballast = posix_fallocate(fd, 0, BALLAST_BYTES) == 0;
    close(fd);
    if (!store->ballast)
        unlinkat(store->lock_fd, FILE_NAME, 0);
    return true;
}

void bp_ballast_drop(struct bp_store *store)
{
    unlinkat(store->lock_fd, FILE_NAME, 0);
    store->ballast = false;
}
