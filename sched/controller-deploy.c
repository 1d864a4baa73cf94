/* What is wanted: from a configuration, and from the graph that the code describes. */
#include "sched/controller-change.h"

#include "core/base/alloc.h"
#include "sched/controller-roll.h"
#include "sched/message.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rs_ct_deployment_free(struct rs_ct_deployment *d)
{
    if (!d)
        return;
    rs_ct_roll_drop(d);
    rs_ct_units_free(d);
    rs_deployment_conf_free(d->conf);
    rs_autoscale_fini(&d->scale);
    rs_ct_ahead_fini(&d->ahead);
    json_decref(d->stats);
    json_decref(d->chosen);
    rs_minutes_fini(&d->refused);
    free(d->policy_error);
    rs_ct_canary_free(d);
    free(d->roll_text);
    json_decref(d->code);
    free(d->name);
    free(d->heavy);
    free(d->version);
    free(d->up_on);
    free(d->slots);
    json_decref(d->core);
    json_decref(d->raw);
    free(d->pinned);
    free(d->group);
    free(d->blocked);
    free(d->notice);
    free(d->message);
    free(d);
}

void rs_ct_app_free(struct rs_ct_app *app)
{
    if (!app)
        return;
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++)
        rs_ct_deployment_free(rs_map_at(&app->deployments, i, NULL));
    rs_map_fini(&app->deployments);
    rs_ct_policy_free(app);
    rs_minutes_fini(&app->refused);
    rs_graph_free(app->graph);
    rs_config_free(app->own);
    json_decref(app->echo);
    json_decref(app->described);
    json_decref(app->args);
    json_decref(app->runtime_env);
    json_decref(app->ingress_policy);
    json_decref(app->declared);
    json_decref(app->live_options);
    free(app->zygote);
    free(app->who);
    free(app->name);
    free(app->build_version);
    free(app->builder);
    free(app->failure);
    free(app->version);
    free(app->route_prefix);
    free(app->route_wanted);
    free(app->route_trouble);
    free(app->docs_path);
    free(app->import_path);
    free(app->app_dir);
    free(app->python);
    free(app->start_reason);
    free(app->message);
    free(app);
}

void rs_ct_app_failed(struct rs_ct_app *app, char *message)
{
    rs_ct_set(&app->failure, rs_message_bounded(message));
    free(message);
}

void rs_ct_cancel_build(const struct rs_controller *c, const char *node_id, const char *app,
                        const char *version)
{
    rs_auto(rs_json_decrefp) json_t *msg =
        json_pack("{s:s, s:s, s:b}", "app", app, "version", version, "cancel", 1);

    if (rs_map_get(&c->nodes, node_id))
        c->ops.build(node_id, msg, c->arg);
}

/* Nobody waits for it any more. */
static void stop_building(struct rs_ct_app *app)
{
    if (app->build == RS_BUILD_RUNNING)
        rs_ct_cancel_build(app->controller, app->builder, app->name, app->build_version);
    app->build = RS_BUILD_NONE;
    rs_ct_set(&app->builder, NULL);
}

void rs_ct_app_delete(struct rs_ct_app *app)
{
    if (app->deleting)
        return;
    app->conf = NULL;
    app->deleting = true;
    app->unrouted_at = 0;
    app->held = true; /* until the routes are looked at, in this very round */
    stop_building(app);
    if (!app->live)
        rs_ct_app_release(app);
}

void rs_ct_app_release(struct rs_ct_app *app)
{
    app->held = false;
    rs_ct_set(&app->route_prefix, NULL);
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d)
            rs_ct_deployment_gone(d);
    }
}

/* --- builds --- */

enum rs_ct_way rs_ct_way(const struct rs_ct_app *app, const struct rs_config_app *conf)
{
    uint64_t code = rs_config_app_code_hash(conf);

