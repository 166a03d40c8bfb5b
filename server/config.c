/* config.c: one table of options; flags, environment, file, help and the printed configuration all follow from it.
 *
 * Every option has its value as text, from the strongest of four sources: flag, environment, file, default. Only then
 * is it read, so that a message can name the source of a bad value. Unknown names are errors everywhere, with the
 * nearest name as a hint.
 *
 * Refuses: listening beyond loopback without a token. A rule in the documentation is no protection.
 *
 * Threads: start-up only.
 */
#include "config.h"

#include "machine.h"
#include "problems.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES 65536 /* of a configuration file */
#define THREADS_MAX 256      /* of the budget: BP_TEAM_MAX */
#define WORKERS_MAX 64

enum source { FROM_DEFAULT, FROM_FILE, FROM_ENVIRONMENT, FROM_FLAG };
static const char *const source_names[] = {"default", "file", "environment", "flag"};

struct option;
typedef bool reader(const struct option *option, const char *text, struct bp_config *config);

struct option {
    const char *name;     /* without dashes; in a file with '_' for '-'; BACKPROPD_NAME in the environment */
    const char *argument; /* for the help; NULL: a flag without a value, for the command line only */
    const char *fallback; /* NULL: found out, see below */
    reader *read;
    size_t offset;      /* of the member that the reader fills */
    int64_t min, max;   /* of numbers */
    const char *allows; /* for messages */
    const char *help;
};

static bool read_listen(const struct option *option, const char *text, struct bp_config *config);
static bool read_text(const struct option *option, const char *text, struct bp_config *config);
static bool read_int(const struct option *option, const char *text, struct bp_config *config);
static bool read_bytes(const struct option *option, const char *text, struct bp_config *config);
static bool read_format(const struct option *option, const char *text, struct bp_config *config);
static bool read_level(const struct option *option, const char *text, struct bp_config *config);

#define AT(member) offsetof(struct bp_config, member)
static const struct option options[] = {
    {"listen", "HOST:PORT", "127.0.0.1:8080", read_listen, 0, 0, 0, "HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080",
     "address to listen on; port 0 picks a free one"},
    {"data-dir", "DIR", NULL, read_text, AT(data_dir), 1, 0, "a path of at most 1023 bytes",
     "where everything is kept"},
    {"threads", "N", NULL, read_int, AT(threads), 1, THREADS_MAX, "a whole number from 1 to 256",
     "threads that all jobs share (default: the cores this process may use)"},
    {"workers", "N", "2", read_int, AT(workers), 1, WORKERS_MAX, "a whole number from 1 to 64",
     "jobs that train at a time"},
    {"memory", "BYTES", NULL, read_bytes, AT(memory), 1 << 20, INT64_MAX,
     "bytes, with suffix K, M, G or T, at least 1M", "memory of one job (default: 3/4 of what there is)"},
    {"max-upload", "BYTES", "16G", read_bytes, AT(max_upload), 1, INT64_MAX, "bytes, with suffix K, M, G or T",
     "largest dataset file"},
    {"max-database", "BYTES", "0", read_bytes, AT(max_database), 0, INT64_MAX, "bytes, with suffix K, M, G or T",
     "largest database file; 0 for no limit"},
    {"token-file", "FILE", "", read_text, AT(token_file), 0, 0, "a path of at most 1023 bytes",
     "file with the token that clients must send (mode 0600)"},
    {"allow-host", "NAME", "", read_text, AT(allowed_hosts), 0, 0, "names separated by commas",
     "further names that a Host header may carry; may be repeated"},
    {"log-format", "FORMAT", "text", read_format, AT(log_json), 0, 0, "text or json", "lines for people or machines"},
    {"log-level", "LEVEL", "info", read_level, AT(log_level), 0, 0, "debug, info, warn or error",
     "the least important lines to write"},
    {"config", "FILE", "", NULL, 0, 0, 0, "a path", "JSON file with any of these, names with '_'"},
    {"print-config", NULL, NULL, NULL, 0, 0, 0, NULL, "print the configuration, where each value is from, and exit"},
    {"version", NULL, NULL, NULL, 0, 0, 0, NULL, "print the version and exit"},
    {"help", NULL, NULL, NULL, 0, 0, 0, NULL, "print this and exit"},
};
#undef AT
#define OPTIONS (sizeof options / sizeof *options)

