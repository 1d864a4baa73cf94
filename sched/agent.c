#include "sched/agent-internal.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ROUTER "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter"

/* --- small things --- */

void rs_ag_changed(struct rs_agent *a)
{
    a->ops.changed(a->arg);
}

void rs_ag_set(char **text, char *value)
{
    free(*text);
    *text = value;
}

int64_t rs_ag_sooner(int64_t x, int64_t y)
{
    if (!x || !y)
        return x ? x : y;
    return x < y ? x : y;
}

const struct rs_target_app *rs_ag_app(const struct rs_agent *a, const char *name)
{
    return a->target ? rs_target_app(a->target, name) : NULL;
}

bool rs_ag_is_core(const struct rs_ag_deployment *d)
{
    return json_object_size(d->core) > 0;
}

/* --- life --- */

int rs_agent_new(struct rs_agent **ret, const struct rs_agent_conf *conf,
                 const struct rs_agent_ops *ops, void *arg, struct rs_error *err)
{
    rs_auto(rs_agent_freep) struct rs_agent *a = rs_alloc(sizeof(*a));
    struct rs_resources total = {0};
    int r;

    a->ops = *ops;
    a->arg = arg;
    a->node_id = rs_strdup(conf->node_id);
    a->node_name = rs_strdup(conf->node_name);
    a->log_dir = rs_strdup(conf->log_dir);
    a->wall_offset_s = conf->wall_offset_s;
    a->omp_set = conf->omp_set;
    a->sample_at = INT64_MAX;
    if (rs_resources_from_json(&total, conf->resources, err) < 0)
        return -1;
    r = rs_ledger_new(&a->ledger, &total, err);
    rs_resources_fini(&total);
    if (r < 0)
        return -1;
    *ret = rs_steal(a);
    return 0;
}

void rs_agent_free(struct rs_agent *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (d)
            rs_ag_deployment_free(d);
    }
    for (size_t i = 0; i < rs_map_slots(&a->zygotes); i++)
        rs_ag_zygote_free(rs_map_at(&a->zygotes, i, NULL));
    for (size_t i = 0; i < rs_map_slots(&a->envs); i++)
        rs_ag_env_free(rs_map_at(&a->envs, i, NULL));
    rs_map_fini(&a->envs);
    rs_map_fini(&a->deployments);
    rs_map_fini(&a->zygotes);
    rs_map_fini(&a->replicas);
    rs_ledger_free(a->ledger);
    rs_target_free(a->target);
    free(a->routes_text);
    free(a->node_id);
    free(a->node_name);
    free(a->log_dir);
    free(a);
}

/* --- routes --- */

static unsigned remote_replicas(const struct rs_agent *a, const struct rs_ag_deployment *d)
{
    const struct rs_target_deployment *t = rs_target_deployment(rs_ag_app(a, d->app), d->name);
    unsigned n = 0;

    for (size_t i = 0; t && i < t->n_remotes; i++)
        n += t->remotes[i].replicas;
    return n;
}

/* Of any version, on this node. */
static unsigned here(const struct rs_agent *a, const struct rs_ag_deployment *d, bool only_up)
{
    unsigned n = 0;

    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        const struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (r && rs_ag_same_name(r->deployment, d))
            n += only_up ? rs_ag_is_up(r) : rs_ag_live(r);
    }
    return n;
}

/* Nothing of it runs anywhere, and nothing will. */
static bool unavailable(const struct rs_agent *a, const struct rs_ag_deployment *d)
{
    return d->failed && remote_replicas(a, d) == 0 && here(a, d, true) == 0;
}

/* Some of its replicas cannot ask this node for an object. */
static bool takes_values(const struct rs_agent *a, const struct rs_ag_deployment *d)
{
    const struct rs_target_deployment *t =
        a->target ? rs_target_deployment(rs_target_app(a->target, d->app), d->name) : NULL;

    return d->conf->kind != RS_KIND_PYTHON || (t && t->n_remotes) ||
           d->world_size > d->replicas + rs_ag_old_replicas(d);
}

