/* One replica, from the order to start it to its end. */
#include "sched/agent-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "sched/supervise/spawn.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define TERM_WAIT RS_SEC              /* from SIGTERM to SIGKILL */
#define KILL_WAIT (5 * RS_SEC)        /* until SIGKILL is sent once more */
#define FAILED_EXIT_WAIT (2 * RS_SEC) /* a replica that said FAILED exits by itself */
#define PROBE_FIRST (10 * RS_MS)
#define PROBE_GAP_MAX (250 * RS_MS)
#define PROBE_TIMEOUT (2 * RS_SEC)

bool rs_ag_on(struct rs_ag_replica *r, enum rs_replica_event event, int64_t now)
{
    enum rs_replica_state was = r->state;
    enum rs_replica_move move = rs_replica_step(&r->state, event);

    if (move == RS_REPLICA_DEFECT)
        rs_log_error("the state machine of a replica knows no such event",
                     "replica=%s state=%s event=%s", r->id, rs_replica_state_name(was),
                     rs_replica_event_name(event));
    if (move != RS_REPLICA_MOVES)
        return false;
    r->deadline = 0;
    if (r->state == RS_REPLICA_STARTING)
        r->start_at = now;
    if (r->state == RS_REPLICA_RUNNING && !r->ready_at)
        r->ready_at = now;
    if (r->state == RS_REPLICA_DRAINING || r->state == RS_REPLICA_STOPPING) {
        if (!r->stop_by)
            r->stop_by = now + r->grace;
        r->deadline = r->stop_by;
        r->check_at = r->asked_at = 0;
    }
    rs_ag_changed(r->deployment->agent);
    return true;
}

bool rs_ag_live(const struct rs_ag_replica *r)
{
    return r->state <= RS_REPLICA_UPDATING;
}

bool rs_ag_is_up(const struct rs_ag_replica *r)
{
    return r->state == RS_REPLICA_RUNNING || r->state == RS_REPLICA_UPDATING;
}

/* --- failures and deaths --- */

void rs_ag_count_failure(struct rs_ag_deployment *d, const char *error, int64_t now)
{
    d->failures_total++;
    if (!d->ever_ran)
        d->start_failures++;
    rs_ag_set(&d->last_error, rs_message_bounded(error));
    if (now >= d->retry_at) /* else it belongs to the round that the pause is for */
        d->retry_at = rs_restarts_failed(&d->restarts, now);
    rs_ag_changed(d->agent);
}

static bool current(const struct rs_ag_replica *r)
{
    return !r->deployment->gone && strcmp(r->version, r->deployment->version) == 0;
}

void rs_ag_start_failed(struct rs_ag_replica *r, const char *error, int64_t now)
{
    if (r->counted)
        return;
    r->counted = true;
    rs_ag_set(&r->message, rs_message_bounded(error));
    if (current(r))
        rs_ag_count_failure(r->deployment, error, now);
}

/* It ran, and now it is dead or sick. */
void rs_ag_count_death(struct rs_ag_replica *r, const char *why, int64_t now)
{
    struct rs_ag_deployment *d = r->deployment;

    if (r->counted)
        return;
    r->counted = true;
    rs_ag_set(&r->message, rs_message_bounded(why));
    if (!current(r))
        return;
    d->deaths++;
    rs_ag_set(&d->last_error, rs_asprintf("replica %s: %s", r->id, why));
    if (!rs_ag_is_core(d)) { /* how often it may die is bounded otherwise */
        int64_t at = rs_restarts_ended(&d->restarts, now - r->ready_at, d->replicas, now);

        if (at > d->retry_at)
            d->retry_at = at;
    }
    rs_ag_changed(d->agent);
}

/* --- making and ending --- */

void rs_ag_replica_adjust(struct rs_ag_replica *r)
{
    const struct rs_deployment_conf *c = r->deployment->conf;

    r->period = c->health_check_period;
    r->timeout = c->health_check_timeout;
    r->grace = c->graceful_shutdown_timeout;
}

