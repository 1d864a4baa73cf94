/* From the control thread to the lanes: which lane has what. */
#include "core/base/alloc.h"
#include "core/base/json.h"
#include "net/http/upstream.h"
#include "net/router/choose.h"
#include "net/router/dataplane-state.h"
#include "net/router/peer.h"
#include "net/router/replica.h"
#include "net/router/rules.h"
#include "net/router/stage.h"

#include <stdlib.h>
#include <string.h>

static void on_order(void *arg)
{
    struct rs_order *o = arg;

    o->carry_out(o->lane, o);
    free(o->app);
    free(o->deployment);
    free(o->replica_id);
    free(o->text);
    free(o->node_id);
    free(o->host);
    json_decref(o->json);
    free(o);
}

void rs_dataplane_order(struct rs_dataplane *d, unsigned lane, struct rs_order o)
{
    o.lane = &d->lanes[lane];
    rs_loop_post(o.lane->loop, on_order, rs_memdup(&o, sizeof(o)));
}

static void do_configure(struct rs_lane *l, struct rs_order *o)
{
    struct rs_pool *p = rs_lane_pool(l, o->app, o->deployment, o->pool);

    rs_pool_router(p, o->json);
    rs_pool_split(p, &o->split, o->tallies);
    rs_pool_configure(p, o->max_ongoing, &o->queue, o->flag);
}

static void do_chosen(struct rs_lane *l, struct rs_order *o)
{
    struct rs_pool *p = rs_lane_pool(l, o->app, o->deployment, NULL);

    if (p && p->chooser)
        rs_chooser_answer(p->chooser, o->stream, o->json);
}

static void do_forget(struct rs_lane *l, struct rs_order *o)
{
    struct rs_pool *p = rs_lane_pool(l, o->app, o->deployment, NULL);

    if (p)
        rs_pool_forget(p);
}

static void do_graph(struct rs_lane *l, struct rs_order *o)
{
    rs_stage_configure(l, o->app, o->json);
}

static void do_route(struct rs_lane *l, struct rs_order *o)
{
    rs_lane_route(l, o->table);
}

/* Its socket or address may be of no use any more; then it is gone before it came. */
static void add_backend(struct rs_lane *l, struct rs_order *o, struct rs_backend *b,
                        const char *why)
{
    if (!b) {
        rs_dataplane_post_gone(l->dataplane, o->replica_id, why);
        return;
    }
    b->replica_id = rs_steal(o->replica_id);
    b->figures = o->figures;
    b->slots.version = o->version;
    rs_replica_figures(b);
    rs_pool_add(rs_lane_pool(l, o->app, o->deployment, o->pool), b, 0);
    rs_map_put(&l->replicas, b->replica_id, b);
}

static void do_attach(struct rs_lane *l, struct rs_order *o)
{
    struct rs_backend *b = NULL;
    struct rs_error err = {0};

    if (rs_replica_new(&b, l, o->fd, &err) < 0)
        b = NULL;
    add_backend(l, o, b, err.msg);
}

static void do_attach_http(struct rs_lane *l, struct rs_order *o)
{
    struct rs_backend *b = rs_upstream_new(l->loop, o->host, o->port, o->text);

    if (b)
        rs_upstream_keep_prefix(b, !o->flag);
    add_backend(l, o, b, "its address is none that can be connected to");
}

static void do_admit(struct rs_lane *l, struct rs_order *o)
{
    struct rs_backend *b = rs_map_get(&l->replicas, o->replica_id);

    if (b)
        rs_pool_admit(b->pool, b, o->flag);
    if (b && !o->flag)
        rs_replica_take_back(b);
}

static void do_weigh(struct rs_lane *l, struct rs_order *o)
{
    struct rs_backend *b = rs_map_get(&l->replicas, o->replica_id);

    if (b && b->pool && !b->gone)
        rs_pool_weigh(b->pool, b, o->slots);
}

static void do_detach(struct rs_lane *l, struct rs_order *o)
{
    struct rs_backend *b = rs_map_get(&l->replicas, o->replica_id);

    if (b)
        rs_replica_receive(b); /* its last words; and the kernel's, on what it did not read */
    rs_lane_drop(l, rs_map_get(&l->replicas, o->replica_id), o->text);
    free(o->figures);
}

