/* Environments that a runtime_env asks to be built: made by a process of their own before the zygote
 * starts in them.
 *
 * One per (interpreter, folder, what is to be built), shared by all zygotes and replicas that ask for
 * the same. The builder finds what earlier runs made; so an environment is forgotten as soon as nobody
 * waits for it or has a zygote in it, and looked for again the next time.
 *
 *   WAITING --start--> BUILDING --ENV_READY--> READY
 *      ^                  |  FAILED, time out, death
 *      +--(network)-------+-------------------> FAILED, until nobody asks for it any more
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

#define TRIES 3u /* where the network, or a signal, is to blame */
#define RETRY_FIRST (2 * RS_SEC)
#define TIMEOUT_S 600

#define TO(state) (1u << RS_ENV_##state)

static const unsigned allowed[RS_ENV_STATE_COUNT] = {
    [RS_ENV_WAITING] = TO(BUILDING) | TO(FAILED),
    [RS_ENV_BUILDING] = TO(WAITING) | TO(READY) | TO(FAILED),
    [RS_ENV_READY] = TO(WAITING),
    [RS_ENV_FAILED] = TO(WAITING),
};

static void enter(struct rs_agent *a, struct rs_ag_env *e, enum rs_ag_env_state to)
{
    assert(allowed[e->state] & (1u << to));
    e->state = to;
    e->deadline = 0;
    rs_ag_changed(a);
}

/* --- what needs one ------------------------------------------------------------------------------ */

/* The parts of a runtime_env that something must be built or fetched for. */
static const char *const built[] = {"working_dir", "py_modules", "pip",
                                    "uv",          "conda",      "py_executable"};