static char *new_id(struct rs_agent *a)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    char id[9] = "";

    do {
        uint64_t bits = a->ops.random(a->arg);

        for (int i = 0; i < 8; i++, bits /= 36)
            id[i] = letters[bits % 36];
    } while (rs_map_get(&a->replicas, id));
    return rs_strdup(id);
}

struct rs_ag_replica *rs_ag_replica_new(struct rs_ag_deployment *d, const char *id, unsigned rank,
                                        struct rs_reservation *reservation)
{
    struct rs_ag_replica *r = rs_alloc(sizeof(*r));

    r->deployment = d;
    r->id = id ? rs_strdup(id) : new_id(d->agent);
    r->version = rs_strdup(d->version);
    r->kind = d->conf->kind;
    r->rank = rank;
    r->reservation = reservation;
    r->ready_path = rs_strdup(d->conf->ready_path);
    rs_ag_replica_adjust(r);
    rs_list_init(&r->link);
    rs_list_push_back(&d->list, &r->link);
    rs_map_put(&d->agent->replicas, r->id, r);
    rs_ag_changed(d->agent);
    return r;
}

void rs_ag_replica_free(struct rs_ag_replica *r)
{
    if (!r)
        return;
    rs_list_remove(&r->link);
    rs_map_remove(&r->deployment->agent->replicas, r->id);
    rs_ledger_release(r->deployment->agent->ledger, r->reservation);
    json_decref(r->env);
    rs_ag_health_free(r);
    free(r->id);
    free(r->version);
    free(r->zygote);
    free(r->environment);
    free(r->app_dir);
    free(r->message);
    free(r->ready_path);
    free(r->last_probe);
    free(r);
}

static void stopped(struct rs_ag_replica *r, enum rs_replica_event event, int64_t now)
{
    struct rs_agent *a = r->deployment->agent;

    if (r->attached)
        a->ops.detach(r->id, r->message, a->arg);
    r->attached = false;
    r->pid = 0;
    (void)rs_ag_on(r, event, now);
}

void rs_ag_lost(struct rs_ag_replica *r, int64_t now)
{
    if (r->state != RS_REPLICA_STOPPED)
        stopped(r, RS_REPLICA_ON_LOST, now);
}

static void send_signal(struct rs_ag_replica *r, int signal, int64_t now)
{
    struct rs_agent *a = r->deployment->agent;

    a->ops.kill(r->id, signal, a->arg);
    r->kill_stage = signal == SIGKILL ? 2 : 1;
    r->deadline = now + (signal == SIGKILL ? KILL_WAIT : TERM_WAIT);
}

void rs_ag_kill(struct rs_ag_replica *r, const char *why, int64_t now)
{
    if (r->state == RS_REPLICA_STOPPED)
        return;
    if (!r->message && why)
        rs_ag_set(&r->message, rs_message_bounded(why));
    if (r->state == RS_REPLICA_PENDING) {
        stopped(r, RS_REPLICA_ON_KILL, now);
        return;
    }
    (void)rs_ag_on(r, RS_REPLICA_ON_KILL, now);
    send_signal(r, SIGKILL, now);
}

/* Its last request ended, or it has none: ask it to go. */
static void ask_to_stop(struct rs_ag_replica *r, int64_t now)
{
    struct rs_agent *a = r->deployment->agent;

    (void)rs_ag_on(r, RS_REPLICA_ON_IDLE, now);
    if (r->kind == RS_KIND_HTTP) {
        a->ops.kill(r->id, SIGTERM, a->arg);
        r->kill_stage = 1;
        return;
    }
    /* The node knows that nothing is under way: there is no late request to wait for. */
    rs_auto(rs_json_decrefp) json_t *msg = json_pack("{s:f}", "wait_loop_s", 0.0);

    a->ops.tell(r->id, RS_TELL_STOP, 0, msg, a->arg);
}

void rs_ag_retire(struct rs_ag_replica *r, const char *why, int64_t now)
{
    struct rs_agent *a = r->deployment->agent;

    if (!rs_ag_live(r))
        return;
    rs_ag_set(&r->message, rs_strdup(why));
    if (r->state == RS_REPLICA_PENDING || r->state == RS_REPLICA_STARTING) {
        rs_ag_kill(r, why, now);
        return;
    }
    (void)rs_ag_on(r, RS_REPLICA_ON_RETIRE, now);
    a->ops.retire(r->id, a->arg);
}

