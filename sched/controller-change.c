#include "sched/controller-change.h"

#include "core/base/alloc.h"
#include "sched/controller-roll.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *rs_ct_step_name(enum rs_ct_step step)
{
    static const char *const names[RS_CHANGE_COUNT] = {
#define RS_X(name, text) [RS_CHANGE_##name] = text,
        RS_CT_STEPS(RS_X)
#undef RS_X
    };

    return names[step];
}

static void change_fini(struct rs_ct_change *c)
{
    rs_deployment_conf_free(c->conf);
    free(c->heavy);
    c->conf = NULL;
    c->heavy = NULL;
}

void rs_ct_changes_fini(struct rs_ct_changes *c)
{
    for (size_t i = 0; i < c->n; i++)
        change_fini(&c->items[i]);
    free(c->items);
    rs_graph_free(c->graph);
    *c = (struct rs_ct_changes){0};
}

/* --- deciding ------------------------------------------------------------------------------------ */

static uint64_t mix_text(uint64_t h, const char *text)
{
    for (; text && *text; text++)
        h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return h;
}

/* Changes with all that asks for new replicas: options, and for Python the code. */
static char *heavy_of(const struct rs_ct_wish *wish, const struct rs_deployment_conf *conf)
{
    uint64_t h = rs_deployment_conf_heavy_hash(conf);

    h = mix_text(h, conf->kind == RS_KIND_PYTHON ? wish->version : wish->conf->app_dir);
    return rs_asprintf("%016" PRIx64, h);
}

static unsigned live_of(const struct rs_controller *c, const struct rs_ct_deployment *d)
{
    struct rs_ct_seen s = rs_ct_look(c, d);

    return s.running + s.updating + s.starting + s.old_live;
}

static enum rs_ct_step step_of(const struct rs_ct_deployment *d, const struct rs_ct_change *c)
{
    if (!d)
        return RS_CHANGE_NEW;
    if (c->same)
        return c->changed || c->wanted != d->wanted || c->ingress != d->ingress ? RS_CHANGE_IN_PLACE
                                                                                : RS_CHANGE_NONE;
    /* What is on its way out serves no longer; placement groups and plain replicas do not mix. */
    if (d->gone || c->live == 0 ||
        rs_deployment_conf_grouped(d->conf) != rs_deployment_conf_grouped(c->conf))
        return RS_CHANGE_RECREATE;
    return RS_CHANGE_ROLLING;
}

/* Takes `conf`. */
static void decide_one(struct rs_ct_change *ret, const struct rs_controller *c,
                       const struct rs_ct_app *app, const struct rs_ct_wish *wish,
                       const struct rs_graph_node *node, struct rs_deployment_conf *conf)
{
    const struct rs_ct_deployment *d = app ? rs_map_get(&app->deployments, node->name) : NULL;
    unsigned before;

    *ret = (struct rs_ct_change){.name = node->name, .conf = conf};
    ret->heavy = heavy_of(wish, conf);
    ret->same = d && !d->gone && strcmp(d->heavy, ret->heavy) == 0 && !d->failed;
    ret->changed = !ret->same || rs_deployment_conf_diff(d->conf, conf, NULL) != 0;
    ret->again = d && (d->gone || d->failed);
    ret->code = d && conf->kind == RS_KIND_PYTHON && app->version &&
                strcmp(app->version, wish->version) != 0;
    ret->wanted = rs_ct_wanted(d, c, conf, ret->changed);
    if (!d && rs_ct_restored(c, wish->conf->name, node->name, &before)) {
        ret->wanted = rs_ct_wanted_again(c, wish->conf, conf, before);
        ret->restored = true;
    }
    ret->before = d && !d->gone ? d->wanted : 0;
    ret->live = d ? live_of(c, d) : 0;
}

struct rs_ct_change rs_ct_change_removed(const struct rs_controller *c,
                                         const struct rs_ct_deployment *d)
{
    return (struct rs_ct_change){
        .name = d->name,
        .step = RS_CHANGE_REMOVED,
        .changed = true,
        .before = d->wanted,
        .live = live_of(c, d),
    };
}

/* What nobody wants any more. */
static void decide_removed(struct rs_ct_changes *to, const struct rs_controller *c,
                           const struct rs_ct_app *app)
{
    for (size_t i = 0; app && i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && !d->gone && (!to->graph || !rs_graph_find(to->graph, d->name)))
            to->items[to->n++] = rs_ct_change_removed(c, d);
    }
}

