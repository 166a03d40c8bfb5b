/* Options: sources and their order, values, messages, the token file. */
#include "config.h"

#include "machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct bp_error g_err;
static struct bp_config g_config;

static bp_status load(const char *arguments)
{
    char text[1024];
    char *argv[32] = {(char *)"backpropd"};
    int argc = 1;
    char *save = NULL;
    snprintf(text, sizeof text, "%s", arguments);
    for (char *arg = strtok_r(text, " ", &save); arg && argc < 31; arg = strtok_r(NULL, " ", &save))
        argv[argc++] = arg;
    enum bp_config_action action;
    memset(&g_err, 0, sizeof g_err);
    return bp_config_load(argc, argv, &g_config, &action, &g_err);
}

static void expect(const char *arguments, bp_status status, const char *text)
{
    bp_status got = load(arguments);
    if (got != status || (text && !strstr(g_err.message, text)))
        fail_msg("%s: %s, %s", arguments, bp_status_name(got), g_err.message);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    unlink(path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    chmod(path, mode);
}

static void test_defaults(void **state)
{
    (void)state;
    setenv("XDG_DATA_HOME", "/data/home", 1);
    expect("", BP_OK, NULL);
    assert_string_equal(g_config.host, "127.0.0.1");
    assert_int_equal(g_config.port, 8080);
    assert_string_equal(g_config.data_dir, "/data/home/backpropd");
    assert_int_equal(g_config.workers, 2);
    assert_int_equal(g_config.threads, bp_machine_threads());
    assert_true(g_config.memory > 0 && g_config.memory < bp_machine_memory());
    assert_int_equal(g_config.max_upload, (int64_t)16 << 30);
    unsetenv("XDG_DATA_HOME");
    setenv("HOME", "/home/ada", 1);
    expect("", BP_OK, NULL);
    assert_string_equal(g_config.data_dir, "/home/ada/.local/share/backpropd");
}

static void test_flags(void **state)
{
    (void)state;
    expect("--listen [::1]:0 --threads=7 --memory 2G --max-upload 10k --log-format json --log-level debug "
           "--allow-host a.example --allow-host b.example,c.example",
           BP_OK, NULL);
    assert_string_equal(g_config.host, "::1");
    assert_int_equal(g_config.port, 0);
    assert_int_equal(g_config.threads, 7);
    assert_int_equal(g_config.memory, (int64_t)2 << 30);
    assert_int_equal(g_config.max_upload, 10240);
    assert_true(g_config.log_json);
    assert_int_equal(g_config.log_level, 0);
    assert_string_equal(g_config.allowed_hosts, "a.example,b.example,c.example");

    expect("--treads 2", BP_INVALID, "did you mean --threads");
    expect("--xyzzy", BP_INVALID, "unknown option --xyzzy");
    expect("threads", BP_INVALID, "unexpected argument");
    expect("--threads", BP_INVALID, "needs a value");
    expect("--version=1", BP_INVALID, "takes no value");
    static const char *const bad[] = {
        "--threads 0",     "--threads 257",        "--threads 2x",   "--threads -1",     "--workers 0",
        "--memory 1Q",     "--memory 9999999999G", "--memory 1",     "--listen 8080",    "--listen :80",
        "--listen ::1:80", "--listen a:99999",     "--listen a:80x", "--log-format xml", "--log-level all"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect(bad[i], BP_INVALID, "must be");
}

static void test_order(void **state)
{
    (void)state;
    char path[] = "/tmp/bp-config-XXXXXX";
    char arguments[128];
    close(mkstemp(path));
    write_file(path, "{\"threads\": 3, \"workers\": \"4\", \"max_upload\": \"1M\", \"allow_host\": [\"a\", \"b\"]}",
               0600);
    snprintf(arguments, sizeof arguments, "--config %s --workers 6", path);
    setenv("BACKPROPD_MAX_UPLOAD", "2M", 1);
    setenv("BACKPROPD_WORKERS", "5", 1);
    expect(arguments, BP_OK, NULL);
    assert_int_equal(g_config.threads, 3);
    assert_int_equal(g_config.workers, 6);
    assert_int_equal(g_config.max_upload, 2 << 20);
    assert_string_equal(g_config.allowed_hosts, "a,b");
    setenv("BACKPROPD_WORKERS", "many", 1);
    expect("", BP_CONFLICT, "BACKPROPD_WORKERS must be");
    unsetenv("BACKPROPD_WORKERS");
    unsetenv("BACKPROPD_MAX_UPLOAD");
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"{\"thread\": 3}", "did you mean threads"},       {"{\"threads\": 1.5}", "must be"},
        {"{\"threads\": 0}", "in the configuration file"}, {"[1]", "must be a JSON object"},
        {"{\"threads\": 1, \"threads\": 2}", "line 1"},    {"{", "line 1"},
        {"{\"help\": \"1\"}", "unknown member"},
    };
    snprintf(arguments, sizeof arguments, "--config %s", path);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(path, bad[i].text, 0600);
        expect(arguments, BP_CONFLICT, bad[i].message);
    }
    unlink(path);
    expect(arguments, BP_CONFLICT, "cannot be read");
}

static void test_exposure(void **state)
{
    (void)state;
    expect("--listen 0.0.0.0:80", BP_CONFLICT, "--token-file");
    expect("--listen 192.168.1.2:80", BP_CONFLICT, "--token-file");
    expect("--listen [::]:80", BP_CONFLICT, "--token-file");
    expect("--listen 127.evil.example:80", BP_CONFLICT, "--token-file");
    expect("--listen 0.0.0.0:80 --token-file /x", BP_OK, NULL);
    expect("--listen 127.0.0.2:80", BP_OK, NULL);
    expect("--listen localhost:80", BP_OK, NULL);
}

static void test_token(void **state)
{
    (void)state;
    char path[] = "/tmp/bp-token-XXXXXX", token[64];
    close(mkstemp(path));
    write_file(path, "0123456789abcdef\n", 0600);
    assert_int_equal(bp_config_token(path, token, sizeof token, &g_err), BP_OK);
    assert_string_equal(token, "0123456789abcdef");
    write_file(path, "0123456789abcde\n\n\n", 0600);
    assert_int_equal(bp_config_token(path, token, sizeof token, &g_err), BP_CONFLICT);
    write_file(path, "", 0600);
    assert_int_equal(bp_config_token(path, token, sizeof token, &g_err), BP_CONFLICT);
    write_file(path, "0123456789012345678901234567890123456789012345678901234567890123456789", 0600);
    assert_int_equal(bp_config_token(path, token, sizeof token, &g_err), BP_CONFLICT);
    write_file(path, "0123456789abcdef\n", 0640);
    assert_int_equal(bp_config_token(path, token, sizeof token, &g_err), BP_CONFLICT);
    assert_non_null(strstr(g_err.message, "chmod 600"));
    unlink(path);
    assert_int_equal(bp_config_token(path, token, sizeof token, &g_err), BP_CONFLICT);
    assert_int_equal(bp_config_token("/tmp", token, sizeof token, &g_err), BP_CONFLICT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_flags), cmocka_unit_test(test_order),
        cmocka_unit_test(test_exposure), cmocka_unit_test(test_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
