/* A request's life, and its way in: when what came is passed on.
 *
 * libmicrohttpd calls once when the header is there, then for each piece of the body, then once more
 * when all of it came; only from that last call on it takes an answer. A request whose body is longer
 * than the configuration buffers goes to its replica when that much is there, and the rest follows
 * as credit allows; a shorter one goes when it is complete, so that a slow client holds no slot.
 */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "net/http/ingress-internal.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SPARE_MAX = 256,
    KEPT_MAX = 256 << 20, /* bytes of bodies; then no more than KEPT_LEAST is kept of each */
    KEPT_LEAST = 1 << 20,
    DISCARD_MAX = 1 << 20, /* of a body that is not wanted; then the connection is ended */
};

/* --- its memory -------------------------------------------------------------------------------- */

static int on_timer(struct rs_timer *t);

struct rs_http_request *rs_http_request_new(struct rs_http_server *s, struct MHD_Connection *mc,
                                            const char *target)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct rs_list *it = rs_list_pop_front(&s->spare);
    struct rs_http_request *req =
        it ? rs_container_of(it, struct rs_http_request, link) : rs_alloc(sizeof(*req));
    struct rs_http_request old = *req;
    const char *end = strchr(target, '?');

    if (it)
        s->n_spare--;
    *req = (struct rs_http_request){.server = s,
                                    .conn = info->socket_context,
                                    .mc = mc,
                                    .target = old.target,
                                    .id = old.id,
                                    .text = old.text,
                                    .started_at = rs_clock_now(),
                                    .timer = {.fn = on_timer},
                                    .credit = RS_STREAM_WINDOW};
    req->r.meta = old.r.meta;
    req->r.body = old.r.body;
    rs_request_reset(&req->r, &rs_http_reply);
    req->over = true;
    rs_list_init(&req->pieces);
    rs_list_init(&req->link);
    rs_list_init(&req->turn);
    rs_buf_clear(&req->target);
    rs_buf_clear(&req->id);
    rs_buf_clear(&req->text);
    rs_buf_puts(&req->target, target);
    req->path_len = end ? (size_t)(end - target) : strlen(target);
    req->conn->req = req;
    rs_list_remove(&req->conn->rest);
    rs_list_push_back(&s->requests, &req->link);
    s->n_requests++;
    return req;
}

void rs_http_request_free(struct rs_http_request *req)
{
    rs_list_remove(&req->link);
    rs_request_fini(&req->r);
    rs_buf_fini(&req->target);
    rs_buf_fini(&req->id);
    rs_buf_fini(&req->text);
    free(req);
}

void rs_http_request_release(struct rs_http_request *req)
{
    struct rs_http_server *s = req->server;

    rs_timer_stop(&req->timer);
    rs_http_drop_pieces(req);
    if (req->response)
        MHD_destroy_response(req->response);
    req->response = NULL;
    if (req->route)
        rs_route_table_unref(req->route->table);
    req->route = NULL;
    rs_request_let_go(&req->r);
    rs_closep(&req->r.body_fd);
    s->kept -= req->kept;
    s->n_requests--;
    if (s->n_spare >= SPARE_MAX || req->r.body.cap > RS_FRAME_MEMFD_MIN * 2 ||
        req->text.cap > RS_FRAME_MEMFD_MIN * 2) {
        rs_http_request_free(req);
        return;
    }
    s->n_spare++;
    rs_list_push_front(&s->spare, &req->link);
}

void rs_http_request_cancel(struct rs_http_request *req)
{
    if (!req->over)
        rs_request_cancel(&req->r);
    req->over = true;
}

/* --- what ends it early ------------------------------------------------------------------------ */

void rs_http_answer_timeout(struct rs_http_request *req)
{
    char number[RS_DOUBLE_TEXT];
    struct rs_buf text = {0};

    rs_buf_printf(&text, "Request %s timed out after %ss.", rs_buf_text(&req->id),
                  rs_text_double(req->timeout_s, number));
    req->cause = RS_CAUSE_TIMEOUT;
    if (req->stage == RS_HTTP_UPLOAD)
        rs_http_cut_off(req, 408, rs_buf_text(&text));
    else
        rs_http_answer_text(req, 408, "text/plain; charset=utf-8", rs_buf_text(&text));
    rs_buf_fini(&text);
}

