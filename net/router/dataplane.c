/* The control thread's side of the data plane: which lane has what, and messages to and from lanes.
 *
 * A lane is reached by posting to its loop, and answers by posting to the control loop. What is
 * posted back may come when the data plane is gone: it goes through the door, which is counted and
 * then leads nowhere.
 */
#include "net/router/dataplane.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "net/http/port.h"
#include "net/http/server.h"
#include "net/http/upstream.h"
#include "net/router/choose.h"
#include "net/router/dataplane-internal.h"
#include "net/router/peer.h"
#include "net/router/replica.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LANES_MAX = 64 };

struct door {
    atomic_uint refs;       /* the data plane and each event under way */
    struct rs_dataplane *d; /* control thread only; NULL: gone */
};

struct deployment {
    char *app, *name;
    unsigned lane;
    struct rs_figures figures;
    json_t *router; /* of its own: its configuration; NULL: none */
    bool routed, seen;
};

struct replica {
    struct deployment *deployment;
    struct rs_figures *figures; /* given to the lane with detach */
};

struct rs_dataplane {
    struct rs_loop *control;
    struct rs_ingress_conf conf; /* its texts are copies */
    struct rs_router_metrics metrics;
    const struct rs_dataplane_ops *ops;
    void *arg;
    struct door *door;
    struct rs_lane lanes[LANES_MAX];
    unsigned n_lanes, next_lane, next_peer;
    struct rs_map deployments; /* by rs_route_key */
    struct rs_map replicas;    /* by id */
    struct rs_buf key;
    uint16_t port;
    atomic_uint relays;
    struct rs_store *store;
};

struct rs_lane *rs_dataplane_lane(struct rs_dataplane *d, unsigned index)
{
    return &d->lanes[index];
}

const char *rs_dataplane_node_id(const struct rs_dataplane *d)
{
    return d->conf.node_id;
}

const struct rs_ingress_conf *rs_dataplane_conf(const struct rs_dataplane *d)
{
    return &d->conf;
}

struct rs_store *rs_dataplane_store(struct rs_dataplane *d)
{
    return d->store;
}

atomic_uint *rs_dataplane_relays(struct rs_dataplane *d)
{
    return &d->relays;
}

/* --- from lanes -------------------------------------------------------------------------------- */

struct event {
    struct door *door;
    char *replica_id;
    enum rs_msg type;
    uint64_t stream;
    json_t *msg;
    char *why;
    bool starving;
    char *app, *deployment;
    void (*tell)(struct rs_dataplane *d, struct event *e);
};

static void close_door(struct door *door)
{
    if (atomic_fetch_sub_explicit(&door->refs, 1, memory_order_acq_rel) == 1)
        free(door);
}

static void tell_choose(struct rs_dataplane *d, struct event *e);

static void on_event(void *arg)
{
    struct event *e = arg;

    if (e->door->d)
        e->tell(e->door->d, e);
    close_door(e->door);
    json_decref(e->msg);
    free(e->replica_id);
    free(e->why);
    free(e->app);
    free(e->deployment);
    free(e);
}

static void post_event(struct rs_dataplane *d, struct event e)
{
    atomic_fetch_add_explicit(&d->door->refs, 1, memory_order_relaxed);
    e.door = d->door;
    rs_loop_post(d->control, on_event, rs_memdup(&e, sizeof(e)));
}

static void tell_replica(struct rs_dataplane *d, struct event *e)
{
    d->ops->on_replica(e->replica_id, e->type, e->stream, e->msg, d->arg);
}

static void tell_gone(struct rs_dataplane *d, struct event *e)
{
    d->ops->on_replica_gone(e->replica_id, e->why, d->arg);
}

static void tell_idle(struct rs_dataplane *d, struct event *e)
{
    d->ops->on_replica_idle(e->replica_id, d->arg);
}

void rs_dataplane_post_choose(struct rs_dataplane *d, const char *app, const char *deployment,
                              uint64_t id, json_t *question)
{
    post_event(d, (struct event){.app = rs_strdup(app),
                                 .deployment = rs_strdup(deployment),
                                 .stream = id,
                                 .msg = question,
                                 .tell = tell_choose});
}

