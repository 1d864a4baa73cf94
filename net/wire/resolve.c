#include "net/wire/resolve.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/list.h"

#include <ares.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { HOST_MAX = 256, TRY_MS = 2000, TRIES = 2 };

#define TIMEOUT (10 * RS_SEC)

/* A socket of c-ares. */
struct question {
    struct rs_list in;
    struct rs_resolve *of;
    struct rs_io io;
};

struct rs_resolve {
    struct rs_loop *loop;
    ares_channel channel;
    bool has_channel;
    struct rs_list questions;
    struct rs_timer retry; /* when c-ares wants to be called */
    struct rs_timer late;  /* the whole of it took too long */
    struct rs_timer tell;  /* it is done; told in a turn of its own, outside of c-ares */
    void (*done)(const struct rs_address *found, const struct rs_error *why, void *arg);
    void *arg;
    char host[HOST_MAX];
    int port;
    bool found, timed_out;
    struct rs_address address;
    struct rs_error why;
};

bool rs_address_is_name(const char *text)
{
    char host[HOST_MAX];
    struct rs_address as_ip;
    bool letter = false;
    int port;

    if (rs_address_split(text, host, sizeof(host), &port) < 0 ||
        rs_address_from_ip(&as_ip, host, 0) == 0)
        return false;
    for (const char *p = host; *p; p++) {
        if (!isalnum((unsigned char)*p) && *p != '.' && *p != '-' && *p != '_')
            return false;
        letter = letter || isalpha((unsigned char)*p);
    }
    return letter;
}

/* --- sockets and time ---------------------------------------------------------------------------- */

/* When c-ares wants to be called again. */
static void set_retry(struct rs_resolve *r)
{
    struct timeval tv, *next = ares_timeout(r->channel, NULL, &tv);

    if (next)
        rs_timer_start(&r->retry, r->loop,
                       rs_clock_now() + next->tv_sec * RS_SEC + next->tv_usec * 1000);
    else
        rs_timer_stop(&r->retry);
}

static int on_socket(struct rs_io *io, uint32_t events)
{
    struct question *q = rs_container_of(io, struct question, io);
    struct rs_resolve *r = q->of;
    ares_socket_t bad = ARES_SOCKET_BAD;
    bool in = events & (EPOLLIN | EPOLLHUP | EPOLLERR);

    ares_process_fd(r->channel, in ? io->fd : bad, events & EPOLLOUT ? io->fd : bad);
    set_retry(r); /* `q` may be gone */
    return 0;
}

static int on_retry(struct rs_timer *t)
{
    struct rs_resolve *r = rs_container_of(t, struct rs_resolve, retry);

    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_retry(r);
    return 0;
}

static void question_free(struct question *q)
{
    rs_io_stop(&q->io);
    rs_list_remove(&q->in);
    free(q);
}

/* c-ares has opened a socket, waits for something else on it, or is about to close it. */
static void on_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct rs_resolve *r = arg;
    uint32_t events = (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0);
    struct question *q = NULL;
    struct rs_error err = {0};

    rs_list_for_each (it, &r->questions) {
        struct question *one = rs_container_of(it, struct question, in);

        q = one->io.fd == fd ? one : q;
    }
    if (!events) {
        if (q)
            question_free(q);
        return;
    }
    if (q) {
        rs_io_watch(&q->io, events);
        return;
    }
    q = rs_alloc(sizeof(*q));
    q->of = r;
    q->io.fd = fd;
    q->io.fn = on_socket;
    rs_list_init(&q->in);
    rs_list_push_back(&r->questions, &q->in);
    if (rs_io_start(&q->io, r->loop, events, &err) < 0)
        question_free(q); /* the time runs out */
}

/* --- the answer ---------------------------------------------------------------------------------- */

static void take(struct rs_resolve *r, const struct ares_addrinfo *list)
{
    for (const struct ares_addrinfo_node *n = list->nodes; n; n = n->ai_next) {
        bool v4 = n->ai_family == AF_INET;

        if ((!v4 && n->ai_family != AF_INET6) || (r->found && !v4) ||
            n->ai_addrlen > sizeof(r->address.sa))
            continue;
        memcpy(&r->address.sa, n->ai_addr, n->ai_addrlen);
        r->address.len = n->ai_addrlen;
        r->found = true;
        if (v4)
            return;
    }
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *list)
{
    struct rs_resolve *r = arg;

    (void)timeouts;
    if (status == ARES_EDESTRUCTION)
        return;
    if (status == ARES_SUCCESS && list)
        take(r, list);
    if (list)
        ares_freeaddrinfo(list);
    if (r->timed_out || status == ARES_ETIMEOUT)
        rs_error_set(&r->why, RS_TIMEOUT, "no name server says in time where '%s' is", r->host);
    else if (!r->found && (status == ARES_SUCCESS || status == ARES_ENOTFOUND ||
                           status == ARES_ENODATA || status == ARES_ENONAME))
        rs_error_set(&r->why, RS_SYSTEM, "the name '%s' is not known here", r->host);
    else if (!r->found)
        rs_error_set(&r->why, RS_SYSTEM, "cannot find out where '%s' is: %s", r->host,
                     ares_strerror(status));
    rs_timer_stop(&r->late);
    rs_timer_start(&r->tell, r->loop, 0);
}

