/* Versions: each that runs here is a struct rs_ag_deployment of its own, with its own options, counters and
 * replicas. The one that the target wants bears the name; others, that it takes the place of, are in
 * the map by name and version, and the target says how many of them are kept up (`old`).
 */
#include "sched/agent-internal.h"

#include "core/base/alloc.h"

#include <stdlib.h>
#include <string.h>

static char *key_of(const struct rs_ag_deployment *d)
{
    return d->old ? rs_asprintf("%s#%s\n%s", d->app, d->name, d->version)
                  : rs_asprintf("%s#%s", d->app, d->name);
}

struct rs_ag_deployment *rs_ag_deployment(const struct rs_agent *a, const char *app,
                                          const char *name)
{
    rs_auto(rs_freep) char *key = rs_asprintf("%s#%s", app, name);

    return rs_map_get(&a->deployments, key);
}

struct rs_ag_deployment *rs_ag_version(const struct rs_agent *a, const char *app, const char *name,
                                       const char *version)
{
    struct rs_ag_deployment *d = rs_ag_deployment(a, app, name);
    rs_auto(rs_freep) char *key = rs_asprintf("%s#%s\n%s", app, name, version);

    return d && strcmp(d->version, version) == 0 ? d : rs_map_get(&a->deployments, key);
}

bool rs_ag_same_name(const struct rs_ag_deployment *a, const struct rs_ag_deployment *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->app, b->app) == 0;
}

struct rs_ag_deployment *rs_ag_face(const struct rs_agent *a, const char *app, const char *name)
{
    struct rs_ag_deployment *d = rs_ag_deployment(a, app, name);

    for (size_t i = 0; !d && i < rs_map_slots(&a->deployments); i++) {
        struct rs_ag_deployment *x = rs_map_at(&a->deployments, i, NULL);

        if (x && strcmp(x->name, name) == 0 && strcmp(x->app, app) == 0)
            d = x;
    }
    return d;
}

const struct rs_target_app *rs_ag_code(const struct rs_ag_deployment *d)
{
    return d->old ? rs_target_old(d->agent->target, d->app, d->name, d->version)
                  : rs_ag_app(d->agent, d->app);
}

const struct rs_target_deployment *rs_ag_told(const struct rs_ag_deployment *d)
{
    return rs_target_deployment(rs_ag_code(d), d->name);
}

struct rs_ag_deployment *rs_ag_deployment_new(struct rs_agent *a, const char *app, const char *name,
                                              const char *version, bool old)
{
    struct rs_ag_deployment *d = rs_alloc(sizeof(*d));
    rs_auto(rs_freep) char *key = NULL;

    d->agent = a;
    d->app = rs_strdup(app);
    d->name = rs_strdup(name);
    d->version = rs_strdup(version);
    d->old = old;
    rs_list_init(&d->list);
    key = key_of(d);
    rs_map_put(&a->deployments, key, d);
    return d;
}

unsigned rs_ag_old_replicas(const struct rs_ag_deployment *d)
{
    const struct rs_target *t = d->agent->target;
    unsigned n = 0;

    for (size_t i = 0; t && i < t->n_old; i++) {
        const struct rs_target_deployment *x =
            strcmp(t->old[i].name, d->app) == 0 ? rs_target_deployment(&t->old[i], d->name) : NULL;

        n += x ? x->replicas : 0;
    }
    return n;
}

static void rename_to(struct rs_ag_deployment *d, bool old)
{
    rs_auto(rs_freep) char *from = key_of(d);
    rs_auto(rs_freep) char *to = NULL;

    rs_map_remove(&d->agent->deployments, from);
    d->old = old;
    to = key_of(d);
    rs_map_put(&d->agent->deployments, to, d);
}

void rs_ag_versions_turn(struct rs_agent *a, const char *app, const char *name, const char *version)
{
    struct rs_ag_deployment *d = rs_ag_deployment(a, app, name);
    struct rs_ag_deployment *next = rs_ag_version(a, app, name, version);

    if (d && d != next)
        rename_to(d, true);
    if (next && next->old) {
        rename_to(next, false);
        next->stray = false;
    }
}

/* What ended of a version that is forgotten is still of interest. */
static void inherit_dead(struct rs_ag_deployment *to, struct rs_ag_deployment *from)
{
    for (size_t i = 0; i < from->n_dead; i++)
        rs_ag_bury(to, &from->dead[i]);
    from->n_dead = 0;
}

void rs_ag_versions_forget(struct rs_agent *a)
{
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        const char *key = NULL;
        struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, &key);
        struct rs_ag_deployment *heir;

        if (!d || !(d->gone || d->stray) || !rs_list_empty(&d->list))
            continue;
        heir = d->old ? rs_ag_deployment(a, d->app, d->name) : NULL;
        if (heir)
            inherit_dead(heir, d);
        rs_map_remove(&a->deployments, key);
        rs_ag_deployment_free(d);
    }
}