static void tell_load(struct rs_dataplane *d, struct event *e)
{
    if (d->ops->on_load)
        d->ops->on_load(e->starving, d->arg);
}

void rs_dataplane_post_load(struct rs_dataplane *d, bool starving)
{
    post_event(d, (struct event){.starving = starving, .tell = tell_load});
}

void rs_dataplane_post_replica(struct rs_dataplane *d, const char *replica_id, enum rs_msg type,
                               uint64_t stream, json_t *msg)
{
    post_event(d, (struct event){.replica_id = rs_strdup(replica_id),
                                 .type = type,
                                 .stream = stream,
                                 .msg = msg,
                                 .tell = tell_replica});
}

void rs_dataplane_post_gone(struct rs_dataplane *d, const char *replica_id, const char *why)
{
    post_event(d, (struct event){.replica_id = rs_strdup(replica_id),
                                 .why = rs_strdup(why),
                                 .tell = tell_gone});
}

void rs_dataplane_post_idle(struct rs_dataplane *d, const char *replica_id)
{
    post_event(d, (struct event){.replica_id = rs_strdup(replica_id), .tell = tell_idle});
}

/* --- to lanes ---------------------------------------------------------------------------------- */

struct listening;

/* One message to a lane; each kind uses the fields it needs. Freed when it was carried out. */
struct order {
    void (*carry_out)(struct rs_lane *l, struct order *o);
    struct rs_lane *lane;
    char *app, *deployment, *replica_id, *node_id, *host;
    char *text;                        /* a message, an address, a path */
    struct rs_figures *pool, *figures; /* of the deployment, of the replica */
    struct rs_route_table *table;
    int fd, max_ongoing, max_queued;
    uint16_t port;
    unsigned slots;
    bool flag;
    enum rs_msg type;
    uint64_t stream;
    struct listening *wait;
    json_t *json;
};

