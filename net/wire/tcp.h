/* TCP for links between nodes and the head: addresses, listeners, connecting.
 *
 * Addresses: "HOST:PORT", "[V6]:PORT" or ":PORT"; HOST is an IP address or localhost. For names see
 *            net/wire/resolve.h.
 * Thread:    a listener belongs to the thread of its loop; the rest may be called anywhere.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/loop/loop.h"

#include <netinet/in.h>
#include <sys/socket.h>

struct rs_address {
    struct sockaddr_storage sa;
    socklen_t len;
};

/* `def_port` < 0: a port is required. An error quotes the text and says what is expected. */
RS_MUST_CHECK int rs_address_parse(const char *text, int def_port, struct rs_address *ret,
                                   struct rs_error *err);
/* A Unix socket's path, for listeners only. */
RS_MUST_CHECK int rs_address_unix(const char *path, struct rs_address *ret, struct rs_error *err);
/* The parts of "HOST:PORT", the host without its brackets; the port is -1 where none is given. -1: it is
 * no such text, or the host does not fit. */
RS_MUST_CHECK int rs_address_split(const char *text, char *host, size_t size, int *port);
/* From an IP address or localhost. -1: it is none. */
RS_MUST_CHECK int rs_address_from_ip(struct rs_address *ret, const char *host, int port);
uint16_t rs_address_port(const struct rs_address *a);
/* "127.0.0.1:6379" into `out`. */
void rs_address_print(const struct rs_address *a, char *out, size_t size);

struct rs_listener;

/* `on_accept` gets each connection's descriptor and owns it. */
RS_MUST_CHECK int rs_listener_new(struct rs_listener **ret, struct rs_loop *loop,
                                  const struct rs_address *at, void (*on_accept)(int fd, void *arg),
                                  void *arg, struct rs_error *err);
/* The same on a socket that listens already, and is taken, also when it fails. */
RS_MUST_CHECK int rs_listener_on(struct rs_listener **ret, struct rs_loop *loop, int fd,
                                 void (*on_accept)(int fd, void *arg), void *arg,
                                 struct rs_error *err);
/* A socket that listens at `at`, for rs_listener_on here or in another process. */
RS_MUST_CHECK int rs_tcp_listen(const struct rs_address *at, int *ret, struct rs_error *err);
void rs_listener_free(struct rs_listener *l);
RS_DEFINE_AUTO(struct rs_listener *, rs_listener_free);
/* Where it listens, the port filled in. */
void rs_listener_address(const struct rs_listener *l, struct rs_address *ret);

/* Starts to connect: a non-blocking socket that becomes writable when it is connected, or -1. */
RS_MUST_CHECK int rs_tcp_connect(const struct rs_address *to, int *ret, struct rs_error *err);
