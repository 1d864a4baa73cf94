/* WebSocket requests of the ingress: from the answer 101 on, the connection is a socket of this loop.
 *
 * The request goes on as the application's side of the session (websocket_session.h): what the client
 * sends is fed to it as its body, the body of its answer goes to the client. Either side may end first:
 * without a client the request waits for the application to return, without an application the
 * session leads the closing handshake.
 */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "net/http/headers.h"
#include "net/http/ingress-internal.h"
#include "net/http/websocket_key.h"
#include "net/http/websocket_session.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

enum {
    READ = 48 << 10,      /* what becomes of it fits an inline frame */
    OUT_MAX = 64 << 10,   /* read ahead of the client */
    ROUNDS = 8,           /* reads in one turn of the loop */
    OUT_KEEP = 256 << 10, /* a buffer that grew beyond this is given up */
};

struct rs_websocket {
    struct rs_http_request *req;
    struct rs_front_conn *front;
    struct rs_ws_session session;
    struct MHD_UpgradeResponseHandle *handle; /* NULL: the connection was given back */
    struct rs_io io;
    struct rs_timer timer;
    bool shut;
};

static int64_t now_of(const struct rs_websocket *ws)
{
    return rs_loop_now(ws->req->server->lane->loop);
}

/* --- its end ----------------------------------------------------------------------------------- */

/* What a client that is gone will not take counts as taken: its application may wait for credit. */
static void drop_pieces(struct rs_http_request *req)
{
    uint64_t left = 0;

    rs_list_for_each (it, &req->pieces) {
        const struct rs_http_piece *p = rs_container_of(it, struct rs_http_piece, link);

        left += p->len - p->at;
    }
    rs_http_drop_pieces(req);
    if (left && !req->over)
        rs_request_window(&req->r, left);
}

/* Gives the connection back to libmicrohttpd, which closes it and ends the request on HTTP's side. */
static void give_back(struct rs_websocket *ws)
{
    struct rs_http_request *req = ws->req;

    rs_timer_stop(&ws->timer);
    rs_io_stop(&ws->io);
    req->status = ws->session.code ? ws->session.code : RS_WS_ABNORMAL;
    drop_pieces(req);
    (void)MHD_upgrade_action(rs_steal(ws->handle), MHD_UPGRADE_ACTION_CLOSE);
    rs_http_wake(req->server);
}

/* --- application to client --------------------------------------------------------------------- */

/* True: the socket takes no more for now. */
static bool flush(struct rs_websocket *ws)
{
    struct rs_buf *out = &ws->session.out;

    while (rs_buf_len(out)) {
        ssize_t n = rs_front_send(ws->front, rs_buf_head(out), rs_buf_len(out));

        if (n >= 0) {
            rs_buf_consume(out, (size_t)n);
            rs_ws_wrote(&ws->session, now_of(ws));
        } else if (errno == EAGAIN) {
            return true;
        } else if (errno != EINTR) {
            rs_ws_client_gone(&ws->session);
        }
    }
    if (out->cap > OUT_KEEP)
        rs_buf_fini(out);
    return false;
}

static void end_of_app(struct rs_websocket *ws)
{
    struct rs_http_request *req = ws->req;

    if (req->over && rs_list_empty(&req->pieces))
        rs_ws_app_ended(&ws->session, (enum rs_ws_end)req->app_end, now_of(ws));
}

/* As much of the answer as the client takes. */
static void write_on(struct rs_websocket *ws)
{
    struct rs_http_request *req = ws->req;
    char data[16 << 10];
    bool full = flush(ws);

    while (!full && !rs_list_empty(&req->pieces)) {
        uint64_t taken = 0;

        while (rs_buf_len(&ws->session.out) < OUT_MAX && !rs_list_empty(&req->pieces)) {
            ssize_t n = rs_http_read_piece(req, data, sizeof(data));

            if (n < 0) {
                rs_ws_client_gone(&ws->session); /* a memfd that is not what was said */
                drop_pieces(req);
                break;
            }
            rs_ws_app(&ws->session, data, (size_t)n, now_of(ws));
            taken += (uint64_t)n;
        }
        if (taken && !req->over)
            rs_request_window(&req->r, taken);
        full = flush(ws);
    }
    end_of_app(ws);
    (void)flush(ws);
}

