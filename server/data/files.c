/* files.c: see files.h. */
#include "data/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the page cache takes in one piece, and still has at hand: for larger ones a virtual machine would have to ask its
 * host for memory, which costs it more than all else that an import does. */
#define WRITE_BLOCK (32 << 10)
#define BACK_BLOCK (8 << 20)

bp_status bp_files_path(char dst[BP_FILES_PATH], const char *dir, const char *sub, const char *name,
                        const char *suffix, struct bp_error *err)
{
    int n = snprintf(dst, BP_FILES_PATH, "%s/%s%s%s%s", dir, sub, name[0] ? "/" : "", name, suffix);
    if (n < 0 || n >= BP_FILES_PATH)
        return bp_fail(err, BP_LIMIT, "the path of the data directory is too long");
    return BP_OK;
}

bool bp_files_is_hash(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

bp_status bp_files_fail(struct bp_error *err, const char *doing)
{
    int code = errno;
    bool full = code == ENOSPC || code == EDQUOT || code == EFBIG; /* EFBIG: a limit on the size of files */
    return bp_fail(err, full ? BP_FULL : BP_IO, "%s: %s", doing, strerror(code));
}

bp_status bp_files_sync_dir(const char *dir, const char *sub, struct bp_error *err)
{
    char path[BP_FILES_PATH];
    bp_status status = bp_files_path(path, dir, sub, "", "", err);
    if (status != BP_OK)
        return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (fd < 0)
        return bp_files_fail(err, "opening a directory to sync it");
    if (fsync(fd) != 0)
        status = bp_files_fail(err, "syncing a directory");
    close(fd);
    return status;
}

void bp_write_back(struct bp_write_back *back, size_t n)
{
    back->end += (int64_t)n;
    if (back->end - back->begun < BACK_BLOCK)
        return;
    /* A file system that cannot do it says so, and is asked in vain: the sync is what counts. */
    (void)sync_file_range(back->fd, back->begun, back->end - back->begun, SYNC_FILE_RANGE_WRITE);
    back->begun = back->end;
}

bp_status bp_writer_open(struct bp_writer *writer, const char *path, struct bp_error *err)
{
    struct bp_writer w = {.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
    w.back.fd = w.fd;
    if (w.fd < 0)
        return bp_files_fail(err, "creating a file in the data directory");
    w.buffer = malloc(WRITE_BLOCK);
    if (!w.buffer) {
        close(w.fd);
        unlink(path);
        return bp_fail(err, BP_NOMEM, "no memory to write the table");
    }
    *writer = w;
    return BP_OK;
}

static bp_status write_all(struct bp_writer *writer, const uint8_t *bytes, size_t n, struct bp_error *err)
{
    while (n > 0) {
        ssize_t put = write(writer->fd, bytes, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return bp_files_fail(err, "writing the table");
        bytes += put;
        n -= (size_t)put;
        bp_write_back(&writer->back, (size_t)put);
    }
    return BP_OK;
}

static bp_status flush(struct bp_writer *writer, struct bp_error *err)
{
    bp_status status = write_all(writer, writer->buffer, writer->used, err);
    writer->used = 0;
    return status;
}

bp_status bp_writer_put(struct bp_writer *writer, const void *bytes, size_t n, struct bp_error *err)
{
    const uint8_t *from = bytes;
    bp_status status = BP_OK;
    while (n > 0 && status == BP_OK) {
        size_t take = WRITE_BLOCK - writer->used < n ? WRITE_BLOCK - writer->used : n;
        memcpy(writer->buffer + writer->used, from, take);
        writer->used += take;
        from += take;
        n -= take;
        if (writer->used == WRITE_BLOCK)
            status = flush(writer, err);
    }
    return status;
}

bp_status bp_writer_head(struct bp_writer *writer, const void *bytes, size_t n, struct bp_error *err)
{
    bp_status status = flush(writer, err);
    if (status == BP_OK && pwrite(writer->fd, bytes, n, 0) != (ssize_t)n)
        status = bp_files_fail(err, "writing the head of the table");
    return status;
}

bp_status bp_writer_restart(struct bp_writer *writer, struct bp_error *err)
{
    writer->used = 0;
    if (ftruncate(writer->fd, 0) != 0 || lseek(writer->fd, 0, SEEK_SET) != 0)
        return bp_files_fail(err, "starting the table over");
    writer->back = (struct bp_write_back){.fd = writer->fd};
    return BP_OK;
}

bp_status bp_writer_finish(struct bp_writer *writer, struct bp_error *err)
{
    bp_status status = flush(writer, err);
    if (status == BP_OK && fsync(writer->fd) != 0)
        status = bp_files_fail(err, "syncing the table");
    int fd = writer->fd;
    writer->fd = -1;
    if (close(fd) != 0 && status == BP_OK)
        status = bp_files_fail(err, "closing the table");
    bp_writer_done(writer);
    return status;
}

void bp_writer_done(struct bp_writer *writer)
{
    if (writer->fd >= 0)
        close(writer->fd);
    free(writer->buffer);
    writer->buffer = NULL;
    writer->fd = -1;
}