    if (conf->failure)
        return RS_WAY_REFUSED;
    if (!conf->import_path)
        return RS_WAY_FILE;
    if (app && (app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING) &&
        app->code == code)
        return RS_WAY_UNDER_WAY;
    return app && app->live && app->live_code == code && app->described ? RS_WAY_KNOWN
                                                                        : RS_WAY_BUILD;
}

char *rs_ct_build_version(const struct rs_ct_app *app, uint64_t code, unsigned *attempt)
{
    *attempt = app && app->build_version && app->code == code ? app->attempt + 1 : 0;
    /* Another try with the same code has another name, so that no late answer is taken for its. */
    return *attempt ? rs_asprintf("%016" PRIx64 ".%u", code, *attempt)
                    : rs_asprintf("%016" PRIx64, code);
}

static void want_build(struct rs_ct_app *app, uint64_t code)
{
    stop_building(app);
    rs_ct_set(&app->build_version, rs_ct_build_version(app, code, &app->attempt));
    app->code = code;
    app->build = RS_BUILD_WANTED;
    app->build_at = app->controller->now;
    rs_ct_set(&app->failure, NULL);
}

void rs_ct_app_follow(struct rs_ct_app *app, int64_t now)
{
    const struct rs_config_app *conf = app->conf;
    uint64_t code = rs_config_app_code_hash(conf);
    enum rs_ct_way way = rs_ct_way(app, conf);

    if (way == RS_WAY_UNDER_WAY)
        return; /* the configuration of now is used when the answer comes */
    if (way == RS_WAY_BUILD) {
        want_build(app, code);
        return;
    }
    stop_building(app);
    if (way == RS_WAY_REFUSED) {
        rs_ct_app_failed(app, rs_strdup(conf->failure));
        return;
    }
    app->code = code;
    if (way == RS_WAY_FILE) {
        rs_ct_set(&app->build_version, rs_asprintf("%016" PRIx64, code));
        rs_ct_app_deploy(app, NULL, now);
    } else {
        rs_auto(rs_json_decrefp) json_t *described = json_incref(app->described);

        rs_ct_set(&app->build_version, rs_strdup(app->version));
        rs_ct_app_deploy(app, described, now);
    }
}

const struct rs_ct_node *rs_ct_builder(const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && !n->draining)
            return n;
    }
    return NULL;
}

json_t *rs_ct_build_message(const struct rs_config_app *conf, const char *version)
{
    return json_pack(
        "{s:s, s:s, s:s, s:s?, s:s?, s:s, s:O, s:O, s:f}", "app", conf->name, "version", version,
        "import_path", conf->import_path, "app_dir", conf->app_dir, "python", conf->python, "start",
        conf->start == RS_CONFIG_SPAWN ? "spawn" : "fork", "args", conf->args, "runtime_env",
        conf->runtime_env, "timeout_s", (double)conf->build_timeout / 1e9);
}

void rs_ct_send_builds(struct rs_controller *c)
{
    const struct rs_ct_node *n = rs_ct_builder(c);

    for (size_t i = 0; n && i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (!app || app->build != RS_BUILD_WANTED)
            continue;
        rs_auto(rs_json_decrefp) json_t *build = rs_ct_build_message(app->conf, app->build_version);

        app->build = RS_BUILD_RUNNING;
        rs_ct_set(&app->builder, rs_strdup(n->id));
        rs_ct_note_build(app, "STARTED", NULL, c->now);
        c->ops.build(n->id, build, c->arg);
    }
}

/* --- deploying --- */

static json_t *object_or_empty(const json_t *j)
{
    return json_is_object(j) ? json_deep_copy(j) : json_object();
}