static void do_tell(struct rs_lane *l, struct rs_order *o)
{
    struct rs_backend *b = rs_map_get(&l->replicas, o->replica_id);

    if (b)
        rs_replica_tell(b, o->type, o->stream, o->text);
}

/* Requests that are with another node end there in peace; but a node that has moved to another
 * address gets a backend of its own. Of a deployment that is split a node has one for each version. */
static void do_remote(struct rs_lane *l, struct rs_order *o)
{
    struct rs_pool *p = rs_lane_pool(l, o->app, o->deployment, o->pool);
    struct rs_peer *peer = o->slots ? rs_peer_at(l, o->text) : NULL;
    struct rs_backend *found = NULL;

    rs_list_for_each (it, &p->queue.slots) {
        struct rs_backend *b =
            rs_container_of(rs_container_of(it, struct rs_slots, link), struct rs_backend, slots);

        if (b->replica_id || b->slots.version != o->version ||
            strcmp(rs_peer_backend_node(b), o->node_id) != 0)
            continue;
        if (peer && rs_peer_backend_peer(b) == peer)
            found = b;
        else
            rs_pool_resize(p, b, 0);
    }
    if (!peer)
        return;
    if (!found) {
        found = rs_peer_backend_new(peer, o->node_id);
        found->slots.version = o->version;
        rs_pool_add(p, found, o->slots);
    }
    rs_pool_resize(p, found, o->slots);
}

static void do_accept_peer(struct rs_lane *l, struct rs_order *o)
{
    rs_peer_accept(l, o->fd);
}

struct rs_homed *rs_dataplane_home(struct rs_dataplane *d, const char *app, const char *name)
{
    const char *key = rs_route_key(&d->key, app, name);
    struct rs_homed *dep = rs_map_get(&d->deployments, key);

    if (dep)
        return dep;
    dep = rs_alloc(sizeof(*dep));
    dep->app = rs_strdup(app);
    dep->name = rs_strdup(name);
    dep->lane = d->next_lane++ % d->n_lanes;
    rs_map_put(&d->deployments, key, dep);
    return dep;
}

static unsigned lane_of(const char *app, const char *name, void *arg)
{
    return rs_dataplane_home(arg, app, name)->lane;
}

/* The next rules of all applications; one for each of routes->apps, held by d->rules. */
static struct rs_rules **take_rules(struct rs_dataplane *d, const struct rs_routes *routes)
{
    struct rs_rules **rules = rs_alloc(routes->n_apps * sizeof(struct rs_rules *));
    struct rs_map old = d->rules;

    d->rules = (struct rs_map){0};
    for (size_t i = 0; i < routes->n_apps; i++) {
        const struct rs_route_app *a = &routes->apps[i];

        rules[i] = rs_rules_new(a->name, a->policy, rs_map_get(&old, a->name));
        if (rules[i])
            rs_rules_unref(rs_map_put(&d->rules, a->name, rules[i]));
    }
    for (size_t i = 0; i < rs_map_slots(&old); i++)
        rs_rules_unref(rs_map_at(&old, i, NULL));
    rs_map_fini(&old);
    return rules;
}

static void order_graph(struct rs_dataplane *d, const struct rs_homed *dep, const json_t *graph)
{
    rs_dataplane_order(d, dep->lane,
                       (struct rs_order){.carry_out = do_graph,
                                         .app = rs_strdup(dep->app),
                                         .json = graph ? json_deep_copy(graph) : NULL});
}

static uint64_t hash_of(const char *version)
{
    return version ? rs_wish_hash(version, strlen(version)) : 0;
}

/* Another version than before is counted from nothing. */
static void set_fresh(struct rs_homed *dep, const char *version)
{
    if (version && dep->fresh && strcmp(version, dep->fresh) == 0)
        return;
    free(dep->fresh);
    dep->fresh = rs_strdup(version);
    dep->tallies = version ? rs_alloc(sizeof(*dep->tallies)) : NULL;
}

