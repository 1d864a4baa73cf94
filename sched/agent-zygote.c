/* Zygotes: one per application, build version and runtime_env, kept while someone needs to be forked.
 */
#include "sched/agent-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "sched/supervise/spawn.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define LINGER (60 * RS_SEC) /* from GRAPH to the TARGET that makes use of it */
#define STOP_WAIT (2 * RS_SEC)
#define RETRY_FIRST (200 * RS_MS)
#define RETRY_MAX (10 * RS_SEC)
#define BUILD_TIMEOUT_S 300 /* where BUILD does not say */
#define LAST_WORDS RS_SEC   /* to say where it hangs, before it is killed */

#define TO(state) (1u << RS_ZYGOTE_##state)

static const unsigned allowed[RS_ZYGOTE_STATE_COUNT] = {
    [RS_ZYGOTE_WAITING] = TO(PREPARING) | TO(STARTING) | TO(FAILED),
    [RS_ZYGOTE_PREPARING] = TO(STARTING) | TO(FAILED) | TO(WAITING),
    [RS_ZYGOTE_STARTING] = TO(BUILDING) | TO(FAILED) | TO(STOPPING) | TO(WAITING),
    [RS_ZYGOTE_BUILDING] = TO(READY) | TO(FAILED) | TO(STOPPING) | TO(WAITING),
    [RS_ZYGOTE_READY] = TO(STOPPING) | TO(WAITING),
    [RS_ZYGOTE_FAILED] = TO(WAITING) | TO(STOPPING),
    [RS_ZYGOTE_STOPPING] = TO(WAITING),
};

static const char *const names[] = {
#define RS_X(name, text) text,
    RS_ZYGOTE_STATES(RS_X)
#undef RS_X
};

const char *rs_ag_zygote_state_name(enum rs_ag_zygote_state s)
{
    return names[s];
}

static void enter(struct rs_agent *a, struct rs_ag_zygote *z, enum rs_ag_zygote_state to)
{
    assert(allowed[z->state] & (1u << to));
    z->state = to;
    z->deadline = 0;
    rs_ag_changed(a);
}

void rs_ag_zygote_free(struct rs_ag_zygote *z)
{
    if (!z)
        return;
    json_decref(z->build);
    json_decref(z->runtime_env);
    free(z->key);
    free(z->env);
    free(z->app);
    free(z->version);
    free(z->python);
    free(z->app_dir);
    free(z->reason);
    free(z->executable);
    free(z->trouble);
    free(z);
}

/* Takes `key`. */
static struct rs_ag_zygote *zygote_new(struct rs_agent *a, char *key, const char *app,
                                       const char *version)
{
    struct rs_ag_zygote *z = rs_alloc(sizeof(*z));

    z->key = key;
    z->app = rs_strdup(app);
    z->version = rs_strdup(version);
    rs_map_put(&a->zygotes, z->key, z);
    rs_ag_changed(a);
    return z;
}

static struct rs_ag_zygote *find(const struct rs_agent *a, const char *app, const char *version)
{
    rs_auto(rs_freep) char *key = rs_asprintf("%s@%s", app, version);

    return rs_map_get(&a->zygotes, key);
}

static const char *zygote_name(const struct rs_target_app *app)
{
    return app->zygote ? app->zygote : app->name;
}

static bool uses(const struct rs_target_app *app, const struct rs_ag_zygote *z)
{
    return strcmp(app->version, z->version) == 0 && strcmp(zygote_name(app), z->app) == 0;
}

const struct rs_target_app *rs_ag_zygote_wanted_by(const struct rs_agent *a,
                                                   const struct rs_ag_zygote *z)
{
    for (size_t i = 0; a->target && i < a->target->n_apps; i++)
        if (uses(&a->target->apps[i], z))
            return &a->target->apps[i];
    for (size_t i = 0; a->target && i < a->target->n_old; i++)
        if (uses(&a->target->old[i], z))
            return &a->target->old[i];
    return NULL;
}

/* That of the deployment's replicas. */
static char *key_for(const struct rs_target_app *app, const struct rs_ag_deployment *d)
{
    if (json_equal(d->conf->runtime_env, app->runtime_env))
        return rs_asprintf("%s@%s", zygote_name(app), app->version);
    return rs_asprintf("%s@%s+%016" PRIx64, zygote_name(app), app->version,
                       rs_ag_hash(d->conf->runtime_env));
}

