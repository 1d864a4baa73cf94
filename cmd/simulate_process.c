/* Processes that are only pretended: the ops of an agent. */
#include "cmd/simulate_internal.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define STEP RS_MS /* what anything takes at least */

static struct rs_sim_process *find(struct rs_sim_world *w, const char *id)
{
    return rs_map_get(&w->processes, id);
}

static struct rs_sim_process *process_new(struct rs_sim_world *w, const char *id)
{
    struct rs_sim_process *p = rs_alloc(sizeof(*p));

    p->world = w;
    p->pid = ++w->last_pid;
    snprintf(p->id, sizeof(p->id), "%s", id);
    free(rs_map_put(&w->processes, id, p));
    return p;
}

/* Later, if that process is still there then. */
static void later(struct rs_sim_process *p, int64_t delay,
                  void (*fn)(struct rs_sim_event *e, void *arg), json_t *data, int64_t kind)
{
    json_t *with = json_pack("{s:s, s:i, s:o?}", "id", p->id, "pid", (int)p->pid, "data", data);

    rs_sim_at(p->world, p->world->now + delay, fn, NULL, with, kind);
}

/* The process of an event; `data` is what came with it, `id` whose it is. */
static struct rs_sim_process *still_there(struct rs_sim_world *w, const struct rs_sim_event *e,
                                          const char **id, const json_t **data)
{
    const json_t *with = e->data;
    struct rs_sim_process *p;

    *id = rs_json_str(with, "id", "");
    *data = json_object_get(with, "data");
    p = find(w, *id);
    return p && p->pid == rs_json_int(with, "pid", 0) ? p : NULL;
}

static void leave(struct rs_sim_process *p)
{
    struct rs_sim_world *w = p->world;

    if (!p->of)
        return;
    rs_sim_count(p->of);
    p->of->running -= p->admitted;
    p->admitted = false;
    rs_sim_pool_remove(&p->backend, w->now, rs_sim_lost, w);
    p->of = NULL;
}

static void ev_exit(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    const char *id;
    const json_t *data;
    struct rs_sim_process *p = still_there(w, e, &id, &data);

    if (!p)
        return;
    leave(p);
    rs_map_remove(&w->processes, id);
    free(p);
    if (strncmp(id, "env-", 4) == 0)
        rs_agent_env_exited(w->agent, id, (int)e->kind, "", w->now);
    else if (strchr(id, '@'))
        rs_agent_zygote_exited(w->agent, id, (int)e->kind, "", w->now);
    else
        rs_agent_exited(w->agent, id, (int)e->kind, "", w->now);
}

static void exit_later(struct rs_sim_process *p, int status)
{
    later(p, STEP, ev_exit, NULL, status);
}

void rs_sim_processes_fini(struct rs_sim_world *w)
{
    for (size_t i = 0; i < rs_map_slots(&w->processes); i++) {
        struct rs_sim_process *p = rs_map_at(&w->processes, i, NULL);

        if (!p)
            continue;
        leave(p);
        free(p);
    }
    rs_map_fini(&w->processes);
    w->processes = (struct rs_map){0};
}

/* --- environments and zygotes -------------------------------------------------------------------- */

static void ev_env(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    const char *id;
    const json_t *data;

    if (still_there(w, e, &id, &data))
        rs_agent_env_ready(w->agent, id, data, w->now);
}

static int op_env_start(const struct rs_agent_env *e, pid_t *pid, void *arg, struct rs_error *err)
{
    struct rs_sim_process *p = process_new(arg, e->key);

    *pid = p->pid;
    later(p, STEP, ev_env, json_pack("{s:[s]}", "python", "python3"), 0);
    later(p, 2 * STEP, ev_exit, NULL, 0);
    return 0;
}

static void ev_zygote(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    const char *id;
    const json_t *data;

    if (!still_there(w, e, &id, &data))
        return;
    if (e->kind == 0)
        rs_agent_zygote_hello(w->agent, id, data, w->now);
    else
        rs_agent_zygote_graph(w->agent, id, data, w->now);
}