int rs_ct_decide(struct rs_ct_changes *ret, const struct rs_controller *c,
                 const struct rs_ct_app *app, const struct rs_ct_wish *wish, struct rs_error *err)
{
    rs_auto(rs_ct_changes_fini) struct rs_ct_changes all = {0};
    rs_auto(rs_diags_fini) struct rs_diags diags = {0};
    size_t room = app ? rs_map_count(&app->deployments) : 0;

    if (rs_graph_build(&all.graph, wish->conf, wish->described, err) < 0)
        return -1;
    all.items = rs_alloc((all.graph->count + room + 1) * sizeof(*all.items));
    decide_removed(&all, c, app);
    for (size_t i = 0; i < all.graph->count; i++) {
        const struct rs_graph_node *node = &all.graph->nodes[i];
        struct rs_deployment_conf *conf = NULL;
        struct rs_ct_change *one = &all.items[all.n];

        if (rs_deployment_merge(&conf, wish->config, wish->conf, node->name, node->options,
                                &diags) < 0)
            return rs_diags_to_error(&diags, err);
        decide_one(one, c, app, wish, node, conf);
        one->ingress = i == all.graph->ingress;
        one->step = step_of(app ? rs_map_get(&app->deployments, node->name) : NULL, one);
        all.n++;
    }
    *ret = all;
    all = (struct rs_ct_changes){0};
    return 0;
}

unsigned rs_ct_change_starts(const struct rs_ct_change *c)
{
    switch (c->step) {
    case RS_CHANGE_NEW:
    case RS_CHANGE_ROLLING:
    case RS_CHANGE_RECREATE:
        return c->wanted;
    case RS_CHANGE_IN_PLACE:
        return c->wanted > c->before ? c->wanted - c->before : 0;
    default:
        return 0;
    }
}

unsigned rs_ct_change_stops(const struct rs_ct_change *c)
{
    if (c->step == RS_CHANGE_IN_PLACE)
        return c->before > c->wanted ? c->before - c->wanted : 0;
    return c->step == RS_CHANGE_ROLLING || c->step == RS_CHANGE_RECREATE ||
                   c->step == RS_CHANGE_REMOVED
               ? c->live
               : 0;
}

bool rs_ct_change_restarts(const struct rs_ct_change *c)
{
    return (c->step == RS_CHANGE_ROLLING || c->step == RS_CHANGE_RECREATE) && c->live > 0;
}

/* --- why ----------------------------------------------------------------------------------------- */

static void add_field(json_t *out, const char *name, const json_t *before, const json_t *after,
                      const char *asks)
{
    json_array_append_new(out, json_pack("{s:s, s:O?, s:O?, s:s}", "field", name, "old", before,
                                         "new", after, "asks", asks));
}

json_t *rs_ct_code_fields(const struct rs_ct_app *app, const struct rs_config_app *conf)
{
    rs_auto(rs_json_decrefp) json_t *after = rs_config_app_code(conf);
    const json_t *before = app ? app->live_options : NULL;
    json_t *out = json_array(), *value;
    const char *name;

    json_object_foreach (after, name, value)
        if (before && !json_equal(json_object_get(before, name), value))
            add_field(out, name, json_object_get(before, name), value, "restart");
    return out;
}

static bool asks_restart(const json_t *field)
{
    return strcmp(rs_json_str(field, "asks", ""), "restart") == 0;
}

static void add_all(json_t *out, const json_t *from, bool restart)
{
    const json_t *field;
    size_t i;

    json_array_foreach (from, i, field)
        if (asks_restart(field) == restart)
            json_array_append(out, (json_t *)(uintptr_t)field);
}

static void add_number(json_t *out, const char *name, unsigned before, unsigned after)
{
    rs_auto(rs_json_decrefp) json_t *a = json_integer(before), *b = json_integer(after);

    add_field(out, name, a, b, "in place");
}

static void add_again(json_t *out, const struct rs_ct_deployment *d)
{
    rs_auto(rs_json_decrefp) json_t *was =
        json_string(d->gone ? "DELETING" : rs_deployment_status_name(d->status.status));
    rs_auto(rs_json_decrefp) json_t *now = json_string("tried again");

    add_field(out, "status", was, now, "restart");
}

