#include "net/http/endpoint.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

int rs_endpoint_set(struct rs_endpoint *e, const char *host, uint16_t port, const char *unix_path,
                    struct rs_error *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&e->address.sa;

    *e = (struct rs_endpoint){0};
    if (!unix_path) {
        snprintf(e->name, sizeof(e->name), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
        return rs_address_parse(e->name, -1, &e->address, err);
    }
    if (strlen(unix_path) >= sizeof(un->sun_path))
        return rs_error_set(err, RS_INVALID, "a socket's path has at most %zu bytes, '%s' has %zu",
                            sizeof(un->sun_path) - 1, unix_path, strlen(unix_path));
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, unix_path, strlen(unix_path) + 1);
    e->address.len = sizeof(*un);
    snprintf(e->name, sizeof(e->name), "localhost");
    return 0;
}

static int failed(const struct rs_endpoint *e, int sys_errno, struct rs_error *err)
{
    return rs_error_errno(err, sys_errno, "cannot connect to the HTTP server at %s",
                          e->address.sa.ss_family == AF_UNIX
                              ? ((const struct sockaddr_un *)&e->address.sa)->sun_path
                              : e->name);
}

int rs_endpoint_connect(const struct rs_endpoint *e, int *ret, struct rs_error *err)
{
    rs_auto(rs_closep) int fd =
        socket(e->address.sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1, r = 0;

    if (fd < 0)
        return failed(e, errno, err);
    if (e->address.sa.ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (const struct sockaddr *)&e->address.sa, e->address.len) < 0) {
        if (errno != EINPROGRESS)
            return failed(e, errno, err);
        r = RS_ENDPOINT_CONNECTING;
    }
    *ret = rs_steal_fd(&fd);
    return r;
}

int rs_endpoint_connected(const struct rs_endpoint *e, int fd, struct rs_error *err)
{
    int why = 0;
    socklen_t len = sizeof(why);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &len) < 0)
        why = errno;
    return why ? failed(e, why, err) : 0;
}