/* --- launch --- */

static void env_from(json_t *env, const json_t *vars)
{
    const char *key;
    json_t *v;

    json_object_foreach ((json_t *)(uintptr_t)vars, key, v)
        if (json_is_string(v))
            json_object_set(env, key, v);
}

/* `ready`: of the environment that was built for it, or NULL. */
static json_t *environment(const struct rs_ag_replica *r, const json_t *ready)
{
    const struct rs_ag_deployment *d = r->deployment;
    const struct rs_reservation *res = r->reservation;
    json_t *env = rs_ag_env_vars(d->agent, d->conf->runtime_env);
    int64_t cpus = d->want.cpu / RS_ONE;

    env_from(env, json_object_get(ready, "env"));
    env_from(env, d->conf->env);
    if (!d->agent->omp_set && !json_object_get(env, "OMP_NUM_THREADS")) {
        rs_auto(rs_freep) char *n = rs_asprintf("%lld", (long long)(cpus > 1 ? cpus : 1));

        json_object_set_new(env, "OMP_NUM_THREADS", json_string(n));
    }
    if (res && res->device_count > 0) {
        struct rs_buf list = {0};

        for (size_t i = 0; i < res->device_count; i++)
            rs_buf_printf(&list, "%s%d", i ? "," : "", res->devices[i]);
        json_object_set_new(env, "CUDA_VISIBLE_DEVICES", json_string(rs_buf_text(&list)));
        rs_buf_fini(&list);
    }
    json_object_set_new(env, "RSERVE_APP", json_string(d->app));
    json_object_set_new(env, "RSERVE_DEPLOYMENT", json_string(d->name));
    json_object_set_new(env, "RSERVE_REPLICA", json_string(r->id));
    return env;
}

/* Of the environment that it runs in, as ENV_READY told; NULL: none was built. */
static const json_t *ready_of(const struct rs_ag_replica *r)
{
    const struct rs_agent *a = r->deployment->agent;
    const struct rs_ag_zygote *z = r->zygote ? rs_map_get(&a->zygotes, r->zygote) : NULL;
    const struct rs_ag_env *e = rs_ag_env_find(a, z ? z->env : r->environment);

    return e ? e->ready : NULL;
}

static const char *app_dir_of(const struct rs_ag_replica *r)
{
    const struct rs_target_app *app = rs_ag_code(r->deployment);

    if (r->app_dir)
        return r->app_dir;
    return app ? app->app_dir : NULL;
}

static void begin(struct rs_ag_replica *r, pid_t pid, int64_t now)
{
    const struct rs_ag_deployment *d = r->deployment;

    r->attached = true;
    r->pid = r->last_pid = pid;
    r->deployment->started++;
    (void)rs_ag_on(r, RS_REPLICA_ON_LAUNCHED, now);
    if (r->reservation)
        rs_ledger_commit(d->agent->ledger, r->reservation);
    if (r->kind == RS_KIND_HTTP) {
        r->deadline = now + d->conf->ready_timeout;
        r->probe_gap = PROBE_FIRST;
        r->check_at = now + r->probe_gap;
    }
}

void rs_ag_replica_launch(struct rs_ag_replica *r, int64_t now)
{
    struct rs_ag_deployment *d = r->deployment;
    struct rs_agent *a = d->agent;
    const struct rs_target_app *app = rs_ag_code(d);
    struct rs_error err = {0};
    const json_t *ready;
    pid_t pid = 0;
    char **env;
    int rc;

    ready = ready_of(r);
    r->env = environment(r, ready);
    env = rs_ag_env_list(r->env);
    rs_ag_set(&r->app_dir, rs_strdup(rs_json_str(ready, "cwd", NULL)));
    struct rs_agent_start s = {
        .app = d->app,
        .deployment = d->name,
        .version = r->version,
        .replica_id = r->id,
        .conf = d->conf,
        .zygote = r->zygote,
        .python = app ? app->python : NULL,
        .app_dir = app_dir_of(r),
        .ready = ready,
        .env = (const char *const *)env,
    };

    rc = r->zygote ? a->ops.fork(&s, a->arg, &err) : a->ops.spawn(&s, &pid, a->arg, &err);
    rs_ag_env_list_free(env);
    if (rc == 0) {
        begin(r, pid, now);
        return;
    }
    rs_ag_start_failed(r, err.msg, now);
    stopped(r, RS_REPLICA_ON_LOST, now);
}

