/* Zygotes and replicas that are only pretended: the ops of an agent. */
#include "tests/sim/sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP RS_MS /* what anything takes at least */

/* --- processes ----------------------------------------------------------------------------------- */

static struct sim_proc *proc_of(struct sim_node *n, const char *id)
{
    return rs_map_get(&n->procs, id);
}

static struct sim_proc *proc_new(struct sim_node *n, const char *id)
{
    struct sim_proc *p = rs_alloc(sizeof(*p));

    p->node = n;
    p->serial = ++n->sim->serials;
    p->pid = (pid_t)(100 + p->serial);
    p->app = p->deployment = -1;
    snprintf(p->id, sizeof(p->id), "%s", id);
    if (rs_map_put(&n->procs, id, p))
        sim_violate(n->sim, "started-once", "%s starts '%s', which runs there already", n->id, id);
    return p;
}

static void set_admitted(struct sim_proc *p, bool admitted)
{
    struct sim *s = p->node->sim;

    if (p->admitted == admitted || p->app < 0)
        return;
    p->admitted = admitted;
    s->apps[p->app].up[p->deployment] += admitted ? 1 : -1u;
    if (!admitted && !s->ending)
        sim_check_up(s, p->app, p->deployment);
}

void sim_proc_gone(struct sim_proc *p)
{
    struct sim_node *n = p->node;

    set_admitted(p, false);
    if (p->pool)
        rs_sim_pool_remove(&p->backend, n->sim->now, sim_lost, n->sim);
    p->pool = NULL;
    n->used -= p->cpu;
    rs_map_remove(&n->procs, p->id);
    free(p);
}

/* The process of a note, if it is the same one. */
static struct sim_proc *still_there(const struct sim_note *note)
{
    struct sim_proc *p = proc_of(note->node, note->id);

    return p && p->serial == note->serial ? p : NULL;
}

static struct sim_note *later(struct sim_proc *p, int64_t delay, void (*fn)(struct sim_note *note))
{
    struct sim_note *note = sim_later(p->node->sim, delay, fn, p->node);

    note->serial = p->serial;
    snprintf(note->id, sizeof(note->id), "%s", p->id);
    return note;
}

static void ev_exit(struct sim_note *note)
{
    struct sim_node *n = note->node;
    struct sim_proc *p = still_there(note);
    char id[64];
    bool replica;

    if (!p)
        return;
    replica = p->app >= 0;
    snprintf(id, sizeof(id), "%s", p->id);
    sim_proc_gone(p);
    if (replica)
        rs_agent_exited(n->agent, id, (int)note->number, "", n->sim->now);
    else
        rs_agent_zygote_exited(n->agent, id, (int)note->number, "", n->sim->now);
}

static void exit_later(struct sim_proc *p, int status, int64_t delay)
{
    later(p, delay, ev_exit)->number = status;
}

static void ev_cut(struct sim_note *note)
{
    if (still_there(note))
        rs_agent_gone(note->node->agent, note->id, "hang-up", note->sim->now);
}

void sim_proc_die(struct sim_proc *p, int status)
{
    set_admitted(p, false);
    later(p, 0, ev_cut);
    exit_later(p, status, STEP);
}

struct sim_proc *sim_proc_pick(struct sim *s, int app, int64_t which)
{
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < s->n_nodes; i++)
            for (size_t k = 0; k < rs_map_slots(&s->nodes[i].procs); k++) {
                struct sim_proc *p = rs_map_at(&s->nodes[i].procs, k, NULL);

                if (p && p->app == app && p->admitted && !p->hangs && which-- <= 0)
                    return p;
            }
    return NULL;
}

/* --- zygotes ------------------------------------------------------------------------------------- */

static void ev_hello(struct sim_note *note)
{
    if (still_there(note))
        rs_agent_zygote_hello(note->node->agent, note->id, note->json, note->sim->now);
}

static int op_zygote_start(const struct rs_agent_zygote *z, pid_t *pid, void *arg,
                           struct rs_error *err)
{
    struct sim_proc *p = proc_new(arg, z->key);

    *pid = p->pid;
    later(p, 5 * STEP, ev_hello)->json =
        json_pack("{s:s, s:i}", "executable", "/usr/bin/python3", "pid", (int)p->pid);
    return 0;
}

static void ev_built(struct sim_note *note)
{
    if (!still_there(note))
        return;
    if (note->number)
        rs_agent_zygote_failed(note->node->agent, note->id, note->json, note->sim->now);
    else
        rs_agent_zygote_graph(note->node->agent, note->id, note->json, note->sim->now);
}