static int op_zygote_start(const struct rs_agent_zygote *z, pid_t *pid, void *arg,
                           struct rs_error *err)
{
    struct rs_sim_process *p = process_new(arg, z->key);

    *pid = p->pid;
    later(p, STEP, ev_zygote, json_pack("{s:s, s:i}", "executable", "python3", "pid", (int)p->pid),
          0);
    return 0;
}

/* The module is not imported: its deployments are those that the file names, and what calls which follows
 * from the trace. */
static json_t *graph_of(const struct rs_sim_world *w, const char *app)
{
    const struct rs_config_app *conf = rs_config_find_app(w->conf->config, app);
    const char *ingress = rs_map_get(&w->ingresses, app);
    rs_auto(rs_json_decrefp) json_t *calls = json_array(), *none = json_array();
    json_t *list = json_array();

    for (size_t i = 0; conf && i < conf->deployment_count; i++)
        if (conf->deployments[i].kind == RS_KIND_PYTHON &&
            strcmp(conf->deployments[i].name, ingress) != 0)
            json_array_append_new(calls, json_string(conf->deployments[i].name));
    for (size_t i = 0; conf && i < conf->deployment_count; i++) {
        const char *name = conf->deployments[i].name;

        if (conf->deployments[i].kind == RS_KIND_PYTHON)
            json_array_append_new(list,
                                  json_pack("{s:s, s:{}, s:O}", "name", name, "options", "calls",
                                            strcmp(name, ingress) == 0 ? calls : none));
    }
    return json_pack("{s:s, s:s, s:o}", "ingress", ingress, "start", "fork", "deployments", list);
}

static void op_zygote_build(const char *key, const json_t *build, void *arg)
{
    struct rs_sim_process *p = find(arg, key);

    if (p)
        later(p, STEP, ev_zygote, graph_of(arg, rs_json_str(build, "app", "")), 1);
}

static void op_zygote_stop(const char *key, void *arg)
{
    struct rs_sim_process *p = find(arg, key);

    if (p)
        exit_later(p, 0);
}

/* --- replicas ------------------------------------------------------------------------------------ */

static void ev_heard(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    const char *id;
    const json_t *data;

    if (still_there(w, e, &id, &data))
        rs_agent_heard(w->agent, id, (enum rs_agent_heard)e->kind,
                       (uint64_t)rs_json_int(data, "stream", 0), data, w->now);
}

static void heard(struct rs_sim_process *p, enum rs_agent_heard what, int64_t delay, json_t *data)
{
    later(p, delay, ev_heard, data, (int64_t)what);
}

static void ev_forked(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    const json_t *data = json_object_get(e->data, "data");

    rs_agent_zygote_forked(w->agent, rs_json_str(data, "key", ""), data, w->now);
}

static int op_fork(const struct rs_agent_start *start, void *arg, struct rs_error *err)
{
    struct rs_sim_process *p = process_new(arg, start->replica_id);

    later(p, STEP, ev_forked,
          json_pack("{s:s, s:s, s:i}", "key", start->zygote, "replica_id", start->replica_id, "pid",
                    (int)p->pid),
          0);
    heard(p, RS_HEARD_HELLO, 2 * STEP, json_object());
    p->of = rs_sim_serve(arg, start->app, start->deployment);
    return 0;
}

static int op_spawn(const struct rs_agent_start *start, pid_t *pid, void *arg, struct rs_error *err)
{
    struct rs_sim_process *p = process_new(arg, start->replica_id);

    *pid = p->pid;
    p->ready_at = p->world->now + p->world->conf->start_time;
    p->of = rs_sim_serve(arg, start->app, start->deployment);
    if (start->conf->kind != RS_KIND_HTTP)
        heard(p, RS_HEARD_HELLO, STEP, json_object());
    return 0;
}

static void op_kill(const char *id, int signal, void *arg)
{
    struct rs_sim_process *p = find(arg, id);

    if (p)
        exit_later(p, signal);
}

