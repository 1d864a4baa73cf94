/* What a configuration would do, told without doing it. The decisions are those of controller-change.c,
 * the very ones that a deploy carries out; the graph of changed code comes from a build of its own, in a
 * zygote that nothing is forked from.
 */
#include "sched/controller-plan.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "sched/message.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PLANS_MAX 16               /* at a time */
#define KEPT_FOR (60 * RS_SEC)     /* until it is asked for */
#define SLACK (15 * RS_SEC)        /* what a node may be late with its own build_timeout_s */
#define ENVIRONMENT (600 * RS_SEC) /* what making a runtime_env may take for a plan */

struct rs_ct_plan {
    uint64_t id;
    struct rs_config *config;
    json_t *builds;   /* {app: {"version", "node" or null, "ok", "answer" or null}} */
    int64_t deadline; /* for the builds; then until it is forgotten */
    json_t *result;   /* NULL: not all is known yet */
};

static void plan_free(struct rs_ct_plan *p)
{
    rs_config_free(p->config);
    json_decref(p->builds);
    json_decref(p->result);
    free(p);
}

void rs_ct_plans_free(struct rs_controller *c)
{
    for (size_t i = 0; i < c->n_plans; i++)
        plan_free(c->plans[i]);
    free(c->plans);
}

/* --- one application ----------------------------------------------------------------------------- */

/* An application of the plan, until it is told. */
struct entry {
    const char *name;
    const struct rs_ct_app *app;      /* NULL: it is new */
    const struct rs_config_app *conf; /* NULL: it goes */
    struct rs_ct_changes changes;
    bool built;   /* a node did that, for the plan */
    bool build;   /* its code is another than what runs */
    bool assumed; /* the graph is that of now: nobody could build it */
    char *error;  /* why the deploy would fail; NULL */
    char *note;   /* NULL */
};

static void entry_fini(struct entry *e)
{
    rs_ct_changes_fini(&e->changes);
    free(e->error);
    free(e->note);
}

/* As the application would say it. */
static char *failure_of(const char *app, const json_t *failed)
{
    rs_auto(rs_freep) char *text = rs_ct_build_error(app, failed);

    return rs_message_bounded(text);
}

static void decide(struct entry *e, const struct rs_controller *c, const struct rs_config *config,
                   const char *version, const json_t *described)
{
    const struct rs_ct_wish wish = {config, e->conf, version, described};
    struct rs_error err = {0};

    if (rs_ct_decide(&e->changes, c, e->app, &wish, &err) < 0)
        e->error = rs_asprintf("Deploying app '%s' failed with exception:\n%s", e->name, err.msg);
}

/* `answer`: what the build for the plan gave; NULL: there was none. */
static void decide_built(struct entry *e, const struct rs_controller *c,
                         const struct rs_config *config, const json_t *answer)
{
    unsigned attempt;
    rs_auto(rs_freep) char *version =
        rs_ct_build_version(e->app, rs_config_app_code_hash(e->conf), &attempt);
    const json_t *got = json_object_get(answer, "answer");

    e->build = true;
    if (json_is_object(got) && rs_json_bool(answer, "ok", false)) {
        e->built = true;
        decide(e, c, config, version, got);
    } else if (json_is_object(got)) {
        e->error = failure_of(e->name, got);
    } else if (e->app && e->app->described) {
        e->assumed = true;
        e->note = rs_strdup("no node is there to import the code: its deployments are taken to be "
                            "those of now");
        decide(e, c, config, version, e->app->described);
    } else {
        e->note = rs_strdup("no node is there to import the code: its deployments are not known");
    }
}

static void decide_entry(struct entry *e, const struct rs_controller *c,
                         const struct rs_config *config, const json_t *builds)
{
    rs_auto(rs_freep) char *version = NULL;

    switch (rs_ct_way(e->app, e->conf)) {
    case RS_WAY_REFUSED:
        e->error = rs_strdup(e->conf->failure);
        break;
    case RS_WAY_FILE:
        version = rs_asprintf("%016" PRIx64, rs_config_app_code_hash(e->conf));
        decide(e, c, config, version, NULL);
        break;
    case RS_WAY_KNOWN:
        decide(e, c, config, e->app->version, e->app->described);
        break;
    case RS_WAY_UNDER_WAY:
    case RS_WAY_BUILD:
        decide_built(e, c, config, json_object_get(builds, e->name));
        break;
    }
}