/* --- client to application --------------------------------------------------------------------- */

static void pass_on(struct rs_websocket *ws)
{
    struct rs_http_request *req = ws->req;
    struct rs_buf *in = &ws->session.in;
    struct rs_chunk chunk = {rs_buf_head(in), rs_buf_len(in), -1};

    if (!req->over && !req->r.body_end && (chunk.len || ws->session.in_ended)) {
        req->credit -= (int64_t)chunk.len;
        rs_request_feed(&req->r, &chunk, ws->session.in_ended);
    }
    rs_buf_clear(in);
}

/* The application does not take what there is; but the client's part of a close is heard. */
static bool held_back(const struct rs_websocket *ws)
{
    const struct rs_http_request *req = ws->req;

    return req->credit <= 0 && !req->over && !ws->session.closing;
}

static void read_some(struct rs_websocket *ws)
{
    static _Thread_local char data[READ];

    for (int i = 0; i < ROUNDS && !held_back(ws) && !ws->session.gone; i++) {
        ssize_t n = rs_front_recv(ws->front, data, sizeof(data));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0)
            rs_ws_client_gone(&ws->session);
        else
            rs_ws_client(&ws->session, data, (size_t)n, now_of(ws));
        pass_on(ws);
        if (n < (ssize_t)sizeof(data) && !rs_front_pending(ws->front))
            break;
    }
}

/* --- in the loop ------------------------------------------------------------------------------- */

static void watch(struct rs_websocket *ws)
{
    uint32_t events = held_back(ws) ? 0 : EPOLLIN;

    if (rs_buf_len(&ws->session.out))
        events |= EPOLLOUT;
    rs_io_watch(&ws->io, events);
}

/* After anything happened. May end with the connection given back. */
static void settle(struct rs_websocket *ws)
{
    struct rs_lane *lane = ws->req->server->lane;
    enum rs_ws_next next;
    int64_t at;

    write_on(ws);
    at = rs_ws_tick(&ws->session, held_back(ws), now_of(ws));
    (void)flush(ws);
    pass_on(ws);
    next = rs_ws_next(&ws->session);
    if (next == RS_WS_NEXT_DROP || (next == RS_WS_NEXT_CLOSE && !rs_buf_len(&ws->session.out))) {
        give_back(ws);
        return;
    }
    if (next == RS_WS_NEXT_LINGER && !ws->shut && !rs_buf_len(&ws->session.out)) {
        ws->shut = true;
        rs_front_shut(ws->front);
    }
    watch(ws);
    if (at)
        rs_timer_start(&ws->timer, lane->loop, at);
    else
        rs_timer_stop(&ws->timer);
    if (rs_front_pending(ws->front) && !held_back(ws))
        rs_timer_start(&ws->timer, lane->loop, now_of(ws)); /* the socket will not say so */
}

static int on_io(struct rs_io *io, uint32_t events)
{
    struct rs_websocket *ws = rs_container_of(io, struct rs_websocket, io);

    if (events & EPOLLIN)
        read_some(ws);
    else if (events & (EPOLLERR | EPOLLHUP))
        rs_ws_client_gone(&ws->session);
    settle(ws);
    return 0;
}

static int on_timer(struct rs_timer *t)
{
    struct rs_websocket *ws = rs_container_of(t, struct rs_websocket, timer);

    if (rs_front_pending(ws->front))
        read_some(ws);
    settle(ws);
    return 0;
}

/* --- its beginning ----------------------------------------------------------------------------- */

