#include "net/router/peer.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "net/router/channel.h"
#include "net/router/dataplane-internal.h"
#include "net/wire/tcp.h"

#include <stdio.h>
#include <string.h>

static const int64_t pause_min = 100 * RS_MS, pause_max = 5 * RS_SEC;

struct rs_peer {
    struct rs_channel ch; /* ch.conn NULL: not connected */
    struct rs_lane *lane;
    char *address;
    bool greeted; /* its HELLO came */
    int64_t pause;
    struct rs_timer again;
    struct rs_list backends;
};

struct remote {
    struct rs_backend b;
    struct rs_peer *peer;
    char *node_id;
    struct rs_list link;
};

struct guest {
    struct rs_channel ch;
    struct rs_list link;
};

static struct remote *of(const struct rs_backend *b)
{
    return rs_container_of((uintptr_t)b, struct remote, b);
}

static void send_hello(struct rs_lane *lane, struct rs_conn *conn)
{
    rs_auto(rs_json_decrefp) json_t *j =
        json_pack("{s:i, s:s, s:s}", "protocol", RS_WIRE_VERSION, "kind", "peer", "node_id",
                  rs_dataplane_node_id(lane->dataplane));

    rs_conn_send_json(conn, RS_MSG_HELLO, 0, j);
}

static int check_hello(const struct rs_frame *f, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *j = NULL;

    if (f->h.type != RS_MSG_HELLO)
        return rs_error_set(err, RS_INVALID, "%s frame from a node", rs_msg_name(f->h.type));
    if (rs_frame_json(f, &j, err) < 0)
        return -1;
    if (rs_json_int(j, "protocol", 0) != RS_WIRE_VERSION ||
        strcmp(rs_json_str(j, "kind", ""), "peer") != 0)
        return rs_error_set(err, RS_INVALID, "expected HELLO of a peer with protocol %d, got %s",
                            RS_WIRE_VERSION, rs_json_str(j, "kind", "no kind"));
    return 0;
}

/* --- backend ----------------------------------------------------------------------------------- */

static void op_send(struct rs_backend *b, struct rs_request *r)
{
    rs_channel_send(&of(b)->peer->ch, r);
}

static void op_feed(struct rs_backend *b, struct rs_request *r, struct rs_chunk *body, bool end)
{
    rs_channel_feed(&of(b)->peer->ch, r, body, end);
}

static void op_window(struct rs_backend *b, struct rs_request *r, uint64_t n)
{
    rs_channel_window(&of(b)->peer->ch, r, n);
}

static void op_cancel(struct rs_backend *b, struct rs_request *r)
{
    rs_channel_cancel(&of(b)->peer->ch, r);
}

static void op_free(struct rs_backend *b)
{
    struct remote *x = of(b);

    rs_list_remove(&x->link);
    free(x->node_id);
    free(x);
}

static const struct rs_backend_ops backend_ops = {
    .send = op_send, .feed = op_feed, .window = op_window, .cancel = op_cancel, .free = op_free};

struct rs_backend *rs_peer_backend_new(struct rs_peer *p, const char *node_id)
{
    struct remote *x = rs_alloc(sizeof(*x));

    x->b.ops = &backend_ops;
    x->b.slots.blocked = !p->greeted;
    x->peer = p;
    x->node_id = rs_strdup(node_id);
    rs_list_init(&x->link);
    rs_list_push_back(&p->backends, &x->link);
    return &x->b;
}

const char *rs_peer_backend_node(const struct rs_backend *b)
{
    return of(b)->node_id;
}

struct rs_peer *rs_peer_backend_peer(const struct rs_backend *b)
{
    return of(b)->peer;
}

/* --- the link ---------------------------------------------------------------------------------- */

static void connect_now(struct rs_peer *p);

static void connect_later(struct rs_peer *p)
{
    p->pause = p->pause ? 2 * p->pause : pause_min;
    if (p->pause > pause_max)
        p->pause = pause_max;
    rs_timer_start(&p->again, p->lane->loop, rs_loop_now(p->lane->loop) + p->pause);
}

static int on_again(struct rs_timer *t)
{
    connect_now(rs_container_of(t, struct rs_peer, again));
    return 0;
}

static void block_all(struct rs_peer *p, bool blocked)
{
    rs_list_for_each (it, &p->backends)
        rs_backend_block(&rs_container_of(it, struct remote, link)->b, blocked);
}

