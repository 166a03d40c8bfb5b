/* main.c: the table of contents of the program: what is started, in which order, and ended in the reverse.
 *
 * Each part is a row of the table below. A part that cannot be started ends the program with one line that says what
 * to do, and with an exit code of sysexits.h:
 *   64 wrong command line   65 damaged data   69 address in use   71 system   73 cannot create   74 input/output
 *   75 another backpropd has the data directory   78 configuration
 *
 * Stopping (SIGTERM, SIGINT): nothing new is taken; what is in flight is answered; running jobs are checkpointed and
 * put back into the queue; the store is closed; 0. A second signal ends at once, and nothing acknowledged is lost.
 *
 * Threads: all signals are blocked before the first thread is made, so that only this one sees them.
 */
#include "api/api.h"
#include "api/job_cache.h"
#include "api/table_cache.h"
#include "app.h"
#include "config.h"
#include "data/import.h"
#include "jobs/jobs.h"
#include "jobs/predictor.h"
#include "kernels/kernels.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#define READERS 4            /* connections that read the store */
#define DESCRIPTORS 8192     /* connections of HTTP, files of datasets, and some room */
#define HEAP_SLACK (1 << 20) /* bytes of a thread's heap that stay: giving them back and forth interrupts all cores */
#define TOKEN_MAX 1024       /* bytes of a token */
#define HOSTS_MAX 64         /* names of --allow-host */
#define CHECK_NICE 19        /* the check of the database gives way to everything */
#define STOP_SIGNALS                                                                                                 \
    {                                                                                                                \
        SIGTERM, SIGINT, SIGHUP                                                                                      \
    }

struct daemon {
    struct bp_config config;
    struct bp_app app;
    int lock_fd;
    pthread_t checker;
    char tmp_dir[sizeof((struct bp_config *)0)->data_dir + 8];
    char allowed[sizeof((struct bp_config *)0)->allowed_hosts];
    const char *hosts[HOSTS_MAX + 1];
};

/* --- the parts ------------------------------------------------------------------------------------------------------- */
static int start_limits(struct daemon *d, struct bp_error *err)
{
    struct rlimit files;
    (void)d, (void)err;
    mallopt(M_TRIM_THRESHOLD, HEAP_SLACK);
    if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < DESCRIPTORS) {
        files.rlim_cur = files.rlim_max < DESCRIPTORS ? files.rlim_max : DESCRIPTORS;
        setrlimit(RLIMIT_NOFILE, &files); /* fewer connections are possible without */
    }
    return EX_OK;
}

static int start_kernels(struct daemon *d, struct bp_error *err)
{
    (void)d;
    return bp_kernels_select(getenv("BACKPROPD_SIMD"), err) ? EX_CONFIG : EX_OK;
}

/* Makes a directory and those above it. */
static bool make_dirs(const char *path)
{
    char part[sizeof((struct bp_config *)0)->data_dir];
    snprintf(part, sizeof part, "%s", path);
    for (char *p = strchr(part + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = '\0';
        if (mkdir(part, 0700) && errno != EEXIST)
            return false;
        *p = '/';
    }
    return !mkdir(part, 0700) || errno == EEXIST;
}

static int start_directory(struct daemon *d, struct bp_error *err)
{
    struct stat info;
    const char *dir = d->config.data_dir;
    if (!make_dirs(dir) || stat(dir, &info)) {
        bp_fail(err, BP_IO, "cannot create the data directory %.300s: %s; choose another with --data-dir", dir,
                strerror(errno));
        return EX_CANTCREAT;
    }
    if (!S_ISDIR(info.st_mode)) {
        bp_fail(err, BP_INVALID, "%.300s is not a directory; choose another with --data-dir", dir);
        return EX_CONFIG;
    }
    if (info.st_uid != geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH))) {
        bp_fail(err, BP_INVALID, "the data directory %.200s can be written by others: chmod 700 %.200s, and own it",
                dir, dir);
        return EX_CONFIG;
    }
    return EX_OK;
}

static int start_lock(struct daemon *d, struct bp_error *err)
{
    char path[sizeof d->config.data_dir + 32], pid[32] = "";
    snprintf(path, sizeof path, "%s/backpropd.lock", d->config.data_dir);
    d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock_fd < 0) {
        bp_fail(err, BP_IO, "cannot open %.300s: %s", path, strerror(errno));
        return EX_CANTCREAT;
    }
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB)) {
        ssize_t n = read(d->lock_fd, pid, sizeof pid - 1);
        pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
        bp_fail(err, BP_CONFLICT,
                "another backpropd (process %s) has the data directory %.200s: stop it, or choose "
                "another with --data-dir",
                *pid ? pid : "unknown", d->config.data_dir);
        return EX_TEMPFAIL;
    }
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(d->lock_fd, 0) || pwrite(d->lock_fd, pid, (size_t)n, 0) != n)
        bp_log(BP_LOG_WARN, "the lock file could not be written", NULL); /* the lock itself holds */
    return EX_OK;
}