/* --- what it says --- */

static void send_init(struct rs_ag_replica *r)
{
    struct rs_ag_deployment *d = r->deployment;
    struct rs_agent *a = d->agent;
    const struct rs_target_app *app = rs_ag_code(d);
    const struct rs_target_place *place = rs_ag_place(d, r->id);
    const char *dir = app_dir_of(r);
    rs_auto(rs_json_decrefp) json_t *msg =
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:b}", "app", d->app, "deployment", d->name,
                  "replica_id", r->id, "node_id", a->node_id, "rank", (int)r->rank, "world_size",
                  (int)d->world_size, "ingress", (int)d->ingress);

    json_object_set_new(msg, "route_prefix",
                        app && app->route_prefix ? json_string(app->route_prefix) : json_null());
    json_object_set_new(msg, "import_path",
                        app && app->import_path ? json_string(app->import_path) : json_null());
    json_object_set_new(msg, "app_dir", dir ? json_string(dir) : json_null());
    json_object_set_new(msg, "args", app && app->args ? json_incref(app->args) : json_object());
    json_object_set(msg, "config", d->conf->json);
    json_object_set(msg, "env", r->env);
    json_object_set_new(msg, "version", json_string(r->version));
    if (place) {
        json_object_set_new(msg, "group", json_string(place->group));
        json_object_set(msg, "gang", place->gang);
    }
    if (rs_ag_is_core(d))
        json_object_set(msg, "core", d->core);
    a->ops.tell(r->id, RS_TELL_INIT, 0, msg, a->arg);
    r->hello = true;
    r->stale = false;
}

/* A fork may say HELLO before its zygote says FORKED: nothing runs whose pid is not known. */
void rs_ag_replica_greet(struct rs_ag_replica *r)
{
    if (r->state == RS_REPLICA_STARTING && r->greeted && !r->hello && r->pid)
        send_init(r);
}

static void ready(struct rs_ag_replica *r, int64_t now)
{
    struct rs_ag_deployment *d = r->deployment;
    struct rs_agent *a = d->agent;
    bool first = r->state == RS_REPLICA_STARTING;

    if (!rs_ag_on(r, RS_REPLICA_ON_READY, now))
        return;
    if (current(r)) {
        d->ever_ran = true;
        d->start_failures = 0;
        rs_restarts_ready(&d->restarts);
    }
    r->sick = 0;
    r->asked_at = 0;
    r->check_at = now + r->period;
    if (first)
        a->ops.admit(r->id, a->arg);
    if (r->stale)
        rs_ag_replica_reconfigure(r, now);
}

void rs_ag_replica_reconfigure(struct rs_ag_replica *r, int64_t now)
{
    struct rs_ag_deployment *d = r->deployment;
    struct rs_agent *a = d->agent;
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    json_t *user = NULL;

    if (r->kind == RS_KIND_HTTP)
        return;
    if (r->state != RS_REPLICA_RUNNING) { /* INIT or RECONFIGURE is under way: afterwards */
        r->stale = r->hello;
        return;
    }
    user = json_object_get(d->conf->json, "user_config");
    msg = json_pack("{s:O, s:O, s:i}", "user_config", user ? user : json_null(), "config",
                    d->conf->json, "rank", (int)r->rank);
    (void)rs_ag_on(r, RS_REPLICA_ON_TUNE, now);
    r->stale = false;
    a->ops.tell(r->id, RS_TELL_RECONFIGURE, 0, msg, a->arg);
}

