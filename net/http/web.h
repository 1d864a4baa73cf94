/* A small HTTP server inside a loop, for whole requests and whole answers: the admin API. The ingress
 * has a server of its own: it streams and parks what it serves.
 *
 * Thread:    everything on the loop's thread; a callback must not block.
 * Ownership: a request is borrowed for the length of the callback; the answer's buffer is taken.
 * Bounds:    a body up to `body_max` (else 413), a header up to 32 KiB (else 431), `connections` at a
 *            time, `idle_s` seconds without a byte in either direction.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"

struct rs_web;

struct rs_web_request {
    const char *method, *path; /* path: decoded, without the query */
    const char *body;          /* "" until the body is there */
    size_t len;
    bool peer_is_loopback;
    void *connection; /* for rs_web_header and rs_web_query */
    void *exchange;   /* for rs_web_wait */
};

/* Borrowed; NULL: none. Names of headers ignore case. */
const char *rs_web_header(const struct rs_web_request *req, const char *name);
const char *rs_web_query(const struct rs_web_request *req, const char *name);

enum { RS_WEB_HEADERS = 4, RS_WEB_HEADER_LEN = 160 };

struct rs_web_answer {
    int status;
    const char *type; /* static; NULL: no Content-Type */
    struct rs_buf body;
    struct {
        const char *name; /* static */
        char value[RS_WEB_HEADER_LEN];
    } headers[RS_WEB_HEADERS];
    unsigned n_headers;
};

/* One more header; `name` is static, a longer value is cut. More than RS_WEB_HEADERS is a bug. */
void rs_web_answer_header(struct rs_web_answer *a, const char *name, const char *fmt, ...)
    RS_PRINTF(3, 4);

/* An answer that is not known yet: its connection is parked, at no cost, and without its idle time. */
struct rs_web_later;
/* In on_request only, whose `answer` then does not count: rs_web_later_answer follows, once. Where the
 * server ends before, it is dropped and must not be answered any more. */
struct rs_web_later *rs_web_wait(const struct rs_web_request *req);
void rs_web_later_answer(struct rs_web_later *l, struct rs_web_answer *answer);

struct rs_web_ops {
    /* The header is there, the body is not. True: `answer` is final, the body is thrown away. */
    bool (*on_header)(const struct rs_web_request *req, struct rs_web_answer *answer, void *arg);
    void (*on_request)(const struct rs_web_request *req, struct rs_web_answer *answer, void *arg);
    /* A request that is refused before it reaches the others: fills the body for `status`. */
    void (*on_refused)(int status, const char *why, struct rs_web_answer *answer, void *arg);
};

struct rs_web_conf {
    const char *host;   /* IP address or localhost */
    uint16_t port;      /* 0: any free one */
    const char *option; /* named when the port is taken: "--dashboard-port" */
    int listening;      /* a socket that listens already, in place of these; taken. 0: none */
    size_t body_max;
    unsigned connections, idle_s;
};

RS_MUST_CHECK int rs_web_new(struct rs_web **ret, struct rs_loop *loop,
                             const struct rs_web_conf *conf, const struct rs_web_ops *ops,
                             void *arg, struct rs_error *err);
void rs_web_free(struct rs_web *w);
RS_DEFINE_AUTO(struct rs_web *, rs_web_free);
uint16_t rs_web_port(const struct rs_web *w);
/* True if only this machine can reach it. */
bool rs_web_is_loopback(const struct rs_web *w);
