#include "tests/unit/sched/world.h"

#include "core/base/buf.h"
#include "core/base/json.h"

#include <stdlib.h>

/* --- events --- */

static struct event *post(struct world *w, int64_t delay,
                          void (*fn)(struct world *w, struct event *e), struct node *n,
                          const char *id, json_t *json)
{
    struct event *e;

    w->events = rs_grow(w->events, &w->cap_events, w->n_events + 1, sizeof(*w->events));
    e = &w->events[w->n_events++];
    *e = (struct event){.at = w->now + delay, .seq = ++w->seq, .fn = fn, .node = n, .json = json};
    if (id)
        snprintf(e->id, sizeof(e->id), "%s", id);
    return e;
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static bool take_next(struct world *w, int64_t until, struct event *ret)
{
    size_t best = w->n_events;

    for (size_t i = 0; i < w->n_events; i++)
        if (w->events[i].at <= until &&
            (best == w->n_events || before(&w->events[i], &w->events[best])))
            best = i;
    if (best == w->n_events)
        return false;
    *ret = w->events[best];
    w->events[best] = w->events[--w->n_events];
    return true;
}

/* --- behaviour --- */

struct behaviour *world_behaviour(struct world *w, const char *deployment)
{
    static struct behaviour ordinary;

    for (size_t i = 0; i < w->n_behaviours; i++)
        if (strcmp(w->behaviours[i].deployment, deployment) == 0)
            return &w->behaviours[i];
    return &ordinary;
}

static struct proc *proc_of(struct node *n, const char *id)
{
    return rs_map_get(&n->procs, id);
}

static void proc_add(struct node *n, const char *id, const char *deployment, pid_t pid)
{
    struct proc *p = rs_alloc(sizeof(*p));

    snprintf(p->deployment, sizeof(p->deployment), "%s", deployment);
    p->pid = pid;
    ck_assert_ptr_null(rs_map_put(&n->procs, id, p));
}

static void note_up(struct world *w)
{
    if (w->watch && world_admitted(w, w->watch) < w->lowest_up)
        w->lowest_up = world_admitted(w, w->watch);
    if (w->watch && world_admitted(w, w->watch) > w->highest_up)
        w->highest_up = world_admitted(w, w->watch);
}

static void proc_remove(struct node *n, const char *id)
{
    struct proc *p = rs_map_remove(&n->procs, id);

    if (!p)
        return;
    free(p->env);
    free(p);
    note_up(n->world);
}

/* --- things that happen to agents --- */

static void ev_exit(struct world *w, struct event *e)
{
    if (!proc_of(e->node, e->id))
        return; /* ended before */
    bool zygote = strchr(e->id, '@') != NULL;

    proc_remove(e->node, e->id);
    if (strncmp(e->id, "env-", 4) == 0)
        rs_agent_env_exited(e->node->agent, e->id, e->number, "", w->now);
    else if (zygote)
        rs_agent_zygote_exited(e->node->agent, e->id, e->number, "", w->now);
    else
        rs_agent_exited(e->node->agent, e->id, e->number, "", w->now);
}

static void ev_env(struct world *w, struct event *e)
{
    if (!proc_of(e->node, e->id))
        return;
    if (e->number == 0)
        rs_agent_env_progress(e->node->agent, e->id, e->json, w->now);
    else if (e->number == 1)
        rs_agent_env_ready(e->node->agent, e->id, e->json, w->now);
    else
        rs_agent_env_failed(e->node->agent, e->id, e->json, w->now);
}

static void ev_zygote_hello(struct world *w, struct event *e)
{
    if (proc_of(e->node, e->id))
        rs_agent_zygote_hello(e->node->agent, e->id, e->json, w->now);
}

static void ev_zygote_graph(struct world *w, struct event *e)
{
    if (proc_of(e->node, e->id))
        rs_agent_zygote_graph(e->node->agent, e->id, e->json, w->now);
}

static void ev_zygote_failed(struct world *w, struct event *e)
{
    if (proc_of(e->node, e->id))
        rs_agent_zygote_failed(e->node->agent, e->id, e->json, w->now);
}

static void ev_forked(struct world *w, struct event *e)
{
    rs_agent_zygote_forked(e->node->agent, e->id, e->json, w->now);
}

static void ev_heard(struct world *w, struct event *e)
{
    uint64_t stream = (uint64_t)rs_json_int(e->json, "stream", 0);

    if (proc_of(e->node, e->id))
        rs_agent_heard(e->node->agent, e->id, (enum rs_agent_heard)e->number, stream, e->json,
                       w->now);
}

static void ev_idle(struct world *w, struct event *e)
{
    if (proc_of(e->node, e->id))
        rs_agent_idle(e->node->agent, e->id, w->now);
}

static void ev_probed(struct world *w, struct event *e)
{
    rs_agent_probed(e->node->agent, e->id, e->number != 0, "connection refused", w->now);
}

static void ev_gone(struct world *w, struct event *e)
{
    rs_agent_gone(e->node->agent, e->id, "hang-up", w->now);
}

/* --- between head and nodes --- */

static void ev_target(struct world *w, struct event *e)
{
    struct rs_error err = {0};

    ck_assert_msg(rs_agent_target(e->node->agent, e->json, w->now, &err) == 0, "%s", err.msg);
}

static void ev_build(struct world *w, struct event *e)
{
    w->builds++;
    ck_assert_int_eq(rs_agent_build(e->node->agent, e->json, w->now, NULL), 0);
}

static void ev_built(struct world *w, struct event *e)
{
    if (e->number)
        rs_controller_graph(w->controller, e->node->id, e->json, w->now);
    else
        rs_controller_build_failed(w->controller, e->node->id, e->json, w->now);
}

static void note_area(struct world *w, struct behaviour *b)
{
    b->area += (uint64_t)(b->load * (w->now - b->area_at));
    b->area_at = w->now;
}

/* What a data plane would know: replicas with the highest ranks have the requests, the rest waits. */
static void add_figures(struct world *w, struct rs_report *r)
{
    for (size_t i = 0; i < r->n_deployments; i++) {
        struct rs_report_deployment *d = &r->deployments[i];
        struct behaviour *b = world_behaviour(w, d->name);
        unsigned left = b->load;

        for (unsigned rank = 20; rank-- > 0;)
            for (size_t k = 0; k < r->n_replicas; k++) {
                struct rs_report_replica *x = &r->replicas[k];

                if (x->rank != rank || x->state != RS_REPLICA_RUNNING ||
                    strcmp(x->deployment, d->name) != 0)
                    continue;
                x->in_flight = !b->room || left < b->room ? left : b->room;
                left -= x->in_flight;
                x->models = b->warm && rank == b->warm;
            }
        d->queued = left;
        d->dropped_full = b->dropped[0];
        d->dropped_shed = b->dropped[1];
        d->dropped_expired = b->dropped[2];
        d->load_us = b->area / 1000;
    }
}

/* Figures that only a data plane has. */
static void add_health(const struct world *w, struct rs_report *r)
{
    const char *name;
    json_t *health;

    json_object_foreach (w->health, name, health)
        for (size_t i = 0; i < r->n_replicas; i++) {
            struct rs_report_replica *x = &r->replicas[i];

            if (x->state != RS_REPLICA_RUNNING || strcmp(x->deployment, name) != 0)
                continue;
            json_decref(x->health);
            x->health = json_incref(health);
            break;
        }
}

static void add_tallies(const struct node *n, struct rs_report *r)
{
    for (size_t i = 0; i < r->n_deployments && *n->split; i++)
        if (strcmp(r->deployments[i].name, n->split) == 0) {
            r->deployments[i].versions =
                json_pack("{s:s, s:o, s:o}", "version", n->fresh, "old",
                          rs_tally_to_json(&n->tally[0]), "new", rs_tally_to_json(&n->tally[1]));
            return;
        }
}

static void ev_report(struct world *w, struct event *e)
{
    rs_auto(rs_report_freep) struct rs_report *r = rs_agent_report(e->node->agent, w->now);
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    struct rs_error err = {0};

    e->node->report_due = false;
    for (size_t i = 0; i < w->n_behaviours; i++)
        note_area(w, &w->behaviours[i]);
    add_figures(w, r);
    add_tallies(e->node, r);
    if (e->node == &w->nodes[0])
        r->refused = json_incref(w->refused);
    add_health(w, r);
    j = rs_report_to_json(r);
    ck_assert_msg(rs_controller_report(w->controller, e->node->id, j, w->now, &err) == 0, "%s",
                  err.msg);
}

static struct node *find_node(struct world *w, const char *id)
{
    for (unsigned i = 0; i < NODES; i++)
        if (strcmp(w->nodes[i].id, id) == 0)
            return &w->nodes[i];
    ck_abort_msg("no node %s", id);
    return NULL;
}

static void op_target(const char *node_id, const json_t *target, void *arg)
{
    struct world *w = arg;

    post(w, DELAY, ev_target, find_node(w, node_id), NULL, json_deep_copy(target));
}

static void op_build(const char *node_id, const json_t *build, void *arg)
{
    struct world *w = arg;

    post(w, DELAY, ev_build, find_node(w, node_id), NULL, json_deep_copy(build));
}

static void ev_kill(struct world *w, struct event *e)
{
    rs_agent_kill_deployment(e->node->agent, rs_json_str(e->json, "app", ""), e->id, "killed",
                             w->now);
}

static void op_core(const char *node_id, const json_t *down, void *arg)
{
    struct world *w = arg;
    const char *kill = rs_json_str(down, "kill", NULL);

    if (kill) {
        post(w, DELAY, ev_kill, find_node(w, node_id), kill, json_deep_copy(down));
    } else if (json_object_get(down, "to")) {
        json_decref(w->answer);
        w->answer = json_deep_copy(json_object_get(down, "msg"));
    } else {
        w->orders++;
    }
}

const json_t *world_ask(struct world *w, unsigned node, const char *who, const char *text)
{
    rs_auto(rs_json_decrefp) json_t *msg = json_loads(text, 0, NULL);
    rs_auto(rs_json_decrefp) json_t *up =
        json_pack("{s:s, s:i, s:O?}", "from", who, "stream", 1, "msg", msg);

    ck_assert_msg(msg != NULL, "not JSON: %s", text);
    rs_controller_core(w->controller, w->nodes[node].id, up, w->now);
    ck_assert_ptr_nonnull(w->answer);
    return w->answer;
}

void world_gone(struct world *w, unsigned node, const char *who)
{
    rs_auto(rs_json_decrefp) json_t *up = json_pack("{s:s}", "gone", who);

    rs_controller_core(w->controller, w->nodes[node].id, up, w->now);
}

bool world_waits(struct world *w, const char *deployment, bool waits)
{
    for (unsigned i = 0; i < NODES; i++) {
        const char *id = NULL;

        for (size_t k = 0; k < rs_map_slots(&w->nodes[i].procs); k++) {
            const struct proc *p = rs_map_at(&w->nodes[i].procs, k, &id);

            if (!p || !p->admitted || p->waits == waits || strcmp(p->deployment, deployment) != 0)
                continue;
            proc_of(&w->nodes[i], id)->waits = waits;
            rs_agent_waiting(w->nodes[i].agent, id, waits, w->now);
            return true;
        }
    }
    return false;
}

static void ev_decision(struct world *w, struct event *e)
{
    rs_controller_decision(w->controller, e->node->id, (uint64_t)e->number, e->json, w->now);
}

static void op_policy(const char *node_id, uint64_t question, const json_t *msg, void *arg)
{
    struct world *w = arg;
    json_t *answers = json_object(), *answer, *context;
    const char *name;

    w->policy.asked++;
    snprintf(w->policy.node, sizeof(w->policy.node), "%s", node_id);
    json_object_foreach (json_object_get(msg, "deployments"), name, context) {
        ck_assert_int_ge(rs_json_int(context, "target_num_replicas", -1), 0);
        ck_assert(json_is_array(json_object_get(context, "running_replicas")));
        json_object_set_new(answers, name,
                            w->policy.error ? json_pack("{s:s}", "error", w->policy.error)
                                            : json_pack("{s:f}", "replicas", w->policy.wants));
    }
    answer =
        w->policy.lost
            ? json_pack("{s:s, s:s}", "app", rs_json_str(msg, "app", ""), "lost", w->policy.lost)
            : json_pack("{s:s, s:O}", "app", rs_json_str(msg, "app", ""), "deployments", answers);
    json_decref(answers);
    if (w->policy.wants < 0 && !w->policy.lost)
        json_decref(answer);
    else
        post(w, w->policy.delay + DELAY, ev_decision, find_node(w, node_id), NULL, answer)->number =
            w->policy.lost ? 0 : (int)question;
}

static void op_event(const struct rs_controller_event *e, void *arg)
{
    struct world *w = arg;
    size_t len = strlen(w->log), told = strlen(w->canary);

    if (e->kind == RS_EVENT_PLAN && w->changes)
        json_array_append_new(w->changes,
                              json_pack("{s:s?, s:s?, s:s, s:O?}", "app", e->app, "deployment",
                                        e->deployment, "status", e->status, "data", e->data));
    if (e->kind == RS_EVENT_APP || e->kind == RS_EVENT_DEPLOYMENT)
        snprintf(w->log + len, sizeof(w->log) - len, "%s%s%s=%s\n", e->app,
                 e->deployment ? "#" : "", e->deployment ? e->deployment : "", e->status);
    else if (e->kind == RS_EVENT_CANARY)
        snprintf(w->canary + told, sizeof(w->canary) - told, "%s %s %s\n", e->status,
                 e->before ? e->before : "-", e->after ? e->after : "-");
    else if (e->kind == RS_EVENT_SCALE)
        snprintf(w->log + len, sizeof(w->log) - len, "%s\n", e->text);
    else if (e->kind == RS_EVENT_HEALTH || e->kind == RS_EVENT_REPLACE)
        snprintf(w->log + len, sizeof(w->log) - len, "%s#%s %s\n", e->app, e->deployment,
                 e->status);
}

/* --- the agents' ops --- */

static char *env_text(const char *const *env, const json_t *ready)
{
    struct rs_buf b = {0};
    rs_auto(rs_freep) char *text = ready ? rs_json_dump(ready) : NULL;

    for (const char *const *e = env; *e; e++)
        rs_buf_printf(&b, "%s ", *e);
    rs_buf_puts(&b, text ? text : "");
    return rs_buf_steal(&b);
}

static void exit_later(struct node *n, const char *id, int status, int64_t delay)
{
    post(n->world, delay, ev_exit, n, id, NULL)->number = status;
}

static int op_env_start(const struct rs_agent_env *e, pid_t *pid, void *arg, struct rs_error *err)
{
    struct node *n = arg;
    struct world *w = n->world;
    bool bad = w->env_bad == 0 || w->env_builds < w->env_bad;
    rs_auto(rs_freep) char *ask = rs_json_dump(e->ask);

    if (e->python && strcmp(e->python, "/no/python") == 0)
        return rs_error_set(err, RS_NOT_FOUND, "cannot execute '/no/python'");
    w->env_builds++;
    snprintf(w->env_asked, sizeof(w->env_asked), "%s", ask);
    *pid = w->next_pid++;
    proc_add(n, e->key, "env", *pid);
    proc_of(n, e->key)->env = env_text(e->env, NULL);
    post(w, DELAY, ev_env, n, e->key, json_pack("{s:s}", "text", "installing torch"));
    if (bad && w->env == ENV_HANGS)
        return 0;
    if (bad && w->env == ENV_DIES) {
        exit_later(n, e->key, SIGKILL, 50 * DELAY);
        return 0;
    }
    if (bad && w->env != ENV_OK)
        post(w, 50 * DELAY, ev_env, n, e->key,
             json_pack("{s:s, s:s, s:s, s:b}", "phase", "environment", "error", "pip failed",
                       "traceback", "pip failed\n  ERROR: no torch", "retry",
                       (int)(w->env == ENV_NETWORK)))
            ->number = 2;
    else
        post(w, 50 * DELAY, ev_env, n, e->key,
             json_pack("{s:[s], s:s}", "python", "/envs/1/bin/python", "cwd", "/envs/code"))
            ->number = 1;
    exit_later(n, e->key, 0, 60 * DELAY);
    return 0;
}

static const char *op_getenv(const char *name, void *arg)
{
    return strcmp(name, "HOME") == 0 ? "/home/u" : NULL;
}

static int op_zygote_start(const struct rs_agent_zygote *z, pid_t *pid, void *arg,
                           struct rs_error *err)
{
    struct node *n = arg;
    struct world *w = n->world;

    if (z->python && strcmp(z->python, "/no/python") == 0)
        return rs_error_set(err, RS_NOT_FOUND, "cannot execute '/no/python'");
    w->zygotes++;
    *pid = w->next_pid++;
    proc_add(n, z->key, "zygote", *pid);
    proc_of(n, z->key)->env = env_text(z->env, z->ready);
    post(w, 5 * DELAY, ev_zygote_hello, n, z->key,
         json_pack("{s:s, s:i}", "executable", "/usr/bin/python3", "pid", (int)*pid));
    return 0;
}

static void op_zygote_build(const char *key, const json_t *build, void *arg)
{
    struct node *n = arg;
    struct world *w = n->world;
    const char *path = rs_json_str(build, "import_path", "");

    if (w->hangs && strcmp(path, w->hangs) == 0)
        return;
    if (w->broken && strcmp(path, w->broken) == 0)
        post(w, 20 * DELAY, ev_zygote_failed, n, key,
             json_pack("{s:s, s:s, s:s, s:s}", "phase", "import", "kind", "ZeroDivisionError",
                       "error", "division by zero", "traceback",
                       "Traceback (most recent call last):\nZeroDivisionError: division by zero"));
    else
        post(w, 20 * DELAY, ev_zygote_graph, n, key, json_loads(w->graph, 0, NULL));
}

static void op_zygote_stop(const char *key, void *arg)
{
    exit_later(arg, key, 0, DELAY);
}

static void heard_later(struct node *n, const char *id, enum rs_agent_heard what, int64_t delay,
                        json_t *json)
{
    post(n->world, delay, ev_heard, n, id, json)->number = (int)what;
}

static int op_fork(const struct rs_agent_start *s, void *arg, struct rs_error *err)
{
    struct node *n = arg;
    struct world *w = n->world;
    pid_t pid = w->next_pid++;

    ck_assert_ptr_nonnull(proc_of(n, s->zygote));
    proc_add(n, s->replica_id, s->deployment, pid);
    proc_of(n, s->replica_id)->env = env_text(s->env, s->ready);
    post(w, DELAY, ev_forked, n, s->zygote,
         json_pack("{s:s, s:i}", "replica_id", s->replica_id, "pid", (int)pid));
    heard_later(n, s->replica_id, RS_HEARD_HELLO, 2 * DELAY, json_object());
    return 0;
}

static int op_spawn(const struct rs_agent_start *s, pid_t *pid, void *arg, struct rs_error *err)
{
    struct node *n = arg;

    if (s->conf->command && strcmp(s->conf->command[0], "/no/such") == 0)
        return rs_error_set(err, RS_NOT_FOUND, "cannot execute '/no/such'");
    *pid = n->world->next_pid++;
    proc_add(n, s->replica_id, s->deployment, *pid);
    proc_of(n, s->replica_id)->env = env_text(s->env, s->ready);
    if (s->conf->kind != RS_KIND_HTTP)
        heard_later(n, s->replica_id, RS_HEARD_HELLO, DELAY, json_object());
    return 0;
}

static void op_kill(const char *id, int signal, void *arg)
{
    struct node *n = arg;
    const struct proc *p = proc_of(n, id);

    if (p && (signal == SIGKILL || !world_behaviour(n->world, p->deployment)->stubborn))
        exit_later(n, id, signal, DELAY);
}

static bool is_version(const struct proc *p, const char *version)
{
    return version && strcmp(p->version, version) == 0;
}

static void told_init(struct node *n, const char *id, struct behaviour *b, const json_t *config)
{
    struct proc *p = proc_of(n, id);

    b->inits++;
    snprintf(p->version, sizeof(p->version), "%s", rs_json_str(config, "version", ""));
    if (is_version(p, b->hangs))
        return;
    if (is_version(p, b->dies))
        exit_later(n, id, SIGSEGV, b->start + 50 * DELAY);
    if (b->inits > b->fail_starts && !is_version(p, b->broken)) {
        heard_later(n, id, RS_HEARD_READY, b->start + DELAY, json_object());
        return;
    }
    if (!b->exit_silently)
        heard_later(n, id, RS_HEARD_FAILED, b->start + DELAY,
                    json_pack("{s:s, s:s, s:s}", "phase", "constructor", "error", "ValueError: no",
                              "traceback", "Traceback (most recent call last):\nValueError: no"));
    exit_later(n, id, 3 << 8, b->start + 2 * DELAY);
}

static void op_tell(const char *id, enum rs_agent_tell what, uint64_t stream, const json_t *msg,
                    void *arg)
{
    struct node *n = arg;
    const struct proc *p = proc_of(n, id);

    if (!p)
        return;
    struct behaviour *b = world_behaviour(n->world, p->deployment);

    if (what == RS_TELL_INIT) {
        ck_assert_str_eq(rs_json_str(msg, "replica_id", ""), id);
        ck_assert(json_is_object(json_object_get(msg, "config")));
        told_init(n, id, b, json_object_get(msg, "config"));
    } else if (what == RS_TELL_PING && !b->deaf) {
        heard_later(n, id, RS_HEARD_PONG, DELAY,
                    json_pack("{s:b, s:s, s:I}", "ok", !b->sick, "error", "feeling bad", "stream",
                              (json_int_t)stream));
    } else if (what == RS_TELL_RECONFIGURE) {
        b->reconfigures++;
        if (b->bad_config)
            heard_later(n, id, RS_HEARD_FAILED, DELAY,
                        json_pack("{s:s, s:s}", "error", "bad config", "traceback", ""));
        else
            heard_later(n, id, RS_HEARD_READY, DELAY + b->tune, json_object());
    } else if (what == RS_TELL_STOP && !b->stubborn) {
        exit_later(n, id, 0, DELAY);
    }
}

static void op_admit(const char *id, void *arg)
{
    struct node *n = arg;

    ck_assert(!proc_of(n, id)->admitted);
    proc_of(n, id)->admitted = true;
}

static void op_retire(const char *id, void *arg)
{
    struct node *n = arg;
    struct proc *p = proc_of(n, id);

    ck_assert_ptr_nonnull(p);
    p->admitted = false;
    note_up(n->world);
    if (world_behaviour(n->world, p->deployment)->busy >= 0)
        post(n->world, world_behaviour(n->world, p->deployment)->busy + DELAY, ev_idle, n, id,
             NULL);
}

static void op_detach(const char *id, const char *why, void *arg)
{
}

static void append(char **text, char *more)
{
    char *all = rs_asprintf("%s%s", *text ? *text : "", more);

    free(*text);
    free(more);
    *text = all;
}

static void op_weigh(const char *id, unsigned percent, void *arg)
{
    struct proc *p = proc_of(arg, id);

    if (p)
        p->spare = 100 - percent;
}

static bool op_look(pid_t pid, struct rs_agent_look *ret, void *arg)
{
    struct node *n = arg;

    for (size_t i = 0; i < rs_map_slots(&n->procs); i++) {
        const struct proc *p = rs_map_at(&n->procs, i, NULL);

        if (!p || p->pid != pid)
            continue;
        *ret = (struct rs_agent_look){.state = p->stopped ? 'T' : 'S', .memory = p->memory};
        return true;
    }
    return false;
}

static bool op_oom(struct rs_agent_oom *ret, void *arg)
{
    struct node *n = arg;

    if (!n->world->oom)
        return false;
    *ret = (struct rs_agent_oom){.evidence = "the kernel said so", .certain = true};
    ret->kills = n->world->oom;
    n->world->oom = 0;
    return true;
}

static void op_remote(const char *app, const char *deployment, const char *version,
                      const char *node_id, const char *address, unsigned slots, void *arg)
{
    struct node *n = arg;

    append(&n->remotes, rs_asprintf("%s@%s=%u\n", deployment, node_id, slots));
}

/* Another version is counted from nothing. */
static void note_split(struct node *n, const struct rs_agent_routes *r)
{
    const struct rs_agent_route_deployment *d = NULL;

    for (size_t i = 0; i < r->n_deployments; i++)
        if (r->deployments[i].fresh)
            d = &r->deployments[i];
    if (!d || strcmp(n->fresh, d->fresh) != 0)
        n->tally[0] = n->tally[1] = (struct rs_tally){0};
    snprintf(n->split, sizeof(n->split), "%s", d ? d->name : "");
    snprintf(n->fresh, sizeof(n->fresh), "%s", d ? d->fresh : "");
    n->share = d ? d->fresh_share : -1;
}

static void op_routes(const struct rs_agent_routes *r, void *arg)
{
    struct node *n = arg;

    free(n->routes);
    n->routes = rs_strdup("");
    for (size_t i = 0; i < r->n_apps; i++)
        append(&n->routes, rs_asprintf("%s->%s ", r->apps[i].prefix ? r->apps[i].prefix : "-",
                                       r->apps[i].ingress));
    note_split(n, r);
    for (size_t i = 0; i < r->n_deployments; i++)
        append(&n->routes,
               rs_asprintf("%s%s ", r->deployments[i].name, r->deployments[i].failed ? "!" : ""));
    if (n->world->on_routes)
        n->world->on_routes(n->world, r);
}

static void op_probe(const char *id, const char *path, int64_t timeout, void *arg)
{
    struct node *n = arg;
    const struct proc *p = proc_of(n, id);

    if (p)
        post(n->world, DELAY, ev_probed, n, id, NULL)->number =
            !world_behaviour(n->world, p->deployment)->deaf;
}

static void op_built(bool ok, const json_t *answer, void *arg)
{
    struct node *n = arg;

    post(n->world, DELAY, ev_built, n, NULL, json_deep_copy(answer))->number = ok;
}

static void op_changed(void *arg)
{
    struct node *n = arg;

    if (!n->report_due)
        post(n->world, DELAY, ev_report, n, NULL, NULL);
    n->report_due = true;
}

static uint64_t op_random(void *arg)
{
    struct node *n = arg;

    n->world->random = n->world->random * UINT64_C(6364136223846793005) + 1442695040888963407U;
    return n->world->random >> 11;
}

static const struct rs_agent_ops agent_ops = {
    .env_start = op_env_start,
    .getenv = op_getenv,
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
    .weigh = op_weigh,
    .look = op_look,
    .oom = op_oom,
    .probe = op_probe,
    .built = op_built,
    .changed = op_changed,
    .random = op_random,
};

static const struct rs_controller_ops controller_ops = {.target = op_target,
                                                        .build = op_build,
                                                        .core = op_core,
                                                        .policy = op_policy,
                                                        .event = op_event};

/* --- the world --- */

const char *world_env(const struct world *w, const char *deployment)
{
    for (unsigned i = 0; i < NODES; i++)
        for (size_t k = 0; k < rs_map_slots(&w->nodes[i].procs); k++) {
            const struct proc *p = rs_map_at(&w->nodes[i].procs, k, NULL);

            if (p && strcmp(p->deployment, deployment) == 0)
                return p->env;
        }
    return "";
}

void world_refused(struct world *w, json_t *refused)
{
    json_decref(w->refused);
    w->refused = json_incref(refused);
    op_changed(&w->nodes[0]);
}

void world_health(struct world *w, const char *deployment, json_t *health)
{
    if (!w->health)
        w->health = json_object();
    json_object_set(w->health, deployment, health);
    for (unsigned i = 0; i < NODES; i++)
        if (w->nodes[i].agent)
            op_changed(&w->nodes[i]);
}

void world_dropped(struct world *w, const char *deployment, unsigned drop, unsigned n)
{
    world_behaviour(w, deployment)->dropped[drop] += n;
    op_changed(&w->nodes[0]);
}

void world_load(struct world *w, const char *deployment, unsigned n)
{
    struct behaviour *b = world_behaviour(w, deployment);

    note_area(w, b);
    b->load = n;
    for (unsigned i = 0; i < NODES; i++)
        if (w->nodes[i].agent)
            op_changed(&w->nodes[i]);
}

void world_open(struct world *w, struct behaviour *behaviours, size_t n)
{
    struct rs_controller_conf conf = {.wall_offset_s = 1e9, .node_id = "n0"};
    struct rs_error err = {0};

    *w = (struct world){
        .now = RS_SEC, .random = 42, .next_pid = 100, .behaviours = behaviours, .n_behaviours = n};
    w->graph = "{\"ingress\": \"A\", \"start\": \"fork\", \"deployments\": "
               "[{\"name\": \"A\", \"options\": {}, \"calls\": []}]}";
    for (unsigned i = 0; i < NODES; i++) {
        w->nodes[i].world = w;
        snprintf(w->nodes[i].id, sizeof(w->nodes[i].id), "n%u", i);
    }
    ck_assert_int_eq(rs_controller_new(&w->controller, &conf, &controller_ops, w, &err), 0);
}

static void node_clear(struct world *w, struct node *n)
{
    size_t kept = 0;

    for (size_t i = 0; i < w->n_events; i++) {
        if (w->events[i].node == n)
            json_decref(w->events[i].json);
        else
            w->events[kept++] = w->events[i];
    }
    w->n_events = kept;
    for (size_t i = 0; i < rs_map_slots(&n->procs); i++) {
        const char *id = NULL;

        if (rs_map_at(&n->procs, i, &id))
            proc_remove(n, id);
    }
    rs_map_fini(&n->procs);
    n->procs = (struct rs_map){0};
    rs_agent_free(n->agent);
    n->agent = NULL;
    n->report_due = false;
    free(n->routes);
    free(n->remotes);
    n->routes = n->remotes = NULL;
}

void world_close(struct world *w)
{
    json_decref(w->refused);
    json_decref(w->health);
    json_decref(w->answer);
    w->answer = NULL;
    for (unsigned i = 0; i < NODES; i++)
        node_clear(w, &w->nodes[i]);
    rs_controller_free(w->controller);
    free(w->events);
}

void world_join(struct world *w, unsigned node, const char *resources)
{
    struct node *n = &w->nodes[node];
    rs_auto(rs_json_decrefp) json_t *total = json_loads(resources, 0, NULL);
    rs_auto(rs_json_decrefp) json_t *labels = w->labels ? json_loads(w->labels, 0, NULL) : NULL;
    struct rs_agent_conf conf = {
        .node_id = n->id, .resources = total, .wall_offset_s = 1e9, .log_dir = "/logs"};
    char address[32];
    struct rs_error err = {0};

    snprintf(address, sizeof(address), "10.0.0.%u:7000", node);
    struct rs_controller_node join = {.node_id = n->id,
                                      .name = n->id,
                                      .version = "1",
                                      .address = address,
                                      .resources = total,
                                      .labels = labels};

    if (!n->agent)
        ck_assert_int_eq(rs_agent_new(&n->agent, &conf, &agent_ops, n, &err), 0);
    ck_assert_int_eq(rs_controller_node_joined(w->controller, &join, w->now, &err), 0);
    n->report_due = false;
    op_changed(n); /* a node reports when it has joined */
}

void world_served(struct world *w, unsigned node, bool fresh, unsigned n, unsigned failed,
                  int64_t took)
{
    struct rs_tally *t = &w->nodes[node].tally[fresh];

    t->requests += n;
    t->errors += failed;
    t->bucket[rs_tally_bucket(took)] += n;
    op_changed(&w->nodes[node]);
}

/* What head and node had sent to each other. */
static void break_connection(struct world *w, struct node *n)
{
    size_t kept = 0;

    for (size_t i = 0; i < w->n_events; i++) {
        struct event *e = &w->events[i];

        if (e->node == n &&
            (e->fn == ev_target || e->fn == ev_build || e->fn == ev_built || e->fn == ev_report))
            json_decref(e->json);
        else
            w->events[kept++] = *e;
    }
    w->n_events = kept;
    n->report_due = true; /* nobody to report to, until it joins */
}

void world_new_head(struct world *w)
{
    struct rs_controller_conf conf = {.wall_offset_s = 1e9, .node_id = "n0"};

    for (unsigned i = 0; i < NODES; i++)
        break_connection(w, &w->nodes[i]);
    rs_controller_free(w->controller);
    ck_assert_int_eq(rs_controller_new(&w->controller, &conf, &controller_ops, w, NULL), 0);
}

void world_leave(struct world *w, unsigned node)
{
    node_clear(w, &w->nodes[node]);
    rs_controller_node_left(w->controller, w->nodes[node].id, w->now);
}

void world_cut(struct world *w, unsigned node)
{
    break_connection(w, &w->nodes[node]);
    rs_controller_node_left(w->controller, w->nodes[node].id, w->now);
}

struct rs_config *world_config(const char *yaml)
{
    struct rs_config *config = NULL;
    struct rs_diags diags = {0};
    struct rs_buf text = {0};
    int r = rs_config_parse(&config, yaml, strlen(yaml), "app.yaml", &diags);

    rs_diags_print(&text, &diags);
    ck_assert_msg(r == 0, "%s", rs_buf_text(&text));
    rs_buf_fini(&text);
    rs_diags_fini(&diags);
    return config;
}

void world_apply(struct world *w, const char *yaml)
{
    ck_assert_int_eq(rs_controller_apply(w->controller, world_config(yaml), w->now, NULL), 0);
}

int world_put(struct world *w, const char *yaml, struct rs_error *err)
{
    return rs_controller_put(w->controller, world_config(yaml), w->now, err);
}

static int64_t next_deadline(const struct world *w)
{
    int64_t at = rs_controller_deadline(w->controller);

    for (unsigned i = 0; i < NODES; i++)
        if (w->nodes[i].agent && rs_agent_deadline(w->nodes[i].agent) < at)
            at = rs_agent_deadline(w->nodes[i].agent);
    return at;
}

static void tick_all(struct world *w)
{
    if (rs_controller_deadline(w->controller) <= w->now)
        rs_controller_tick(w->controller, w->now);
    for (unsigned i = 0; i < NODES; i++)
        if (w->nodes[i].agent && rs_agent_deadline(w->nodes[i].agent) <= w->now)
            rs_agent_tick(w->nodes[i].agent, w->now);
}

void world_run(struct world *w, int64_t ns)
{
    int64_t end = w->now + ns;
    unsigned idle = 0;

    while (w->now < end) {
        int64_t due = next_deadline(w);
        int64_t stop = due < end ? due : end;
        struct event e;

        if (take_next(w, stop, &e)) {
            w->now = e.at > w->now ? e.at : w->now;
            e.fn(w, &e);
            json_decref(e.json);
            idle = 0;
        } else if (due < end) {
            idle = due > w->now ? 0 : idle + 1;
            ck_assert_msg(idle < 100, "a deadline that does not move: the loop would spin");
            w->now = due > w->now ? due : w->now;
            tick_all(w);
        } else {
            w->now = end;
        }
        note_up(w);
    }
}

struct proc *world_proc(struct world *w, const char *replica_id)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct proc *p = proc_of(&w->nodes[i], replica_id);

        if (p)
            return p;
    }
    return NULL;
}