static void take_facts(struct rs_ct_app *app, const json_t *described)
{
    const struct rs_config_app *conf = app->conf;
    bool said_spawn = described && strcmp(rs_json_str(described, "start", "fork"), "spawn") == 0;

    rs_ct_set(&app->version, rs_strdup(app->build_version));
    rs_ct_set(&app->route_wanted, rs_strdup(conf->route_prefix));
    rs_ct_set(&app->docs_path, rs_strdup(app->graph->docs_path));
    rs_ct_set(&app->import_path, rs_strdup(conf->import_path));
    rs_ct_set(&app->app_dir, rs_strdup(conf->app_dir));
    rs_ct_set(&app->python, rs_strdup(conf->python));
    json_decref(app->args);
    json_decref(app->runtime_env);
    json_decref(app->ingress_policy);
    app->ingress_policy = rs_config_app_policy(conf);
    json_decref(app->declared);
    app->declared = conf->graph ? json_deep_copy(conf->graph) : NULL;
    app->args = object_or_empty(conf->args);
    app->runtime_env = object_or_empty(conf->runtime_env);
    app->spawn = conf->start == RS_CONFIG_SPAWN || said_spawn;
    rs_ct_set(&app->start_reason, NULL);
    if (conf->start == RS_CONFIG_SPAWN)
        app->start_reason = rs_strdup("the configuration asks for it (rserve: {start: spawn})");
    else if (said_spawn)
        app->start_reason =
            rs_strdup(rs_json_str(described, "start_reason", "the code asks for it"));
    app->live_code = app->code;
    json_decref(app->live_options);
    app->live_options = rs_config_app_code(conf);
    app->live = true;
    app->controller->populated = true;
}

/* Before it is carried out: what will be the old values are still there. */
static void tell_change(const struct rs_ct_app *app, const struct rs_ct_change *change)
{
    rs_auto(rs_json_decrefp) json_t *data = NULL;
    char before[16], after[16], status[16];
    const json_t *fields;

    if (change->step == RS_CHANGE_NONE)
        return;
    data = json_pack("{s:o}", "fields", rs_ct_change_fields(app, change, app->conf));
    fields = json_object_get(data, "fields");
    snprintf(before, sizeof(before), "%u", change->before);
    snprintf(after, sizeof(after), "%u", change->wanted);
    snprintf(status, sizeof(status), "%s", rs_ct_step_name(change->step));
    for (char *p = status; *p; p++)
        *p = (char)toupper((unsigned char)*p);
    rs_ct_emit(app->controller, &(struct rs_controller_event){
                                    .kind = RS_EVENT_PLAN,
                                    .app = app->name,
                                    .deployment = change->name,
                                    .status = status,
                                    .before = change->step == RS_CHANGE_NEW ? NULL : before,
                                    .after = change->step == RS_CHANGE_REMOVED ? NULL : after,
                                    .cause = rs_json_str(json_array_get(fields, 0), "field", NULL),
                                    .data = data,
                                });
}

void rs_ct_app_deploy(struct rs_ct_app *app, const json_t *described, int64_t now)
{
    rs_auto(rs_ct_changes_fini) struct rs_ct_changes changes = {0};
    const struct rs_ct_wish wish = {
        .config = app->own ? app->own : app->controller->config,
        .conf = app->conf,
        .version = app->build_version,
        .described = described,
    };
    rs_auto(rs_json_decrefp) json_t *kept = described ? json_deep_copy(described) : NULL;
    struct rs_error err = {0};

    rs_ct_set(&app->failure, NULL);
    if (rs_ct_decide(&changes, app->controller, app, &wish, &err) < 0) {
        rs_ct_app_failed(
            app, rs_asprintf("Deploying app '%s' failed with exception:\n%s", app->name, err.msg));
        return;
    }
    for (size_t i = 0; i < changes.n; i++)
        tell_change(app, &changes.items[i]);
    rs_graph_free(app->graph);
    app->graph = rs_steal(changes.graph);
    json_decref(app->described);
    app->described = rs_steal(kept);
    take_facts(app, described);
    for (size_t i = 0; i < changes.n; i++)
        rs_ct_carry_out(app, &changes.items[i], now);
}