static int on_timer(struct rs_timer *t)
{
    struct rs_http_request *req = rs_container_of(t, struct rs_http_request, timer);
    bool answered = req->over && req->status && req->stage != RS_HTTP_UPLOAD;

    rs_http_request_cancel(req);
    if (req->stage == RS_HTTP_DETACHED)
        rs_http_request_release(req);
    else if (req->cut_off)
        rs_http_cut(req);              /* it had its time to read the answer */
    else if (req->status && !answered) /* with all of its answer there it was in time */
        req->broken = true, rs_http_cut(req);
    else if (!req->status)
        rs_http_answer_timeout(req);
    return 0;
}

static void log_gone(const struct rs_http_request *req)
{
    rs_log_debug("client disconnected", "request_id=\"%s\" application=\"%s\"",
                 rs_buf_text(&req->id), req->route ? req->route->app : "");
}

void rs_http_request_hup(struct rs_http_request *req)
{
    if (req->stay && req->stage != RS_HTTP_UPLOAD)
        return; /* the work goes on; the answer will find nobody */
    if (!req->over)
        log_gone(req);
    rs_http_request_cancel(req);
    req->abort = true;
    rs_http_resume(req);
}

static unsigned final_status(const struct rs_http_request *req, bool aborted)
{
    if (req->status && (!aborted || req->broken || req->cut_off))
        return req->status;
    return aborted ? 499 : 400; /* the client hung up; libmicrohttpd refused it */
}

void rs_http_request_done(struct rs_http_request *req, bool aborted)
{
    /* It has its answer; with one that libmicrohttpd made itself the request was no good. */
    bool served = !aborted && req->stage == RS_HTTP_REPLYING;
    bool goes_on = served || (req->stay && req->stage != RS_HTTP_UPLOAD);

    if (req->stage != RS_HTTP_LINE) {
        unsigned status = final_status(req, aborted);
        int64_t now = rs_clock_now();

        if (status == 499)
            req->cause = RS_CAUSE_CLIENT_GONE;
        else if (!req->status)
            req->cause = RS_CAUSE_BAD_REQUEST;
        rs_http_count(req, status, now);
        if (req->server->log)
            rs_http_log(req, status, now);
    }
    rs_http_idle(req->conn);
    req->mc = NULL;
    req->suspended = false;
    rs_http_unwait(req);
    if (req->was_suspended)
        rs_http_follow(req->server, 1);
    if (req->long_reply && req->stage == RS_HTTP_REPLYING)
        req->server->long_replies--;
    rs_websocket_free(rs_steal(req->websocket));
    rs_http_drop_pieces(req);
    if (!req->over && !goes_on) {
        log_gone(req);
        rs_http_request_cancel(req);
    }
    req->stage = RS_HTTP_DETACHED;
    if (req->over)
        rs_http_request_release(req);
}

/* --- the body ---------------------------------------------------------------------------------- */

static void submit(struct rs_http_request *req, bool whole)
{
    struct rs_lane *lane = req->server->lane;
    const struct rs_http_route_cache *c = req->route->cache;

    req->r.kind = req->wants_websocket ? RS_REQUEST_WEBSOCKET : RS_REQUEST_HTTP;
    req->r.body_end = whole && !req->wants_websocket;
    req->submitted = true;
    if (req->server->log)
        req->r.replica = req->replica;
    req->over = false;
    /* While a body came in the table may have changed. */
    if (c->target && req->route->table == lane->routes)
        rs_lane_submit_to(lane, &req->r, c->target);
    else
        rs_lane_submit(lane, &req->r, req->route->app,
                       req->route->ingress ? req->route->ingress : "");
}

