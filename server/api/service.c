/* service.c: the daemon about itself: the guide, health, readiness, versions.
 *
 * All of it answers at once and reads nothing but memory, so that a probe is never slow.
 *
 * Threads: the connection's.
 */
#include "api/api.h"
#include "api/common.h"
#include "config.h"
#include "kernels/kernels.h"
#include "store/store.h"
#include "train/trainer.h"

#include <microhttpd.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static const char guide_head[] =
    "backpropd %s: trains neural networks by backpropagation. Three commands:\n"
    "\n"
    "  curl -T iris.csv http://%s/v1/datasets/iris\n"
    "  curl 'http://%s/v1/jobs?wait=60' -d '{\"dataset\": \"iris\", \"target\": \"species\", \"layers\": [64, 32]}'\n"
    "  curl -OJ http://%s/v1/jobs/JOB/weights.safetensors\n"
    "\n"
    "The second prints the job; its \"id\" takes the place of JOB. Errors say what to change, and where.\n"
    "\n";

static const char guide_token[] = "This server wants a token with each request:\n"
                                  "  -H \"Authorization: Bearer $(cat TOKEN_FILE)\"\n\n";

void bp_api_guide(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    const struct bp_app *app = arg;
    struct bp_text text = {0};
    const char *host = bp_request_header(request, MHD_HTTP_HEADER_HOST); /* was checked against the allowed names */
    if (!host)
        host = "127.0.0.1:8080";
    bp_text_add(&text, guide_head, BACKPROPD_VERSION, host, host, host);
    if (app->config->token_file[0])
        bp_text_add(&text, "%s", guide_token);
    bp_text_add(&text, "What there is ({} stands for a name or an id):\n\n");
    for (const struct bp_route *route = bp_routes; route->method; route++) {
        bp_text_add(&text, "  %-6s %-36s %s\n", route->method, route->path, route->help);
        if (route->query && *route->query)
            bp_text_add(&text, "  %-6s   ?%s\n", "", route->query);
    }
    bp_text_add(&text, "\nA spec may say what GET /v1/capabilities lists.\n");
    bp_text_reply(&text, reply, "text/plain; charset=utf-8");
}

void bp_api_healthz(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    (void)request, (void)arg;
    bp_reply_json(reply, 200, json_pack("{s:s}", "status", "ok"));
}

void bp_api_readyz(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    (void)request;
    if (app->draining)
        bp_problem(reply, 503, "shutting_down", "the server is being stopped");
    else if (bp_store_failed(app->store))
        bp_problem(reply, 503, "disk_failed",
                   "the database can no longer be written; see the server's log, then "
                   "restart it: what was acknowledged is safe");
    else
        bp_reply_json(reply, 200, json_pack("{s:s}", "status", "ready"));
    bp_reply_header(reply, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
}

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static json_t *warnings(void)
{
    json_t *list = json_array();
    if (!strcmp(bp_kernels_current()->name, "generic"))
        json_array_append_new(list,
                              json_string("portable kernels are in use: training is many times slower than with "
                                          "AVX2, AVX-512 or NEON (see BACKPROPD_SIMD)"));
    return list;
}

void bp_api_version(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    const struct bp_app *app = arg;
    (void)request;
    bp_reply_json(reply, 200,
                  json_pack("{s:s, s:i, s:s, s:i, s:s, s:s, s:s, s:s, s:o, s:o}", "version", BACKPROPD_VERSION,
                            "numerics_version", BP_NUMERICS_VERSION, "simd", bp_kernels_current()->name, "threads",
                            app->config->threads, "compiler", COMPILER, "sqlite", sqlite3_libversion(),
                            "libmicrohttpd", MHD_get_version(), "jansson", jansson_version_str(), "started_at",
                            bp_api_time(app->started_at), "warnings", warnings()));
}
