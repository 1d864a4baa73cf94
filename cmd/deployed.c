#include "cmd/deployed.h"

#include "core/base/json.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 100, TRIES = 20 };

void rs_deployed_pin_app_dirs(json_t *doc, const struct rs_config *c)
{
    json_t *app;
    size_t i;

    json_array_foreach (json_object_get(doc, "applications"), i, app) {
        json_t *ext = json_object_get(app, "rserve");

        if (!json_is_object(ext))
            json_object_set_new(app, "rserve", ext = json_object());
        if (i < c->app_count && c->apps[i].import_path)
            json_object_set_new(ext, "app_dir", json_string(c->apps[i].app_dir));
    }
}

static bool names(const json_t *doc, const char *name)
{
    const json_t *app;
    size_t i;

    json_array_foreach (json_object_get(doc, "applications"), i, app)
        if (strcmp(rs_json_str(app, "name", ""), name) == 0)
            return true;
    return false;
}

int rs_deployed_keep_others(struct rs_remote *r, json_t *doc, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *details = NULL;
    json_t *list = json_object_get(doc, "applications");
    const char *name;
    json_t *app;

    if (rs_remote_details_tagged(r, &details, err) < 0)
        return -1;
    json_object_foreach (json_object_get(details, "applications"), name, app) {
        json_t *config = json_object_get(app, "deployed_app_config");

        if (json_is_object(config) && !names(doc, name) &&
            strcmp(rs_json_str(app, "status", ""), "DELETING") != 0)
            json_array_append(list, config);
    }
    return 0;
}

int rs_deployed_add(struct rs_remote *r, const json_t *doc, bool in_place, struct rs_error *err)
{
    bool told = r->if_match[0]; /* what the user expects is not looked for again */
    char before[sizeof(r->etag)] = "";

    for (int tries = 0;; tries++) {
        rs_auto(rs_json_decrefp) json_t *all = json_deep_copy(doc);
        int put;

        if (rs_deployed_keep_others(r, all, err) < 0)
            return -1;
        if (tries > 0 && strcmp(before, r->etag) == 0)
            return -1; /* that is not why it is refused: `err` is of the last try */
        snprintf(before, sizeof(before), "%s", r->etag);
        if (!told)
            snprintf(r->if_match, sizeof(r->if_match), "%s", r->etag);
        put = in_place ? rs_remote_put_in_place(r, all, err) : rs_remote_put(r, all, err);
        if (!told)
            r->if_match[0] = '\0';
        if (put == 0 || told || err->code != RS_CONFLICT || tries >= TRIES)
            return put;
    }
}

/* 1: it runs. 0: not yet. -1: it has failed. `at` is when it was deployed last, before. */
static int look(const json_t *details, const json_t *wanted, struct rs_error *err)
{
    const char *name = rs_json_str(wanted, "name", "");
    const json_t *app = json_object_get(json_object_get(details, "applications"), name);
    const char *status = rs_json_str(app, "status", "");

    if (strcmp(status, "RUNNING") == 0)
        return 1;
    if (strcmp(status, "DEPLOY_FAILED") != 0 && strcmp(status, "UNHEALTHY") != 0)
        return 0;
    return rs_error_set(err, RS_SYSTEM, "application '%.60s' is %s: %.350s", name, status,
                        rs_json_str(app, "message", ""));
}

int rs_deployed_wait(const struct rs_remote *r, const json_t *doc, struct rs_error *err)
{
    const json_t *apps = json_object_get(doc, "applications"), *app;
    size_t i;

    json_array_foreach (apps, i, app) {
        for (;;) {
            rs_auto(rs_json_decrefp) json_t *details = NULL;
            int found;

            if (rs_remote_details(r, &details, err) < 0)
                return -1;
            found = look(details, app, err);
            if (found < 0)
                return -1;
            if (found)
                break;
            poll(NULL, 0, LOOK_MS);
        }
        printf("Deployed app '%s' successfully.\n", rs_json_str(app, "name", ""));
    }
    fflush(stdout);
    return 0;
}