static void on_order(void *arg)
{
    struct order *o = arg;

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

static void give_order(struct rs_dataplane *d, unsigned lane, struct order o)
{
    o.lane = &d->lanes[lane];
    rs_loop_post(o.lane->loop, on_order, rs_memdup(&o, sizeof(o)));
}

static void do_configure(struct rs_lane *l, struct order *o)
{
    struct rs_pool *p = rs_lane_pool(l, o->app, o->deployment, o->pool);

    rs_pool_router(p, o->json);
    rs_pool_configure(p, o->max_ongoing, o->max_queued, o->flag);
}

static void do_chosen(struct rs_lane *l, struct order *o)
{
    struct rs_pool *p = rs_lane_pool(l, o->app, o->deployment, NULL);

    if (p && p->chooser)
        rs_chooser_answer(p->chooser, o->stream, o->json);
}

static void do_forget(struct rs_lane *l, struct order *o)
{
    struct rs_pool *p = rs_lane_pool(l, o->app, o->deployment, NULL);

    if (p)
        rs_pool_forget(p);
}

static void do_route(struct rs_lane *l, struct order *o)
{
    rs_lane_route(l, o->table);
}

/* Its socket or address may be of no use any more; then it is gone before it came. */
static void add_backend(struct rs_lane *l, struct order *o, struct rs_backend *b, const char *why)
{
    if (!b) {
        rs_dataplane_post_gone(l->dataplane, o->replica_id, why);
        return;
    }
    b->replica_id = rs_steal(o->replica_id);
    b->figures = o->figures;
    rs_pool_add(rs_lane_pool(l, o->app, o->deployment, o->pool), b, 0);
    rs_map_put(&l->replicas, b->replica_id, b);
}

static void do_attach(struct rs_lane *l, struct order *o)
{
    struct rs_backend *b = NULL;
    struct rs_error err = {0};

    if (rs_replica_new(&b, l, o->fd, &err) < 0)
        b = NULL;
    add_backend(l, o, b, err.msg);
}

static void do_attach_http(struct rs_lane *l, struct order *o)
{
    struct rs_backend *b = rs_upstream_new(l->loop, o->host, o->port, o->text);

    if (b)
        rs_upstream_keep_prefix(b, !o->flag);
    add_backend(l, o, b, "its address is none that can be connected to");
}

static void do_admit(struct rs_lane *l, struct order *o)
{
    struct rs_backend *b = rs_map_get(&l->replicas, o->replica_id);

    if (b)
        rs_pool_admit(b->pool, b, o->flag);
}

static void do_detach(struct rs_lane *l, struct order *o)
{
    struct rs_backend *b = rs_map_get(&l->replicas, o->replica_id);

    if (b)
        rs_replica_receive(b); /* its last words; and the kernel's, on what it did not read */
    rs_lane_drop(l, rs_map_get(&l->replicas, o->replica_id));
    free(o->figures);
}

static void do_tell(struct rs_lane *l, struct order *o)
{
    struct rs_backend *b = rs_map_get(&l->replicas, o->replica_id);

    if (b)
        rs_replica_tell(b, o->type, o->stream, o->text);
}

/* Requests that are with another node end there in peace; but a node that has moved to another
 * address gets a backend of its own. */
static void do_remote(struct rs_lane *l, struct order *o)
{
    struct rs_pool *p = rs_lane_pool(l, o->app, o->deployment, o->pool);
    struct rs_peer *peer = o->slots ? rs_peer_at(l, o->text) : NULL;
    struct rs_backend *found = NULL;

    rs_list_for_each (it, &p->queue.slots) {
        struct rs_backend *b =
            rs_container_of(rs_container_of(it, struct rs_slots, link), struct rs_backend, slots);

        if (b->replica_id || strcmp(rs_peer_backend_node(b), o->node_id) != 0)
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
        rs_pool_add(p, found, o->slots);
    }
    rs_pool_resize(p, found, o->slots);
}

static void do_accept_peer(struct rs_lane *l, struct order *o)
{
    rs_peer_accept(l, o->fd);
}

/* A lane is asked to listen, and waited for: the control thread wants to know whether it could. */
struct listening {
    sem_t done;
    uint16_t port;
    int r;
    struct rs_error err;
};

static void do_listen(struct rs_lane *l, struct order *o)
{
    struct listening *w = o->wait;

    w->r = rs_http_server_new(&l->http, l, &w->port, &w->err);
    (void)sem_post(&w->done);
}

static void do_unlisten(struct rs_lane *l, struct order *o)
{
    (void)o;
    rs_http_server_free(l->http);
    l->http = NULL;
}

static void do_stop_accepting(struct rs_lane *l, struct order *o)
{
    (void)o;
    rs_http_server_stop_accepting(l->http);
}

static void do_close(struct rs_lane *l, struct order *o)
{
    (void)o;
    rs_lane_close(l);
    rs_loop_stop(l->loop);
}

/* --- deployments and replicas ------------------------------------------------------------------ */

static struct deployment *deployment(struct rs_dataplane *d, const char *app, const char *name)
{
    const char *key = rs_route_key(&d->key, app, name);
    struct deployment *dep = rs_map_get(&d->deployments, key);

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
    return deployment(arg, app, name)->lane;
}

void rs_dataplane_routes(struct rs_dataplane *d, const struct rs_routes *routes)
{
    for (size_t i = 0; i < routes->n_deployments; i++) {
        const struct rs_route_deployment *r = &routes->deployments[i];
        struct deployment *dep = deployment(d, r->app, r->name);

        dep->seen = true;
        give_order(d, dep->lane,
                   (struct order){.carry_out = do_configure,
                                  .app = rs_strdup(r->app),
                                  .deployment = rs_strdup(r->name),
                                  .pool = &dep->figures,
                                  .max_ongoing = r->max_ongoing,
                                  .max_queued = r->max_queued,
                                  .json = r->router ? json_deep_copy(r->router) : NULL,
                                  .flag = r->failed});
        json_decref(dep->router);
        dep->router = r->router ? json_deep_copy(r->router) : NULL;
    }
    for (size_t i = 0; i < rs_map_slots(&d->deployments); i++) {
        struct deployment *dep = rs_map_at(&d->deployments, i, NULL);

        if (dep && dep->routed && !dep->seen)
            give_order(d, dep->lane,
                       (struct order){.carry_out = do_forget,
                                      .app = rs_strdup(dep->app),
                                      .deployment = rs_strdup(dep->name)});
        if (dep) {
            dep->routed = dep->seen;
            dep->seen = false;
        }
    }
    /* The homes know all deployments before any lane can send a request to them. */
    for (unsigned i = 0; i < d->n_lanes; i++)
        give_order(
            d, i,
            (struct order){.carry_out = do_route, .table = rs_route_table_new(routes, lane_of, d)});
}

static struct order to_replica(const char *replica_id,
                               void (*carry_out)(struct rs_lane *, struct order *))
{
    return (struct order){.carry_out = carry_out, .replica_id = rs_strdup(replica_id), .fd = -1};
}

static void attach(struct rs_dataplane *d, const char *app, const char *name, struct order o)
{
    struct deployment *dep = deployment(d, app, name);
    struct replica *x = rs_alloc(sizeof(*x));

    rs_dataplane_detach(d, o.replica_id);
    x->deployment = dep;
    x->figures = rs_alloc(sizeof(*x->figures));
    rs_map_put(&d->replicas, o.replica_id, x);
    o.app = rs_strdup(app);
    o.deployment = rs_strdup(name);
    o.pool = &dep->figures;
    o.figures = x->figures;
    give_order(d, dep->lane, o);
}

void rs_dataplane_attach(struct rs_dataplane *d, const char *app, const char *deployment,
                         const char *replica_id, int fd)
{
    struct order o = to_replica(replica_id, do_attach);

    o.fd = fd;
    attach(d, app, deployment, o);
}

void rs_dataplane_attach_http(struct rs_dataplane *d, const char *app, const char *deployment,
                              const char *replica_id, const char *host, uint16_t port,
                              const char *unix_path, bool strip_prefix)
{
    struct order o = to_replica(replica_id, do_attach_http);

    o.host = rs_strdup(host);
    o.port = port;
    o.text = rs_strdup(unix_path);
    o.flag = strip_prefix;
    attach(d, app, deployment, o);
}

void rs_dataplane_remote(struct rs_dataplane *d, const char *app, const char *name,
                         const char *node_id, const char *address, unsigned slots)
{
    struct deployment *dep = deployment(d, app, name);

    give_order(d, dep->lane,
               (struct order){.carry_out = do_remote,
                              .app = rs_strdup(app),
                              .deployment = rs_strdup(name),
                              .node_id = rs_strdup(node_id),
                              .text = rs_strdup(address),
                              .pool = &dep->figures,
                              .slots = slots});
}

static void order_replica(struct rs_dataplane *d, struct order o)
{
    const struct replica *x = rs_map_get(&d->replicas, o.replica_id);

    if (x) {
        give_order(d, x->deployment->lane, o);
        return;
    }
    free(o.replica_id);
    free(o.text);
}

void rs_dataplane_admit(struct rs_dataplane *d, const char *replica_id)
{
    struct order o = to_replica(replica_id, do_admit);

    o.flag = true;
    order_replica(d, o);
}

void rs_dataplane_retire(struct rs_dataplane *d, const char *replica_id)
{
    order_replica(d, to_replica(replica_id, do_admit));
}

void rs_dataplane_detach(struct rs_dataplane *d, const char *replica_id)
{
    struct replica *x = rs_map_remove(&d->replicas, replica_id);
    struct order o;

    if (!x)
        return;
    o = to_replica(replica_id, do_detach);
    o.figures = x->figures;
    give_order(d, x->deployment->lane, o);
    free(x);
}

void rs_dataplane_tell(struct rs_dataplane *d, const char *replica_id, enum rs_msg type,
                       uint64_t stream, const json_t *msg)
{
    struct order o = to_replica(replica_id, do_tell);

    o.type = type;
    o.stream = stream;
    o.text = msg ? rs_json_dump(msg) : NULL;
    order_replica(d, o);
}

static void tell_choose(struct rs_dataplane *d, struct event *e)
{
    const struct deployment *dep = deployment(d, e->app, e->deployment);

    if (d->ops->on_choose && dep->router)
        d->ops->on_choose(e->app, e->deployment, dep->router, e->stream, e->msg, d->arg);
    else if (e->stream)
        rs_dataplane_chosen(d, e->app, e->deployment, e->stream, NULL);
}

void rs_dataplane_chosen(struct rs_dataplane *d, const char *app, const char *name, uint64_t id,
                         const json_t *answer)
{
    give_order(d, deployment(d, app, name)->lane,
               (struct order){.carry_out = do_chosen,
                              .app = rs_strdup(app),
                              .deployment = rs_strdup(name),
                              .stream = id,
                              .json = answer ? json_deep_copy(answer) : NULL});
}

void rs_dataplane_accept_peer(struct rs_dataplane *d, int fd)
{
    give_order(d, d->next_peer++ % d->n_lanes,
               (struct order){.carry_out = do_accept_peer, .fd = fd});
}

/* --- figures ----------------------------------------------------------------------------------- */

unsigned rs_dataplane_ongoing(const struct rs_dataplane *d)
{
    unsigned n = 0;

    for (unsigned i = 0; i < d->n_lanes; i++)
        n += atomic_load_explicit(&d->lanes[i].ongoing, memory_order_relaxed);
    return n;
}

static void read_figures(struct rs_figures *f, struct rs_dataplane_stat *s)
{
    s->in_flight = atomic_load_explicit(&f->in_flight, memory_order_relaxed);
    s->queued = atomic_load_explicit(&f->queued, memory_order_relaxed);
    s->done = atomic_load_explicit(&f->done, memory_order_relaxed);
    s->errors = atomic_load_explicit(&f->errors, memory_order_relaxed);
}

/* The integral up to now; read again if the lane wrote meanwhile. Without load, the next one is told. */
static uint64_t read_load(struct rs_figures *f)
{
    unsigned turn, load;
    int64_t at;
    uint64_t us;

    atomic_store_explicit(&f->alarm, true, memory_order_seq_cst);
    do {
        turn = atomic_load_explicit(&f->turn, memory_order_acquire);
        load = atomic_load_explicit(&f->load, memory_order_acquire);
        at = atomic_load_explicit(&f->load_at, memory_order_acquire);
        us = atomic_load_explicit(&f->load_us, memory_order_acquire);
    } while (turn % 2 || turn != atomic_load_explicit(&f->turn, memory_order_relaxed));
    if (load == 0)
        return us;
    atomic_store_explicit(&f->alarm, false, memory_order_relaxed);
    return us + (uint64_t)(load * ((double)(rs_clock_now() - at) / (double)RS_US));
}

/* A deployment's figures are the sums of its replicas'; only what waits is counted by itself. */
static void deployment_stat(const struct rs_dataplane *d, struct deployment *dep,
                            struct rs_dataplane_stat *s)
{
    *s = (struct rs_dataplane_stat){.app = dep->app, .deployment = dep->name};
    read_figures(&dep->figures, s);
    s->load_us = read_load(&dep->figures);
    s->fallbacks = atomic_load_explicit(&dep->figures.fallbacks, memory_order_relaxed);
    for (size_t i = 0; i < rs_map_slots(&d->replicas); i++) {
        const struct replica *x = rs_map_at(&d->replicas, i, NULL);
        struct rs_dataplane_stat one = {0};

        if (!x || x->deployment != dep)
            continue;
        read_figures(x->figures, &one);
        s->in_flight += one.in_flight;
        s->done += one.done;
        s->errors += one.errors;
    }
}

void rs_dataplane_stats(const struct rs_dataplane *d,
                        void (*fn)(const struct rs_dataplane_stat *s, void *arg), void *arg)
{
    struct rs_dataplane_stat s;

    for (size_t i = 0; i < rs_map_slots(&d->deployments); i++) {
        struct deployment *dep = rs_map_at(&d->deployments, i, NULL);

        if (!dep || !dep->routed)
            continue;
        deployment_stat(d, dep, &s);
        fn(&s, arg);
    }
    for (size_t i = 0; i < rs_map_slots(&d->replicas); i++) {
        const char *id;
        const struct replica *x = rs_map_at(&d->replicas, i, &id);

        if (!x)
            continue;
        s = (struct rs_dataplane_stat){
            .app = x->deployment->app, .deployment = x->deployment->name, .replica_id = id};
        read_figures(x->figures, &s);
        fn(&s, arg);
    }
}

/* --- its own life ------------------------------------------------------------------------------ */

static void *lane_main(void *arg)
{
    struct rs_lane *l = arg;

    (void)rs_loop_run(l->loop);
    return NULL;
}

static int start_lane(struct rs_lane *l, struct rs_error *err)
{
    char name[16];
    sigset_t all, old;
    int r;

    /* Signals are the control thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&l->thread, NULL, lane_main, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r)
        return rs_error_errno(err, r, "cannot start a thread of the data plane");
    l->started = true;
    snprintf(name, sizeof(name), "lane-%u", l->index);
    (void)pthread_setname_np(l->thread, name);
    return 0;
}

/* Those that this process may run on, which in a container are not all. */
static unsigned usable_cores(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) < 1)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

static void copy_conf(struct rs_dataplane *d, const struct rs_ingress_conf *conf)
{
    d->conf = *conf;
    d->conf.host = rs_strdup(conf->host);
    d->conf.root_path = rs_strdup(conf->root_path ? conf->root_path : "");
    d->conf.node_id = rs_strdup(conf->node_id ? conf->node_id : "");
    d->conf.node_ip = rs_strdup(conf->node_ip ? conf->node_ip : "");
    d->n_lanes = conf->lanes ? conf->lanes : usable_cores();
    if (d->n_lanes > LANES_MAX)
        d->n_lanes = LANES_MAX;
    d->conf.lanes = d->n_lanes;
}

static int start_servers(struct rs_dataplane *d, struct rs_error *err)
{
    if (!d->conf.host)
        return 0;
    if (rs_port_check(d->conf.host, d->conf.port, "--port", err) < 0)
        return -1;
    d->port = d->conf.port;
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (rs_http_server_new(&d->lanes[i].http, &d->lanes[i], &d->port, err) < 0)
            return -1;
    }
    return 0;
}