static void failed(struct rs_ag_replica *r, const json_t *msg, int64_t now)
{
    const char *trace = rs_json_str(msg, "traceback", NULL);
    const char *error = rs_json_str(msg, "error", "it failed without a reason");

    if (r->state == RS_REPLICA_UPDATING) {
        rs_ag_start_failed(r, trace && *trace ? trace : error, now);
        rs_ag_retire(r, "reconfigure failed", now);
    } else if (r->state == RS_REPLICA_STARTING) {
        rs_ag_start_failed(r, trace && *trace ? trace : error, now);
        (void)rs_ag_on(r, RS_REPLICA_ON_FAILED, now);
        r->deadline = now + FAILED_EXIT_WAIT;
    }
}

static void unhealthy(struct rs_ag_replica *r, const char *why, int64_t now)
{
    rs_auto(rs_freep) char *text = NULL;
    bool silent = rs_ag_health_failed(r, why, now, &text);

    rs_ag_count_death(r, text, now);
    if (silent)
        rs_ag_kill(r, text, now);
    else
        rs_ag_retire(r, text, now);
}

static void checked(struct rs_ag_replica *r, bool ok, const char *why, int64_t now)
{
    r->asked_at = 0;
    r->check_at = now + r->period;
    if (ok) {
        r->sick = 0;
        return;
    }
    if (!r->sick++)
        r->sick_since = now;
    rs_ag_changed(r->deployment->agent);
    if (r->sick >= RS_AG_UNHEALTHY_AFTER)
        unhealthy(r, why, now);
}

void rs_agent_heard(struct rs_agent *a, const char *replica_id, enum rs_agent_heard what,
                    uint64_t stream, const json_t *msg, int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);

    if (!r)
        return;
    switch (what) {
    case RS_HEARD_HELLO:
        r->greeted = true;
        rs_ag_replica_greet(r);
        break;
    case RS_HEARD_READY:
        ready(r, now);
        break;
    case RS_HEARD_FAILED:
        failed(r, msg, now);
        break;
    case RS_HEARD_PONG:
        if (r->asked_at && stream == r->check_no)
            checked(r, rs_json_bool(msg, "ok", false), rs_json_str(msg, "error", "no reason given"),
                    now);
        rs_ag_health_heard(r, now);
        break;
    }
    rs_ag_reconcile(a, now);
}

void rs_agent_gone(struct rs_agent *a, const char *replica_id, const char *why, int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);

    if (!r || r->state == RS_REPLICA_STOPPED || r->state == RS_REPLICA_STOPPING)
        return;
    if (r->state == RS_REPLICA_RUNNING || r->state == RS_REPLICA_UPDATING) {
        if (!rs_ag_is_core(r->deployment)) /* of an actor the end is counted once it is known how */
            rs_ag_count_death(r, why && *why ? why : "it closed its connection", now);
        r->cut = true;
    }
    if (r->state == RS_REPLICA_STARTING) {
        /* The end of the process tells more: its status and what it printed. */
        (void)rs_ag_on(r, RS_REPLICA_ON_CUT, now);
        r->deadline = now + TERM_WAIT;
        if (why && *why)
            rs_ag_set(&r->message, rs_strdup(why));
    } else {
        rs_ag_kill(r, why, now);
    }
    rs_ag_reconcile(a, now);
}

void rs_agent_idle(struct rs_agent *a, const char *replica_id, int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);

    if (!r || r->state != RS_REPLICA_DRAINING)
        return;
    ask_to_stop(r, now);
    rs_ag_reconcile(a, now);
}

/* "it exited with status 3 before it was ready", and what it printed last. */
static char *end_text(const struct rs_ag_replica *r, int status, const char *when,
                      const char *output)
{
    char how[64];

    rs_exit_text(status, how, sizeof(how));
    if (output && *output)
        return rs_asprintf("its process %s%s; it printed last:\n%s", how, when, output);
    if (r->message && *r->message)
        return rs_asprintf("its process %s%s: %s", how, when, r->message);
    return rs_asprintf("its process %s%s", how, when);
}

