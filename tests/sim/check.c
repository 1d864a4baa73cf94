/* What must hold, whatever happens. */
#include "tests/sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REST (30 * RS_SEC) /* without a fault, all has settled by then */

/* --- resources ----------------------------------------------------------------------------------- */

void sim_check_room(struct sim_node *n)
{
    if (n->used > n->cpus * 10000)
        sim_violate(n->sim, "overcommit", "%s has %d CPUs, and its processes have %.2f", n->id,
                    (int)n->cpus, (double)n->used / 10000);
}

/* --- capacity ------------------------------------------------------------------------------------ */

void sim_check_up(struct sim *s, int app, int deployment)
{
    const struct sim_app *x = &s->apps[app];

    if (x->promised && x->up[deployment] < x->floor[deployment])
        sim_violate(s, "capacity",
                    "%s#%c has %u replicas that take requests, not the %u that nothing "
                    "took away",
                    sim_app_names[app], 'A' + deployment, x->up[deployment], x->floor[deployment]);
}

/* Replicas of that deployment on the node, and what each takes. */
static unsigned running_on(const struct sim_node *n, int app, int deployment)
{
    unsigned count = 0;

    for (size_t i = 0; i < rs_map_slots(&n->procs); i++) {
        const struct sim_proc *p = rs_map_at(&n->procs, i, NULL);

        count += p && p->app == app && p->deployment == deployment && p->admitted;
    }
    return count;
}

/* Where a new one does not fit beside the old ones of all who may roll, a batch of a fifth may go
 * first, one at least. */
static unsigned may_stop_first(struct sim *s, int app, int deployment)
{
    unsigned sum = 0;

    for (size_t i = 0; i < s->n_nodes; i++) {
        const struct sim_node *n = &s->nodes[i];
        unsigned here = running_on(n, app, deployment);
        int64_t need = 0;

        for (int a = 0; a < SIM_APPS; a++)
            for (int d = 0; d < SIM_DEPLOYMENTS; d++)
                if (running_on(n, a, d) > 0 || a == app)
                    need += s->apps[a].live.args[DEPLOY_CPU] * 100 *
                            (1 + running_on(n, a, d) / 4 + running_on(n, a, d) / 4);
        if (here > 0 && n->cpus * 10000 - n->used < need)
            sum += here < 4 ? 1 : (here + 3) / 4;
    }
    return sum;
}

static unsigned wanted(const struct sim_app *x, int deployment)
{
    return (unsigned)(deployment == SIM_A ? x->live.count : x->live.args[DEPLOY_SIDE]);
}

void sim_check_promise(struct sim *s, int app, const struct sim_input *deploy)
{
    struct sim_app *x = &s->apps[app];
    bool was = x->promised;
    bool quiet = s->now >= s->disturbed_until && !s->ending;
    const int64_t after[SIM_DEPLOYMENTS] = {deploy->args[DEPLOY_REPLICAS],
                                            deploy->args[DEPLOY_SIDE]};

    /* A count that an external scaler set ends with the next configuration. */
    for (int a = 0; a < SIM_APPS; a++)
        if (a != app && a != SIM_PUT && app != SIM_PUT &&
            s->apps[a].live.count != s->apps[a].live.args[DEPLOY_REPLICAS])
            s->apps[a].promised = false;
    x->promised = quiet && x->live.there && !x->live.args[DEPLOY_MAX] && !deploy->args[DEPLOY_MAX];
    for (int d = 0; d < SIM_DEPLOYMENTS && x->promised; d++) {
        unsigned before = wanted(x, d), then = (unsigned)after[d];
        unsigned least = before < then ? before : then;
        unsigned stops = may_stop_first(s, app, d);

        if (was) { /* one that was under way still holds */
            x->floor[d] = x->floor[d] < least ? x->floor[d] : least;
            continue;
        }
        if (x->up[d] != before)
            x->promised = false;
        x->floor[d] = least > stops ? least - stops : 0;
    }
}

