/* What a controller that starts again has to be told, because no node can report it. */
#include "sched/controller-roll.h"

#include "core/base/alloc.h"
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

/* Somebody other than the configuration says how many. What an external scaler said is over with the next
 * configuration, which is followed when it is built. */
static bool is_counted(const struct rs_ct_app *app, const struct rs_ct_deployment *d)
{
    bool follows = app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING;

    return d->conf->autoscaling_enabled || (app->conf->external_scaler_enabled && !follows);
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

static json_t *rolls_of(const struct rs_ct_app *app)
{
    json_t *rolls = json_object();

    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);
        json_t *roll = d && !d->gone ? rs_ct_roll_keep(d) : NULL;

        if (roll)
            json_object_set_new(rolls, d->name, roll);
    }
    return rolls;
}

/* What an earlier head kept of applications that are not built here yet. */
static void keep_unused(json_t *rolls, const struct rs_controller *c)
{
    const char *name;
    json_t *kept;

    json_object_foreach (c->kept_rolls, name, kept)
        if (json_object_get(rolls, name) && json_object_size(kept) > 0)
            json_object_update_missing(json_object_get(rolls, name), kept);
}

json_t *rs_controller_desired(const struct rs_controller *c)
{
    json_t *apps = json_object(), *counts = json_object(), *rolls = json_object();

    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (!app || !app->conf || app->deleting)
            continue;
        if (app->own)
            json_object_set_new(apps, app->name, rs_config_keep(app->own));
        json_object_set_new(counts, app->name, counts_of(app));
        json_object_set_new(rolls, app->name, rolls_of(app));
    }
    keep_unused(rolls, c);
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "config", file_config(c), "apps", apps, "counts",
                     counts, "forecasts", rs_controller_forecasts(c), "rolls", rolls);
}

void rs_controller_restore_rolls(struct rs_controller *c, const json_t *rolls)
{
    json_decref(c->kept_rolls);
    c->kept_rolls = json_is_object(rolls) ? json_deep_copy(rolls) : NULL;
}

/* --- history ------------------------------------------------------------------------------------- */

/* Paths that were relative to the file are told in full: another file may be in force when it comes back. */
static void pin_paths(json_t *app, const struct rs_config_app *conf)
{
    json_t *ext = json_object_get(app, "rserve");

    if (json_object_get(app, "runtime_env"))
        json_object_set(app, "runtime_env", (json_t *)(uintptr_t)conf->runtime_env);
    if (!conf->import_path)
        return;
    if (!json_is_object(ext))
        json_object_set_new(app, "rserve", ext = json_object());
    json_object_set_new(ext, "app_dir", json_string(conf->app_dir));
    if (json_object_get(ext, "python"))
        json_object_set_new(ext, "python", json_string(conf->python));
}

/* The configuration that the application has now, alone. New; NULL: it is going. */
static json_t *present(const struct rs_ct_app *app)
{
    const struct rs_config *config;
    json_t *own;

    if (!app || !app->conf)
        return NULL;
    config = app->own ? app->own : app->controller->config;
    own = json_deep_copy(app->conf->json);
    pin_paths(own, app->conf);
    return json_pack("{s:s, s:s?, s:{s:[o]}}", "dir", config->dir, "app_dir", app->conf->app_dir,
                     "document", "applications", own);
}

static bool is_there(const char *name, void *arg)
{
    const struct rs_controller *c = arg;

    return rs_map_get(&c->apps, name) != NULL;
}

void rs_ct_note_running(struct rs_ct_app *app)
{
    struct rs_controller *c = app->controller;
    rs_auto(rs_json_decrefp) json_t *config = present(app);
    const struct rs_history_entry e = {
        .config = config,
        .program = app->own != NULL,
        .who = app->who,
        .time_s = rs_ct_wall(c, c->now),
        .rollback_of = app->rollback_of,
    };

    app->noted = true;
    if (!config || !rs_history_ran(&c->history, app->name, &e))
        return;
    rs_history_prune(&c->history, is_there, c);
    rs_ct_emit(c,
               &(struct rs_controller_event){
                   .kind = RS_EVENT_DEPLOY, .app = app->name, .status = "RUNS", .who = app->who});
}

json_t *rs_controller_history(const struct rs_controller *c, const char *app)
{
    rs_auto(rs_json_decrefp) json_t *now = present(rs_map_get(&c->apps, app));

    return rs_history_list(&c->history, app, now);
}

int rs_controller_revision(const struct rs_controller *c, const char *app, int64_t revision,
                           const json_t **ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *now = present(rs_map_get(&c->apps, app));

    return rs_history_find(&c->history, app, revision, now, ret, err);
}

const json_t *rs_controller_histories(const struct rs_controller *c)
{
    return rs_history_json(&c->history);
}

void rs_controller_restore_history(struct rs_controller *c, const char *app, const json_t *kept)
{
    rs_history_restore(&c->history, app, kept);
}

/* --- counts -------------------------------------------------------------------------------------- */

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
