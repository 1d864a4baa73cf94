/* What is wanted: from a configuration, and from the graph that the code describes. */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"
#include "sched/message.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void rs_ct_deployment_free(struct rs_ct_deployment *d)
{
    if (!d)
        return;
    rs_ct_units_free(d);
    rs_deployment_conf_free(d->conf);
    rs_autoscale_fini(&d->scale);
    json_decref(d->stats);
    free(d->policy_error);
    free(d->name);
    free(d->heavy);
    free(d->version);
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
    rs_graph_free(app->graph);
    rs_config_free(app->own);
    json_decref(app->echo);
    json_decref(app->described);
    json_decref(app->args);
    json_decref(app->runtime_env);
    json_decref(app->ingress_policy);
    json_decref(app->declared);
    free(app->zygote);
    free(app->name);
    free(app->build_version);
    free(app->builder);
    free(app->failure);
    free(app->version);
    free(app->route_prefix);
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

static void deployment_gone(struct rs_ct_deployment *d)
{
    if (d->gone)
        return;
    d->gone = true;
    d->wanted = 0;
    rs_autoscale_fini(&d->scale);
    rs_ct_event(d, RS_STATUS_DELETE, rs_strdup(""));
}

void rs_ct_app_delete(struct rs_ct_app *app)
{
    app->conf = NULL;
    app->deleting = true;
    app->build = RS_BUILD_NONE;
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d)
            deployment_gone(d);
    }
}

/* --- builds --- */

static void want_build(struct rs_ct_app *app, uint64_t code)
{
    app->attempt = app->build_version && app->code == code ? app->attempt + 1 : 0;
    app->code = code;
    app->build = RS_BUILD_WANTED;
    rs_ct_set(&app->builder, NULL);
    rs_ct_set(&app->failure, NULL);
    /* Another try with the same code has another name, so that no late answer is taken for its. */
    rs_ct_set(&app->build_version, app->attempt
                                       ? rs_asprintf("%016" PRIx64 ".%u", code, app->attempt)
                                       : rs_asprintf("%016" PRIx64, code));
}

void rs_ct_app_follow(struct rs_ct_app *app, int64_t now)
{
    const struct rs_config_app *conf = app->conf;
    uint64_t code = rs_config_app_code_hash(conf);

    if (conf->failure) {
        app->build = RS_BUILD_NONE;
        rs_ct_app_failed(app, rs_strdup(conf->failure));
        return;
    }
    if (!conf->import_path) {
        app->build = RS_BUILD_NONE;
        app->code = code;
        rs_ct_set(&app->build_version, rs_asprintf("%016" PRIx64, code));
        rs_ct_app_deploy(app, NULL, now);
        return;
    }
    if ((app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING) && app->code == code)
        return; /* the configuration of now is used when the answer comes */
    if (app->live && app->live_code == code && app->described) {
        rs_auto(rs_json_decrefp) json_t *described = json_incref(app->described);

        app->build = RS_BUILD_NONE;
        app->code = code;
        rs_ct_set(&app->build_version, rs_strdup(app->version));
        rs_ct_app_deploy(app, described, now);
        return;
    }
    want_build(app, code);
}

static const struct rs_ct_node *choose_builder(const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && !n->draining)
            return n;
    }
    return NULL;
}

void rs_ct_send_builds(struct rs_controller *c)
{
    const struct rs_ct_node *n = choose_builder(c);

    for (size_t i = 0; n && i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (!app || app->build != RS_BUILD_WANTED)
            continue;
        rs_auto(rs_json_decrefp) json_t *build =
            json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s, s:O, s:O}", "app", app->name, "version",
                      app->build_version, "import_path", app->conf->import_path, "app_dir",
                      app->conf->app_dir, "python", app->conf->python, "start",
                      app->conf->start == RS_CONFIG_SPAWN ? "spawn" : "fork", "args",
                      app->conf->args, "runtime_env", app->conf->runtime_env);

        app->build = RS_BUILD_RUNNING;
        rs_ct_set(&app->builder, rs_strdup(n->id));
        c->ops.build(n->id, build, c->arg);
    }
}

/* --- deploying --- */

static uint64_t mix_text(uint64_t h, const char *text)
{
    for (; text && *text; text++)
        h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return h;
}

/* Changes with all that asks for new replicas: options, and for Python the code. */
static char *heavy_of(const struct rs_ct_app *app, const struct rs_deployment_conf *conf)
{
    uint64_t h = rs_deployment_conf_heavy_hash(conf);

    if (conf->kind == RS_KIND_PYTHON)
        h = mix_text(h, app->version);
    else
        h = mix_text(h, app->app_dir);
    return rs_asprintf("%016" PRIx64, h);
}

static void set_version(struct rs_ct_deployment *d)
{
    rs_ct_set(&d->version,
              d->attempt ? rs_asprintf("%s.%u", d->heavy, d->attempt) : rs_strdup(d->heavy));
    d->failed = false;
    d->seen_failures = d->seen_deaths = 0;
    d->waiting_since = 0;
    d->slow = false;
}

