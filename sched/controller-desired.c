/* What a controller that starts again has to be told, because no node can report it. */
#include "sched/controller-internal.h"

#include "core/base/json.h"
#include "core/config/kept.h"

#include <string.h>

/* Without applications that were deleted since, or deployed anew by programs. */
static json_t *file_config(const struct rs_controller *c)
{
    rs_auto(rs_json_decrefp) json_t *j = c->config ? rs_config_keep(c->config) : NULL;
    json_t *document, *apps;

    if (!j)
        return json_null();
    document = json_copy(json_object_get(j, "document"));
    apps = json_array();
    for (size_t i = 0; i < c->config->app_count; i++) {
        const struct rs_config_app *conf = &c->config->apps[i];
        const struct rs_ct_app *app = rs_map_get(&c->apps, conf->name);

        if (app && !app->deleting && !app->own)
            json_array_append(apps, conf->json);
    }
    json_object_set_new(document, "applications", apps);
    json_object_set_new(j, "document", document);
    return rs_steal(j);
}

/* Somebody other than the configuration says how many. */
static bool is_counted(const struct rs_ct_app *app, const struct rs_ct_deployment *d)
{
    return d->conf->autoscaling_enabled || app->conf->external_scaler_enabled;
}

static json_t *counts_of(const struct rs_ct_app *app)
{
    json_t *counts = json_object();

    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && !d->gone && is_counted(app, d))
            json_object_set_new(counts, d->name, json_integer(d->wanted));
    }
    return counts;
}

json_t *rs_controller_desired(const struct rs_controller *c)
{
    json_t *apps = json_object(), *counts = json_object();

    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (!app || !app->conf || app->deleting)
            continue;
        if (app->own)
            json_object_set_new(apps, app->name, rs_config_keep(app->own));
        json_object_set_new(counts, app->name, counts_of(app));
    }
    return json_pack("{s:o, s:o, s:o}", "config", file_config(c), "apps", apps, "counts", counts);
}

void rs_controller_restore_counts(struct rs_controller *c, const json_t *counts)
{
    json_decref(c->restored);
    c->restored = json_deep_copy(counts);
}

bool rs_ct_restored(const struct rs_controller *c, const char *app, const char *deployment,
                    unsigned *ret)
{
    json_int_t n = rs_json_int(json_object_get(c->restored, app), deployment, -1);

    if (n < 0 || n > INT32_MAX)
        return false;
    *ret = (unsigned)n;
    return true;
}

void rs_ct_restored_used(struct rs_controller *c, const char *app, const char *deployment)
{
    json_object_del(json_object_get(c->restored, app), deployment); /* of this head's making */
}