static void op_tell(const char *id, enum rs_agent_tell what, uint64_t stream, const json_t *msg,
                    void *arg)
{
    struct rs_sim_process *p = find(arg, id);

    if (!p)
        return;
    if (what == RS_TELL_INIT)
        heard(p, RS_HEARD_READY, p->world->conf->start_time, json_object());
    else if (what == RS_TELL_PING)
        heard(p, RS_HEARD_PONG, STEP,
              json_pack("{s:b, s:I}", "ok", 1, "stream", (json_int_t)stream));
    else if (what == RS_TELL_RECONFIGURE)
        heard(p, RS_HEARD_READY, STEP, json_object());
    else
        exit_later(p, 0);
}

static void ev_probed(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    const char *id;
    const json_t *data;
    const struct rs_sim_process *p = still_there(w, e, &id, &data);

    if (p)
        rs_agent_probed(w->agent, id, w->now >= p->ready_at, "it is not ready", w->now);
}

static void op_probe(const char *id, const char *path, int64_t timeout, void *arg)
{
    struct rs_sim_process *p = find(arg, id);

    if (p)
        later(p, STEP, ev_probed, NULL, 0);
}

/* --- the data plane ------------------------------------------------------------------------------ */

static void op_admit(const char *id, void *arg)
{
    struct rs_sim_process *p = find(arg, id);

    if (!p || !p->of || p->admitted)
        return;
    rs_sim_count(p->of);
    p->admitted = true;
    p->of->running++;
    rs_sim_pool_add(&p->of->pool, &p->backend, 0, false, p->world->now);
    rs_sim_pool_admit(&p->backend, p->world->now);
    rs_sim_served_settle(p->of);
}

static void op_retire(const char *id, void *arg)
{
    struct rs_sim_process *p = find(arg, id);

    if (!p || !p->of || !p->admitted)
        return;
    rs_sim_count(p->of);
    p->admitted = false;
    p->of->running--;
    rs_sim_pool_retire(&p->backend);
}

static void op_detach(const char *id, const char *why, void *arg)
{
    struct rs_sim_process *p = find(arg, id);

    if (p)
        leave(p);
}

static void op_remote(const char *app, const char *deployment, const char *version,
                      const char *node_id, const char *address, unsigned slots, void *arg)
{
}

static void op_routes(const struct rs_agent_routes *routes, void *arg)
{
    struct rs_sim_world *w = arg;

    for (size_t i = 0; i < routes->n_deployments; i++) {
        const struct rs_agent_route_deployment *d = &routes->deployments[i];
        struct rs_sim_served *s = rs_sim_serve(w, d->app, d->name);
        struct rs_queue_conf conf = {.max_queued = d->max_queued,
                                     .ageing = d->priority_ageing,
                                     .shed_target = d->shed_target,
                                     .shed_interval = d->shed_interval};

        s->timeout = d->request_timeout;
        rs_sim_pool_configure(&s->pool, d->max_ongoing, &conf, d->failed, w->now);
    }
}

/* --- the rest ------------------------------------------------------------------------------------ */

static void ev_built(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;

    if (e->kind)
        rs_controller_graph(w->controller, "n0", e->data, w->now);
    else
        rs_controller_build_failed(w->controller, "n0", e->data, w->now);
}

static void op_built(bool ok, const json_t *answer, void *arg)
{
    struct rs_sim_world *w = arg;

    rs_sim_at(w, w->now, ev_built, NULL, json_deep_copy(answer), ok);
}

static void op_changed(void *arg)
{
    struct rs_sim_world *w = arg;

    w->dirty = true;
}

static uint64_t op_random(void *arg)
{
    struct rs_sim_world *w = arg;

    w->random = w->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return w->random >> 11;
}

const struct rs_agent_ops rs_sim_process_ops = {
    .env_start = op_env_start,
    .zygote_start = op_zygote_start,
    .zygote_build = op_zygote_build,
    .zygote_stop = op_zygote_stop,
    .fork = op_fork,
    .spawn = op_spawn,
    .kill = op_kill,
    .tell = op_tell,
    .admit = op_admit,
    .retire = op_retire,
    .detach = op_detach,
    .remote = op_remote,
    .routes = op_routes,
    .probe = op_probe,
    .built = op_built,
    .changed = op_changed,
    .random = op_random,
};
