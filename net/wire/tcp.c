#include "net/wire/tcp.h"

#include "core/base/alloc.h"
#include "net/wire/starved.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

struct rs_listener {
    struct rs_io io;
    struct rs_starved starved;
    void (*on_accept)(int fd, void *arg);
    void *arg;
};

int rs_address_from_ip(struct rs_address *a, const char *host, int port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};

    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(&a->sa, &v4, sizeof(v4));
        a->len = sizeof(v4);
        return 0;
    }
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(&a->sa, &v6, sizeof(v6));
        a->len = sizeof(v6);
        return 0;
    }
    return -1;
}

int rs_address_split(const char *text, char *host, size_t size, int *port)
{
    const char *colon = strrchr(text, ':');
    const char *start = text;
    size_t len;
    char *end;
    long n;

    if (text[0] == '[') {
        const char *close = strchr(text, ']');

        if (!close || (close[1] && close[1] != ':'))
            return -1;
        start = text + 1;
        len = (size_t)(close - start);
        colon = close[1] ? close + 1 : NULL;
    } else if (colon && strchr(text, ':') != colon) {
        len = strlen(text); /* more than one colon: a bare IPv6 address */
        colon = NULL;
    } else {
        len = colon ? (size_t)(colon - text) : strlen(text);
    }
    if (len >= size)
        return -1;
    snprintf(host, size, "%.*s", (int)len, start);
    if (!host[0])
        snprintf(host, size, "0.0.0.0");
    *port = -1;
    if (!colon)
        return 0;
    n = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end || n < 0 || n > 65535)
        return -1;
    *port = (int)n;
    return 0;
}

int rs_address_parse(const char *text, int def_port, struct rs_address *ret, struct rs_error *err)
{
    struct rs_address a = {0};
    char host[64];
    int port;

    if (rs_address_split(text, host, sizeof(host), &port) < 0)
        return rs_error_set(err, RS_INVALID, "expected an address as HOST:PORT, got \"%s\"", text);
    if (port < 0)
        port = def_port;
    if (port < 0)
        return rs_error_set(err, RS_INVALID, "expected a port in \"%s\", as in %s:6379", text,
                            text);
    if (rs_address_from_ip(&a, host, port) < 0)
        return rs_error_set(
            err, RS_INVALID,
            "expected an IP address or localhost in \"%s\": names are not taken here", text);
    *ret = a;
    return 0;
}

int rs_address_unix(const char *path, struct rs_address *ret, struct rs_error *err)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(un.sun_path))
        return rs_error_set(err, RS_INVALID, "the path of a Unix socket is too long: %s", path);
    memcpy(un.sun_path, path, strlen(path));
    *ret = (struct rs_address){.len = sizeof(un)};
    memcpy(&ret->sa, &un, sizeof(un));
    return 0;
}

uint16_t rs_address_port(const struct rs_address *a)
{
    struct sockaddr_in6 v6;
    struct sockaddr_in v4;

    if (a->sa.ss_family == AF_INET6) {
        memcpy(&v6, &a->sa, sizeof(v6));
        return ntohs(v6.sin6_port);
    }
    memcpy(&v4, &a->sa, sizeof(v4));
    return ntohs(v4.sin_port);
}

void rs_address_print(const struct rs_address *a, char *out, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";
    struct sockaddr_in6 v6;
    struct sockaddr_in v4;
    struct sockaddr_un un;

    if (a->sa.ss_family == AF_UNIX) {
        memcpy(&un, &a->sa, sizeof(un));
        snprintf(out, size, "%s", un.sun_path);
        return;
    }
    if (a->sa.ss_family == AF_INET6) {
        memcpy(&v6, &a->sa, sizeof(v6));
        inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
        snprintf(out, size, "[%s]:%u", host, rs_address_port(a));
        return;
    }
    memcpy(&v4, &a->sa, sizeof(v4));
    inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
    snprintf(out, size, "%s:%u", host, rs_address_port(a));
}

/* No delay for short messages; and the kernel asks a silent machine whether it is there, so that one that
 * vanished without a word is known to be gone after ten seconds or so. */
static void set_up(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {{IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
                   {IPPROTO_TCP, TCP_KEEPIDLE, 4}, {IPPROTO_TCP, TCP_KEEPINTVL, 2},
                   {IPPROTO_TCP, TCP_KEEPCNT, 3},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 10000}};

    for (size_t i = 0; i < RS_COUNT(options); i++)
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

static int on_readable(struct rs_io *io, uint32_t events)
{
    struct rs_listener *l = rs_container_of(io, struct rs_listener, io);

    (void)events;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            (void)rs_starved_failed(&l->starved, errno);
            break; /* none left, or out of descriptors */
        }
        rs_starved_accepted(&l->starved);
        set_up(fd);
        l->on_accept(fd, l->arg);
    }
    return 0;
}

int rs_tcp_listen(const struct rs_address *at, int *ret, struct rs_error *err)
{
    rs_auto(rs_closep) int fd =
        socket(at->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    char text[80];

    rs_address_print(at, text, sizeof(text));
    if (fd < 0)
        return rs_error_errno(err, errno, "cannot create a socket for %s", text);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (const struct sockaddr *)&at->sa, at->len) < 0 || listen(fd, 128) < 0)
        return rs_error_errno(err, errno, "cannot listen on %s", text);
    *ret = rs_steal_fd(&fd);
    return 0;
}

int rs_listener_on(struct rs_listener **ret, struct rs_loop *loop, int fd,
                   void (*on_accept)(int fd, void *arg), void *arg, struct rs_error *err)
{
    rs_auto(rs_listener_freep) struct rs_listener *l = rs_alloc(sizeof(*l));

    l->on_accept = on_accept;
    l->arg = arg;
    l->io.fn = on_readable;
    l->io.fd = fd;
    if (rs_io_start(&l->io, loop, EPOLLIN, err) < 0)
        return -1;
    rs_starved_init(&l->starved, &l->io, loop, "nodes and programs");
    *ret = rs_steal(l);
    return 0;
}

int rs_listener_new(struct rs_listener **ret, struct rs_loop *loop, const struct rs_address *at,
                    void (*on_accept)(int fd, void *arg), void *arg, struct rs_error *err)
{
    int fd = -1;

    if (rs_tcp_listen(at, &fd, err) < 0)
        return -1;
    return rs_listener_on(ret, loop, fd, on_accept, arg, err);
}

void rs_listener_free(struct rs_listener *l)
{
    if (!l)
        return;
    rs_starved_stop(&l->starved);
    rs_io_stop(&l->io);
    rs_closep(&l->io.fd);
    free(l);
}

void rs_listener_address(const struct rs_listener *l, struct rs_address *ret)
{
    *ret = (struct rs_address){.len = sizeof(ret->sa)};
    (void)getsockname(l->io.fd, (struct sockaddr *)&ret->sa, &ret->len);
}

int rs_tcp_connect(const struct rs_address *to, int *ret, struct rs_error *err)
{
    int fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    char text[80];

    rs_address_print(to, text, sizeof(text));
    if (fd < 0)
        return rs_error_errno(err, errno, "cannot create a socket for %s", text);
    set_up(fd);
    if (connect(fd, (const struct sockaddr *)&to->sa, to->len) < 0 && errno != EINPROGRESS) {
        rs_error_errno(err, errno, "cannot connect to %s", text);
        close(fd);
        return -1;
    }
    *ret = fd;
    return 0;
}