/* The answer 101 is with the kernel. What the client said meanwhile comes as `extra`. */
static void on_upgrade(void *arg, struct MHD_Connection *mc, void *context, const char *extra,
                       size_t extra_len, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
    struct rs_http_request *req = arg;
    struct rs_loop *loop = req->server->lane->loop;
    struct rs_websocket *ws = rs_alloc(sizeof(*ws));

    (void)mc;
    (void)context;
    rs_mhd_fd_close(&req->conn->fd);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    ws->req = req;
    ws->front = req->conn->front;
    ws->handle = handle;
    ws->io = (struct rs_io){.fd = fd, .fn = on_io};
    ws->timer.fn = on_timer;
    req->websocket = ws;
    rs_ws_init(&ws->session, &rs_ws_defaults, rs_loop_now(loop));
    if (rs_io_start(&ws->io, loop, EPOLLIN, NULL) < 0)
        rs_ws_client_gone(&ws->session);
    if (req->server->stopping)
        rs_ws_restart(&ws->session, rs_loop_now(loop));
    rs_ws_client(&ws->session, extra, extra_len, rs_loop_now(loop));
    rs_timer_start(&ws->timer, loop, rs_loop_now(loop)); /* not from inside libmicrohttpd */
}

/* Names that the handshake itself decides on. */
static bool is_ours(const char *name)
{
    return strcmp(name, "sec-websocket-accept") == 0 || strcmp(name, "content-length") == 0 ||
           strcmp(name, "sec-websocket-extensions") == 0 || rs_http_hop_by_hop(name);
}

struct MHD_Response *rs_websocket_response(struct rs_http_request *req, const struct rs_answer *a)
{
    struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgrade, req);
    struct rs_http_headers h = rs_http_headers(a->headers, a->headers_len);
    char accept[RS_WS_ACCEPT_LEN + 1];

    rs_ws_accept(req->websocket_key, sizeof(req->websocket_key), accept);
    (void)MHD_add_response_header(response, "upgrade", "websocket");
    (void)MHD_add_response_header(response, "sec-websocket-accept", accept);
    while (rs_http_headers_next(&h)) {
        if (!is_ours(h.name) && h.value[0] && rs_http_header_ok(h.name, h.value))
            (void)MHD_add_response_header(response, h.name, h.value);
    }
    rs_timer_stop(&req->timer); /* the time limit is one for the handshake */
    return response;
}

void rs_websocket_kick(struct rs_http_request *req)
{
    struct rs_websocket *ws = req->websocket;

    if (!ws)
        return; /* the client has not got its 101 yet */
    if (ws->handle)
        settle(ws);
    else
        drop_pieces(req);
}

void rs_websocket_fail(struct rs_http_request *req, const struct rs_failure *f)
{
    if (f->code != RS_WIRE_USER && f->code != RS_WIRE_DIED)
        rs_log_warn("WebSocket request failed",
                    "request_id=\"%s\" application=\"%s\" reason=\"%s\"", rs_buf_text(&req->id),
                    req->route->app, f->message ? f->message : "");
    req->app_end = f->code == RS_WIRE_USER ? RS_WS_END_CUT
                   : f->stopped            ? RS_WS_END_STOPPED
                                           : RS_WS_END_DIED;
    rs_websocket_kick(req);
}

void rs_websocket_restart(struct rs_http_request *req)
{
    struct rs_websocket *ws = req->websocket;

    if (!ws || !ws->handle)
        return;
    rs_ws_restart(&ws->session, now_of(ws));
    settle(ws);
}

void rs_websocket_cut(struct rs_http_request *req)
{
    struct rs_websocket *ws = req->websocket;

    if (!ws->handle)
        return;
    (void)flush(ws);
    rs_ws_client_gone(&ws->session);
    pass_on(ws);
    give_back(ws);
}

void rs_websocket_free(struct rs_websocket *ws)
{
    if (!ws)
        return;
    assert(!ws->handle);
    rs_ws_fini(&ws->session);
    free(ws);
}
