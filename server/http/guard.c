/* guard.c: what is refused on the headers, before a byte of the body is read.
 *
 * Framing: libmicrohttpd 0.9.75 takes shapes that another server in front of us may read as two requests: a
 * Transfer-Encoding beside a Content-Length, either of them twice, a space before a colon, two Hosts. Each is answered
 * with 400 and the connection is closed, so that what follows is never read as a request. A header line that is
 * folded, and a NUL inside a value, cannot be seen from here: the value arrives joined, or cut at the NUL, and neither
 * has a meaning for framing.
 *
 * Browsers: a page on the web may send requests to loopback. It cannot choose its Host (which stops names that are
 * rebound to 127.0.0.1) nor its Origin, so both are checked.
 *
 * Threads: the connection's.
 */
#include "http/internal.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct header_counts {
    int hosts, lengths, encodings, authorizations;
    bool chunked, bad_length, bad_name, bad_value, any_encoding;
    const char *host;
};

/* A token of RFC 9110: no space, no control character, no separator. */
static bool is_token(const char *text, size_t size)
{
    if (size == 0)
        return false;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (!isalnum(c) && !strchr("!#$%&'*+-.^_`|~", c))
            return false;
    }
    return true;
}

static bool is_number(const char *text, size_t size)
{
    if (size == 0 || size > 19)
        return false;
    for (size_t i = 0; i < size; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return true;
}

static enum MHD_Result count_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_size,
                                    const char *value, size_t value_size)
{
    struct header_counts *counts = cls;
    (void)kind;
    if (!is_token(key, key_size)) {
        counts->bad_name = true;
        return MHD_YES;
    }
    for (size_t i = 0; value && i < value_size; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            counts->bad_value = true;
    }
    if (!strcasecmp(key, MHD_HTTP_HEADER_HOST)) {
        counts->hosts++;
        counts->host = value;
    } else if (!strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH)) {
        counts->lengths++;
        counts->bad_length |= !value || !is_number(value, value_size);
    } else if (!strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING)) {
        counts->encodings++;
        counts->chunked = value && !strcasecmp(value, "chunked");
    } else if (!strcasecmp(key, MHD_HTTP_HEADER_AUTHORIZATION)) {
        counts->authorizations++;
    }
    return MHD_YES;
}

static bool refuse(struct bp_request *r, int status, const char *code, const char *why)
{
    bp_problem(&r->reply, status, code, "%s", why);
    r->reply.close = true;
    return false;
}

bool bp_guard_framing(struct bp_request *r)
{
    struct header_counts c = {0};
    MHD_get_connection_values_n(r->connection, MHD_HEADER_KIND, count_header, &c);
    if (c.bad_name)
        return refuse(r, 400, "bad_header", "a header name has a space or another forbidden character");
    if (c.bad_value)
        return refuse(r, 400, "bad_header", "a header value has a control character");
    if (c.encodings > 1 || c.lengths > 1 || (c.encodings && c.lengths))
        return refuse(r, 400, "ambiguous_framing",
                      "the length of the body is given more than once (Content-Length, Transfer-Encoding)");
    if (c.encodings && !c.chunked)
        return refuse(r, 400, "bad_transfer_encoding", "the only Transfer-Encoding is chunked");
    if (c.bad_length)
        return refuse(r, 400, "bad_content_length", "Content-Length must be a decimal number");
    if (c.hosts != 1)
        return refuse(r, 400, c.hosts ? "duplicate_header" : "missing_host", "a request has exactly one Host header");
    if (c.authorizations > 1)
        return refuse(r, 400, "duplicate_header", "a request has at most one Authorization header");

    const char *encoding = bp_request_header(r, MHD_HTTP_HEADER_CONTENT_ENCODING);
    if (encoding && *encoding && strcasecmp(encoding, "identity"))
        return refuse(r, 415, "encoding_unsupported",
                      "Content-Encoding is not accepted; send the file as it is (a dataset file may be gzip itself)");
    const char *expect = bp_request_header(r, MHD_HTTP_HEADER_EXPECT);
    if (expect && strcasecmp(expect, "100-continue"))
        return refuse(r, 417, "expectation_failed", "the only Expect is 100-continue");

    const char *length = bp_request_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
    r->body.declared = c.encodings ? -1 : 0;
    for (const char *p = length; p && *p; p++) {
        if (r->body.declared > (INT64_MAX - 9) / 10)
            return refuse(r, 413, "body_too_large", "Content-Length is beyond anything we take");
        r->body.declared = r->body.declared * 10 + (*p - '0');
    }
    return true;
}

