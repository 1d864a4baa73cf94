/* One exchange per request, one connection per exchange. What the router asks is only noted and done
 * by a hook at the end of the loop's turn, so that no reply is ever given from inside a request to
 * start one. */
#include "core/base/file.h"
#include "net/http/upstream-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "net/wire/pickle.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define FRESH_TIME (50 * RS_MS)
#define WINDOW_MOST ((uint64_t)1 << 40)
#define RETRY_FIRST (20 * RS_MS)
#define RETRY_MOST RS_SEC

/* --- sockets ------------------------------------------------------------------------------------- */

static void note(struct rs_exchange *x)
{
    struct rs_upstream *u = x->u;

    if (rs_list_empty(&x->todo))
        rs_list_push_back(&u->todo, &x->todo);
    if (rs_list_empty(&u->work.link))
        rs_after_add(u->loop, &u->work);
}

/* To send it twice does no harm. */
static bool may_repeat(const struct rs_exchange *x)
{
    return x->whole && (x->fw.idempotent || x->r->retry.safe);
}

/* The connection broke. Another try, or the end. `reset`: by a server that had not read all of the
 * request, most likely nothing: it died before it accepted the connection. */
static void lost(struct rs_exchange *x, const char *why, bool reset)
{
    bool may = may_repeat(x) && (x->c->reused || reset);
    bool again = !x->got_bytes && !x->retried && (x->out.sent == 0 || may);

    rs_upstream_conn_close(x->c);
    if (!again) {
        rs_upstream_died(x, why);
        return;
    }
    x->retried = true;
    x->cut_off = false;
    rs_sending_restart(&x->out);
    rs_answer_begin(&x->in, x->fw.to_head);
    note(x);
}

/* Nothing listens there. */
static void unreachable(struct rs_exchange *x)
{
    struct rs_upstream *u = x->u;
    struct rs_request *r = x->r;

    rs_backend_block(&u->backend, true);
    if (!u->retry_timer.loop) {
        u->retry = u->retry ? u->retry * 2 : RETRY_FIRST;
        if (u->retry > RETRY_MOST)
            u->retry = RETRY_MOST;
        rs_timer_start(&u->retry_timer, u->loop, rs_loop_now(u->loop) + u->retry);
    }
    rs_log_debug("http replica unreachable", "why=\"%s\"", x->problem.msg);
    if (!x->whole && x->fed > x->out.first.len) { /* some of its body is with us only */
        rs_upstream_died(x, x->problem.msg);
        return;
    }
    rs_upstream_release(x);
    rs_request_return(r);
}

/* Watches for what the exchange waits for. */
static void watch(struct rs_exchange *x, bool out)
{
    uint32_t events = (out ? EPOLLOUT : 0) | (x->credit > 0 ? EPOLLIN | EPOLLRDHUP : 0);

    if (rs_upstream_conn_watch(x->c, x->c->connecting ? EPOLLOUT : events, &x->problem) < 0) {
        rs_upstream_conn_close(x->c);
        rs_upstream_died(x, x->problem.msg);
    }
}

static void push(struct rs_exchange *x)
{
    uint64_t taken;
    int n = x->cut_off ? 0 : rs_sending_write(&x->out, x->c->io.fd);

    if (n < 0 && x->out.sent == 0) {
        lost(x, strerror(errno), false);
        return;
    }
    if (n < 0)
        x->cut_off = true; /* it may have answered before it closed: the read will tell */
    taken = x->out.taken;
    x->out.taken = 0;
    if (taken)
        rs_request_taken(x->r, taken); /* more may be fed meanwhile: that is noted */
    watch(x, n == RS_SENDING_BLOCKED);
}

/* Servers say 408 on a connection that was idle for too long before they close it: that is no answer to
 * what was sent meanwhile. */
static bool is_farewell(const struct rs_exchange *x)
{
    return x->in.status == 408 && x->c->reused && !x->answered && !x->retried && may_repeat(x);
}