struct value {
    char text[1024];
    enum source source;
};

struct settings {
    struct value values[OPTIONS];
    bool asked[OPTIONS]; /* flags without a value */
};

/* --- readers: text to members --------------------------------------------------------------------------------------- */
static bool read_number(const char *text, int64_t *ret, const char **ret_end)
{
    char *end = NULL;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *ret = strtoll(text, &end, 10);
    *ret_end = end;
    return errno == 0;
}

static bool read_listen(const struct option *option, const char *text, struct bp_config *config)
{
    const char *colon = strrchr(text, ':'), *end = NULL;
    int64_t port = 0;
    (void)option;
    if (!colon || !read_number(colon + 1, &port, &end) || *end || port > 65535)
        return false;
    size_t size = (size_t)(colon - text);
    if (size >= 2 && *text == '[' && text[size - 1] == ']')
        text++, size -= 2;
    else if (memchr(text, ':', size))
        return false; /* an IPv6 address needs its brackets */
    if (size == 0 || size >= sizeof config->host)
        return false;
    memcpy(config->host, text, size);
    config->host[size] = '\0';
    config->port = (int)port;
    return true;
}

/* Members of 1024 bytes; min is the least length. */
static bool read_text(const struct option *option, const char *text, struct bp_config *config)
{
    if (strlen(text) < (size_t)option->min)
        return false;
    snprintf((char *)config + option->offset, sizeof config->data_dir, "%s", text);
    return true;
}

static bool read_int(const struct option *option, const char *text, struct bp_config *config)
{
    const char *end = NULL;
    int64_t value = 0;
    if (!read_number(text, &value, &end) || *end || value < option->min || value > option->max)
        return false;
    int narrow = (int)value;
    memcpy((char *)config + option->offset, &narrow, sizeof narrow);
    return true;
}

static bool read_bytes(const struct option *option, const char *text, struct bp_config *config)
{
    static const char suffixes[] = "KMGT";
    const char *end = NULL;
    int64_t value = 0;
    if (!read_number(text, &value, &end))
        return false;
    const char *suffix = *end ? strchr(suffixes, *end & ~0x20) : NULL;
    if (suffix) {
        end++;
        for (int i = 0; i <= (int)(suffix - suffixes); i++)
            if (__builtin_mul_overflow(value, 1024, &value))
                return false;
    }
    if (*end || value < option->min || value > option->max)
        return false;
    memcpy((char *)config + option->offset, &value, sizeof value);
    return true;
}

static bool read_format(const struct option *option, const char *text, struct bp_config *config)
{
    (void)option;
    config->log_json = !strcmp(text, "json");
    return config->log_json || !strcmp(text, "text");
}

static bool read_level(const struct option *option, const char *text, struct bp_config *config)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    (void)option;
    for (int i = 0; i < 4; i++)
        if (!strcmp(text, levels[i])) {
            config->log_level = i;
            return true;
        }
    return false;
}

/* --- sources -------------------------------------------------------------------------------------------------------- */
static void key_of(const struct option *option, char ret[32])
{
    snprintf(ret, 32, "%s", option->name);
    for (char *p = ret; *p; p++)
        if (*p == '-')
            *p = '_';
}

static void variable_of(const struct option *option, char ret[64])
{
    char key[32];
    key_of(option, key);
    snprintf(ret, 64, "BACKPROPD_%s", key);
    for (char *p = ret; *p; p++)
        if (*p >= 'a' && *p <= 'z')
            *p -= 'a' - 'A';
}

