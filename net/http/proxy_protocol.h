/* The PROXY header, version 1 (text) and 2 (binary), that a proxy puts in front of a connection's bytes to
 * tell whose they are. No sockets.
 */
#pragma once

#include "core/base/error.h"
#include "net/wire/tcp.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    RS_PROXY_HEADER_MAX = 4096, /* bytes; a longer one is refused */
    RS_PROXY_MORE = 1,
};

struct rs_proxy_header {
    bool known; /* false: the proxy speaks for itself (a health check), or of no TCP connection */
    struct rs_address client, server;
};

/* 0: *used bytes were the header. RS_PROXY_MORE: it is not complete. -1: this is none. */
RS_MUST_CHECK int rs_proxy_header_parse(const char *data, size_t n, size_t *used,
                                        struct rs_proxy_header *ret, struct rs_error *err);
