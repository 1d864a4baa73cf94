#include "net/router/lane.h"

#include "core/base/alloc.h"
#include "net/http/server.h"
#include "net/router/dataplane-internal.h"
#include "net/router/peer.h"
#include "net/router/relay.h"
#include "net/router/replica.h"
#include "net/router/stage.h"

#include <stdio.h>
#include <string.h>

static void free_backend(void *arg)
{
    struct rs_backend *b = arg;
    char *id = b->replica_id;

    b->ops->free(b);
    free(id);
}

static void on_idle(struct rs_backend *b, void *arg)
{
    struct rs_lane *l = arg;

    if (b->replica_id)
        rs_dataplane_post_idle(l->dataplane, b->replica_id);
    else
        rs_lane_drop(l, b, NULL); /* another node that has no replicas any more */
}

static void on_gone(struct rs_backend *b, const char *why, void *arg)
{
    struct rs_lane *l = arg;

    if (b->replica_id)
        rs_dataplane_post_gone(l->dataplane, b->replica_id, why);
}

static void on_buried(struct rs_backend *b, void *arg)
{
    struct rs_lane *l = arg;

    if (b->replica_id && rs_map_get(&l->replicas, b->replica_id) == b)
        rs_map_remove(&l->replicas, b->replica_id);
    b->figures = NULL; /* they may go before it does */
    rs_replica_figures(b);
    rs_loop_post(l->loop, free_backend, b); /* it may be inside a callback of its own */
}

static void on_load(bool urgent, void *arg)
{
    const struct rs_lane *l = arg;

    rs_dataplane_post_load(l->dataplane, urgent);
}

void rs_lane_refused(const struct rs_lane *l)
{
    atomic_bool *tell = l->metrics->tell_refused;

    if (tell && atomic_load_explicit(tell, memory_order_relaxed) &&
        atomic_exchange_explicit(tell, false, memory_order_relaxed))
        rs_dataplane_post_load(l->dataplane, false);
}

static void on_choose(struct rs_pool *p, uint64_t id, json_t *question, void *arg)
{
    const struct rs_lane *l = arg;

    rs_dataplane_post_choose(l->dataplane, p->app, p->name, id, question);
}

static const struct rs_pool_ops pool_ops = {on_idle, on_gone, on_buried, on_load, on_choose};

struct rs_pool *rs_lane_pool(struct rs_lane *l, const char *app, const char *deployment,
                             struct rs_figures *figures)
{
    const char *key = rs_route_key(&l->key, app, deployment);
    struct rs_pool *p = rs_map_get(&l->pools, key);

    if (!p && figures) {
        p = rs_pool_new(l->loop, l->metrics, app, deployment, figures, &pool_ops, l);
        p->memory = &l->memory;
        rs_map_put(&l->pools, key, p);
    }
    return p;
}

static void refuse(struct rs_request *r, const char *app, const char *deployment)
{
    char message[512];

    snprintf(message, sizeof(message), "Deployment '%s' does not exist in application '%s'.",
             deployment, app);
    r->reply->fail(r, &(struct rs_failure){.code = RS_WIRE_NOT_FOUND, .message = message});
}

void rs_lane_submit_here(struct rs_lane *l, struct rs_request *r, const char *app,
                         const char *deployment)
{
    struct rs_pool *p = rs_lane_pool(l, app, deployment, NULL);

    if (p)
        rs_pool_submit(p, r);
    else if (strcmp(deployment, RS_GRAPH_NAME) != 0 || !rs_stage_submit(l, r, app))
        refuse(r, app, deployment);
}

void rs_lane_submit_to(struct rs_lane *l, struct rs_request *r, struct rs_route_target *to)
{
    if (to->lane != l->index) {
        rs_relay_submit(l, rs_dataplane_lane(l->dataplane, to->lane), r, to->app, to->deployment);
        return;
    }
    if (!to->pool && !to->is_graph)
        to->pool = rs_lane_pool(l, to->app, to->deployment, NULL);
    if (to->pool)
        rs_pool_submit(to->pool, r);
    else if (!to->is_graph || !rs_stage_submit(l, r, to->app))
        refuse(r, to->app, to->deployment);
}

void rs_lane_submit(struct rs_lane *l, struct rs_request *r, const char *app,
                    const char *deployment)
{
    struct rs_route_target *to =
        rs_map_get(&l->routes->targets, rs_route_key(&l->key, app, deployment));

    if (to)
        rs_lane_submit_to(l, r, to);
    else
        refuse(r, app, deployment);
}

static bool is_unused(const struct rs_pool *p)
{
    return !p->known && rs_list_empty(&p->queue.slots) && p->queue.queued == 0;
}

void rs_lane_route(struct rs_lane *l, struct rs_route_table *t)
{
    rs_route_table_unref(l->routes);
    l->routes = t;
    for (size_t i = 0; i < rs_map_slots(&l->pools); i++) {
        const char *key;
        struct rs_pool *p = rs_map_at(&l->pools, i, &key);

        if (p)
            rs_pool_stop(p, t->draining);
        if (!p || !is_unused(p))
            continue;
        rs_map_remove(&l->pools, key);
        rs_pool_free(p);
    }
}

void rs_lane_drop(struct rs_lane *l, struct rs_backend *b, const char *why)
{
    (void)l;
    if (b && b->pool)
        rs_pool_remove(b->pool, b, why);
}

static unsigned no_lane(const char *app, const char *name, void *arg)
{
    (void)app;
    (void)name;
    (void)arg;
    return 0;
}

int rs_lane_init(struct rs_lane *l, struct rs_dataplane *d, unsigned index,
                 const struct rs_router_metrics *metrics, struct rs_error *err)
{
    l->dataplane = d;
    l->index = index;
    l->metrics = metrics;
    rs_list_init(&l->guests);
    rs_list_init(&l->graphs);
    l->routes = rs_route_table_new(&(struct rs_routes){0}, NULL, no_lane, NULL);
    return rs_loop_new(&l->loop, err);
}

static void close_pool(struct rs_lane *l, struct rs_pool *p)
{
    while (!rs_list_empty(&p->queue.slots)) {
        struct rs_slots *s = rs_container_of(p->queue.slots.next, struct rs_slots, link);

        rs_lane_drop(l, rs_container_of(s, struct rs_backend, slots), "the node stops");
    }
    rs_pool_forget(p);
    rs_pool_free(p);
}

void rs_lane_close(struct rs_lane *l)
{
    rs_http_server_free(l->http);
    l->http = NULL;
    rs_peer_close_guests(l);
    rs_stage_close(l);
    for (size_t i = 0; i < rs_map_slots(&l->pools); i++) {
        const char *key;
        struct rs_pool *p = rs_map_at(&l->pools, i, &key);

        if (!p)
            continue;
        rs_map_remove(&l->pools, key);
        close_pool(l, p);
    }
    rs_route_table_unref(l->routes);
    l->routes = rs_route_table_new(&(struct rs_routes){0}, NULL, no_lane, NULL);
}

void rs_lane_fini(struct rs_lane *l)
{
    for (size_t i = 0; i < rs_map_slots(&l->peers); i++)
        rs_peer_free(rs_map_at(&l->peers, i, NULL));
    rs_map_fini(&l->peers);
    rs_map_fini(&l->pools);
    rs_map_fini(&l->replicas);
    rs_route_table_unref(l->routes);
    rs_loop_free(l->loop);
    rs_buf_fini(&l->key);
}