/* How a message names an option of that source. */
static const char *shown_name(const struct option *option, enum source source, char ret[64])
{
    char key[32];
    key_of(option, key);
    if (source == FROM_ENVIRONMENT)
        variable_of(option, ret);
    else
        snprintf(ret, 64, source == FROM_FILE ? "\"%s\" in the configuration file" : "--%s",
                 source == FROM_FILE ? key : option->name);
    return ret;
}

static bp_status bad(struct bp_error *err, enum source source, const struct option *option, const char *text)
{
    char name[64];
    shown_name(option, source, name);
    /* A mistyped command line is one thing, a file or an environment that is wrong another: see config.h. */
    return bp_fail_at(err, source == FROM_FLAG ? BP_INVALID : BP_CONFLICT, option->name,
                      "%s must be %s, got \"%.100s\"", name, option->allows, text);
}

static const struct option *find_option(const char *name, size_t size)
{
    for (size_t i = 0; i < OPTIONS; i++)
        if (strlen(options[i].name) == size && !memcmp(options[i].name, name, size))
            return &options[i];
    return NULL;
}

static const char *near_option(const char *name)
{
    const char *names[OPTIONS];
    for (size_t i = 0; i < OPTIONS; i++)
        names[i] = options[i].name;
    return bp_nearest(name, names, OPTIONS);
}

static bp_status set(struct settings *s, const struct option *option, const char *text, enum source source,
                     struct bp_error *err)
{
    struct value *value = &s->values[option - options];
    bool more = !strcmp(option->name, "allow-host") && source == FROM_FLAG && value->source == FROM_FLAG;
    size_t used = more ? strlen(value->text) : 0;
    if (used + strlen(text) + 2 > sizeof value->text)
        return bad(err, source, option, text);
    snprintf(value->text + used, sizeof value->text - used, "%s%s", used ? "," : "", text);
    value->source = source;
    return BP_OK;
}

static bp_status take_flags(struct settings *s, int argc, char **argv, struct bp_error *err)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (!strcmp(arg, "-h"))
            arg = "--help";
        if (!strcmp(arg, "-V"))
            arg = "--version";
        if (strncmp(arg, "--", 2) || !arg[2])
            return bp_fail(err, BP_INVALID, "unexpected argument \"%.100s\"; see backpropd --help", arg);
        size_t size = strcspn(arg + 2, "=");
        const struct option *option = find_option(arg + 2, size);
        if (!option) {
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)size, arg + 2);
            const char *near = near_option(name);
            return bp_fail(err, BP_INVALID, "unknown option --%s%s%s; see backpropd --help", name,
                           near ? ", did you mean --" : "", near ? near : "");
        }
        const char *text = arg[2 + size] == '=' ? arg + 2 + size + 1 : NULL;
        if (!option->argument) {
            if (text)
                return bp_fail(err, BP_INVALID, "--%s takes no value", option->name);
            s->asked[option - options] = true;
            continue;
        }
        if (!text && i + 1 >= argc)
            return bp_fail(err, BP_INVALID, "--%s needs a value: %s", option->name, option->argument);
        bp_status status = set(s, option, text ? text : argv[++i], FROM_FLAG, err);
        if (status)
            return status;
    }
    return BP_OK;
}

static bp_status take_environment(struct settings *s, struct bp_error *err)
{
    for (size_t i = 0; i < OPTIONS; i++) {
        char name[64];
        variable_of(&options[i], name);
        const char *text = options[i].argument ? getenv(name) : NULL;
        if (!text || !*text || s->values[i].source == FROM_FLAG)
            continue;
        bp_status status = set(s, &options[i], text, FROM_ENVIRONMENT, err);
        if (status)
            return status;
    }
    return BP_OK;
}

/* A value of the file as text: a string, a number, or strings joined by commas. */
static bool text_of(const json_t *json, char *ret, size_t size)
{
    *ret = '\0';
    if (json_is_string(json))
        return snprintf(ret, size, "%s", json_string_value(json)) < (int)size;
    if (json_is_integer(json))
        return snprintf(ret, size, "%" JSON_INTEGER_FORMAT, json_integer_value(json)) < (int)size;
    if (!json_is_array(json))
        return false;
    for (size_t i = 0, used = 0; i < json_array_size(json); i++) {
        const char *item = json_string_value(json_array_get(json, i));
        if (!item || used + strlen(item) + 2 > size)
            return false;
        used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? "," : "", item);
    }
    return true;
}

