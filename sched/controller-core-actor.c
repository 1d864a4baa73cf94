/* Actors: a deployment of one replica each, whose end is told to those who have handles. */
#include "sched/controller-core.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "sched/message.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* That live; all of them must fit into one TARGET. */
#define MAX_ACTORS 1000

static const char *const state_names[] = {"PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD"};

const char *rs_ct_actor_state_name(enum rs_ct_actor_state s)
{
    return state_names[s];
}

void rs_ct_actor_free(struct rs_ct_actor *a)
{
    if (!a)
        return;
    json_decref(a->meta);
    rs_map_fini(&a->holders);
    free(a->id);
    free(a->name);
    free(a->namespace_);
    free(a->class_name);
    free(a->spec);
    free(a->owner);
    free(a->cause);
    free(a->app);
    free(a->node_id);
    free(a);
}

static char *name_key(const char *namespace_, const char *name)
{
    return rs_asprintf("%s\n%s", namespace_, name);
}

static struct rs_ct_actor *by_name(const struct rs_controller *c, const char *namespace_,
                                   const char *name)
{
    rs_auto(rs_freep) char *key = name_key(namespace_, name);

    return rs_map_get(&c->core.names, key);
}

static struct rs_ct_actor *by_id(const struct rs_controller *c, const json_t *msg)
{
    return rs_map_get(&c->core.actors, rs_json_str(msg, "actor_id", ""));
}

/* Takes `cause`. */
static void die(struct rs_controller *c, struct rs_ct_actor *a, char *cause, int64_t now)
{
    if (a->state == RS_ACTOR_DEAD) {
        free(cause);
        return;
    }
    a->state = RS_ACTOR_DEAD;
    rs_ct_set(&a->cause, rs_message_bounded(cause));
    free(cause);
    a->ended_at = now;
    if (a->name) {
        rs_auto(rs_freep) char *key = name_key(a->namespace_, a->name);

        rs_map_remove(&c->core.names, key);
    }
    rs_ct_core_deployment_gone(a->d);
    a->d = NULL;
    rs_ct_set(&a->spec, NULL);
}

/* --- what the reports say --- */

/* What the reports say of one actor; gone through once for all of them. */
struct sight {
    bool up, ever_ran;
    unsigned start_failures, deaths;
    const char *last_error;
};

static struct sight *sight_of(struct rs_map *sights, const struct rs_ct_actor *a)
{
    struct sight *s = rs_map_get(sights, a->id);

    if (!s) {
        s = rs_alloc(sizeof(*s));
        rs_map_put(sights, a->id, s);
    }
    return s;
}

static void see_replica(struct rs_map *sights, struct rs_ct_actor *a, const struct rs_ct_node *n,
                        const struct rs_report_replica *r)
{
    if (r->state > RS_REPLICA_UPDATING || strcmp(r->version, a->d->version) != 0)
        return;
    if (!a->node_id || strcmp(a->node_id, n->id) != 0)
        rs_ct_set(&a->node_id, rs_strdup(n->id));
    a->pid = r->pid;
    a->started_at = r->start_time_s;
    sight_of(sights, a)->up |= r->state >= RS_REPLICA_RUNNING;
}

static void see_counters(struct rs_map *sights, const struct rs_ct_actor *a,
                         const struct rs_report_deployment *r)
{
    struct sight *s = sight_of(sights, a);

    if (strcmp(r->version, a->d->version) != 0)
        return;
    s->start_failures += r->start_failures;
    s->deaths += r->deaths;
    s->ever_ran |= r->ever_ran;
    s->last_error = r->last_error ? r->last_error : s->last_error;
}

static struct rs_ct_actor *alive(const struct rs_controller *c, const char *id)
{
    struct rs_ct_actor *a = rs_map_get(&c->core.actors, id);

    return a && a->d ? a : NULL;
}

static void look_around(const struct rs_controller *c, struct rs_map *sights)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);
        struct rs_ct_actor *a;

        for (size_t k = 0; n && n->report && k < n->report->n_replicas; k++)
            if ((a = alive(c, n->report->replicas[k].deployment)))
                see_replica(sights, a, n, &n->report->replicas[k]);
        for (size_t k = 0; n && n->report && k < n->report->n_deployments; k++)
            if ((a = alive(c, n->report->deployments[k].name)))
                see_counters(sights, a, &n->report->deployments[k]);
    }
}