static void stop_lock(struct daemon *d)
{
    close(d->lock_fd); /* the file stays: removing it would race with the next one that locks it */
}

static int start_store(struct daemon *d, struct bp_error *err)
{
    struct bp_store_options options = {
        .dir = d->config.data_dir, .readers = READERS, .max_bytes = d->config.max_database};
    switch (bp_store_open(&options, &d->app.store, err)) {
    case BP_OK:
        return EX_OK;
    case BP_MISMATCH:
        return EX_CONFIG;
    case BP_CORRUPT:
        return EX_DATAERR;
    default:
        return EX_IOERR;
    }
}

static void stop_store(struct daemon *d)
{
    bp_store_close(d->app.store);
}

struct known {
    const char *hash;
    bool known;
};

static bp_status look_up(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct known *k = arg;
    return bp_db_dataset_known(db, k->hash, &k->known, err);
}

/* Whether a file of the data directory belongs to a dataset. In doubt it does. */
static bool is_known(void *ctx, const char *hash)
{
    struct known k = {.hash = hash};
    return bp_store_read(ctx, look_up, &k, NULL) != BP_OK || k.known;
}

static int start_files(struct daemon *d, struct bp_error *err)
{
    snprintf(d->tmp_dir, sizeof d->tmp_dir, "%s/tmp", d->config.data_dir);
    return bp_import_tidy(d->config.data_dir, is_known, d->app.store, err) ? EX_IOERR : EX_OK;
}

static int start_predictors(struct daemon *d, struct bp_error *err)
{
    return bp_predictors_new(d->app.store, &d->app.predictors, err) ? EX_OSERR : EX_OK;
}

static void stop_predictors(struct daemon *d)
{
    bp_predictors_free(d->app.predictors);
}

static void stop_caches(struct daemon *d)
{
    bp_job_cache_free(d->app.job_cache);
    bp_table_cache_free(d->app.tables);
}

static int start_caches(struct daemon *d, struct bp_error *err)
{
    if (bp_job_cache_new(&d->app.job_cache, err) == BP_OK && bp_table_cache_new(&d->app.tables, err) == BP_OK)
        return EX_OK;
    stop_caches(d);
    return EX_OSERR;
}

static void split_hosts(struct daemon *d)
{
    size_t n = 0;
    char *save = NULL;
    snprintf(d->allowed, sizeof d->allowed, "%s", d->config.allowed_hosts);
    for (char *name = strtok_r(d->allowed, ", ", &save); name && n < HOSTS_MAX; name = strtok_r(NULL, ", ", &save))
        d->hosts[n++] = name;
}

/* The hex SHA-256 of the token, "" where there is none. The token itself is forgotten at once. */
static bp_status hash_token(const struct bp_config *config, char ret[BP_SHA256_HEX], struct bp_error *err)
{
    char token[TOKEN_MAX];
    unsigned char digest[SHA256_DIGEST_SIZE];
    struct sha256_ctx sha256;
    *ret = '\0';
    if (!config->token_file[0])
        return BP_OK;
    bp_status status = bp_config_token(config->token_file, token, sizeof token, err);
    if (status)
        return status;
    sha256_init(&sha256);
    sha256_update(&sha256, strlen(token), (const uint8_t *)token);
    sha256_digest(&sha256, sizeof digest, digest);
    explicit_bzero(token, sizeof token);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    return BP_OK;
}

/* It listens from here on, but answers 503 until the jobs are there too. */
static int start_http(struct daemon *d, struct bp_error *err)
{
    char token[BP_SHA256_HEX];
    if (hash_token(&d->config, token, err))
        return EX_CONFIG;
    split_hosts(d);
    struct bp_http_options options = {.host = d->config.host,
                                      .port = d->config.port,
                                      .token_sha256 = *token ? token : NULL,
                                      .hosts = d->hosts,
                                      .tmp_dir = d->tmp_dir,
                                      .max_upload = d->config.max_upload,
                                      .routes = bp_routes,
                                      .app = &d->app,
                                      .gated = true};
    bp_status status = bp_http_start(&options, &d->app.http, err);
    return status == BP_OK         ? EX_OK
           : status == BP_CONFLICT ? EX_UNAVAILABLE
           : status == BP_INVALID  ? EX_CONFIG
                                   : EX_OSERR;
}

static void stop_http(struct daemon *d)
{
    bp_http_stop(d->app.http);
}

static int start_jobs(struct daemon *d, struct bp_error *err)
{
    return bp_jobs_start(&d->app, err) ? EX_OSERR : EX_OK;
}

static void stop_jobs(struct daemon *d)
{
    /* Handlers look at the jobs: the last of them ends before the jobs do. */
    bp_http_close(d->app.http);
    bp_jobs_stop(&d->app);
}