/* One text for all that the routers know: it changes when they must be told. */
static char *routes_text(const struct rs_agent_routes *r)
{
    struct rs_buf b = {0};

    rs_buf_printf(&b, "%d %d\n", r->populated, r->draining);
    for (size_t i = 0; i < r->n_apps; i++) {
        rs_auto(rs_freep) char *policy = rs_json_dump(r->apps[i].policy);

        rs_auto(rs_freep) char *graph = rs_json_dump(r->apps[i].graph);

        rs_buf_printf(&b, "a %s %s %s %s %s\n", r->apps[i].name,
                      r->apps[i].prefix ? r->apps[i].prefix : "", r->apps[i].ingress, policy,
                      graph);
    }
    for (size_t i = 0; i < r->n_deployments; i++) {
        const struct rs_agent_route_deployment *d = &r->deployments[i];

        rs_auto(rs_freep) char *router = rs_json_dump(d->router);

        rs_buf_printf(&b, "q %lld %lld %lld %lld\n", (long long)d->priority_ageing,
                      (long long)d->shed_target, (long long)d->shed_interval,
                      (long long)d->request_timeout);
        rs_buf_printf(&b, "v %s %.9g\n", d->fresh ? d->fresh : "-", d->fresh_share);
        rs_buf_printf(&b, "d %s %s %d %d %d %g %d %d %d %s\n", d->app, d->name, d->max_ongoing,
                      d->max_queued, d->backpressure_status, d->retry_after_s, d->by_value,
                      d->failed, d->scales, router);
    }
    return rs_buf_steal(&b);
}

/* Two of its versions run: see `split` of the target. {} or NULL: one does. */
static const json_t *split_of(const struct rs_agent *a, const struct rs_ag_deployment *d)
{
    const struct rs_target_deployment *t =
        a->target ? rs_target_deployment(rs_target_app(a->target, d->app), d->name) : NULL;

    return t ? t->split : NULL;
}

/* Only one that is not built in: those of Ray that guess which replica is free are not needed. */
const json_t *rs_ag_router(const struct rs_deployment_conf *conf)
{
    const json_t *router = json_object_get(conf->json, "request_router_config");
    const char *name = rs_json_str(router, "request_router_class", "");

    return *name && strcmp(name, DEFAULT_ROUTER) != 0 ? router : NULL;
}

void rs_ag_routes(struct rs_agent *a)
{
    size_t n_apps = a->target ? a->target->n_apps : 0;
    struct rs_agent_route_app *apps = rs_alloc(n_apps * sizeof(*apps));
    struct rs_agent_route_deployment *deployments =
        rs_alloc(rs_map_count(&a->deployments) * sizeof(*deployments));
    struct rs_agent_routes r = {.apps = apps,
                                .deployments = deployments,
                                .populated = a->target && a->target->populated,
                                .draining = a->draining};
    char *text;

    for (size_t i = 0; i < n_apps; i++)
        apps[r.n_apps++] = (struct rs_agent_route_app){
            a->target->apps[i].name, a->target->apps[i].route_prefix, a->target->apps[i].ingress,
            a->target->apps[i].policy,
            json_object_size(a->target->apps[i].graph) ? a->target->apps[i].graph : NULL};
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        const struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (!d || (d->old && rs_ag_face(a, d->app, d->name) != d))
            continue;
        deployments[r.n_deployments++] = (struct rs_agent_route_deployment){
            .app = d->app,
            .name = d->name,
            .max_ongoing = d->conf->max_ongoing_requests,
            .max_queued = d->conf->max_queued_requests,
            .backpressure_status = d->conf->backpressure_status,
            .retry_after_s = d->conf->backpressure_retry_after < 0
                                 ? -1
                                 : (double)d->conf->backpressure_retry_after / 1e9,
            .priority_ageing = d->conf->priority_ageing,
            .shed_target = d->conf->shed_target > 0 ? d->conf->shed_target : 0,
            .shed_interval = d->conf->shed_interval,
            .request_timeout = d->conf->request_timeout > 0 ? d->conf->request_timeout : 0,
            .router = rs_ag_router(d->conf),
            .fresh = rs_json_str(split_of(a, d), "version", NULL),
            .fresh_share = rs_json_num(split_of(a, d), "weight", -1),
            .by_value = takes_values(a, d),
            .failed = unavailable(a, d),
            .scales = d->conf->autoscaling_enabled,
        };
    }
    text = routes_text(&r);
    if (!a->routes_text || strcmp(text, a->routes_text) != 0)
        a->ops.routes(&r, a->arg);
    rs_ag_set(&a->routes_text, text);
    free(apps);
    free(deployments);
}