static int on_late(struct rs_timer *t)
{
    struct rs_resolve *r = rs_container_of(t, struct rs_resolve, late);

    r->timed_out = true;
    ares_cancel(r->channel);
    return 0;
}

static int on_tell(struct rs_timer *t)
{
    struct rs_resolve *r = rs_container_of(t, struct rs_resolve, tell);

    r->done(r->found ? &r->address : NULL, &r->why, r->arg);
    return 0;
}

/* --- life ---------------------------------------------------------------------------------------- */

static int open_channel(struct rs_resolve *r, const struct rs_resolve_conf *conf,
                        struct rs_error *err)
{
    struct ares_options options = {
        .timeout = TRY_MS, .tries = TRIES, .sock_state_cb = on_state, .sock_state_cb_data = r};
    int status = ares_library_init(ARES_LIB_INIT_ALL);

    if (status == ARES_SUCCESS)
        status = ares_init_options(&r->channel, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS)
        return rs_error_set(err, RS_SYSTEM, "cannot ask name servers: %s", ares_strerror(status));
    r->has_channel = true;
    if (conf && conf->servers)
        status = ares_set_servers_ports_csv(r->channel, conf->servers);
    if (status != ARES_SUCCESS)
        return rs_error_set(err, RS_INVALID, "expected name servers, got '%s'", conf->servers);
    return 0;
}

int rs_resolve_start(struct rs_resolve **ret, struct rs_loop *loop, const char *text, int def_port,
                     const struct rs_resolve_conf *conf,
                     void (*done)(const struct rs_address *found, const struct rs_error *why,
                                  void *arg),
                     void *arg, struct rs_error *err)
{
    const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    rs_auto(rs_resolve_freep) struct rs_resolve *r = rs_alloc(sizeof(*r));
    int64_t timeout = conf && conf->timeout ? conf->timeout : TIMEOUT;
    char port[8];

    rs_list_init(&r->questions);
    r->loop = loop;
    r->retry.fn = on_retry;
    r->late.fn = on_late;
    r->tell.fn = on_tell;
    r->done = done;
    r->arg = arg;
    if (rs_address_split(text, r->host, sizeof(r->host), &r->port) < 0)
        return rs_error_set(err, RS_INVALID, "expected an address as HOST:PORT, got \"%.200s\"",
                            text);
    if (r->port < 0)
        r->port = def_port;
    if (r->port < 0)
        return rs_error_set(err, RS_INVALID, "expected a port in \"%.200s\", as in %.200s:6379",
                            text, text);
    if (open_channel(r, conf, err) < 0)
        return -1;
    snprintf(port, sizeof(port), "%d", r->port);
    rs_timer_start(&r->late, loop, rs_clock_now() + timeout);
    ares_getaddrinfo(r->channel, r->host, port, &hints, on_answer, r);
    set_retry(r);
    *ret = rs_steal(r);
    return 0;
}

void rs_resolve_free(struct rs_resolve *r)
{
    if (!r)
        return;
    rs_timer_stop(&r->retry);
    rs_timer_stop(&r->late);
    rs_timer_stop(&r->tell);
    if (r->has_channel)
        ares_destroy(r->channel);
    while (!rs_list_empty(&r->questions))
        question_free(rs_container_of(r->questions.next, struct question, in));
    free(r);
}

/* --- waiting ------------------------------------------------------------------------------------- */

struct waiting {
    struct rs_loop *loop;
    struct rs_address *ret;
    struct rs_error *err;
    int r;
};

static void on_done(const struct rs_address *found, const struct rs_error *why, void *arg)
{
    struct waiting *w = arg;

    if (found)
        *w->ret = *found;
    else
        w->r = rs_error_set(w->err, why->code, "%s", why->msg);
    rs_loop_stop(w->loop);
}

int rs_address_resolve(const char *text, int def_port, int64_t timeout, struct rs_address *ret,
                       struct rs_error *err)
{
    rs_auto(rs_loop_freep) struct rs_loop *loop = NULL;
    rs_auto(rs_resolve_freep) struct rs_resolve *r = NULL;
    const struct rs_resolve_conf conf = {.timeout = timeout};
    struct waiting w = {.ret = ret, .err = err};

    if (!rs_address_is_name(text))
        return rs_address_parse(text, def_port, ret, err);
    if (rs_loop_new(&loop, err) < 0)
        return -1;
    w.loop = loop;
    if (rs_resolve_start(&r, loop, text, def_port, &conf, on_done, &w, err) < 0 ||
        rs_loop_run(loop) < 0)
        return -1;
    return w.r;
}
