/* A request's way out: the answer's head, its body as the client takes it, and what failed. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "net/http/headers.h"
#include "net/http/ingress-internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BLOCK = 64 << 10, /* of a body of known length that is sent in pieces */
    LINGER_S = 5,     /* for a client to read an answer that came too early */
};

static const char plain[] = "text/plain; charset=utf-8";

static struct rs_http_request *of(struct rs_request *r)
{
    return rs_container_of(r, struct rs_http_request, r);
}

/* --- pieces ------------------------------------------------------------------------------------ */

static void free_piece(struct rs_http_request *req, struct rs_http_piece *p)
{
    rs_memory_add(&req->server->lane->memory, RS_HELD_ANSWER, -(int64_t)p->len);
    rs_list_remove(&p->link);
    if (p->fd >= 0)
        close(p->fd);
    free(p);
}

void rs_http_drop_pieces(struct rs_http_request *req)
{
    while (!rs_list_empty(&req->pieces))
        free_piece(req, rs_container_of(req->pieces.next, struct rs_http_piece, link));
}

static void push_piece(struct rs_http_request *req, struct rs_chunk *body)
{
    bool is_inline = body->fd < 0;
    struct rs_http_piece *p;

    if (!body->len)
        return;
    p = rs_alloc(sizeof(*p) + (is_inline ? (size_t)body->len : 0));
    p->len = body->len;
    p->fd = is_inline ? -1 : rs_steal_fd(&body->fd);
    if (is_inline)
        memcpy(p->data, body->data, (size_t)body->len);
    rs_memory_add(&req->server->lane->memory, RS_HELD_ANSWER, (int64_t)p->len);
    rs_list_init(&p->link);
    rs_list_push_back(&req->pieces, &p->link);
}

ssize_t rs_http_read_piece(struct rs_http_request *req, char *to, size_t max)
{
    struct rs_http_piece *p = rs_container_of(req->pieces.next, struct rs_http_piece, link);
    uint64_t left = p->len - p->at;
    size_t want = left < max ? (size_t)left : max;
    ssize_t n = (ssize_t)want;

    if (p->fd < 0)
        memcpy(to, p->data + p->at, want);
    else
        n = pread(p->fd, to, want, (off_t)p->at);
    if (n <= 0)
        return -1;
    p->at += (uint64_t)n;
    if (p->at == p->len)
        free_piece(req, p);
    return n;
}

/* libmicrohttpd wants more of the body. */
static ssize_t on_read(void *arg, uint64_t pos, char *to, size_t max)
{
    struct rs_http_request *req = arg;
    size_t done = 0;

    (void)pos;
    while (done < max && !rs_list_empty(&req->pieces)) {
        ssize_t n = rs_http_read_piece(req, to + done, max - done);

        if (n < 0) {
            req->broken = true;
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        done += (size_t)n;
    }
    if (done) {
        req->sent += done;
        rs_http_follow(req->server, 2);
        if (!req->over)
            rs_request_window(&req->r, done);
        return (ssize_t)done;
    }
    if (req->broken || req->abort || (req->conn->gone && !req->answer_ended))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (req->answer_ended) {
        req->broken = req->sized; /* less than its content-length */
        return req->sized ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
    }
    rs_http_wait(req);
    return 0;
}

/* --- heads ------------------------------------------------------------------------------------- */

/* libmicrohttpd refuses empty values; one blank means the same. */
static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
    (void)MHD_add_response_header(response, name, value[0] ? value : " ");
}

static void add_id(struct rs_http_request *req, struct MHD_Response *response)
{
    add_header(response, "x-request-id", rs_buf_text(&req->id));
}

/* The answer's headers but those about the connection. Returns content-length, or -1. */
static int64_t add_headers(struct MHD_Response *response, const char *headers, size_t len)
{
    struct rs_http_headers h = rs_http_headers(headers, len);
    int64_t content_length = -1;

    while (rs_http_headers_next(&h)) {
        if (strcmp(h.name, "content-length") == 0) {
            char *end;
            long long n = strtoll(h.value, &end, 10);

            if (h.value[0] >= '0' && h.value[0] <= '9' && !*end && n >= 0)
                content_length = n;
        } else if (response && !rs_http_hop_by_hop(h.name) && rs_http_header_ok(h.name, h.value)) {
            add_header(response, h.name, h.value);
        }
    }
    return content_length;
}

