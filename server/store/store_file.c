/* store_file.c: is this directory and file ours, and fit to hold a database? Answered before SQLite touches it.
 *
 * SQLite changes what it opens (it recovers a log, it truncates), so whatever must be refused is refused on the bytes
 * of the header, read here; a refused file stays as it is. The file is opened and closed only while no connection of
 * this process is open on it: closing any descriptor of a file drops all POSIX locks that the process holds on it.
 * The directory's flock keeps a second daemon, and a second store in this one, away.
 */
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILE_NAME "backpropd.db"
#define HEADER_BYTES 100 /* of an SQLite database */
#define HEADER_USER_VERSION 60
#define HEADER_APPLICATION_ID 68

/* The log's index is shared memory and its locks are POSIX locks: neither is reliable here (sqlite.org/wal.html). */
static const struct {
    unsigned long magic;
    const char *name;
} unsafe[] = {
    {0x6969, "NFS"},     {0xff534d42, "CIFS"},   {0xfe534d42, "SMB2"}, {0x517b, "SMB"},      {0x65735546, "FUSE"},
    {0x5346414f, "AFS"}, {0x6b414653, "AFS"},    {0x00c36400, "Ceph"}, {0x73757245, "Coda"}, {0x01021997, "9P"},
    {0x564c, "NCP"},     {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"},
};

const char *bp_store_unsafe_filesystem(unsigned long magic)
{
    for (size_t i = 0; i < sizeof unsafe / sizeof unsafe[0]; i++)
        if (unsafe[i].magic == (magic & 0xffffffff))
            return unsafe[i].name;
    return NULL;
}

static bp_status fail_errno(struct bp_error *err, const char *what, const char *path)
{
    int number = errno;
    bp_status status = number == ENOSPC || number == EDQUOT ? BP_FULL : number == ENOMEM ? BP_NOMEM : BP_IO;
    return bp_fail(err, status, "cannot %s %s: %s", what, path, strerror(number));
}

static bp_status claim_dir(const char *dir, int *ret_lock, struct bp_error *err)
{
    struct statfs fs;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return fail_errno(err, "make the data directory", dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(err, "open the data directory", dir);
    bp_status status = BP_OK;
    if (fstatfs(fd, &fs) != 0)
        status = fail_errno(err, "look at the file system of", dir);
    else if (bp_store_unsafe_filesystem((unsigned long)fs.f_type))
        status =
            bp_fail(err, BP_UNSUPPORTED,
                    "%s is on a %s file system, where a database is not safe; choose a directory on a local disk",
                    dir, bp_store_unsafe_filesystem((unsigned long)fs.f_type));
    else if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        status = errno == EWOULDBLOCK
                     ? bp_fail(err, BP_CONFLICT,
                               "another backpropd uses %s; stop it, or choose another data directory", dir)
                     : fail_errno(err, "lock", dir);
    if (status == BP_OK)
        *ret_lock = fd;
    else
        close(fd);
    return status;
}

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bp_status check_header(int fd, const char *path, int64_t size, struct bp_error *err)
{
    uint8_t h[HEADER_BYTES];
    if (size == 0) /* made, and nothing written: a start that was cut short */
        return BP_OK;
    ssize_t n = pread(fd, h, sizeof h, 0);
    if (n < 0)
        return fail_errno(err, "read", path);
    if (n < (ssize_t)sizeof h || memcmp(h, "SQLite format 3", 16) != 0)
        return bp_fail(err, BP_CORRUPT,
                       "%s is not a database of backpropd; move it away, or restore it from a backup", path);
    if (big_endian(h + HEADER_APPLICATION_ID) != BP_APPLICATION_ID)
        return bp_fail(err, BP_MISMATCH, "%s is a database of another application; choose another data directory",
                       path);
    if ((int64_t)big_endian(h + HEADER_USER_VERSION) > bp_schema_version())
        return bp_fail(err, BP_MISMATCH,
                       "%s was written by a newer backpropd (schema %u, this one knows %d); start that one", path,
                       big_endian(h + HEADER_USER_VERSION), bp_schema_version());
    return BP_OK;
}

static bp_status check_file(int dir, const char *path, struct bp_error *err)
{
    struct stat st;
    bool made = false;
    int fd = openat(dir, FILE_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        fd = openat(dir, FILE_NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        made = fd >= 0;
    }
    if (fd < 0)
        return fail_errno(err, "open", path);
    bp_status status = BP_OK;
    /* The mode once more by hand: a umask may have taken our own rights away. */
    if ((made && (fchmod(fd, 0600) != 0 || fsync(dir) != 0)) || fstat(fd, &st) != 0)
        status = fail_errno(err, "look at", path);
    else if (!S_ISREG(st.st_mode))
        status = bp_fail(err, BP_CORRUPT, "%s is not a regular file; move it away", path);
    else if (st.st_nlink > 1)
        status = bp_fail(err, BP_UNSUPPORTED,
                         "%s has %lu hard links, and through another name its log would not be found; remove the "
                         "other links",
                         path, (unsigned long)st.st_nlink);
    else
        status = check_header(fd, path, st.st_size, err);
    close(fd);
    return status;
}

bp_status bp_store_file_claim(const char *dir, char **ret_path, int *ret_lock, struct bp_error *err)
{
    int lock = -1;
    char *real = NULL, *path = NULL;
    bp_status status = claim_dir(dir, &lock, err);
    if (status != BP_OK)
        return status;
    real = realpath(dir, NULL); /* SQLite is told not to follow links */
    if (!real) {
        status = fail_errno(err, "resolve", dir);
        goto out;
    }
    if (asprintf(&path, "%s/%s", real, FILE_NAME) < 0) {
        path = NULL;
        status = bp_fail(err, BP_NOMEM, "no memory to open the database");
        goto out;
    }
    status = check_file(lock, path, err);
    if (status != BP_OK)
        goto out;
    *ret_path = path;
    *ret_lock = lock;
    path = NULL;
    lock = -1;
out:
    if (lock >= 0)
        close(lock);
    free(path);
    free(real);
    return status;
}
