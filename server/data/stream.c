/* stream.c: a file, its gzip members unfolded by zlib, or bytes in memory, behind one read call. */
#include "data/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define FOLDED_BLOCK (256 << 10)
#define READ_BLOCK (1 << 20)    /* asked in between whether to stop */
#define AHEAD_BLOCK (256 << 10) /* read at once for those who ask for less */
#define GIVE_BACK (32 << 20)    /* let go at once, as much again behind the reader */

struct bp_stream {
    struct bp_stream_config config;
    int fd; /* -1: memory */
    const uint8_t *bytes;
    size_t size, pos;                  /* of the bytes in memory */
    int64_t file_size, at, given_back; /* the position in the file; up to where the page cache was told to let go */

    uint8_t *ahead; /* of a file that is read in small pieces: bytes [ahead_at, ahead_end) are next */
    size_t ahead_at, ahead_end;

    bool compressed, member_done; /* between two gzip members, or after the last */
    z_stream z;
    uint8_t *folded;
    int64_t in, out; /* bytes taken in and given out so far */
};

/* The page cache lets go of what hardly anybody will read again. Pages that are new to a virtual machine are asked of
 * its host, which takes longer than all else about a large upload: the table had better get those of its file. */
static void give_back(struct bp_stream *s)
{
    int64_t passed = s->config.passed ? atomic_load(s->config.passed) : 0;
    int64_t to = s->at < passed ? s->at : passed;
    if (to - s->given_back < 2 * GIVE_BACK)
        return;
    /* What is not on the disk yet stays: this is no more than advice. */
    (void)posix_fadvise(s->fd, s->given_back, GIVE_BACK, POSIX_FADV_DONTNEED);
    s->given_back += GIVE_BACK;
}

/* read() that does not stop short before the end of the file. */
static bp_status read_file(struct bp_stream *s, void *dst, size_t size, size_t *ret, struct bp_error *err)
{
    size_t n = 0;
    while (n < size) {
        if (s->config.cancelled && s->config.cancelled(s->config.ctx))
            return bp_fail(err, BP_STOPPED, "stopped while reading the data");
        size_t ask = size - n < READ_BLOCK ? size - n : READ_BLOCK;
        ssize_t got = read(s->fd, (char *)dst + n, ask);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return bp_fail(err, BP_IO, "reading the data: %s", strerror(errno));
        if (got == 0)
            break;
        n += (size_t)got;
        s->at += got;
        give_back(s);
    }
    *ret = n;
    return BP_OK;
}

/* The same through a buffer: a row of an image is less than a system call is worth. */
static bp_status read_ahead(struct bp_stream *s, void *dst, size_t size, size_t *ret, struct bp_error *err)
{
    size_t n = 0;
    if (!s->ahead && !(s->ahead = malloc(AHEAD_BLOCK)))
        return bp_fail(err, BP_NOMEM, "no memory to read the data");
    while (n < size) {
        if (s->ahead_at == s->ahead_end) {
            bp_status status = read_file(s, s->ahead, AHEAD_BLOCK, &s->ahead_end, err);
            s->ahead_at = 0;
            if (status != BP_OK) {
                s->ahead_end = 0;
                return status;
            }
            if (s->ahead_end == 0)
                break;
        }
        size_t take = s->ahead_end - s->ahead_at < size - n ? s->ahead_end - s->ahead_at : size - n;
        memcpy((char *)dst + n, s->ahead + s->ahead_at, take);
        s->ahead_at += take;
        n += take;
    }
    *ret = n;
    return BP_OK;
}

static bp_status damaged(struct bp_stream *s, const char *how, struct bp_error *err)
{
    return bp_fail_at(err, BP_INVALID, "gzip_damaged", "the gzip file is damaged: %s (after %lld unfolded bytes)",
                      how, (long long)s->out);
}

static bp_status refill(struct bp_stream *s, struct bp_error *err)
{
    size_t got;
    bp_status status = read_file(s, s->folded, FOLDED_BLOCK, &got, err);
    if (status != BP_OK)
        return status;
    s->in += (int64_t)got;
    s->z.next_in = s->folded;
    s->z.avail_in = (uInt)got;
    return BP_OK;
}

/* Behind a member: the next one starts, or zeros pad the file to its end. *ret_more: a member follows. */
static bp_status next_member(struct bp_stream *s, bool *ret_more, struct bp_error *err)
{
    bp_status status;
    for (;;) {
        if (s->z.avail_in == 0 && (status = refill(s, err)) != BP_OK)
            return status;
        if (s->z.avail_in == 0) {
            *ret_more = false;
            return BP_OK;
        }
        if (*s->z.next_in != 0)
            break;
        s->z.next_in++;
        s->z.avail_in--;
    }
    if (*s->z.next_in != 0x1f)
        return damaged(s, "there is something else behind its end", err);
    if (inflateReset(&s->z) != Z_OK)
        return bp_fail(err, BP_INTERNAL, "zlib did not start over");
    s->member_done = false;
    *ret_more = true;
    return BP_OK;
}

static bp_status check_unfolded(struct bp_stream *s, struct bp_error *err)
{
    if (s->out > s->config.max_unfolded)
        return bp_fail_at(err, BP_LIMIT, "unfolds_too_far", "the gzip file unfolds to more than %lld bytes",
                          (long long)s->config.max_unfolded);
    if (s->out > BP_UNFOLD_FREE && s->out / BP_UNFOLD_RATIO > s->in)
        return bp_fail_at(err, BP_LIMIT, "unfolds_too_far",
                          "the gzip file unfolds to more than %d times its size: send it uncompressed",
                          BP_UNFOLD_RATIO);
    return BP_OK;
}