bool world_kill_one(struct world *w, const char *deployment)
{
    for (unsigned i = 0; i < NODES; i++)
        for (size_t k = 0; k < rs_map_slots(&w->nodes[i].procs); k++) {
            const char *id = NULL;
            const struct proc *p = rs_map_at(&w->nodes[i].procs, k, &id);

            if (!p || !p->admitted || strcmp(p->deployment, deployment) != 0)
                continue;
            post(w, 0, ev_gone, &w->nodes[i], id, NULL);
            exit_later(&w->nodes[i], id, SIGKILL, 0);
            return true;
        }
    return false;
}

unsigned world_admitted_of(const struct world *w, const char *deployment, const char *version)
{
    unsigned count = 0;

    for (unsigned i = 0; i < NODES; i++)
        for (size_t k = 0; k < rs_map_slots(&w->nodes[i].procs); k++) {
            const struct proc *p = rs_map_at(&w->nodes[i].procs, k, NULL);

            count += p && p->admitted && strcmp(p->deployment, deployment) == 0 &&
                     is_version(p, version);
        }
    return count;
}

unsigned world_admitted(const struct world *w, const char *deployment)
{
    unsigned count = 0;

    for (unsigned i = 0; i < NODES; i++)
        for (size_t k = 0; k < rs_map_slots(&w->nodes[i].procs); k++) {
            const struct proc *p = rs_map_at(&w->nodes[i].procs, k, NULL);

            count += p && p->admitted && strcmp(p->deployment, deployment) == 0;
        }
    return count;
}