static bool read_code(const char *path, struct sim_code *c)
{
    return path && sscanf(path, "m:v%dc%ds%dt%d", &c->version, &c->crash, &c->side, &c->start) == 4;
}

static void op_zygote_build(const char *key, const json_t *build, void *arg)
{
    struct sim_node *n = arg;
    struct sim_proc *p = proc_of(n, key);
    struct sim_code c = {0};
    struct sim_note *note;

    if (!p || !read_code(rs_json_str(build, "import_path", ""), &c))
        return;
    p->code = c;
    note = later(p, 20 * STEP, ev_built);
    note->number = c.crash == 2;
    if (c.crash == 2)
        note->json = json_pack("{s:s, s:s, s:s, s:s}", "phase", "import", "kind", "ValueError",
                               "error", "no", "traceback", "ValueError: no");
    else if (c.side)
        note->json = json_loads(
            "{\"ingress\": \"A\", \"start\": \"fork\", \"deployments\": [{\"name\": \"A\", "
            "\"options\": {}, \"calls\": [\"B\"]}, {\"name\": \"B\", \"options\": {}, \"calls\": "
            "[]}]}",
            0, NULL);
    else
        note->json = json_loads("{\"ingress\": \"A\", \"start\": \"fork\", \"deployments\": "
                                "[{\"name\": \"A\", \"options\": {}, \"calls\": []}]}",
                                0, NULL);
}

static void op_zygote_stop(const char *key, void *arg)
{
    struct sim_proc *p = proc_of(arg, key);

    if (p)
        exit_later(p, 0, STEP);
}

/* --- replicas ------------------------------------------------------------------------------------ */

static void ev_forked(struct sim_note *note)
{
    rs_agent_zygote_forked(note->node->agent, rs_json_str(note->json, "key", ""), note->json,
                           note->sim->now);
}

static void ev_heard(struct sim_note *note)
{
    const struct sim_proc *p = still_there(note);

    if (p && !p->hangs)
        rs_agent_heard(note->node->agent, note->id, (enum rs_agent_heard)note->number,
                       (uint64_t)rs_json_int(note->json, "stream", 0), note->json, note->sim->now);
}

static void heard(struct sim_proc *p, enum rs_agent_heard what, int64_t delay, json_t *json)
{
    struct sim_note *note = later(p, delay, ev_heard);

    note->number = (int64_t)what;
    note->json = json;
}

static int op_fork(const struct rs_agent_start *start, void *arg, struct rs_error *err)
{
    struct sim_node *n = arg;
    const struct sim_proc *zygote = proc_of(n, start->zygote);
    struct sim_proc *p = proc_new(n, start->replica_id);

    p->app = sim_app_index(start->app);
    p->deployment = sim_deployment_index(start->deployment);
    if (!zygote || p->app < 0 || p->deployment < 0)
        return rs_error_set(err, RS_INVALID, "'%s' cannot be forked", start->replica_id);
    p->code = zygote->code;
    p->user = json_integer_value(json_object_get(start->conf->user_config, "u"));
    p->cpu = start->conf->resources.cpu;
    n->used += p->cpu;
    sim_check_room(n);
    later(p, STEP, ev_forked)->json =
        json_pack("{s:s, s:s, s:i}", "key", start->zygote, "replica_id", start->replica_id, "pid",
                  (int)p->pid);
    heard(p, RS_HEARD_HELLO, 2 * STEP, json_object());
    return 0;
}

static int op_spawn(const struct rs_agent_start *start, pid_t *pid, void *arg, struct rs_error *err)
{
    return rs_error_set(err, RS_INVALID, "nothing of the simulation is spawned");
}

static int op_env_start(const struct rs_agent_env *e, pid_t *pid, void *arg, struct rs_error *err)
{
    return rs_error_set(err, RS_INVALID, "nothing of the simulation has an environment");
}

static void op_kill(const char *id, int signal, void *arg)
{
    struct sim_proc *p = proc_of(arg, id);

    if (p && (signal == SIGKILL || !p->hangs))
        exit_later(p, signal, STEP);
}

static void told_init(struct sim_proc *p, const json_t *msg)
{
    struct sim_app *app = &p->node->sim->apps[p->app];
    const json_t *user = json_object_get(json_object_get(msg, "config"), "user_config");
    int64_t start = p->code.start * RS_MS + STEP;
    bool fails = p->code.crash == 1 || app->crashes > 0;

    if (user)
        p->user = json_integer_value(json_object_get(user, "u"));
    app->crashes -= app->crashes > 0;
    if (!fails) {
        heard(p, RS_HEARD_READY, start, json_object());
        return;
    }
    heard(p, RS_HEARD_FAILED, start,
          json_pack("{s:s, s:s, s:s}", "phase", "constructor", "error", "ValueError: no",
                    "traceback", "ValueError: no"));
    exit_later(p, 3 << 8, start + STEP);
}

