#include "net/http/web.h"

#include "core/base/alloc.h"
#include "core/base/log.h"
#include "net/http/mhd_events.h"
#include "net/http/port.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

enum {
    HEADER_MAX = 32 * 1024,
    RUNS_MAX = 32, /* of the daemon in one turn: the loop's other work comes first then */
};

/* libmicrohttpd's epoll set is watched by the loop; what it wants to do besides, its timeouts and
 * what one run left over, is asked for after each turn. */
struct rs_web {
    struct rs_loop *loop;
    struct rs_io io;
    struct rs_starved starved;
    struct rs_after after;
    struct MHD_Daemon *daemon;
    const struct rs_web_ops *ops;
    void *arg;
    size_t body_max;
    struct rs_address bound;
    struct rs_list waiting;  /* exchanges without an answer yet */
    struct rs_timer resumed; /* one has its answer: the daemon does not say that it wants to run */
};

struct exchange {
    struct rs_list in; /* rs_web's `waiting`, while parked */
    struct rs_web *web;
    struct rs_web_request req;
    struct rs_web_answer answer;
    struct rs_buf body;
    bool answered;    /* before the body: the rest of it is thrown away */
    bool parked;      /* until rs_web_later_answer */
    size_t discarded; /* bytes thrown away */
};

const char *rs_web_header(const struct rs_web_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

const char *rs_web_query(const struct rs_web_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_GET_ARGUMENT_KIND, name);
}

void rs_web_answer_header(struct rs_web_answer *a, const char *name, const char *fmt, ...)
{
    va_list args;

    assert(a->n_headers < RS_WEB_HEADERS);
    a->headers[a->n_headers].name = name;
    va_start(args, fmt);
    vsnprintf(a->headers[a->n_headers].value, RS_WEB_HEADER_LEN, fmt, args);
    va_end(args);
    a->n_headers++;
}

static bool peer_is_loopback(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

    return info && rs_address_is_loopback(info->client_addr);
}

static void refuse(const struct rs_web *w, struct exchange *x, int status, const char *why)
{
    rs_buf_fini(&x->body);
    x->answered = true;
    x->answer.status = status;
    w->ops->on_refused(status, why, &x->answer, w->arg);
}

static void refuse_size(const struct rs_web *w, struct exchange *x)
{
    char why[80];

    snprintf(why, sizeof(why), "expected a body of at most %zu bytes", w->body_max);
    refuse(w, x, MHD_HTTP_CONTENT_TOO_LARGE, why);
}

static enum MHD_Result answer(struct MHD_Connection *c, struct exchange *x)
{
    struct rs_web_answer *a = &x->answer;
    size_t len = rs_buf_len(&a->body);
    struct MHD_Response *r =
        MHD_create_response_from_buffer(len, rs_buf_steal(&a->body), MHD_RESPMEM_MUST_FREE);
    enum MHD_Result done;

    if (!r)
        return MHD_NO;
    if (a->type)
        MHD_add_response_header(r, "Content-Type", a->type);
    for (unsigned i = 0; i < a->n_headers; i++)
        MHD_add_response_header(r, a->headers[i].name, a->headers[i].value);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    done = MHD_queue_response(c, (unsigned)a->status, r);
    MHD_destroy_response(r);
    return done;
}

/* What callers know as a struct rs_web_later. */
struct rs_web_later *rs_web_wait(const struct rs_web_request *req)
{
    struct exchange *x = req->exchange;

    x->parked = true;
    rs_list_push_back(&x->web->waiting, &x->in);
    MHD_suspend_connection(req->connection);
    return (struct rs_web_later *)x;
}

void rs_web_later_answer(struct rs_web_later *l, struct rs_web_answer *answer)
{
    struct exchange *x = (struct exchange *)l;

    rs_list_remove(&x->in);
    x->parked = false;
    x->answered = true;
    x->answer = *answer;
    *answer = (struct rs_web_answer){0};
    MHD_resume_connection(x->req.connection);
    rs_timer_start(&x->web->resumed, x->web->loop, 0);
}

static struct exchange *begin(struct rs_web *w, struct MHD_Connection *c, const char *path,
                              const char *method)
{
    struct exchange *x = rs_alloc(sizeof(*x));
    const char *length;

    x->web = w;
    rs_list_init(&x->in);
    x->req = (struct rs_web_request){.method = method,
                                     .path = path,
                                     .body = "",
                                     .peer_is_loopback = peer_is_loopback(c),
                                     .connection = c,
                                     .exchange = x};
    x->answered = w->ops->on_header(&x->req, &x->answer, w->arg);
    length = rs_web_header(&x->req, "Content-Length");
    if (!x->answered && length && strtoull(length, NULL, 10) > w->body_max)
        refuse_size(w, x);
    return x;
}

static void take_body(const struct rs_web *w, struct exchange *x, const char *data, size_t n)
{
    if (!x->answered && rs_buf_len(&x->body) + n > w->body_max)
        refuse_size(w, x);
    if (x->answered)
        x->discarded += n;
    else
        rs_buf_append(&x->body, data, n);
}

