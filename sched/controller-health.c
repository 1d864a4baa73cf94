/* Events of how replicas do: what reports of a node say now and did not say before.
 *
 * HEALTH: a replica fell ill, recovered or ended by itself; `before` and `status` are of sched/health.h.
 * REPLACE: one that is well is replaced.
 */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "sched/health.h"

#include <string.h>

static enum rs_health_condition condition(const struct rs_report_replica *r)
{
    int c = r ? rs_health_condition_parse(rs_json_str(r->health, "condition", "well")) : 0;

    return c < 0 ? RS_HEALTH_WELL : (enum rs_health_condition)c;
}

static const struct rs_report_replica *find(const struct rs_report_replica *all, size_t n,
                                            const char *id)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i].replica_id, id) == 0)
            return &all[i];
    return NULL;
}

static void tell(struct rs_controller *c, const struct rs_ct_node *node,
                 const struct rs_report_replica *r, enum rs_health_condition was)
{
    enum rs_health_condition is = condition(r);
    bool illness = rs_health_is_illness(is) && rs_health_is_illness(was);
    const char *text = rs_json_str(r->health, "text", NULL);

    rs_ct_emit(c, &(struct rs_controller_event){
                      .kind = illness ? RS_EVENT_HEALTH : RS_EVENT_REPLACE,
                      .app = r->app,
                      .deployment = r->deployment,
                      .replica_id = r->replica_id,
                      .node_id = node->id,
                      .before = rs_health_status_name(was),
                      .status = rs_health_status_name(is),
                      .cause = rs_health_condition_name(is),
                      .who = "health",
                      .text = text         ? text
                              : r->message ? r->message
                                           : "",
                      .data = r->health,
                  });
}

int rs_controller_replace(struct rs_controller *c, const char *replica_id, struct rs_error *err)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);
        const struct rs_report_replica *r =
            n && n->report ? find(n->report->replicas, n->report->n_replicas, replica_id) : NULL;
        const struct rs_ct_app *app = r ? rs_map_get(&c->apps, r->app) : NULL;
        const struct rs_ct_deployment *d =
            app ? rs_map_get(&app->deployments, r->deployment) : NULL;
        rs_auto(rs_json_decrefp) json_t *order = NULL;

        if (!d || r->state == RS_REPLICA_STOPPED)
            continue;
        if (rs_deployment_conf_grouped(d->conf))
            return rs_error_set(
                err, RS_CONFLICT,
                "replica '%.60s' has a placement group, whose members start and end "
                "together; it cannot be replaced alone",
                replica_id);
        rs_ct_emit(c, &(struct rs_controller_event){.kind = RS_EVENT_DEPLOY,
                                                    .app = r->app,
                                                    .deployment = r->deployment,
                                                    .replica_id = replica_id,
                                                    .node_id = n->id,
                                                    .status = "REPLACE"});
        order = json_pack("{s:s}", "replace", replica_id);
        c->ops.core(n->id, order, c->arg);
        return 0;
    }
    return rs_error_set(err, RS_NOT_FOUND,
                        "no replica '%.60s' lives (GET /api/v1/replicas lists them)", replica_id);
}

/* An end that nobody asked for. */
static bool is_end(enum rs_health_condition c)
{
    return c == RS_HEALTH_DEAD || c == RS_HEALTH_OOM;
}

void rs_ct_health_events(struct rs_controller *c, const struct rs_ct_node *node,
                         const struct rs_report *before, const struct rs_report *after)
{
    for (size_t i = 0; after && i < after->n_replicas; i++) {
        const struct rs_report_replica *r = &after->replicas[i];
        const struct rs_report_replica *was =
            before ? find(before->replicas, before->n_replicas, r->replica_id) : NULL;

        if (condition(r) != condition(was))
            tell(c, node, r, condition(was));
    }
    for (size_t i = 0; before && after && i < after->n_dead; i++) {
        const struct rs_report_replica *r = &after->dead[i];
        const struct rs_report_replica *was =
            find(before->replicas, before->n_replicas, r->replica_id);

        if (find(before->dead, before->n_dead, r->replica_id) || condition(r) == condition(was) ||
            (is_end(condition(r)) && rs_json_bool(r->health, "asked", false)))
            continue;
        tell(c, node, r, condition(was));
    }
}
