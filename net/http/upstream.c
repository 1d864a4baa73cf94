/* One exchange per request, one connection per exchange. What the router asks is only noted and done
 * by a hook at the end of the loop's turn, so that no reply is ever given from inside a request to
 * start one. */
#include "net/http/upstream.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "net/http/answer.h"
#include "net/http/endpoint.h"
#include "net/http/forward.h"
#include "net/http/sending.h"
#include "net/wire/pickle.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { READ_SIZE = 64 << 10, CALL_ANSWER_MAX = 256 << 20, SPARE_MAX = 64 };
#define IDLE_TIME RS_SEC /* servers wait longer: 2 s (nginx) to 5 s (uvicorn, Node.js) and more */
#define FRESH_TIME (50 * RS_MS)
#define WINDOW_MOST ((uint64_t)1 << 40)
#define RETRY_FIRST (20 * RS_MS)
#define RETRY_MOST RS_SEC

struct upstream {
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

struct conn {
    struct rs_io io;
    struct rs_list link;
    struct upstream *u;
    struct exchange *x; /* NULL: idle */
    int64_t since;      /* idle since */
    uint32_t events;    /* watched, while it is */
    bool connecting, reused;
};

struct exchange {
    struct rs_list link, todo;
    struct upstream *u;
    struct rs_request *r;
    struct conn *c; /* NULL: not yet */
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

/* --- replies ------------------------------------------------------------------------------------- */

static void conn_close(struct conn *c)
{
    rs_io_stop(&c->io);
    rs_closep(&c->io.fd);
    rs_list_remove(&c->link);
    if (c->x)
        c->x->c = NULL;
    free(c);
}

/* Watches for `events`, 0: for none, not even a hang-up that would be told again and again. */
static int conn_watch(struct conn *c, uint32_t events, struct rs_error *err)
{
    int r = 0;

    if (!events)
        rs_io_stop(&c->io);
    else if (!c->io.loop)
        r = rs_io_start(&c->io, c->u->loop, events, err);
    else if (c->events != events)
        rs_io_watch(&c->io, events);
    c->events = events;
    return r;
}

/* The request has ended or is not wanted; the exchange goes back to the shelf. */
static void release(struct exchange *x)
{
    struct upstream *u = x->u;

    if (x->c)
        conn_close(x->c);
    x->r = NULL;
    rs_list_remove(&x->todo);
    rs_list_remove(&x->link);
    rs_sending_clear(&x->out);
    if (x->call.cap > READ_SIZE)
        rs_buf_fini(&x->call);
    rs_buf_fini(&x->args);
    if (u->spares < SPARE_MAX) {
        rs_list_push_back(&u->spare, &x->link);
        u->spares++;
        return;
    }
    rs_sending_fini(&x->out);
    rs_answer_fini(&x->in);
    rs_buf_fini(&x->args);
    rs_buf_fini(&x->call);
    free(x);
}

static void fail(struct exchange *x, enum rs_wire_error code, const char *type, const char *message)
{
    struct upstream *u = x->u;
    struct rs_request *r = x->r;
    struct rs_failure f = {.code = code, .message = message};

    rs_buf_clear(&u->meta);
    rs_field_put_uint(&u->meta, RS_TAG_ERROR_CODE, code);
    rs_field_put_str(&u->meta, RS_TAG_ERROR_TYPE, type);
    rs_field_put_str(&u->meta, RS_TAG_MESSAGE, message);
    if (r->kind == RS_REQUEST_CALL) {
        f.meta = rs_buf_head(&u->meta);
        f.meta_len = rs_buf_len(&u->meta);
    }
    rs_request_fail(r, &f);
    release(x);
}

/* It may be run again elsewhere; else the control thread may know more than the connection does. */
static void died(struct exchange *x, const char *why)
{
    struct rs_request *r = x->r;
    char message[300];
    bool started;

    snprintf(message, sizeof(message), "%.20s %.100s: the HTTP server at %.60s failed: %.100s",
             x->fw.method, x->fw.path, x->u->at.name, why);
    started = x->out.sent > 0 || x->retried;
    r->kept &= x->whole;
    r->via = NULL;
    release(x);
    rs_request_lost(r, started, message);
}

static void refuse(struct exchange *x)
{
    static const char headers[] = "content-type\0text/plain";
    const char *text = x->refused == 501 ? "Not Implemented" : "Bad Request";
    struct rs_answer a = {
        .status = (unsigned)x->refused, .headers = headers, .headers_len = sizeof(headers)};
    struct rs_chunk body = {.data = text, .len = strlen(text), .fd = -1};
    struct rs_request *r = x->r;

    release(x);
    rs_request_answer(r, &a, &body, true);
}

/* Keeps the connection for another request if it is fit for one. */
static void conn_done(struct exchange *x, bool usable)
{
    struct conn *c = x->c;
    struct upstream *u = x->u;

    x->c = NULL;
    c->x = NULL;
    if (!usable || !x->in.keep_alive || x->cut_off || !x->body_end || !rs_sending_empty(&x->out) ||
        conn_watch(c, EPOLLIN | EPOLLRDHUP, NULL) < 0) {
        conn_close(c);
        return;
    }
    c->reused = true;
    c->since = rs_loop_now(u->loop);
    rs_list_push_front(&u->idle, &c->link);
    if (!u->idle_timer.loop)
        rs_timer_start(&u->idle_timer, u->loop, c->since + IDLE_TIME);
}

static void http_reply(struct exchange *x, struct rs_chunk *body)
{
    struct rs_answer a = {.status = x->in.status,
                          .headers = rs_buf_head(&x->in.headers),
                          .headers_len = rs_buf_len(&x->in.headers)};
    bool first = !x->answered, done = x->in.done;

    x->answered = true;
    x->credit -= (int64_t)body->len;
    if (first)
        rs_request_answer(x->r, &a, body, done);
    else if (body->len || done)
        rs_request_data(x->r, body, done);
}

/* A call's answer is the pickle of a bytes object. The first item carries the head. */
static void call_reply(struct exchange *x, const char *data, size_t len, bool end)
{
    struct upstream *u = x->u;
    struct rs_answer a = {0};
    struct rs_chunk body = {.data = data, .len = len, .fd = -1};

    if (x->answered) {
        rs_request_data(x->r, &body, end);
        return;
    }
    x->answered = true;
    rs_buf_clear(&u->meta);
    rs_field_put_str(&u->meta, RS_TAG_CONTENT_TYPE, RS_PICKLE_TYPE);
    if (x->items)
        rs_field_put_uint(&u->meta, RS_TAG_ITEMS, 1);
    a.meta = rs_buf_head(&u->meta);
    a.meta_len = rs_buf_len(&u->meta);
    if (x->items) { /* each item is a piece of its own, none comes with the head */
        rs_request_answer(x->r, &a, &RS_CHUNK_NONE, false);
        if (len || end)
            rs_request_data(x->r, &body, end);
    } else {
        rs_request_answer(x->r, &a, &body, end);
    }
}

static void call_item(struct exchange *x, const char *data, size_t len)
{
    if (len) {
        rs_buf_clear(&x->call);
        rs_pickle_put_bytes(&x->call, data, len);
        x->credit -= (int64_t)len;
        call_reply(x, rs_buf_head(&x->call), rs_buf_len(&x->call), false);
    }
    if (x->in.done)
        call_reply(x, NULL, 0, true);
}

/* "GET /x answered 404: " and the beginning of what it said, on one line. */
static void call_refused(struct exchange *x)
{
    rs_auto(rs_buf_fini) struct rs_buf b = {0};

    rs_buf_printf(&b, "%s %s answered %u: ", x->fw.method, x->fw.path, x->in.status);
    rs_text_fit(&b, rs_buf_text(&x->call) + RS_PICKLE_HEAD, 300);
    fail(x, RS_WIRE_USER, "HTTPError", rs_buf_text(&b));
}

/* False: the exchange has ended. */
static bool call_take(struct exchange *x, const char *data, size_t len)
{
    char head[RS_PICKLE_HEAD] = {0};
    bool ok = x->in.status >= 200 && x->in.status < 300;

    if (x->items && ok && x->in.status) {
        call_item(x, data, len);
        return true;
    }
    if (!x->gathers) {
        x->gathers = true;
        rs_buf_append(&x->call, head, sizeof(head));
    }
    if (rs_buf_len(&x->call) + len > CALL_ANSWER_MAX) {
        fail(x, RS_WIRE_TOO_LARGE, "ValueError", "the HTTP server's answer is over 256 MiB");
        return false;
    }
    if (len)
        rs_buf_append(&x->call, data, len);
    if (!x->in.done)
        return true;
    if (!ok) {
        conn_done(x, true);
        call_refused(x);
        return false;
    }
    rs_pickle_bytes_head(rs_buf_head(&x->call), rs_buf_len(&x->call) - RS_PICKLE_HEAD);
    rs_buf_append(&x->call, ".", 1);
    call_reply(x, rs_buf_head(&x->call), rs_buf_len(&x->call), true);
    return true;
}

/* Passes on what the last bytes brought. `more`: they went on after the answer. False: it has ended. */
static bool reply(struct exchange *x, bool more)
{
    struct rs_chunk body = {.fd = -1};
    size_t len;

    body.data = rs_answer_body(&x->in, &len);
    body.len = len;
    if (!x->in.status)
        return true;
    if (x->r->kind != RS_REQUEST_CALL)
        http_reply(x, &body);
    else if (!call_take(x, body.data, len))
        return false;
    if (!x->in.done)
        return true;
    if (x->c)
        conn_done(x, !more);
    release(x);
    return false;
}

/* --- sockets ------------------------------------------------------------------------------------- */

static void note(struct exchange *x)
{
    struct upstream *u = x->u;

    if (rs_list_empty(&x->todo))
        rs_list_push_back(&u->todo, &x->todo);
    if (rs_list_empty(&u->work.link))
        rs_after_add(u->loop, &u->work);
}

/* To send it twice does no harm. */
static bool may_repeat(const struct exchange *x)
{
    return x->whole && (x->fw.idempotent || x->r->retry.safe);
}

/* The connection broke. Another try, or the end. `reset`: by a server that had not read all of the
 * request, most likely nothing: it died before it accepted the connection. */
static void lost(struct exchange *x, const char *why, bool reset)
{
    bool may = may_repeat(x) && (x->c->reused || reset);
    bool again = !x->got_bytes && !x->retried && (x->out.sent == 0 || may);

    conn_close(x->c);
    if (!again) {
        died(x, why);
        return;
    }
    x->retried = true;
    x->cut_off = false;
    rs_sending_restart(&x->out);
    rs_answer_begin(&x->in, x->fw.to_head);
    note(x);
}

/* Nothing listens there. */
static void unreachable(struct exchange *x)
{
    struct upstream *u = x->u;
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
        died(x, x->problem.msg);
        return;
    }
    release(x);
    rs_request_return(r);
}

/* Watches for what the exchange waits for. */
static void watch(struct exchange *x, bool out)
{
    uint32_t events = (out ? EPOLLOUT : 0) | (x->credit > 0 ? EPOLLIN | EPOLLRDHUP : 0);

    if (conn_watch(x->c, x->c->connecting ? EPOLLOUT : events, &x->problem) < 0) {
        conn_close(x->c);
        died(x, x->problem.msg);
    }
}

static void push(struct exchange *x)
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
static bool is_farewell(const struct exchange *x)
{
    return x->in.status == 408 && x->c->reused && !x->answered && !x->retried && may_repeat(x);
}

/* False: the exchange has ended. */
static bool pull(struct exchange *x)
{
    struct upstream *u = x->u;
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
        return reply(x, used != (size_t)n || n == 0);
    if (n > 0) {
        conn_close(x->c);
        rs_error_wrap(err, "%s %s: the HTTP server at %s", x->fw.method, x->fw.path, u->at.name);
        fail(x, RS_WIRE_PROTOCOL, "RuntimeError", err->msg);
    } else {
        lost(x, err->msg, n < 0 && err->sys_errno == ECONNRESET);
    }
    return false;
}

static int on_io(struct rs_io *io, uint32_t events)
{
    struct conn *c = rs_container_of(io, struct conn, io);
    struct exchange *x = c->x;

    if (!x) { /* idle: it closes, or it says something unasked */
        conn_close(c);
        return 0;
    }
    if (c->connecting) {
        c->connecting = false;
        if (rs_endpoint_connected(&x->u->at, c->io.fd, &x->problem) < 0) {
            conn_close(c);
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
static struct conn *take_idle(struct upstream *u, const struct exchange *x)
{
    int64_t fresh = may_repeat(x) ? rs_loop_now(u->loop) - FRESH_TIME : INT64_MAX;

    while (!rs_list_empty(&u->idle)) {
        struct conn *c = rs_container_of(u->idle.next, struct conn, link);
        char byte;

        if (c->since > fresh ||
            (recv(c->io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN)) {
            rs_list_remove(&c->link);
            return c;
        }
        conn_close(c); /* it was closed, or spoke unasked, and the loop did not yet tell */
    }
    return NULL;
}

static int open_conn(struct upstream *u, struct conn **ret, struct rs_error *err)
{
    struct conn *c = rs_alloc(sizeof(*c));
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

static void start(struct exchange *x)
{
    struct upstream *u = x->u;

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
static void refuse_call(struct exchange *x)
{
    bool call = x->r->kind == RS_REQUEST_CALL;
    struct rs_error why = x->problem;

    if (call && why.code == RS_NOT_FOUND)
        fail(x, RS_WIRE_NOT_FOUND, "AttributeError", why.msg);
    else
        fail(x, call ? RS_WIRE_USER : RS_WIRE_PROTOCOL, call ? "TypeError" : "ValueError", why.msg);
}

/* Does what was noted in this turn. */
static int64_t on_work(struct rs_after *a)
{
    struct upstream *u = rs_container_of(a, struct upstream, work);
    struct rs_list *it;

    rs_after_remove(a);
    while ((it = rs_list_pop_front(&u->todo))) {
        struct exchange *x = rs_container_of(it, struct exchange, todo);

        if (x->wrong) {
            refuse_call(x);
            continue;
        }
        if (x->refused) {
            refuse(x);
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
    struct upstream *u = rs_container_of(t, struct upstream, idle_timer);
    int64_t now = rs_loop_now(u->loop);

    while (!rs_list_empty(&u->idle)) {
        struct conn *c = rs_container_of(u->idle.prev, struct conn, link);

        if (c->since + IDLE_TIME > now) {
            rs_timer_start(t, u->loop, c->since + IDLE_TIME);
            break;
        }
        conn_close(c);
    }
    return 0;
}

static int on_retry_timer(struct rs_timer *t)
{
    struct upstream *u = rs_container_of(t, struct upstream, retry_timer);

    rs_backend_block(&u->backend, false);
    return 0;
}

/* --- the backend --------------------------------------------------------------------------------- */

static struct exchange *exchange_new(struct upstream *u, struct rs_request *r)
{
    struct rs_list *it = rs_list_pop_front(&u->spare);
    struct exchange *x = it ? rs_container_of(it, struct exchange, link) : rs_alloc(sizeof(*x));

    if (it)
        u->spares--;
    memset(x, 0, offsetof(struct exchange, out));
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
static int call_arguments(struct exchange *x, const char **ret, size_t *len)
{
    struct rs_request *r = x->r;
    size_t done = 0;

    *len = (size_t)r->body_len;
    *ret = rs_buf_text(&r->body);
    if (r->body_fd < 0) {
        *len = rs_buf_len(&r->body);
        return 0;
    }
    if (r->body_len > CALL_ANSWER_MAX)
        return rs_error_set(&x->problem, RS_NO_ROOM, "arguments of more than 256 MiB");
    rs_buf_reserve(&x->args, *len);
    while (done < *len) {
        ssize_t n =
            pread(r->body_fd, rs_buf_reserve(&x->args, *len - done), *len - done, (off_t)done);

        if (n == 0 || (n < 0 && errno != EINTR))
            return rs_error_errno(&x->problem, n ? errno : EIO, "cannot read the arguments");
        if (n > 0) {
            rs_buf_commit(&x->args, (size_t)n);
            done += (size_t)n;
        }
    }
    *ret = rs_buf_text(&x->args);
    return 0;
}

static void prepare_call(struct exchange *x, const struct rs_fields *f,
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

static void prepare_http(struct exchange *x, const struct rs_fields *f,
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
    struct upstream *u = rs_container_of(b, struct upstream, backend);
    struct rs_forward_conf conf = {.host = u->at.name, .keep_prefix = u->keep_prefix};
    struct exchange *x;
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
    struct exchange *x = r->via;

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
    struct exchange *x = r->via;

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
        release(r->via);
    r->via = NULL;
}

static void free_exchanges(struct rs_list *list)
{
    struct rs_list *it;

    while ((it = rs_list_pop_front(list))) {
        struct exchange *x = rs_container_of(it, struct exchange, link);

        rs_sending_fini(&x->out);
        rs_answer_fini(&x->in);
        rs_buf_fini(&x->args);
        rs_buf_fini(&x->call);
        free(x);
    }
}

static void op_free(struct rs_backend *b)
{
    struct upstream *u = rs_container_of(b, struct upstream, backend);

    while (!rs_list_empty(&u->busy))
        release(rs_container_of(u->busy.next, struct exchange, link));
    while (!rs_list_empty(&u->idle))
        conn_close(rs_container_of(u->idle.next, struct conn, link));
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
    struct upstream *u = rs_alloc(sizeof(*u));
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
    rs_container_of(b, struct upstream, backend)->keep_prefix = keep;
}