/* What the machine has, or the container may use. */
static uint64_t usable_memory(void)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "re");
    char line[32];

    if (f && fgets(line, sizeof(line), f)) {
        uint64_t limit = strtoull(line, NULL, 10); /* "max": 0 */

        if (limit && limit < memory)
            memory = limit;
    }
    if (f)
        fclose(f);
    return memory;
}

/* Large objects need a descriptor each; half of them are left for connections and requests. */
static struct rs_store *new_store(const struct rs_ingress_conf *conf, struct rs_metrics *metrics)
{
    uint64_t bytes = conf->object_store;
    struct rlimit limit = {.rlim_cur = 1024};

    if (!bytes)
        bytes = usable_memory() / 10 * 3;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    return rs_store_new(bytes, limit.rlim_cur / 2, metrics);
}

int rs_dataplane_new(struct rs_dataplane **ret, struct rs_loop *control,
                     const struct rs_ingress_conf *conf, struct rs_metrics *metrics,
                     const struct rs_dataplane_ops *ops, void *arg, struct rs_error *err)
{
    rs_auto(rs_dataplane_freep) struct rs_dataplane *d = rs_alloc(sizeof(*d));

    d->control = control;
    d->ops = ops;
    d->arg = arg;
    d->door = rs_alloc(sizeof(*d->door));
    d->door->d = d;
    atomic_init(&d->door->refs, 1);
    copy_conf(d, conf);
    rs_router_metrics_init(&d->metrics, metrics);
    d->store = new_store(conf, metrics);
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (rs_lane_init(&d->lanes[i], d, i, &d->metrics, err) < 0)
            return -1;
    }
    if (start_servers(d, err) < 0)
        return -1;
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (start_lane(&d->lanes[i], err) < 0)
            return -1;
    }
    *ret = rs_steal(d);
    return 0;
}