/* A client that waits for 100 Continue has sent no body; the others send theirs before they read. */
static bool waits_to_send(const struct exchange *x)
{
    return rs_web_header(&x->req, "Expect") != NULL;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *c, const char *path,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **state)
{
    struct rs_web *w = cls;
    struct exchange *x = *state;

    (void)version;
    if (!x) {
        x = begin(w, c, path, method);
        *state = x;
        return x->answered && waits_to_send(x) ? answer(c, x) : MHD_YES;
    }
    if (*size > 0) {
        take_body(w, x, data, *size);
        *size = 0;
        return x->discarded > 4 * w->body_max ? MHD_NO : MHD_YES;
    }
    if (!x->answered) {
        x->req.body = rs_buf_text(&x->body);
        x->req.len = rs_buf_len(&x->body);
        w->ops->on_request(&x->req, &x->answer, w->arg);
    }
    return x->parked ? MHD_YES : answer(c, x);
}

static void on_completed(void *cls, struct MHD_Connection *c, void **state,
                         enum MHD_RequestTerminationCode how)
{
    struct exchange *x = *state;

    (void)cls;
    (void)c;
    (void)how;
    *state = NULL;
    if (!x)
        return;
    rs_buf_fini(&x->body);
    rs_buf_fini(&x->answer.body);
    free(x);
}

static void on_log(void *cls, const char *fmt, va_list args) RS_PRINTF(2, 0);
static void on_log(void *cls, const char *fmt, va_list args)
{
    char text[256];

    (void)cls;
    vsnprintf(text, sizeof(text), fmt, args);
    text[strcspn(text, "\n")] = '\0';
    rs_log_debug("http server", "says=\"%s\"", text);
}

static void run(struct rs_web *w)
{
    rs_mhd_accept_for(&w->starved);
    (void)MHD_run(w->daemon);
}

static int on_io(struct rs_io *io, uint32_t events)
{
    struct rs_web *w = rs_container_of(io, struct rs_web, io);

    (void)events;
    run(w);
    return 0;
}

static int on_resumed(struct rs_timer *t)
{
    run(rs_container_of(t, struct rs_web, resumed));
    return 0;
}

static int64_t after_turn(struct rs_after *a)
{
    struct rs_web *w = rs_container_of(a, struct rs_web, after);
    MHD_UNSIGNED_LONG_LONG ms;

    for (int i = 0; i < RUNS_MAX; i++) {
        if (MHD_get_timeout(w->daemon, &ms) != MHD_YES)
            return -1;
        if (ms > 0)
            return ms > 60000 ? 60000 * INT64_C(1000000) : (int64_t)ms * 1000000;
        run(w);
    }
    return 0;
}

static int start(struct rs_web *w, const struct rs_web_conf *conf, struct rs_error *err)
{
    rs_auto(rs_closep) int fd = -1;
    const union MHD_DaemonInfo *info;

    if (conf->listening > 0) {
        fd = conf->listening;
        w->bound.len = sizeof(w->bound.sa);
        if (getsockname(fd, (struct sockaddr *)&w->bound.sa, &w->bound.len) < 0)
            return rs_error_errno(err, errno, "the listening socket of the HTTP server");
    } else if (rs_port_listen(conf->host, conf->port, conf->option, &fd, &w->bound, err) < 0) {
        return -1;
    }
    w->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_ERROR_LOG | MHD_ALLOW_SUSPEND_RESUME, 0,
                                 NULL, NULL, on_access, w, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
                                 MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED,
                                 on_completed, NULL, MHD_OPTION_CONNECTION_LIMIT, conf->connections,
                                 MHD_OPTION_CONNECTION_TIMEOUT, conf->idle_s,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_MAX,
                                 MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!w->daemon)
        return rs_error_errno(err, errno, "cannot start the HTTP server on %s port %u", conf->host,
                              conf->port);
    rs_steal_fd(&fd); /* the daemon closes it */
    info = MHD_get_daemon_info(w->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return rs_error_set(err, RS_SYSTEM, "the HTTP server has no epoll descriptor");
    w->io.fd = info->epoll_fd;
    return 0;
}

int rs_web_new(struct rs_web **ret, struct rs_loop *loop, const struct rs_web_conf *conf,
               const struct rs_web_ops *ops, void *arg, struct rs_error *err)
{
    rs_auto(rs_web_freep) struct rs_web *w = rs_alloc(sizeof(*w));

    w->loop = loop;
    w->resumed.fn = on_resumed;
    rs_list_init(&w->waiting);
    w->io = (struct rs_io){.fd = -1, .fn = on_io};
    w->after.fn = after_turn;
    w->ops = ops;
    w->arg = arg;
    w->body_max = conf->body_max;
    if (start(w, conf, err) < 0 || rs_io_start(&w->io, loop, EPOLLIN, err) < 0)
        return -1;
    rs_starved_init(&w->starved, &w->io, loop, "REST API");
    rs_after_add(loop, &w->after);
    *ret = rs_steal(w);
    return 0;
}

void rs_web_free(struct rs_web *w)
{
    if (!w)
        return;
    rs_starved_stop(&w->starved);
    rs_io_stop(&w->io);
    rs_after_remove(&w->after);
    while (!rs_list_empty(&w->waiting)) { /* the daemon wants none of them suspended */
        struct exchange *x = rs_container_of(w->waiting.next, struct exchange, in);

        rs_web_later_answer((struct rs_web_later *)x,
                            &(struct rs_web_answer){.status = MHD_HTTP_SERVICE_UNAVAILABLE});
    }
    rs_timer_stop(&w->resumed);
    if (w->daemon)
        MHD_stop_daemon(w->daemon);
    free(w);
}

uint16_t rs_web_port(const struct rs_web *w)
{
    return rs_address_port(&w->bound);
}

bool rs_web_is_loopback(const struct rs_web *w)
{
    return rs_address_is_loopback((const struct sockaddr *)&w->bound.sa);
}