void rs_agent_exited(struct rs_agent *a, const char *replica_id, int wait_status,
                     const char *output, int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);

    if (!r || r->state == RS_REPLICA_STOPPED)
        return;
    bool never_ran = !r->ready_at && !r->counted && r->kill_stage == 0;

    if (r->state == RS_REPLICA_STARTING || (r->state == RS_REPLICA_STOPPING && never_ran)) {
        rs_auto(rs_freep) char *why =
            end_text(r, wait_status, " before it was ready", r->counted ? NULL : output);

        rs_ag_start_failed(r, why, now);
    } else if (r->state == RS_REPLICA_RUNNING || r->state == RS_REPLICA_UPDATING) {
        rs_auto(rs_freep) char *why = end_text(r, wait_status, "", NULL);

        rs_ag_count_death(r, why, now);
    } else if (r->state == RS_REPLICA_STOPPING && r->cut) { /* counted when the connection closed */
        rs_auto(rs_freep) char *why = end_text(r, wait_status, "", NULL);

        if (rs_ag_is_core(r->deployment))
            rs_ag_count_death(r, why, now);
        rs_ag_set(&r->message, rs_strdup(why));
        if (current(r))
            rs_ag_set(&r->deployment->last_error, rs_asprintf("replica %s: %s", r->id, why));
    }
    rs_ag_health_ended(r, wait_status, output, now);
    stopped(r, RS_REPLICA_ON_EXITED, now);
    rs_ag_reconcile(a, now);
}

/* --- lending CPUs --- */

void rs_agent_waiting(struct rs_agent *a, const char *replica_id, bool waiting, int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);
    struct rs_resources want = {0};
    rs_auto(rs_freep) int *devices = NULL;
    size_t count;

    if (!r || !r->reservation || r->waiting == waiting || r->state == RS_REPLICA_STOPPED)
        return;
    count = r->reservation->device_count;
    devices = rs_memdup(r->reservation->devices, count * sizeof(*devices));
    rs_resources_copy(&want, &r->reservation->want);
    want.cpu = waiting ? 0 : r->deployment->want.cpu;
    rs_ledger_release(a->ledger, r->reservation);
    rs_ledger_adopt(a->ledger, &want, devices, count, &r->reservation);
    rs_resources_fini(&want);
    r->waiting = waiting;
    rs_ag_changed(a);
    rs_ag_reconcile(a, now);
}

void rs_agent_kill_deployment(struct rs_agent *a, const char *app, const char *deployment,
                              const char *why, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (!r || strcmp(r->deployment->name, deployment) != 0 ||
            strcmp(r->deployment->app, app) != 0)
            continue;
        if (rs_ag_is_up(r))
            rs_ag_count_death(r, why, now);
        rs_ag_kill(r, why, now);
    }
    rs_ag_reconcile(a, now);
}

/* --- time --- */

static void probe(struct rs_ag_replica *r, int64_t timeout, int64_t now)
{
    struct rs_agent *a = r->deployment->agent;

    r->asked_at = now;
    r->check_at = 0;
    a->ops.probe(r->id, r->ready_path, timeout, a->arg);
}

void rs_agent_probed(struct rs_agent *a, const char *replica_id, bool ok, const char *why,
                     int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);

    if (!r || r->kind != RS_KIND_HTTP || !r->asked_at)
        return;
    if (r->state == RS_REPLICA_RUNNING) {
        checked(r, ok, why ? why : "no answer", now);
    } else if (r->state == RS_REPLICA_STARTING) {
        r->asked_at = 0;
        if (ok) {
            ready(r, now);
        } else {
            rs_ag_set(&r->last_probe, rs_strdup(why));
            r->probe_gap = r->probe_gap * 2 < PROBE_GAP_MAX ? r->probe_gap * 2 : PROBE_GAP_MAX;
            r->check_at = now + r->probe_gap;
        }
    }
    rs_ag_reconcile(a, now);
}