/* Short bodies in a buffer, longer ones in the memfd that they will travel in. */
static int keep(struct rs_http_request *req, const char *data, size_t len)
{
    struct rs_request *r = &req->r;

    rs_request_hold(r, &req->server->lane->memory, len);
    if (r->body_fd < 0 && rs_buf_len(&r->body) + len > RS_FRAME_MEMFD_MIN) {
        r->body_fd = memfd_create("rserve-body", MFD_CLOEXEC);
        if (r->body_fd < 0 ||
            rs_file_write(r->body_fd, rs_buf_head(&r->body), rs_buf_len(&r->body), 0) < 0)
            return -1;
        r->body_len = rs_buf_len(&r->body);
        rs_buf_clear(&r->body);
    }
    if (r->body_fd < 0) {
        rs_buf_append(&r->body, data, len);
        return 0;
    }
    if (rs_file_write(r->body_fd, data, len, r->body_len) < 0)
        return -1;
    r->body_len += len;
    return 0;
}

static enum MHD_Result throw_away(struct rs_http_request *req, size_t *size)
{
    req->received += *size;
    *size = 0;
    if (!req->cut_off && req->received > DISCARD_MAX && !req->submitted)
        rs_http_cut_off(req, req->status, NULL);
    return MHD_YES;
}

/* How much is read before a replica is chosen. A body that is there as a whole takes a replica's time
 * only while it is worked on; one that cannot be kept in the end is better passed on soon. */
static size_t keep_at_most(const struct rs_http_request *req)
{
    size_t most = req->server->conf->buffer_body;

    if (most > KEPT_LEAST &&
        (!req->has_length || req->content_length > most || req->server->kept > KEPT_MAX))
        return KEPT_LEAST;
    return most;
}

static enum MHD_Result upload(struct rs_http_request *req, const char *data, size_t *size)
{
    size_t len = *size;

    if (req->discard || req->cut_off)
        return throw_away(req, size);
    if (req->submitted && req->credit <= 0) {
        if (req->conn->gone)
            return MHD_NO;
        rs_http_suspend(req);
        return MHD_YES;
    }
    req->received += len;
    *size = 0;
    rs_http_follow(req->server, 1);
    if (req->received > rs_http_max_body(req)) {
        char text[100];

        rs_http_request_cancel(req);
        rs_http_cut_off(req, 413, rs_http_body_too_large(req, text, sizeof(text)));
        return MHD_YES;
    }
    req->credit -= (int64_t)len;
    if (req->submitted) {
        rs_request_feed(&req->r, &(struct rs_chunk){data, len, -1}, false);
        return MHD_YES;
    }
    if (keep(req, data, len) < 0) {
        req->cause = RS_CAUSE_INTERNAL;
        rs_http_cut_off(req, 500, "Internal Server Error");
        return MHD_YES;
    }
    req->kept += len;
    req->server->kept += len;
    if (req->received > keep_at_most(req))
        submit(req, false);
    return MHD_YES;
}

static void upload_ended(struct rs_http_request *req)
{
    req->stage = RS_HTTP_WAITING;
    if (req->discard)
        return;
    if (req->submitted)
        rs_request_feed(&req->r, &RS_CHUNK_NONE, true);
    else
        submit(req, true);
}

/* A client that asks before it sends its body is told at once. */
bool rs_http_expects_continue(const struct rs_http_request *req)
{
    const char *value = MHD_lookup_connection_value(req->mc, MHD_HEADER_KIND, "Expect");

    return value && !req->http_10 && strcasecmp(value, "100-continue") == 0 &&
           (req->has_te || req->content_length);
}

enum MHD_Result rs_http_request_step(struct rs_http_request *req, const char *method,
                                     const char *version, const char *data, size_t *size)
{
    if (req->abort)
        return MHD_NO;
    if (req->stage == RS_HTTP_LINE) {
        rs_http_begin(req, method, version);
        if (req->response && rs_http_expects_continue(req))
            return rs_http_queue(req);
        return MHD_YES;
    }
    if (*size)
        return upload(req, data, size);
    if (req->cut_off)
        return MHD_NO;
    if (req->stage == RS_HTTP_UPLOAD)
        upload_ended(req);
    if (req->response)
        return rs_http_queue(req);
    if (req->conn->gone && !req->stay)
        return MHD_NO;
    rs_http_wait(req);
    return MHD_YES;
}
