/* fault_vfs.h: a layer between SQLite and the file system that fails on command: the nth write or sync from now, once or
 * from then on. Registered as "fault"; files whose name does not end in the wanted suffix are left alone. */
#ifndef BP_FAULT_VFS_H
#define BP_FAULT_VFS_H

#include <sqlite3.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum fault_call { FAULT_WRITE, FAULT_SYNC };

static struct {
    pthread_mutex_t mutex;
    enum fault_call call;
    int code;      /* what to return; 0: never */
    long after;    /* calls that still succeed */
    bool sticky;   /* fail for ever after */
    long seen;     /* calls of that kind since it was armed */
    long failures; /* made so far */
} fault = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static inline void fault_arm(enum fault_call call, int code, long after, bool sticky)
{
    pthread_mutex_lock(&fault.mutex);
    fault.call = call;
    fault.code = code;
    fault.after = after;
    fault.sticky = sticky;
    fault.seen = fault.failures = 0;
    pthread_mutex_unlock(&fault.mutex);
}

static inline long fault_failures(void)
{
    pthread_mutex_lock(&fault.mutex);
    long n = fault.failures;
    pthread_mutex_unlock(&fault.mutex);
    return n;
}

static inline int fault_now(enum fault_call call)
{
    int code = SQLITE_OK;
    pthread_mutex_lock(&fault.mutex);
    if (fault.code && call == fault.call) {
        long n = fault.seen++;
        if (n == fault.after || (fault.sticky && n > fault.after)) {
            code = fault.code;
            fault.failures++;
        }
    }
    pthread_mutex_unlock(&fault.mutex);
    return code;
}

/* A file is the real file, with a table of methods that stops by at ours. */
struct fault_file {
    sqlite3_file base;
    sqlite3_io_methods methods;
    sqlite3_file *real; /* right behind */
};

static sqlite3_vfs *fault_real;

#define REAL(f) (((struct fault_file *)(f))->real)

static int ff_close(sqlite3_file *f)
{
    return REAL(f)->pMethods->xClose(REAL(f));
}
static int ff_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    return REAL(f)->pMethods->xRead(REAL(f), p, n, at);
}
static int ff_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    int rc = fault_now(FAULT_WRITE);
    return rc ? rc : REAL(f)->pMethods->xWrite(REAL(f), p, n, at);
}
static int ff_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    return REAL(f)->pMethods->xTruncate(REAL(f), n);
}
static int ff_sync(sqlite3_file *f, int flags)
{
    int rc = fault_now(FAULT_SYNC);
    return rc ? rc : REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int ff_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return REAL(f)->pMethods->xFileSize(REAL(f), n);
}
static int ff_lock(sqlite3_file *f, int n)
{
    return REAL(f)->pMethods->xLock(REAL(f), n);
}
static int ff_unlock(sqlite3_file *f, int n)
{
    return REAL(f)->pMethods->xUnlock(REAL(f), n);
}
static int ff_reserved(sqlite3_file *f, int *n)
{
    return REAL(f)->pMethods->xCheckReservedLock(REAL(f), n);
}
static int ff_control(sqlite3_file *f, int op, void *arg)
{
    return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int ff_sector(sqlite3_file *f)
{
    return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int ff_device(sqlite3_file *f)
{
    return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}
static int ff_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **ret)
{
    return REAL(f)->pMethods->xShmMap(REAL(f), page, size, extend, ret);
}
static int ff_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return REAL(f)->pMethods->xShmLock(REAL(f), offset, n, flags);
}
static void ff_shm_barrier(sqlite3_file *f)
{
    REAL(f)->pMethods->xShmBarrier(REAL(f));
}
static int ff_shm_unmap(sqlite3_file *f, int delete)
{
    return REAL(f)->pMethods->xShmUnmap(REAL(f), delete);
}

static int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    static const sqlite3_io_methods ours = {
        2,           ff_close,       ff_read,      ff_write,   ff_truncate, ff_sync,   ff_size,
        ff_lock,     ff_unlock,      ff_reserved,  ff_control, ff_sector,   ff_device, ff_shm_map,
        ff_shm_lock, ff_shm_barrier, ff_shm_unmap, NULL,       NULL,
    };
    struct fault_file *f = (struct fault_file *)file;
    (void)vfs;
    f->real = (sqlite3_file *)(f + 1);
    int rc = fault_real->xOpen(fault_real, name, f->real, flags, ret_flags);
    f->methods = ours;
    f->base.pMethods = f->real->pMethods ? &f->methods : NULL;
    return rc;
}

static inline void fault_register(void)
{
    static sqlite3_vfs vfs;
    if (fault_real)
        return;
    fault_real = sqlite3_vfs_find(NULL);
    vfs = *fault_real;
    vfs.zName = "fault";
    vfs.pNext = NULL;
    vfs.szOsFile = (int)sizeof(struct fault_file) + fault_real->szOsFile;
    vfs.xOpen = fault_open;
    sqlite3_vfs_register(&vfs, 0);
}

#endif