static bool may_restart(const struct rs_ct_actor *a)
{
    return a->max_restarts < 0 || a->restarts < (unsigned)a->max_restarts;
}

/* So many processes may be made for it where it is now; 0: any number. */
static void set_max_starts(struct rs_ct_actor *a)
{
    json_int_t n =
        a->max_restarts < 0 ? 0 : 1 + (json_int_t)a->max_restarts - (json_int_t)a->restarts;

    json_object_set_new(a->d->core, "max_starts", json_integer(n));
}

static void lost_process(struct rs_controller *c, struct rs_ct_actor *a, const char *why,
                         int64_t now)
{
    if (!may_restart(a)) {
        die(c, a,
            rs_asprintf("The actor is dead because its worker process has died. %s",
                        why ? why : ""),
            now);
        return;
    }
    a->restarts++;
    a->state = RS_ACTOR_RESTARTING;
}

static void observe(struct rs_controller *c, struct rs_ct_actor *a, const struct sight *s,
                    int64_t now)
{
    while (a->state != RS_ACTOR_DEAD && s->deaths > a->d->seen_deaths) {
        a->d->seen_deaths++;
        lost_process(c, a, s->last_error, now);
    }
    if (a->state == RS_ACTOR_DEAD)
        return;
    if (s->start_failures > 0 && !s->ever_ran) {
        a->by_constructor = true;
        die(c, a, rs_strdup(s->last_error ? s->last_error : "its process could not be started"),
            now);
    } else if (s->up) {
        a->state = RS_ACTOR_ALIVE;
    }
}

/* The deployment of Serve that it is for, in that version, is wanted or still runs. */
static bool served(const struct rs_controller *c, const json_t *serve)
{
    const struct rs_ct_app *app = rs_map_get(&c->apps, rs_json_str(serve, "app", ""));
    const char *name = rs_json_str(serve, "deployment", "");
    const char *version = rs_json_str(serve, "version", "");
    const struct rs_ct_deployment *d = app ? rs_map_get(&app->deployments, name) : NULL;

    if (d && !d->gone && strcmp(d->version, version) == 0)
        return true;
    for (size_t i = 0; d && i < d->n_old; i++) /* it may be started again */
        if (strcmp(d->old[i]->version, version) == 0 && !d->old[i]->failed)
            return true;
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        for (size_t k = 0; n && n->report && k < n->report->n_replicas; k++) {
            const struct rs_report_replica *r = &n->report->replicas[k];

            if (strcmp(r->deployment, name) == 0 && strcmp(r->version, version) == 0 &&
                strcmp(r->app, rs_json_str(serve, "app", "")) == 0 &&
                r->state != RS_REPLICA_STOPPED)
                return true;
        }
    }
    return false;
}

static void end_with_deployment(struct rs_controller *c, struct rs_ct_actor *a, int64_t now)
{
    const json_t *serve = json_object_get(a->d->core, "serve");

    if (serve && !served(c, serve))
        die(c, a,
            rs_strdup("The actor is dead because the deployment that it was for, in this version, "
                      "does not run any more."),
            now);
}

void rs_ct_actors_update(struct rs_controller *c, int64_t now)
{
    struct rs_map sights = {0};

    look_around(c, &sights);
    for (size_t i = 0; i < rs_map_slots(&c->core.actors); i++) {
        struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, NULL);

        const struct sight *s = a && a->d ? rs_map_get(&sights, a->id) : NULL;

        if (s)
            observe(c, a, s, now);
        if (a && a->d)
            end_with_deployment(c, a, now);
    }
    for (size_t i = 0; i < rs_map_slots(&sights); i++)
        free(rs_map_at(&sights, i, NULL));
    rs_map_fini(&sights);
}

void rs_ct_actors_node_left(struct rs_controller *c, const struct rs_ct_node *n, int64_t now)
{
    rs_auto(rs_freep) char *why = rs_asprintf("The node %s has left.", n->name);

    for (size_t i = 0; i < rs_map_slots(&c->core.actors); i++) {
        struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, NULL);

        if (!a || a->state == RS_ACTOR_DEAD || a->d->n_slots == 0 || a->d->slots[0].node != n)
            continue;
        lost_process(c, a, why, now);
        if (a->state != RS_ACTOR_DEAD)
            set_max_starts(a);
    }
}