static bp_status take_members(struct settings *s, json_t *json, struct bp_error *err)
{
    const char *key;
    json_t *member;
    json_object_foreach(json, key, member) {
        char name[64];
        snprintf(name, sizeof name, "%s", key);
        for (char *p = name; *p; p++)
            if (*p == '_')
                *p = '-';
        const struct option *option = find_option(name, strlen(name));
        if (!option || !option->read || strlen(key) >= sizeof name) {
            const char *near = near_option(name);
            return bp_fail(err, BP_CONFLICT, "the configuration file has the unknown member \"%.60s\"%s%s", key,
                           near ? "; did you mean " : "", near ? near : "");
        }
        char text[1024];
        if (!text_of(member, text, sizeof text))
            return bad(err, FROM_FILE, option, "something else");
        if (s->values[option - options].source > FROM_FILE)
            continue;
        bp_status status = set(s, option, text, FROM_FILE, err);
        if (status)
            return status;
    }
    return BP_OK;
}

static bp_status take_file(struct settings *s, const char *path, struct bp_error *err)
{
    json_error_t error;
    struct stat info;
    if (stat(path, &info) || !S_ISREG(info.st_mode) || info.st_size > FILE_MAX_BYTES)
        return bp_fail(err, BP_CONFLICT, "the configuration file %.200s cannot be read: %s", path,
                       errno ? strerror(errno) : "it is no file, or too large");
    json_t *json = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(json)) {
        json_decref(json);
        return bp_fail(err, BP_CONFLICT, "the configuration file %.200s, line %d: %s", path, error.line,
                       json ? "it must be a JSON object" : error.text);
    }
    bp_status status = take_members(s, json, err);
    json_decref(json);
    return status;
}

/* --- defaults that are found out ------------------------------------------------------------------------------------- */
static void set_defaults(struct settings *s)
{
    for (size_t i = 0; i < OPTIONS; i++) {
        struct value *value = &s->values[i];
        const char *home = getenv("HOME"), *share = getenv("XDG_DATA_HOME");
        value->source = FROM_DEFAULT;
        if (options[i].fallback)
            snprintf(value->text, sizeof value->text, "%s", options[i].fallback);
        else if (!strcmp(options[i].name, "data-dir") && share && *share == '/')
            snprintf(value->text, sizeof value->text, "%s/backpropd", share);
        else if (!strcmp(options[i].name, "data-dir"))
            snprintf(value->text, sizeof value->text, "%s/.local/share/backpropd", home && *home ? home : "");
        else if (!strcmp(options[i].name, "threads"))
            snprintf(value->text, sizeof value->text, "%d", bp_machine_threads());
        else if (!strcmp(options[i].name, "memory"))
            snprintf(value->text, sizeof value->text, "%" PRId64, bp_machine_memory() / 4 * 3);
    }
}

/* --- printing ------------------------------------------------------------------------------------------------------- */
static void print_help(void)
{
    printf("backpropd: trains neural networks by backpropagation, over HTTP\n\n"
           "  backpropd [--listen HOST:PORT] [--data-dir DIR] …\n\n");
    for (size_t i = 0; i < OPTIONS; i++) {
        char left[48];
        snprintf(left, sizeof left, "--%s %s", options[i].name, options[i].argument ? options[i].argument : "");
        printf("  %-24s %s", left, options[i].help);
        if (options[i].fallback && *options[i].fallback)
            printf(" (default %s)", options[i].fallback);
        printf("\n");
    }
    printf("\nEach option may also be set in the environment (BACKPROPD_DATA_DIR) or in the file of --config\n"
           "({\"data_dir\": …}); a flag wins over the environment, the environment over the file.\n"
           "BACKPROPD_SIMD=generic|avx2|avx512|neon chooses the kernels; the results are the same.\n"
           "Started, it answers: curl http://127.0.0.1:8080/\n");
}