struct rs_ag_zygote *rs_ag_zygote_for(struct rs_agent *a, const struct rs_target_app *app,
                                      const struct rs_ag_deployment *d)
{
    rs_auto(rs_freep) char *key = key_for(app, d);
    struct rs_ag_zygote *z = rs_map_get(&a->zygotes, key);
    json_t *env = d->conf->runtime_env;

    if (z) {
        z->again |= z->state == RS_ZYGOTE_STOPPING;
        return z;
    }
    z = zygote_new(a, rs_steal(key), zygote_name(app), app->version);
    z->python = rs_strdup(app->python);
    z->app_dir = rs_strdup(app->app_dir);
    z->runtime_env = json_incref(env);
    z->build =
        json_pack("{s:s, s:s?, s:s?, s:O, s:O}", "app", zygote_name(app), "import_path",
                  app->import_path, "app_dir", app->app_dir, "args", app->args, "runtime_env", env);
    return z;
}

/* --- user code in the control path --- */

/* The deployment whose zygote helpers come from: one with the application's own environment. */
static const struct rs_ag_deployment *helper_like(const struct rs_agent *a,
                                                  const struct rs_target_app *app)
{
    const struct rs_ag_deployment *found = NULL;

    for (size_t i = 0; i < app->n_deployments; i++) {
        const struct rs_ag_deployment *d = rs_ag_deployment(a, app->name, app->deployments[i].name);

        if (!d || d->gone || d->conf->kind != RS_KIND_PYTHON)
            continue;
        if (json_equal(d->conf->runtime_env, app->runtime_env))
            return d;
        found = found ? found : d;
    }
    return found;
}

int rs_agent_helper(struct rs_agent *a, const char *name, struct rs_agent_helper *ret, int64_t now,
                    struct rs_error *err)
{
    const struct rs_target_app *app = rs_ag_app(a, name);
    const struct rs_ag_deployment *d = app ? helper_like(a, app) : NULL;
    rs_auto(rs_json_decrefp) json_t *env = NULL;
    const struct rs_ag_env *e;
    struct rs_ag_zygote *z;
    const char *dir;

    if (!d || a->draining)
        return rs_error_set(err, RS_NOT_FOUND,
                            "no Python application '%s' is deployed on this node", name);
    z = rs_ag_zygote_for(a, app, d);
    if (z->helper_until < now + LINGER / 2) /* a zygote that nobody needs any more goes */
        z->helper_until = now + LINGER;
    if (z->state != RS_ZYGOTE_READY) {
        rs_ag_zygotes_tick(a, now);
        return RS_AGENT_NOT_YET;
    }
    if (z->spawn && !app->import_path)
        return rs_error_set(err, RS_INVALID,
                            "the application '%s' cannot be forked (%s), and code that came by "
                            "value cannot be imported by another process",
                            name, z->reason ? z->reason : "it has threads");
    e = rs_ag_env_find(a, z->env);
    dir = rs_json_str(e ? e->ready : NULL, "cwd", z->app_dir);
    env = rs_ag_env_vars(a, z->runtime_env);
    *ret = (struct rs_agent_helper){
        .key = z->key,
        .zygote = z->spawn ? NULL : z->key,
        .python = z->python,
        .app_dir = dir,
        .ready = e ? e->ready : NULL,
        .init = json_pack("{s:s, s:s?, s:s?, s:O, s:{s:O}}", "app", app->name, "import_path",
                          app->import_path, "app_dir", dir, "args", app->args, "runtime_env",
                          "env_vars", env),
    };
    return 0;
}

bool rs_agent_knows(const struct rs_agent *a, const char *app)
{
    return rs_ag_app(a, app) != NULL;
}

bool rs_agent_helper_is(const struct rs_agent *a, const char *name, const char *key)
{
    const struct rs_target_app *app = rs_ag_app(a, name);
    const struct rs_ag_deployment *d = app ? helper_like(a, app) : NULL;
    rs_auto(rs_freep) char *now = d ? key_for(app, d) : NULL;

    return now && strcmp(now, key) == 0;
}

/* --- a build that does not end --- */