static void copy_text(const char **to, const char *text)
{
    free((char *)(uintptr_t)*to);
    *to = rs_strdup(text);
}

int rs_dataplane_listen(struct rs_dataplane *d, const struct rs_ingress_conf *conf,
                        struct rs_error *err)
{
    struct listening w = {.port = conf->port};

    if (d->conf.host)
        return rs_error_set(err, RS_CONFLICT, "HTTP is served already, on port %u", d->port);
    if (rs_port_check(conf->host, conf->port, "http_options.port", err) < 0)
        return -1;
    /* No lane looks at these without a listener; the orders below bring them there. */
    copy_text(&d->conf.host, conf->host);
    copy_text(&d->conf.root_path, conf->root_path ? conf->root_path : "");
    d->conf.port = conf->port;
    d->conf.request_timeout = conf->request_timeout;
    d->conf.keep_alive_timeout = conf->keep_alive_timeout;
    (void)sem_init(&w.done, 0, 0);
    for (unsigned i = 0; i < d->n_lanes && w.r == 0; i++) {
        give_order(d, i, (struct order){.carry_out = do_listen, .wait = &w});
        while (sem_wait(&w.done) < 0)
            ;
    }
    (void)sem_destroy(&w.done);
    if (w.r < 0) {
        *err = w.err;
        for (unsigned i = 0; i < d->n_lanes; i++)
            give_order(d, i, (struct order){.carry_out = do_unlisten});
        copy_text(&d->conf.host, NULL);
        return -1;
    }
    d->port = w.port;
    return 0;
}

