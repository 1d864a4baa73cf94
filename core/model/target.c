#include "core/model/target.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/model/codec.h"
#include "core/model/policy.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define AT(type, member) offsetof(struct type, member)

static const struct rs_member target_members[] = {
    {"revision", RS_MEMBER_U64, AT(rs_target, revision)},
    {"populated", RS_MEMBER_BOOL, AT(rs_target, populated)},
};

static const struct rs_member http_members[] = {
    {"host", RS_MEMBER_TEXT, AT(rs_target_http, host)},
    {"port", RS_MEMBER_INT, AT(rs_target_http, port)},
    {"root_path", RS_MEMBER_TEXT, AT(rs_target_http, root_path)},
    {"request_timeout_s", RS_MEMBER_REAL, AT(rs_target_http, request_timeout_s)},
    {"keep_alive_timeout_s", RS_MEMBER_REAL, AT(rs_target_http, keep_alive_timeout_s)},
    {"access_log", RS_MEMBER_TEXT, AT(rs_target_http, access_log)},
    {"access_log_json", RS_MEMBER_BOOL, AT(rs_target_http, access_log_json)},
    {"front", RS_MEMBER_OBJECT, AT(rs_target_http, front)},
};

static const struct rs_member app_members[] = {
    {"name", RS_MEMBER_NAME, AT(rs_target_app, name)},
    {"version", RS_MEMBER_NAME, AT(rs_target_app, version)},
    {"route_prefix", RS_MEMBER_TEXT, AT(rs_target_app, route_prefix)},
    {"docs_path", RS_MEMBER_TEXT, AT(rs_target_app, docs_path)},
    {"ingress", RS_MEMBER_NAME, AT(rs_target_app, ingress)},
    {"import_path", RS_MEMBER_TEXT, AT(rs_target_app, import_path)},
    {"app_dir", RS_MEMBER_TEXT, AT(rs_target_app, app_dir)},
    {"python", RS_MEMBER_TEXT, AT(rs_target_app, python)},
    {"args", RS_MEMBER_OBJECT, AT(rs_target_app, args)},
    {"runtime_env", RS_MEMBER_OBJECT, AT(rs_target_app, runtime_env)},
    {"policy", RS_MEMBER_OBJECT, AT(rs_target_app, policy)},
    {"graph", RS_MEMBER_OBJECT, AT(rs_target_app, graph)},
    {"zygote", RS_MEMBER_TEXT, AT(rs_target_app, zygote)},
    {"spawn", RS_MEMBER_BOOL, AT(rs_target_app, spawn)},
    {"start_reason", RS_MEMBER_TEXT, AT(rs_target_app, start_reason)},
};

static const struct rs_member deployment_members[] = {
    {"name", RS_MEMBER_NAME, AT(rs_target_deployment, name)},
    {"version", RS_MEMBER_NAME, AT(rs_target_deployment, version)},
    {"config", RS_MEMBER_OBJECT, AT(rs_target_deployment, config)},
    {"replicas", RS_MEMBER_UINT, AT(rs_target_deployment, replicas)},
    {"world_size", RS_MEMBER_UINT, AT(rs_target_deployment, world_size)},
    {"start_limit", RS_MEMBER_UINT, AT(rs_target_deployment, start_limit)},
    {"ingress", RS_MEMBER_BOOL, AT(rs_target_deployment, ingress)},
    {"failed", RS_MEMBER_BOOL, AT(rs_target_deployment, failed)},
    {"core", RS_MEMBER_OBJECT, AT(rs_target_deployment, core)},
    {"split", RS_MEMBER_OBJECT, AT(rs_target_deployment, split)},
};

static const struct rs_member remote_members[] = {
    {"node_id", RS_MEMBER_NAME, AT(rs_target_remote, node_id)},
    {"address", RS_MEMBER_NAME, AT(rs_target_remote, address)},
    {"replicas", RS_MEMBER_UINT, AT(rs_target_remote, replicas)},
    {"version", RS_MEMBER_TEXT, AT(rs_target_remote, version)},
};

static const struct rs_member place_members[] = {
    {"id", RS_MEMBER_NAME, AT(rs_target_place, id)},
    {"version", RS_MEMBER_NAME, AT(rs_target_place, version)},
    {"rank", RS_MEMBER_UINT, AT(rs_target_place, rank)},
    {"end", RS_MEMBER_BOOL, AT(rs_target_place, end)},
    {"group", RS_MEMBER_TEXT, AT(rs_target_place, group)},
    {"gang", RS_MEMBER_OBJECT, AT(rs_target_place, gang)},
};

struct rs_target *rs_target_new(void)
{
    return rs_alloc(sizeof(struct rs_target));
}

static void free_deployment(struct rs_target_deployment *d)
{
    for (size_t i = 0; i < d->n_remotes; i++)
        rs_members_fini(&d->remotes[i], remote_members, RS_COUNT(remote_members));
    for (size_t i = 0; i < d->n_places; i++)
        rs_members_fini(&d->places[i], place_members, RS_COUNT(place_members));
    free(d->places);
    free(d->remotes);
    free(d->ranks);
    rs_members_fini(d, deployment_members, RS_COUNT(deployment_members));
}