void sim_check_break(struct sim *s, int64_t for_ns)
{
    int64_t until = s->now + for_ns + REST;

    s->disturbed_until = until > s->disturbed_until ? until : s->disturbed_until;
    for (int i = 0; i < SIM_APPS; i++) {
        s->apps[i].promised = false;
        sim_check_steady(s, i);
    }
}

/* --- autoscaling --------------------------------------------------------------------------------- */

void sim_check_steady(struct sim *s, int app)
{
    s->apps[app].steady_since = s->now;
    s->apps[app].last_way = 0;
    s->apps[app].turns = 0;
}

/* Between two numbers of replicas, to a tenth, either is right, and what is measured is not that exact.
 * And where replicas are nearly full requests wait, which is load that another replica makes go away. */
static bool is_on_the_edge(const struct sim_app *x)
{
    double load = (double)x->rate * (double)x->service / 1e9 * (x->live.args[DEPLOY_SIDE] ? 2 : 1);
    double off = fabs(load - floor(load + 0.5));

    return off < fmin(0.1 * load, 0.4) || off < 0.1 ||
           load > 0.7 * ceil(load) * (double)x->live.args[DEPLOY_ONGOING];
}

/* With the load that it has, and nobody else changing anything, it may go too far once and come back. */
void sim_check_scaled(struct sim *s, int app, const struct rs_controller_event *e)
{
    struct sim_app *x = &s->apps[app];
    int way = strcmp(e->status, "UP") == 0 ? 1 : strcmp(e->status, "DOWN") == 0 ? -1 : 0;

    if (way == 0 || s->now < s->disturbed_until || is_on_the_edge(x))
        return;
    x->turns += x->last_way != 0 && way != x->last_way;
    x->last_way = way;
    if (x->turns > 1)
        sim_violate(s, "flapping",
                    "the load of %s is the same since %.1f s, and its replicas go up and down: %s",
                    sim_app_names[app], (double)(s->now - x->steady_since) / 1e9, e->text);
}

/* --- what was acknowledged ----------------------------------------------------------------------- */

static bool is_listed(const json_t *desired, int app)
{
    const json_t *list = json_object_get(
        json_object_get(json_object_get(desired, "config"), "document"), "applications");
    size_t i;
    json_t *one;

    if (app == SIM_PUT)
        return json_object_get(json_object_get(desired, "apps"), sim_app_names[app]) != NULL;
    json_array_foreach (list, i, one)
        if (strcmp(rs_json_str(one, "name", ""), sim_app_names[app]) == 0)
            return true;
    return false;
}

void sim_check_restored(struct sim *s)
{
    rs_auto(rs_json_decrefp) json_t *now = rs_controller_desired(s->controller);
    const json_t *kept = json_object_get(json_object_get(s->saved, "config"), "document");
    const json_t *known = json_object_get(json_object_get(now, "config"), "document");

    if (s->saved && ((kept != known && !json_equal(kept, known)) ||
                     !json_equal(json_object_get(s->saved, "apps"), json_object_get(now, "apps"))))
        sim_violate(s, "acknowledged", "a new head does not have the configuration that was kept");
    for (int i = 0; i < SIM_APPS; i++)
        if (is_listed(now, i) != s->apps[i].live.there)
            sim_violate(s, "acknowledged", "a new head %s application %s, which was acknowledged",
                        s->apps[i].live.there ? "does not know" : "knows the deleted",
                        sim_app_names[i]);
}

/* --- requests ------------------------------------------------------------------------------------ */

void sim_check_requests(struct sim *s)
{
    rs_list_for_each (it, &s->requests) {
        const struct sim_request *r = rs_container_of(it, struct sim_request, all);

        if (!r->ended)
            sim_violate(s, "ends-once", "a request for %s never got an answer",
                        sim_app_names[r->app]);
    }
}

/* --- the end ------------------------------------------------------------------------------------- */

struct census {
    unsigned right, wrong, all; /* that take requests: as wanted, or not; and all processes */
};

static struct census count(struct sim *s, int app, int deployment)
{
    struct census c = {0};
    const struct sim_wish *w = &s->apps[app].live;