void rs_ct_actors_client_gone(struct rs_controller *c, const char *client, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.actors); i++) {
        struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, NULL);

        if (!a)
            continue;
        rs_map_remove(&a->holders, client);
        if (a->state != RS_ACTOR_DEAD && a->owner && strcmp(a->owner, client) == 0)
            die(c, a,
                rs_strdup("The actor is dead because its owner has died. The process that "
                          "created it has ended."),
                now);
    }
}

void rs_ct_actors_group_gone(struct rs_controller *c, const char *group, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.actors); i++) {
        struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, NULL);

        if (a && a->d && a->d->group && strcmp(a->d->group, group) == 0)
            die(c, a, rs_strdup("The actor is dead because its placement group was removed."), now);
    }
}

/* --- ops --- */

static json_t *describe(const struct rs_controller *c, const struct rs_ct_actor *a)
{
    json_t *row = rs_ct_actor_row(c, a);

    json_object_set_new(row, "app", json_string(a->app));
    json_object_set(row, "meta", a->meta);
    json_object_set_new(row, "by_constructor", json_boolean(a->by_constructor));
    if (a->cause)
        json_object_set_new(row, "cause", json_string(a->cause));
    return row;
}

static json_t *created(const struct rs_controller *c, const struct rs_ct_actor *a, bool existing)
{
    json_t *reply = describe(c, a);

    json_object_set_new(reply, "existing", json_boolean(existing));
    return reply;
}

static json_t *config_of(const json_t *msg)
{
    json_int_t ongoing = (json_int_t)rs_json_int(msg, "max_ongoing", 1);
    json_t *options = json_object_get(msg, "options");

    return json_pack("{s:I, s:i, s:f, s:O}", "max_ongoing_requests", ongoing < 1 ? 1 : ongoing,
                     "max_constructor_retry_count", 1, "graceful_shutdown_timeout_s", 5.0,
                     "ray_actor_options", options ? options : json_null());
}

static unsigned living(const struct rs_controller *c)
{
    unsigned n = 0;

    for (size_t i = 0; i < rs_map_slots(&c->core.actors); i++) {
        const struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, NULL);

        n += a && a->state != RS_ACTOR_DEAD;
    }
    return n;
}

/* Any negative number means without end, and one beyond what is counted does so in effect. */
static int restarts_of(const json_t *msg)
{
    json_int_t n = rs_json_int(msg, "max_restarts", 0);

    return n < 0 ? -1 : n > INT_MAX ? INT_MAX : (int)n;
}

static json_t *create(struct rs_controller *c, const char *client, const json_t *msg)
{
    const char *id = rs_json_str(msg, "actor_id", "");
    const char *name = rs_json_str(msg, "name", NULL);
    const char *ns = rs_json_str(msg, "namespace", "");
    const char *spec = rs_json_str(msg, "spec", NULL);
    bool detached = strcmp(rs_json_str(msg, "lifetime", ""), "detached") == 0;
    struct rs_ct_actor *a = name ? by_name(c, ns, name) : NULL;
    struct rs_ct_deployment *d = NULL;
    struct rs_error err = {0};
    json_t *core;

    if (a && rs_json_bool(msg, "get_if_exists", false))
        return created(c, a, true);
    if (a)
        return rs_ct_core_refuse(
            "ActorAlreadyExistsError",
            "Actor with name '%s' already exists in the namespace %s. Please use a different name "
            "or get the existing actor using ray.get_actor('%s', namespace='%s').",
            name, ns, name, ns);
    if (!*id || !spec || rs_map_get(&c->core.actors, id))
        return rs_ct_core_refuse("ValueError",
                                 "create_actor: expected a new actor_id and a spec; got '%s'", id);
    if (living(c) >= MAX_ACTORS)
        return rs_ct_core_refuse("RuntimeError",
                                 "the cluster has %d actors, as many as it can have", MAX_ACTORS);
    core = json_pack("{s:s, s:s, s:s, s:s?, s:s}", "kind", "actor", "actor_id", id, "namespace", ns,
                     "name", name, "class_name", rs_json_str(msg, "class_name", ""));
    if (json_is_object(json_object_get(msg, "serve")))
        json_object_set(core, "serve", json_object_get(msg, "serve"));
    if (rs_ct_core_deployment(c, msg, id, config_of(msg), core, &d, &err) < 0)
        return rs_ct_core_refuse("ValueError", "%s", err.msg);
    a = rs_alloc(sizeof(*a));
    a->id = rs_strdup(id);
    a->name = rs_strdup(name);
    a->namespace_ = rs_strdup(ns);
    a->class_name = rs_strdup(rs_json_str(msg, "class_name", ""));
    a->spec = rs_strdup(spec);
    a->meta = json_deep_copy(json_object_get(msg, "meta"));
    a->owner = detached ? NULL : rs_strdup(client);
    a->max_restarts = restarts_of(msg);
    a->d = d;
    a->app = rs_strdup(d->app->name);
    set_max_starts(a);
    rs_map_put(&c->core.actors, id, a);
    if (name) {
        rs_auto(rs_freep) char *key = name_key(ns, name);

        rs_map_put(&c->core.names, key, a);
    }
    return created(c, a, false);
}