static bool has_no_body(const struct rs_http_request *req, unsigned status)
{
    return req->is_head || status == MHD_HTTP_NO_CONTENT || status == MHD_HTTP_NOT_MODIFIED;
}

/* A head alone. One for HEAD tells the length that GET would have; where that is not known, the
 * connection ends with it, because libmicrohttpd would send the end of a chunked body. */
static struct MHD_Response *make_bodyless(struct rs_http_request *req, int64_t told, int64_t body)
{
    int64_t length = told >= 0 ? told : req->is_head ? body : 0;
    struct MHD_Response *response = MHD_create_response_from_callback(
        length >= 0 ? (uint64_t)length : MHD_SIZE_UNKNOWN, BLOCK, on_read, req, NULL);

    if (length < 0)
        (void)MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    return response;
}

static struct MHD_Response *make_response(struct rs_http_request *req, const struct rs_answer *a,
                                          struct rs_chunk *body, bool end)
{
    int64_t length = -1;

    if (!end || has_no_body(req, a->status))
        length = add_headers(NULL, a->headers, a->headers_len);
    req->sized = length >= 0;
    if (has_no_body(req, a->status))
        return make_bodyless(req, length, end ? (int64_t)body->len : -1);
    if (!end) {
        push_piece(req, body);
        return MHD_create_response_from_callback(length >= 0 ? (uint64_t)length : MHD_SIZE_UNKNOWN,
                                                 BLOCK, on_read, req, NULL);
    }
    req->sent = body->len;
    req->long_reply = body->fd >= 0;
    if (body->fd >= 0)
        return MHD_create_response_from_fd64(body->len, rs_steal_fd(&body->fd));
    rs_buf_append(&req->text, body->data, (size_t)body->len);
    return MHD_create_response_from_buffer((size_t)body->len, rs_buf_head(&req->text),
                                           MHD_RESPMEM_PERSISTENT);
}

/* There is an answer: libmicrohttpd takes it when it has the whole request. */
static void ready(struct rs_http_request *req, struct MHD_Response *response, unsigned status)
{
    assert(!req->response);
    req->response = response;
    req->status = status;
    req->discard = true;
    rs_http_resume(req);
}

static void add_retry(const struct rs_http_request *req, struct MHD_Response *response)
{
    char seconds[24];

    if (!req->retry_after)
        return;
    snprintf(seconds, sizeof(seconds), "%" PRId64, req->retry_after);
    add_header(response, "retry-after", seconds);
}

void rs_http_answer_text(struct rs_http_request *req, unsigned status, const char *type,
                         const char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (char *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);

    req->sent = req->is_head ? 0 : strlen(text);
    if (type)
        add_header(response, "content-type", type);
    if (status == MHD_HTTP_UPGRADE_REQUIRED) {
        add_header(response, "upgrade", "websocket");
        add_header(response, "sec-websocket-version", "13");
    }
    add_retry(req, response);
    add_id(req, response);
    ready(req, response, status);
}

enum MHD_Result rs_http_queue(struct rs_http_request *req)
{
    struct MHD_Response *response = req->response;
    enum MHD_Result r;

    req->stage = RS_HTTP_REPLYING;
    req->server->long_replies += req->long_reply;
    rs_http_follow(req->server, 2);
    req->response = NULL;
    if (req->status != MHD_HTTP_SWITCHING_PROTOCOLS &&
        (req->server->stopping || rs_front_has_rest(req->conn->front)))
        add_header(response, "connection", "close");
    r = MHD_queue_response(req->mc, req->status, response);
    MHD_destroy_response(response);
    return r;
}

