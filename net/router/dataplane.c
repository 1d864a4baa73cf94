/* The life of the data plane: its lanes, its listeners and what it was configured with. */
#include "net/router/dataplane.h"

#include "core/base/alloc.h"
#include "core/base/machine.h"
#include "net/http/port.h"
#include "net/http/server.h"
#include "net/router/dataplane-state.h"
#include "net/router/rules.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct rs_lane *rs_dataplane_lane(struct rs_dataplane *d, unsigned index)
{
    return &d->lanes[index];
}

const char *rs_dataplane_node_id(const struct rs_dataplane *d)
{
    return d->conf.node_id;
}

struct rs_tls *rs_dataplane_tls(const struct rs_dataplane *d)
{
    return d->tls;
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

/* A lane is asked to listen, and waited for: the control thread wants to know whether it could. */
struct listening {
    sem_t done;
    uint16_t port;
    int r;
    struct rs_error err;
};

static void do_listen(struct rs_lane *l, struct rs_order *o)
{
    struct listening *w = o->wait;

    w->r = rs_http_server_new(&l->http, l, &w->port, &w->err);
    (void)sem_post(&w->done);
}

static void do_unlisten(struct rs_lane *l, struct rs_order *o)
{
    (void)o;
    rs_http_server_free(l->http);
    l->http = NULL;
}

static void do_reopen_log(struct rs_lane *l, struct rs_order *o)
{
    (void)o;
    rs_http_server_reopen_log(l->http);
}

static void do_stop_accepting(struct rs_lane *l, struct rs_order *o)
{
    (void)o;
    rs_http_server_stop_accepting(l->http);
}

static void do_close(struct rs_lane *l, struct rs_order *o)
{
    (void)o;
    rs_lane_close(l);
    rs_loop_stop(l->loop);
}

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

/* One per four cores. A lane passes on
 * more than the replicas of four cores can answer, and what enters on one lane and is at home on another
 * one is woken for twice more. */
static unsigned usual_lanes(void)
{
    return (rs_machine_cores() + 3) / 4;
}

static void copy_conf(struct rs_dataplane *d, const struct rs_ingress_conf *conf)
{
    d->conf = *conf;
    d->conf.host = rs_strdup(conf->host);
    d->conf.root_path = rs_strdup(conf->root_path ? conf->root_path : "");
    d->conf.access_log = rs_strdup(conf->access_log);
    d->conf.node_id = rs_strdup(conf->node_id ? conf->node_id : "");
    d->conf.node_ip = rs_strdup(conf->node_ip ? conf->node_ip : "");
    d->n_lanes = conf->lanes ? conf->lanes : usual_lanes();
    if (d->n_lanes > LANES_MAX)
        d->n_lanes = LANES_MAX;
    d->conf.lanes = d->n_lanes;
    d->conf.tls = (struct rs_tls_conf){0}; /* only read here */
    d->conf.trusted_proxies = json_deep_copy(conf->trusted_proxies);
}

static int take_certificate(struct rs_dataplane *d, const struct rs_tls_conf *conf,
                            struct rs_error *err)
{
    enum rs_tls_file which;

    d->tls = NULL;
    if (!conf->of[RS_TLS_KEY] || !conf->of[RS_TLS_CERT] ||
        rs_tls_new(&d->tls, conf, &which, err) == 0)
        return 0;
    return rs_error_wrap(err, "http_options.%s", rs_tls_names[which]);
}

static int start_servers(struct rs_dataplane *d, const struct rs_tls_conf *tls,
                         struct rs_error *err)
{
    if (!d->conf.host)
        return 0;
    if (take_certificate(d, tls, err) < 0)
        return -1;
    if (rs_port_check(d->conf.host, d->conf.port, "--port", err) < 0)
        return -1;
    d->port = d->conf.port;
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (rs_http_server_new(&d->lanes[i].http, &d->lanes[i], &d->port, err) < 0)
            return -1;
    }
    return 0;
}

/* Large objects need a descriptor each; half of them are left for connections and requests. */
static struct rs_store *new_store(const struct rs_ingress_conf *conf, struct rs_metrics *metrics)
{
    uint64_t bytes = conf->object_store;
    struct rlimit limit = {.rlim_cur = 1024};

