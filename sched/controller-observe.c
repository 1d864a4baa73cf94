/* What the nodes report, and what follows from it for statuses. */
#include "sched/controller-roll.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOW_START (30 * RS_SEC)
#define PER_REPLICA_RETRIES 3u

/* --- adding up --- */

static void add_replica(struct rs_ct_seen *s, const struct rs_report_replica *r,
                        const struct rs_ct_deployment *d)
{
    bool live = r->state <= RS_REPLICA_UPDATING;

    s->in_flight += r->in_flight;
    if (!live)
        s->stopping++;
    else if (strcmp(r->version, d->version) != 0)
        s->old_live++;
    else if (r->state == RS_REPLICA_RUNNING)
        s->running++;
    else if (r->state == RS_REPLICA_UPDATING)
        s->updating++;
    else
        s->starting++;
}

static void add_counters(struct rs_ct_seen *s, const struct rs_report_deployment *r,
                         const struct rs_ct_deployment *d)
{
    s->queued += r->queued;
    s->dropped_full += r->dropped_full;
    s->dropped_shed += r->dropped_shed;
    s->dropped_expired += r->dropped_expired;
    s->router_fallbacks += r->router_fallbacks;
    if (r->router)
        s->router = r->router;
    if (strcmp(r->version, d->version) != 0)
        return;
    s->start_failures += r->start_failures;
    s->failures_total += r->failures_total;
    s->deaths += r->deaths;
    s->ever_ran |= r->ever_ran;
    if (r->last_error)
        s->last_error = r->last_error;
    if (r->blocked)
        s->blocked = r->blocked;
}

static struct rs_ct_deployment *find(const struct rs_controller *c, const char *app_name,
                                     const char *name)
{
    const struct rs_ct_app *app = rs_map_get(&c->apps, app_name);
    struct rs_ct_deployment *d = app ? rs_map_get(&app->deployments, name) : NULL;

    app = d ? NULL : rs_map_get(&c->core.apps, app_name);
    return app ? rs_map_get(&app->deployments, name) : d;
}

static void begin_look(const struct rs_controller *c, struct rs_ct_deployment *d, size_t nodes)
{
    d->look = (struct rs_ct_seen){0};
    d->look_facts = c->facts;
    snprintf(d->look_version, sizeof(d->look_version), "%s", d->version);
    d->up_on = rs_grow(d->up_on, &d->cap_up_on, nodes + 1, sizeof(*d->up_on));
    memset(d->up_on, 0, (nodes + 1) * sizeof(*d->up_on));
}

static void look_at_node(const struct rs_controller *c, struct rs_ct_node *n)
{
    const struct rs_report *r = n->report;
    struct rs_ct_deployment *d;

    for (size_t k = 0; r && k < r->n_replicas; k++) {
        const struct rs_report_replica *x = &r->replicas[k];

        d = find(c, x->app, x->deployment);
        if (!d)
            continue;
        for (size_t i = 0; i < d->n_old; i++)
            add_replica(&d->old[i]->look, x, d->old[i]);
        add_replica(&d->look, x, d);
        d->up_on[n->at] += x->state == RS_REPLICA_RUNNING || x->state == RS_REPLICA_UPDATING;
    }
    for (size_t k = 0; r && k < r->n_deployments; k++) {
        d = find(c, r->deployments[k].app, r->deployments[k].name);
        for (size_t i = 0; d && i < d->n_old; i++)
            add_counters(&d->old[i]->look, &r->deployments[k], d->old[i]);
        if (d)
            add_counters(&d->look, &r->deployments[k], d);
    }
}

/* All deployments in one walk over the reports. */
static void look_at_all(const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
        const struct rs_ct_app *app = rs_ct_all_at(c, i);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            for (size_t o = 0; d && o < d->n_old; o++)
                begin_look(c, d->old[o], rs_map_slots(&c->nodes));
            if (d)
                begin_look(c, d, rs_map_slots(&c->nodes));
        }
    }
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (!n)
            continue;
        n->at = i;
        look_at_node(c, n);
    }
}

static bool is_looked_at(const struct rs_controller *c, const struct rs_ct_deployment *d)
{
    return d->up_on && d->look_facts == c->facts &&
           strncmp(d->look_version, d->version, sizeof(d->look_version) - 1) == 0;
}

static bool is_fresh(const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && (!n->report || n->report->revision < n->sent_revision))
            return false;
    }
    return true;
}

/* One that is on its way out of the maps is found by nobody. */
static void look_at_lost(const struct rs_controller *c, struct rs_ct_deployment *d)
{
    begin_look(c, d, rs_map_slots(&c->nodes));
}

