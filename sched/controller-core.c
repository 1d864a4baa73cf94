/* What actors, tasks and placement groups share: applications of their own, clients, and the ops. */
#include "sched/controller-core.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/config/fields.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define DEAD_KEPT 1000
/* Bytes of all options together: with what a TARGET says beside them they fit into one message. */
#define OPTIONS_MAX (512 << 10)

json_t *rs_ct_core_refuse(const char *kind, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    rs_auto(rs_freep) char *text = rs_vasprintf(fmt, args);
    va_end(args);
    return json_pack("{s:s, s:s}", "error", text, "kind", kind);
}

/* --- their applications --- */

static struct rs_ct_app *app_new(struct rs_controller *c, const char *name)
{
    struct rs_ct_app *app = rs_alloc(sizeof(*app));

    app->controller = c;
    app->internal = true;
    app->live = true;
    app->name = rs_strdup(name);
    app->message = rs_strdup("");
    rs_map_put(&c->core.apps, name, app);
    return app;
}

static json_t *object_of(const json_t *from, const char *key)
{
    const json_t *v = json_object_get(from, key);

    return json_is_object(v) ? json_deep_copy(v) : json_object();
}

/* Shares the zygote, and so the code, of an application of Serve. */
static struct rs_ct_app *beside(struct rs_controller *c, const struct rs_ct_app *of)
{
    rs_auto(rs_freep) char *name = rs_asprintf("ray:%s@%s", of->name, of->version);
    struct rs_ct_app *app = rs_map_get(&c->core.apps, name);

    if (app)
        return app;
    app = app_new(c, name);
    app->zygote = rs_strdup(of->name);
    app->version = rs_strdup(of->version);
    app->import_path = rs_strdup(of->import_path);
    app->app_dir = rs_strdup(of->app_dir);
    app->python = rs_strdup(of->python);
    app->args = json_incref(of->args);
    app->runtime_env = json_incref(of->runtime_env);
    app->spawn = of->spawn;
    return app;
}

/* Of a program from outside, or of an application without Python of its own: an interpreter that has
 * imported nothing. */
static struct rs_ct_app *bare(struct rs_controller *c, const json_t *env)
{
    rs_auto(rs_json_decrefp) json_t *runtime_env = object_of(env, "runtime_env");
    rs_auto(rs_json_decrefp) json_t *all =
        json_pack("{s:s?, s:s?, s:O}", "python", rs_json_str(env, "python", NULL), "app_dir",
                  rs_json_str(env, "app_dir", NULL), "runtime_env", runtime_env);
    rs_auto(rs_freep) char *version = rs_asprintf("%016" PRIx64, rs_json_hash(all));
    rs_auto(rs_freep) char *name = rs_asprintf("ray:@%s", version);
    struct rs_ct_app *app = rs_map_get(&c->core.apps, name);

    if (app)
        return app;
    app = app_new(c, name);
    app->zygote = rs_strdup("ray");
    app->version = rs_strdup(version);
    app->app_dir = rs_strdup(rs_json_str(env, "app_dir", NULL));
    app->python = rs_strdup(rs_json_str(env, "python", NULL));
    app->args = json_object();
    app->runtime_env = json_incref(runtime_env);
    return app;
}

static struct rs_ct_app *app_for(struct rs_controller *c, const json_t *env)
{
    const char *name = rs_json_str(env, "app", "");
    struct rs_ct_app *app = rs_map_get(&c->core.apps, name);

    if (app)
        return app; /* an actor or a task makes another one */
    app = rs_map_get(&c->apps, name);
    if (app && app->live && app->import_path)
        return beside(c, app);
    return bare(c, env);
}

char *rs_ct_core_name(struct rs_controller *c, const json_t *msg, const char *key)
{
    const struct rs_ct_app *app = app_for(c, json_object_get(msg, "env"));
    const struct rs_ct_pool *p = rs_map_get(&c->core.pools, key);
    rs_auto(rs_json_decrefp) json_t *name = json_string(app->name);

    if (!p || p->d->app == app)
        return rs_strdup(key);
    return rs_asprintf("%s:%08" PRIx32, key, (uint32_t)rs_json_hash(name));
}