static json_t *look_up(struct rs_controller *c, const json_t *msg)
{
    const char *name = rs_json_str(msg, "name", "");
    const char *ns = rs_json_str(msg, "namespace", "");
    struct rs_ct_actor *a = by_name(c, ns, name);

    if (!a)
        return rs_ct_core_refuse(
            "ValueError",
            "Failed to look up actor with name '%s'. This could because 1. You are trying to look "
            "up a named actor you didn't create. 2. The named actor died. 3. You did not use a "
            "namespace matching the namespace of the actor.",
            name);
    return describe(c, a);
}

static json_t *kill_it(struct rs_controller *c, struct rs_ct_actor *a, const json_t *msg,
                       int64_t now)
{
    if (a->state == RS_ACTOR_DEAD)
        return json_object();
    if (rs_json_bool(msg, "no_restart", true) || !may_restart(a)) {
        die(c, a, rs_strdup("The actor is dead because it was killed by `ray.kill`."), now);
    } else {
        rs_auto(rs_json_decrefp) json_t *order =
            json_pack("{s:s, s:s}", "app", a->app, "kill", a->id);

        for (size_t s = 0; s < a->d->n_slots; s++)
            c->ops.core(a->d->slots[s].node->id, order, c->arg);
    }
    return json_object();
}

static json_t *let_go(struct rs_controller *c, struct rs_ct_actor *a, const char *client,
                      int64_t now)
{
    rs_map_remove(&a->holders, client);
    if (a->held && a->owner && rs_map_count(&a->holders) == 0)
        die(c, a, rs_strdup("The actor is dead because all references to the actor were removed."),
            now);
    return json_object();
}

json_t *rs_ct_actor_op(struct rs_controller *c, const char *client, const char *op,
                       const json_t *msg, int64_t now)
{
    static const char *const ours[] = {"actor_info", "spec",       "hold",
                                       "release",    "kill_actor", "exit_actor"};
    struct rs_ct_actor *a;
    bool known = false;

    if (strcmp(op, "create_actor") == 0)
        return create(c, client, msg);
    if (strcmp(op, "get_actor") == 0)
        return look_up(c, msg);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        known |= strcmp(op, ours[i]) == 0;
    if (!known)
        return NULL;
    a = by_id(c, msg);
    if (!a)
        return rs_ct_core_refuse("ValueError", "no actor %s is known",
                                 rs_json_str(msg, "actor_id", "?"));
    if (strcmp(op, "actor_info") == 0)
        return describe(c, a);
    if (strcmp(op, "kill_actor") == 0)
        return kill_it(c, a, msg, now);
    if (strcmp(op, "release") == 0)
        return let_go(c, a, client, now);
    if (strcmp(op, "exit_actor") == 0) {
        die(c, a,
            rs_strdup("The actor is dead because its worker process has died. Worker exit type: "
                      "INTENDED_USER_EXIT Worker exit detail: exit_actor() was called."),
            now);
    } else if (strcmp(op, "hold") == 0) {
        a->held = true;
        if (!rs_map_get(&a->holders, client))
            rs_map_put(&a->holders, client, a);
    } else if (a->spec) {
        return json_pack("{s:s}", "spec", a->spec);
    } else {
        return rs_ct_core_refuse("RuntimeError", "actor %s is dead", a->id);
    }
    return json_object();
}