json_t *rs_ct_change_fields(const struct rs_ct_app *app, const struct rs_ct_change *c,
                            const struct rs_config_app *conf)
{
    const struct rs_ct_deployment *d = app ? rs_map_get(&app->deployments, c->name) : NULL;
    rs_auto(rs_json_decrefp) json_t *code = NULL, *own = NULL;
    json_t *out = json_array();

    if (!d || !c->conf)
        return out;
    own = rs_deployment_conf_changes(d->conf, c->conf);
    if (c->again)
        add_again(out, d);
    if (c->code || (!c->same && c->conf->kind != RS_KIND_PYTHON)) {
        code = rs_ct_code_fields(app, conf);
        add_all(out, code, true);
    }
    if (c->code && json_array_size(code) == 0 && !c->again) { /* a build after one that failed */
        rs_auto(rs_json_decrefp) json_t *a = json_string(app->version);
        rs_auto(rs_json_decrefp) json_t *b = json_string("built again");

        add_field(out, "code", a, b, "restart");
    }
    add_all(out, own, true);
    add_all(out, own, false);
    if (c->wanted != d->wanted && !d->gone && d->conf->num_replicas == c->conf->num_replicas)
        add_number(out, "replicas", d->wanted, c->wanted);
    if (c->ingress != d->ingress) {
        rs_auto(rs_json_decrefp) json_t *a = json_boolean(d->ingress);
        rs_auto(rs_json_decrefp) json_t *b = json_boolean(c->ingress);

        add_field(out, "ingress", a, b, "in place");
    }
    return out;
}

/* --- doing --------------------------------------------------------------------------------------- */

void rs_ct_deployment_gone(struct rs_ct_deployment *d)
{
    if (d->gone)
        return;
    d->gone = true;
    d->wanted = 0;
    rs_ct_roll_drop(d);
    rs_autoscale_fini(&d->scale);
    rs_ct_ahead_fini(&d->ahead);
    rs_ct_event(d, RS_STATUS_DELETE, rs_strdup(""));
}

void rs_ct_version_begins(struct rs_ct_deployment *d)
{
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

static struct rs_ct_deployment *deployment_new(struct rs_ct_app *app, const struct rs_ct_change *c,
                                               int64_t now)
{
    struct rs_ct_deployment *d = rs_alloc(sizeof(*d));

    d->app = app;
    d->policy_wants = -1;
    d->name = rs_strdup(c->name);
    d->heavy = rs_strdup(c->heavy);
    d->message = rs_strdup("");
    d->status = (struct rs_status){RS_DEPLOYMENT_UPDATING, RS_TRIGGER_CONFIG_UPDATE_STARTED};
    d->version = rs_strdup(d->heavy);
    rs_ct_version_begins(d);
    rs_ct_roll_restore(d, c->wanted, now);
    rs_map_put(&app->deployments, d->name, d);
    return d;
}

void rs_ct_carry_out(struct rs_ct_app *app, struct rs_ct_change *c, int64_t now)
{
    struct rs_ct_deployment *d = rs_map_get(&app->deployments, c->name);

    if (c->step == RS_CHANGE_REMOVED) {
        rs_ct_deployment_gone(d);
        return;
    }
    if (!d) {
        d = deployment_new(app, c, now);
    } else if (!c->same) {
        rs_ct_roll_turn(d, c->heavy, c->wanted, now);
        rs_ct_version_begins(d);
        d->gone = false;
        rs_ct_event(d, RS_STATUS_CONFIG, rs_strdup(""));
    } else {
        light_change(d, d->conf, c->conf, c->wanted);
    }
    if (c->restored)
        rs_ct_restored_used(app->controller, app->name, d->name);
    d->wanted = c->wanted;
    if (!c->conf->autoscaling_enabled)
        rs_autoscale_fini(&d->scale);
    else if (!d->scale.started || d->scale.target != c->wanted)
        rs_autoscale_start(&d->scale, c->wanted, now);
    if (c->changed) /* another policy, perhaps */
        d->policy_wants = -1;
    d->ingress = c->ingress;
    rs_deployment_conf_free(d->conf);
    d->conf = rs_steal(c->conf);
    rs_ct_ahead_restore(d);
    json_decref(d->code);
    d->code = rs_ct_roll_code(app);
}
