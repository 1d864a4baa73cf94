#include "net/router/replica.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "net/router/channel.h"
#include "net/router/dataplane-internal.h"

#include <string.h>

struct replica {
    struct rs_backend b;
    struct rs_channel ch;
    bool tells_ends; /* READY said that it tells when cancelled work has ended */
    bool websocket;  /* READY said that it takes WebSocket requests */
    bool tells;      /* HELLO said that it can tell what it begins */
    struct rs_starts *starts;
};

static struct replica *of(struct rs_backend *b)
{
    return rs_container_of(b, struct replica, b);
}

/* --- backend ----------------------------------------------------------------------------------- */

static void op_send(struct rs_backend *b, struct rs_request *r)
{
    if (r->kind == RS_REQUEST_WEBSOCKET && !of(b)->websocket)
        rs_request_refuse_websocket(r);
    else
        rs_channel_send(&of(b)->ch, r);
}

static void op_feed(struct rs_backend *b, struct rs_request *r, struct rs_chunk *body, bool end)
{
    rs_channel_feed(&of(b)->ch, r, body, end);
}

static void op_window(struct rs_backend *b, struct rs_request *r, uint64_t n)
{
    rs_channel_window(&of(b)->ch, r, n);
}

static void op_cancel(struct rs_backend *b, struct rs_request *r)
{
    rs_channel_cancel(&of(b)->ch, r);
}

static bool op_abandon(struct rs_backend *b, struct rs_request *r)
{
    struct replica *x = of(b);
    uint64_t stream = r->stream;

    rs_channel_cancel(&x->ch, r);
    if (!x->tells_ends || !x->ch.conn)
        return false;
    rs_streams_put(&x->ch.abandoned, stream, x);
    return true;
}

static void op_free(struct rs_backend *b)
{
    struct replica *x = of(b);

    rs_channel_fini(&x->ch);
    rs_starts_free(x->starts);
    free(x);
}

static const struct rs_backend_ops backend_ops = {op_send,   op_feed,    op_window,
                                                  op_cancel, op_abandon, op_free};

/* --- what it says ------------------------------------------------------------------------------ */

static json_t *found(struct rs_route_table *t, const char *app, const char *deployment)
{
    struct rs_route *route = rs_route_app(t, app);
    json_t *names = json_array();

    for (size_t i = 0; i < rs_map_slots(&t->targets); i++) {
        const struct rs_route_target *target = rs_map_at(&t->targets, i, NULL);

        if (target && strcmp(target->app, app) == 0)
            json_array_append_new(names, json_string(target->deployment));
    }
    return json_pack("{s:b, s:s?, s:b, s:o}", "app_exists", route != NULL, "ingress",
                     route ? route->ingress : NULL, "exists",
                     deployment && rs_route_target(t, app, deployment) != NULL, "deployments",
                     names);
}

static void answer_lookup(struct replica *x, uint64_t stream, const json_t *j)
{
    rs_auto(rs_json_decrefp) json_t *answer =
        found(x->ch.lane->routes, rs_json_str(j, "app", ""), rs_json_str(j, "deployment", NULL));

    rs_conn_send_json(x->ch.conn, RS_MSG_FOUND, stream, answer);
}

static int on_message(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err)
{
    struct replica *x = rs_container_of(ch, struct replica, ch);
    json_t *j;

    switch (f->h.type) {
    case RS_MSG_HELLO:
    case RS_MSG_READY:
    case RS_MSG_FAILED:
    case RS_MSG_PONG:
    case RS_MSG_STATS:
    case RS_MSG_LOOKUP:
    case RS_MSG_ASK:
    case RS_MSG_CORE:
        break;
    default:
        return rs_error_set(err, RS_INVALID, "%s frame from a replica", rs_msg_name(f->h.type));
    }
    if (rs_frame_json(f, &j, err) < 0)
        return -1;
    if (f->h.type == RS_MSG_HELLO)
        x->tells = rs_json_bool(j, "starts", false);
    if (f->h.type == RS_MSG_READY) {
        x->websocket = rs_json_bool(j, "websocket", false);
        x->ch.starts = rs_json_bool(j, "starts", false) ? x->starts : NULL;
        x->tells_ends = rs_json_bool(j, "ends", false);
    }
    if (f->h.type == RS_MSG_STATS && x->b.pool && json_object_get(j, "multiplexed"))
        rs_pool_models(x->b.pool, &x->b, json_object_get(j, "multiplexed"));
    if (f->h.type == RS_MSG_LOOKUP) {
        answer_lookup(x, f->h.stream, j);
        json_decref(j);
    } else {
        rs_dataplane_post_replica(ch->lane->dataplane, x->b.replica_id, (enum rs_msg)f->h.type,
                                  f->h.stream, j);
    }
    return 0;
}

