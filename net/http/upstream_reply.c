/* From the server's answer to the router's replies, and how exchanges end. */
#include "net/http/upstream-internal.h"

#include "core/base/alloc.h"
#include "core/base/text.h"
#include "net/wire/pickle.h"

#include <stdio.h>
#include <string.h>

void rs_upstream_conn_close(struct rs_upstream_conn *c)
{
    rs_io_stop(&c->io);
    rs_closep(&c->io.fd);
    rs_list_remove(&c->link);
    if (c->x)
        c->x->c = NULL;
    free(c);
}

int rs_upstream_conn_watch(struct rs_upstream_conn *c, uint32_t events, struct rs_error *err)
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

void rs_upstream_release(struct rs_exchange *x)
{
    struct rs_upstream *u = x->u;

    if (x->c)
        rs_upstream_conn_close(x->c);
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

void rs_upstream_fail(struct rs_exchange *x, enum rs_wire_error code, const char *type,
                      const char *message)
{
    struct rs_upstream *u = x->u;
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
    rs_upstream_release(x);
}

void rs_upstream_died(struct rs_exchange *x, const char *why)
{
    struct rs_request *r = x->r;
    char message[300];
    bool started;

    snprintf(message, sizeof(message), "%.20s %.100s: the HTTP server at %.60s failed: %.100s",
             x->fw.method, x->fw.path, x->u->at.name, why);
    started = x->out.sent > 0 || x->retried;
    r->kept &= x->whole;
    r->via = NULL;
    rs_upstream_release(x);
    rs_request_lost(r, started, message);
}

void rs_upstream_refuse(struct rs_exchange *x)
{
    static const char headers[] = "content-type\0text/plain";
    const char *text = x->refused == 501 ? "Not Implemented" : "Bad Request";
    struct rs_answer a = {
        .status = (unsigned)x->refused, .headers = headers, .headers_len = sizeof(headers)};
    struct rs_chunk body = {.data = text, .len = strlen(text), .fd = -1};
    struct rs_request *r = x->r;

    rs_upstream_release(x);
    rs_request_answer(r, &a, &body, true);
}

/* Keeps the connection for another request if it is fit for one. */
static void conn_done(struct rs_exchange *x, bool usable)
{
    struct rs_upstream_conn *c = x->c;
    struct rs_upstream *u = x->u;

    x->c = NULL;
    c->x = NULL;
    if (!usable || !x->in.keep_alive || x->cut_off || !x->body_end || !rs_sending_empty(&x->out) ||
        rs_upstream_conn_watch(c, EPOLLIN | EPOLLRDHUP, NULL) < 0) {
        rs_upstream_conn_close(c);
        return;
    }
    c->reused = true;
    c->since = rs_loop_now(u->loop);
    rs_list_push_front(&u->idle, &c->link);
    if (!u->idle_timer.loop)
        rs_timer_start(&u->idle_timer, u->loop, c->since + IDLE_TIME);
}

static void http_reply(struct rs_exchange *x, struct rs_chunk *body)
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
static void call_reply(struct rs_exchange *x, const char *data, size_t len, bool end)
{
    struct rs_upstream *u = x->u;
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

static void call_item(struct rs_exchange *x, const char *data, size_t len)
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
static void call_refused(struct rs_exchange *x)
{
    rs_auto(rs_buf_fini) struct rs_buf b = {0};

    rs_buf_printf(&b, "%s %s answered %u: ", x->fw.method, x->fw.path, x->in.status);
    rs_text_fit(&b, rs_buf_text(&x->call) + RS_PICKLE_HEAD, 300);
    rs_upstream_fail(x, RS_WIRE_USER, "HTTPError", rs_buf_text(&b));
}

/* False: the exchange has ended. */
static bool call_take(struct rs_exchange *x, const char *data, size_t len)
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
        rs_upstream_fail(x, RS_WIRE_TOO_LARGE, "ValueError",
                         "the HTTP server's answer is over 256 MiB");
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

bool rs_upstream_reply(struct rs_exchange *x, bool more)
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
    rs_upstream_release(x);
    return false;
}