static bp_status read_folded(struct bp_stream *s, void *dst, size_t size, size_t *ret, struct bp_error *err)
{
    size_t n = 0;
    bp_status status;
    while (n < size) {
        if (s->member_done) {
            bool more;
            if ((status = next_member(s, &more, err)) != BP_OK)
                return status;
            if (!more)
                break;
        }
        if (s->z.avail_in == 0) {
            if ((status = refill(s, err)) != BP_OK)
                return status;
            if (s->z.avail_in == 0)
                return damaged(s, "it ends too early", err);
        }
        size_t ask = size - n < READ_BLOCK ? size - n : READ_BLOCK;
        s->z.next_out = (Bytef *)dst + n;
        s->z.avail_out = (uInt)ask;
        int code = inflate(&s->z, Z_NO_FLUSH);
        size_t got = ask - s->z.avail_out;
        n += got;
        s->out += (int64_t)got;
        if (code == Z_MEM_ERROR)
            return bp_fail(err, BP_NOMEM, "no memory to unfold the gzip file");
        if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
            return damaged(s, s->z.msg ? s->z.msg : "its contents make no sense", err);
        s->member_done = code == Z_STREAM_END;
        if ((status = check_unfolded(s, err)) != BP_OK)
            return status;
    }
    *ret = n;
    return BP_OK;
}

bp_status bp_stream_read(struct bp_stream *s, void *dst, size_t size, size_t *ret, struct bp_error *err)
{
    if (s->fd < 0) {
        size_t n = s->size - s->pos < size ? s->size - s->pos : size;
        if (n)
            memcpy(dst, s->bytes + s->pos, n);
        s->pos += n;
        *ret = n;
        return BP_OK;
    }
    if (s->compressed)
        return read_folded(s, dst, size, ret, err);
    bool small = size < AHEAD_BLOCK || s->ahead_at < s->ahead_end; /* what was read ahead comes first */
    return small ? read_ahead(s, dst, size, ret, err) : read_file(s, dst, size, ret, err);
}

bp_status bp_stream_rewind(struct bp_stream *s, struct bp_error *err)
{
    s->pos = 0;
    s->at = 0;
    s->ahead_at = s->ahead_end = 0;
    s->in = s->out = 0;
    s->member_done = false;
    if (s->fd < 0)
        return BP_OK;
    if (lseek(s->fd, 0, SEEK_SET) != 0)
        return bp_fail(err, BP_IO, "reading the data again: %s", strerror(errno));
    s->z.avail_in = 0;
    if (s->compressed && inflateReset(&s->z) != Z_OK)
        return bp_fail(err, BP_INTERNAL, "zlib did not start over");
    return BP_OK;
}

bp_status bp_stream_open(const char *path, const struct bp_stream_config *config, struct bp_stream **ret,
                         struct bp_error *err)
{
    bp_status status;
    struct bp_stream *s = calloc(1, sizeof *s);
    if (!s)
        return bp_fail(err, BP_NOMEM, "no memory to read the data");
    s->config = *config;
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        status = bp_fail(err, errno == ENOENT ? BP_NOT_FOUND : BP_IO, "opening the data: %s", strerror(errno));
        goto out;
    }
    struct stat st;
    if (fstat(s->fd, &st) != 0) {
        status = bp_fail(err, BP_IO, "opening the data: %s", strerror(errno));
        goto out;
    }
    s->file_size = st.st_size;

    uint8_t magic[2];
    size_t got;
    if ((status = read_file(s, magic, sizeof magic, &got, err)) != BP_OK)
        goto out;
    if (got == 2 && magic[0] == 0x1f && magic[1] == 0x8b) {
        s->folded = malloc(FOLDED_BLOCK);
        if (!s->folded || inflateInit2(&s->z, MAX_WBITS + 16) != Z_OK) {
            status = bp_fail(err, BP_NOMEM, "no memory to unfold the gzip file");
            goto out;
        }
        s->compressed = true;
    }
    if ((status = bp_stream_rewind(s, err)) != BP_OK)
        goto out;
    *ret = s;
    s = NULL;
out:
    bp_stream_close(s);
    return status;
}

bp_status bp_stream_memory(const void *bytes, size_t size, struct bp_stream **ret, struct bp_error *err)
{
    struct bp_stream *s = calloc(1, sizeof *s);
    if (!s)
        return bp_fail(err, BP_NOMEM, "no memory to read the data");
    s->fd = -1;
    s->bytes = bytes;
    s->size = size;
    s->file_size = (int64_t)size;
    *ret = s;
    return BP_OK;
}

void bp_stream_close(struct bp_stream *s)
{
    if (!s)
        return;
    if (s->compressed)
        inflateEnd(&s->z);
    if (s->fd >= 0)
        close(s->fd);
    free(s->folded);
    free(s->ahead);
    free(s);
}

bool bp_stream_compressed(const struct bp_stream *s)
{
    return s->compressed;
}

int64_t bp_stream_size(const struct bp_stream *s)
{
    return s->compressed ? -1 : s->file_size;
}