/* The threads have ended: this one runs what is still posted between lanes, until all requests that
 * crossed are over. */
static void run_dry(struct rs_dataplane *d)
{
    unsigned rounds = 0;

    do {
        for (unsigned i = 0; i < d->n_lanes; i++) {
            if (d->lanes[i].loop)
                rs_loop_turn(d->lanes[i].loop, 0);
        }
        rounds++;
    } while (rounds < 3 || atomic_load_explicit(&d->relays, memory_order_acquire) > 0);
}

static void free_maps(struct rs_dataplane *d)
{
    for (size_t i = 0; i < rs_map_slots(&d->replicas); i++) {
        struct replica *x = rs_map_at(&d->replicas, i, NULL);

        if (x)
            free(x->figures);
        free(x);
    }
    for (size_t i = 0; i < rs_map_slots(&d->deployments); i++) {
        struct deployment *dep = rs_map_at(&d->deployments, i, NULL);

        if (!dep)
            continue;
        json_decref(dep->router);
        free(dep->app);
        free(dep->name);
        free(dep);
    }
    rs_map_fini(&d->replicas);
    rs_map_fini(&d->deployments);
}

static void free_conf(struct rs_ingress_conf *conf)
{
    free((char *)(uintptr_t)conf->host);
    free((char *)(uintptr_t)conf->root_path);
    free((char *)(uintptr_t)conf->node_id);
    free((char *)(uintptr_t)conf->node_ip);
}

void rs_dataplane_free(struct rs_dataplane *d)
{
    if (!d)
        return;
    d->door->d = NULL;
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (d->lanes[i].started)
            give_order(d, i, (struct order){.carry_out = do_close});
    }
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (d->lanes[i].started)
            pthread_join(d->lanes[i].thread, NULL);
        else if (d->lanes[i].loop)
            rs_lane_close(&d->lanes[i]);
    }
    run_dry(d);
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (d->lanes[i].loop)
            rs_lane_fini(&d->lanes[i]);
    }
    rs_store_free(d->store);
    free_maps(d);
    free_conf(&d->conf);
    rs_buf_fini(&d->key);
    close_door(d->door);
    free(d);
}

uint16_t rs_dataplane_port(const struct rs_dataplane *d)
{
    return d->port;
}

void rs_dataplane_stop_accepting(struct rs_dataplane *d)
{
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (d->lanes[i].http)
            give_order(d, i, (struct order){.carry_out = do_stop_accepting});
    }
}