unsigned world_processes(const struct world *w)
{
    size_t count = 0;

    for (unsigned i = 0; i < NODES; i++)
        count += rs_map_count(&w->nodes[i].procs);
    return (unsigned)count;
}

/* --- the details --- */

static json_t *look(struct world *w, const char *path)
{
    static json_t *document; /* the answer is borrowed from it */
    rs_auto(rs_freep) char *copy = rs_strdup(path);
    json_t *at;

    json_decref(document);
    document = rs_controller_details(w->controller, true, w->now);
    ck_assert_ptr_nonnull(document);
    at = document;
    for (char *save = NULL, *key = strtok_r(copy, ".", &save); key && at;
         key = strtok_r(NULL, ".", &save))
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    return at;
}

const char *world_text(struct world *w, const char *path)
{
    const json_t *j = look(w, path);

    return json_is_string(j) ? json_string_value(j) : json_is_null(j) ? "null" : "(none)";
}

const json_t *world_json(struct world *w, const char *path)
{
    return look(w, path);
}

json_int_t world_int(struct world *w, const char *path)
{
    const json_t *j = look(w, path);

    return json_is_integer(j) ? json_integer_value(j) : -1;
}

size_t world_size(struct world *w, const char *path)
{
    const json_t *j = look(w, path);

    return json_is_array(j) ? json_array_size(j) : json_object_size(j);
}