static void op_tell(const char *id, enum rs_agent_tell what, uint64_t stream, const json_t *msg,
                    void *arg)
{
    struct sim_proc *p = proc_of(arg, id);

    if (!p)
        return;
    if (what == RS_TELL_INIT) {
        told_init(p, msg);
    } else if (what == RS_TELL_PING) {
        heard(p, RS_HEARD_PONG, STEP,
              json_pack("{s:b, s:I}", "ok", 1, "stream", (json_int_t)stream));
    } else if (what == RS_TELL_RECONFIGURE) {
        const json_t *config = json_object_get(msg, "user_config");

        if (config)
            p->user = json_integer_value(json_object_get(config, "u"));
        heard(p, RS_HEARD_READY, STEP, json_object());
    } else if (!p->hangs) {
        exit_later(p, 0, STEP);
    }
}

/* --- the data plane ------------------------------------------------------------------------------ */

static void op_admit(const char *id, void *arg)
{
    struct sim_node *n = arg;
    struct sim_proc *p = proc_of(n, id);
    unsigned extra = n->sim->mutation == SIM_MUTATION_EXTRA_SLOT;

    if (!p || p->admitted || p->pool)
        return;
    p->pool = sim_pool_get(n, p->app, p->deployment, true);
    rs_sim_pool_add(&p->pool->pool, &p->backend,
                    extra ? (unsigned)p->pool->pool.max_ongoing + extra : 0, false, n->sim->now);
    set_admitted(p, true);
    rs_sim_pool_admit(&p->backend, n->sim->now);
    sim_pool_settle(p->pool);
}

static void op_retire(const char *id, void *arg)
{
    struct sim_proc *p = proc_of(arg, id);

    if (!p || !p->pool)
        return;
    set_admitted(p, false);
    rs_sim_pool_retire(&p->backend);
}

static void op_detach(const char *id, const char *why, void *arg)
{
    struct sim_node *n = arg;
    struct sim_proc *p = proc_of(n, id);

    if (!p || !p->pool)
        return;
    set_admitted(p, false);
    rs_sim_pool_remove(&p->backend, n->sim->now, sim_lost, n->sim);
    p->pool = NULL;
}

static void op_remote(const char *app, const char *deployment, const char *version,
                      const char *node_id, const char *address, unsigned slots, void *arg)
{
    struct sim_node *n = arg;
    int a = sim_app_index(app), d = sim_deployment_index(deployment);

    if (a >= 0 && d >= 0)
        sim_pool_remote(sim_pool_get(n, a, d, true), node_id, version ? version : "", slots);
}

static void configure(struct sim_node *n, const struct rs_agent_route_deployment *d)
{
    int a = sim_app_index(d->app), k = sim_deployment_index(d->name);
    struct rs_queue_conf conf = {.max_queued = d->max_queued,
                                 .ageing = d->priority_ageing,
                                 .shed_target = d->shed_target,
                                 .shed_interval = d->shed_interval};

    if (a >= 0 && k >= 0)
        rs_sim_pool_configure(&sim_pool_get(n, a, k, true)->pool, d->max_ongoing, &conf, d->failed,
                              n->sim->now);
}

static void op_routes(const struct rs_agent_routes *r, void *arg)
{
    struct sim_node *n = arg;

    for (size_t i = 0; i < rs_map_slots(&n->pools); i++) {
        struct sim_pool *p = rs_map_at(&n->pools, i, NULL);
        bool there = false;

        for (size_t k = 0; p && k < r->n_deployments; k++)
            there |= sim_app_index(r->deployments[k].app) == p->app &&
                     sim_deployment_index(r->deployments[k].name) == p->deployment;
        if (p && !there)
            rs_sim_pool_configure(&p->pool, p->pool.max_ongoing,
                                  &(struct rs_queue_conf){.max_queued = -1}, true, n->sim->now);
    }
    for (size_t i = 0; i < r->n_deployments; i++)
        configure(n, &r->deployments[i]);
}

/* --- the rest ------------------------------------------------------------------------------------ */

static void op_probe(const char *id, const char *path, int64_t timeout, void *arg)
{
}

static void op_built(bool ok, const json_t *answer, void *arg)
{
    sim_send_built(arg, json_deep_copy(answer), ok);
}

static void op_changed(void *arg)
{
    struct sim_node *n = arg;

    n->dirty = true;
}

static uint64_t op_random(void *arg)
{
    return sim_random(((struct sim_node *)arg)->sim);
}

const struct rs_agent_ops sim_agent_ops = {
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