static void light_change(struct rs_ct_deployment *d, const struct rs_deployment_conf *old,
                         const struct rs_deployment_conf *conf, unsigned wanted)
{
    struct rs_buf fields = {0};
    unsigned bits = rs_deployment_conf_diff(old, conf, &fields);
    bool only_number = strcmp(rs_buf_text(&fields), "num_replicas") == 0;

    if (wanted != d->wanted && (bits == 0 || only_number)) {
        bool up = wanted > d->wanted;

        rs_ct_event(d, up ? RS_STATUS_SCALE_UP : RS_STATUS_SCALE_DOWN,
                    rs_asprintf("%s from %u to %u replicas.", up ? "Upscaling" : "Downscaling",
                                d->wanted, wanted));
    } else if (bits != 0) {
        rs_ct_event(d, RS_STATUS_CONFIG, rs_strdup(""));
    }
    if (bits & RS_RELOAD_RECONFIGURE)
        d->seen_failures = d->seen_deaths = 0; /* the nodes count anew */
    rs_buf_fini(&fields);
}

/* Takes `conf`. */
static void set_deployment(struct rs_ct_app *app, const char *name, struct rs_deployment_conf *conf,
                           bool ingress, int64_t now)
{
    struct rs_ct_deployment *d = rs_map_get(&app->deployments, name);
    rs_auto(rs_freep) char *heavy = heavy_of(app, conf);
    bool same = d && !d->gone && strcmp(d->heavy, heavy) == 0 && !d->failed;
    bool changed = !same || rs_deployment_conf_diff(d->conf, conf, NULL) != 0;
    unsigned wanted = rs_ct_wanted(d, app->controller, conf, changed), before;

    if (!d && rs_ct_restored(app, name, &before))
        wanted = rs_ct_wanted_again(app, conf, before);
    if (!d) {
        d = rs_alloc(sizeof(*d));
        d->app = app;
        d->policy_wants = -1;
        d->name = rs_strdup(name);
        d->heavy = rs_strdup(heavy);
        d->message = rs_strdup("");
        d->status = (struct rs_status){RS_DEPLOYMENT_UPDATING, RS_TRIGGER_CONFIG_UPDATE_STARTED};
        set_version(d);
        rs_map_put(&app->deployments, name, d);
    } else if (!same) {
        d->attempt = strcmp(d->heavy, heavy) != 0 ? 0 : d->attempt + 1;
        rs_ct_set(&d->heavy, rs_strdup(heavy));
        set_version(d);
        d->gone = false;
        rs_ct_event(d, RS_STATUS_CONFIG, rs_strdup(""));
    } else {
        light_change(d, d->conf, conf, wanted);
    }
    d->wanted = wanted;
    if (!conf->autoscaling_enabled)
        rs_autoscale_fini(&d->scale);
    else if (!d->scale.started || d->scale.target != wanted)
        rs_autoscale_start(&d->scale, wanted, now);
    if (changed) /* another policy, perhaps */
        d->policy_wants = -1;
    d->ingress = ingress;
    rs_deployment_conf_free(d->conf);
    d->conf = conf;
}

static struct rs_deployment_conf **merge_all(struct rs_ct_app *app, const struct rs_graph *g)
{
    const struct rs_config *config = app->own ? app->own : app->controller->config;
    struct rs_deployment_conf **confs =
        rs_alloc((g->count + 1) * sizeof(struct rs_deployment_conf *));
    struct rs_diags diags = {0};

    for (size_t i = 0; i < g->count; i++) {
        struct rs_error err = {0};

        if (rs_deployment_merge(&confs[i], config, app->conf, g->nodes[i].name, g->nodes[i].options,
                                &diags) == 0)
            continue;
        rs_diags_to_error(&diags, &err);
        rs_ct_app_failed(
            app, rs_asprintf("Deploying app '%s' failed with exception:\n%s", app->name, err.msg));
        for (size_t k = 0; k < i; k++)
            rs_deployment_conf_free(confs[k]);
        free(confs);
        confs = NULL;
        break;
    }
    rs_diags_fini(&diags);
    return confs;
}

static json_t *object_or_empty(const json_t *j)
{
    return json_is_object(j) ? json_deep_copy(j) : json_object();
}

static void take_facts(struct rs_ct_app *app, const json_t *described)
{
    const struct rs_config_app *conf = app->conf;
    bool said_spawn = described && strcmp(rs_json_str(described, "start", "fork"), "spawn") == 0;

    rs_ct_set(&app->version, rs_strdup(app->build_version));
    rs_ct_set(&app->route_prefix, rs_strdup(conf->route_prefix));
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
    app->live = true;
    app->controller->populated = true;
}

void rs_ct_app_deploy(struct rs_ct_app *app, const json_t *described, int64_t now)
{
    struct rs_error err = {0};
    struct rs_graph *g = NULL;
    struct rs_deployment_conf **confs;

    rs_ct_set(&app->failure, NULL);
    if (rs_graph_build(&g, app->conf, described, &err) < 0) {
        rs_ct_app_failed(
            app, rs_asprintf("Deploying app '%s' failed with exception:\n%s", app->name, err.msg));
        return;
    }
    confs = merge_all(app, g);
    if (!confs) {
        rs_graph_free(g);
        return;
    }
    rs_graph_free(app->graph);
    app->graph = g;
    json_t *kept = described ? json_deep_copy(described) : NULL;

    json_decref(app->described);
    app->described = kept;
    take_facts(app, described);
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && !rs_graph_find(g, d->name))
            deployment_gone(d);
    }
    for (size_t i = 0; i < g->count; i++)
        set_deployment(app, g->nodes[i].name, confs[i], i == g->ingress, now);
    free(confs);
}