/* --- other nodes --- */

static bool same_version(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static const struct rs_target_remote *find_remote(const struct rs_target *t, const char *app,
                                                  const char *deployment,
                                                  const struct rs_target_remote *like)
{
    const struct rs_target_deployment *d =
        t ? rs_target_deployment(rs_target_app(t, app), deployment) : NULL;

    for (size_t i = 0; d && i < d->n_remotes; i++)
        if (strcmp(d->remotes[i].node_id, like->node_id) == 0 &&
            same_version(d->remotes[i].version, like->version))
            return &d->remotes[i];
    return NULL;
}

static int max_ongoing(const struct rs_agent *a, const char *app, const char *deployment)
{
    const struct rs_ag_deployment *d = rs_ag_deployment(a, app, deployment);

    return d ? d->conf->max_ongoing_requests : 1;
}

/* Tells what `from` has and `to` lacks (slots 0), or what `to` has now. */
static void tell_remotes(struct rs_agent *a, const struct rs_target *from,
                         const struct rs_target *to, bool removed)
{
    const struct rs_target *walk = removed ? from : to;

    for (size_t i = 0; walk && i < walk->n_apps; i++) {
        const struct rs_target_app *app = &walk->apps[i];

        for (size_t k = 0; k < app->n_deployments; k++) {
            const struct rs_target_deployment *d = &app->deployments[k];

            for (size_t n = 0; n < d->n_remotes; n++) {
                const struct rs_target_remote *m = &d->remotes[n];

                if (!removed)
                    a->ops.remote(app->name, d->name, m->version, m->node_id, m->address,
                                  m->replicas * (unsigned)max_ongoing(a, app->name, d->name),
                                  a->arg);
                else if (!find_remote(to, app->name, d->name, m))
                    a->ops.remote(app->name, d->name, m->version, m->node_id, m->address, 0,
                                  a->arg);
            }
        }
    }
}

/* --- target --- */

static void reset_counters(struct rs_ag_deployment *d)
{
    d->start_failures = d->failures_total = d->deaths = 0;
    d->restarts = (struct rs_restarts){0};
    d->retry_at = 0;
    d->ever_ran = false;
    rs_ag_set(&d->last_error, NULL);
    rs_ag_set(&d->blocked, NULL);
}

/* Options changed that do not ask for new replicas. */
static void adjust_replicas(struct rs_ag_deployment *d, bool reconfigure, int64_t now)
{
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (strcmp(r->version, d->version) != 0 || !rs_ag_live(r))
            continue;
        rs_ag_replica_adjust(r);
        if (reconfigure)
            rs_ag_replica_reconfigure(r, now);
    }
}

/* Takes `conf`; NULL: the options are those of before. */
static void set_deployment(struct rs_agent *a, const struct rs_target_app *app,
                           const struct rs_target_deployment *t, bool is_old,
                           struct rs_deployment_conf *conf, int64_t now)
{
    struct rs_ag_deployment *d = rs_ag_version(a, app->name, t->name, t->version);
    struct rs_deployment_conf *old;
    bool same, back = d && d->old && !is_old; /* a roll the other way round */