static double build_timeout(const struct rs_ag_zygote *z)
{
    double s = rs_json_num(z->build, "timeout_s", BUILD_TIMEOUT_S);

    return s > 0 ? s : BUILD_TIMEOUT_S;
}

/* Told to say where it is (rserve/zygote.py), then killed; its end tells the head. */
static void interrupt(struct rs_agent *a, struct rs_ag_zygote *z, int64_t now)
{
    bool told = z->hangs;

    z->hangs = true;
    a->ops.kill(z->key, told ? SIGKILL : SIGUSR2, a->arg);
    z->deadline = now + (told ? STOP_WAIT : LAST_WORDS);
}

/* --- from the head --- */

/* The head no longer waits for it. */
static void build_cancelled(struct rs_agent *a, struct rs_ag_zygote *z, int64_t now)
{
    if (!z)
        return;
    z->answer = false;
    z->linger_until = 0;
    rs_ag_zygotes_tick(a, now);
}

int rs_agent_build(struct rs_agent *a, const json_t *build, int64_t now, struct rs_error *err)
{
    const char *app = rs_json_str(build, "app", NULL);
    const char *version = rs_json_str(build, "version", NULL);
    json_t *env = json_object_get(build, "runtime_env");
    struct rs_ag_zygote *z;

    if (!app || !version || !*app || !*version)
        return rs_error_set(err, RS_INVALID, "BUILD without an application or version");
    z = find(a, app, version);
    if (rs_json_bool(build, "cancel", false)) {
        build_cancelled(a, z, now);
        return 0;
    }
    if (z && z->state == RS_ZYGOTE_STOPPING) {
        z->again = true; /* starts when the old one has ended */
    } else if (z && z->state == RS_ZYGOTE_READY) {
        z->again = true; /* build anew: the head knows why it asks */
        a->ops.zygote_stop(z->key, a->arg);
        enter(a, z, RS_ZYGOTE_STOPPING);
        z->deadline = now + STOP_WAIT;
    } else if (!z) {
        z = zygote_new(a, rs_asprintf("%s@%s", app, version), app, version);
    }
    if (!z->build)
        z->build = json_deep_copy(build);
    if (!z->runtime_env)
        z->runtime_env = env ? json_incref(env) : json_object();
    if (!z->python)
        z->python = rs_strdup(rs_json_str(build, "python", NULL));
    if (!z->app_dir)
        z->app_dir = rs_strdup(rs_json_str(build, "app_dir", NULL));
    if (z->env) /* asked anew: what failed may go well now */
        rs_ag_env_again(a, rs_ag_env_find(a, z->env));
    z->answer = true;
    z->failures = 0;
    z->retry_at = 0;
    rs_ag_zygotes_tick(a, now);
    return 0;
}

/* --- need --- */

static bool forked_by(const struct rs_target_app *app, const struct rs_ag_deployment *d,
                      const struct rs_ag_zygote *z)
{
    rs_auto(rs_freep) char *key = d->conf->kind == RS_KIND_PYTHON ? key_for(app, d) : NULL;

    return key && strcmp(key, z->key) == 0;
}

/* One that is there is kept for longer: that costs less than importing again. */
static bool needed_by(const struct rs_ag_deployment *d, const struct rs_ag_zygote *z)
{
    const struct rs_target_app *app = d->gone || d->stray ? NULL : rs_ag_code(d);

    if (!app || !uses(app, z) || app->spawn || (!app->import_path && !app->zygote))
        return false;
    /* One that sleeps at 0 replicas wakes in milliseconds if its module stays imported. So does an old
     * version, for as long as it may be wanted back. */
    return !d->failed && forked_by(app, d, z) &&
           (d->replicas > 0 || (z->pid > 0 && (d->old || d->conf->autoscaling_enabled)));
}

static bool needed(const struct rs_agent *a, const struct rs_ag_zygote *z, int64_t now)
{
    if (a->draining)
        return false;
    if (z->answer || now < z->linger_until)
        return true;
    if (now < z->helper_until && rs_ag_zygote_wanted_by(a, z))
        return true;
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        const struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (d && needed_by(d, z))
            return true;
    }
    return false;
}

static int64_t retry_after(unsigned failures)
{
    int64_t wait = failures > 6 ? RETRY_MAX : RETRY_FIRST << failures;

    return wait < RETRY_MAX ? wait : RETRY_MAX;
}