void rs_http_cut_off(struct rs_http_request *req, unsigned status, const char *text)
{
    struct rs_buf b = {0};
    ssize_t n;

    if (!text)
        text = req->bad_why ? req->bad_why : "";
    rs_buf_printf(&b,
                  "HTTP/1.1 %u %s\r\ncontent-type: %s\r\ncontent-length: %zu\r\n"
                  "connection: close\r\nx-request-id: %s\r\n",
                  status, MHD_get_reason_phrase_for(status), plain, strlen(text),
                  rs_buf_text(&req->id));
    if (req->retry_after)
        rs_buf_printf(&b, "retry-after: %" PRId64 "\r\n", req->retry_after);
    rs_buf_printf(&b, "\r\n%s", text);
    n = rs_front_send(req->conn->front, rs_buf_head(&b), rs_buf_len(&b));
    (void)n; /* it is the last thing it hears, if it listens */
    rs_front_shut(req->conn->front);
    rs_buf_fini(&b);
    req->status = status;
    req->sent = strlen(text);
    req->cut_off = true;
    rs_timer_start(&req->timer, req->server->lane->loop,
                   rs_loop_now(req->server->lane->loop) + LINGER_S * RS_SEC);
    rs_http_resume(req);
}

/* --- replies of the router --------------------------------------------------------------------- */

/* Nobody is there to take it, or nobody wants it. True if so. */
static bool swallow(struct rs_http_request *req, const struct rs_chunk *body, bool end)
{
    bool unwanted = !req->mc || req->abort || req->cut_off;

    if (!unwanted && !(req->status && has_no_body(req, req->status)))
        return false;
    if (!end && body->len)
        rs_request_window(&req->r, body->len);
    if (end && req->stage == RS_HTTP_DETACHED)
        rs_http_request_release(req);
    return true;
}

static void on_answer(struct rs_request *r, const struct rs_answer *a, struct rs_chunk *body,
                      bool end)
{
    struct rs_http_request *req = of(r);
    struct MHD_Response *response;

    req->over = end;
    req->answer_ended = end;
    if (swallow(req, body, end))
        return;
    if (req->wants_websocket && a->status == MHD_HTTP_SWITCHING_PROTOCOLS) {
        push_piece(req, body);
        ready(req, rs_websocket_response(req, a), a->status);
        return;
    }
    if (a->status < 200 || a->status > 999) {
        rs_log_warn("a replica's answer is no HTTP answer", "request_id=\"%s\" status=%u",
                    rs_buf_text(&req->id), a->status);
        rs_http_answer_text(req, 500, plain, "Internal Server Error");
        return;
    }
    response = make_response(req, a, body, end);
    (void)add_headers(response, a->headers, a->headers_len);
    add_id(req, response);
    ready(req, response, a->status);
    if (!end && has_no_body(req, a->status) && body->len)
        rs_request_window(r, body->len);
}

/* It was accepted: the connection is no longer HTTP's, or will not be in a moment. */
static bool is_websocket(const struct rs_http_request *req)
{
    return req->websocket || (req->wants_websocket && req->status == MHD_HTTP_SWITCHING_PROTOCOLS);
}

static void on_data(struct rs_request *r, struct rs_chunk *body, bool end)
{
    struct rs_http_request *req = of(r);

    req->over = end;
    req->answer_ended = end;
    if (swallow(req, body, end))
        return;
    push_piece(req, body);
    if (is_websocket(req))
        rs_websocket_kick(req);
    else if (req->stage == RS_HTTP_REPLYING)
        rs_http_resume(req);
}

/* What the configuration says, or else what the queue has measured; below 0: neither does. */
static void add_retry_after(struct MHD_Response *response, double seconds)
{
    char text[32];

    if (seconds < 0)
        return;
    snprintf(text, sizeof(text), "%.0f", seconds);
    add_header(response, "retry-after", text);
}