static void look(const struct rs_controller *c, const struct rs_ct_deployment *d)
{
    if (!is_looked_at(c, d))
        look_at_all(c);
    if (!is_looked_at(c, d))
        look_at_lost(c, (struct rs_ct_deployment *)(uintptr_t)d);
}

struct rs_ct_seen rs_ct_look(const struct rs_controller *c, const struct rs_ct_deployment *d)
{
    struct rs_ct_seen s;

    look(c, d);
    s = d->look;
    s.fresh = is_fresh(c);
    return s;
}

unsigned rs_ct_up_on(const struct rs_controller *c, const struct rs_ct_deployment *d,
                     const struct rs_ct_node *n)
{
    look(c, d);
    return d->up_on[n->at];
}

static unsigned limit_of(const struct rs_ct_deployment *d, unsigned replicas)
{
    unsigned by_size = PER_REPLICA_RETRIES * (replicas ? replicas : 1);
    unsigned by_conf = (unsigned)d->conf->max_constructor_retry_count;

    return by_conf < by_size ? by_conf : by_size;
}

/* Of a version that rolls in, as many start at first as may be too many. */
unsigned rs_ct_start_limit(const struct rs_ct_deployment *d)
{
    return limit_of(d, rs_ct_run(d));
}

unsigned rs_ct_roll_death_limit(const struct rs_ct_deployment *d)
{
    return limit_of(d, d->wanted);
}

/* --- statuses --- */

static void set_message(struct rs_ct_deployment *d, char *message)
{
    bool same = strcmp(d->message, message) == 0;
    struct rs_controller *c = d->app->controller;

    rs_ct_set(&d->message, message);
    if (!same)
        rs_ct_emit(c, &(struct rs_controller_event){
                          .kind = RS_EVENT_DEPLOYMENT,
                          .app = d->app->name,
                          .deployment = d->name,
                          .status = rs_deployment_status_name(d->status.status),
                          .text = d->message,
                      });
}

void rs_ct_event(struct rs_ct_deployment *d, enum rs_status_event event, char *message)
{
    enum rs_deployment_status before = d->status.status;
    struct rs_controller *c = d->app->controller;

    enum rs_status_outcome outcome = rs_status_step(&d->status, event);

    if (outcome == RS_STATUS_DEFECT)
        rs_log_error("the state machine of a deployment knows no such event",
                     "application=%s deployment=%s status=%s event=%d", d->app->name, d->name,
                     rs_deployment_status_name(before), (int)event);
    if (outcome != RS_STATUS_MOVED) {
        free(message);
        return;
    }
    if (before == d->status.status) {
        set_message(d, message);
        return;
    }
    rs_ct_set(&d->message, message);
    rs_ct_emit(c, &(struct rs_controller_event){
                      .kind = RS_EVENT_DEPLOYMENT,
                      .app = d->app->name,
                      .deployment = d->name,
                      .before = rs_deployment_status_name(before),
                      .status = rs_deployment_status_name(d->status.status),
                      .cause = rs_trigger_name(d->status.trigger),
                      .text = d->message,
                  });
}

static void give_up(struct rs_ct_deployment *d, const struct rs_ct_seen *s)
{
    rs_auto(rs_freep) char *text = rs_status_message(
        RS_STATUS_START_FAILED,
        &(struct rs_status_facts){.failures = s->start_failures, .error = s->last_error});
    rs_auto(rs_freep) char *hint = rs_ct_roll_hint(d);

    d->failed = true;
    rs_ct_event(d, RS_STATUS_START_FAILED, rs_asprintf("%s%s", text, hint));
}

static void tell_retry(struct rs_ct_deployment *d, const struct rs_ct_seen *s)
{
    unsigned limit = rs_ct_start_limit(d);
    const char *error = s->last_error ? s->last_error : "unknown";

    if (s->ever_ran)
        set_message(d, rs_asprintf("A replica failed to start with exception. Retrying. Error:\n%s",
                                   error));
    else
        set_message(d,
                    rs_asprintf("A replica failed to start with exception. Retrying %u more "
                                "time(s). Error:\n%s",
                                limit > s->start_failures ? limit - s->start_failures : 0, error));
}