static void print_config(const struct settings *s)
{
    json_t *all = json_object();
    for (size_t i = 0; i < OPTIONS; i++) {
        char key[32];
        key_of(&options[i], key);
        if (options[i].argument)
            json_object_set_new(
                all, key,
                json_pack("{s:s, s:s}", "value", s->values[i].text, "from", source_names[s->values[i].source]));
    }
    json_dumpf(all, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(all);
}

static bool is_loopback(const char *host)
{
    return !strcmp(host, "localhost") || !strcmp(host, "::1") ||
           (!strncmp(host, "127.", 4) && strspn(host, "0123456789.") == strlen(host));
}

/* Values as they are set, into config. */
static bp_status read_all(const struct settings *s, struct bp_config *config, struct bp_error *err)
{
    for (size_t i = 0; i < OPTIONS; i++)
        if (options[i].read && !options[i].read(&options[i], s->values[i].text, config))
            return bad(err, s->values[i].source, &options[i], s->values[i].text);
    if (config->data_dir[0] != '/' && !strncmp(config->data_dir, "~", 1))
        return bp_fail(err, BP_CONFLICT, "--data-dir %.200s: the shell did not expand '~'; write the path out",
                       config->data_dir);
    if (!is_loopback(config->host) && !config->token_file[0])
        return bp_fail(
            err, BP_CONFLICT,
            "--listen %s is reachable from other machines, so a token is required: head -c 32 /dev/urandom | "
            "base64 > token; chmod 600 token; backpropd --token-file token …",
            config->host);
    return BP_OK;
}

static bool asked(const struct settings *s, const char *name)
{
    const struct option *option = find_option(name, strlen(name));
    return s->asked[option - options];
}

bp_status bp_config_load(int argc, char **argv, struct bp_config *ret, enum bp_config_action *ret_action,
                         struct bp_error *err)
{
    struct settings *s = calloc(1, sizeof *s);
    struct bp_config config = {0};
    enum bp_config_action action = BP_CONFIG_RUN;
    if (!s)
        return bp_fail(err, BP_NOMEM, "out of memory");
    set_defaults(s);
    bp_status status = take_flags(s, argc, argv, err);
    if (status)
        goto out;
    if (asked(s, "help") || asked(s, "version")) {
        action = BP_CONFIG_EXIT;
        if (asked(s, "help"))
            print_help();
        else
            printf("backpropd %s\n", BACKPROPD_VERSION);
    } else {
        status = take_environment(s, err);
        const char *file = s->values[find_option("config", 6) - options].text;
        if (!status && *file)
            status = take_file(s, file, err);
        if (!status)
            status = read_all(s, &config, err);
        if (!status && asked(s, "print-config")) {
            print_config(s);
            action = BP_CONFIG_EXIT;
        }
    }
    if (status)
        goto out;
    *ret = config;
    *ret_action = action;
out:
    free(s);
    return status;
}

bp_status bp_config_token(const char *path, char *ret, size_t size, struct bp_error *err)
{
    struct stat info;
    bp_status status = BP_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info)) {
        status = bp_fail(err, BP_CONFLICT, "--token-file %.200s cannot be read: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(info.st_mode) || (info.st_mode & (S_IRWXG | S_IRWXO))) {
        status = bp_fail(err, BP_CONFLICT, "--token-file %.200s is open to others: chmod 600 %.200s", path, path);
        goto out;
    }
    ssize_t n = read(fd, ret, size - 1);
    while (n > 0 && strchr(" \t\r\n", ret[n - 1]))
        n--;
    if (n < BP_TOKEN_MIN || n == (ssize_t)size - 1 || memchr(ret, '\0', (size_t)n)) {
        status = bp_fail(err, BP_CONFLICT, "--token-file %.200s must hold a token of %d to %zu characters", path,
                         BP_TOKEN_MIN, size - 2);
        goto out;
    }
    ret[n] = '\0';
out:
    if (fd >= 0)
        close(fd);
    return status;
}