/* --- their deployments --- */

static int set_strategy(struct rs_controller *c, struct rs_ct_deployment *d, const json_t *strategy,
                        struct rs_error *err)
{
    const char *group = rs_json_str(strategy, "group", NULL);
    const char *node = rs_json_str(strategy, "node", NULL);

    d->bundle = -1;
    if (group) {
        const struct rs_ct_group *g = rs_ct_group_find(c, group);
        int64_t bundle = rs_json_int(strategy, "bundle", -1);

        if (!g)
            return rs_error_set(err, RS_NOT_FOUND, "placement group %s does not exist", group);
        if (bundle < -1 || bundle >= (int64_t)g->n_bundles)
            return rs_error_set(err, RS_INVALID,
                                "placement group bundle index %d is invalid. Valid placement "
                                "group indexes: 0-%zu",
                                (int)bundle, g->n_bundles - 1);
        d->group = rs_strdup(group);
        d->bundle = (int)bundle;
    } else if (node) {
        d->pinned = rs_strdup(node);
        d->pinned_soft = rs_json_bool(strategy, "soft", false);
    }
    return 0;
}

/* The environment of the application holds for its tasks and actors too, below their own. */
static void inherit_env(json_t *config, const struct rs_ct_app *app)
{
    json_t *options = json_object_get(config, "ray_actor_options");
    json_t *env = rs_runtime_env_merge(app->runtime_env, json_object_get(options, "runtime_env"));

    options = json_is_object(options) ? json_copy(options) : json_object();
    if (json_object_size(env) > 0)
        json_object_set(options, "runtime_env", env);
    json_object_set_new(config, "ray_actor_options", options);
    json_decref(env);
}

static size_t text_size(const json_t *j)
{
    rs_auto(rs_freep) char *text = rs_json_dump(j);

    return strlen(text);
}

static size_t options_size(const struct rs_controller *c)
{
    size_t size = 0;

    for (size_t i = 0; i < rs_map_slots(&c->core.apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->core.apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            size += d && !d->gone ? d->options_size : 0;
        }
    }
    return size;
}

/* Its name is free, and the nodes can be told of it: 0, or -1. */
static int check_room(const struct rs_controller *c, const struct rs_ct_app *app, const char *name,
                      size_t size, struct rs_error *err)
{
    const struct rs_ct_deployment *before = rs_map_get(&app->deployments, name);
    size_t used = options_size(c);

    if (before && !before->gone)
        return rs_error_set(err, RS_CONFLICT,
                            "expected a new name; an actor or workers of tasks "
                            "have it");
    if (size > OPTIONS_MAX || used > OPTIONS_MAX - size)
        return rs_error_set(err, RS_NO_ROOM,
                            "its options, names and runtime_env take %zu bytes, those of the "
                            "actors and tasks that there are %zu; together at most %d",
                            size, used, OPTIONS_MAX);
    return 0;
}

int rs_ct_core_deployment(struct rs_controller *c, const json_t *msg, const char *name,
                          json_t *config, json_t *core, struct rs_ct_deployment **ret,
                          struct rs_error *err)
{
    struct rs_ct_deployment *d = rs_alloc(sizeof(*d));
    struct rs_ct_app *app = app_for(c, json_object_get(msg, "env"));

    json_object_set_new(config, "name", json_string(name));
    inherit_env(config, app);
    d->raw = config;
    d->core = core;
    d->options_size = text_size(config) + text_size(core) + text_size(app->runtime_env);
    if (check_room(c, app, name, d->options_size, err) < 0 ||
        rs_deployment_conf_from_json(&d->conf, config, err) < 0 ||
        set_strategy(c, d, json_object_get(msg, "strategy"), err) < 0) {
        rs_ct_deployment_free(d);
        return -1;
    }
    if (d->group) {
        json_object_set_new(core, "group", json_string(d->group));
        json_object_set_new(
            core, "capture",
            json_boolean(rs_json_bool(json_object_get(msg, "strategy"), "capture", false)));
    }
    d->app = app;
    d->name = rs_strdup(name);
    d->heavy = rs_strdup("1");
    d->version = rs_asprintf("%u", ++c->core.serial);
    d->message = rs_strdup("");
    d->wanted = 1;
    rs_ct_deployment_free(rs_map_put(&app->deployments, name, d)); /* one that was on its way out */
    *ret = d;
    return 0;
}