/* The build failed: tell who waits for it, the head or the deployments here. */
static void build_failed(struct rs_agent *a, struct rs_ag_zygote *z, json_t *msg, int64_t now)
{
    const char *trace = rs_json_str(msg, "traceback", "");
    const char *error = rs_json_str(msg, "error", "the build failed");

    z->failures++;
    z->retry_at = now + retry_after(z->failures);
    json_object_set_new(msg, "app", json_string(z->app));
    json_object_set_new(msg, "version", json_string(z->version));
    if (z->answer) {
        z->answer = false;
        a->ops.built(false, msg, a->arg);
        return;
    }
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);
        const struct rs_target_app *app = d ? rs_ag_code(d) : NULL;

        /* One without replicas here: the zygote was for its policies or routers. */
        if (d && !d->gone && d->replicas > 0 && app && forked_by(app, d, z))
            rs_ag_count_failure(d, *trace ? trace : error, now);
    }
}

static void start(struct rs_agent *a, struct rs_ag_zygote *z, struct rs_ag_env *e, int64_t now)
{
    rs_auto(rs_json_decrefp) json_t *vars = rs_ag_env_vars(a, z->runtime_env);
    char **env = rs_ag_env_list(vars);
    struct rs_agent_zygote conf = {
        .key = z->key,
        .app = z->app,
        .python = z->python,
        .app_dir = z->app_dir,
        .runtime_env = z->runtime_env,
        .ready = e ? e->ready : NULL,
        .env = (const char *const *)env,
    };
    struct rs_error err = {0};
    int r = a->ops.zygote_start(&conf, &z->pid, a->arg, &err);

    rs_ag_env_list_free(env);
    rs_ag_set(&z->trouble, NULL);
    z->retry_at = 0;
    z->again = false;
    if (r == 0) {
        if (e)
            e->rechecked = false;
        z->hangs = false;
        enter(a, z, RS_ZYGOTE_STARTING);
        z->deadline = now + (int64_t)(build_timeout(z) * 1e9);
        return;
    }
    z->pid = 0;
    if (e && !e->rechecked) { /* someone may have removed it */
        e->rechecked = true;
        rs_ag_env_again(a, e);
        return;
    }
    rs_auto(rs_json_decrefp) json_t *msg =
        json_pack("{s:s, s:s, s:s, s:s}", "phase", "interpreter", "kind", "OSError", "error",
                  err.msg, "traceback", "");

    enter(a, z, RS_ZYGOTE_FAILED);
    build_failed(a, z, msg, now);
}

/* Starts it as soon as its environment is there. */
static void prepare(struct rs_agent *a, struct rs_ag_zygote *z, int64_t now)
{
    struct rs_ag_env *e = NULL;

    if (rs_ag_env_needed(z->runtime_env)) {
        e = rs_ag_env_for(a, z->python, z->app_dir, z->runtime_env);
        rs_ag_set(&z->env, rs_strdup(e->key));
    }
    if (!e || e->state == RS_ENV_READY) {
        start(a, z, e, now);
    } else if (e->state == RS_ENV_FAILED) {
        rs_auto(rs_json_decrefp) json_t *msg = json_copy(e->failure);

        enter(a, z, RS_ZYGOTE_FAILED);
        build_failed(a, z, msg, now);
    } else if (z->state != RS_ZYGOTE_PREPARING) {
        enter(a, z, RS_ZYGOTE_PREPARING);
    }
}

static void stop(struct rs_agent *a, struct rs_ag_zygote *z, int64_t now)
{
    if (z->pid <= 0 || z->state == RS_ZYGOTE_STOPPING)
        return;
    a->ops.zygote_stop(z->key, a->arg);
    enter(a, z, RS_ZYGOTE_STOPPING);
    z->deadline = now + STOP_WAIT;
}