/* False: the exchange has ended. */
static bool pull(struct rs_exchange *x)
{
    struct rs_upstream *u = x->u;
    struct rs_error *err = &x->problem;
    ssize_t n = recv(x->c->io.fd, u->chunk, sizeof(u->chunk), MSG_DONTWAIT);
    size_t used = 0;
    int r;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n > 0) {
        x->got_bytes = true;
        r = rs_answer_feed(&x->in, u->chunk, (size_t)n, &used, err);
    } else if (n == 0) {
        r = rs_answer_eof(&x->in, err);
    } else {
        r = rs_error_errno(err, errno, "reading its answer");
    }
    if (r == 0 && is_farewell(x)) {
        x->got_bytes = false;
        lost(x, "it closed a kept connection", false);
        return false;
    }
    if (r == 0)
        return rs_upstream_reply(x, used != (size_t)n || n == 0);
    if (n > 0) {
        rs_upstream_conn_close(x->c);
        rs_error_wrap(err, "%s %s: the HTTP server at %s", x->fw.method, x->fw.path, u->at.name);
        rs_upstream_fail(x, RS_WIRE_PROTOCOL, "RuntimeError", err->msg);
    } else {
        lost(x, err->msg, n < 0 && err->sys_errno == ECONNRESET);
    }
    return false;
}

static int on_io(struct rs_io *io, uint32_t events)
{
    struct rs_upstream_conn *c = rs_container_of(io, struct rs_upstream_conn, io);
    struct rs_exchange *x = c->x;

    if (!x) { /* idle: it closes, or it says something unasked */
        rs_upstream_conn_close(c);
        return 0;
    }
    if (c->connecting) {
        c->connecting = false;
        if (rs_endpoint_connected(&x->u->at, c->io.fd, &x->problem) < 0) {
            rs_upstream_conn_close(c);
            unreachable(x);
            return 0;
        }
        x->u->retry = 0;
        events |= EPOLLOUT;
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && x->credit > 0 && !pull(x))
        return 0;
    if (x->c && (events & EPOLLOUT))
        push(x);
    else if (x->c)
        watch(x, !x->cut_off && !rs_sending_empty(&x->out));
    return 0;
}

/* --- connections --------------------------------------------------------------------------------- */

/* One that was used just now is not looked at where nothing is lost if it is of no use any more. */
static struct rs_upstream_conn *take_idle(struct rs_upstream *u, const struct rs_exchange *x)
{
    int64_t fresh = may_repeat(x) ? rs_loop_now(u->loop) - FRESH_TIME : INT64_MAX;

    while (!rs_list_empty(&u->idle)) {
        struct rs_upstream_conn *c = rs_container_of(u->idle.next, struct rs_upstream_conn, link);
        char byte;

        if (c->since > fresh ||
            (recv(c->io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN)) {
            rs_list_remove(&c->link);
            return c;
        }
        rs_upstream_conn_close(
            c); /* it was closed, or spoke unasked, and the loop did not yet tell */
    }
    return NULL;
}

static int open_conn(struct rs_upstream *u, struct rs_upstream_conn **ret, struct rs_error *err)
{
    struct rs_upstream_conn *c = rs_alloc(sizeof(*c));
    int r = rs_endpoint_connect(&u->at, &c->io.fd, err);

    if (r < 0) {
        free(c);
        return -1;
    }
    c->io.fn = on_io;
    c->u = u;
    rs_list_init(&c->link);
    c->connecting = r == RS_ENDPOINT_CONNECTING;
    *ret = c;
    return 0;
}

static void start(struct rs_exchange *x)
{
    struct rs_upstream *u = x->u;

    x->c = x->retried ? NULL : take_idle(u, x);
    if (!x->c && open_conn(u, &x->c, &x->problem) < 0) {
        unreachable(x);
        return;
    }
    if (!x->c->connecting)
        u->retry = 0;
    x->c->x = x;
}

/* What was asked is nothing that can be sent. */
static void refuse_call(struct rs_exchange *x)
{
    bool call = x->r->kind == RS_REQUEST_CALL;
    struct rs_error why = x->problem;

    if (call && why.code == RS_NOT_FOUND)
        rs_upstream_fail(x, RS_WIRE_NOT_FOUND, "AttributeError", why.msg);
    else
        rs_upstream_fail(x, call ? RS_WIRE_USER : RS_WIRE_PROTOCOL,
                         call ? "TypeError" : "ValueError", why.msg);
}

/* Does what was noted in this turn. */
static int64_t on_work(struct rs_after *a)
{
    struct rs_upstream *u = rs_container_of(a, struct rs_upstream, work);
    struct rs_list *it;

    rs_after_remove(a);
    while ((it = rs_list_pop_front(&u->todo))) {
        struct rs_exchange *x = rs_container_of(it, struct rs_exchange, todo);

        if (x->wrong) {
            refuse_call(x);
            continue;
        }
        if (x->refused) {
            rs_upstream_refuse(x);
            continue;
        }
        if (!x->c) {
            start(x);
            if (!x->c)
                continue;
        }
        if (x->c->connecting)
            watch(x, true);
        else
            push(x);
    }
    return -1;
}

static int on_idle_timer(struct rs_timer *t)
{
    struct rs_upstream *u = rs_container_of(t, struct rs_upstream, idle_timer);
    int64_t now = rs_loop_now(u->loop);

    while (!rs_list_empty(&u->idle)) {
        struct rs_upstream_conn *c = rs_container_of(u->idle.prev, struct rs_upstream_conn, link);

        if (c->since + IDLE_TIME > now) {
            rs_timer_start(t, u->loop, c->since + IDLE_TIME);
            break;
        }
        rs_upstream_conn_close(c);
    }
    return 0;
}

static int on_retry_timer(struct rs_timer *t)
{
    struct rs_upstream *u = rs_container_of(t, struct rs_upstream, retry_timer);

    rs_backend_block(&u->backend, false);
    return 0;
}

/* --- the backend --------------------------------------------------------------------------------- */

static struct rs_exchange *exchange_new(struct rs_upstream *u, struct rs_request *r)
{
    struct rs_list *it = rs_list_pop_front(&u->spare);
    struct rs_exchange *x =
        it ? rs_container_of(it, struct rs_exchange, link) : rs_alloc(sizeof(*x));

