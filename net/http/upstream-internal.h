/* What the files of an HTTP backend share: upstream.c (connections, and what the router asks),
 * upstream_reply.c (what the server said, and how exchanges end). */
#pragma once

#include "core/base/clock.h"
#include "net/http/answer.h"
#include "net/http/endpoint.h"
#include "net/http/forward.h"
#include "net/http/sending.h"
#include "net/http/upstream.h"

enum { READ_SIZE = 64 << 10, CALL_ANSWER_MAX = 256 << 20, SPARE_MAX = 64 };
#define IDLE_TIME RS_SEC /* servers wait longer: 2 s (nginx) to 5 s (uvicorn, Node.js) and more */

struct rs_upstream {
    struct rs_backend backend;
    struct rs_loop *loop;
    struct rs_endpoint at;
    bool keep_prefix;
    struct rs_list idle;  /* connections, the last used first */
    struct rs_list busy;  /* exchanges */
    struct rs_list spare; /* exchanges that were, with their buffers */
    unsigned spares;
    struct rs_list todo;
    struct rs_after work;
    struct rs_timer idle_timer, retry_timer;
    int64_t retry;
    struct rs_buf meta;
    char chunk[READ_SIZE];
};

struct rs_upstream_conn {
    struct rs_io io;
    struct rs_list link;
    struct rs_upstream *u;
    struct rs_exchange *x; /* NULL: idle */
    int64_t since;         /* idle since */
    uint32_t events;       /* watched, while it is */
    bool connecting, reused;
};

struct rs_exchange {
    struct rs_list link, todo;
    struct rs_upstream *u;
    struct rs_request *r;
    struct rs_upstream_conn *c; /* NULL: not yet */
    struct rs_forward fw;
    uint64_t fed; /* bytes of body that there are so far */
    int64_t credit;
    int refused; /* HTTP status to answer with instead of asking the server */
    bool wrong;  /* nothing that can be sent, see problem */
    bool whole, body_end, got_bytes, retried, answered, cut_off, items, gathers;

    /* --- kept from one request to the next, and reset one by one --- */
    struct rs_sending out;
    struct rs_http_answer_in in;
    struct rs_buf args, call; /* a call's arguments from a memfd; its answer */
    struct rs_error problem;
};

void rs_upstream_conn_close(struct rs_upstream_conn *c);
/* Watches for `events`, 0: for none, not even a hang-up that would be told again and again. */
int rs_upstream_conn_watch(struct rs_upstream_conn *c, uint32_t events, struct rs_error *err);
/* The request has ended or is not wanted; the exchange goes back to the shelf. */
void rs_upstream_release(struct rs_exchange *x);
/* The request fails with this; the exchange has ended. */
void rs_upstream_fail(struct rs_exchange *x, enum rs_wire_error code, const char *type,
                      const char *message);
/* It may be run again elsewhere; else the control thread may know more than the connection does. The
 * exchange has ended. */
void rs_upstream_died(struct rs_exchange *x, const char *why);
/* Answers with x->refused; the exchange has ended. */
void rs_upstream_refuse(struct rs_exchange *x);
/* Passes on what the last bytes brought. `more`: they went on after the answer. False: it has ended. */
bool rs_upstream_reply(struct rs_exchange *x, bool more);