void rs_ag_zygotes_tick(struct rs_agent *a, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&a->zygotes); i++) {
        const char *key = NULL;
        struct rs_ag_zygote *z = rs_map_at(&a->zygotes, i, &key);
        bool want = z && needed(a, z, now);

        if (!z)
            continue;
        if (now >= z->linger_until)
            z->linger_until = 0;
        if (z->state == RS_ZYGOTE_STOPPING && z->deadline && now >= z->deadline) {
            a->ops.kill(z->key, SIGKILL, a->arg);
            z->deadline = now + STOP_WAIT;
        } else if (want && (z->state == RS_ZYGOTE_STARTING || z->state == RS_ZYGOTE_BUILDING) &&
                   z->deadline && now >= z->deadline) {
            interrupt(a, z, now);
        }
        if (!want && z->pid > 0) {
            stop(a, z, now);
        } else if (!want && z->pid <= 0) {
            rs_map_remove(&a->zygotes, key);
            rs_ag_zygote_free(z);
            rs_ag_changed(a);
        } else if (z->pid <= 0 && now >= z->retry_at) {
            if (z->state != RS_ZYGOTE_WAITING && z->state != RS_ZYGOTE_PREPARING)
                enter(a, z, RS_ZYGOTE_WAITING);
            prepare(a, z, now);
        } else if (z->state == RS_ZYGOTE_FAILED && z->pid > 0 && now >= z->retry_at) {
            z->again = true;
            stop(a, z, now);
        }
    }
    rs_ag_envs_tick(a, now);
}

int64_t rs_ag_zygote_deadline(const struct rs_ag_zygote *z)
{
    int64_t at = z->deadline;

    if (z->state != RS_ZYGOTE_PREPARING && (z->pid <= 0 || z->state == RS_ZYGOTE_FAILED))
        at = rs_ag_sooner(at, z->retry_at ? z->retry_at : 1);
    at = rs_ag_sooner(at, z->linger_until);
    return at;
}

/* --- what it says --- */

/* BUILD, with the folder that the environment brings. New. */
static json_t *build_for(const struct rs_agent *a, const struct rs_ag_zygote *z)
{
    const struct rs_ag_env *e = rs_ag_env_find(a, z->env);
    const char *cwd = rs_json_str(e ? e->ready : NULL, "cwd", NULL);
    json_t *build = json_copy(z->build);

    if (cwd)
        json_object_set_new(build, "app_dir", json_string(cwd));
    return build;
}

void rs_agent_zygote_hello(struct rs_agent *a, const char *key, const json_t *msg, int64_t now)
{
    struct rs_ag_zygote *z = rs_map_get(&a->zygotes, key);

    if (!z || z->state != RS_ZYGOTE_STARTING)
        return;
    rs_ag_set(&z->executable, rs_strdup(rs_json_str(msg, "executable", NULL)));
    enter(a, z, RS_ZYGOTE_BUILDING);
    z->deadline = now + (int64_t)(build_timeout(z) * 1e9);
    rs_auto(rs_json_decrefp) json_t *build = build_for(a, z);

    a->ops.zygote_build(key, build, a->arg);
}

void rs_agent_zygote_graph(struct rs_agent *a, const char *key, const json_t *msg, int64_t now)
{
    struct rs_ag_zygote *z = rs_map_get(&a->zygotes, key);

    if (!z || z->state != RS_ZYGOTE_BUILDING)
        return;
    z->failures = 0;
    z->spawn = strcmp(rs_json_str(msg, "start", "fork"), "spawn") == 0;
    rs_ag_set(&z->reason, rs_strdup(rs_json_str(msg, "start_reason", NULL)));
    enter(a, z, RS_ZYGOTE_READY);
    if (z->answer) {
        rs_auto(rs_json_decrefp) json_t *graph = json_copy((json_t *)(uintptr_t)msg);

        z->answer = false;
        if (!rs_json_bool(z->build, "plan", false)) /* else nobody is going to use it */
            z->linger_until = now + LINGER;
        json_object_set_new(graph, "app", json_string(z->app));
        json_object_set_new(graph, "version", json_string(z->version));
        a->ops.built(true, graph, a->arg);
    }
    rs_ag_reconcile(a, now);
}

