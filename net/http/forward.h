/* From a request on the wire protocol to the bytes of an HTTP/1.1 request for a server behind us.
 *
 * Path:    the application's route prefix is taken off, as a reverse proxy does for a server that is
 *          mounted there; X-Forwarded-Prefix tells it.
 * Headers: passed on without those that concern one connection. Host stays the client's;
 *          X-Request-Id is set; X-Forwarded-For is extended; -Proto and -Host are kept from a proxy
 *          in front of us or else set. What could end a line early is refused or left out.
 * Calls:   a handle call becomes a request too: `handle.METHOD.remote(path[, body])` with text or
 *          bytes, METHOD an HTTP method in lower case; without METHOD it is GET, or POST with a body.
 * Ownership: what a result points to is borrowed from the inputs.
 */
#pragma once

#include "core/base/buf.h"
#include "net/wire/frame.h"

struct rs_forward_conf {
    const char *host; /* Host where the client sent none: "127.0.0.1:8001" */
    bool keep_prefix; /* leave the route prefix on the path */
};

struct rs_forward {
    bool to_head;               /* HEAD: no body in the answer */
    bool idempotent;            /* may be sent again if it is not known what became of it */
    bool chunked;               /* the body is sent in chunks */
    uint64_t length;            /* bytes of body if not chunked */
    const char *body;           /* calls: what to send */
    char method[16], path[256]; /* for messages; cut */
};

/* Appends the head, with its empty line. `whole`: all `len` bytes of the body are there; otherwise
 * they come later. 0, or the HTTP status with which the request is to be refused. */
int rs_forward_http(struct rs_buf *head, const struct rs_fields *f,
                    const struct rs_forward_conf *conf, bool whole, uint64_t len,
                    struct rs_forward *ret);

/* The same for a handle call whose pickled arguments are `args`. RS_NOT_FOUND: no such method.
 * RS_INVALID: other arguments. */
RS_MUST_CHECK int rs_forward_call(struct rs_buf *head, const struct rs_fields *f,
                                  const struct rs_forward_conf *conf, const char *args, size_t len,
                                  struct rs_forward *ret, struct rs_error *err);