    if (!is_old)
        rs_ag_versions_turn(a, app->name, t->name, t->version);
    if (!d)
        d = rs_ag_deployment_new(a, app->name, t->name, t->version, is_old);
    old = d->conf;
    same = old && !d->gone && !back;
    d->conf = conf ? conf : old;
    assert(d->conf);
    d->want = d->conf->resources;
    json_decref(d->told);
    d->told = json_incref(t->config);
    d->gone = d->stray = false;
    d->replicas = t->replicas;
    free(d->ranks);
    d->ranks = rs_memdup(t->ranks, t->replicas * sizeof(*t->ranks));
    d->world_size = t->world_size;
    d->start_limit = t->start_limit;
    d->ingress = t->ingress;
    d->failed = t->failed;
    json_decref(d->core);
    d->core = json_incref(t->core);
    if (!same) {
        d->started = 0;
        reset_counters(d);
        rs_ag_health_forget(d);
        rs_list_for_each (it, &d->list)
            d->ever_ran |= rs_ag_is_up(rs_container_of(it, struct rs_ag_replica, link));
    } else if (conf) {
        unsigned bits = rs_deployment_conf_diff(old, conf, NULL);
        bool reconfigure = (bits & RS_RELOAD_RECONFIGURE) && conf->kind != RS_KIND_HTTP;

        if (reconfigure) {
            reset_counters(d);
            if (rs_list_empty(&d->list))
                d->ever_ran = false;
        }
        if (bits)
            adjust_replicas(d, reconfigure, now);
    }
    if (conf)
        rs_deployment_conf_free(old);
}

/* Reading them takes a while, and a target has those of everything that runs. */
static bool known_options(const struct rs_agent *a, const char *app,
                          const struct rs_target_deployment *t)
{
    const struct rs_ag_deployment *d = rs_ag_version(a, app, t->name, t->version);

    return d && d->conf && json_equal(d->told, t->config);
}

/* Of the applications, then of those in `old`. */
static const struct rs_target_app *all_at(const struct rs_target *t, size_t i)
{
    return i < t->n_apps ? &t->apps[i] : &t->old[i - t->n_apps];
}

/* All effective options, in the order of the target, NULL where they are those of before; -1: one of
 * them makes no sense. */
static int read_confs(const struct rs_agent *a, const struct rs_target *t,
                      struct rs_deployment_conf ***ret, size_t *n, struct rs_error *err)
{
    struct rs_deployment_conf **confs = NULL;
    size_t cap = 0;

    *n = 0;
    for (size_t i = 0; i < t->n_apps + t->n_old; i++) {
        const struct rs_target_app *app = all_at(t, i);

        for (size_t k = 0; k < app->n_deployments; k++) {
            confs = rs_grow(confs, &cap, *n + 1, sizeof(struct rs_deployment_conf *));
            confs[*n] = NULL;
            if (!known_options(a, app->name, &app->deployments[k]) &&
                rs_deployment_conf_from_json(&confs[*n], app->deployments[k].config, err) < 0) {
                while (*n > 0)
                    rs_deployment_conf_free(confs[--*n]);
                free(confs);
                return rs_error_wrap(err, "application '%s': deployment '%s'", app->name,
                                     app->deployments[k].name);
            }
            ++*n;
        }
    }
    *ret = confs;
    return 0;
}

static void mark_gone(struct rs_agent *a)
{
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (!d || rs_ag_told(d))
            continue;
        d->stray = d->old && rs_target_deployment(rs_ag_app(a, d->app), d->name);
        d->gone = !d->stray;
    }
}

static void end_linger(struct rs_agent *a)
{
    for (size_t i = 0; i < rs_map_slots(&a->zygotes); i++) {
        struct rs_ag_zygote *z = rs_map_at(&a->zygotes, i, NULL);
        if (z && rs_ag_zygote_wanted_by(a, z))
            z->linger_until = 0;
    }
}