static void on_close(struct rs_channel *ch, const char *why)
{
    rs_backend_gone(&rs_container_of(ch, struct replica, ch)->b, why);
}

static void on_ended(struct rs_channel *ch)
{
    rs_backend_ended(&rs_container_of(ch, struct replica, ch)->b);
}

static const struct rs_channel_ops channel_ops = {on_message, on_close, on_ended};

int rs_replica_new(struct rs_backend **ret, struct rs_lane *lane, int fd, struct rs_error *err)
{
    struct replica *x = rs_alloc(sizeof(*x));

    if (rs_channel_init(&x->ch, lane, fd, 2, &channel_ops, err) < 0) {
        free(x);
        return -1;
    }
    x->b.ops = &backend_ops;
    *ret = &x->b;
    return 0;
}

void rs_replica_figures(struct rs_backend *b)
{
    if (b->ops == &backend_ops)
        of(b)->ch.figures = b->figures;
}

void rs_replica_receive(struct rs_backend *b)
{
    struct replica *x = of(b);

    if (b->ops == &backend_ops && x->ch.conn)
        rs_conn_receive(x->ch.conn);
}

/* With memory to tell through what it begins. False: there is none. */
static bool tell_init(struct replica *x, const char *text)
{
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    struct rs_error err = {0};
    int fd = -1;

    if (!x->tells || x->starts || rs_json_parse(&j, text, strlen(text), "INIT", &err) < 0)
        return false;
    if (rs_starts_new(&x->starts, &fd, &err) < 0) {
        rs_log_warn("a replica cannot tell what it begins", "replica=%s reason=\"%s\"",
                    x->b.replica_id, err.msg);
        return false;
    }
    rs_conn_send_json_fds(x->ch.conn, RS_MSG_INIT, 0, j, &fd, 1);
    return true;
}

static bool may_come_back(const struct replica *x, const struct rs_request *r)
{
    return r->wants == RS_WANTS_WORK && r->kept && !rs_starts_begun(x->ch.starts, r->stream);
}

void rs_replica_take_back(struct rs_backend *b)
{
    struct replica *x = of(b);
    rs_auto(rs_freep) struct rs_request **requests = NULL;
    rs_auto(rs_freep) uint64_t *streams = NULL;
    rs_auto(rs_freep) bool *begun = NULL;
    size_t n = 0;

    if (b->ops != &backend_ops || !x->ch.conn || !x->ch.starts || !b->slots.in_flight)
        return;
    requests = rs_alloc(b->slots.in_flight * sizeof(struct rs_request *));
    streams = rs_alloc(b->slots.in_flight * sizeof(uint64_t));
    begun = rs_alloc(b->slots.in_flight * sizeof(bool));
    for (struct rs_list *it = b->requests.prev; it != &b->requests; it = it->prev) {
        struct rs_request *r = rs_container_of(it, struct rs_request, link);

        if (may_come_back(x, r)) {
            requests[n] = r;
            streams[n++] = r->stream;
        }
    }
    rs_starts_take_back(x->starts, streams, begun, n);
    for (size_t i = 0; i < n; i++) {
        if (begun[i])
            continue;
        rs_channel_cancel(&x->ch, requests[i]);
        rs_request_lost(requests[i], false, NULL);
    }
}

void rs_replica_tell(struct rs_backend *b, enum rs_msg type, uint64_t stream, const char *text)
{
    static const char too_long[] = "{\"error\": \"the answer is longer than 16 MiB\"}";
    struct replica *x = of(b);
    struct rs_error err = {0};

    if (b->ops != &backend_ops || !x->ch.conn)
        return;
    if (type == RS_MSG_INIT && text && tell_init(x, text))
        return;
    if (!text) {
        rs_conn_send(x->ch.conn, type, 0, stream, NULL, 0, NULL, 0);
    } else if (rs_conn_offer_text(x->ch.conn, type, stream, text, &err) < 0) {
        rs_log_warn("what a replica should be told is too long", "replica=%s reason=\"%s\"",
                    b->replica_id, err.msg);
        if (stream)
            rs_conn_send(x->ch.conn, type, 0, stream, too_long, sizeof(too_long) - 1, NULL, 0);
    }
}