static void free_app(struct rs_target_app *app)
{
    for (size_t i = 0; i < app->n_deployments; i++)
        free_deployment(&app->deployments[i]);
    free(app->deployments);
    rs_members_fini(app, app_members, RS_COUNT(app_members));
}

void rs_target_free(struct rs_target *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_apps; i++)
        free_app(&t->apps[i]);
    for (size_t i = 0; i < t->n_old; i++)
        free_app(&t->old[i]);
    free(t->apps);
    free(t->old);
    rs_members_fini(&t->http, http_members, RS_COUNT(http_members));
    free(t);
}

/* One more zeroed element. */
static void *append(void *array, size_t *n, size_t size)
{
    array = rs_realloc(array, (*n + 1) * size);
    memset((char *)array + *n * size, 0, size);
    ++*n;
    return array;
}

struct rs_target_app *rs_target_add_app(struct rs_target *t, const char *name)
{
    struct rs_target_app *app;

    t->apps = append(t->apps, &t->n_apps, sizeof(*t->apps));
    app = &t->apps[t->n_apps - 1];
    app->name = rs_strdup(name);
    return app;
}

struct rs_target_app *rs_target_add_old(struct rs_target *t, const char *name)
{
    t->old = append(t->old, &t->n_old, sizeof(*t->old));
    t->old[t->n_old - 1].name = rs_strdup(name);
    return &t->old[t->n_old - 1];
}

struct rs_target_deployment *rs_target_add_deployment(struct rs_target_app *app, const char *name)
{
    struct rs_target_deployment *d;

    app->deployments = append(app->deployments, &app->n_deployments, sizeof(*app->deployments));
    d = &app->deployments[app->n_deployments - 1];
    d->name = rs_strdup(name);
    return d;
}

struct rs_target_remote *rs_target_add_remote(struct rs_target_deployment *d, const char *node_id,
                                              const char *address, unsigned replicas)
{
    struct rs_target_remote *remote;

    d->remotes = append(d->remotes, &d->n_remotes, sizeof(*d->remotes));
    remote = &d->remotes[d->n_remotes - 1];
    remote->node_id = rs_strdup(node_id);
    remote->address = rs_strdup(address);
    remote->replicas = replicas;
    return remote;
}

struct rs_target_place *rs_target_add_place(struct rs_target_deployment *d, const char *id)
{
    struct rs_target_place *place;

    d->places = append(d->places, &d->n_places, sizeof(*d->places));
    place = &d->places[d->n_places - 1];
    place->id = rs_strdup(id);
    return place;
}

static json_t *deployment_to_json(const struct rs_target_deployment *d)
{
    json_t *j = rs_members_encode(d, deployment_members, RS_COUNT(deployment_members));
    json_t *ranks = json_array();
    json_t *remotes = json_array();
    json_t *places = json_array();

    for (unsigned i = 0; i < d->replicas; i++)
        json_array_append_new(ranks, json_integer(d->ranks ? d->ranks[i] : i));
    for (size_t i = 0; i < d->n_remotes; i++)
        json_array_append_new(
            remotes, rs_members_encode(&d->remotes[i], remote_members, RS_COUNT(remote_members)));
    json_object_set_new(j, "ranks", ranks);
    for (size_t i = 0; i < d->n_places; i++)
        json_array_append_new(
            places, rs_members_encode(&d->places[i], place_members, RS_COUNT(place_members)));
    json_object_set_new(j, "remotes", remotes);
    json_object_set_new(j, "places", places);
    return j;
}

static json_t *apps_to_json(const struct rs_target_app *all, size_t n)
{
    json_t *apps = json_array();

    for (size_t i = 0; i < n; i++) {
        const struct rs_target_app *app = &all[i];
        json_t *a = rs_members_encode(app, app_members, RS_COUNT(app_members));
        json_t *deployments = json_array();

        for (size_t k = 0; k < app->n_deployments; k++)
            json_array_append_new(deployments, deployment_to_json(&app->deployments[k]));
        json_object_set_new(a, "deployments", deployments);
        json_array_append_new(apps, a);
    }
    return apps;
}

json_t *rs_target_to_json(const struct rs_target *t)
{
    json_t *j = rs_members_encode(t, target_members, RS_COUNT(target_members));

    json_object_set_new(j, "http",
                        rs_members_encode(&t->http, http_members, RS_COUNT(http_members)));
    json_object_set_new(j, "applications", apps_to_json(t->apps, t->n_apps));
    json_object_set_new(j, "old", apps_to_json(t->old, t->n_old));
    return j;
}

static int decode_ranks(struct rs_target_deployment *d, const json_t *j, struct rs_error *err)
{
    const json_t *ranks = NULL;

    if (rs_member_array(j, "ranks", &ranks, err) < 0)
        return -1;
    if (json_array_size(ranks) != d->replicas)
        return rs_error_set(err, RS_INVALID, "%s: expected %u ranks, got %zu", d->name, d->replicas,
                            json_array_size(ranks));
    d->ranks = rs_alloc(d->replicas * sizeof(*d->ranks));
    for (unsigned i = 0; i < d->replicas; i++) {
        const json_t *v = json_array_get(ranks, i);

        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT_MAX)
            return rs_error_set(err, RS_INVALID, "%s: ranks[%u]: expected an integer >= 0", d->name,
                                i);
        d->ranks[i] = (unsigned)json_integer_value(v);
    }
    return 0;
}