/* Looks for damage while the service runs: seconds for gigabytes, and nobody has to wait for it. */
static void *check_store(void *arg)
{
    struct daemon *d = arg;
    struct bp_error err;
    setpriority(PRIO_PROCESS, (id_t)gettid(), CHECK_NICE);
    bp_status status = bp_store_check(d->app.store, &err);
    if (status == BP_CORRUPT)
        bp_log(BP_LOG_ERROR, "the database is damaged: stop the service and restore a backup", "found", err.message,
               NULL);
    else if (status)
        bp_log(BP_LOG_WARN, "the database could not be checked", "reason", err.message, NULL);
    else
        bp_log(BP_LOG_DEBUG, "the database is sound", NULL);
    return NULL;
}

static int start_check(struct daemon *d, struct bp_error *err)
{
    int failed = pthread_create(&d->checker, NULL, check_store, d);
    if (!failed)
        return EX_OK;
    bp_fail(err, BP_NOMEM, "cannot start a thread: %s", strerror(failed));
    return EX_OSERR;
}

static void stop_check(struct daemon *d)
{
    pthread_join(d->checker, NULL);
}

static const struct part {
    int (*start)(struct daemon *d, struct bp_error *err); /* an exit code; EX_OK: started */
    void (*stop)(struct daemon *d);                       /* NULL: nothing to end */
} parts[] = {
    {start_limits, NULL},
    {start_kernels, NULL},
    {start_directory, NULL},
    {start_lock, stop_lock},
    {start_store, stop_store},
    {start_files, NULL},
    {start_predictors, stop_predictors},
    {start_caches, stop_caches},
    {start_http, stop_http},
    {start_jobs, stop_jobs},
    {start_check, stop_check},
};
#define PARTS (sizeof parts / sizeof *parts)

static void stop_parts(struct daemon *d, size_t started)
{
    while (started-- > 0)
        if (parts[started].stop)
            parts[started].stop(d);
}

/* --- the run --------------------------------------------------------------------------------------------------------- */
/* The line that a script may wait for. */
static void announce(const struct daemon *d)
{
    const char *simd = bp_kernels_current()->name;
    const char *open = strchr(d->config.host, ':') ? "[" : "", *shut = *open ? "]" : "";
    char listen[128], threads[16], workers[16];
    snprintf(listen, sizeof listen, "http://%s%s%s:%d", open, d->config.host, shut, bp_http_port(d->app.http));
    snprintf(threads, sizeof threads, "%d", d->config.threads);
    snprintf(workers, sizeof workers, "%d", d->config.workers);
    if (d->config.log_json) {
        bp_log_setup(true, BP_LOG_INFO); /* whatever the level: somebody may wait for this line */
        bp_log(BP_LOG_INFO, "ready", "version", BACKPROPD_VERSION, "listen", listen, "data_dir", d->config.data_dir,
               "threads", threads, "workers", workers, "simd", simd, NULL);
        bp_log_setup(true, (enum bp_log_level)d->config.log_level);
    } else {
        fprintf(stderr, "backpropd %s ready on %s (data in %s, %s threads, %s workers, %s)\n", BACKPROPD_VERSION,
                listen, d->config.data_dir, threads, workers, simd);
    }
}

static void stop_signals(sigset_t *ret)
{
    static const int signals[] = STOP_SIGNALS;
    sigemptyset(ret);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(ret, signals[i]);
}

static void wait_for_signal(void)
{
    sigset_t set;
    int got = 0;
    stop_signals(&set);
    while (sigwait(&set, &got))
        continue;
    /* From now on a signal does what it does by default: it ends the process. */
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    bp_log(BP_LOG_INFO, "stopping", "signal", got == SIGTERM ? "TERM" : got == SIGINT ? "INT" : "HUP", NULL);
}

static int run(struct daemon *d)
{
    struct bp_error err = {0};
    size_t started = 0;
    for (; started < PARTS; started++) {
        int code = parts[started].start(d, &err);
        if (code == EX_OK)
            continue;
        stop_parts(d, started);
        bp_log(BP_LOG_ERROR, err.message, NULL);
        return code;
    }
    bp_http_open(d->app.http);
    announce(d);
    wait_for_signal();
    d->app.draining = true;
    bp_http_drain(d->app.http);
    stop_parts(d, started);
    bp_log(BP_LOG_INFO, "stopped", NULL);
    return EX_OK;
}

int main(int argc, char **argv)
{
    static struct daemon d = {.lock_fd = -1};
    struct bp_error err = {0};
    enum bp_config_action action;
    sigset_t set;

    json_object_seed(0); /* before any thread, so that nobody can guess collisions of keys */
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is then an error of a write, like a full disk */
    stop_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);

    bp_status status = bp_config_load(argc, argv, &d.config, &action, &err);
    if (status) {
        fprintf(stderr, "backpropd: %s\n", err.message); /* how to log is not known yet */
        return status == BP_INVALID ? EX_USAGE : status == BP_NOMEM ? EX_OSERR : EX_CONFIG;
    }
    if (action == BP_CONFIG_EXIT)
        return EX_OK;
    bp_log_setup(d.config.log_json, (enum bp_log_level)d.config.log_level);
    d.app.config = &d.config;
    d.app.started_at = bp_store_now();
    return run(&d);
}