int rs_agent_target(struct rs_agent *a, const json_t *target, int64_t now, struct rs_error *err)
{
    rs_auto(rs_target_freep) struct rs_target *t = NULL;
    rs_auto(rs_target_freep) struct rs_target *old = NULL;
    struct rs_deployment_conf **confs = NULL;
    size_t n = 0;
    size_t at = 0;

    if (rs_target_from_json(&t, target, err) < 0)
        return -1;
    if (a->target && t->revision < a->target->revision)
        return 0;
    if (read_confs(a, t, &confs, &n, err) < 0)
        return -1;
    old = a->target;
    a->target = rs_steal(t);
    for (size_t i = 0; i < a->target->n_apps + a->target->n_old; i++) {
        const struct rs_target_app *app = all_at(a->target, i);

        for (size_t k = 0; k < app->n_deployments; k++) {
            assert(confs && at < n);
            set_deployment(a, app, &app->deployments[k], i >= a->target->n_apps, confs[at++], now);
        }
    }
    free(confs);
    mark_gone(a);
    end_linger(a);
    rs_ag_routes(a);
    tell_remotes(a, old, a->target, true);
    tell_remotes(a, old, a->target, false);
    rs_ag_reconcile(a, now);
    rs_ag_changed(a);
    return 0;
}

/* --- time --- */

void rs_agent_tick(struct rs_agent *a, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (r && r->state != RS_REPLICA_STOPPED)
            rs_ag_replica_tick(r, now);
    }
    rs_ag_zygotes_tick(a, now);
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (d && now >= d->retry_at)
            d->retry_at = 0;
    }
    rs_ag_reconcile(a, now);
}

int64_t rs_agent_deadline(const struct rs_agent *a)
{
    int64_t at = 0;

    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        const struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (r)
            at = rs_ag_sooner(at, rs_ag_replica_deadline(r));
    }
    for (size_t i = 0; i < rs_map_slots(&a->zygotes); i++) {
        const struct rs_ag_zygote *z = rs_map_at(&a->zygotes, i, NULL);

        if (z)
            at = rs_ag_sooner(at, rs_ag_zygote_deadline(z));
    }
    for (size_t i = 0; i < rs_map_slots(&a->envs); i++) {
        const struct rs_ag_env *e = rs_map_at(&a->envs, i, NULL);

        if (e)
            at = rs_ag_sooner(at, rs_ag_env_deadline(e));
    }
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        const struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (d)
            at = rs_ag_sooner(rs_ag_sooner(at, d->retry_at), d->replace_at);
    }
    return at ? at : INT64_MAX;
}

void rs_agent_drain(struct rs_agent *a, int64_t now)
{
    if (a->draining)
        return;
    a->draining = true;
    rs_ag_reconcile(a, now);
    rs_ag_changed(a);
}

void rs_agent_kill_all(struct rs_agent *a, int64_t now)
{
    a->draining = a->killing = true;
    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (r)
            rs_ag_kill(r, "the node stops now", now);
    }
    for (size_t i = 0; i < rs_map_slots(&a->zygotes); i++) {
        const struct rs_ag_zygote *z = rs_map_at(&a->zygotes, i, NULL);

        if (z && z->pid > 0)
            a->ops.kill(z->key, SIGKILL, a->arg);
    }
    rs_ag_reconcile(a, now); /* ends the builders of environments too */
}

bool rs_agent_done(const struct rs_agent *a)
{
    if (rs_map_count(&a->replicas) > 0)
        return false;
    for (size_t i = 0; i < rs_map_slots(&a->zygotes); i++) {
        const struct rs_ag_zygote *z = rs_map_at(&a->zygotes, i, NULL);

        if (z && z->pid > 0)
            return false;
    }
    for (size_t i = 0; i < rs_map_slots(&a->envs); i++) {
        const struct rs_ag_env *e = rs_map_at(&a->envs, i, NULL);

        if (e && e->pid > 0)
            return false;
    }
    return true;
}