/* A head of an earlier version sends none. */
static int decode_places(struct rs_target_deployment *d, const json_t *j, struct rs_error *err)
{
    const json_t *places = NULL;
    size_t i;
    const json_t *item;

    if (json_object_get(j, "places") && rs_member_array(j, "places", &places, err) < 0)
        return -1;
    json_array_foreach (places, i, item) {
        d->places = append(d->places, &d->n_places, sizeof(*d->places));
        if (rs_members_decode(&d->places[d->n_places - 1], item, place_members,
                              RS_COUNT(place_members), "place", err) < 0)
            return -1;
    }
    return 0;
}

static int decode_deployment(struct rs_target_app *app, const json_t *j, struct rs_error *err)
{
    struct rs_target_deployment *d;
    const json_t *remotes = NULL;
    size_t i;
    const json_t *item;

    app->deployments = append(app->deployments, &app->n_deployments, sizeof(*app->deployments));
    d = &app->deployments[app->n_deployments - 1];
    if (rs_members_decode(d, j, deployment_members, RS_COUNT(deployment_members), "deployment",
                          err) < 0 ||
        decode_ranks(d, j, err) < 0 || rs_member_array(j, "remotes", &remotes, err) < 0)
        return -1;
    json_array_foreach (remotes, i, item) {
        d->remotes = append(d->remotes, &d->n_remotes, sizeof(*d->remotes));
        if (rs_members_decode(&d->remotes[d->n_remotes - 1], item, remote_members,
                              RS_COUNT(remote_members), "remote", err) < 0)
            return -1;
    }
    return decode_places(d, j, err);
}

static int check_policy(const struct rs_target_app *app, struct rs_error *err)
{
    rs_auto(rs_app_policy_freep) struct rs_app_policy *policy = NULL;

    return rs_app_policy_new(&policy, app->policy, err);
}

static int decode_app(struct rs_target_app **apps, size_t *n, const json_t *j, struct rs_error *err)
{
    struct rs_target_app *app;
    const json_t *deployments = NULL;
    size_t i;
    const json_t *item;

    *apps = append(*apps, n, sizeof(**apps));
    app = &(*apps)[*n - 1];
    if (rs_members_decode(app, j, app_members, RS_COUNT(app_members), "application", err) < 0 ||
        rs_member_array(j, "deployments", &deployments, err) < 0)
        return -1;
    if (check_policy(app, err) < 0)
        return rs_error_wrap(err, "application '%s'", app->name);
    json_array_foreach (deployments, i, item)
        if (decode_deployment(app, item, err) < 0)
            return rs_error_wrap(err, "application '%s'", app->name);
    return 0;
}

int rs_target_from_json(struct rs_target **ret, const json_t *j, struct rs_error *err)
{
    rs_auto(rs_target_freep) struct rs_target *t = rs_target_new();
    const json_t *apps = NULL, *old = NULL;
    size_t i;
    const json_t *item;

    if (rs_members_decode(t, j, target_members, RS_COUNT(target_members), "target", err) < 0 ||
        rs_members_decode(&t->http, json_object_get(j, "http"), http_members,
                          RS_COUNT(http_members), "target.http", err) < 0 ||
        rs_member_array(j, "applications", &apps, err) < 0)
        return -1;
    /* A head of an earlier version sends none. */
    if (json_object_get(j, "old") && rs_member_array(j, "old", &old, err) < 0)
        return -1;
    json_array_foreach (apps, i, item)
        if (decode_app(&t->apps, &t->n_apps, item, err) < 0)
            return -1;
    json_array_foreach (old, i, item)
        if (decode_app(&t->old, &t->n_old, item, err) < 0)
            return -1;
    *ret = rs_steal(t);
    return 0;
}

const struct rs_target_app *rs_target_app(const struct rs_target *t, const char *name)
{
    for (size_t i = 0; t && i < t->n_apps; i++)
        if (strcmp(t->apps[i].name, name) == 0)
            return &t->apps[i];
    return NULL;
}

const struct rs_target_app *rs_target_old(const struct rs_target *t, const char *app,
                                          const char *deployment, const char *version)
{
    for (size_t i = 0; t && i < t->n_old; i++) {
        const struct rs_target_deployment *d =
            strcmp(t->old[i].name, app) == 0 ? rs_target_deployment(&t->old[i], deployment) : NULL;

        if (d && strcmp(d->version, version) == 0)
            return &t->old[i];
    }
    return NULL;
}

const struct rs_target_deployment *rs_target_deployment(const struct rs_target_app *app,
                                                        const char *name)
{
    for (size_t i = 0; app && i < app->n_deployments; i++)
        if (strcmp(app->deployments[i].name, name) == 0)
            return &app->deployments[i];
    return NULL;
}