/* Its requests may have been started over there. */
static void cut_all(struct rs_peer *p, const char *reason)
{
    char why[300];

    snprintf(why, sizeof(why), "the connection to its node, %.100s, was lost: %.150s", p->address,
             reason);
    rs_list_for_each (it, &p->backends) {
        struct rs_backend *b = &rs_container_of(it, struct remote, link)->b;

        if (b->pool)
            rs_backend_cut(b, why);
    }
}

static int link_message(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err)
{
    struct rs_peer *p = rs_container_of(ch, struct rs_peer, ch);

    if (check_hello(f, err) < 0)
        return -1;
    if (!p->greeted)
        rs_log_info("connected to node", "address=%s", p->address);
    p->greeted = true;
    p->pause = 0;
    block_all(p, false);
    return 0;
}

static void link_closed(struct rs_channel *ch, const char *why)
{
    struct rs_peer *p = rs_container_of(ch, struct rs_peer, ch);

    if (p->greeted || !p->pause)
        rs_log_warn("no connection to node", "address=%s reason=\"%s\"", p->address, why);
    p->greeted = false;
    block_all(p, true);
    cut_all(p, why);
    rs_channel_fini(ch);
    connect_later(p);
}

static const struct rs_channel_ops link_ops = {link_message, link_closed, NULL};

static void connect_now(struct rs_peer *p)
{
    struct rs_address to;
    struct rs_error err = {0};
    int fd;

    if (rs_address_parse(p->address, -1, &to, &err) < 0 || rs_tcp_connect(&to, &fd, &err) < 0 ||
        rs_channel_init(&p->ch, p->lane, fd, 1, &link_ops, &err) < 0) {
        if (!p->pause)
            rs_log_warn("no connection to node", "address=%s reason=\"%s\"", p->address, err.msg);
        connect_later(p);
        return;
    }
    p->ch.node = true;
    send_hello(p->lane, p->ch.conn);
}

struct rs_peer *rs_peer_at(struct rs_lane *lane, const char *address)
{
    struct rs_peer *p = rs_map_get(&lane->peers, address);

    if (p)
        return p;
    p = rs_alloc(sizeof(*p));
    p->lane = lane;
    p->address = rs_strdup(address);
    p->again.fn = on_again;
    rs_list_init(&p->backends);
    rs_list_init(&p->ch.calls);
    rs_map_put(&lane->peers, address, p);
    connect_now(p);
    return p;
}

void rs_peer_free(struct rs_peer *p)
{
    if (!p)
        return;
    rs_timer_stop(&p->again);
    rs_channel_fini(&p->ch);
    free(p->address);
    free(p);
}

/* --- connections that others made -------------------------------------------------------------- */

static void free_guest(void *arg)
{
    struct guest *g = arg;

    rs_list_remove(&g->link);
    rs_channel_fini(&g->ch);
    free(g);
}

static int guest_message(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err)
{
    if (check_hello(f, err) < 0)
        return -1;
    ch->greeted = true;
    return 0;
}

static void guest_closed(struct rs_channel *ch, const char *why)
{
    struct guest *g = rs_container_of(ch, struct guest, ch);

    rs_log_debug("a node disconnected", "reason=\"%s\"", why);
    rs_list_remove(&g->link);
    rs_loop_post(ch->lane->loop, free_guest, g); /* not from inside its own callback */
}

static const struct rs_channel_ops guest_ops = {guest_message, guest_closed, NULL};

void rs_peer_accept(struct rs_lane *lane, int fd)
{
    struct guest *g = rs_alloc(sizeof(*g));
    struct rs_error err = {0};

    rs_list_init(&g->link);
    if (rs_channel_init(&g->ch, lane, fd, 2, &guest_ops, &err) < 0) {
        rs_log_warn("connection from a node failed", "reason=\"%s\"", err.msg);
        free(g);
        return;
    }
    g->ch.from_node = g->ch.node = true;
    g->ch.greeted = false;
    rs_list_push_back(&lane->guests, &g->link);
    send_hello(lane, g->ch.conn);
}

void rs_peer_close_guests(struct rs_lane *lane)
{
    while (!rs_list_empty(&lane->guests))
        free_guest(rs_container_of(lane->guests.next, struct guest, link));
}