static void count_failures(struct rs_ct_deployment *d, const struct rs_ct_seen *s)
{
    if (!d->failed && !s->ever_ran && s->start_failures >= rs_ct_start_limit(d))
        give_up(d, s);
    else if (!d->failed && s->failures_total > d->seen_failures)
        tell_retry(d, s);
    d->seen_failures = s->failures_total;
    if (s->deaths > d->seen_deaths && d->roll.phase != RS_ROLLOUT_STOPPED)
        rs_ct_event(d, RS_STATUS_HEALTH_FAILED,
                    rs_status_message(RS_STATUS_HEALTH_FAILED,
                                      &(struct rs_status_facts){.error = s->last_error}));
    d->seen_deaths = s->deaths;
}

static bool all_running(const struct rs_ct_deployment *d, const struct rs_ct_seen *s)
{
    return s->running == d->wanted && d->n_slots == d->wanted && s->updating == 0 &&
           s->starting == 0 && s->stopping == 0 && s->old_live == 0;
}

/* What it waits for, for people; failures have their own message. */
static void note_waiting(struct rs_ct_deployment *d, const struct rs_ct_seen *s, int64_t now)
{
    unsigned up = s->running + s->updating, goal = rs_ct_run(d);
    unsigned missing = goal > up ? goal - up : 0;
    unsigned not_placed = goal > d->n_slots ? goal - (unsigned)d->n_slots : 0;
    const char *why = d->blocked ? d->blocked : s->blocked;

    rs_ct_set(&d->notice, rs_ct_roll_notice(d));
    if (missing == 0 || d->failed) {
        d->waiting_since = 0;
        d->slow = false;
        return;
    }
    if (!d->waiting_since)
        d->waiting_since = now;
    d->slow = now - d->waiting_since >= SLOW_START;
    if (d->notice)
        return;
    if (why)
        d->notice =
            rs_asprintf("%u replica%s of %u pending: %s", not_placed ? not_placed : missing,
                        (not_placed ? not_placed : missing) == 1 ? "" : "s", d->wanted, why);
    else if (d->slow)
        d->notice = rs_asprintf("Deployment '%s' in application '%s' has %u replicas that have "
                                "taken more than 30s to initialize.\nThis may be caused by a slow "
                                "__init__ or reconfigure method.",
                                d->name, d->app->name, missing);
}

static void observe_deployment(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);

    if (s.fresh) {
        count_failures(d, &s);
        if (all_running(d, &s) && !d->failed)
            rs_ct_event(d, RS_STATUS_ALL_RUNNING,
                        rs_status_message(RS_STATUS_ALL_RUNNING, &(struct rs_status_facts){0}));
        if (d->status.status == RS_DEPLOYMENT_HEALTHY && all_running(d, &s) && *d->message)
            set_message(d, rs_strdup(""));
    }
    note_waiting(d, &s, now);
}

/* Gone and nothing of it left on any node. */
static bool ended(const struct rs_ct_deployment *d)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);

    return s.fresh && s.running + s.updating + s.starting + s.stopping + s.old_live == 0;
}

/* --- applications --- */

/* "['A', 'B']": the deployments in a status. */
static void list_of(struct rs_buf *out, const struct rs_ct_app *app,
                    enum rs_deployment_status status)
{
    unsigned n = 0;

    rs_buf_puts(out, "[");
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && d->status.status == status && !d->gone)
            rs_buf_printf(out, "%s'%s'", n++ ? ", " : "", d->name);
    }
    rs_buf_puts(out, "]");
}

static enum rs_app_event by_deployments(const struct rs_ct_app *app, struct rs_buf *list)
{
    size_t n = 0;
    struct rs_status *all = rs_alloc((rs_map_count(&app->deployments) + 1) * sizeof(*all));
    enum rs_app_event event;

    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && !d->gone)
            all[n++] = d->status;
    }
    event = rs_app_event_of(all, n);
    free(all);
    if (event == RS_APP_EVENT_FAILED || event == RS_APP_EVENT_ILL)
        list_of(list, app,
                event == RS_APP_EVENT_ILL ? RS_DEPLOYMENT_UNHEALTHY : RS_DEPLOYMENT_DEPLOY_FAILED);
    return event;
}

/* What the making of the environment that it is built in is at; "" if there is nothing to say. */
static const char *setting_up(const struct rs_ct_app *app)
{
    const struct rs_ct_node *n =
        app->builder ? rs_map_get(&app->controller->nodes, app->builder) : NULL;
    const struct rs_report *r = n ? n->report : NULL;

    for (size_t i = 0; r && app->build_version && i < r->n_zygotes; i++) {
        const struct rs_report_zygote *z = &r->zygotes[i];

        if (z->message && strcmp(z->app, app->name) == 0 &&
            strcmp(z->version, app->build_version) == 0)
            return z->message;
    }
    return "";
}

