/* Where an HTTP server is: a TCP port or a Unix socket.
 */
#pragma once

#include "core/base/error.h"
#include "net/wire/tcp.h"

struct rs_endpoint {
    struct rs_address address;
    char name[128]; /* "127.0.0.1:8001", "localhost" for a Unix socket: fit for a Host header */
};

RS_MUST_CHECK int rs_endpoint_set(struct rs_endpoint *e, const char *host, uint16_t port,
                                  const char *unix_path, struct rs_error *err);
enum { RS_ENDPOINT_CONNECTING = 1 };
/* Starts to connect: 0 connected, RS_ENDPOINT_CONNECTING, or -1 with errno in err->sys_errno. */
RS_MUST_CHECK int rs_endpoint_connect(const struct rs_endpoint *e, int *ret, struct rs_error *err);
/* How a connect that was under way ended. */
RS_MUST_CHECK int rs_endpoint_connected(const struct rs_endpoint *e, int fd, struct rs_error *err);