static void decide_going(struct entry *e, const struct rs_controller *c)
{
    const struct rs_map *all = &e->app->deployments;

    e->changes.items = rs_alloc((rs_map_count(all) + 1) * sizeof(*e->changes.items));
    for (size_t i = 0; i < rs_map_slots(all); i++) {
        const struct rs_ct_deployment *d = rs_map_at(all, i, NULL);

        if (d && !d->gone)
            e->changes.items[e->changes.n++] = rs_ct_change_removed(c, d);
    }
}

struct entries {
    struct entry *all;
    size_t n, cap;
};

static void entries_fini(struct entries *s)
{
    for (size_t i = 0; i < s->n; i++)
        entry_fini(&s->all[i]);
    free(s->all);
}

static struct entry *entry_add(struct entries *s, const char *name, const struct rs_ct_app *app)
{
    s->all = rs_grow(s->all, &s->cap, s->n + 1, sizeof(*s->all));
    s->all[s->n] = (struct entry){.name = name, .app = app};
    return &s->all[s->n++];
}

/* Every application that `config` names or deletes. */
static void decide_all(struct entries *s, struct rs_controller *c, const struct rs_config *config,
                       const json_t *builds)
{
    bool rises = c->capacity_rises; /* put back: this is no deploy */

    rs_ct_capacity(c, c->config, config);
    for (size_t i = 0; i < config->app_count; i++) {
        const struct rs_config_app *conf = &config->apps[i];
        struct entry *e = entry_add(s, conf->name, rs_map_get(&c->apps, conf->name));

        e->conf = conf;
        decide_entry(e, c, config, builds);
    }
    c->capacity_rises = rises;
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app && !app->own && !app->deleting && !rs_config_find_app(config, app->name))
            decide_going(entry_add(s, app->name, app), c);
    }
}

/* --- as JSON ------------------------------------------------------------------------------------- */

static bool is_quiet(const char *key)
{
    return strcmp(key, "deployments") == 0 || strcmp(key, "name") == 0;
}

static void add_option(json_t *out, const char *name, const json_t *before, const json_t *after)
{
    if (!json_equal(before, after))
        json_array_append_new(
            out, json_pack("{s:s, s:O?, s:O?}", "field", name, "old", before, "new", after));
}

/* Options of the application itself that differ, as the user wrote them; those below rserve one by one. */
static json_t *app_fields(const struct entry *e)
{
    rs_auto(rs_json_decrefp) json_t *after = e->conf ? rs_config_app_echo(e->conf) : NULL;
    rs_auto(rs_json_decrefp) json_t *keys = json_object();
    const json_t *before = e->app ? e->app->echo : NULL;
    json_t *out = json_array(), *value;
    const char *key;

    if (!before || !after)
        return out;
    json_object_update(keys, (json_t *)(uintptr_t)before);
    json_object_update_missing(keys, after);
    json_object_foreach (keys, key, value) {
        const json_t *a = json_object_get(before, key), *b = json_object_get(after, key);
        rs_auto(rs_json_decrefp) json_t *inner = json_object();
        const char *name;

        if (is_quiet(key))
            continue;
        if (strcmp(key, "rserve") != 0) {
            add_option(out, key, a, b);
            continue;
        }
        json_object_update(inner, (json_t *)(uintptr_t)a);
        json_object_update_missing(inner, (json_t *)(uintptr_t)b);
        json_object_foreach (inner, name, value) {
            rs_auto(rs_freep) char *path = rs_asprintf("rserve.%s", name);

            if (strcmp(name, "app_dir") == 0 && e->app->app_dir && e->conf->app_dir &&
                strcmp(e->app->app_dir, e->conf->app_dir) == 0)
                continue; /* whether it was said or is the default */
            add_option(out, path, json_object_get(a, name), json_object_get(b, name));
        }
    }
    return out;
}

static json_t *nodes_json(const struct rs_ct_room *room, const struct rs_ct_outlook *o)
{
    json_t *j = json_object();

    for (size_t i = 0; o->on_node && i < room->n_nodes; i++)
        if (o->on_node[i])
            json_object_set_new(j, room->nodes[i], json_integer(o->on_node[i]));
    return j;
}

static json_t *surge_json(const struct rs_ct_outlook *o)
{
    bool none = o->surge_fits == 0;
    const struct rs_rollout_conf *conf = &o->change->conf->rollout;
    const char *full = rs_rollout_when_full_name(
        o->surge == 0 ? RS_FULL_STOP_FIRST : (enum rs_rollout_when_full)conf->when_full);

    return json_pack("{s:i, s:i, s:s, s:s?}", "wanted", (int)o->surge, "fits", (int)o->surge_fits,
                     "how", none ? full : "surge", "why", o->surge_why);
}

