/* Which application answers below which route prefix. What the configuration says is taken over in one
 * step and for all applications that it is about: a prefix goes from one to the other in the same TARGET,
 * so no request finds nobody there, or two.
 *
 * An application moves to its new prefix when it is there for requests, and when nobody else has that
 * prefix who does not move in the same step (two may swap, and more may go round). It leaves its old one
 * when whoever wants that is there for requests too; one that is deleted goes on serving until then. A
 * build that fails, or takes too long, ends the wait.
 */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"

#include <stdlib.h>
#include <string.h>

/* An application, while it is decided who moves. Its route is `from`, and should be `to`; NULL: none. */
struct mover {
    struct rs_ct_app *app;
    const char *from, *to;
    bool here;   /* it takes part: deployed, and not already leaving */
    bool builds; /* what it becomes is being built; `to` is what it wants then */
    bool moves;
};

static bool same(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

static bool is_building(const struct rs_ct_app *app)
{
    return !app->deleting && (app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING);
}

/* Requests find somebody, or it is clear that they will not. */
static bool is_ready(const struct rs_ct_app *app)
{
    const struct rs_graph *g = app->graph;
    const struct rs_ct_deployment *d =
        g && g->count ? rs_map_get(&app->deployments, g->nodes[g->ingress].name) : NULL;
    struct rs_ct_seen s;

    if (!d || d->wanted == 0 || d->failed || d->blocked)
        return true;
    s = rs_ct_look(app->controller, d);
    return s.running + s.updating + s.old_live > 0 || s.blocked;
}

static struct mover mover_of(struct rs_ct_app *app)
{
    struct mover m = {.app = app, .builds = is_building(app)};

    m.here = app->live && (!app->deleting || (app->held && !app->unrouted_at));
    m.from = m.here ? app->route_prefix : NULL;
    m.to = app->deleting ? NULL
           : m.builds    ? app->conf->route_prefix
           : m.here      ? app->route_wanted
                         : NULL;
    m.moves = m.here && !m.builds &&
              (app->deleting || (m.from && m.to ? strcmp(m.from, m.to) != 0 : m.from != m.to));
    return m;
}

/* Another one has that prefix and keeps it in this step; NULL: nobody. */
static const struct mover *holder(const struct mover *all, size_t n, const struct mover *m)
{
    for (size_t i = 0; i < n; i++)
        if (&all[i] != m && same(all[i].from, m->to) && !all[i].moves)
            return &all[i];
    return NULL;
}

/* Another one moves there in this step. */
static bool is_taken_over(const struct mover *all, size_t n, const struct mover *m,
                          const char *prefix, bool by_earlier)
{
    for (size_t i = 0; i < n; i++)
        if (&all[i] != m && all[i].moves && same(all[i].to, prefix) && (!by_earlier || &all[i] < m))
            return true;
    return false;
}

/* Somebody is about to come who wants what `m` has. */
static bool is_awaited(const struct mover *all, size_t n, const struct mover *m)
{
    for (size_t i = 0; i < n; i++)
        if (&all[i] != m && !all[i].moves && (all[i].builds || all[i].here) &&
            same(all[i].to, m->from) && !same(all[i].from, m->from))
            return true;
    return false;
}

static bool may_move(const struct mover *all, size_t n, const struct mover *m)
{
    bool from_other = false;

    if (m->to && (holder(all, n, m) || is_taken_over(all, n, m, m->to, true)))
        return false;
    for (size_t i = 0; i < n; i++)
        from_other |= &all[i] != m && same(all[i].from, m->to);
    if (from_other && !is_ready(m->app))
        return false;
    return !m->from || is_taken_over(all, n, m, m->from, false) || !is_awaited(all, n, m);
}

/* Why it is not where it should be; for good only where the other one has no intention to leave. */
static void note_waiting(const struct mover *all, size_t n, const struct mover *m)
{
    const struct mover *other = holder(all, n, m);
    struct rs_ct_app *app = m->app;

    rs_ct_set(&app->route_trouble, NULL);
    app->route_taken = false;
    if (app->deleting || m->builds || !m->here || !m->to || same(m->from, m->to) || m->moves)
        return;
    app->route_taken =
        other && !other->builds && !other->app->deleting && same(other->from, other->to);
    if (app->route_taken)
        app->route_trouble =
            rs_asprintf("Prefix %s is being used by application \"%s\". Failed to deploy "
                        "application \"%s\".",
                        m->to, other->app->name, app->name);
    else
        app->route_trouble = rs_asprintf("waits to take over route prefix %s%s%s%s", m->to,
                                         other ? " from application '" : "",
                                         other ? other->app->name : "", other ? "'" : "");
}

/* Every node knows the routes as they have been since that revision. */
static bool is_known(const struct rs_controller *c, uint64_t since)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && n->report && (n->sent_revision <= since || n->report->revision < n->sent_revision))
            return false;
    }
    return true;
}

/* One whose route was taken over stays until no node sends it requests any more. */
static void move(struct rs_controller *c, struct mover *m, bool taken_over)
{
    rs_ct_set(&m->app->route_prefix, rs_strdup(m->to));
    if (m->app->held && !taken_over)
        rs_ct_app_release(m->app);
    else if (m->app->held)
        m->app->unrouted_at = c->revision;
}

static void release_known(struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app && app->held && app->unrouted_at && is_known(c, app->unrouted_at))
            rs_ct_app_release(app);
    }
}

void rs_ct_routes_update(struct rs_controller *c)
{
    size_t n = 0;
    struct mover *all = rs_alloc((rs_map_slots(&c->apps) + 1) * sizeof(*all));

    release_known(c);
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app)
            all[n++] = mover_of(app);
    }
    /* The largest set that may move together: whoever may not is taken out until all may. */
    for (bool settled = false; !settled;) {
        settled = true;
        for (size_t i = 0; i < n; i++)
            if (all[i].moves && !may_move(all, n, &all[i])) {
                all[i].moves = false;
                settled = false;
            }
    }
    for (size_t i = 0; i < n; i++)
        note_waiting(all, n, &all[i]);
    for (size_t i = 0; i < n; i++)
        if (all[i].moves)
            move(c, &all[i], is_taken_over(all, n, &all[i], all[i].from, false));
    free(all);
}