    for (size_t i = 0; i < s->n_nodes; i++)
        for (size_t k = 0; k < rs_map_slots(&s->nodes[i].procs); k++) {
            const struct sim_proc *p = rs_map_at(&s->nodes[i].procs, k, NULL);
            bool right;

            if (!p || p->app != app || p->deployment != deployment)
                continue;
            right = p->admitted && p->code.version == w->args[DEPLOY_VERSION] && !p->hangs &&
                    (deployment == SIM_B || p->user == w->args[DEPLOY_USER]);
            c.all++;
            c.right += right;
            c.wrong += !right;
        }
    return c;
}

static bool fits_somewhere(const struct sim *s, int app)
{
    for (size_t i = 0; i < s->n_nodes; i++)
        if (s->nodes[i].agent &&
            s->nodes[i].cpus * 10000 - s->nodes[i].used >= s->apps[app].live.args[DEPLOY_CPU] * 100)
            return true;
    return false;
}

static bool deployment_reached(struct sim *s, int app,
                               const struct rs_controller_deployment_summary *d, struct rs_buf *why)
{
    const struct sim_app *x = &s->apps[app];
    int k = sim_deployment_index(d->name);
    struct census c = count(s, app, k);
    unsigned want = k == SIM_A && x->live.args[DEPLOY_MAX] ? (unsigned)x->live.args[DEPLOY_REPLICAS]
                                                           : wanted(x, k);

    if (d->target != want) {
        rs_buf_printf(why, "%s#%s is to have %u replicas, %u were asked for", sim_app_names[app],
                      d->name, d->target, want);
        return false;
    }
    if (c.right == want && c.wrong == 0 && strcmp(d->status, "HEALTHY") == 0)
        return true;
    if (c.wrong == 0 && c.right < want && !fits_somewhere(s, app) && d->blocked)
        return true; /* it says that there is no room, and there is none */
    rs_buf_printf(
        why, "%s#%s is %s with %u replicas as they should be of %u, and %u others (blocked: %s)",
        sim_app_names[app], d->name, d->status, c.right, want, c.wrong,
        d->blocked ? d->blocked : "no");
    return false;
}

static bool app_reached(struct sim *s, int app, const struct rs_controller_app_summary *a,
                        struct rs_buf *why)
{
    bool all = true;

    if (!s->apps[app].live.there) {
        rs_buf_printf(why, "%s was deleted, and is %s", sim_app_names[app], a->status);
        return false;
    }
    for (size_t i = 0; all && i < a->n_deployments; i++)
        all = deployment_reached(s, app, &a->deployments[i], why);
    if (!all)
        return false;
    if (a->building || a->n_deployments != (s->apps[app].live.args[DEPLOY_SIDE] ? 2u : 1u)) {
        rs_buf_printf(why, "%s is %s with %zu deployments: %s", sim_app_names[app], a->status,
                      a->n_deployments, a->message);
        return false;
    }
    return true;
}

bool sim_check_reached(struct sim *s, struct rs_buf *why)
{
    struct rs_controller_summary sum;
    bool seen[SIM_APPS] = {false}, reached = true;

    bool any = false;

    for (size_t i = 0; i < s->n_nodes; i++)
        any |= s->nodes[i].agent != NULL;
    if (!any)
        return true; /* there is nothing that it could run on */
    if (!s->controller) {
        rs_buf_puts(why, "there is no head");
        return false;
    }
    rs_controller_summary(s->controller, &sum);
    for (size_t i = 0; reached && i < sum.n_apps; i++) {
        int app = sim_app_index(sum.apps[i].name);

        if (app < 0)
            continue;
        seen[app] = true;
        reached = app_reached(s, app, &sum.apps[i], why);
    }
    rs_controller_summary_fini(&sum);
    for (int a = 0; reached && a < SIM_APPS; a++) {
        if (!seen[a] && s->apps[a].live.there) {
            rs_buf_printf(why, "%s is not there", sim_app_names[a]);
            reached = false;
        } else if (!seen[a] && count(s, a, SIM_A).all + count(s, a, SIM_B).all > 0) {
            rs_buf_printf(why, "%s was deleted, and processes of it are left", sim_app_names[a]);
            reached = false;
        }
    }
    return reached;
}