    if (!bytes)
        bytes = rs_machine_memory() / 10 * 3;
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
    d->metrics.tell_refused = &d->tell_refused;
    d->store = new_store(conf, metrics);
    rs_memory_init(&d->memory, conf->buffer_memory, metrics);
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (rs_lane_init(&d->lanes[i], d, i, &d->metrics, err) < 0)
            return -1;
        rs_lane_memory_init(&d->lanes[i].memory, &d->memory, i, metrics);
    }
    if (start_servers(d, &conf->tls, err) < 0)
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
    struct rs_tls *old =
        d->tls; /* of an attempt that failed: a lane may look at it until it is told */

    if (d->conf.host)
        return rs_error_set(err, RS_CONFLICT, "HTTP is served already, on port %u", d->port);
    if (rs_port_check(conf->host, conf->port, "http_options.port", err) < 0 ||
        take_certificate(d, &conf->tls, err) < 0) {
        d->tls = d->tls ? d->tls : old;
        return -1;
    }
    /* No lane looks at these without a listener; the orders below bring them there. */
    copy_text(&d->conf.host, conf->host);
    copy_text(&d->conf.root_path, conf->root_path ? conf->root_path : "");
    if (conf->access_log) { /* else what _new was told */
        copy_text(&d->conf.access_log, conf->access_log);
        d->conf.access_log_json = conf->access_log_json;
    }
    d->conf.port = conf->port;
    d->conf.request_timeout = conf->request_timeout;
    d->conf.keep_alive_timeout = conf->keep_alive_timeout;
    d->conf.proxy_protocol = conf->proxy_protocol;
    json_decref((json_t *)(uintptr_t)d->conf.trusted_proxies);
    d->conf.trusted_proxies = json_deep_copy(conf->trusted_proxies);
    (void)sem_init(&w.done, 0, 0);
    for (unsigned i = 0; i < d->n_lanes && w.r == 0; i++) {
        rs_dataplane_order(d, i, (struct rs_order){.carry_out = do_listen, .wait = &w});
        while (sem_wait(&w.done) < 0)
            ;
    }
    (void)sem_destroy(&w.done);
    rs_tls_free(old);
    if (w.r < 0) {
        *err = w.err;
        for (unsigned i = 0; i < d->n_lanes; i++)
            rs_dataplane_order(d, i, (struct rs_order){.carry_out = do_unlisten});
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
        struct rs_attached *x = rs_map_at(&d->replicas, i, NULL);

        if (x)
            free(x->figures);
        free(x);
    }
    for (size_t i = 0; i < rs_map_slots(&d->deployments); i++) {
        struct rs_homed *dep = rs_map_at(&d->deployments, i, NULL);

        if (!dep)
            continue;
        json_decref(dep->router);
        free(dep->fresh);
        free(dep->app);
        free(dep->name);
        free(dep);
    }
    for (size_t i = 0; i < rs_map_slots(&d->rules); i++)
        rs_rules_unref(rs_map_at(&d->rules, i, NULL));
    rs_map_fini(&d->rules);
    rs_map_fini(&d->replicas);
    rs_map_fini(&d->deployments);
}

static void free_conf(struct rs_ingress_conf *conf)
{
    json_decref((json_t *)(uintptr_t)conf->trusted_proxies);
    free((char *)(uintptr_t)conf->host);
    free((char *)(uintptr_t)conf->root_path);
    free((char *)(uintptr_t)conf->access_log);
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
            rs_dataplane_order(d, i, (struct rs_order){.carry_out = do_close});
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
    rs_tls_free(d->tls);
    free_conf(&d->conf);
    rs_buf_fini(&d->key);
    rs_dataplane_close_door(d->door);
    free(d);
}

uint16_t rs_dataplane_port(const struct rs_dataplane *d)
{
    return d->port;
}

void rs_dataplane_reopen_log(struct rs_dataplane *d)
{
    for (unsigned i = 0; i < d->n_lanes; i++)
        rs_dataplane_order(d, i, (struct rs_order){.carry_out = do_reopen_log});
}

void rs_dataplane_stop_accepting(struct rs_dataplane *d)
{
    for (unsigned i = 0; i < d->n_lanes; i++) {
        if (d->lanes[i].http)
            rs_dataplane_order(d, i, (struct rs_order){.carry_out = do_stop_accepting});
    }
}