/* It leaves the targets with the next round; its record goes when no node runs it any more. */
void rs_ct_core_deployment_gone(struct rs_ct_deployment *d)
{
    d->gone = true;
    d->wanted = 0;
    d->n_slots = 0;
}

static bool ended(const struct rs_controller *c, const struct rs_ct_deployment *d)
{
    struct rs_ct_seen s = rs_ct_look(c, d);

    return s.fresh && s.running + s.updating + s.starting + s.stopping + s.old_live == 0;
}

static void forget_gone(struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.apps); i++) {
        const char *app_name = NULL;
        struct rs_ct_app *app = rs_map_at(&c->core.apps, i, &app_name);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const char *name = NULL;
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, &name);

            if (!d || !d->gone || !ended(c, d))
                continue;
            rs_map_remove(&app->deployments, name);
            rs_ct_deployment_free(d);
        }
        if (app && rs_map_count(&app->deployments) == 0) {
            rs_map_remove(&c->core.apps, app_name);
            rs_ct_app_free(app);
        }
    }
}

/* The last ones that died are remembered: who still has a handle is told why. */
static void forget_dead(struct rs_controller *c)
{
    size_t dead = 0;

    for (size_t i = 0; i < rs_map_slots(&c->core.actors); i++) {
        const struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, NULL);

        dead += a && a->state == RS_ACTOR_DEAD;
    }
    for (size_t i = 0; dead > DEAD_KEPT && i < rs_map_slots(&c->core.actors); i++) {
        const char *id = NULL;
        struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, &id);

        if (!a || a->state != RS_ACTOR_DEAD)
            continue;
        rs_map_remove(&c->core.actors, id);
        rs_ct_actor_free(a);
        dead--;
    }
}

void rs_ct_core_update(struct rs_controller *c, int64_t now)
{
    rs_ct_actors_update(c, now);
    rs_ct_pools_update(c, now);
    forget_gone(c);
    forget_dead(c);
}

int64_t rs_ct_core_deadline(const struct rs_controller *c)
{
    return rs_ct_pools_deadline(c);
}

/* --- clients --- */

static void client_gone(struct rs_controller *c, const char *client, int64_t now)
{
    rs_ct_actors_client_gone(c, client, now);
    rs_ct_pools_client_gone(c, client, now);
    rs_ct_groups_client_gone(c, client, now);
}

/* Every client that is known for what it holds; processes of other nodes have other prefixes. */
static void collect(struct rs_map *into, const char *client, const char *prefix)
{
    if (client && strncmp(client, prefix, strlen(prefix)) == 0 && !rs_map_get(into, client))
        rs_map_put(into, client, into);
}

static void collect_keys(struct rs_map *into, const struct rs_map *from, const char *prefix)
{
    for (size_t i = 0; i < rs_map_slots(from); i++) {
        const char *client = NULL;

        if (rs_map_at(from, i, &client))
            collect(into, client, prefix);
    }
}