/* What is the case with it, and what its message is made of. */
static enum rs_app_event app_event(const struct rs_ct_app *app, struct rs_status_facts *f,
                                   struct rs_buf *list)
{
    enum rs_app_event event;

    if (app->deleting)
        return RS_APP_EVENT_DELETE;
    if (app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING) {
        f->progress = setting_up(app);
        return RS_APP_EVENT_BUILD;
    }
    if (app->failure) {
        f->error = app->failure;
        return RS_APP_EVENT_REFUSED;
    }
    if (app->route_taken) {
        f->error = app->route_trouble;
        return RS_APP_EVENT_REFUSED;
    }
    if (app->route_trouble) {
        f->progress = app->route_trouble;
        return RS_APP_EVENT_BUILD;
    }
    event = by_deployments(app, list);
    f->list = rs_buf_text(list);
    return event;
}

static void observe_app(struct rs_ct_app *app)
{
    struct rs_buf list = {0};
    struct rs_status_facts facts = {.app = app->name};
    enum rs_app_event event = app_event(app, &facts, &list);
    enum rs_app_status was = app->status;
    enum rs_status_outcome outcome = rs_app_status_step(&app->status, event);
    rs_auto(rs_freep) char *message = rs_app_status_message(event, &facts);

    rs_buf_fini(&list);
    if (outcome == RS_STATUS_DEFECT) {
        rs_log_error("the state machine of an application knows no such event",
                     "application=%s status=%s event=%d", app->name, rs_app_status_name(was),
                     (int)event);
        return;
    }
    if (app->status == RS_APP_RUNNING && !app->noted)
        rs_ct_note_running(app);
    if (outcome == RS_STATUS_SAME && strcmp(app->message, message) == 0)
        return;
    rs_ct_set(&app->message, rs_steal(message));
    rs_ct_emit(app->controller, &(struct rs_controller_event){
                                    .kind = RS_EVENT_APP,
                                    .app = app->name,
                                    .before = was != app->status ? rs_app_status_name(was) : NULL,
                                    .status = rs_app_status_name(app->status),
                                    .text = app->message,
                                });
}

void rs_ct_observe(struct rs_controller *c, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const char *name = NULL;
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, &name);

            if (d && d->gone && ended(d)) {
                rs_map_remove(&app->deployments, name);
                rs_ct_deployment_free(d);
            } else if (d && !d->gone) {
                observe_deployment(d, now);
            }
        }
        if (app)
            observe_app(app);
    }
}

/* --- events of replicas --- */

static const struct rs_report_replica *find_replica(const struct rs_report *r, const char *id)
{
    for (size_t i = 0; r && i < r->n_replicas; i++)
        if (strcmp(r->replicas[i].replica_id, id) == 0)
            return &r->replicas[i];
    return NULL;
}

static void replica_event(struct rs_controller *c, const struct rs_ct_node *node,
                          const struct rs_report_replica *r, const char *before, const char *status,
                          const char *cause)
{
    rs_ct_emit(c, &(struct rs_controller_event){
                      .kind = RS_EVENT_REPLICA,
                      .app = r->app,
                      .deployment = r->deployment,
                      .replica_id = r->replica_id,
                      .node_id = node->id,
                      .before = before,
                      .status = status,
                      .cause = cause,
                      .text = r->message,
                  });
}

/* As the node remembers it, which knows how it ended; else as it was seen last. */
static const struct rs_report_replica *as_dead(const struct rs_report *r,
                                               const struct rs_report_replica *seen)
{
    for (size_t i = 0; r && i < r->n_dead; i++)
        if (strcmp(r->dead[i].replica_id, seen->replica_id) == 0)
            return &r->dead[i];
    return seen;
}

void rs_ct_replica_events(struct rs_controller *c, const struct rs_ct_node *node,
                          const struct rs_report *before, const struct rs_report *after,
                          const char *cause)
{
    for (size_t i = 0; after && i < after->n_replicas; i++) {
        const struct rs_report_replica *r = &after->replicas[i];
        const struct rs_report_replica *was = find_replica(before, r->replica_id);

        if (!was || was->state != r->state)
            replica_event(c, node, r, was ? rs_replica_state_name(was->state) : NULL,
                          rs_replica_state_name(r->state), cause);
    }
    for (size_t i = 0; before && i < before->n_replicas; i++) {
        const struct rs_report_replica *r = &before->replicas[i];

        if (r->state != RS_REPLICA_STOPPED && !find_replica(after, r->replica_id))
            replica_event(c, node, as_dead(after, r), rs_replica_state_name(r->state), "STOPPED",
                          cause);
    }
    rs_ct_health_events(c, node, before, after);
}