bool bp_guard_method(struct bp_request *r)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", NULL};
    for (int i = 0; known[i]; i++)
        if (!strcmp(r->method, known[i]))
            return true;
    bp_problem(&r->reply, 501, "method_unknown", "methods are GET, HEAD, POST, PUT, PATCH and DELETE, in capitals");
    r->reply.close = true;
    return false;
}

/* The name part of "name", "name:port", "[v6]" or "[v6]:port", with its brackets. False when it is none of them. */
static bool host_name(const char *host, char *ret, size_t size)
{
    size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    if (*host == '[' && host[n - 1] != ']')
        return false;
    if (n == 0 || n >= size)
        return false;
    const char *port = host + n;
    if (*port && (*port != ':' || strspn(port + 1, "0123456789") != strlen(port + 1) || strlen(port) > 6))
        return false;
    memcpy(ret, host, n);
    ret[n] = '\0';
    return true;
}

/* Names are compared without brackets, so that "::1" in an option means "[::1]" in a Host. */
static bool same_host(const char *name, const char *allowed)
{
    size_t n = strlen(name), m = strlen(allowed);
    if (n > 1 && *name == '[')
        name++, n -= 2;
    if (m > 1 && *allowed == '[')
        allowed++, m -= 2;
    return n == m && !strncasecmp(name, allowed, n);
}

static bool is_allowed(const struct bp_http *http, const char *name)
{
    static const char *const loopback[] = {"127.0.0.1", "localhost", "::1", NULL};
    for (int i = 0; loopback[i]; i++)
        if (same_host(name, loopback[i]))
            return true;
    if (same_host(name, http->host))
        return true;
    for (char **host = http->hosts; host && *host; host++)
        if (same_host(name, *host))
            return true;
    return false;
}

bool bp_guard_origin(struct bp_request *r)
{
    char name[256];
    const char *host = bp_request_header(r, MHD_HTTP_HEADER_HOST);
    if (!host || !host_name(host, name, sizeof name))
        return refuse(r, 400, "bad_host", "the Host header is not a name with an optional port");
    if (!is_allowed(r->http, name)) {
        bp_problem(&r->reply, 403, "host_not_allowed",
                   "this server does not answer to that Host; start it with --allow-host NAME to let it");
        r->reply.close = true;
        return false;
    }
    const char *origin = bp_request_header(r, MHD_HTTP_HEADER_ORIGIN);
    if (!origin)
        return true;
    const char *authority = !strncasecmp(origin, "http://", 7)    ? origin + 7
                            : !strncasecmp(origin, "https://", 8) ? origin + 8
                                                                  : "";
    if (!strcasecmp(authority, host))
        return true;
    return refuse(r, 403, "origin_not_allowed", "requests from pages of another origin are refused");
}

/* Probes of an init system or an orchestrator carry no secrets and learn nothing but "alive". */
static bool is_open(const struct bp_request *r)
{
    return r->path && (!strcmp(r->path, "/healthz") || !strcmp(r->path, "/readyz"));
}

bool bp_guard_token(struct bp_request *r)
{
    if (!r->http->has_token || is_open(r))
        return true;
    const char *header = bp_request_header(r, MHD_HTTP_HEADER_AUTHORIZATION);
    const char *token = "";
    if (header && !strncasecmp(header, "Bearer ", 7)) {
        token = header + 7;
        token += strspn(token, " ");
    }
    /* The hash is compared, over its whole length: time tells nothing about the token. */
    struct sha256_ctx sha256;
    unsigned char digest[SHA256_DIGEST_SIZE];
    sha256_init(&sha256);
    sha256_update(&sha256, strlen(token), (const uint8_t *)token);
    sha256_digest(&sha256, sizeof digest, digest);
    unsigned difference = 0;
    for (size_t i = 0; i < sizeof digest; i++)
        difference |= digest[i] ^ r->http->token[i];
    if (difference == 0)
        return true;
    bp_problem(&r->reply, 401, "unauthorized", "send the token: curl -H \"Authorization: Bearer $(cat TOKEN_FILE)\"");
    bp_reply_header(&r->reply, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"backpropd\"");
    return false;
}