void rs_ct_core_node_left(struct rs_controller *c, const struct rs_ct_node *n, int64_t now)
{
    rs_auto(rs_freep) char *prefix = rs_asprintf("%s/", n->id);
    struct rs_map clients = {0};

    for (size_t i = 0; i < rs_map_slots(&c->core.actors); i++) {
        const struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, NULL);

        if (a) {
            collect(&clients, a->owner, prefix);
            collect_keys(&clients, &a->holders, prefix);
        }
    }
    for (size_t i = 0; i < rs_map_slots(&c->core.pools); i++) {
        const struct rs_ct_pool *p = rs_map_at(&c->core.pools, i, NULL);

        if (p)
            collect_keys(&clients, &p->demands, prefix);
    }
    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        const struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        if (g)
            collect(&clients, g->owner, prefix);
    }
    rs_ct_actors_node_left(c, n, now);
    rs_ct_groups_node_left(c, n);
    for (size_t i = 0; i < rs_map_slots(&clients); i++) {
        const char *client = NULL;

        if (rs_map_at(&clients, i, &client))
            client_gone(c, client, now);
    }
    rs_map_fini(&clients);
}

/* --- ops --- */

static json_t *answer(struct rs_controller *c, const char *client, const json_t *msg, int64_t now)
{
    const char *op = rs_json_str(msg, "op", "");
    json_t *reply = rs_ct_actor_op(c, client, op, msg, now);

    if (!reply)
        reply = rs_ct_pool_op(c, client, op, msg, now);
    if (!reply)
        reply = rs_ct_group_op(c, client, op, msg, now);
    if (!reply && strcmp(op, "list") == 0)
        reply = rs_ct_list_op(c, msg, now);
    if (!reply && strcmp(op, "resources") == 0)
        reply = rs_ct_resources_op(c);
    if (!reply)
        reply = rs_ct_core_refuse("NotImplementedError", "the head does not know the op '%s'", op);
    return reply;
}

/* Whether an op may change what should run. */
static bool changes(const json_t *msg)
{
    static const char *const only_tell[] = {"actor_info", "get_actor", "spec",
                                            "hold",       "list",      "resources",
                                            "group_info", "pool_info", "cancel_task"};
    const char *op = rs_json_str(msg, "op", "");

    for (size_t i = 0; i < sizeof(only_tell) / sizeof(only_tell[0]); i++)
        if (strcmp(op, only_tell[i]) == 0)
            return false;
    return true;
}

void rs_controller_core(struct rs_controller *c, const char *node_id, const json_t *up, int64_t now)
{
    const char *gone = rs_json_str(up, "gone", NULL);
    const char *from = rs_json_str(up, "from", "");
    rs_auto(rs_freep) char *client = rs_asprintf("%s/%s", node_id, gone ? gone : from);
    int64_t stream = rs_json_int(up, "stream", 0);

    if (!rs_map_get(&c->nodes, node_id))
        return;
    if (gone) {
        client_gone(c, client, now);
        rs_ct_update(c, now);
        return;
    }
    rs_auto(rs_json_decrefp) json_t *reply = answer(c, client, json_object_get(up, "msg"), now);
    rs_auto(rs_json_decrefp) json_t *down = NULL;

    /* The nodes hear of what is new before the answer can be made use of. */
    if (changes(json_object_get(up, "msg")))
        rs_ct_update(c, now);
    if (stream == 0)
        return;
    down = json_pack("{s:s, s:I, s:O}", "to", from, "stream", (json_int_t)stream, "msg", reply);
    c->ops.core(node_id, down, c->arg);
}

void rs_ct_core_fini(struct rs_controller *c)
{
    struct rs_ct_core *k = &c->core;

    for (size_t i = 0; i < rs_map_slots(&k->actors); i++)
        rs_ct_actor_free(rs_map_at(&k->actors, i, NULL));
    for (size_t i = 0; i < rs_map_slots(&k->pools); i++)
        rs_ct_pool_free(rs_map_at(&k->pools, i, NULL));
    for (size_t i = 0; i < rs_map_slots(&k->groups); i++)
        rs_ct_group_free(rs_map_at(&k->groups, i, NULL));
    for (size_t i = 0; i < rs_map_slots(&k->apps); i++)
        rs_ct_app_free(rs_map_at(&k->apps, i, NULL));
    rs_map_fini(&k->actors);
    rs_map_fini(&k->names);
    rs_map_fini(&k->pools);
    rs_map_fini(&k->groups);
    rs_map_fini(&k->apps);
    rs_resources_fini(&k->available);
}