static bool is_empty(const json_t *v)
{
    return !v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

bool rs_ag_env_needed(const json_t *runtime_env)
{
    for (size_t i = 0; i < RS_COUNT(built); i++)
        if (!is_empty(json_object_get(runtime_env, built[i])))
            return true;
    return false;
}

uint64_t rs_ag_hash(const json_t *json)
{
    rs_auto(rs_freep) char *text =
        json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (const char *p = text; p && *p; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    return hash;
}

/* --- env_vars ------------------------------------------------------------------------------------ */

/* "${NAME}" is the value in the node's own environment, "" if it has none. */
static char *expand(const struct rs_agent *a, const char *text)
{
    struct rs_buf out = {0};

    while (*text) {
        const char *open = strstr(text, "${");
        const char *close = open ? strchr(open, '}') : NULL;

        if (!close) {
            rs_buf_puts(&out, text);
            break;
        }
        rs_auto(rs_freep) char *name = rs_asprintf("%.*s", (int)(close - open - 2), open + 2);
        const char *value = a->ops.getenv ? a->ops.getenv(name, a->arg) : NULL;

        rs_buf_printf(&out, "%.*s%s", (int)(open - text), text, value ? value : "");
        text = close + 1;
    }
    return rs_buf_steal(&out);
}

json_t *rs_ag_env_vars(const struct rs_agent *a, const json_t *runtime_env)
{
    json_t *out = json_object();
    const char *key;
    json_t *v;

    json_object_foreach (json_object_get(runtime_env, "env_vars"), key, v) {
        rs_auto(rs_freep) char *text = json_is_string(v) ? expand(a, json_string_value(v)) : NULL;

        if (text)
            json_object_set_new_nocheck(out, key, json_string_nocheck(text));
    }
    return out;
}

char **rs_ag_env_list(const json_t *vars)
{
    char **list = rs_alloc((json_object_size(vars) + 1) * sizeof(*list));
    size_t n = 0;
    const char *key;
    json_t *v;

    json_object_foreach ((json_t *)(uintptr_t)vars, key, v)
        if (json_is_string(v))
            list[n++] = rs_asprintf("%s=%s", key, json_string_value(v));
    return list;
}

void rs_ag_env_list_free(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

/* --- life ---------------------------------------------------------------------------------------- */

void rs_ag_env_free(struct rs_ag_env *e)
{
    if (!e)
        return;
    json_decref(e->ask);
    json_decref(e->ready);
    json_decref(e->failure);
    free(e->key);
    free(e->python);
    free(e->progress);
    free(e);
}

static int64_t timeout_of(const json_t *runtime_env)
{
    const json_t *conf = json_object_get(runtime_env, "config");
    double s = rs_json_num(conf, "setup_timeout_seconds", TIMEOUT_S);

    return s <= 0 ? 0 : (int64_t)(s * 1e9);
}

struct rs_ag_env *rs_ag_env_for(struct rs_agent *a, const char *python, const char *app_dir,
                                const json_t *runtime_env)
{
    rs_auto(rs_json_decrefp) json_t *ask =
        json_pack("{s:O, s:s?, s:s}", "runtime_env", runtime_env, "base_dir", app_dir, "node",
                  a->node_name ? a->node_name : a->node_id);
    rs_auto(rs_json_decrefp) json_t *all = json_pack("{s:O, s:s?}", "ask", ask, "python", python);
    rs_auto(rs_freep) char *key = rs_asprintf("env-%016" PRIx64, rs_ag_hash(all));
    struct rs_ag_env *e = rs_map_get(&a->envs, key);

    if (e)
        return e;
    e = rs_alloc(sizeof(*e));
    e->key = rs_strdup(key);
    e->python = rs_strdup(python);
    e->ask = json_incref(ask);
    e->timeout = timeout_of(runtime_env);
    e->progress = rs_strdup("starting");
    rs_map_put(&a->envs, key, e);
    rs_ag_changed(a);
    return e;
}

struct rs_ag_env *rs_ag_env_find(const struct rs_agent *a, const char *key)
{
    return key ? rs_map_get(&a->envs, key) : NULL;
}

void rs_ag_env_again(struct rs_agent *a, struct rs_ag_env *e)
{
    if (!e || e->state == RS_ENV_WAITING || e->state == RS_ENV_BUILDING)
        return;
    enter(a, e, RS_ENV_WAITING);
    e->tries = 0;
    e->retry_at = 0;
}

/* --- ends of a build ----------------------------------------------------------------------------- */

/* Takes `msg`. */
static void fail(struct rs_agent *a, struct rs_ag_env *e, json_t *msg, int64_t now)
{
    const char *error = rs_json_str(msg, "error", "no reason given");
    bool again = rs_json_bool(msg, "retry", false) && e->tries < TRIES;

    if (again) {
        int64_t wait = RETRY_FIRST << (e->tries - 1);

        enter(a, e, RS_ENV_WAITING);
        e->retry_at = now + wait;
        rs_ag_set(&e->progress, rs_asprintf("trying again in %lld s (attempt %u of %u failed): %s",
                                            (long long)(wait / RS_SEC), e->tries, TRIES, error));
        json_decref(msg);
        return;
    }
    json_decref(e->failure);
    e->failure = msg;
    e->news = true;
    enter(a, e, RS_ENV_FAILED);
}

static json_t *failure(const char *kind, const char *error, const char *trace, bool retry)
{
    rs_auto(rs_freep) char *line = rs_message_bounded(error);
    rs_auto(rs_freep) char *text = rs_message_bounded(trace ? trace : error);

    return json_pack("{s:s, s:s, s:s, s:s, s:b}", "phase", "environment", "kind", kind, "error",
                     line, "traceback", text, "retry", (int)retry);
}

static void start(struct rs_agent *a, struct rs_ag_env *e, int64_t now)
{
    rs_auto(rs_json_decrefp) json_t *vars =
        rs_ag_env_vars(a, json_object_get(e->ask, "runtime_env"));
    char **env = rs_ag_env_list(vars);
    const struct rs_agent_env conf = {
        .key = e->key, .python = e->python, .ask = e->ask, .env = (const char *const *)env};
    struct rs_error err = {0};
    int r = a->ops.env_start(&conf, &e->pid, a->arg, &err);

    rs_ag_env_list_free(env);
    e->tries++;
    e->retry_at = 0;
    if (r < 0) {
        rs_auto(rs_freep) char *text =
            rs_asprintf("the builder of the environment does not start: %s", err.msg);

        e->pid = 0;
        fail(a, e, failure("OSError", text, NULL, false), now);
        return;
    }
    enter(a, e, RS_ENV_BUILDING);
    e->deadline = e->timeout ? now + e->timeout : 0;
}

static void timed_out(struct rs_agent *a, struct rs_ag_env *e, int64_t now)
{
    rs_auto(rs_freep) char *text =
        rs_asprintf("not finished after %.6g s (config.setup_timeout_seconds); it was at: %s",
                    (double)e->timeout / 1e9, e->progress);

    a->ops.kill(e->key, SIGKILL, a->arg);
    fail(a, e, failure("TimeoutError", text, NULL, false), now);
}

/* --- events -------------------------------------------------------------------------------------- */

void rs_agent_env_progress(struct rs_agent *a, const char *key, const json_t *msg, int64_t now)
{
    struct rs_ag_env *e = rs_ag_env_find(a, key);

    if (!e || e->state != RS_ENV_BUILDING)
        return;
    rs_ag_set(&e->progress, rs_message_bounded(rs_json_str(msg, "text", "")));
    rs_ag_changed(a);
}

void rs_agent_env_ready(struct rs_agent *a, const char *key, const json_t *msg, int64_t now)
{
    struct rs_ag_env *e = rs_ag_env_find(a, key);

    if (!e || e->state != RS_ENV_BUILDING)
        return;
    json_decref(e->ready);
    e->ready = json_deep_copy(msg);
    e->tries = 0;
    enter(a, e, RS_ENV_READY);
    rs_ag_reconcile(a, now);
}

void rs_agent_env_failed(struct rs_agent *a, const char *key, const json_t *msg, int64_t now)
{
    struct rs_ag_env *e = rs_ag_env_find(a, key);

    if (!e || e->state != RS_ENV_BUILDING)
        return;
    fail(a, e,
         failure(rs_json_str(msg, "kind", "RuntimeEnvSetupError"),
                 rs_json_str(msg, "error", "no reason given"), rs_json_str(msg, "traceback", NULL),
                 rs_json_bool(msg, "retry", false)),
         now);
    rs_ag_reconcile(a, now);
}

void rs_agent_env_exited(struct rs_agent *a, const char *key, int wait_status, const char *output,
                         int64_t now)
{
    struct rs_ag_env *e = rs_ag_env_find(a, key);
    bool killed = wait_status != 0 && (wait_status & 0x7f) != 0;
    char how[64];

    if (!e)
        return;
    e->pid = 0;
    if (e->state == RS_ENV_BUILDING) {
        rs_exit_text(wait_status, how, sizeof(how));
        rs_auto(rs_freep) char *text =
            rs_asprintf("the builder of the environment %s while it was at: %s", how, e->progress);
        rs_auto(rs_freep) char *all =
            rs_asprintf("%s%s%s", text, output && *output ? "\n" : "", output ? output : "");

        fail(a, e, failure("SystemExit", text, all, killed), now);
    }
    /* Started anew, or forgotten, by the next tick: its name is in use until this call returns. */
    rs_ag_changed(a);
}

/* --- time ---------------------------------------------------------------------------------------- */

static bool used(const struct rs_agent *a, const struct rs_ag_env *e)
{
    if (a->draining)
        return false;
    for (size_t i = 0; i < rs_map_slots(&a->zygotes); i++) {
        const struct rs_ag_zygote *z = rs_map_at(&a->zygotes, i, NULL);

        if (z && z->env && strcmp(z->env, e->key) == 0)
            return true;
    }
    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        const struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (r && r->state == RS_REPLICA_PENDING && r->environment &&
            strcmp(r->environment, e->key) == 0)
            return true;
    }
    return false;
}

void rs_ag_envs_tick(struct rs_agent *a, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&a->envs); i++) {
        const char *key = NULL;
        struct rs_ag_env *e = rs_map_at(&a->envs, i, &key);

        if (!e)
            continue;
        e->news = false;
        if (!used(a, e)) {
            if (e->pid > 0 && (e->state == RS_ENV_BUILDING || a->draining) && !e->killed) {
                a->ops.kill(e->key, SIGKILL, a->arg);
                e->killed = true;
            }
            if (e->pid <= 0) {
                rs_map_remove(&a->envs, key);
                rs_ag_env_free(e);
            }
            continue;
        }
        if (e->state == RS_ENV_BUILDING && e->deadline && now >= e->deadline)
            timed_out(a, e, now);
        if (e->state == RS_ENV_WAITING && e->pid <= 0 && now >= e->retry_at) {
            e->killed = false;
            start(a, e, now);
        }
    }
}

int64_t rs_ag_env_deadline(const struct rs_ag_env *e)
{
    if (e->news)
        return 1;
    if (e->state == RS_ENV_WAITING && e->pid <= 0)
        return e->retry_at ? e->retry_at : 1;
    return e->deadline;
}