void rs_agent_zygote_failed(struct rs_agent *a, const char *key, const json_t *msg, int64_t now)
{
    struct rs_ag_zygote *z = rs_map_get(&a->zygotes, key);
    const char *replica_id = rs_json_str(msg, "replica_id", NULL);
    struct rs_ag_replica *r = replica_id ? rs_map_get(&a->replicas, replica_id) : NULL;

    if (replica_id) { /* nothing was forked */
        if (r && r->state == RS_REPLICA_STARTING && !r->pid) {
            rs_ag_start_failed(r, rs_json_str(msg, "error", "the zygote could not fork"), now);
            rs_ag_lost(r, now);
        }
        rs_ag_reconcile(a, now);
        return;
    }
    if (!z || z->state != RS_ZYGOTE_BUILDING)
        return;
    rs_auto(rs_json_decrefp) json_t *copy = json_copy((json_t *)(uintptr_t)msg);

    enter(a, z, RS_ZYGOTE_FAILED);
    build_failed(a, z, copy, now);
    rs_ag_reconcile(a, now);
}

void rs_agent_zygote_forked(struct rs_agent *a, const char *key, const json_t *msg, int64_t now)
{
    const char *replica_id = rs_json_str(msg, "replica_id", "");
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);
    pid_t pid = (pid_t)rs_json_int(msg, "pid", 0);

    if (!r || pid <= 0)
        return;
    r->pid = r->last_pid = pid;
    rs_ag_replica_greet(r);
    if (r->state == RS_REPLICA_STOPPING && r->kill_stage) /* it was to end before it was known */
        a->ops.kill(r->id, r->kill_stage == 2 ? SIGKILL : SIGTERM, a->arg);
    rs_ag_changed(a);
}

void rs_agent_zygote_gone(struct rs_agent *a, const char *key, const char *why, int64_t now)
{
    struct rs_ag_zygote *z = rs_map_get(&a->zygotes, key);

    if (!z || z->pid <= 0 || z->state == RS_ZYGOTE_STOPPING)
        return;
    if (why && *why)
        rs_ag_set(&z->trouble, rs_strdup(why));
    a->ops.kill(key, SIGKILL, a->arg); /* its end follows */
}

static char *end_text(const struct rs_ag_zygote *z, int status)
{
    char how[64];
    const char *what = rs_json_str(z->build, "import_path", "the application");

    if (z->hangs)
        return rs_asprintf("importing '%s' did not end within %g s and was stopped "
                           "(build_timeout_s of the application's rserve allows more)",
                           what, build_timeout(z));
    rs_exit_text(status, how, sizeof(how));
    return rs_asprintf("the interpreter %s while it imported '%s'%s%s", how, what,
                       z->trouble ? ": " : "", z->trouble ? z->trouble : "");
}

static json_t *end_message(const struct rs_ag_zygote *z, int status, const char *output)
{
    rs_auto(rs_freep) char *error = end_text(z, status);
    rs_auto(rs_freep) char *all =
        output && *output ? rs_asprintf("%s\n%s", error, output) : rs_strdup(error);
    rs_auto(rs_freep) char *line = rs_message_bounded(error);
    rs_auto(rs_freep) char *trace = rs_message_bounded(all);

    return json_pack("{s:s, s:s, s:s, s:s}", "phase", "import", "kind",
                     z->hangs ? "TimeoutError" : "SystemExit", "error", line, "traceback", trace);
}

void rs_agent_zygote_exited(struct rs_agent *a, const char *key, int wait_status,
                            const char *output, int64_t now)
{
    struct rs_ag_zygote *z = rs_map_get(&a->zygotes, key);
    bool building;

    if (!z)
        return;
    building = z->state == RS_ZYGOTE_STARTING || z->state == RS_ZYGOTE_BUILDING;
    z->pid = 0;
    /* A fork that it had not confirmed may never have happened. */
    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (r && r->zygote && strcmp(r->zygote, key) == 0 && !r->pid &&
            r->state != RS_REPLICA_PENDING && r->state != RS_REPLICA_STOPPED)
            rs_ag_lost(r, now);
    }
    if (building) {
        rs_auto(rs_json_decrefp) json_t *msg = end_message(z, wait_status, output);

        enter(a, z, RS_ZYGOTE_FAILED);
        build_failed(a, z, msg, now);
    } else {
        if (z->state == RS_ZYGOTE_READY)
            z->retry_at = now + retry_after(z->failures++);
        if (z->state == RS_ZYGOTE_STOPPING)
            z->retry_at = now;
        enter(a, z, RS_ZYGOTE_WAITING);
    }
    /* Started anew by the next tick: its name is in use until this call returns. */
    rs_ag_changed(a);
}