    if (it)
        u->spares--;
    memset(x, 0, offsetof(struct rs_exchange, out));
    x->u = u;
    x->r = r;
    x->credit = RS_STREAM_WINDOW;
    x->problem.code = RS_OK;
    rs_buf_clear(&x->out.head);
    rs_buf_clear(&x->args);
    rs_buf_clear(&x->call);
    rs_list_init(&x->link);
    rs_list_init(&x->todo);
    rs_list_push_back(&u->busy, &x->link);
    r->via = x;
    r->kept = r->body_end;
    return x;
}

/* The pickled arguments, wherever they are. */
static int call_arguments(struct rs_exchange *x, const char **ret, size_t *len)
{
    struct rs_request *r = x->r;

    *len = (size_t)r->body_len;
    *ret = rs_buf_text(&r->body);
    if (r->body_fd < 0) {
        *len = rs_buf_len(&r->body);
        return 0;
    }
    if (r->body_len > CALL_ANSWER_MAX)
        return rs_error_set(&x->problem, RS_NO_ROOM, "arguments of more than 256 MiB");
    if (rs_file_read(r->body_fd, rs_buf_reserve(&x->args, *len), *len, 0) < 0)
        return rs_error_errno(&x->problem, errno, "cannot read the arguments");
    rs_buf_commit(&x->args, *len);
    *ret = rs_buf_text(&x->args);
    return 0;
}

static void prepare_call(struct rs_exchange *x, const struct rs_fields *f,
                         const struct rs_forward_conf *conf)
{
    const char *args;
    size_t len;

    x->items = rs_fields_uint(f, RS_TAG_STREAM, 0) == 1;
    if (!x->r->body_end) {
        rs_error_set(&x->problem, RS_INVALID, "a handle call whose arguments are streamed");
        return;
    }
    if (call_arguments(x, &args, &len) < 0 ||
        rs_forward_call(&x->out.head, f, conf, args, len, &x->fw, &x->problem) < 0)
        return;
    x->whole = x->body_end = true;
    rs_sending_begin(&x->out, false, true);
    rs_sending_first(&x->out, x->fw.body, -1, x->fw.length, true);
}

static void prepare_http(struct rs_exchange *x, const struct rs_fields *f,
                         const struct rs_forward_conf *conf)
{
    struct rs_request *r = x->r;
    uint64_t len = r->body_fd >= 0 ? r->body_len : rs_buf_len(&r->body);

    x->refused = rs_forward_http(&x->out.head, f, conf, r->body_end, len, &x->fw);
    if (x->refused)
        return;
    x->whole = x->body_end = r->body_end;
    x->fed = len;
    rs_sending_begin(&x->out, x->fw.chunked, x->whole);
    rs_sending_first(&x->out, rs_buf_head(&r->body), r->body_fd, len, r->body_end);
}

static void op_send(struct rs_backend *b, struct rs_request *r)
{
    struct rs_upstream *u = rs_container_of(b, struct rs_upstream, backend);
    struct rs_forward_conf conf = {.host = u->at.name, .keep_prefix = u->keep_prefix};
    struct rs_exchange *x;
    struct rs_fields f;

    if (r->kind == RS_REQUEST_WEBSOCKET) {
        rs_request_refuse_websocket(r);
        return;
    }
    x = exchange_new(u, r);
    rs_sending_begin(&x->out, false, false);
    if (rs_fields_parse(rs_buf_head(&r->meta), rs_buf_len(&r->meta), &f, &x->problem) == 0) {
        if (r->kind == RS_REQUEST_CALL)
            prepare_call(x, &f, &conf);
        else
            prepare_http(x, &f, &conf);
    }
    x->wrong = x->problem.code != RS_OK;
    rs_answer_begin(&x->in, x->fw.to_head);
    note(x);
}

static void op_feed(struct rs_backend *b, struct rs_request *r, struct rs_chunk *body, bool end)
{
    struct rs_exchange *x = r->via;

    (void)b;
    if (!x)
        return; /* lost */
    x->fed += body->len;
    x->body_end = end;
    if (x->refused || x->wrong) {
        note(x);
        return;
    }
    x->wrong = !x->fw.chunked && (x->fed > x->fw.length || (end && x->fed < x->fw.length));
    if (x->wrong)
        rs_error_set(&x->problem, RS_INVALID, "a body of another length than its content-length");
    else
        rs_sending_add(&x->out, body->data, &body->fd, body->len, end);
    note(x);
}

static void op_window(struct rs_backend *b, struct rs_request *r, uint64_t n)
{
    struct rs_exchange *x = r->via;

    (void)b;
    if (!x)
        return;          /* lost */
    if (n > WINDOW_MOST) /* never so in good faith; keeps the sum far from its limit */
        n = WINDOW_MOST;
    if (x->c && x->credit <= 0)
        note(x); /* it had run out */
    x->credit += (int64_t)n;
}

static void op_cancel(struct rs_backend *b, struct rs_request *r)
{
    (void)b;
    if (r->via)
        rs_upstream_release(r->via);
    r->via = NULL;
}

static void free_exchanges(struct rs_list *list)
{
    struct rs_list *it;

    while ((it = rs_list_pop_front(list))) {
        struct rs_exchange *x = rs_container_of(it, struct rs_exchange, link);

        rs_sending_fini(&x->out);
        rs_answer_fini(&x->in);
        rs_buf_fini(&x->args);
        rs_buf_fini(&x->call);
        free(x);
    }
}

static void op_free(struct rs_backend *b)
{
    struct rs_upstream *u = rs_container_of(b, struct rs_upstream, backend);

    while (!rs_list_empty(&u->busy))
        rs_upstream_release(rs_container_of(u->busy.next, struct rs_exchange, link));
    while (!rs_list_empty(&u->idle))
        rs_upstream_conn_close(rs_container_of(u->idle.next, struct rs_upstream_conn, link));
    free_exchanges(&u->spare);
    rs_after_remove(&u->work);
    rs_timer_stop(&u->idle_timer);
    rs_timer_stop(&u->retry_timer);
    rs_buf_fini(&u->meta);
    free(u);
}

static const struct rs_backend_ops ops = {
    .send = op_send,
    .feed = op_feed,
    .window = op_window,
    .cancel = op_cancel,
    .free = op_free,
};

struct rs_backend *rs_upstream_new(struct rs_loop *loop, const char *host, uint16_t port,
                                   const char *unix_path)
{
    struct rs_upstream *u = rs_alloc(sizeof(*u));
    struct rs_error err = {0};

    if (rs_endpoint_set(&u->at, host, port, unix_path, &err) < 0) {
        rs_log_error("http replica", "error=\"%s\"", err.msg);
        free(u);
        return NULL;
    }
    u->backend.ops = &ops;
    u->loop = loop;
    rs_list_init(&u->idle);
    rs_list_init(&u->busy);
    rs_list_init(&u->spare);
    rs_list_init(&u->todo);
    rs_list_init(&u->work.link);
    u->work.fn = on_work;
    u->idle_timer.fn = on_idle_timer;
    u->retry_timer.fn = on_retry_timer;
    return &u->backend;
}

void rs_upstream_keep_prefix(struct rs_backend *b, bool keep)
{
    rs_container_of(b, struct rs_upstream, backend)->keep_prefix = keep;
}
