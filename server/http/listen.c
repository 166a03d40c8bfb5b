/* listen.c: the listening socket, made by ourselves so that a failure can be named.
 *
 * Threads: start-up only.
 */
#include "http/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BACKLOG 128 /* connections that wait to be accepted */

static bp_status fail_bind(struct bp_error *err, const char *host, int port, int error)
{
    const char *open = strchr(host, ':') ? "[" : "", *close_bracket = *open ? "]" : "";
    if (error == EADDRINUSE)
        return bp_fail(err, BP_CONFLICT,
                       "%s%s%s:%d is in use by another process; stop it, or choose another port with --listen", open,
                       host, close_bracket, port);
    if (error == EACCES)
        return bp_fail(err, BP_IO, "port %d needs privileges; choose one from 1024 on with --listen", port);
    if (error == EADDRNOTAVAIL)
        return bp_fail(err, BP_INVALID, "this machine has no address %s; check --listen", host);
    return bp_fail(err, BP_IO, "cannot listen on %s%s%s:%d: %s", open, host, close_bracket, port, strerror(error));
}

static int bound_port(int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size))
        return -1;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

bp_status bp_listen(const char *host, int port, int *ret_fd, int *ret_port, struct bp_error *err)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[16];
    int fd = -1;
    bp_status status = BP_OK;

    snprintf(service, sizeof service, "%d", port);
    int failed = getaddrinfo(host, service, &hints, &found);
    if (failed)
        return bp_fail(err, BP_INVALID, "cannot resolve the address %s: %s; check --listen", host,
                       gai_strerror(failed));
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        status = bp_fail(err, BP_IO, "cannot make a socket: %s", strerror(errno));
        goto out;
    }
    /* Lets a restarted daemon bind at once; on Linux it never lets two listen on the same port. */
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, BACKLOG)) {
        status = fail_bind(err, host, port, errno);
        goto out;
    }
    int bound = bound_port(fd);
    if (bound < 0) {
        status = bp_fail(err, BP_IO, "cannot read the port that was bound: %s", strerror(errno));
        goto out;
    }
    *ret_port = bound;
    *ret_fd = fd;
    fd = -1;
out:
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
    return status;
}