static struct rs_split split_of(const struct rs_route_deployment *r)
{
    uint64_t version = hash_of(r->fresh);

    if (!r->fresh || r->fresh_share < 0) /* told apart, but nothing is shared out */
        return (struct rs_split){.version = version};
    return rs_split_make(version, r->fresh_share, hash_of(r->app));
}

void rs_dataplane_routes(struct rs_dataplane *d, const struct rs_routes *routes)
{
    struct rs_rules **rules;

    for (size_t i = 0; i < routes->n_deployments; i++) {
        const struct rs_route_deployment *r = &routes->deployments[i];
        struct rs_homed *dep = rs_dataplane_home(d, r->app, r->name);

        dep->seen = true;
        set_fresh(dep, r->fresh);
        dep->scales = r->scales;
        rs_dataplane_order(d, dep->lane,
                           (struct rs_order){.carry_out = do_configure,
                                             .app = rs_strdup(r->app),
                                             .deployment = rs_strdup(r->name),
                                             .pool = &dep->figures,
                                             .max_ongoing = r->max_ongoing,
                                             .queue = {.max_queued = r->max_queued,
                                                       .ageing = r->priority_ageing,
                                                       .shed_target = r->shed_target,
                                                       .shed_interval = r->shed_interval},
                                             .split = split_of(r),
                                             .tallies = dep->tallies,
                                             .json = r->router ? json_deep_copy(r->router) : NULL,
                                             .flag = r->failed});
        json_decref(dep->router);
        dep->router = r->router ? json_deep_copy(r->router) : NULL;
    }
    for (size_t i = 0; i < routes->n_apps; i++) {
        struct rs_homed *dep = routes->apps[i].graph
                                   ? rs_dataplane_home(d, routes->apps[i].name, RS_GRAPH_NAME)
                                   : NULL;

        if (!dep)
            continue;
        dep->seen = dep->graph = true;
        order_graph(d, dep, routes->apps[i].graph);
    }
    for (size_t i = 0; i < rs_map_slots(&d->deployments); i++) {
        struct rs_homed *dep = rs_map_at(&d->deployments, i, NULL);

        if (dep && dep->routed && !dep->seen)
            rs_dataplane_order(d, dep->lane,
                               (struct rs_order){.carry_out = do_forget,
                                                 .app = rs_strdup(dep->app),
                                                 .deployment = rs_strdup(dep->name)});
        if (dep) {
            if (dep->routed && !dep->seen)
                set_fresh(dep, NULL); /* its pool goes, and what was counted with it */
            dep->routed = dep->seen && !dep->graph;
            dep->gone = dep->graph && !dep->seen;
            dep->seen = false;
        }
    }
    /* The homes know all deployments before any lane can send a request to them. */
    rules = take_rules(d, routes);
    for (unsigned i = 0; i < d->n_lanes; i++)
        rs_dataplane_order(
            d, i,
            (struct rs_order){.carry_out = do_route,
                              .table = rs_route_table_new(routes, rules, lane_of, d)});
    free(rules);
    /* And a graph goes when no lane sends requests to it any more. */
    for (size_t i = 0; i < rs_map_slots(&d->deployments); i++) {
        struct rs_homed *dep = rs_map_at(&d->deployments, i, NULL);

        if (!dep || !dep->gone)
            continue;
        order_graph(d, dep, NULL);
        dep->graph = dep->gone = false;
    }
}

static struct rs_order to_replica(const char *replica_id,
                                  void (*carry_out)(struct rs_lane *, struct rs_order *))
{
    return (struct rs_order){.carry_out = carry_out, .replica_id = rs_strdup(replica_id), .fd = -1};
}

static void attach(struct rs_dataplane *d, const char *app, const char *name, struct rs_order o)
{
    struct rs_homed *dep = rs_dataplane_home(d, app, name);
    struct rs_attached *x = rs_alloc(sizeof(*x));

    rs_dataplane_detach(d, o.replica_id, NULL);
    x->deployment = dep;
    x->figures = rs_alloc(sizeof(*x->figures));
    rs_map_put(&d->replicas, o.replica_id, x);
    o.app = rs_strdup(app);
    o.deployment = rs_strdup(name);
    o.pool = &dep->figures;
    o.figures = x->figures;
    rs_dataplane_order(d, dep->lane, o);
}