static void check_due(struct rs_ag_replica *r, int64_t now)
{
    struct rs_agent *a = r->deployment->agent;

    if (r->kind == RS_KIND_HTTP) {
        probe(r, r->state == RS_REPLICA_STARTING ? PROBE_TIMEOUT : r->timeout, now);
        return;
    }
    r->asked_at = now;
    r->check_at = 0;
    rs_ag_health_asked(r, now);
    a->ops.tell(r->id, RS_TELL_PING, ++r->check_no, NULL, a->arg);
}

static void not_ready_in_time(struct rs_ag_replica *r, int64_t now)
{
    rs_auto(rs_freep) char *why = rs_asprintf(
        "not ready after %.3g s: %s %s%s%s", (double)(now - r->start_at) / 1e9,
        r->ready_path ? "GET" : "connecting", r->ready_path ? r->ready_path : "to its port",
        r->last_probe ? ": " : "", r->last_probe ? r->last_probe : "");

    rs_ag_start_failed(r, why, now);
    rs_ag_kill(r, why, now);
}

static void deadline_due(struct rs_ag_replica *r, int64_t now)
{
    if (r->state == RS_REPLICA_STARTING) {
        not_ready_in_time(r, now);
    } else if (r->state == RS_REPLICA_DRAINING) {
        (void)rs_ag_on(r, RS_REPLICA_ON_LATE, now);
        send_signal(r, SIGTERM, now);
    } else if (r->state == RS_REPLICA_STOPPING) {
        bool unknown = !r->pid; /* a fork that was never confirmed: nothing to wait for */

        if (r->kill_stage == 0 && !r->ready_at)
            rs_ag_start_failed(r, r->message ? r->message : "it closed its connection", now);
        send_signal(r, SIGKILL, now);
        if (unknown)
            stopped(r, RS_REPLICA_ON_LOST, now);
    }
}

void rs_ag_replica_tick(struct rs_ag_replica *r, int64_t now)
{
    if (r->deadline && now >= r->deadline)
        deadline_due(r, now);
    if (r->check_at && now >= r->check_at)
        check_due(r, now);
    if (r->asked_at && r->state != RS_REPLICA_STARTING && now >= r->asked_at + r->timeout)
        checked(r, false, "no answer in time", now);
    rs_ag_health_tick(r, now);
}

int64_t rs_ag_replica_deadline(const struct rs_ag_replica *r)
{
    int64_t at = rs_ag_sooner(r->deadline, r->check_at);

    if (r->asked_at && r->state != RS_REPLICA_STARTING)
        at = rs_ag_sooner(at, r->asked_at + r->timeout);
    return rs_ag_sooner(at, rs_ag_health_deadline(r));
}

void rs_ag_bury(struct rs_ag_deployment *d, const struct rs_report_replica *dead)
{
    if (d->n_dead == RS_AG_DEAD_MAX) {
        free(d->dead[0].replica_id);
        free(d->dead[0].version);
        free(d->dead[0].message);
        json_decref(d->dead[0].health);
        memmove(&d->dead[0], &d->dead[1], (RS_AG_DEAD_MAX - 1) * sizeof(d->dead[0]));
        d->n_dead--;
    }
    d->dead[d->n_dead++] = *dead;
}

static void remember_dead(struct rs_ag_deployment *d, struct rs_ag_replica *r)
{
    const struct rs_agent *a = d->agent;

    if (!r->start_at)
        return;
    const struct rs_report_replica dead = {
        .replica_id = rs_strdup(r->id),
        .version = rs_strdup(r->version),
        .message = rs_strdup(r->message),
        .health = json_incref(r->end),
        .state = RS_REPLICA_STOPPED,
        .rank = r->rank,
        .pid = (int)r->last_pid,
        .start_time_s = (double)r->start_at / 1e9 + a->wall_offset_s,
        .ready_time_s = r->ready_at ? (double)r->ready_at / 1e9 + a->wall_offset_s : 0,
    };
    rs_ag_bury(d, &dead);
}

void rs_ag_sweep(struct rs_agent *a, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (!r || r->state != RS_REPLICA_STOPPED)
            continue;
        remember_dead(r->deployment, r);
        rs_ag_replica_free(r);
    }
}