static void answer_backpressure(struct rs_http_request *req, const struct rs_failure *f)
{
    const struct rs_http_route_cache *c = req->route->cache;
    const char *text = f->message ? f->message : "";
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (char *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    const struct rs_route_target *target = c && !f->raised ? c->target : NULL;
    unsigned status = target && target->backpressure_status ? (unsigned)target->backpressure_status
                                                            : MHD_HTTP_SERVICE_UNAVAILABLE;
    double wait = -1;

    req->sent = req->is_head ? 0 : strlen(text);
    if (!f->raised) /* of the queue in front of the ingress; else an exception that nobody caught */
        add_header(response, "content-type", plain);
    if (target && target->retry_after_s >= 0)
        wait = ceil(target->retry_after_s);
    else if (!f->raised && f->retry_after)
        wait = f->retry_after;
    add_retry_after(response, wait);
    add_id(req, response);
    ready(req, response, status);
}

static enum rs_http_cause cause_of(const struct rs_failure *f)
{
    if (f->raised || f->code == RS_WIRE_USER)
        return RS_CAUSE_EXCEPTION;
    switch (f->code) {
    case RS_WIRE_BACKPRESSURE:
        return RS_CAUSE_QUEUE_FULL;
    case RS_WIRE_UNAVAILABLE:
    case RS_WIRE_NOT_FOUND:
        return RS_CAUSE_UNAVAILABLE;
    case RS_WIRE_TIMEOUT:
        return RS_CAUSE_TIMEOUT;
    case RS_WIRE_TOO_LARGE:
        return RS_CAUSE_BODY_TOO_LARGE;
    case RS_WIRE_DIED:
        return RS_CAUSE_REPLICA_DIED;
    default:
        return RS_CAUSE_INTERNAL;
    }
}

static void answer_died(struct rs_http_request *req, const struct rs_failure *f)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};

    rs_log_warn("request failed", "request_id=\"%s\" application=\"%s\" reason=\"%s\"",
                rs_buf_text(&req->id), req->route->app, f->message ? f->message : "");
    rs_buf_printf(&text, "Request %s failed: %s.\n", rs_buf_text(&req->id),
                  f->message ? f->message : "its replica died");
    rs_http_answer_text(req, 502, plain, rs_buf_text(&text));
}

/* As Ray Serve's proxy does: an exception of the user's is a bare 500, a failure of the system is one
 * with a type and without an id. */
static void answer_failure(struct rs_http_request *req, const struct rs_failure *f)
{
    static const char error[] = "Internal Server Error";
    struct MHD_Response *response;

    req->cause = cause_of(f);
    switch (f->code) {
    case RS_WIRE_BACKPRESSURE:
        answer_backpressure(req, f);
        return;
    case RS_WIRE_UNAVAILABLE:
        rs_http_answer_text(req, 503, f->raised ? NULL : plain, f->message ? f->message : "");
        return;
    case RS_WIRE_USER:
    case RS_WIRE_CANCELLED:
    case RS_WIRE_TIMEOUT:
        if (f->code == RS_WIRE_TIMEOUT && !f->raised) /* its own, found by a queue */
            rs_http_answer_timeout(req);
        else
            rs_http_answer_text(req, 500, NULL, error);
        return;
    case RS_WIRE_NOT_FOUND:
        if (!f->raised) { /* the deployment went away since the route was looked up */
            rs_http_answer_not_found(req);
            return;
        }
        break;
    case RS_WIRE_DIED:
        answer_died(req, f);
        return;
    case RS_WIRE_TOO_LARGE:
        rs_http_answer_text(req, 413, plain, f->message ? f->message : "");
        return;
    default:
        break;
    }
    rs_log_warn("request failed", "request_id=\"%s\" application=\"%s\" reason=\"%s\"",
                rs_buf_text(&req->id), req->route->app, f->message ? f->message : "");
    req->sent = sizeof(error) - 1;
    response = MHD_create_response_from_buffer(sizeof(error) - 1, (char *)(uintptr_t)error,
                                               MHD_RESPMEM_PERSISTENT);
    add_header(response, "content-type", plain);
    ready(req, response, 500);
}

static void on_fail(struct rs_request *r, const struct rs_failure *f)
{
    struct rs_http_request *req = of(r);

    req->over = true;
    if (!req->mc) {
        rs_http_request_release(req);
        return;
    }
    if (req->abort || req->cut_off)
        return;
    if (req->status) { /* it has begun: all that is left is to break it off */
        req->cause = cause_of(f);
        req->broken = true;
        if (is_websocket(req))
            rs_websocket_fail(req, f);
        else
            rs_http_resume(req);
        return;
    }
    answer_failure(req, f);
}

/* Bytes of its body went on. */
static void on_taken(struct rs_request *r, uint64_t n)
{
    struct rs_http_request *req = of(r);

    req->credit += (int64_t)(n > INT32_MAX ? INT32_MAX : n);
    if (req->websocket)
        rs_websocket_kick(req);
    else if (req->stage == RS_HTTP_UPLOAD && req->credit > 0)
        rs_http_resume(req);
}

const struct rs_reply_ops rs_http_reply = {on_answer, on_data, on_fail, on_taken};