static json_t *deployment_json(const struct entry *e, const struct rs_ct_change *c,
                               const struct rs_ct_room *room)
{
    const struct rs_ct_outlook *o = rs_ct_room_find(room, e->name, c->name);
    json_t *j = json_pack(
        "{s:s, s:s, s:o, s:{s:i, s:i, s:i, s:i, s:i}, s:{s:o, s:o}, s:o, s:b}", "name", c->name,
        "change", rs_ct_step_name(c->step), "fields", rs_ct_change_fields(e->app, c, e->conf),
        "replicas", "before", (int)c->before, "after", (int)c->wanted, "live", (int)c->live,
        "starts", (int)rs_ct_change_starts(c), "stops", (int)rs_ct_change_stops(c), "resources",
        "each", c->conf ? rs_resources_json(&c->conf->resources) : json_null(), "peak",
        rs_resources_json(&o->peak), "nodes", nodes_json(room, o), "gap", rs_ct_outlook_gap(o));

    if (c->step == RS_CHANGE_ROLLING)
        json_object_set_new(j, "surge", surge_json(o));
    if (o->pending)
        json_object_set_new(j, "pending",
                            json_pack("{s:i, s:s?}", "replicas", (int)o->pending, "why", o->why));
    return j;
}

static const char *change_of(const struct entry *e)
{
    if (!e->conf)
        return "removed";
    if (e->error)
        return "failed";
    return e->app && e->app->live && !e->app->deleting ? "deployed" : "new";
}

static json_t *entry_json(const struct entry *e, const struct rs_ct_room *room)
{
    json_t *list = json_array();

    for (size_t i = 0; i < e->changes.n; i++)
        json_array_append_new(list, deployment_json(e, &e->changes.items[i], room));
    return json_pack("{s:s, s:s, s:s?, s:o, s:b, s:b, s:s?, s:s?, s:o}", "name", e->name, "change",
                     change_of(e), "route_prefix",
                     e->conf  ? e->conf->route_prefix
                     : e->app ? e->app->route_prefix
                              : NULL,
                     "fields", app_fields(e), "built", e->built, "assumed", e->assumed, "error",
                     e->error, "note", e->note, "deployments", list);
}

/* Counts of each kind of change, and what all of it comes to. */
static json_t *summary_json(const struct entries *s, const struct rs_ct_room *room, bool *fits)
{
    unsigned count[RS_CHANGE_COUNT] = {0}, restarts = 0, failed = 0, starts = 0, stops = 0;
    json_t *j = json_object();

    *fits = true;
    for (size_t i = 0; i < room->n; i++)
        *fits &= room->all[i].pending == 0;
    for (size_t i = 0; i < s->n; i++) {
        failed += s->all[i].error != NULL;
        for (size_t k = 0; k < s->all[i].changes.n; k++) {
            const struct rs_ct_change *c = &s->all[i].changes.items[k];

            count[c->step]++;
            restarts += rs_ct_change_restarts(c) ? c->live : 0;
            starts += rs_ct_change_starts(c);
            stops += rs_ct_change_stops(c);
        }
    }
    for (int i = 0; i < RS_CHANGE_COUNT; i++)
        json_object_set_new(j, rs_ct_step_name((enum rs_ct_step)i), json_integer(count[i]));
    json_object_set_new(j, "failed", json_integer(failed));
    json_object_set_new(j, "restarts", json_integer(restarts));
    json_object_set_new(j, "starts", json_integer(starts));
    json_object_set_new(j, "stops", json_integer(stops));
    return j;
}

static json_t *entries_json(const struct entries *s, const struct rs_controller *c)
{
    rs_auto(rs_ct_room_fini) struct rs_ct_room room = {0};
    json_t *list = json_array(), *summary;
    bool fits;

    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < s->all[i].changes.n; k++)
            rs_ct_room_add(&room, s->all[i].app, s->all[i].name, &s->all[i].changes.items[k]);
    rs_ct_room_look(&room, c);
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(list, entry_json(&s->all[i], &room));
    summary = summary_json(s, &room, &fits);
    return json_pack("{s:s, s:o, s:o, s:b, s:{s:o, s:o, s:o}}", "state", "ready", "applications",
                     list, "summary", summary, "fits", fits, "resources", "now",
                     rs_resources_json(&room.now), "peak", rs_resources_json(&room.peak), "total",
                     rs_resources_json(&room.total));
}

/* --- builds -------------------------------------------------------------------------------------- */

