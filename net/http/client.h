/* A small blocking HTTP/1.1 client, for verbs of the command line that ask a running rserve.
 *
 * Units:     timeout is nanoseconds, for the whole call.
 * Bounds:    an answer's body up to `body_max`, its header up to 64 KiB.
 * Ownership: the answer is the caller's: rs_http_answer_fini.
 * Errors:    RS_INVALID: the address is none. RS_NOT_FOUND: nothing listens there. RS_TIMEOUT. RS_NO_ROOM:
 *            the answer is longer than it may be. RS_SYSTEM: the rest, an answer that is not HTTP too.
 *            An HTTP status, whichever, is not an error.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"

#include <stdint.h>

struct rs_http_call {
    const char *base;   /* "http://127.0.0.1:8265", perhaps with a path that goes before `path` */
    const char *method; /* NULL: GET */
    const char *path;   /* "/api/...", escaped, with the query */
    const char *body, *type; /* NULL: none */
    size_t len;
    const char *token;    /* Authorization: Bearer; NULL: none */
    const char *agent;    /* User-Agent; NULL: none */
    const char *if_match; /* NULL: none */
    int64_t timeout;      /* 0: 10 s */
    size_t body_max;      /* 0: 64 MiB */
};

struct rs_http_answer {
    int status;
    char type[80]; /* Content-Type, "" if none; cut if longer */
    char etag[80]; /* likewise */
    struct rs_buf body;
};

RS_MUST_CHECK int rs_http_call(const struct rs_http_call *call, struct rs_http_answer *ret,
                               struct rs_error *err);
void rs_http_answer_fini(struct rs_http_answer *answer);
