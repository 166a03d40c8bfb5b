/* config.h: the daemon's options: flags, then environment (BACKPROPD_*), then --config FILE (JSON), then defaults. */
#ifndef BP_SERVER_CONFIG_H
#define BP_SERVER_CONFIG_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bp_config {
    char host[64];       /* --listen HOST:PORT, default 127.0.0.1:8080; [::1]:8080 for IPv6 */
    int port;            /* 0: a free one */
    char data_dir[1024]; /* --data-dir, default $XDG_DATA_HOME/backpropd or ~/.local/share/backpropd */
    int threads;         /* --threads: the budget of all jobs; default: affinity and cgroup quota */
    int workers;         /* --workers: jobs at a time, default 2 */
    int64_t
        memory; /* --memory BYTES (suffixes K, M, G): of one job; default: 3/4 of what the machine or cgroup has */
    int64_t max_upload;       /* --max-upload BYTES, default 16G */
    int64_t max_database;     /* --max-database BYTES, default 0: no limit */
    char token_file[1024];    /* --token-file; "" for none */
    char allowed_hosts[1024]; /* --allow-host NAME[,NAME…]: further names in Host */
    bool log_json;            /* --log-format text|json */
    int log_level;            /* --log-level debug|info|warn|error */
};

enum bp_config_action { BP_CONFIG_RUN, BP_CONFIG_EXIT /* --help, --version, --print-config: done */ };

/* Fills config from argv, environment and file. The message of a failure names the option, its value and what is
 * allowed. BP_INVALID: the command line is wrong (exit 64). BP_CONFLICT: it is understood, but environment, file or
 * the whole is not acceptable, such as listening beyond loopback without a token (exit 78). BP_NOMEM. Prints help,
 * version or the configuration to stdout where asked. */
bp_status bp_config_load(int argc, char **argv, struct bp_config *ret, enum bp_config_action *ret_action,
                         struct bp_error *err);

#define BP_TOKEN_MIN 16 /* characters of a token; fewer could be guessed */

/* Reads the token of --token-file, without white space at its end. BP_CONFLICT when the file cannot be read, is open
 * to group or others, or holds no token. */
bp_status bp_config_token(const char *path, char *ret, size_t size, struct bp_error *err);

#endif