static bool needs_build(const struct rs_controller *c, const struct rs_config_app *conf)
{
    enum rs_ct_way way = rs_ct_way(rs_map_get(&c->apps, conf->name), conf);

    return way == RS_WAY_BUILD || way == RS_WAY_UNDER_WAY;
}

static void set_answer(json_t *build, const json_t *answer, bool ok)
{
    json_object_set_new(build, "answer", json_deep_copy(answer));
    json_object_set_new(build, "ok", json_boolean(ok));
}

static void send_builds(struct rs_controller *c, struct rs_ct_plan *p)
{
    const struct rs_ct_node *n = rs_ct_builder(c);
    const char *name;
    json_t *build;

    json_object_foreach (p->builds, name, build) {
        const struct rs_config_app *conf = rs_config_find_app(p->config, name);
        rs_auto(rs_json_decrefp) json_t *msg = NULL;

        if (!n || json_object_get(build, "node") || json_object_get(build, "answer"))
            continue;
        json_object_set_new(build, "node", json_string(n->id));
        msg = rs_ct_build_message(conf, rs_json_str(build, "version", ""));
        json_object_set_new(msg, "plan", json_true()); /* the zygote ends when it has answered */
        c->ops.build(n->id, msg, c->arg);
    }
}

/* All builds are answered, or there is nobody to ask. */
static bool is_known(const struct rs_controller *c, const struct rs_ct_plan *p)
{
    const char *name;
    json_t *build;

    if (!rs_ct_builder(c))
        return true;
    json_object_foreach (p->builds, name, build)
        if (!json_object_get(build, "answer"))
            return false;
    return true;
}

static void give_up(const struct rs_controller *c, struct rs_ct_plan *p)
{
    const char *name;
    json_t *build;

    json_object_foreach (p->builds, name, build) {
        rs_auto(rs_json_decrefp) json_t *failed =
            json_pack("{s:s, s:s}", "kind", "TimeoutError", "error",
                      "the node did not say in time what the application consists of");

        if (json_object_get(build, "answer"))
            continue;
        if (json_object_get(build, "node"))
            rs_ct_cancel_build(c, rs_json_str(build, "node", ""), name,
                               rs_json_str(build, "version", ""));
        set_answer(build, failed, false);
    }
}

static void finish(struct rs_controller *c, struct rs_ct_plan *p, int64_t now)
{
    rs_auto(entries_fini) struct entries s = {0};

    decide_all(&s, c, p->config, p->builds);
    p->result = entries_json(&s, c);
    json_object_set_new(p->result, "id", json_integer((json_int_t)p->id));
    p->deadline = now + KEPT_FOR;
}

void rs_ct_plans_update(struct rs_controller *c, int64_t now)
{
    size_t kept = 0;

    for (size_t i = 0; i < c->n_plans; i++) {
        struct rs_ct_plan *p = c->plans[i];

        if (p->result && now >= p->deadline) {
            plan_free(p);
            continue;
        }
        if (!p->result && now >= p->deadline)
            give_up(c, p);
        if (!p->result)
            send_builds(c, p);
        if (!p->result && is_known(c, p))
            finish(c, p, now);
        c->plans[kept++] = p;
    }
    c->n_plans = kept;
}

int64_t rs_ct_plans_deadline(const struct rs_controller *c)
{
    int64_t at = INT64_MAX;

    for (size_t i = 0; i < c->n_plans; i++)
        at = c->plans[i]->deadline < at ? c->plans[i]->deadline : at;
    return at;
}

bool rs_ct_plans_answer(struct rs_controller *c, const json_t *answer, bool ok, int64_t now)
{
    const char *version = rs_json_str(answer, "version", "");

    for (size_t i = 0; i < c->n_plans; i++) {
        json_t *build = json_object_get(c->plans[i]->builds, rs_json_str(answer, "app", ""));

        if (!build || strcmp(rs_json_str(build, "version", ""), version) != 0)
            continue;
        set_answer(build, answer, ok);
        rs_ct_plans_update(c, now);
        return true;
    }
    return false;
}

void rs_ct_plans_node_left(struct rs_controller *c, const char *node_id)
{
    for (size_t i = 0; i < c->n_plans; i++) {
        const char *name;
        json_t *build;

        json_object_foreach (c->plans[i]->builds, name, build)
            if (strcmp(rs_json_str(build, "node", ""), node_id) == 0)
                json_object_del(build, "node"); /* another one is asked */
    }
}

/* --- from outside -------------------------------------------------------------------------------- */