void rs_dataplane_attach(struct rs_dataplane *d, const char *app, const char *deployment,
                         const char *version, const char *replica_id, int fd)
{
    struct rs_order o = to_replica(replica_id, do_attach);

    o.version = hash_of(version);
    o.fd = fd;
    attach(d, app, deployment, o);
}

void rs_dataplane_attach_http(struct rs_dataplane *d, const char *app, const char *deployment,
                              const char *version, const char *replica_id, uint16_t port,
                              const char *unix_path, bool strip_prefix)
{
    struct rs_order o = to_replica(replica_id, do_attach_http);

    o.version = hash_of(version);
    o.host = rs_strdup("127.0.0.1");
    o.port = port;
    o.text = rs_strdup(unix_path);
    o.flag = strip_prefix;
    attach(d, app, deployment, o);
}

void rs_dataplane_remote(struct rs_dataplane *d, const char *app, const char *name,
                         const char *version, const char *node_id, const char *address,
                         unsigned slots)
{
    struct rs_homed *dep = rs_dataplane_home(d, app, name);

    rs_dataplane_order(d, dep->lane,
                       (struct rs_order){.carry_out = do_remote,
                                         .app = rs_strdup(app),
                                         .deployment = rs_strdup(name),
                                         .node_id = rs_strdup(node_id),
                                         .text = rs_strdup(address),
                                         .pool = &dep->figures,
                                         .version = hash_of(version),
                                         .slots = slots});
}

static void order_replica(struct rs_dataplane *d, struct rs_order o)
{
    const struct rs_attached *x = rs_map_get(&d->replicas, o.replica_id);

    if (x) {
        rs_dataplane_order(d, x->deployment->lane, o);
        return;
    }
    free(o.replica_id);
    free(o.text);
}

void rs_dataplane_admit(struct rs_dataplane *d, const char *replica_id)
{
    struct rs_order o = to_replica(replica_id, do_admit);

    o.flag = true;
    order_replica(d, o);
}

void rs_dataplane_weigh(struct rs_dataplane *d, const char *replica_id, unsigned percent)
{
    struct rs_order o = to_replica(replica_id, do_weigh);

    o.slots = percent;
    order_replica(d, o);
}

void rs_dataplane_retire(struct rs_dataplane *d, const char *replica_id)
{
    order_replica(d, to_replica(replica_id, do_admit));
}

void rs_dataplane_detach(struct rs_dataplane *d, const char *replica_id, const char *why)
{
    struct rs_attached *x = rs_map_remove(&d->replicas, replica_id);
    struct rs_order o;

    if (!x)
        return;
    o = to_replica(replica_id, do_detach);
    o.figures = x->figures;
    o.text = rs_strdup(why);
    rs_dataplane_order(d, x->deployment->lane, o);
    free(x);
}

void rs_dataplane_tell(struct rs_dataplane *d, const char *replica_id, enum rs_msg type,
                       uint64_t stream, const json_t *msg)
{
    struct rs_order o = to_replica(replica_id, do_tell);

    o.type = type;
    o.stream = stream;
    o.text = msg ? rs_json_dump(msg) : NULL;
    order_replica(d, o);
}

void rs_dataplane_chosen(struct rs_dataplane *d, const char *app, const char *name, uint64_t id,
                         const json_t *answer)
{
    rs_dataplane_order(d, rs_dataplane_home(d, app, name)->lane,
                       (struct rs_order){.carry_out = do_chosen,
                                         .app = rs_strdup(app),
                                         .deployment = rs_strdup(name),
                                         .stream = id,
                                         .json = answer ? json_deep_copy(answer) : NULL});
}

void rs_dataplane_accept_peer(struct rs_dataplane *d, int fd)
{
    rs_dataplane_order(d, d->next_peer++ % d->n_lanes,
                       (struct rs_order){.carry_out = do_accept_peer, .fd = fd});
}