int rs_controller_plan(struct rs_controller *c, struct rs_config *config, int64_t now,
                       uint64_t *ret, struct rs_error *err)
{
    struct rs_ct_plan *p;
    int64_t longest = 0;

    if (c->n_plans == PLANS_MAX) {
        rs_config_free(config);
        return rs_error_set(err, RS_NO_ROOM,
                            "%d plans are being made or wait to be fetched; one more has no room",
                            PLANS_MAX);
    }
    p = rs_alloc(sizeof(*p));
    p->id = ++c->plan_serial;
    p->config = config;
    p->builds = json_object();
    for (size_t i = 0; i < config->app_count; i++) {
        const struct rs_config_app *conf = &config->apps[i];
        rs_auto(rs_freep) char *version = rs_asprintf("plan-%" PRIu64, p->id);

        if (!needs_build(c, conf))
            continue;
        longest = conf->build_timeout > longest ? conf->build_timeout : longest;
        json_object_set_new(p->builds, conf->name, json_pack("{s:s}", "version", version));
    }
    p->deadline = now + longest + SLACK + ENVIRONMENT;
    c->plans = rs_realloc(c->plans, (c->n_plans + 1) * sizeof(struct rs_ct_plan *));
    c->plans[c->n_plans++] = p;
    *ret = p->id;
    rs_ct_plans_update(c, now);
    return 0;
}

int rs_controller_plan_result(struct rs_controller *c, uint64_t id, json_t **ret,
                              struct rs_error *err)
{
    for (size_t i = 0; i < c->n_plans; i++) {
        const struct rs_ct_plan *p = c->plans[i];

        if (p->id != id)
            continue;
        *ret = p->result ? json_incref(p->result)
                         : json_pack("{s:I, s:s}", "id", (json_int_t)id, "state", "building");
        return 0;
    }
    return rs_error_set(err, RS_NOT_FOUND, "there is no plan %" PRIu64 "; one is kept for a minute",
                        id);
}

/* The first option that would restart replicas, as text. New. */
static char *cause_of(const json_t *fields)
{
    const json_t *f = json_array_get(fields, 0);
    rs_auto(rs_freep) char *before =
        json_dumps(json_object_get(f, "old"), JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    rs_auto(rs_freep) char *after =
        json_dumps(json_object_get(f, "new"), JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);

    return rs_asprintf("%s changes from %.80s to %.80s", rs_json_str(f, "field", "its code"),
                       before ? before : "null", after ? after : "null");
}

static int refuse(const struct entry *e, const char *deployment, unsigned live, json_t *fields,
                  struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *list = fields;
    rs_auto(rs_freep) char *cause = cause_of(list);

    return rs_error_set(err, RS_CONFLICT,
                        "nothing was deployed: %u replica%s of deployment '%s' of application "
                        "'%s' would be restarted, because %s",
                        live, live == 1 ? "" : "s", deployment, e->name, cause);
}

/* Code that is to be built is other code: whatever graph it has, nothing of the old one stays. */
static int check_built(const struct entry *e, const struct rs_controller *c, struct rs_error *err)
{
    for (size_t i = 0; e->app && i < rs_map_slots(&e->app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&e->app->deployments, i, NULL);
        struct rs_ct_change going;

        if (!d || d->gone || d->conf->kind != RS_KIND_PYTHON)
            continue;
        going = rs_ct_change_removed(c, d);
        if (going.live > 0)
            return refuse(e, d->name, going.live, rs_ct_code_fields(e->app, e->conf), err);
    }
    return 0;
}

static int check_entry(const struct entry *e, const struct rs_controller *c, struct rs_error *err)
{
    if (e->conf && e->build)
        return check_built(e, c, err);
    for (size_t i = 0; i < e->changes.n; i++) {
        const struct rs_ct_change *x = &e->changes.items[i];

        if (rs_ct_change_restarts(x))
            return refuse(e, x->name, x->live, rs_ct_change_fields(e->app, x, e->conf), err);
    }
    return 0;
}

int rs_controller_check_restarts(struct rs_controller *c, const struct rs_config *config,
                                 struct rs_error *err)
{
    rs_auto(entries_fini) struct entries s = {0};

    decide_all(&s, c, config, NULL);
    for (size_t i = 0; i < s.n; i++) {
        if (check_entry(&s.all[i], c, err) == 0)
            continue;
        rs_ct_emit(c, &(struct rs_controller_event){.kind = RS_EVENT_PLAN,
                                                    .app = s.all[i].name,
                                                    .status = "REFUSED",
                                                    .cause = "restart",
                                                    .text = err->msg});
        rs_ct_set(&c->who, NULL);
        return -1;
    }
    return 0;
}
